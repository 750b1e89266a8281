//! The automaton, one byte after the other: all the states it can be in at once, so that the price of a byte is bounded
//! by the number of states, whatever the pattern and the text.

const std = @import("std");
const program_module = @import("program.zig");
const syntax = @import("syntax.zig");

const Allocator = std.mem.Allocator;
const Program = program_module.Program;

/// What comes next: a byte, or the text's end.
pub const Symbol = ?u8;

/// What lies behind, as far as assertions ask.
pub const Context = packed struct(u8) {
    at_start: bool = false,
    after_newline: bool = false,
    after_word: bool = false,
    _: u5 = 0,

    pub const start: Context = .{ .at_start = true, .after_newline = true };

    fn after(program: *const Program, byte: u8) Context {
        return .{
            .after_newline = program.asserts_lines and byte == '\n',
            .after_word = program.asserts_words and program_module.isWord(byte),
        };
    }

    /// Whether an assertion holds between what lies behind and `symbol`.
    fn holds(self: Context, kind: syntax.Assertion, symbol: Symbol) bool {
        const before_word = if (symbol) |byte| program_module.isWord(byte) else false;
        return switch (kind) {
            .text_start => self.at_start,
            .text_end => symbol == null,
            .line_start => self.after_newline,
            .line_end => symbol == null or symbol.? == '\n',
            .word_boundary => self.after_word != before_word,
            // Within a character there is no place for anything.
            .no_word_boundary => self.after_word == before_word and
                (symbol == null or !program_module.isContinuation(symbol.?)),
        };
    }
};

/// States in the order of their arrival, each once.
pub const Set = struct {
    items: []u32,
    /// Of each state, where it would be in `items`.
    places: []u32,
    length: usize = 0,
    /// Whether there is an assertion among them, which only what comes next decides about.
    asserts: bool = false,

    fn init(arena: Allocator, states: usize) Allocator.Error!Set {
        const places = try arena.alloc(u32, states);
        @memset(places, 0);
        return .{ .items = try arena.alloc(u32, states), .places = places };
    }

    pub fn clear(self: *Set) void {
        self.length = 0;
        self.asserts = false;
    }

    pub fn slice(self: *const Set) []u32 {
        return self.items[0..self.length];
    }

    /// False when it is there already.
    pub fn add(self: *Set, state: u32) bool {
        const place = self.places[state];
        if (place < self.length and self.items[place] == state) return false;
        self.places[state] = @intCast(self.length);
        self.items[self.length] = state;
        self.length += 1;
        return true;
    }
};

/// Room for the states between two bytes.
pub const Search = struct {
    program: *const Program,
    /// States that wait for a byte or are assertions.
    current: Set,
    following: Set,
    /// `current` without its assertions.
    decided: Set,
    /// States that were walked through without a byte.
    passed: Set,
    stack: []u32,
    context: Context = .start,

    pub fn init(arena: Allocator, program: *const Program) Allocator.Error!Search {
        const count = program.states.len;
        return .{
            .program = program,
            .current = try .init(arena, count),
            .following = try .init(arena, count),
            .decided = try .init(arena, count),
            .passed = try .init(arena, count),
            // A state is put there once for each way to it, of which a split makes two.
            .stack = try arena.alloc(u32, 2 * count + 1),
        };
    }

    pub const Outcome = enum { found, not_found, goes_on };

    /// To the text's start.
    pub fn begin(self: *Search) Outcome {
        self.current.clear();
        self.passed.clear();
        self.context = .start;
        if (self.follow(self.program.start, &self.current, null)) return .found;
        return self.arrived();
    }

    /// Past one byte, or the text's end; after the end there is an answer.
    pub fn step(self: *Search, symbol: Symbol) Outcome {
        var waiting = &self.current;
        if (self.current.asserts) {
            self.decided.clear();
            self.passed.clear();
            for (self.current.slice()) |state|
                if (self.follow(state, &self.decided, .{ .context = self.context, .symbol = symbol })) return .found;
            waiting = &self.decided;
        }
        const byte = symbol orelse return .not_found;
        self.following.clear();
        self.passed.clear();
        for (waiting.slice()) |state| {
            const next = self.program.next(&self.program.states[state], byte) orelse continue;
            if (self.follow(next, &self.following, null)) return .found;
        }
        std.mem.swap(Set, &self.current, &self.following);
        self.context = .after(self.program, byte);
        return self.arrived();
    }

    fn arrived(self: *Search) Outcome {
        // So that two sets that mean the same are the same.
        if (!self.current.asserts) self.context = .{};
        return if (self.current.length == 0) .not_found else .goes_on;
    }

    const Place = struct { context: Context, symbol: Symbol };

    /// Adds what can be reached from `state` without a byte. Assertions are decided at `place`, or stay in the set where
    /// it is not known yet. True: the match is among it.
    fn follow(self: *Search, state: u32, into: *Set, place: ?Place) bool {
        var height: usize = 1;
        self.stack[0] = state;
        while (height > 0) {
            height -= 1;
            const id = self.stack[height];
            switch (self.program.states[id]) {
                .match => return true,
                .bytes => _ = into.add(id),
                .split => |targets| if (self.passed.add(id)) {
                    self.stack[height] = targets[1];
                    self.stack[height + 1] = targets[0];
                    height += 2;
                },
                .assertion => |assertion| if (place) |known| {
                    if (self.passed.add(id) and known.context.holds(assertion.kind, known.symbol)) {
                        self.stack[height] = assertion.next;
                        height += 1;
                    }
                } else {
                    _ = into.add(id);
                    into.asserts = true;
                },
            }
        }
        return false;
    }
};
