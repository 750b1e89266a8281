//! Binary values as the server's output functions print them under the session's settings (`startup.zig`), each of them
//! to the last digit: for rows that are told instead of loaded, while the server is busy sending others.
//!
//! canonical.zig writes cursors, which lose what does not make two values differ.

const std = @import("std");
const sdk = @import("sdk");
const canonical = @import("canonical.zig");
const decode = @import("decode.zig");
const field = @import("field.zig");
const message = @import("message.zig");
const values = @import("values.zig");

const Allocator = std.mem.Allocator;
const Text = std.ArrayList(u8);

/// What a value's bytes may turn out to be.
pub const Error = canonical.Error;

/// A value of `column` that is not NULL.
pub fn append(text: *Text, gpa: Allocator, column: *const decode.Column, bytes: []const u8) Error!void {
    if (column.element_oid != null) return appendArray(text, gpa, column, bytes, false);
    return appendScalar(text, gpa, column, bytes);
}

/// An array of texts as the array of their bytes.
pub fn appendAsBytes(text: *Text, gpa: Allocator, column: *const decode.Column, bytes: []const u8) Error!void {
    std.debug.assert(column.element_oid != null);
    return appendArray(text, gpa, column, bytes, true);
}

fn appendScalar(text: *Text, gpa: Allocator, column: *const decode.Column, bytes: []const u8) Error!void {
    switch (column.kind) {
        .bool => try text.append(gpa, if (field.boolean(bytes) catch return error.Malformed) 't' else 'f'),
        .int2, .int4, .int8 => try canonical.appendInteger(text, gpa, bytes),
        .float4 => try appendFloat(f32, text, gpa, @bitCast(field.fixed(.float4, bytes) catch return error.Malformed)),
        .float8 => try appendFloat(f64, text, gpa, @bitCast(field.fixed(.float8, bytes) catch return error.Malformed)),
        .numeric => try appendNumeric(text, gpa, bytes),
        .text, .json => try text.appendSlice(gpa, bytes),
        .jsonb => try text.appendSlice(gpa, field.jsonb(bytes) catch return error.Malformed),
        .bytea => try text.print(gpa, "\\x{x}", .{bytes}),
        .date => try canonical.appendDate(text, gpa, try canonical.dateDays(bytes)),
        .time => try appendTime(text, gpa, bytes),
        .timestamp => try canonical.appendTimestamp(text, gpa, try canonical.timestampMicros(bytes), ""),
        .timestamptz => try canonical.appendTimestamp(text, gpa, try canonical.timestampMicros(bytes), "+00"),
        .interval => try appendInterval(text, gpa, bytes, column.infinite_intervals),
        .uuid => try canonical.appendUuid(text, gpa, bytes),
    }
}

/// The shortest digits that are this number again; float8out and float4out choose between `0.00015` and `1.5e-05` by the
/// digits that the type is sure to have.
pub fn appendFloat(comptime Float: type, text: *Text, gpa: Allocator, value: Float) Allocator.Error!void {
    if (std.math.isNan(value)) return text.appendSlice(gpa, "NaN");
    if (std.math.isInf(value)) return text.appendSlice(gpa, if (value > 0) "Infinity" else "-Infinity");
    // -1.2345e-7
    var buffer: [64]u8 = undefined;
    var scientific = std.fmt.bufPrint(&buffer, "{e}", .{value}) catch unreachable;
    if (scientific[0] == '-') {
        try text.append(gpa, '-');
        scientific = scientific[1..];
    }
    const e = std.mem.findScalar(u8, scientific, 'e').?;
    const exponent = std.fmt.parseInt(i32, scientific[e + 1 ..], 10) catch unreachable;
    var digits: [32]u8 = undefined;
    digits[0] = scientific[0];
    const fraction = if (e > 1) scientific[2..e] else "";
    @memcpy(digits[1..][0..fraction.len], fraction);
    const all = digits[0 .. 1 + fraction.len];

    const sure_digits = if (Float == f32) 6 else 15;
    if (exponent < -4 or exponent >= sure_digits) {
        try text.append(gpa, all[0]);
        if (all.len > 1) try text.print(gpa, ".{s}", .{all[1..]});
        return text.print(gpa, "e{c}{d:0>2}", .{ @as(u8, if (exponent < 0) '-' else '+'), @abs(exponent) });
    }
    if (exponent < 0) {
        try text.appendSlice(gpa, "0.");
        try text.appendNTimes(gpa, '0', @abs(exponent) - 1);
        return text.appendSlice(gpa, all);
    }
    const whole: usize = @intCast(exponent + 1);
    try text.appendSlice(gpa, all[0..@min(whole, all.len)]);
    if (all.len <= whole) return text.appendNTimes(gpa, '0', whole - all.len);
    try text.print(gpa, ".{s}", .{all[whole..]});
}

/// See numeric.zig for its picture. As many digits behind the point as its scale says, zeros too.
fn appendNumeric(text: *Text, gpa: Allocator, bytes: []const u8) Error!void {
    if (bytes.len < 8) return error.Malformed;
    const count: i32 = std.mem.readInt(u16, bytes[0..2], .big);
    if (bytes.len != 8 + 2 * @as(usize, @intCast(count))) return error.Malformed;
    const weight: i32 = std.mem.readInt(i16, bytes[2..4], .big);
    const scale: i32 = std.mem.readInt(u16, bytes[6..8], .big);
    switch (std.mem.readInt(u16, bytes[4..6], .big)) {
        values.numeric_positive => {},
        values.numeric_negative => try text.append(gpa, '-'),
        values.numeric_nan => return text.appendSlice(gpa, "NaN"),
        values.numeric_infinity => return text.appendSlice(gpa, "Infinity"),
        values.numeric_minus_infinity => return text.appendSlice(gpa, "-Infinity"),
        else => return error.Malformed,
    }
    if (weight < 0) try text.append(gpa, '0');
    var group: i32 = 0;
    while (group <= weight) : (group += 1) {
        const digits = try digitsOf(bytes, count, group);
        if (group == 0) try text.print(gpa, "{d}", .{digits}) else try text.print(gpa, "{d:0>4}", .{digits});
    }
    if (scale == 0) return;
    try text.append(gpa, '.');
    const end = text.items.len + @as(usize, @intCast(scale));
    // Groups between the point and the first one are zeros.
    group = weight + 1;
    var zeros = -1 - weight;
    while (text.items.len < end) {
        if (zeros > 0) {
            zeros -= 1;
            try text.appendSlice(gpa, "0000");
            group = 0;
            continue;
        }
        try text.print(gpa, "{d:0>4}", .{try digitsOf(bytes, count, group)});
        group += 1;
    }
    text.items.len = end;
}

/// Four digits; zeros behind the last group.
fn digitsOf(bytes: []const u8, count: i32, group: i32) Error!u16 {
    if (group < 0 or group >= count) return 0;
    const digits = std.mem.readInt(u16, bytes[8 + 2 * @as(usize, @intCast(group)) ..][0..2], .big);
    return if (digits < 10_000) digits else error.Malformed;
}

fn appendTime(text: *Text, gpa: Allocator, bytes: []const u8) Error!void {
    const micros: u64 = @intCast(field.fixed(.time, bytes) catch return error.Malformed);
    try appendClock(text, gpa, micros);
}

/// `04:05:06.789`, with as many hours as there are.
pub fn appendClock(text: *Text, gpa: Allocator, micros: u64) Allocator.Error!void {
    const seconds = micros / 1_000_000;
    try text.print(gpa, "{d:0>2}:{d:0>2}:{d:0>2}", .{ seconds / 3600, seconds / 60 % 60, seconds % 60 });
    if (micros % 1_000_000 == 0) return;
    try text.print(gpa, ".{d:0>6}", .{micros % 1_000_000});
    text.items.len = std.mem.trimEnd(u8, text.items, "0").len;
}

fn appendInterval(text: *Text, gpa: Allocator, bytes: []const u8, knows_infinity: bool) Error!void {
    if (bytes.len != 16) return error.Malformed;
    const interval: values.Interval = .{
        .micros = std.mem.readInt(i64, bytes[0..8], .big),
        .days = std.mem.readInt(i32, bytes[8..12], .big),
        .months = std.mem.readInt(i32, bytes[12..16], .big),
    };
    if (knows_infinity and interval.eql(.infinity)) return text.appendSlice(gpa, "infinity");
    if (knows_infinity and interval.eql(.minus_infinity)) return text.appendSlice(gpa, "-infinity");
    try appendSpan(text, gpa, interval);
}

/// EncodeInterval of datetime.c, in the style `postgres`: `1 year -2 mons +3 days 04:05:06.789`.
pub fn appendSpan(text: *Text, gpa: Allocator, interval: values.Interval) Allocator.Error!void {
    var is_first = true;
    var follows_minus = false;
    const parts = .{
        .{ @divTrunc(interval.months, 12), "year" },
        .{ @rem(interval.months, 12), "mon" },
        .{ interval.days, "day" },
    };
    inline for (parts) |part| if (part[0] != 0) {
        if (!is_first) try text.append(gpa, ' ');
        if (follows_minus and part[0] > 0) try text.append(gpa, '+');
        try text.print(gpa, "{d} " ++ part[1], .{part[0]});
        if (part[0] != 1) try text.append(gpa, 's');
        follows_minus = part[0] < 0;
        is_first = false;
    };
    if (interval.micros == 0 and !is_first) return;
    if (!is_first) try text.append(gpa, ' ');
    if (interval.micros < 0) try text.append(gpa, '-') else if (follows_minus) try text.append(gpa, '+');
    try appendClock(text, gpa, @abs(interval.micros));
}

/// See decode.zig for its picture. array_out in arrayfuncs.c.
fn appendArray(text: *Text, gpa: Allocator, column: *const decode.Column, bytes: []const u8, as_bytes: bool) Error!void {
    var body: message.Body = .{ .rest = bytes };
    const dimensions = body.int(i32) catch return error.Malformed;
    _ = body.bytes(8) catch return error.Malformed;
    if (dimensions < 0 or dimensions > decode.array_dimensions_max) return error.Malformed;
    if (dimensions == 0) return text.appendSlice(gpa, "{}");
    var lengths: [decode.array_dimensions_max]i32 = undefined;
    var bounds: [decode.array_dimensions_max]i32 = undefined;
    const depth: usize = @intCast(dimensions);
    var is_bounded = false;
    for (lengths[0..depth], bounds[0..depth]) |*length, *bound| {
        length.* = body.int(i32) catch return error.Malformed;
        bound.* = body.int(i32) catch return error.Malformed;
        if (length.* <= 0) return error.Malformed;
        is_bounded = is_bounded or bound.* != 1;
    }
    if (is_bounded) {
        for (lengths[0..depth], bounds[0..depth]) |length, bound|
            try text.print(gpa, "[{d}:{d}]", .{ bound, @as(i64, bound) + length - 1 });
        try text.append(gpa, '=');
    }
    try appendDimension(text, gpa, column, &body, lengths[0..depth], as_bytes);
    body.finish() catch return error.Malformed;
}

fn appendDimension(
    text: *Text,
    gpa: Allocator,
    column: *const decode.Column,
    body: *message.Body,
    lengths: []const i32,
    as_bytes: bool,
) Error!void {
    try text.append(gpa, '{');
    for (0..@intCast(lengths[0])) |i| {
        if (i > 0) try text.append(gpa, ',');
        if (lengths.len > 1) {
            try appendDimension(text, gpa, column, body, lengths[1..], as_bytes);
            continue;
        }
        const element = (body.value() catch return error.Malformed) orelse {
            try text.appendSlice(gpa, "NULL");
            continue;
        };
        if (as_bytes) {
            try text.print(gpa, "\"\\\\x{x}\"", .{element});
            continue;
        }
        const start = text.items.len;
        try appendScalar(text, gpa, column, element);
        try quoteFrom(text, gpa, start);
    }
    try text.append(gpa, '}');
}

/// Quotes an array's element, which begins at `start`, where it has to be.
/// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
pub fn quoteFrom(text: *Text, gpa: Allocator, start: usize) Allocator.Error!void {
    const element = text.items[start..];
    const special = "\"\\{}, \t\n\r\x0b\x0c";
    if (element.len > 0 and std.mem.findAny(u8, element, special) == null and !std.ascii.eqlIgnoreCase(element, "NULL")) return;
    const copied = try gpa.dupe(u8, element);
    defer gpa.free(copied);
    text.items.len = start;
    try text.append(gpa, '"');
    for (copied) |byte| {
        if (byte == '"' or byte == '\\') try text.append(gpa, '\\');
        try text.append(gpa, byte);
    }
    try text.append(gpa, '"');
}

fn expectPrinted(expected: []const u8, column: decode.Column, bytes: []const u8) !void {
    const gpa = std.testing.allocator;
    var text: Text = .empty;
    defer text.deinit(gpa);
    try append(&text, gpa, &column, bytes);
    try std.testing.expectEqualStrings(expected, text.items);
}

fn ofKind(kind: @import("types.zig").Kind) decode.Column {
    return .{ .name = "c", .type_name = "?", .kind = kind };
}

test "values are printed as the server prints them" {
    // SELECT float8send(1.5e-05), …; the integration tests compare many more with the server's own text.
    try expectPrinted("1.5e-05", ofKind(.float8), "\x3e\xef\x75\x10\x4d\x55\x1d\x69");
    try expectPrinted("-0", ofKind(.float4), "\x80\x00\x00\x00");
    try expectPrinted("1e+06", ofKind(.float4), "\x49\x74\x24\x00");
    try expectPrinted("1.1000", ofKind(.numeric), "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x03\xe8");
    try expectPrinted("-0.00000001000", ofKind(.numeric), "\x00\x01\xff\xfe\x40\x00\x00\x0b\x00\x01");
    try expectPrinted("100000000", ofKind(.numeric), "\x00\x01\x00\x02\x00\x00\x00\x00\x00\x01");
    try expectPrinted("24:00:00", ofKind(.time), "\x00\x00\x00\x14\x1d\xd7\x60\x00");
    try expectPrinted(
        "1 mon -2 days +00:00:00.000003",
        ofKind(.interval),
        "\x00\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xfe\x00\x00\x00\x01",
    );
    try expectPrinted("\\x00ff", ofKind(.bytea), "\x00\xff");
    var array = ofKind(.text);
    array.element_oid = 25;
    // SELECT array_send(array['x', NULL, '', 'a"b'])
    try expectPrinted(
        "{x,NULL,\"\",\"a\\\"b\"}",
        array,
        "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x19\x00\x00\x00\x04\x00\x00\x00\x01" ++
            "\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x03a\"b",
    );
}

test "any bytes are printed or an error" {
    try sdk.fuzz.bytes(fuzzPrinted, &.{
        "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01",
        "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x04\xd2",
    });
}

fn fuzzPrinted(bytes: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    for (std.enums.values(@import("types.zig").Kind)) |kind| for ([_]?u32{ null, 23 }) |element_oid| {
        var column = ofKind(kind);
        column.element_oid = element_oid;
        var text: Text = .empty;
        defer text.deinit(gpa);
        append(&text, gpa, &column, bytes) catch |err| if (err == error.OutOfMemory) return err;
    };
}
