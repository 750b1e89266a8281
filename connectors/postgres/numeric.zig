//! A numeric's binary form to the integer that Arrow's decimals hold: value × 10^scale.
//!
//!     ┌─────────────┬─────────────┬───────────┬─────────────┬─────────────────────────────┐
//!     │ ndigits u16 │ weight i16  │ sign u16  │ dscale u16  │ digits: ndigits × u16, base │
//!     │             │             │           │             │ 10,000, most significant 1st│
//!     └─────────────┴─────────────┴───────────┴─────────────┴─────────────────────────────┘
//!     value = ± Σ digit[i] × 10000^(weight − i);  zeros at either end are left out
//!
//! numeric_send in src/backend/utils/adt/numeric.c

const std = @import("std");
const sdk = @import("sdk");
const values = @import("values.zig");

pub const Error = error{
    /// Not a numeric as drawn above.
    Malformed,
    /// More digits, before or after the point, than the column's type declares.
    OutOfRange,
};

const header_bytes = 8;
const base = 10_000;
/// Groups of four digits that i64 holds whatever they are.
const short_digits_max = 18;

const pow10 = blk: {
    var table: [20]u64 = undefined;
    var value: u64 = 1;
    for (&table, 0..) |*entry, i| {
        entry.* = value;
        if (i < 19) value *= 10;
    }
    break :blk table;
};

const Header = struct {
    count: u32,
    weight: i32,
    sign: u16,

    inline fn isFinite(self: Header) bool {
        return self.sign == values.numeric_positive or self.sign == values.numeric_negative;
    }
};

inline fn readHeader(bytes: []const u8) Error!Header {
    if (bytes.len < header_bytes) return error.Malformed;
    const count: u32 = std.mem.readInt(u16, bytes[0..2], .big);
    if (bytes.len != header_bytes + 2 * @as(usize, count)) return error.Malformed;
    return .{
        .count = count,
        .weight = std.mem.readInt(i16, bytes[2..4], .big),
        .sign = std.mem.readInt(u16, bytes[4..6], .big),
    };
}

inline fn digitAt(bytes: []const u8, i: u32) Error!u32 {
    const at = header_bytes + 2 * @as(usize, i);
    const digit: u32 = std.mem.readInt(u16, bytes[at..][0..2], .big);
    if (digit >= base) return error.Malformed;
    return digit;
}

/// For `numeric(precision, scale)` with precision ≤ 38.
pub fn decode128(bytes: []const u8, precision: u8, scale: u8) Error!i128 {
    const header = try readHeader(bytes);
    if (!header.isFinite()) return special(i128, header.sign);
    // Digits before the point, rounded up to a group, and those behind it.
    const digits = 4 * (header.weight + 1) + scale;
    if (digits <= short_digits_max and digits > 0) {
        const magnitude: i64 = @intCast(try short(bytes, header, scale, precision));
        return if (header.sign == values.numeric_negative) -magnitude else magnitude;
    }
    return signed(i128, try long(bytes, header, precision, scale), header.sign);
}

/// For `numeric(precision, scale)` with precision ≤ 76.
pub fn decode256(bytes: []const u8, precision: u8, scale: u8) Error!i256 {
    const header = try readHeader(bytes);
    if (!header.isFinite()) return special(i256, header.sign);
    return signed(i256, try long(bytes, header, precision, scale), header.sign);
}

fn special(comptime Int: type, sign: u16) Error!Int {
    return switch (sign) {
        values.numeric_nan => values.Numeric(Int).nan,
        values.numeric_infinity => values.Numeric(Int).infinity,
        values.numeric_minus_infinity => values.Numeric(Int).minus_infinity,
        else => error.Malformed,
    };
}

/// The magnitude of a value whose digits fit into u64: multiplications by constants and at most one division by one.
inline fn short(bytes: []const u8, header: Header, scale: u8, precision: u8) Error!u64 {
    if (header.count == 0) return 0;
    // How many decimal digits the last group's last digit lies above (or, negative, below) the stored integer's.
    const shift = 4 * (header.weight - @as(i32, @intCast(header.count)) + 1) + scale;
    if (shift <= -4) return error.OutOfRange; // PostgreSQL strips zero groups, so digits would be lost
    var magnitude: u64 = 0;
    for (0..header.count - 1) |i| magnitude = magnitude * base + try digitAt(bytes, @intCast(i));
    const last = try digitAt(bytes, header.count - 1);
    magnitude = if (shift >= 0)
        (magnitude * base + last) * pow10[@intCast(shift)]
    else
        magnitude * pow10[@intCast(4 + shift)] + try cutGroup(last, @intCast(-shift));
    if (precision < pow10.len and magnitude >= pow10[precision]) return error.OutOfRange;
    return magnitude;
}

/// A group without its last `count` digits, which must be zeros.
inline fn cutGroup(group: u32, count: u2) Error!u32 {
    const cut: [2]u32 = switch (count) {
        0 => .{ group, 0 },
        1 => .{ group / 10, group % 10 },
        2 => .{ group / 100, group % 100 },
        3 => .{ group / 1000, group % 1000 },
    };
    if (cut[1] != 0) return error.OutOfRange;
    return cut[0];
}

/// Eight limbs of 32 bits, least significant first: products with small factors stay inside u64 on every target.
const Wide = struct {
    limbs: [8]u32 = @splat(0),

    const zero: Wide = .{};

    fn mulAdd(self: *Wide, factor: u32, addend: u32) Error!void {
        var carry: u64 = addend;
        for (&self.limbs) |*limb| {
            const product = @as(u64, limb.*) * factor + carry;
            limb.* = @truncate(product);
            carry = product >> 32;
        }
        if (carry != 0) return error.OutOfRange;
    }

    fn value(self: Wide) u256 {
        return std.mem.readInt(u256, std.mem.asBytes(&self.limbs), @import("builtin").cpu.arch.endian());
    }
};

const powers256 = blk: {
    @setEvalBranchQuota(10_000);
    var table: [77]u256 = undefined;
    var value: u256 = 1;
    for (&table, 0..) |*entry, i| {
        entry.* = value;
        if (i < 76) value *= 10;
    }
    break :blk table;
};

fn long(bytes: []const u8, header: Header, precision: u8, scale: u8) Error!u256 {
    if (header.count == 0) return 0;
    var wide: Wide = .zero;
    const shift = 4 * (header.weight - @as(i32, @intCast(header.count)) + 1) + scale;
    if (shift <= -4) return error.OutOfRange;
    for (0..header.count - 1) |i| try wide.mulAdd(base, try digitAt(bytes, @intCast(i)));
    const last = try digitAt(bytes, header.count - 1);
    if (shift < 0) {
        try wide.mulAdd(@intCast(pow10[@intCast(4 + shift)]), try cutGroup(last, @intCast(-shift)));
    } else {
        try wide.mulAdd(base, last);
        // At most 76 digits: a larger shift of anything but zero leaves the range on the way.
        for (0..@intCast(shift)) |_| {
            try wide.mulAdd(10, 0);
        }
    }
    const magnitude = wide.value();
    if (magnitude >= powers256[precision]) return error.OutOfRange;
    return magnitude;
}

fn signed(comptime Int: type, magnitude: u256, sign: u16) Int {
    const positive: Int = @intCast(magnitude); // below 10^38 (10^76)
    return if (sign == values.numeric_negative) -positive else positive;
}

/// Binary forms made by PostgreSQL: SELECT encode(numeric_send(x::numeric(p, s)), 'hex')
fn expect(comptime hex: []const u8, precision: u8, scale: u8, expected: i256) !void {
    var bytes: [hex.len / 2]u8 = undefined;
    _ = try std.fmt.hexToBytes(&bytes, hex);
    try std.testing.expectEqual(expected, try decode256(&bytes, precision, scale));
    if (precision <= 38) try std.testing.expectEqual(
        @as(i128, @intCast(expected)),
        try decode128(&bytes, precision, scale),
    );
}

test "numerics give value times ten to the scale" {
    try expect("0000000000000004", 12, 4, 0);
    try expect("0002000000000004000104d2", 12, 4, 1_1234);
    try expect("00020000400000040001000a", 12, 4, -1_0010);
    try expect("0001ffff000000040001", 12, 4, 1); // 0.0001
    try expect("000300010000000404d2162e2334", 12, 4, 12345678_9012);
    try expect("000200000000000200011068", 5, 2, 1_42);
    try expect("000200004000000203e726ac", 5, 2, -999_99);
    try expect("0001ffff00000003000a", 3, 3, 1); // 0.001
    try expect("00010001000000000001", 5, 0, 10_000);
    try expect("00050003000000040063270f270f270f270f", 18, 4, 99_999_999_999_999_9999);
    try expect("0003000000000005000109291770", 6, 5, 1_23456);
    try expect(
        "000a00060000000a04d2162e23340d801ed204d2162e23340d801e78",
        38,
        10,
        1234567890123456789012345678_9012345678,
    );
    try expect(
        "000a0009400000000063270f270f270f270f270f270f270f270f270f",
        38,
        0,
        -99_999_999_999_999_999_999_999_999_999_999_999_999,
    );
    try expect("000100070000000003e8", 38, 0, 10_000_000_000_000_000_000_000_000_000_000);
    try expect(
        "0013001200000000" ++ "270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f",
        76,
        0,
        powers256[76] - 1,
    );
    try expect("0001ffed0000004c0001", 76, 76, 1);
}

test "the short and the long way agree" {
    var random: std.Random.DefaultPrng = .init(std.testing.random_seed);
    errdefer std.debug.print("seed {d}\n", .{std.testing.random_seed});
    for (0..10_000) |_| {
        var bytes: [header_bytes + 12]u8 = @splat(0);
        const count = random.random().uintLessThan(u16, 7);
        std.mem.writeInt(u16, bytes[0..2], count, .big);
        std.mem.writeInt(i16, bytes[2..4], random.random().intRangeAtMost(i16, -3, 5), .big);
        for (0..count) |i| {
            const step: u16 = if (random.random().boolean()) 1 else 100;
            const digit = step * random.random().uintLessThan(u16, base / step);
            std.mem.writeInt(u16, bytes[header_bytes + 2 * i ..][0..2], digit, .big);
        }
        const scale = random.random().uintLessThan(u8, 9);
        const numeric = bytes[0 .. header_bytes + 2 * count];
        const narrow = decode128(numeric, 18, scale);
        const wide = decode256(numeric, 18, scale);
        const widened: Error!i256 = if (narrow) |value| value else |err| err;
        try std.testing.expectEqual(widened, wide);
    }
}

test "what is no number has its place outside the range" {
    const nan = "\x00\x00\x00\x00\xc0\x00\x00\x00";
    try std.testing.expectEqual(values.Numeric128.nan, try decode128(nan, 12, 4));
    try std.testing.expectEqual(values.Numeric256.nan, try decode256(nan, 60, 4));
    try std.testing.expectEqual(values.Numeric128.infinity, try decode128("\x00\x00\x00\x00\xd0\x00\x00\x20", 12, 4));
    try std.testing.expectEqual(
        values.Numeric256.minus_infinity,
        try decode256("\x00\x00\x00\x00\xf0\x00\x00\x20", 60, 4),
    );
}

test "digits that the declared type has no room for are out of range" {
    const one_ten_thousandth = "\x00\x01\xff\xff\x00\x00\x00\x04\x00\x01";
    const ten_thousand = "\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01";
    try std.testing.expectError(error.OutOfRange, decode128(one_ten_thousandth, 12, 3));
    try std.testing.expectError(error.OutOfRange, decode256(one_ten_thousandth, 70, 3));
    try std.testing.expectError(error.OutOfRange, decode128(ten_thousand, 4, 0));
    try std.testing.expectError(error.OutOfRange, decode256(ten_thousand, 4, 0));
}

test "bytes that are not a numeric are malformed" {
    for ([_][]const u8{
        "",
        "\x00\x01\x00\x00\x00\x00\x00\x00", // one digit promised, none there
        "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", // none promised, one there
        "\x00\x00\x00\x00\x12\x34\x00\x00", // no such sign
        "\x00\x01\x00\x00\x00\x00\x00\x00\x27\x10", // a digit of 10,000
    }) |bytes| {
        try std.testing.expectError(error.Malformed, decode128(bytes, 12, 4));
        try std.testing.expectError(error.Malformed, decode256(bytes, 60, 4));
    }
}

test "any bytes are a number or an error" {
    try sdk.fuzz.bytes(fuzzNumeric, &.{
        "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x04\xd2",
        "\x00\x05\x00\x03\x40\x00\x00\x04\x00\x63\x27\x0f\x27\x0f\x27\x0f\x27\x0f",
    });
}

fn fuzzNumeric(bytes: []const u8) anyerror!void {
    for ([_]u8{ 0, 4, 7, 38 }) |scale| {
        const narrow = decode128(bytes, 38, scale) catch continue;
        const wide = try decode256(bytes, 38, scale);
        if (narrow != values.Numeric128.nan and narrow != values.Numeric128.infinity and
            narrow != values.Numeric128.minus_infinity) try std.testing.expectEqual(wide, narrow);
    }
}
