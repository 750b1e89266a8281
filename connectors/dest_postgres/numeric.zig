//! Arrow decimals, and numerics written as text, -> PostgreSQL's binary `numeric`.
//!
//!     u16 ndigits | i16 weight | u16 sign | u16 dscale | ndigits × u16 digit        all big-endian
//!
//! The digits are base 10000, the most significant first; the first one counts 10000^weight. Zeros at both ends are
//! left out. `dscale` is how many decimals are shown: 1.50 in a numeric(12,4) shows as 1.5000.
//! src/backend/utils/adt/numeric.c, `numeric_send`.
//!
//! Decimals are stored scaled: 1.5000 is 15000 with scale 4. Base-10000 digits are aligned at the decimal point, so the
//! stored integer is first multiplied by 10^pad until its fraction is whole digits.

const std = @import("std");
const values = @import("postgres").values;

/// The most decimals of a decimal256.
pub const max_scale = 76;

const header_bytes = 8;

/// Base-10000 digits of an unsigned integer of `bits` bits times at most 10^3.
fn digitsMax(comptime bits: u16) usize {
    // 10^38 < 2^127: 39 digits at most in 128 bits, 78 in 256; plus 3 of padding.
    return switch (bits) {
        128 => 11,
        256 => 21,
        else => @compileError("no such decimal"),
    };
}

/// Bytes of the longest encoding.
pub fn maxBytes(comptime bits: u16) usize {
    return header_bytes + 2 * digitsMax(bits);
}

const pow10_u32 = [_]u32{ 1, 10, 100, 1000 };

/// How a column's scale splits: computed once per column.
pub const Scale = struct {
    /// Decimals shown.
    dscale: u16,
    /// 10^pad.
    factor: u32,
    /// Base-10000 digits behind the point.
    fraction: u16,

    pub fn init(scale: u16) Scale {
        std.debug.assert(scale <= max_scale);
        const pad = (4 - scale % 4) % 4;
        return .{ .dscale = scale, .factor = pow10_u32[pad], .fraction = (scale + pad) / 4 };
    }
};

inline fn putU16(out: [*]u8, at: usize, value: u16) void {
    @setRuntimeSafety(false); // Hot: the caller reserved `maxBytes`.
    out[at..][0..2].* = @bitCast(@byteSwap(value));
}

fn putSpecial(out: [*]u8, sign: u16) usize {
    putU16(out, 0, 0);
    putU16(out, 2, 0);
    putU16(out, 4, sign);
    // numeric_recv ignores the scale of these.
    putU16(out, 6, 0);
    return header_bytes;
}

/// Writes the header and those of `groups` (base 10000, least significant first) that count.
inline fn putGroups(out: [*]u8, groups: [*]const u16, count: usize, negative: bool, scale: Scale) usize {
    @setRuntimeSafety(false); // Hot: indices stay below `count`, and the caller reserved `maxBytes`.
    var top = count;
    while (top > 0 and groups[top - 1] == 0) top -= 1;
    if (top == 0) {
        putU16(out, 0, 0);
        putU16(out, 2, 0);
        putU16(out, 4, values.numeric_positive);
        putU16(out, 6, scale.dscale);
        return header_bytes;
    }
    var bottom: usize = 0;
    while (groups[bottom] == 0) bottom += 1;
    const weight: i16 = @as(i16, @intCast(top)) - 1 - @as(i16, @intCast(scale.fraction));
    putU16(out, 0, @intCast(top - bottom));
    putU16(out, 2, @bitCast(weight));
    putU16(out, 4, if (negative) values.numeric_negative else values.numeric_positive);
    putU16(out, 6, scale.dscale);
    var at: usize = header_bytes;
    var i = top;
    while (i > bottom) {
        i -= 1;
        putU16(out, at, groups[i]);
        at += 2;
    }
    return at;
}

/// The largest magnitude whose product with `Scale.factor` fits 64 bits.
const small_max: u64 = std.math.maxInt(u64) / 1000;

inline fn putSmall(out: [*]u8, magnitude: u64, negative: bool, scale: Scale) usize {
    @setRuntimeSafety(false); // Hot: five groups hold any u64.
    var groups: [6]u16 = undefined;
    var rest = magnitude * scale.factor;
    var count: usize = 0;
    // 64-bit division costs: one per 8 decimals; the halves are split in 32 bits.
    while (rest >= 100_000_000) {
        const quotient = rest / 100_000_000;
        const pair: u32 = @intCast(rest - quotient * 100_000_000);
        groups[count] = @intCast(pair % 10_000);
        groups[count + 1] = @intCast(pair / 10_000);
        count += 2;
        rest = quotient;
    }
    const pair: u32 = @intCast(rest);
    groups[count] = @intCast(pair % 10_000);
    groups[count + 1] = @intCast(pair / 10_000);
    return putGroups(out, &groups, count + 2, negative, scale);
}

/// Any magnitude, by long division of 32-bit limbs: WASM has no 128-bit division.
fn putLarge(comptime limb_count: usize, out: [*]u8, magnitude: [limb_count]u32, negative: bool, scale: Scale) usize {
    const bits = limb_count * 32;
    var limbs: [limb_count + 1]u32 = undefined;
    var carry: u64 = 0;
    for (magnitude, 0..) |limb, i| {
        carry += @as(u64, limb) * scale.factor;
        limbs[i] = @truncate(carry);
        carry >>= 32;
    }
    limbs[limb_count] = @intCast(carry);

    var groups: [digitsMax(bits) + 1]u16 = undefined;
    var count: usize = 0;
    var used: usize = limbs.len;
    while (true) {
        while (used > 0 and limbs[used - 1] == 0) used -= 1;
        if (used == 0) break;
        var remainder: u64 = 0;
        var i = used;
        while (i > 0) {
            i -= 1;
            const part = remainder << 32 | limbs[i];
            limbs[i] = @intCast(part / 100_000_000);
            remainder = part % 100_000_000;
        }
        const pair: u32 = @intCast(remainder);
        groups[count] = @intCast(pair % 10_000);
        groups[count + 1] = @intCast(pair / 10_000);
        count += 2;
    }
    return putGroups(out, &groups, count, negative, scale);
}

/// Encodes the little-endian two's complement integer at `in`; returns the bytes written, at most `maxBytes(bits)`.
pub inline fn put(comptime bits: u16, out: [*]u8, in: *const [bits / 8]u8, scale: Scale) usize {
    @setRuntimeSafety(false); // Hot: the caller reserved `maxBytes(bits)`.
    if (bits == 128) {
        const low: u64 = @bitCast(in[0..8].*);
        const high: i64 = @bitCast(in[8..16].*);
        const signed: i64 = @bitCast(low);
        if (high == signed >> 63) {
            const magnitude = @abs(signed);
            if (magnitude <= small_max) return putSmall(out, magnitude, signed < 0, scale);
        }
    }
    return putAny(bits, out, in, scale);
}

noinline fn putAny(comptime bits: u16, out: [*]u8, in: *const [bits / 8]u8, scale: Scale) usize {
    const Int = @Int(.signed, bits);
    const special = values.Numeric(Int);
    const value = std.mem.readInt(Int, in, .little);
    if (value == special.nan) return putSpecial(out, values.numeric_nan);
    if (value == special.infinity) return putSpecial(out, values.numeric_infinity);
    if (value == special.minus_infinity) return putSpecial(out, values.numeric_minus_infinity);
    const magnitude: [bits / 32]u32 = @bitCast(@abs(value));
    return putLarge(bits / 32, out, magnitude, value < 0, scale);
}

/// The limits of a numeric: digits behind the point, and before it (src/include/utils/numeric.h).
const dscale_max = 16_383;
const integer_digits_max = 131_072;

/// Appends the encoding of a number in the form that PostgreSQL shows: digits, perhaps a sign, a point, an exponent, or
/// `NaN`, `Infinity`. A numeric without precision crosses like this. Null when it is none.
pub fn appendText(out: *std.ArrayList(u8), gpa: std.mem.Allocator, text: []const u8) error{OutOfMemory}!?void {
    const negative = text.len > 0 and text[0] == '-';
    const unsigned = if (text.len > 0 and (text[0] == '-' or text[0] == '+')) text[1..] else text;
    if (specialSign(unsigned, negative)) |sign| {
        try out.ensureUnusedCapacity(gpa, header_bytes);
        out.items.len += putSpecial(out.items.ptr + out.items.len, sign);
        return;
    }
    const literal = Literal.parse(unsigned) orelse return null;
    const decimals = @as(i64, @intCast(literal.fraction.len)) - literal.exponent;
    // Decimal digits before the point, were all of them written out; below zero when zeros follow the point.
    const before = @as(i64, @intCast(literal.integer.len)) + literal.exponent;
    if (decimals > dscale_max or before > integer_digits_max) return null;
    // Where the first digit stands in its base-10000 digit, and which power of 10000 that one counts.
    const first: usize = @intCast(@mod(-before, 4));
    const weight = @divFloor(before - 1, 4);
    try literal.append(out, gpa, .{
        .first = first,
        .weight = weight,
        .sign = if (negative) values.numeric_negative else values.numeric_positive,
        .dscale = @intCast(@max(0, decimals)),
    });
}

fn specialSign(unsigned: []const u8, negative: bool) ?u16 {
    if (std.mem.eql(u8, unsigned, "NaN")) return if (negative) null else values.numeric_nan;
    if (!std.mem.eql(u8, unsigned, "Infinity")) return null;
    return if (negative) values.numeric_minus_infinity else values.numeric_infinity;
}

/// `integer.fraction e exponent`, the digits still as text.
const Literal = struct {
    integer: []const u8,
    fraction: []const u8,
    exponent: i64,

    fn parse(text: []const u8) ?Literal {
        const mantissa_end = std.mem.findAny(u8, text, "eE") orelse text.len;
        const mantissa = text[0..mantissa_end];
        const point = std.mem.findScalar(u8, mantissa, '.');
        const integer = mantissa[0 .. point orelse mantissa.len];
        const fraction = if (point) |at| mantissa[at + 1 ..] else "";
        if (integer.len + fraction.len == 0) return null;
        for ([_][]const u8{ integer, fraction }) |part| for (part) |byte| if (!std.ascii.isDigit(byte)) return null;
        const exponent: i64 = if (mantissa_end == text.len) 0 else std.fmt.parseInt(i32, text[mantissa_end + 1 ..], 10) catch
            return null;
        return .{ .integer = integer, .fraction = fraction, .exponent = exponent };
    }

    const Place = struct { first: usize, weight: i64, sign: u16, dscale: u16 };

    fn append(self: Literal, out: *std.ArrayList(u8), gpa: std.mem.Allocator, place: Place) error{OutOfMemory}!void {
        const decimals = self.integer.len + self.fraction.len;
        const start = out.items.len;
        try out.ensureUnusedCapacity(gpa, header_bytes + 2 * ((place.first + decimals + 3) / 4));
        out.items.len += header_bytes;
        var weight = place.weight;
        var leading = true;
        var group: u16 = 0;
        var position = place.first;
        var end = out.items.len;
        for (0..decimals) |i| {
            const byte = if (i < self.integer.len) self.integer[i] else self.fraction[i - self.integer.len];
            group = group * 10 + (byte - '0');
            position += 1;
            if (i + 1 == decimals) while (position < 4) : (position += 1) {
                group *= 10;
            };
            if (position < 4) continue;
            if (leading and group == 0) {
                weight -= 1;
            } else {
                leading = false;
                out.appendSliceAssumeCapacity(&@as([2]u8, @bitCast(@byteSwap(group))));
                if (group != 0) end = out.items.len;
            }
            position = 0;
            group = 0;
        }
        out.items.len = end;
        const zero = leading;
        const to = out.items[start..].ptr;
        putU16(to, 0, @intCast((end - start - header_bytes) / 2));
        putU16(to, 2, if (zero) 0 else @bitCast(@as(i16, @intCast(weight))));
        putU16(to, 4, if (zero) values.numeric_positive else place.sign);
        putU16(to, 6, place.dscale);
    }
};

// The expected bytes are `SELECT encode(numeric_send(V), 'hex')`; golden.sql makes them again.
const Golden = struct { value: i256, scale: u16, hex: []const u8 };
const goldens = [_]Golden{
    .{ .value = 0, .scale = 0, .hex = "0000000000000000" }, // 0
    .{ .value = 0, .scale = 4, .hex = "0000000000000004" }, // 0::numeric(12,4)
    .{ .value = 15000, .scale = 4, .hex = "000200000000000400011388" }, // 1.50::numeric(12,4)
    .{ .value = -15000, .scale = 4, .hex = "000200004000000400011388" }, // -1.50::numeric(12,4)
    .{ .value = 1, .scale = 3, .hex = "0001ffff00000003000a" }, // 0.001
    .{ .value = 1, .scale = 5, .hex = "0001fffe0000000503e8" }, // 0.00001
    .{ .value = 10000, .scale = 0, .hex = "00010001000000000001" }, // 10000
    .{ .value = 99999999, .scale = 0, .hex = "0002000100000000270f270f" }, // 99999999
    .{ .value = 1234567890, .scale = 4, .hex = "0003000100000004000c0d801ed2" }, // 123456.7890
    .{ // 12345678901234567890123456789012345678
        .value = 12345678901234567890123456789012345678,
        .scale = 0,
        .hex = "000a000900000000000c0d801ed204d2162e23340d801ed204d2162e",
    },
};

test "decimals become the digits that numeric_send writes" {
    for (goldens) |golden| {
        var hex: [128]u8 = undefined;
        const expected = try std.fmt.hexToBytes(&hex, golden.hex);
        var out: [maxBytes(256) + 16]u8 = undefined;
        const wide: [32]u8 = @bitCast(golden.value);
        const n256 = put(256, &out, &wide, .init(golden.scale));
        try std.testing.expectEqualSlices(u8, expected, out[0..n256]);
        const narrow: [16]u8 = wide[0..16].*;
        const n128 = put(128, &out, &narrow, .init(golden.scale));
        try std.testing.expectEqualSlices(u8, expected, out[0..n128]);
    }
}

fn decode(bytes: []const u8, scale: u16) !i256 {
    const ndigits = std.mem.readInt(u16, bytes[0..2], .big);
    const weight = std.mem.readInt(i16, bytes[2..4], .big);
    try std.testing.expectEqual(scale, std.mem.readInt(u16, bytes[6..8], .big));
    try std.testing.expectEqual(bytes.len, 8 + 2 * @as(usize, ndigits));
    // value = Σ digit × 10000^(weight - i), times 10^scale; computed scaled by 10000^20.
    var value: i512 = 0;
    for (0..ndigits) |i| {
        const digit = std.mem.readInt(u16, bytes[8 + 2 * i ..][0..2], .big);
        try std.testing.expect(digit < 10_000);
        if (i == 0 or i == ndigits - 1) try std.testing.expect(digit != 0);
        const exponent: i32 = @as(i32, weight) - @as(i32, @intCast(i)) + 20;
        var term: i512 = digit;
        for (0..@intCast(exponent)) |_| term *= 10_000;
        value += term;
    }
    for (0..scale) |_| value *= 10;
    for (0..20) |_| value = @divExact(value, 10_000);
    const sign = std.mem.readInt(u16, bytes[4..6], .big);
    return @intCast(if (sign == values.numeric_negative) -value else value);
}

test "any decimal keeps its value" {
    var prng = std.Random.DefaultPrng.init(std.testing.random_seed);
    const random = prng.random();
    for (0..4000) |_| {
        const scale = random.uintAtMost(u16, 38);
        const shift = random.uintAtMost(u7, 126);
        const value: i128 = random.int(i128) >> shift;
        if (value <= values.Numeric128.minus_infinity or value == values.Numeric128.infinity) continue;
        const in: [16]u8 = @bitCast(value);
        var out: [maxBytes(128) + 16]u8 = undefined;
        const n = put(128, &out, &in, .init(scale));
        try std.testing.expect(n <= maxBytes(128));
        try std.testing.expectEqual(@as(i256, value), try decode(out[0..n], scale));
    }
    const ends = [_]i256{ std.math.maxInt(i256) - 1, std.math.minInt(i256) + 2, std.math.maxInt(u64), small_max, small_max + 1 };
    for (ends) |value| {
        const in: [32]u8 = @bitCast(value);
        var out: [maxBytes(256) + 16]u8 = undefined;
        const n = put(256, &out, &in, .init(3));
        try std.testing.expect(n <= maxBytes(256));
        if (@abs(value) < 1 << 200) try std.testing.expectEqual(value, try decode(out[0..n], 3));
    }
}

test "NaN and the infinities have a sign of their own" {
    const cases = .{
        .{ values.Numeric128.nan, "00000000c0000000" },
        .{ values.Numeric128.infinity, "00000000d0000000" },
        .{ values.Numeric128.minus_infinity, "00000000f0000000" },
    };
    inline for (cases) |case| {
        var expected: [8]u8 = undefined;
        _ = try std.fmt.hexToBytes(&expected, case[1]);
        const in: [16]u8 = @bitCast(@as(i128, case[0]));
        var out: [maxBytes(128)]u8 = undefined;
        const n = put(128, &out, &in, .init(4));
        try std.testing.expectEqualSlices(u8, &expected, out[0..n]);
    }
}

fn expectText(expected_hex: []const u8, text: []const u8) !void {
    var out: std.ArrayList(u8) = .empty;
    defer out.deinit(std.testing.allocator);
    try std.testing.expect(try appendText(&out, std.testing.allocator, text) != null);
    var expected: [64]u8 = undefined;
    try std.testing.expectEqualSlices(u8, try std.fmt.hexToBytes(&expected, expected_hex), out.items);
}

test "text becomes the digits that numeric_send writes" {
    // SELECT encode(numeric_send(V::numeric), 'hex')
    try expectText("0000000000000000", "0");
    try expectText("0000000000000003", "-0.000");
    try expectText("0002000000000002" ++ "00011388", "1.50");
    try expectText("0002000040000002" ++ "00011388", "-1.50");
    try expectText("0001ffff00000003" ++ "000a", "0.001");
    try expectText("0001fffe00000005" ++ "03e8", "0.00001");
    try expectText("0001000100000000" ++ "0001", "10000");
    try expectText("0001000100000000" ++ "0001", "0000010000");
    try expectText("0003000100000004" ++ "000c0d801ed2", "123456.7890");
    try expectText("0001fff80000001e" ++ "0064", "1e-30");
    try expectText("0001000200000000" ++ "0096", "1.5E10");
    try expectText("00000000c0000000", "NaN");
    try expectText("00000000d0000000", "Infinity");
    try expectText("00000000f0000000", "-Infinity");
}

test "what is no number is told apart" {
    var out: std.ArrayList(u8) = .empty;
    defer out.deinit(std.testing.allocator);
    for ([_][]const u8{ "", "-", ".", "1a", "1.2.3", "--1", "1e", "1e999999", "1e-999999", "-NaN", "inf", " 1", "0x10" }) |text| {
        errdefer std.debug.print("{s}\n", .{text});
        try std.testing.expectEqual(null, try appendText(&out, std.testing.allocator, text));
    }
}

test "any text is a number or none" {
    try @import("sdk").fuzz.bytes(fuzzText, &.{ "1.50", "-0.001e-7", "NaN", "9e131071", "." });
}

fn fuzzText(text: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var out: std.ArrayList(u8) = .empty;
    defer out.deinit(gpa);
    try appendText(&out, gpa, text) orelse return try std.testing.expectEqual(0, out.items.len);
    const digits = std.mem.readInt(u16, out.items[0..2], .big);
    try std.testing.expectEqual(header_bytes + 2 * @as(usize, digits), out.items.len);
    for (0..digits) |i| {
        const digit = std.mem.readInt(u16, out.items[header_bytes + 2 * i ..][0..2], .big);
        try std.testing.expect(digit < 10_000);
    }
}

test "a decimal and its text have the same encoding" {
    var prng = std.Random.DefaultPrng.init(std.testing.random_seed);
    const random = prng.random();
    var out: std.ArrayList(u8) = .empty;
    defer out.deinit(std.testing.allocator);
    for (0..4000) |_| {
        const scale = random.uintAtMost(u16, 30);
        const value: i128 = random.intRangeAtMost(i128, -1 << 100, 1 << 100) >> random.uintAtMost(u6, 63);
        var digits: [64]u8 = undefined;
        const plain = try std.fmt.bufPrint(&digits, "{d:0>64}", .{@abs(value)});
        var text: [80]u8 = undefined;
        const shown = try std.fmt.bufPrint(&text, "{s}{s}{s}{s}", .{
            if (value < 0) "-" else "",
            plain[0 .. plain.len - scale],
            if (scale > 0) "." else "",
            plain[plain.len - scale ..],
        });
        out.clearRetainingCapacity();
        try std.testing.expect(try appendText(&out, std.testing.allocator, shown) != null);
        var expected: [maxBytes(128) + 16]u8 = undefined;
        const in: [16]u8 = @bitCast(value);
        const n = put(128, &expected, &in, .init(scale));
        try std.testing.expectEqualSlices(u8, expected[0..n], out.items);
    }
}
