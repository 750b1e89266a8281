//! A pattern's text to a tree.
//!
//!     alternatives   sequence | sequence | …
//!     sequence       item item …
//!     item           atom, or atom with one of  * + ? {m} {m,} {m,n}  and perhaps a ? behind it
//!     atom           a character, an escape, . , [class], an assertion, (group)
//!
//! The syntax is that of RE2 where the two have the same: what it cannot say in linear time is refused, and so is what
//! other engines read differently. Whether a repetition is greedy makes no difference to whether it is found at all.

const std = @import("std");
const codepoints = @import("codepoints.zig");

const Allocator = std.mem.Allocator;
const Range = codepoints.Range;

/// Bounds the recursion of everything that walks the tree.
const max_depth = 200;
/// The largest number in `{m,n}`.
pub const max_count = 1000;

pub const Assertion = enum {
    text_start,
    text_end,
    line_start,
    line_end,
    word_boundary,
    no_word_boundary,
};

pub const Node = union(enum) {
    empty,
    /// One code point of these.
    set: []const Range,
    assertion: Assertion,
    sequence: []const Node,
    alternatives: []const Node,
    repeat: Repeat,
};

pub const Repeat = struct {
    node: *const Node,
    min: u32,
    /// Null: without end.
    max: ?u32,
};

/// What is wrong with a pattern, and where.
pub const Problem = struct {
    message: []const u8 = "",
    /// Bytes before it.
    offset: usize = 0,

    /// Counted in characters, from 1.
    pub fn position(self: Problem, pattern: []const u8) usize {
        const before = pattern[0..@min(self.offset, pattern.len)];
        return (std.unicode.utf8CountCodepoints(before) catch before.len) + 1;
    }
};

pub const Error = Allocator.Error || error{Refused};

/// The tree lives in `arena`.
pub fn parse(arena: Allocator, pattern: []const u8, problem: *Problem) Error!Node {
    var parser: Parser = .{ .arena = arena, .pattern = pattern, .problem = problem };
    if (!std.unicode.utf8ValidateSlice(pattern)) return parser.refuse(0, "it is not UTF-8");
    const node = try parser.alternatives(0);
    if (parser.at < pattern.len) return parser.refuse(parser.at, "`)` closes no group");
    return node;
}

const Flags = struct {
    ignores_case: bool = false,
    /// `.` is a newline too.
    dot_is_all: bool = false,
    /// `^` and `$` are the ends of lines.
    of_lines: bool = false,
};

const Parser = struct {
    arena: Allocator,
    pattern: []const u8,
    problem: *Problem,
    at: usize = 0,
    flags: Flags = .{},

    fn refuse(self: *Parser, offset: usize, message: []const u8) error{Refused} {
        self.problem.* = .{ .message = message, .offset = offset };
        return error.Refused;
    }

    fn rest(self: *const Parser) []const u8 {
        return self.pattern[self.at..];
    }

    fn peek(self: *const Parser) ?u8 {
        return if (self.at < self.pattern.len) self.pattern[self.at] else null;
    }

    fn take(self: *Parser, text: []const u8) bool {
        if (!std.mem.startsWith(u8, self.rest(), text)) return false;
        self.at += text.len;
        return true;
    }

    /// The next character; the pattern is UTF-8 and not at its end.
    fn character(self: *Parser) u21 {
        const length = std.unicode.utf8ByteSequenceLength(self.pattern[self.at]) catch unreachable;
        defer self.at += length;
        return std.unicode.utf8Decode(self.pattern[self.at..][0..length]) catch unreachable;
    }

    fn alternatives(self: *Parser, depth: usize) Error!Node {
        if (depth > max_depth) return self.refuse(self.at, "groups are nested too deeply");
        var nodes: std.ArrayList(Node) = .empty;
        try nodes.append(self.arena, try self.sequence(depth));
        while (self.take("|")) try nodes.append(self.arena, try self.sequence(depth));
        return if (nodes.items.len == 1) nodes.items[0] else .{ .alternatives = nodes.items };
    }

    fn sequence(self: *Parser, depth: usize) Error!Node {
        var nodes: std.ArrayList(Node) = .empty;
        while (self.peek()) |byte| {
            if (byte == '|' or byte == ')') break;
            if (try self.setFlags()) continue;
            const start = self.at;
            const atom_node = try self.atom(depth);
            try nodes.append(self.arena, try self.repeated(start, atom_node));
        }
        return switch (nodes.items.len) {
            0 => .empty,
            1 => nodes.items[0],
            else => .{ .sequence = nodes.items },
        };
    }

    /// The atom with the repetition behind it, if there is one.
    fn repeated(self: *Parser, start: usize, atom_node: Node) Error!Node {
        const operator = self.at;
        const count = try self.repetition() orelse return atom_node;
        if (atom_node == .assertion and self.pattern[start] != '(') return self.refuse(start, "an assertion cannot be repeated");
        // Lazy: the same is found.
        _ = self.take("?");
        const behind = self.at;
        if (try self.repetition() != null)
            return self.refuse(behind, "a repetition is repeated: put the first one in a group, `(?:…)`");
        if (count.max) |most| if (count.min > most) return self.refuse(operator, "the numbers of a repetition descend");
        if (@max(count.min, count.max orelse 0) > max_count)
            return self.refuse(operator, std.fmt.comptimePrint("a repetition of more than {d} is too large", .{max_count}));
        const node = try self.arena.create(Node);
        node.* = atom_node;
        return .{ .repeat = .{ .node = node, .min = count.min, .max = count.max } };
    }

    const Count = struct { min: u32, max: ?u32 };

    fn repetition(self: *Parser) Error!?Count {
        const start = self.at;
        if (self.take("*")) return .{ .min = 0, .max = null };
        if (self.take("+")) return .{ .min = 1, .max = null };
        if (self.take("?")) return .{ .min = 0, .max = 1 };
        if (!self.take("{")) return null;
        const min = self.number();
        if (min == null and self.peek() == ',') {
            self.at += 1;
            if (self.number() != null and self.peek() == '}') return self.refuse(start, "write {0,n} in the place of {,n}");
        } else if (min) |least| {
            if (self.take("}")) return .{ .min = least, .max = least };
            if (self.take(",")) {
                if (self.take("}")) return .{ .min = least, .max = null };
                if (self.number()) |most| if (self.take("}")) return .{ .min = least, .max = most };
            }
        }
        // A brace that is none of these is a character.
        self.at = start;
        return null;
    }

    fn number(self: *Parser) ?u32 {
        const start = self.at;
        var value: u32 = 0;
        while (self.peek()) |byte| : (self.at += 1) {
            if (!std.ascii.isDigit(byte)) break;
            value = value *| 10 +| (byte - '0');
        }
        return if (self.at > start) value else null;
    }

    fn atom(self: *Parser, depth: usize) Error!Node {
        const start = self.at;
        if (try self.repetition() != null) return self.refuse(start, "there is nothing in front of it to repeat");
        switch (self.character()) {
            '(' => return self.group(start, depth),
            '[' => return self.class(start),
            '\\' => return self.escape(start),
            '^' => return .{ .assertion = if (self.flags.of_lines) .line_start else .text_start },
            '$' => return .{ .assertion = if (self.flags.of_lines) .line_end else .text_end },
            '.' => {
                var set: codepoints.Builder = .{ .arena = self.arena };
                if (!self.flags.dot_is_all) try set.add('\n', '\n');
                try set.negate();
                return .{ .set = set.finish() };
            },
            else => |point| return self.single(point),
        }
    }

    fn single(self: *Parser, point: u21) Error!Node {
        var set: codepoints.Builder = .{ .arena = self.arena };
        try set.add(point, point);
        if (self.flags.ignores_case) try set.fold();
        return .{ .set = set.finish() };
    }

    /// Behind its `(`.
    fn group(self: *Parser, start: usize, depth: usize) Error!Node {
        const outer = self.flags;
        if (self.take("?")) try self.groupKind(start);
        const node = try self.alternatives(depth + 1);
        if (!self.take(")")) return self.refuse(start, "the group is not closed");
        self.flags = outer;
        return node;
    }

    /// Behind its `(?`.
    fn groupKind(self: *Parser, start: usize) Error!void {
        for ([_][]const u8{ "=", "!", "<=", "<!" }) |sign| if (std.mem.startsWith(u8, self.rest(), sign))
            return self.refuse(start, "look-ahead and look-behind are not supported");
        if (std.mem.startsWith(u8, self.rest(), "P=")) return self.refuse(start, "back-references are not supported");
        if (self.take("P<") or self.take("<")) {
            const name = self.at;
            while (self.peek()) |byte| : (self.at += 1) if (!std.ascii.isAlphanumeric(byte) and byte != '_') break;
            if (self.at == name or !self.take(">")) return self.refuse(start, "the group's name is not one");
            return;
        }
        if (!try self.readFlags(start)) return self.refuse(start, "this kind of group is not supported");
        if (!self.take(":")) return self.refuse(start, "this kind of group is not supported");
    }

    /// `(?i)`, which holds up to the end of the group that it is in. False where there is none.
    fn setFlags(self: *Parser) Error!bool {
        const start = self.at;
        const before = self.flags;
        if (self.take("(?") and try self.readFlags(start) and self.take(")")) return true;
        self.at = start;
        self.flags = before;
        return false;
    }

    /// `i`, `is`, `i-s`. False where there are none, which is no problem before a `:`.
    fn readFlags(self: *Parser, start: usize) Error!bool {
        var value = true;
        const first = self.at;
        while (self.peek()) |byte| : (self.at += 1) switch (byte) {
            'i' => self.flags.ignores_case = value,
            's' => self.flags.dot_is_all = value,
            'm' => self.flags.of_lines = value,
            '-' => if (value) {
                value = false;
            } else break,
            'x', 'U', 'u', 'a', 'L', 'n' => return self.refuse(start, "of flags there are only i, m and s"),
            else => break,
        };
        return self.at > first or self.peek() == ':';
    }

    /// Behind its backslash, outside of a class.
    fn escape(self: *Parser, start: usize) Error!Node {
        switch (self.peek() orelse return self.refuse(start, "there is nothing behind the backslash")) {
            'b' => return self.assertion(.word_boundary),
            'B' => return self.assertion(.no_word_boundary),
            'A' => return self.assertion(.text_start),
            'z' => return self.assertion(.text_end),
            'Z' => return self.refuse(start, "engines differ about \\Z: write \\z for the end of the text"),
            '1'...'9', 'k', 'g' => return self.refuse(start, "back-references are not supported"),
            else => {},
        }
        if (try self.perlClass()) |ranges| return .{ .set = ranges };
        return self.single(try self.escapedCharacter(start));
    }

    fn assertion(self: *Parser, kind: Assertion) Node {
        self.at += 1;
        return .{ .assertion = kind };
    }

    /// `\d` and its like, behind the backslash. Case makes no difference to them.
    fn perlClass(self: *Parser) Error!?[]const Range {
        const letter = self.peek() orelse return null;
        const ranges: []const Range = switch (letter) {
            'd', 'D' => &codepoints.digit,
            's', 'S' => &codepoints.space,
            'w', 'W' => &codepoints.word,
            else => return null,
        };
        self.at += 1;
        if (std.ascii.isLower(letter)) return ranges;
        var set: codepoints.Builder = .{ .arena = self.arena };
        try set.addAll(ranges);
        try set.negate();
        return set.finish();
    }

    /// Behind the backslash, of a character that has no other meaning.
    fn escapedCharacter(self: *Parser, start: usize) Error!u21 {
        if (self.peek() == null) return self.refuse(start, "there is nothing behind the backslash");
        const point = self.character();
        return switch (point) {
            'a' => 0x07,
            'f' => 0x0C,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => 0x0B,
            'x' => if (self.take("{")) self.hexadecimal(start, 1, 6, "}") else self.hexadecimal(start, 2, 2, ""),
            'u' => if (self.take("{")) self.hexadecimal(start, 1, 6, "}") else self.hexadecimal(start, 4, 4, ""),
            'p', 'P' => self.refuse(start, "classes of Unicode (\\p) are not supported"),
            '0' => self.refuse(start, "octal numbers are not supported: write \\x00"),
            else => if (point < 0x80 and !std.ascii.isAlphanumeric(@intCast(point)))
                point
            else
                self.refuse(start, "there is no such escape"),
        };
    }

    fn hexadecimal(self: *Parser, start: usize, least: usize, most: usize, end: []const u8) Error!u21 {
        var value: u32 = 0;
        var digits: usize = 0;
        while (digits < most) : (digits += 1) {
            const digit = std.fmt.charToDigit(self.peek() orelse break, 16) catch break;
            value = value * 16 + digit;
            self.at += 1;
        }
        if (digits < least or !self.take(end))
            return self.refuse(start, "write \\xHH, \\uHHHH or \\x{…} with up to six hexadecimal digits");
        if (value > codepoints.max or (value >= 0xD800 and value < 0xE000))
            return self.refuse(start, "there is no such code point");
        return @intCast(value);
    }

    /// Behind its `[`.
    fn class(self: *Parser, start: usize) Error!Node {
        // Case makes no difference to `\d` and its like.
        var cased: codepoints.Builder = .{ .arena = self.arena };
        var uncased: codepoints.Builder = .{ .arena = self.arena };
        const is_negated = self.take("^");
        var is_first = true;
        while (true) : (is_first = false) {
            const item = self.at;
            if (self.peek() == null) return self.refuse(start, "the class is not closed");
            if (!is_first and self.take("]")) break;
            const whole: ?[]const Range = if (self.take("[:"))
                try self.namedClass(item)
            else if (self.peek() == '\\') blk: {
                self.at += 1;
                const ranges = try self.perlClass() orelse {
                    self.at = item;
                    break :blk null;
                };
                try uncased.addAll(ranges);
                break :blk &.{};
            } else null;
            if (whole) |ranges| {
                try cased.addAll(ranges);
                if (self.isRange()) return self.refuse(item, "a class is no end of a range");
                continue;
            }
            const first = try self.classCharacter(item);
            var last = first;
            if (self.isRange()) {
                self.at += 1;
                const end = self.at;
                if (std.mem.startsWith(u8, self.rest(), "[:")) return self.refuse(item, "a class is no end of a range");
                if (self.take("\\")) {
                    if (try self.perlClass() != null) return self.refuse(item, "a class is no end of a range");
                    self.at = end;
                }
                last = try self.classCharacter(end);
            }
            if (first > last) return self.refuse(item, "the ends of the range descend");
            try cased.add(first, last);
        }
        if (self.flags.ignores_case) try cased.fold();
        try cased.addAll(uncased.ranges.items);
        if (is_negated) try cased.negate();
        return .{ .set = cased.finish() };
    }

    /// Whether a `-` follows that is not the last character of its class.
    fn isRange(self: *const Parser) bool {
        const text = self.rest();
        return text.len >= 2 and text[0] == '-' and text[1] != ']';
    }

    fn classCharacter(self: *Parser, start: usize) Error!u21 {
        if (self.peek() == null) return self.refuse(start, "the class is not closed");
        if (!self.take("\\")) return self.character();
        return switch (self.peek() orelse return self.refuse(start, "there is nothing behind the backslash")) {
            'b' => self.refuse(start, "engines differ about \\b in a class: write \\x08 for a backspace"),
            else => self.escapedCharacter(start),
        };
    }

    /// Behind its `[:`.
    fn namedClass(self: *Parser, start: usize) Error![]const Range {
        const is_negated = self.take("^");
        const length = std.mem.find(u8, self.rest(), ":]") orelse
            return self.refuse(start, "the name of the class is not closed: [[:alpha:]]");
        const ranges = codepoints.named(self.rest()[0..length]) orelse
            return self.refuse(start, "there is no class of that name");
        self.at += length + 2;
        if (!is_negated) return ranges;
        var set: codepoints.Builder = .{ .arena = self.arena };
        try set.addAll(ranges);
        try set.negate();
        return set.finish();
    }
};

fn expectRefused(offset: usize, part: []const u8, pattern: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var problem: Problem = .{};
    try std.testing.expectError(error.Refused, parse(arena.allocator(), pattern, &problem));
    std.testing.expect(std.mem.find(u8, problem.message, part) != null) catch |err| {
        std.debug.print("{s}: {s}\n", .{ pattern, problem.message });
        return err;
    };
    try std.testing.expectEqual(offset, problem.offset);
}

test "what cannot be matched in linear time is refused, and where it stands is told" {
    try expectRefused(3, "back-references", "(a)\\1");
    try expectRefused(0, "back-references", "(?P=name)");
    try expectRefused(1, "look-ahead", "a(?=b)");
    try expectRefused(0, "look-ahead", "(?<!b)a");
}

test "what engines read differently is refused" {
    try expectRefused(1, "\\z", "a\\Z");
    try expectRefused(1, "\\x08", "[\\b]");
    try expectRefused(1, "{0,n}", "a{,3}");
    try expectRefused(2, "repetition is repeated", "a*+");
    try expectRefused(3, "repetition is repeated", "a*?*");
    try expectRefused(4, "repetition is repeated", "a{2}{3}");
    try expectRefused(0, "assertion", "^*");
    try expectRefused(0, "flags", "(?x)a b");
    try expectRefused(0, "Unicode", "\\p{L}");
}

test "what is no pattern is refused" {
    try expectRefused(0, "nothing in front", "*a");
    try expectRefused(2, "nothing in front", "a|+");
    try expectRefused(1, "nothing in front", "({3})");
    try expectRefused(1, "too large", "a{1001}");
    try expectRefused(1, "too large", "a{99999999999999999999}");
    try expectRefused(1, "descend", "a{3,2}");
    try expectRefused(1, "descend", "[b-a]");
    try expectRefused(1, "no end of a range", "[\\d-z]");
    try expectRefused(1, "no end of a range", "[a-\\d]");
    try expectRefused(0, "not closed", "(a");
    try expectRefused(1, "closes no group", "a)");
    try expectRefused(0, "not closed", "[]");
    try expectRefused(0, "not closed", "[a");
    try expectRefused(0, "nothing behind", "\\");
    try expectRefused(0, "no such escape", "\\y");
    try expectRefused(0, "no such escape", "\\é");
    try expectRefused(0, "no such code point", "\\x{D800}");
    try expectRefused(0, "no such code point", "\\x{110000}");
    try expectRefused(0, "hexadecimal", "\\x1");
    try expectRefused(1, "no class of that name", "[[:letter:]]");
    try expectRefused(0, "not UTF-8", "\xff");
    try expectRefused(0, "kind of group", "(?>a)");
    const deep: [max_depth + 1]u8 = @splat('(');
    try expectRefused(max_depth + 1, "too deeply", &deep);
}

test "the place of a problem is counted in characters" {
    const pattern = "éé\\1";
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var problem: Problem = .{};
    try std.testing.expectError(error.Refused, parse(arena.allocator(), pattern, &problem));
    try std.testing.expectEqual(3, problem.position(pattern));
}
