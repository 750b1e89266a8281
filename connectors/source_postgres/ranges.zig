//! A set of integers as ranges: neighbours cost nothing.

const std = @import("std");
const sdk = @import("sdk");
const compact = @import("compact.zig");

const Allocator = std.mem.Allocator;

/// Ranges in memory at most. Their text would be beyond any limit long before.
const ranges_max = 1 << 20;
/// Integers that wait to be sorted in.
const pending_max = 1 << 16;

pub const Ranges = struct {
    gpa: Allocator,
    /// Ascending, with a gap between each and the next.
    items: std.ArrayList(Range) = .empty,
    pending: std.ArrayList(i64) = .empty,
    /// More than fits: what it holds is of no use.
    overflown: bool = false,

    pub const Range = struct { first: i64, last: i64 };

    pub fn deinit(self: *Ranges) void {
        self.items.deinit(self.gpa);
        self.pending.deinit(self.gpa);
    }

    pub fn clear(self: *Ranges) void {
        self.items.clearRetainingCapacity();
        self.pending.clearRetainingCapacity();
        self.overflown = false;
    }

    /// Cheap in ascending order.
    pub fn add(self: *Ranges, value: i64) Allocator.Error!void {
        if (self.overflown) return;
        if (self.items.items.len == 0) return self.items.append(self.gpa, .{ .first = value, .last = value });
        const last = &self.items.items[self.items.items.len - 1];
        if (value > last.last) {
            if (value - 1 == last.last) {
                last.last = value;
                return;
            }
            try self.items.append(self.gpa, .{ .first = value, .last = value });
            if (self.items.items.len > ranges_max) self.overflow();
        } else if (value < last.first) {
            try self.pending.append(self.gpa, value);
            if (self.pending.items.len >= pending_max) try self.settle();
        }
    }

    /// Sorts in what came out of order.
    fn settle(self: *Ranges) Allocator.Error!void {
        if (self.pending.items.len == 0) return;
        std.mem.sortUnstable(i64, self.pending.items, {}, std.sort.asc(i64));
        var merged: std.ArrayList(Range) = try .initCapacity(
            self.gpa,
            self.items.items.len + self.pending.items.len,
        );
        var i: usize = 0;
        for (self.items.items) |range| {
            while (i < self.pending.items.len and self.pending.items[i] < range.first) : (i += 1)
                join(&merged, .{ .first = self.pending.items[i], .last = self.pending.items[i] });
            join(&merged, range);
        }
        // Nothing that waits is beyond the last range.
        while (i < self.pending.items.len) : (i += 1)
            join(&merged, .{ .first = self.pending.items[i], .last = self.pending.items[i] });
        self.items.deinit(self.gpa);
        self.items = merged;
        self.pending.clearRetainingCapacity();
        if (self.items.items.len > ranges_max) self.overflow();
    }

    fn join(merged: *std.ArrayList(Range), range: Range) void {
        if (merged.items.len > 0) {
            const last = &merged.items[merged.items.len - 1];
            if (range.first <= last.last or range.first - 1 == last.last) {
                last.last = @max(last.last, range.last);
                return;
            }
        }
        merged.appendAssumeCapacity(range);
    }

    fn overflow(self: *Ranges) void {
        self.clear();
        self.overflown = true;
    }

    /// For a set that is not added to.
    pub fn contains(self: *const Ranges, value: i64) bool {
        std.debug.assert(self.pending.items.len == 0);
        var low: usize = 0;
        var high = self.items.items.len;
        while (low < high) {
            const middle = low + (high - low) / 2;
            const range = self.items.items[middle];
            if (value < range.first) high = middle else if (value > range.last) low = middle + 1 else return true;
        }
        return false;
    }

    pub fn count(self: *const Ranges) u64 {
        var total: u64 = self.pending.items.len;
        for (self.items.items) |range| total +|= @as(u64, @bitCast(range.last -% range.first)) +| 1;
        return total;
    }

    /// Per range: the gap to the one before (the first: the number itself), and how many follow its first number.
    /// Null when the text would be longer than `limit`.
    pub fn encode(self: *Ranges, arena: Allocator, limit: usize) Allocator.Error!?[]const u8 {
        try self.settle();
        if (self.overflown) return null;
        var writer: compact.Writer = .{ .gpa = self.gpa };
        defer writer.deinit();
        var before: i64 = 0;
        for (self.items.items, 0..) |range, i| {
            try writer.number(if (i == 0) zigzag(range.first) else @bitCast(range.first -% before));
            try writer.number(@bitCast(range.last -% range.first));
            before = range.last;
            if (compact.textLength(writer.bytes.items.len) > limit) return null;
        }
        return try writer.text(arena);
    }

    pub fn decode(gpa: Allocator, arena: Allocator, text: []const u8) (Allocator.Error || error{Malformed})!Ranges {
        var reader: compact.Reader = try .of(arena, text);
        var self: Ranges = .{ .gpa = gpa };
        errdefer self.deinit();
        var before: i64 = 0;
        while (!reader.done()) {
            const gap = try reader.number();
            const length = try reader.number();
            const first = if (self.items.items.len == 0) unzigzag(gap) else try after(before, gap);
            const last = try after(first, length);
            if (self.items.items.len > 0 and gap < 2) return error.Malformed;
            try self.items.append(gpa, .{ .first = first, .last = last });
            before = last;
        }
        return self;
    }

    fn after(value: i64, distance: u64) error{Malformed}!i64 {
        const sum = @as(i128, value) + distance;
        return std.math.cast(i64, sum) orelse error.Malformed;
    }

    fn zigzag(value: i64) u64 {
        return @bitCast((value << 1) ^ (value >> 63));
    }

    fn unzigzag(value: u64) i64 {
        return @as(i64, @bitCast(value >> 1)) ^ -@as(i64, @intCast(value & 1));
    }
};

fn expectRanges(set: *Ranges, expected: []const Ranges.Range) !void {
    try set.settle();
    try std.testing.expectEqualSlices(Ranges.Range, expected, set.items.items);
}

test "neighbours become one range in whatever order they come" {
    const gpa = std.testing.allocator;
    var set: Ranges = .{ .gpa = gpa };
    defer set.deinit();
    for ([_]i64{ 5, 6, 7, 1, 3, 2, 9, 6, -4, std.math.maxInt(i64), std.math.minInt(i64) }) |value| try set.add(value);
    try expectRanges(&set, &.{
        .{ .first = std.math.minInt(i64), .last = std.math.minInt(i64) },
        .{ .first = -4, .last = -4 },
        .{ .first = 1, .last = 3 },
        .{ .first = 5, .last = 7 },
        .{ .first = 9, .last = 9 },
        .{ .first = std.math.maxInt(i64), .last = std.math.maxInt(i64) },
    });
    try std.testing.expectEqual(10, set.count());
    for ([_]i64{ 2, 5, -4, std.math.minInt(i64) }) |value| try std.testing.expect(set.contains(value));
    for ([_]i64{ 0, 4, 8, 10 }) |value| try std.testing.expect(!set.contains(value));
}

test "a million ids in any order take a few bytes, and come back" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set: Ranges = .{ .gpa = gpa };
    defer set.deinit();
    const count = 1_000_000;
    // 7 has no factor in common with the count: every number once.
    for (0..count) |i| try set.add(@intCast(i * 7 % count));
    const text = (try set.encode(arena.allocator(), 100)).?;
    try std.testing.expect(text.len < 10);
    var back: Ranges = try .decode(gpa, arena.allocator(), text);
    defer back.deinit();
    try std.testing.expectEqual(count, back.count());
    try std.testing.expect(back.contains(0) and back.contains(count - 1) and !back.contains(count));
}

test "what takes too much space is told, not cut" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set: Ranges = .{ .gpa = gpa };
    defer set.deinit();
    for (0..100) |i| try set.add(@intCast(i * 3));
    try std.testing.expectEqual(null, try set.encode(arena.allocator(), 100));
    try std.testing.expect(try set.encode(arena.allocator(), 1000) != null);
    for (0..ranges_max + 1) |i| try set.add(@intCast(i * 3));
    try std.testing.expect(set.overflown);
    try std.testing.expectEqual(null, try set.encode(arena.allocator(), std.math.maxInt(usize)));
}

test "any integers come back from their text" {
    try sdk.fuzz.bytes(fuzzRanges, &.{ "\x00\x01\x02\x03\x04\x05\x06\x07", "\xff\xff\xff\xff\x00\x00\x00\x00\x80\x00" });
}

fn fuzzRanges(bytes: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set: Ranges = .{ .gpa = gpa };
    defer set.deinit();
    var known: std.AutoHashMapUnmanaged(i64, void) = .empty;
    defer known.deinit(gpa);
    for (0..bytes.len) |i| {
        const part = bytes[i..@min(i + 1 + bytes[i] % 8, bytes.len)];
        const value = std.mem.readVarInt(i64, part, .big);
        try set.add(value);
        try known.put(gpa, value, {});
    }
    const text = (try set.encode(arena.allocator(), std.math.maxInt(usize))).?;
    var back: Ranges = try .decode(gpa, arena.allocator(), text);
    defer back.deinit();
    try std.testing.expectEqualSlices(Ranges.Range, set.items.items, back.items.items);
    try std.testing.expectEqual(known.count(), back.count());
    var values = known.keyIterator();
    while (values.next()) |value| try std.testing.expect(back.contains(value.*));
    var other = Ranges.decode(gpa, arena.allocator(), bytes) catch |err| return if (err == error.Malformed) {} else err;
    other.deinit();
}
