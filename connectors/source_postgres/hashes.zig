//! A multiset of 64-bit hashes: rows that are alike are counted.

const std = @import("std");
const sdk = @import("sdk");
const compact = @import("compact.zig");

const Allocator = std.mem.Allocator;

/// Different hashes in memory at most. Each takes eight bytes or so of the text: it would be beyond any limit.
const hashes_max = 1 << 18;
/// Hashes that wait to be sorted in.
const pending_max = 1 << 16;

pub const Hashes = struct {
    gpa: Allocator,
    /// Ascending.
    items: std.ArrayList(Counted) = .empty,
    pending: std.ArrayList(u64) = .empty,
    /// More than fits: what it holds is of no use.
    overflown: bool = false,

    pub const Counted = struct { hash: u64, count: u32 };

    pub fn deinit(self: *Hashes) void {
        self.items.deinit(self.gpa);
        self.pending.deinit(self.gpa);
    }

    pub fn clear(self: *Hashes) void {
        self.items.clearRetainingCapacity();
        self.pending.clearRetainingCapacity();
        self.overflown = false;
    }

    pub fn add(self: *Hashes, hash: u64) Allocator.Error!void {
        if (self.overflown) return;
        try self.pending.append(self.gpa, hash);
        if (self.pending.items.len >= pending_max) try self.settle();
    }

    fn settle(self: *Hashes) Allocator.Error!void {
        if (self.pending.items.len == 0) return;
        std.mem.sortUnstable(u64, self.pending.items, {}, std.sort.asc(u64));
        var merged: std.ArrayList(Counted) = try .initCapacity(
            self.gpa,
            self.items.items.len + self.pending.items.len,
        );
        var i: usize = 0;
        for (self.items.items) |item| {
            while (i < self.pending.items.len and self.pending.items[i] < item.hash) : (i += 1)
                join(&merged, .{ .hash = self.pending.items[i], .count = 1 });
            join(&merged, item);
        }
        while (i < self.pending.items.len) : (i += 1)
            join(&merged, .{ .hash = self.pending.items[i], .count = 1 });
        self.items.deinit(self.gpa);
        self.items = merged;
        self.pending.clearRetainingCapacity();
        if (self.items.items.len > hashes_max) {
            self.clear();
            self.overflown = true;
        }
    }

    fn join(merged: *std.ArrayList(Counted), item: Counted) void {
        if (merged.items.len > 0) {
            const last = &merged.items[merged.items.len - 1];
            if (last.hash == item.hash) {
                last.count +|= item.count;
                return;
            }
        }
        merged.appendAssumeCapacity(item);
    }

    /// Takes one of `hash` out; false when there is none (left). For a set that is not added to.
    pub fn take(self: *Hashes, hash: u64) bool {
        const item = self.find(hash) orelse return false;
        if (item.count == 0) return false;
        item.count -= 1;
        return true;
    }

    /// What there is of `hash`, even if all of it was taken out. For a set that is not added to.
    pub fn find(self: *const Hashes, hash: u64) ?*Counted {
        std.debug.assert(self.pending.items.len == 0);
        var low: usize = 0;
        var high = self.items.items.len;
        while (low < high) {
            const middle = low + (high - low) / 2;
            const item = &self.items.items[middle];
            if (hash < item.hash) high = middle else if (hash > item.hash) low = middle + 1 else return item;
        }
        return null;
    }

    pub fn count(self: *const Hashes) u64 {
        var total: u64 = self.pending.items.len;
        for (self.items.items) |item| total += item.count;
        return total;
    }

    /// Per hash: the distance from the one before, and how often it is there. Null when the text would be longer than
    /// `limit`.
    pub fn encode(self: *Hashes, arena: Allocator, limit: usize) Allocator.Error!?[]const u8 {
        try self.settle();
        if (self.overflown) return null;
        var writer: compact.Writer = .{ .gpa = self.gpa };
        defer writer.deinit();
        var before: u64 = 0;
        for (self.items.items) |item| {
            try writer.number(item.hash - before);
            try writer.number(item.count);
            before = item.hash;
            if (compact.textLength(writer.bytes.items.len) > limit) return null;
        }
        return try writer.text(arena);
    }

    pub fn decode(gpa: Allocator, arena: Allocator, text: []const u8) (Allocator.Error || error{Malformed})!Hashes {
        var reader: compact.Reader = try .of(arena, text);
        var self: Hashes = .{ .gpa = gpa };
        errdefer self.deinit();
        var before: u64 = 0;
        while (!reader.done()) {
            const distance = try reader.number();
            if (distance == 0 and self.items.items.len > 0) return error.Malformed;
            const hash = std.math.add(u64, before, distance) catch return error.Malformed;
            const times = std.math.cast(u32, try reader.number()) orelse return error.Malformed;
            try self.items.append(gpa, .{ .hash = hash, .count = times });
            before = hash;
        }
        return self;
    }
};

test "each hash is taken as often as it was added" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set: Hashes = .{ .gpa = gpa };
    defer set.deinit();
    for ([_]u64{ 7, 0, 7, std.math.maxInt(u64), 7 }) |hash| try set.add(hash);
    try std.testing.expectEqual(5, set.count());
    var back: Hashes = try .decode(gpa, arena.allocator(), (try set.encode(arena.allocator(), 100)).?);
    defer back.deinit();
    for (0..3) |_| try std.testing.expect(back.take(7));
    try std.testing.expect(!back.take(7));
    try std.testing.expect(back.take(0) and back.take(std.math.maxInt(u64)));
    try std.testing.expect(!back.take(0) and !back.take(1));
}

test "a million rows that are alike take a few bytes, and as many different ones too many" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set: Hashes = .{ .gpa = gpa };
    defer set.deinit();
    for (0..1_000_000) |_| try set.add(0x1234_5678_9abc_def0);
    try std.testing.expect((try set.encode(arena.allocator(), 100)).?.len < 20);
    try std.testing.expectEqual(1_000_000, set.count());
    var generator: std.Random.DefaultPrng = .init(1);
    for (0..90_000) |_| try set.add(generator.next());
    try std.testing.expect(try set.encode(arena.allocator(), 1 << 20) != null);
    for (0..20_000) |_| try set.add(generator.next());
    try std.testing.expectEqual(null, try set.encode(arena.allocator(), 1 << 20));
    for (0..hashes_max) |_| try set.add(generator.next());
    try std.testing.expectEqual(null, try set.encode(arena.allocator(), std.math.maxInt(usize)));
    set.clear();
    try std.testing.expectEqual(0, set.count());
}

test "any text is hashes or an error" {
    try sdk.fuzz.bytes(fuzzHashes, &.{ "AQIDBAUG", "gICAgICAgICAAQ", "AAEB" });
}

fn fuzzHashes(text: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var set = Hashes.decode(gpa, arena.allocator(), text) catch |err| return if (err == error.Malformed) {} else err;
    defer set.deinit();
    for (set.items.items) |item| if (item.count > 0) try std.testing.expect(set.take(item.hash));
}
