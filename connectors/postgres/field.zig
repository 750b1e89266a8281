//! One field of COPY's binary format to one value of Arrow.
//!
//!     bool         u8, 0 or 1                    date         i32, days since 2000-01-01
//!     int2,4,8     i16, i32, i64                 time         i64, µs since midnight, up to 24:00:00
//!     float4,8     IEEE 754                      timestamp[tz] i64, µs since 2000-01-01 [UTC]
//!     uuid         16 bytes                      interval     i64 µs, i32 days, i32 months
//!     text, json   the text                      jsonb        u8 = 1, then the text
//!     numeric      numeric.zig                   arrays       decode.zig
//!
//! All big-endian. The *send functions in src/backend/utils/adt.

const std = @import("std");
const MonthDayNano = @import("sdk").arrow.MonthDayNano;
const types = @import("types.zig");
const values = @import("values.zig");

pub const Error = error{
    /// Not the length, or not a value, that the type has.
    Malformed,
    /// A value that its Arrow type cannot hold.
    OutOfRange,
};

/// What a slot of a fixed-width column holds. Floats stay bits, so that every NaN keeps its own.
pub fn Slot(comptime kind: types.Kind) type {
    return switch (kind) {
        .int2 => i16,
        .int4, .date => i32,
        .int8, .time, .timestamp, .timestamptz => i64,
        .float4 => u32,
        .float8 => u64,
        .interval => MonthDayNano,
        .uuid => [16]u8,
        .bool, .numeric, .text, .bytea, .json, .jsonb => @compileError("no fixed width"),
    };
}

pub inline fn fixed(comptime kind: types.Kind, bytes: []const u8) Error!Slot(kind) {
    if (bytes.len != @sizeOf(Slot(kind))) return error.Malformed;
    return switch (kind) {
        .int2, .int4, .int8, .float4, .float8 => std.mem.readInt(Slot(kind), bytes[0..@sizeOf(Slot(kind))], .big),
        .date => values.dateToArrow(std.mem.readInt(i32, bytes[0..4], .big)) orelse error.OutOfRange,
        .timestamp, .timestamptz => values.timestampToArrow(
            std.mem.readInt(i64, bytes[0..8], .big),
        ) orelse error.OutOfRange,
        .time => {
            const micros = std.mem.readInt(i64, bytes[0..8], .big);
            return if (micros < 0 or micros > values.time_max_micros) error.Malformed else micros;
        },
        .interval => interval(bytes[0..16]),
        .uuid => bytes[0..16].*,
        else => comptime unreachable,
    };
}

fn interval(bytes: *const [16]u8) Error!MonthDayNano {
    const read: values.Interval = .{
        .micros = std.mem.readInt(i64, bytes[0..8], .big),
        .days = std.mem.readInt(i32, bytes[8..12], .big),
        .months = std.mem.readInt(i32, bytes[12..16], .big),
    };
    if (read.eql(.infinity)) return values.interval_infinity;
    if (read.eql(.minus_infinity)) return values.interval_minus_infinity;
    const nanos = std.math.mul(i64, read.micros, 1000) catch return error.OutOfRange;
    return .{ .months = read.months, .days = read.days, .nanos = nanos };
}

pub fn isInfinite(slot: MonthDayNano) bool {
    return std.meta.eql(slot, values.interval_infinity) or std.meta.eql(slot, values.interval_minus_infinity);
}

pub inline fn boolean(bytes: []const u8) Error!bool {
    if (bytes.len != 1 or bytes[0] > 1) return error.Malformed;
    return bytes[0] == 1;
}

pub inline fn jsonb(bytes: []const u8) Error![]const u8 {
    if (bytes.len == 0 or bytes[0] != values.jsonb_version) return error.Malformed;
    return bytes[1..];
}

test "fields have the values that PostgreSQL sent" {
    const expect = std.testing.expectEqual;
    // SELECT int2send(-2), int4send(7), int8send(-1), float8send(1.5)
    try expect(-2, try fixed(.int2, "\xff\xfe"));
    try expect(7, try fixed(.int4, "\x00\x00\x00\x07"));
    try expect(-1, try fixed(.int8, "\xff\xff\xff\xff\xff\xff\xff\xff"));
    try expect(1.5, @as(f64, @bitCast(try fixed(.float8, "\x3f\xf8\x00\x00\x00\x00\x00\x00"))));
    // SELECT date_send('2000-01-01'), date_send('infinity'), time_send('24:00'), timestamp_send('1970-01-01')
    try expect(10957, try fixed(.date, "\x00\x00\x00\x00"));
    try expect(values.date_infinity, try fixed(.date, "\x7f\xff\xff\xff"));
    try expect(86_400_000_000, try fixed(.time, "\x00\x00\x00\x14\x1d\xd7\x60\x00"));
    try expect(0, try fixed(.timestamp, "\xff\xfc\xa2\xfe\xc4\xc8\x20\x00"));
    // SELECT interval_send('1 mon -2 days 00:00:00.000003')
    const span = try fixed(.interval, "\x00\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xfe\x00\x00\x00\x01");
    try expect(MonthDayNano{ .months = 1, .days = -2, .nanos = 3000 }, span);
    // SELECT jsonb_send('{}')
    try std.testing.expectEqualStrings("{}", try jsonb("\x01{}"));
}

test "a length that the type does not have is malformed" {
    const zeros: [33]u8 = @splat(0);
    inline for (comptime std.enums.values(types.Kind)) |kind| switch (kind) {
        .bool, .numeric, .text, .bytea, .json, .jsonb => {},
        else => for (0..zeros.len) |length| {
            const outcome = fixed(kind, zeros[0..length]);
            const right = length == @sizeOf(Slot(kind));
            if (right) _ = try outcome else try std.testing.expectError(error.Malformed, outcome);
        },
    };
    try std.testing.expectError(error.Malformed, boolean(""));
    try std.testing.expectError(error.Malformed, boolean("\x02"));
    try std.testing.expectError(error.Malformed, jsonb(""));
    try std.testing.expectError(error.Malformed, jsonb("\x02{}"));
    try std.testing.expectError(error.Malformed, fixed(.time, "\x00\x00\x00\x14\x1d\xd7\x60\x01"));
}

test "an interval beyond 292 years of hours is out of range, an infinite one is not" {
    const max = "\x7f\xff\xff\xff\xff\xff\xff\xff";
    try std.testing.expectError(error.OutOfRange, fixed(.interval, max ++ "\x00\x00\x00\x00\x00\x00\x00\x00"));
    try std.testing.expectEqual(
        values.interval_infinity,
        try fixed(.interval, max ++ "\x7f\xff\xff\xff\x7f\xff\xff\xff"),
    );
}
