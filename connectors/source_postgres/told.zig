//! Rows that a stream with a lag has set aside. It reads them again for as long as the lag reaches back to them, as it does
//! all others; what is told of them, or counted, it tells once.

const std = @import("std");
const Hashes = @import("hashes.zig").Hashes;

const Allocator = std.mem.Allocator;

/// Characters in a cursor at most, about 98,000 rows. More are told again.
pub const text_max = 1024 * 1024;

pub const Told = struct {
    gpa: Allocator,
    /// By the runs before this one; those that came again are taken out.
    before: Hashes,
    /// In the cursor's order.
    now: std.ArrayList(Entry) = .empty,

    const Entry = struct { instant: i64, hash: u64 };

    pub fn restore(gpa: Allocator, arena: Allocator, kept: ?[]const u8) (Allocator.Error || error{Malformed})!Told {
        return .{
            .gpa = gpa,
            .before = if (kept) |text| try .decode(gpa, arena, text) else .{ .gpa = gpa },
        };
    }

    pub fn deinit(self: *Told) void {
        self.before.deinit();
        self.now.deinit(self.gpa);
    }

    /// Whether the row was told by a run before. This one has, from now on.
    pub fn take(self: *Told, instant: i64, hash: u64) Allocator.Error!bool {
        try self.now.append(self.gpa, .{ .instant = instant, .hash = hash });
        return self.before.take(hash);
    }

    /// What a cursor keeps: the rows from `first` on, and, where not all of the lag was read yet, those that may still come
    /// again. Null for none.
    pub fn encode(self: *Told, arena: Allocator, first: i64, with_before: bool) Allocator.Error!?[]const u8 {
        var gone: usize = 0;
        while (gone < self.now.items.len and self.now.items[gone].instant < first) gone += 1;
        self.now.replaceRangeAssumeCapacity(0, gone, &.{});
        var kept: Hashes = .{ .gpa = self.gpa };
        defer kept.deinit();
        for (self.now.items) |entry| try kept.add(entry.hash);
        if (with_before) for (self.before.items.items) |item| {
            for (0..item.count) |_| try kept.add(item.hash);
        };
        if (kept.count() == 0) return null;
        return kept.encode(arena, text_max);
    }
};

test "rows are told once, for as long as they come again" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var first: Told = try .restore(gpa, arena.allocator(), null);
    defer first.deinit();
    try std.testing.expectEqual(null, try first.encode(arena.allocator(), 0, true));
    for ([_]i64{ 1, 5, 5, 9 }, [_]u64{ 10, 50, 50, 90 }) |instant, hash|
        try std.testing.expect(!try first.take(instant, hash));
    var second: Told = try .restore(gpa, arena.allocator(), try first.encode(arena.allocator(), 5, false));
    defer second.deinit();
    try std.testing.expect(!try second.take(1, 10));
    try std.testing.expect(try second.take(5, 50));
    // The other two may still come.
    var third: Told = try .restore(gpa, arena.allocator(), try second.encode(arena.allocator(), 5, true));
    defer third.deinit();
    try std.testing.expect(try third.take(5, 50) and try third.take(5, 50) and try third.take(9, 90));
    try std.testing.expect(!try third.take(9, 90));
    try std.testing.expectEqual(null, try second.encode(arena.allocator(), 6, false));
    try std.testing.expectError(error.Malformed, Told.restore(gpa, arena.allocator(), "?"));
}
