//! Whether the keys of the rows so far are surely all different, found out while the rows pass: the server needs no look
//! for repetitions then, which would cost it more than a tenth of an upsert.
//!
//! Only keys whose equal values are equal in every byte can be told here; of each, 64 bits of a hash are kept. Two keys
//! with the same hash are taken for a repetition, which costs nothing but the server's look.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// 32 MB: with more keys than fill three quarters of them, the server has to look.
const slots_max = 1 << 22;
const slots_min = 1 << 12;

pub const Distinct = struct {
    gpa: Allocator,
    /// The key's columns in the batches; empty when they cannot be told.
    columns: []const usize,
    /// Hashes; 0 is a free slot. A power of two.
    slots: []u64 = &.{},
    used: usize = 0,
    verdict: Verdict = .all_different,

    pub const Verdict = enum { all_different, maybe_not };

    pub fn deinit(self: *Distinct) void {
        self.gpa.free(self.slots);
    }

    /// For the next commit's rows.
    pub fn reset(self: *Distinct) void {
        @memset(self.slots, 0);
        self.used = 0;
        self.verdict = .all_different;
    }

    /// No value of the key is NULL.
    pub fn add(self: *Distinct, batch: *const arrow.Batch) void {
        if (self.verdict == .maybe_not) return;
        if (self.columns.len == 0 or !self.makeRoom(batch.rows)) {
            self.verdict = .maybe_not;
            return;
        }
        for (0..batch.rows) |row| {
            var hash: u64 = 0;
            for (self.columns) |column| hash = hashOf(&batch.columns[column], row, hash);
            if (!self.insert(@max(hash, 1))) {
                self.verdict = .maybe_not;
                return;
            }
        }
    }

    fn makeRoom(self: *Distinct, count: usize) bool {
        const needed = (self.used + count) / 3 * 4 + 4;
        if (needed <= self.slots.len) return true;
        if (needed > slots_max) return false;
        const size = @max(std.math.ceilPowerOfTwo(usize, needed) catch return false, slots_min);
        const old = self.slots;
        self.slots = self.gpa.alloc(u64, size) catch return false;
        @memset(self.slots, 0);
        self.used = 0;
        for (old) |hash| if (hash != 0) std.debug.assert(self.insert(hash));
        self.gpa.free(old);
        return true;
    }

    /// False when it was there.
    fn insert(self: *Distinct, hash: u64) bool {
        const mask = self.slots.len - 1;
        var at: usize = @intCast(hash & mask);
        while (self.slots[at] != 0) : (at = (at + 1) & mask) if (self.slots[at] == hash) return false;
        self.slots[at] = hash;
        self.used += 1;
        return true;
    }
};

/// Of one value that is not NULL, and of what came before it.
fn hashOf(view: *const arrow.ArrayView, row: usize, seed: u64) u64 {
    return switch (view.type) {
        .bool => std.hash.Wyhash.hash(seed, &.{@intFromBool(view.boolAt(row))}),
        .utf8, .binary => std.hash.Wyhash.hash(seed, view.bytesAt(row)),
        else => blk: {
            const width = view.values.len / view.length;
            break :blk std.hash.Wyhash.hash(seed, view.values[row * width ..][0..width]);
        },
    };
}

/// Whether equal values of a type are equal in every byte of their Arrow form, wherever the server's equality is the
/// usual one.
pub fn canTell(field_type: arrow.Type) bool {
    return switch (field_type) {
        .bool, .int16, .int32, .int64, .decimal128, .decimal256, .utf8, .binary => true,
        .date32, .timestamp, .time64, .fixed_size_binary => true,
        // 0 is -0, 24 hours are a day, and lists hold such things.
        .float32, .float64, .interval_month_day_nano, .list => false,
    };
}

fn batchForTest(values: []const i64) arrow.Batch {
    const column = std.testing.allocator.create(arrow.ArrayView) catch unreachable;
    column.* = .{
        .type = .int64,
        .length = values.len,
        .null_count = 0,
        .validity = null,
        .offsets = &.{},
        .values = std.mem.sliceAsBytes(values),
        .child = null,
    };
    return .{ .rows = values.len, .columns = column[0..1] };
}

test "a repetition is found within a batch and across batches, until the next commit" {
    const gpa = std.testing.allocator;
    var distinct: Distinct = .{ .gpa = gpa, .columns = &.{0} };
    defer distinct.deinit();
    var many: [10_000]i64 = undefined;
    for (&many, 0..) |*value, i| value.* = @intCast(i);
    const all = batchForTest(&many);
    defer gpa.destroy(&all.columns[0]);
    const again = batchForTest(many[9_999..]);
    defer gpa.destroy(&again.columns[0]);
    const twice = batchForTest(&.{ 7, 7 });
    defer gpa.destroy(&twice.columns[0]);

    distinct.add(&all);
    try std.testing.expectEqual(.all_different, distinct.verdict);
    distinct.add(&again);
    try std.testing.expectEqual(.maybe_not, distinct.verdict);
    distinct.reset();
    distinct.add(&again);
    try std.testing.expectEqual(.all_different, distinct.verdict);
    distinct.add(&twice);
    try std.testing.expectEqual(.maybe_not, distinct.verdict);
}

test "a key of no columns that can be told leaves it to the server" {
    var distinct: Distinct = .{ .gpa = std.testing.allocator, .columns = &.{} };
    defer distinct.deinit();
    const one = batchForTest(&.{1});
    defer std.testing.allocator.destroy(&one.columns[0]);
    distinct.add(&one);
    try std.testing.expectEqual(.maybe_not, distinct.verdict);
}
