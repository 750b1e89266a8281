//! A tree as an automaton over bytes: states that wait for a byte, and states that lead on without one.
//!
//! Built from its end to its beginning, so that each state knows the ones behind it. Nothing says where a match begins
//! or ends, only whether there is one.

const std = @import("std");
const codepoints = @import("codepoints.zig");
const syntax = @import("syntax.zig");
const utf8 = @import("utf8.zig");

const Allocator = std.mem.Allocator;
const Node = syntax.Node;

/// States of one pattern. A text's price is at most this number for each byte.
pub const max_states = 20_000;
/// Nodes that are visited: a repetition of nothing makes no states.
const max_steps = 200_000;

pub const State = union(enum) {
    /// Transitions `start … end` of the program: on a byte of these to that state. Their ranges ascend.
    bytes: struct { start: u32, end: u32 },
    split: [2]u32,
    assertion: struct { kind: syntax.Assertion, next: u32 },
    match,
};

pub const Transition = struct { first: u8, last: u8, next: u32 };

pub const Program = struct {
    states: []const State,
    transitions: []const Transition,
    start: u32,
    /// Bytes that no state and no assertion tells apart are of one class.
    classes: [256]u8,
    class_count: usize,
    /// A byte of each class.
    samples: [256]u8,
    asserts_lines: bool,
    asserts_words: bool,

    /// Where a byte leads; null when it leads nowhere.
    pub inline fn next(self: *const Program, state: *const State, byte: u8) ?u32 {
        for (self.transitions[state.bytes.start..state.bytes.end]) |transition| {
            if (byte < transition.first) return null;
            if (byte <= transition.last) return transition.next;
        }
        return null;
    }
};

/// Everything lives in `arena`.
pub fn build(arena: Allocator, node: *const Node, problem: *syntax.Problem) syntax.Error!Program {
    var builder: Builder = .{ .arena = arena };
    return builder.program(node) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        error.TooLarge => {
            problem.* = .{ .message = "it is too large, with all of its repetitions written out", .offset = 0 };
            return error.Refused;
        },
    };
}

const Error = Allocator.Error || error{TooLarge};

const Builder = struct {
    arena: Allocator,
    states: std.ArrayList(State) = .empty,
    transitions: std.ArrayList(Transition) = .empty,
    steps: usize = 0,

    fn program(self: *Builder, node: *const Node) Error!Program {
        const match = try self.add(.match);
        var start = try self.compile(node, match);
        if (!beginsAtStart(node)) start = try self.anywhere(start);
        var result: Program = .{
            .states = self.states.items,
            .transitions = self.transitions.items,
            .start = start,
            .classes = undefined,
            .class_count = 0,
            .samples = @splat(0),
            .asserts_lines = self.asserts(&.{ .line_start, .line_end }),
            .asserts_words = self.asserts(&.{ .word_boundary, .no_word_boundary }),
        };
        classify(&result);
        return result;
    }

    fn add(self: *Builder, state: State) Error!u32 {
        if (self.states.items.len >= max_states) return error.TooLarge;
        try self.states.append(self.arena, state);
        return @intCast(self.states.items.len - 1);
    }

    /// A search begins at each byte.
    fn anywhere(self: *Builder, start: u32) Error!u32 {
        const loop = try self.add(.{ .split = .{ start, undefined } });
        const skip = try self.addBytes(&.{.{ .first = 0, .last = 0xFF, .next = loop }});
        self.states.items[loop].split[1] = skip;
        return loop;
    }

    fn addBytes(self: *Builder, transitions: []const Transition) Error!u32 {
        const start = self.transitions.items.len;
        try self.transitions.appendSlice(self.arena, transitions);
        return self.add(.{ .bytes = .{ .start = @intCast(start), .end = @intCast(start + transitions.len) } });
    }

    /// The state in which `node` begins, where `next` follows it.
    fn compile(self: *Builder, node: *const Node, next: u32) Error!u32 {
        self.steps += 1;
        if (self.steps > max_steps) return error.TooLarge;
        switch (node.*) {
            .empty => return next,
            .set => |ranges| return self.compileSet(ranges, next),
            .assertion => |kind| return self.add(.{ .assertion = .{ .kind = kind, .next = next } }),
            .sequence => |nodes| {
                var current = next;
                var i = nodes.len;
                while (i > 0) {
                    i -= 1;
                    current = try self.compile(&nodes[i], current);
                }
                return current;
            },
            .alternatives => |nodes| {
                var current = try self.compile(&nodes[nodes.len - 1], next);
                var i = nodes.len - 1;
                while (i > 0) {
                    i -= 1;
                    current = try self.add(.{ .split = .{ try self.compile(&nodes[i], next), current } });
                }
                return current;
            },
            .repeat => |repeat| return self.compileRepeat(repeat, next),
        }
    }

    fn compileRepeat(self: *Builder, repeat: syntax.Repeat, next: u32) Error!u32 {
        var current = next;
        var required = repeat.min;
        if (repeat.max) |max| {
            // x{0,3}: (x(x(x)?)?)?
            for (0..max - required) |_|
                current = try self.add(.{ .split = .{ try self.compile(repeat.node, current), next } });
        } else {
            const loop = try self.add(.{ .split = .{ undefined, next } });
            const begin = try self.compile(repeat.node, loop);
            self.states.items[loop].split[0] = begin;
            // x+ is entered through x, x* through its loop.
            current = if (required > 0) begin else loop;
            required -|= 1;
        }
        for (0..required) |_| current = try self.compile(repeat.node, current);
        return current;
    }

    fn compileSet(self: *Builder, ranges: []const codepoints.Range, next: u32) Error!u32 {
        var sequences: std.ArrayList(utf8.Sequence) = .empty;
        defer sequences.deinit(self.arena);
        for (ranges) |range| {
            var of_range: utf8.Sequences = .init(range);
            while (of_range.next()) |sequence| {
                self.steps += 1;
                if (self.steps > max_steps) return error.TooLarge;
                try sequences.append(self.arena, sequence);
            }
        }
        return self.compileSequences(sequences.items, 0, next, self.states.items.len);
    }

    /// Of sequences that have their first `depth` ranges in common. States since `first_own` are of the same set: where
    /// one does the same, it is taken.
    fn compileSequences(
        self: *Builder,
        sequences: []const utf8.Sequence,
        depth: usize,
        next: u32,
        first_own: usize,
    ) Error!u32 {
        var transitions: std.ArrayList(Transition) = .empty;
        defer transitions.deinit(self.arena);
        var i: usize = 0;
        while (i < sequences.len) {
            const range = sequences[i].ranges[depth];
            var end = i + 1;
            while (end < sequences.len and std.meta.eql(sequences[end].ranges[depth], range)) end += 1;
            const is_last = sequences[i].length == depth + 1;
            const target = if (is_last) next else try self.compileSequences(sequences[i..end], depth + 1, next, first_own);
            try appendTransition(self.arena, &transitions, .{ .first = range.first, .last = range.last, .next = target });
            i = end;
        }
        for (self.states.items[first_own..], first_own..) |state, id| {
            const known = self.transitions.items[state.bytes.start..state.bytes.end];
            if (known.len != transitions.items.len) continue;
            for (known, transitions.items) |a, b| {
                if (!std.meta.eql(a, b)) break;
            } else return @intCast(id);
        }
        return self.addBytes(transitions.items);
    }

    fn appendTransition(arena: Allocator, transitions: *std.ArrayList(Transition), added: Transition) Allocator.Error!void {
        if (transitions.items.len > 0) {
            const last = &transitions.items[transitions.items.len - 1];
            if (last.next == added.next and @as(u32, last.last) + 1 == added.first) {
                last.last = added.last;
                return;
            }
        }
        try transitions.append(arena, added);
    }

    fn asserts(self: *const Builder, kinds: []const syntax.Assertion) bool {
        for (self.states.items) |state| switch (state) {
            .assertion => |assertion| if (std.mem.findScalar(syntax.Assertion, kinds, assertion.kind) != null) return true,
            else => {},
        };
        return false;
    }
};

/// Whether it can be found nowhere but at the text's start: then it need not be looked for elsewhere.
fn beginsAtStart(node: *const Node) bool {
    return switch (node.*) {
        .empty, .set => false,
        .assertion => |kind| kind == .text_start,
        .sequence => |nodes| for (nodes) |*each| {
            if (beginsAtStart(each)) break true;
            // What comes behind bytes cannot be at the start; behind another assertion it can.
            if (each.* != .assertion and each.* != .empty) break false;
        } else false,
        .alternatives => |nodes| for (nodes) |*each| {
            if (!beginsAtStart(each)) break false;
        } else true,
        .repeat => |repeat| repeat.min > 0 and beginsAtStart(repeat.node),
    };
}

pub fn isWord(byte: u8) bool {
    return std.ascii.isAlphanumeric(byte) or byte == '_';
}

/// Bytes of UTF-8 that begin no character.
pub fn isContinuation(byte: u8) bool {
    return byte & 0xC0 == 0x80;
}

fn classify(program: *Program) void {
    // Whether a class ends before a byte.
    var begins: [257]bool = @splat(false);
    for (program.transitions) |transition| {
        begins[transition.first] = true;
        begins[@as(usize, transition.last) + 1] = true;
    }
    for (1..256) |i| {
        const a: u8 = @intCast(i - 1);
        const b: u8 = @intCast(i);
        if (program.asserts_lines and (a == '\n') != (b == '\n')) begins[i] = true;
        if (program.asserts_words and (isWord(a) != isWord(b) or isContinuation(a) != isContinuation(b))) begins[i] = true;
    }
    var class: u8 = 0;
    for (0..256) |byte| {
        if (byte > 0 and begins[byte]) class += 1;
        if (byte == 0 or begins[byte]) program.samples[class] = @intCast(byte);
        program.classes[byte] = class;
    }
    program.class_count = @as(usize, class) + 1;
}
