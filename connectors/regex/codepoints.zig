//! Sets of code points.

const std = @import("std");
const folding = @import("folding.zig");

const Allocator = std.mem.Allocator;

pub const max = 0x10FFFF;

/// Both ends belong to it.
pub const Range = struct { first: u21, last: u21 };

/// A set while it is put together. `finish` makes of it what the rest of the engine takes: ranges that ascend, and
/// neither touch nor overlap.
pub const Builder = struct {
    arena: Allocator,
    ranges: std.ArrayList(Range) = .empty,

    pub fn add(self: *Builder, first: u21, last: u21) Allocator.Error!void {
        try self.ranges.append(self.arena, .{ .first = first, .last = last });
    }

    pub fn addAll(self: *Builder, ranges: []const Range) Allocator.Error!void {
        try self.ranges.appendSlice(self.arena, ranges);
    }

    /// Adds what is the same letter in another case.
    pub fn fold(self: *Builder) Allocator.Error!void {
        self.normalize();
        const known = try self.arena.dupe(Range, self.ranges.items);
        for (known) |range| {
            var from = range.first;
            while (folding.nextCased(from)) |point| {
                if (point > range.last) break;
                var other = folding.next(point);
                while (other != point) : (other = folding.next(other)) try self.add(other, other);
                from = point + 1;
            }
        }
    }

    pub fn negate(self: *Builder) Allocator.Error!void {
        self.normalize();
        const known = try self.arena.dupe(Range, self.ranges.items);
        self.ranges.clearRetainingCapacity();
        var from: u32 = 0;
        for (known) |range| {
            if (from < range.first) try self.add(@intCast(from), range.first - 1);
            from = @as(u32, range.last) + 1;
        }
        if (from <= max) try self.add(@intCast(from), max);
    }

    pub fn finish(self: *Builder) []const Range {
        self.normalize();
        return self.ranges.items;
    }

    fn normalize(self: *Builder) void {
        const items = self.ranges.items;
        std.mem.sortUnstable(Range, items, {}, isBefore);
        var kept: usize = 0;
        for (items) |range| {
            if (kept > 0 and range.first <= @as(u32, items[kept - 1].last) + 1) {
                items[kept - 1].last = @max(items[kept - 1].last, range.last);
            } else {
                items[kept] = range;
                kept += 1;
            }
        }
        self.ranges.items.len = kept;
    }

    fn isBefore(_: void, a: Range, b: Range) bool {
        return a.first < b.first;
    }
};

pub const digit = [_]Range{.{ .first = '0', .last = '9' }};
pub const space = [_]Range{ .{ .first = '\t', .last = '\r' }, .{ .first = ' ', .last = ' ' } };
pub const word = [_]Range{
    .{ .first = '0', .last = '9' },
    .{ .first = 'A', .last = 'Z' },
    .{ .first = '_', .last = '_' },
    .{ .first = 'a', .last = 'z' },
};

/// `[:alpha:]` and its like. They are of ASCII, as `\d`, `\s` and `\w` are.
pub fn named(name: []const u8) ?[]const Range {
    const classes = .{
        .{ "alnum", &[_]Range{ .{ .first = '0', .last = '9' }, .{ .first = 'A', .last = 'Z' }, .{ .first = 'a', .last = 'z' } } },
        .{ "alpha", &[_]Range{ .{ .first = 'A', .last = 'Z' }, .{ .first = 'a', .last = 'z' } } },
        .{ "ascii", &[_]Range{.{ .first = 0, .last = 0x7F }} },
        .{ "blank", &[_]Range{ .{ .first = '\t', .last = '\t' }, .{ .first = ' ', .last = ' ' } } },
        .{ "cntrl", &[_]Range{ .{ .first = 0, .last = 0x1F }, .{ .first = 0x7F, .last = 0x7F } } },
        .{ "digit", &digit },
        .{ "graph", &[_]Range{.{ .first = '!', .last = '~' }} },
        .{ "lower", &[_]Range{.{ .first = 'a', .last = 'z' }} },
        .{ "print", &[_]Range{.{ .first = ' ', .last = '~' }} },
        .{ "punct", &[_]Range{
            .{ .first = '!', .last = '/' }, .{ .first = ':', .last = '@' },
            .{ .first = '[', .last = '`' }, .{ .first = '{', .last = '~' },
        } },
        .{ "space", &space },
        .{ "upper", &[_]Range{.{ .first = 'A', .last = 'Z' }} },
        .{ "word", &word },
        .{ "xdigit", &[_]Range{
            .{ .first = '0', .last = '9' }, .{ .first = 'A', .last = 'F' }, .{ .first = 'a', .last = 'f' },
        } },
    };
    inline for (classes) |class| if (std.mem.eql(u8, class[0], name)) return class[1];
    return null;
}

test "ranges that touch become one, and the rest of all code points can be asked for" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var set: Builder = .{ .arena = arena.allocator() };
    try set.add('d', 'f');
    try set.add('a', 'c');
    try set.add('e', 'e');
    try std.testing.expectEqualSlices(Range, &.{.{ .first = 'a', .last = 'f' }}, set.finish());
    try set.negate();
    try std.testing.expectEqualSlices(
        Range,
        &.{ .{ .first = 0, .last = 'a' - 1 }, .{ .first = 'g', .last = max } },
        set.finish(),
    );
    try set.negate();
    try set.fold();
    try std.testing.expectEqualSlices(
        Range,
        &.{ .{ .first = 'A', .last = 'F' }, .{ .first = 'a', .last = 'f' } },
        set.finish(),
    );
}
