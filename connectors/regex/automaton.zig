//! The sets of states that a search goes through, remembered: each is one state of a deterministic automaton, made when
//! a text first leads there. From then on a byte costs one look into a table.
//!
//!     transitions    of each state a row: where each class of bytes leads, and the text's end
//!     members        of each state the program's states that it stands for
//!
//! The memory is bounded: when it is full, all is forgotten and learnt anew. A text that makes states about as fast as it
//! has bytes is searched without remembering.

const std = @import("std");
const Program = @import("program.zig").Program;
const search_module = @import("search.zig");

const Allocator = std.mem.Allocator;
const Context = search_module.Context;
const Search = search_module.Search;

/// Bytes of what is remembered of one pattern, about.
const memory_max = 1024 * 1024;
/// Bytes of text that a state must have been good for, for remembering to be worth its price.
const worth = 8;
/// Bytes of text that are searched without remembering when it was not; twice as many the next time.
const first_pause = 64 * 1024;

pub const Automaton = struct {
    gpa: Allocator,
    program: *const Program,
    search: *Search,
    /// Columns of a row. A state is known by where its row begins, so that this is also the step from one to the next.
    width: u32,
    transitions: std.ArrayList(u32) = .empty,
    members: std.ArrayList(u32) = .empty,
    states: std.ArrayList(State) = .empty,
    /// By the hash of what they stand for. Where two have the same, one of them is not found again.
    known: std.AutoHashMapUnmanaged(u64, u32) = .empty,
    start: u32 = not_learnt,
    /// Bytes of text since all was forgotten.
    searched: usize = 0,
    pause: usize = 0,
    next_pause: usize = first_pause,

    const State = struct { first: u32, length: u32, context: Context, asserts: bool };

    const not_learnt = 0;

    pub fn init(gpa: Allocator, program: *const Program, search: *Search) Automaton {
        return .{ .gpa = gpa, .program = program, .search = search, .width = @intCast(program.class_count + 1) };
    }

    pub fn deinit(self: *Automaton) void {
        self.transitions.deinit(self.gpa);
        self.members.deinit(self.gpa);
        self.states.deinit(self.gpa);
        self.known.deinit(self.gpa);
    }

    /// The rows before those of states: they stand for no state, and nothing is in them.
    fn notFound(self: *const Automaton) u32 {
        return self.width;
    }

    fn found(self: *const Automaton) u32 {
        return 2 * self.width;
    }

    pub fn isFound(self: *Automaton, text: []const u8) bool {
        if (self.pause > 0) {
            self.pause -|= text.len + 1;
            return self.goOn(self.search.begin(), text);
        }
        defer self.searched +|= text.len;
        const last_special = self.found();
        var state = self.start;
        if (state == not_learnt) {
            const outcome = self.search.begin();
            state = self.remembered(outcome) catch return self.goOn(outcome, text);
            self.start = state;
        }
        if (state <= last_special) return state == last_special;
        const classes = &self.program.classes;
        var table = self.transitions.items.ptr;
        var i: usize = 0;
        while (i < text.len) {
            const next = table[state + classes[text[i]]];
            i += 1;
            if (next > last_special) {
                @branchHint(.likely);
                state = next;
                continue;
            }
            if (next != not_learnt) return next == last_special;
            const outcome = self.stepped(state, text[i - 1]);
            const learnt = self.learn(state, classes[text[i - 1]], outcome, i) catch return self.goOn(outcome, text[i..]);
            if (learnt <= last_special) return learnt == last_special;
            state = learnt;
            table = self.transitions.items.ptr;
        }
        const column: u32 = @intCast(self.program.class_count);
        const end = table[state + column];
        if (end != not_learnt) return end == last_special;
        const outcome = self.stepped(state, null);
        self.transitions.items[state + column] = if (outcome == .found) self.found() else self.notFound();
        return outcome == .found;
    }

    /// Without remembering.
    fn goOn(self: *Automaton, reached: Search.Outcome, text: []const u8) bool {
        var outcome = reached;
        for (text) |byte| {
            if (outcome != .goes_on) break;
            outcome = self.search.step(byte);
        }
        if (outcome == .goes_on) outcome = self.search.step(null);
        return outcome == .found;
    }

    /// The search, one step from where it is in `state`.
    fn stepped(self: *Automaton, state: u32, symbol: search_module.Symbol) Search.Outcome {
        const from = self.states.items[state / self.width];
        const current = &self.search.current;
        current.clear();
        @memcpy(current.items[0..from.length], self.members.items[from.first..][0..from.length]);
        current.length = from.length;
        current.asserts = from.asserts;
        self.search.context = from.context;
        return self.search.step(symbol);
    }

    const Error = Allocator.Error || error{NotWorthIt};

    /// Where the search is now, as what `column` of `from` leads to.
    fn learn(self: *Automaton, from: u32, column: u32, outcome: Search.Outcome, position: usize) Error!u32 {
        errdefer self.rest();
        if (self.memory() > memory_max) {
            const is_worth_it = self.searched + position >= worth * self.states.items.len;
            self.forget();
            return if (is_worth_it) self.remembered(outcome) else error.NotWorthIt;
        }
        const state = try self.remembered(outcome);
        self.transitions.items[from + column] = state;
        return state;
    }

    /// The state of where the search is now.
    fn remembered(self: *Automaton, outcome: Search.Outcome) Allocator.Error!u32 {
        switch (outcome) {
            .found => return self.found(),
            .not_found => return self.notFound(),
            .goes_on => {},
        }
        // The order in which states were reached says nothing.
        const members = self.search.current.slice();
        std.mem.sortUnstable(u32, members, {}, std.sort.asc(u32));
        const context = self.search.context;
        var hash: std.hash.Wyhash = .init(@as(u8, @bitCast(context)));
        hash.update(std.mem.sliceAsBytes(members));
        const key = hash.final();
        if (self.known.get(key)) |id| {
            const state = self.states.items[id / self.width];
            const same = self.members.items[state.first..][0..state.length];
            if (state.context == context and std.mem.eql(u32, same, members)) return id;
        }
        if (self.states.items.len == 0) {
            // Nothing leads from the three that come first.
            try self.transitions.ensureUnusedCapacity(self.gpa, 3 * self.width);
            try self.states.appendNTimes(self.gpa, undefined, 3);
            self.transitions.appendNTimesAssumeCapacity(not_learnt, 3 * self.width);
        }
        try self.members.ensureUnusedCapacity(self.gpa, members.len);
        try self.transitions.ensureUnusedCapacity(self.gpa, self.width);
        try self.states.ensureUnusedCapacity(self.gpa, 1);
        const id: u32 = @intCast(self.transitions.items.len);
        try self.known.put(self.gpa, key, id);
        self.states.appendAssumeCapacity(.{
            .first = @intCast(self.members.items.len),
            .length = @intCast(members.len),
            .context = context,
            .asserts = self.search.current.asserts,
        });
        self.members.appendSliceAssumeCapacity(members);
        self.transitions.appendNTimesAssumeCapacity(not_learnt, self.width);
        return id;
    }

    fn memory(self: *const Automaton) usize {
        const of_state = @sizeOf(State) + 2 * @sizeOf(u64);
        return @sizeOf(u32) * (self.transitions.items.len + self.members.items.len) + of_state * self.states.items.len;
    }

    fn forget(self: *Automaton) void {
        self.transitions.clearRetainingCapacity();
        self.members.clearRetainingCapacity();
        self.states.clearRetainingCapacity();
        self.known.clearRetainingCapacity();
        self.start = not_learnt;
        self.searched = 0;
    }

    fn rest(self: *Automaton) void {
        self.forget();
        self.pause = self.next_pause;
        self.next_pause *|= 2;
    }
};
