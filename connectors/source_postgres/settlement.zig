//! What of the barriers that were marked is committed where it belongs, and up to which position a slot may forget.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;

/// Barriers that are kept apart; of more of them, some are only known to be committed when a later one is.
const kept_max = 1024;

pub const Settlement = struct {
    gpa: Allocator,
    /// Marked and not known to be committed, in their order.
    open: std.ArrayList(Barrier) = .empty,
    /// Barriers so far.
    marked: u64 = 0,
    /// Everything before it is committed; zero: nothing is known to be.
    lsn: Lsn = .zero,
    /// It is not to pass this position; null: any.
    hold: ?Lsn,
    /// What the server knows anyway. Some versions of it take a position before it as one to go back to.
    floor: Lsn = .zero,

    const Barrier = struct { number: u64, lsn: Lsn };

    pub fn deinit(self: *Settlement) void {
        self.open.deinit(self.gpa);
    }

    /// The host was told of a barrier at `lsn`.
    pub fn mark(self: *Settlement, lsn: Lsn) Allocator.Error!void {
        self.marked += 1;
        const barrier: Barrier = .{ .number = self.marked, .lsn = lsn };
        if (self.open.items.len == kept_max) self.open.items[kept_max - 1] = barrier else try self.open.append(self.gpa, barrier);
    }

    /// Barriers up to that number are committed.
    pub fn settle(self: *Settlement, number: u64) void {
        var count: usize = 0;
        for (self.open.items) |barrier| {
            if (barrier.number > number) break;
            self.lsn = barrier.lsn;
            count += 1;
        }
        self.open.replaceRangeAssumeCapacity(0, count, &.{});
    }

    /// What the server may be told; zero: nothing.
    pub fn confirmed(self: *const Settlement) Lsn {
        const lsn: Lsn = .{ .value = @min(self.lsn.value, if (self.hold) |hold| hold.value else self.lsn.value) };
        return if (lsn.value < self.floor.value) .zero else lsn;
    }
};

test "no position is confirmed before its barrier is committed, nor beyond what is held" {
    const gpa = std.testing.allocator;
    var settlement: Settlement = .{ .gpa = gpa, .hold = .{ .value = 25 } };
    defer settlement.deinit();
    for ([_]u64{ 10, 20, 30 }) |lsn| try settlement.mark(.{ .value = lsn });
    try std.testing.expectEqual(Lsn.zero, settlement.confirmed());
    settlement.settle(1);
    try std.testing.expectEqual(10, settlement.confirmed().value);
    settlement.settle(1);
    settlement.settle(0);
    try std.testing.expectEqual(10, settlement.confirmed().value);
    settlement.settle(3);
    try std.testing.expectEqual(25, settlement.confirmed().value);
    settlement.floor.value = 26;
    try std.testing.expectEqual(Lsn.zero, settlement.confirmed());
    try std.testing.expectEqual(30, settlement.lsn.value);
}

test "with many barriers open, one that is not kept is confirmed by a later one" {
    const gpa = std.testing.allocator;
    var settlement: Settlement = .{ .gpa = gpa, .hold = null };
    defer settlement.deinit();
    for (1..2 * kept_max + 1) |lsn| try settlement.mark(.{ .value = lsn });
    try std.testing.expectEqual(kept_max, settlement.open.items.len);
    settlement.settle(kept_max + 1);
    try std.testing.expectEqual(kept_max - 1, settlement.confirmed().value);
    settlement.settle(2 * kept_max);
    try std.testing.expectEqual(2 * kept_max, settlement.confirmed().value);
    try std.testing.expectEqual(0, settlement.open.items.len);
}
