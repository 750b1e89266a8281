//! Single values of batches: whether two are the same bytes, and each as a batch of its own.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;
const ArrayView = sdk.arrow.ArrayView;

/// Of the value, and of what came before it.
pub fn hash(view: *const ArrayView, row: usize, seed: u64) u64 {
    if (view.isNull(row)) return std.hash.int(seed +% 1);
    return switch (view.type) {
        .bool => std.hash.int(seed ^ (2 + @as(u64, @intFromBool(view.boolAt(row))))),
        .list => blk: {
            var mixed = seed +% 3;
            for (@intCast(view.offsets[row])..@intCast(view.offsets[row + 1])) |i| mixed = hash(view.child.?, i, mixed);
            break :blk mixed;
        },
        .utf8, .binary => std.hash.Wyhash.hash(seed, view.bytesAt(row)),
        else => blk: {
            const bytes = fixedAt(view, row);
            if (bytes.len == 8) break :blk std.hash.int(seed ^ std.mem.readInt(u64, bytes[0..8], .little));
            break :blk std.hash.Wyhash.hash(seed, bytes);
        },
    };
}

/// Two values of columns of one type.
pub fn eql(a: *const ArrayView, a_row: usize, b: *const ArrayView, b_row: usize) bool {
    if (a.isNull(a_row) or b.isNull(b_row)) return a.isNull(a_row) and b.isNull(b_row);
    return switch (a.type) {
        .bool => a.boolAt(a_row) == b.boolAt(b_row),
        .list => blk: {
            const a_first: usize = @intCast(a.offsets[a_row]);
            const b_first: usize = @intCast(b.offsets[b_row]);
            const count: usize = @intCast(a.offsets[a_row + 1] - a.offsets[a_row]);
            if (b.offsets[b_row + 1] - b.offsets[b_row] != count) break :blk false;
            for (0..count) |i| if (!eql(a.child.?, a_first + i, b.child.?, b_first + i)) break :blk false;
            break :blk true;
        },
        .utf8, .binary => std.mem.eql(u8, a.bytesAt(a_row), b.bytesAt(b_row)),
        else => std.mem.eql(u8, fixedAt(a, a_row), fixedAt(b, b_row)),
    };
}

fn fixedAt(view: *const ArrayView, row: usize) []const u8 {
    const width = view.type.layout().fixed;
    return view.values[row * width ..][0..width];
}

/// A number that orders values about as the server does: by what they begin with.
pub fn rank(view: *const ArrayView, row: usize) u64 {
    if (view.isNull(row)) return std.math.maxInt(u64);
    const sign = 1 << 63;
    return switch (view.type) {
        .int16 => @as(u64, @bitCast(@as(i64, view.fixed(i16)[row]))) ^ sign,
        .int32, .date32 => @as(u64, @bitCast(@as(i64, view.fixed(i32)[row]))) ^ sign,
        .int64, .timestamp, .time64 => @as(u64, @bitCast(view.fixed(i64)[row])) ^ sign,
        // The low digits, which are all that most have.
        .decimal128, .decimal256 => std.mem.readInt(u64, fixedAt(view, row)[0..8], .little) ^ sign,
        .utf8, .binary, .fixed_size_binary => blk: {
            var first: [8]u8 = @splat(0);
            const bytes = view.bytesAt(row);
            const count = @min(bytes.len, first.len);
            @memcpy(first[0..count], bytes[0..count]);
            break :blk std.mem.readInt(u64, &first, .big);
        },
        .bool, .float32, .float64, .interval_month_day_nano, .list => 0,
    };
}

const no_bits = [1]u8{0};
const one_bit = [1]u8{1};

/// The value as a column of one row, where it lies.
pub fn one(view: *const ArrayView, row: usize) ArrayView {
    var single = view.*;
    single.length = 1;
    single.null_count = @intFromBool(view.isNull(row));
    single.validity = if (single.null_count == 1) &no_bits else null;
    switch (view.type.layout()) {
        .bits => single.values = if (view.boolAt(row)) &one_bit else &no_bits,
        .fixed => |width| single.values = view.values[row * width ..][0..width],
        .bytes, .list => single.offsets = view.offsets[row..][0..2],
    }
    return single;
}

/// NULL as a column of one row, of the same type.
pub fn nothing(view: *const ArrayView) ArrayView {
    return .{
        .type = view.type,
        .length = 1,
        .null_count = 1,
        .validity = &no_bits,
        .offsets = &.{ 0, 0 },
        // Nobody reads the value of a NULL.
        .values = "",
        .child = view.child,
    };
}

test "values are the same where their bytes are, and stand alone as they are" {
    const values = [_]i64{ 7, 8, 7, 0 };
    const view: ArrayView = .{
        .type = .int64,
        .length = 4,
        .null_count = 1,
        .validity = &.{0b0111},
        .offsets = &.{},
        .values = std.mem.sliceAsBytes(&values),
        .child = null,
    };
    try std.testing.expect(eql(&view, 0, &view, 2));
    try std.testing.expectEqual(hash(&view, 0, 5), hash(&view, 2, 5));
    try std.testing.expect(!eql(&view, 0, &view, 1));
    // NULL is not the zero that lies below it, and is the same as another.
    try std.testing.expect(!eql(&view, 3, &view, 1));
    try std.testing.expect(eql(&view, 3, &nothing(&view), 0));
    try std.testing.expect(rank(&view, 0) < rank(&view, 1) and rank(&view, 1) < rank(&view, 3));
    const second = one(&view, 1);
    try std.testing.expectEqual(8, second.fixed(i64)[0]);
    try std.testing.expectEqual(1, one(&view, 3).null_count);
}
