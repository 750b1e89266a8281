//! Regular expressions in linear time: a text costs at most its length times the size of the pattern, whatever they are.
//!
//!     pattern ──syntax.zig──▶ tree ──program.zig──▶ automaton over bytes ──search.zig──▶ found or not
//!              codepoints.zig          utf8.zig                             automaton.zig remembers its steps
//!              folding.zig
//!
//! It answers whether a text has a match, and nothing else: no groups, no places.

const std = @import("std");
const automaton = @import("automaton.zig");
const program = @import("program.zig");
const search = @import("search.zig");
const syntax = @import("syntax.zig");

const Allocator = std.mem.Allocator;

pub const Problem = syntax.Problem;
pub const Error = syntax.Error;

pub const Regex = struct {
    arena: std.heap.ArenaAllocator,
    matcher: Matcher,

    const Matcher = union(enum) {
        literal: Literal,
        automaton: automaton.Automaton,
    };

    /// `Refused`: `problem` says why, and where.
    pub fn init(gpa: Allocator, pattern: []const u8, problem: *Problem) Error!Regex {
        var arena: std.heap.ArenaAllocator = .init(gpa);
        errdefer arena.deinit();
        const matcher = try compiled(gpa, &arena, pattern, problem);
        return .{ .arena = arena, .matcher = matcher };
    }

    fn compiled(gpa: Allocator, arena: *std.heap.ArenaAllocator, pattern: []const u8, problem: *Problem) Error!Matcher {
        const allocator = arena.allocator();
        // The tree is not needed any longer than the program takes to build.
        var scratch: std.heap.ArenaAllocator = .init(gpa);
        defer scratch.deinit();
        const tree = try syntax.parse(scratch.allocator(), pattern, problem);
        if (try Literal.of(allocator, &tree)) |literal| return .{ .literal = literal };
        const built = try allocator.create(program.Program);
        built.* = try program.build(allocator, &tree, problem);
        const searching = try allocator.create(search.Search);
        searching.* = try .init(allocator, built);
        return .{ .automaton = .init(gpa, built, searching) };
    }

    pub fn deinit(self: *Regex) void {
        switch (self.matcher) {
            .literal => {},
            .automaton => |*each| each.deinit(),
        }
        self.arena.deinit();
    }

    /// Whether the pattern matches somewhere in the text. Bytes that are not UTF-8 match nothing.
    pub inline fn isFound(self: *Regex, text: []const u8) bool {
        return switch (self.matcher) {
            .literal => |*literal| literal.isFound(text),
            .automaton => |*each| each.isFound(text),
        };
    }
};

/// A pattern without anything to choose.
const Literal = struct {
    bytes: []const u8,
    at_start: bool,
    at_end: bool,

    fn of(arena: Allocator, tree: *const syntax.Node) Allocator.Error!?Literal {
        const one = tree[0..1];
        var nodes: []const syntax.Node = if (tree.* == .sequence) tree.sequence else one;
        const at_start = nodes.len > 0 and isAssertion(&nodes[0], .text_start);
        if (at_start) nodes = nodes[1..];
        const at_end = nodes.len > 0 and isAssertion(&nodes[nodes.len - 1], .text_end);
        if (at_end) nodes = nodes[0 .. nodes.len - 1];
        for (nodes) |*node| {
            if (node.* != .set or node.set.len != 1 or node.set[0].first != node.set[0].last) return null;
        }
        var bytes: std.ArrayList(u8) = .empty;
        for (nodes) |*node| {
            var encoded: [4]u8 = undefined;
            // A surrogate in a class: no text has it.
            const length = std.unicode.utf8Encode(node.set[0].first, &encoded) catch return null;
            try bytes.appendSlice(arena, encoded[0..length]);
        }
        return .{ .bytes = bytes.items, .at_start = at_start, .at_end = at_end };
    }

    fn isAssertion(node: *const syntax.Node, kind: syntax.Assertion) bool {
        return node.* == .assertion and node.assertion == kind;
    }

    fn isFound(self: *const Literal, text: []const u8) bool {
        if (self.at_start and self.at_end) return std.mem.eql(u8, text, self.bytes);
        if (self.at_start) return std.mem.startsWith(u8, text, self.bytes);
        if (self.at_end) return std.mem.endsWith(u8, text, self.bytes);
        return std.mem.find(u8, text, self.bytes) != null;
    }
};

test {
    _ = automaton;
    _ = program;
    _ = search;
    _ = syntax;
    _ = @import("codepoints.zig");
    _ = @import("folding.zig");
    _ = @import("utf8.zig");
    _ = @import("regex_test.zig");
}
