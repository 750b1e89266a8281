//! Ranges of code points as sequences of ranges of bytes.
//!
//!     U+0080 … U+07FF     [C2-DF] [80-BF]
//!     U+0800 … U+0FFF     [E0] [A0-BF] [80-BF]
//!
//! Of two sequences of one set, the ranges at one place are the same or have no byte in common: a sequence's range of
//! more than one byte stands for all that can follow.

const std = @import("std");
const codepoints = @import("codepoints.zig");

pub const ByteRange = struct { first: u8, last: u8 };

pub const Sequence = struct {
    length: usize,
    ranges: [4]ByteRange,

    pub fn slice(self: *const Sequence) []const ByteRange {
        return self.ranges[0..self.length];
    }
};

const Span = struct { first: u21, last: u21 };

/// The largest code point of each length.
const ends = [_]u21{ 0x7F, 0x7FF, 0xFFFF, codepoints.max };
const first_surrogate = 0xD800;
const last_surrogate = 0xDFFF;

/// The sequences of one range, in the order of the code points.
pub const Sequences = struct {
    /// What is left, the next on top. Each division leaves at most two behind, and there are three kinds.
    stack: [16]Span = undefined,
    height: usize = 0,

    pub fn init(range: codepoints.Range) Sequences {
        var self: Sequences = .{};
        self.push(range.first, range.last);
        return self;
    }

    fn push(self: *Sequences, first: u21, last: u21) void {
        self.stack[self.height] = .{ .first = first, .last = last };
        self.height += 1;
    }

    pub fn next(self: *Sequences) ?Sequence {
        while (self.height > 0) {
            self.height -= 1;
            const span = self.stack[self.height];
            if (self.divided(span)) continue;
            // Of a span of surrogates alone there is nothing.
            if (span.first > span.last) continue;
            return encoded(span);
        }
        return null;
    }

    /// Whether there is more than one sequence in the span: then its parts are on the stack.
    fn divided(self: *Sequences, span: Span) bool {
        if (span.first > span.last) return false;
        if (span.first <= last_surrogate and span.last >= first_surrogate) {
            if (span.last > last_surrogate) self.push(last_surrogate + 1, span.last);
            if (span.first < first_surrogate) self.push(span.first, first_surrogate - 1);
            return true;
        }
        for (ends) |end| if (span.first <= end and span.last > end) return self.divide(span, end);
        if (span.last <= ends[0]) return false;
        // Below bytes that differ, all must be able to follow.
        inline for (.{ 6, 12, 18 }) |bits| {
            const mask: u21 = (1 << bits) - 1;
            if (span.first & ~mask != span.last & ~mask) {
                if (span.first & mask != 0) return self.divide(span, span.first | mask);
                if (span.last & mask != mask) return self.divide(span, (span.last & ~mask) - 1);
            }
        }
        return false;
    }

    fn divide(self: *Sequences, span: Span, end: u21) bool {
        self.push(end + 1, span.last);
        self.push(span.first, end);
        return true;
    }
};

fn encoded(span: Span) Sequence {
    var first: [4]u8 = undefined;
    var last: [4]u8 = undefined;
    const length = std.unicode.utf8Encode(span.first, &first) catch unreachable;
    const other = std.unicode.utf8Encode(span.last, &last) catch unreachable;
    std.debug.assert(length == other);
    var sequence: Sequence = .{ .length = length, .ranges = undefined };
    for (sequence.ranges[0..length], first[0..length], last[0..length]) |*range, a, b| range.* = .{ .first = a, .last = b };
    return sequence;
}

/// How often the bytes are among the sequences.
fn occurrences(range: codepoints.Range, bytes: []const u8) usize {
    var found: usize = 0;
    var sequences: Sequences = .init(range);
    while (sequences.next()) |sequence| {
        if (sequence.length != bytes.len) continue;
        for (sequence.slice(), bytes) |part, byte| {
            if (byte < part.first or byte > part.last) break;
        } else found += 1;
    }
    return found;
}

test "every code point of a range is in one sequence, and no other is in any" {
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    const random = generator.random();
    const edges = [_]u21{ 0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, codepoints.max };
    for (0..300) |round| {
        const a = if (round % 3 == 0) edges[random.uintLessThan(usize, edges.len)] else random.uintAtMost(u21, codepoints.max);
        const b = if (round % 5 == 0) edges[random.uintLessThan(usize, edges.len)] else random.uintAtMost(u21, codepoints.max);
        const range: codepoints.Range = .{ .first = @min(a, b), .last = @max(a, b) };
        for (0..200) |i| {
            const point = if (i < edges.len) edges[i] else random.uintAtMost(u21, codepoints.max);
            var bytes: [4]u8 = undefined;
            const length = std.unicode.utf8Encode(point, &bytes) catch continue;
            const expected: usize = @intFromBool(point >= range.first and point <= range.last);
            try std.testing.expectEqual(expected, occurrences(range, bytes[0..length]));
        }
    }
}

test "surrogates have no bytes" {
    var none: Sequences = .init(.{ .first = first_surrogate, .last = last_surrogate });
    try std.testing.expectEqual(null, none.next());
}
