//! One field in text form to one value of Arrow: field.zig for the forms that the server prints under the sessions' settings
//! (startup.zig), which are those that printed.zig writes. Dates are ISO, times in UTC, bytea is hex.

const std = @import("std");
const sdk = @import("sdk");
const canonical = @import("canonical.zig");
const decode = @import("decode.zig");
const field = @import("field.zig");
const types = @import("types.zig");
const values = @import("values.zig");

const Allocator = std.mem.Allocator;
const ColumnBuilder = sdk.arrow.ColumnBuilder;
const Error = decode.Error;
const MonthDayNano = sdk.arrow.MonthDayNano;
const Plan = decode.Plan;

/// As `decode.store`.
pub fn store(plan: *const Plan, builder: *ColumnBuilder, index: usize, text: []const u8) Error!void {
    if (plan.is_list) return storeList(plan, builder, index, text);
    switch (plan.kind) {
        // What is already as it is stored, and has no end.
        .text, .json, .jsonb => return decode.storeBytes(builder, index, text),
        .bytea => {
            builder.length = index;
            return appendBytea(builder, text);
        },
        .bool => {
            const bit = @as(u8, @intFromBool(try boolean(text))) << @intCast(index % 8);
            builder.values.items[index / 8] |= bit;
        },
        inline else => |kind| {
            const slots: [*]field.Slot(kind) = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try fixed(kind, plan, text);
        },
        .numeric => if (plan.wide) {
            const slots: [*]i256 = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try numeric(i256, text, plan.precision, plan.scale);
        } else {
            const slots: [*]i128 = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try numeric(i128, text, plan.precision, plan.scale);
        },
    }
}

fn append(plan: *const Plan, builder: *ColumnBuilder, text: []const u8) Error!void {
    switch (plan.kind) {
        .text, .json, .jsonb => try builder.appendBytes(text),
        .bytea => try appendBytea(builder, text),
        .bool => try builder.appendBool(try boolean(text)),
        inline else => |kind| try builder.appendFixed(field.Slot(kind), try fixed(kind, plan, text)),
        .numeric => if (plan.wide)
            try builder.appendFixed(i256, try numeric(i256, text, plan.precision, plan.scale))
        else
            try builder.appendFixed(i128, try numeric(i128, text, plan.precision, plan.scale)),
    }
}

fn boolean(text: []const u8) field.Error!bool {
    if (text.len == 1 and text[0] == 't') return true;
    if (text.len == 1 and text[0] == 'f') return false;
    return error.Malformed;
}

fn fixed(comptime kind: types.Kind, plan: *const Plan, text: []const u8) field.Error!field.Slot(kind) {
    return switch (kind) {
        .int2, .int4, .int8 => integer(field.Slot(kind), text),
        .float4 => @bitCast(try float(f32, text)),
        .float8 => @bitCast(try float(f64, text)),
        .date => values.dateToArrow(canonical.parseDate(text) orelse return error.Malformed) orelse error.OutOfRange,
        .timestamp, .timestamptz => values.timestampToArrow(
            canonical.parseTimestamp(text, if (kind == .timestamptz) "+00" else "") orelse return error.Malformed,
        ) orelse error.OutOfRange,
        .time => {
            const micros = try clock(text);
            return if (micros > values.time_max_micros) error.Malformed else @intCast(micros);
        },
        .interval => interval(text, plan.infinite_intervals),
        .uuid => uuid(text),
        else => comptime unreachable,
    };
}

fn integer(comptime Int: type, text: []const u8) field.Error!Int {
    const is_negative = text.len > 0 and text[0] == '-';
    const digits = if (is_negative) text[1..] else text;
    const magnitude = try number(u64, digits);
    if (is_negative) {
        if (magnitude > @as(u64, std.math.maxInt(Int)) + 1) return error.Malformed;
        return @intCast(-@as(i128, magnitude));
    }
    return std.math.cast(Int, magnitude) orelse error.Malformed;
}

/// Digits and nothing else.
fn number(comptime Int: type, digits: []const u8) field.Error!Int {
    // One digit more than the type is sure to hold may be too much.
    const sure = comptime std.fmt.count("{d}", .{std.math.maxInt(Int)}) - 1;
    if (digits.len == 0) return error.Malformed;
    var value: Int = 0;
    for (digits, 0..) |digit, i| {
        if (digit -% '0' > 9) return error.Malformed;
        if (i < sure) {
            value = value * 10 + (digit - '0');
        } else {
            value = std.math.mul(Int, value, 10) catch return error.Malformed;
            value = std.math.add(Int, value, digit - '0') catch return error.Malformed;
        }
    }
    return value;
}

fn float(comptime Float: type, text: []const u8) field.Error!Float {
    if (std.mem.eql(u8, text, "NaN")) return std.math.nan(Float);
    if (std.mem.eql(u8, text, "Infinity")) return std.math.inf(Float);
    if (std.mem.eql(u8, text, "-Infinity")) return -std.math.inf(Float);
    // Its own words for these, and its liberties.
    for (text) |byte| switch (byte) {
        '0'...'9', '-', '+', '.', 'e' => {},
        else => return error.Malformed,
    };
    return std.fmt.parseFloat(Float, text) catch error.Malformed;
}

/// Value × 10^scale. More digits than the column declares, before or behind the point, are out of range.
fn numeric(comptime Int: type, text: []const u8, precision: u8, scale: u8) field.Error!Int {
    const special = values.Numeric(Int);
    if (text.len > 0 and (text[text.len - 1] == 'N' or text[text.len - 1] == 'y')) {
        if (std.mem.eql(u8, text, "NaN")) return special.nan;
        if (std.mem.eql(u8, text, "Infinity")) return special.infinity;
        if (std.mem.eql(u8, text, "-Infinity")) return special.minus_infinity;
        return error.Malformed;
    }
    const is_negative = text.len > 0 and text[0] == '-';
    var magnitude: Int = 0;
    // Digits go into a machine word first, and from there into the wide integer.
    var word: u64 = 0;
    var word_scale: u64 = 1;
    var digits: usize = 0;
    var is_digit_seen = false;
    var behind: ?usize = null;
    for (text[@intFromBool(is_negative)..]) |byte| {
        if (byte == '.') {
            if (behind != null or !is_digit_seen) return error.Malformed;
            behind = 0;
            continue;
        }
        const digit = byte -% '0';
        if (digit > 9) return error.Malformed;
        is_digit_seen = true;
        if (behind) |*count| {
            if (count.* == scale) {
                if (digit != 0) return error.OutOfRange;
                continue;
            }
            count.* += 1;
        }
        if (digits > 0 or digit > 0) digits += 1;
        if (digits > precision) return error.OutOfRange;
        word = word * 10 + digit;
        word_scale *= 10;
        if (word_scale == comptime std.math.pow(u64, 10, 18)) {
            magnitude = magnitude * word_scale + word;
            word = 0;
            word_scale = 1;
        }
    }
    if (!is_digit_seen) return error.Malformed;
    magnitude = if (magnitude == 0) word else magnitude * word_scale + word;
    for (behind orelse 0..scale) |_| {
        if (digits > 0) digits += 1;
        if (digits > precision) return error.OutOfRange;
        magnitude *= 10;
    }
    return if (is_negative) -magnitude else magnitude;
}

/// `04:05:06.789`, with any number of hours; microseconds.
fn clock(text: []const u8) field.Error!u64 {
    const colon = std.mem.findScalar(u8, text, ':') orelse return error.Malformed;
    const rest = text[colon..];
    if (rest.len < 6 or rest[3] != ':') return error.Malformed;
    const hours = try number(u32, text[0..colon]);
    const minutes = try number(u32, rest[1..3]);
    const seconds = try number(u32, rest[4..6]);
    if (minutes > 59 or seconds > 59) return error.Malformed;
    var micros: u64 = 0;
    if (rest.len > 6) {
        const fraction = rest[7..];
        if (rest[6] != '.' or fraction.len > 6) return error.Malformed;
        micros = try number(u32, fraction);
        for (fraction.len..6) |_| micros *= 10;
    }
    return ((@as(u64, hours) * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
}

/// `1 year 2 mons -3 days +04:05:06.789`, in the style `postgres`.
fn interval(text: []const u8, infinite_intervals: bool) field.Error!MonthDayNano {
    if (std.mem.eql(u8, text, "infinity")) return values.interval_infinity;
    if (std.mem.eql(u8, text, "-infinity")) return values.interval_minus_infinity;
    var months: i64 = 0;
    var days: i64 = 0;
    var micros: i128 = 0;
    var words = std.mem.splitScalar(u8, text, ' ');
    while (words.next()) |word| {
        const is_negative = word.len > 0 and word[0] == '-';
        const has_sign = is_negative or (word.len > 0 and word[0] == '+');
        const magnitude = word[@intFromBool(has_sign)..];
        if (std.mem.findScalar(u8, magnitude, ':') != null) {
            if (words.next() != null) return error.Malformed;
            micros = try clock(magnitude);
            if (is_negative) micros = -micros;
            break;
        }
        const count: i64 = try number(u32, magnitude);
        const signed = if (is_negative) -count else count;
        const unit = std.mem.trimEnd(u8, words.next() orelse return error.Malformed, "s");
        if (std.mem.eql(u8, unit, "year"))
            months += 12 * signed
        else if (std.mem.eql(u8, unit, "mon"))
            months += signed
        else if (std.mem.eql(u8, unit, "day"))
            days += signed
        else
            return error.Malformed;
    }
    _ = std.math.cast(i64, micros) orelse return error.Malformed;
    const span: MonthDayNano = .{
        .months = std.math.cast(i32, months) orelse return error.Malformed,
        .days = std.math.cast(i32, days) orelse return error.Malformed,
        .nanos = std.math.cast(i64, micros * 1000) orelse return error.OutOfRange,
    };
    if (!infinite_intervals and field.isInfinite(span)) return error.OutOfRange;
    return span;
}

fn uuid(text: []const u8) field.Error![16]u8 {
    if (!canonical.isUuid(text)) return error.Malformed;
    var bytes: [16]u8 = undefined;
    var at: usize = 0;
    for (&bytes) |*byte| {
        if (text[at] == '-') at += 1;
        byte.* = hexByte(text[at..][0..2].*) orelse return error.Malformed;
        at += 2;
    }
    return bytes;
}

fn hexByte(digits: [2]u8) ?u8 {
    const high = std.fmt.charToDigit(digits[0], 16) catch return null;
    const low = std.fmt.charToDigit(digits[1], 16) catch return null;
    return high << 4 | low;
}

fn appendBytea(builder: *ColumnBuilder, text: []const u8) Error!void {
    if (text.len % 2 != 0 or !std.mem.startsWith(u8, text, "\\x")) return error.Malformed;
    const digits = text[2..];
    try builder.ensureRows(1);
    try builder.ensureBytes(digits.len / 2);
    const start = builder.values.items.len;
    const bytes = builder.values.unusedCapacitySlice()[0 .. digits.len / 2];
    for (bytes, 0..) |*byte, i| byte.* = hexByte(digits[2 * i ..][0..2].*) orelse return error.Malformed;
    builder.values.items.len = start + bytes.len;
    builder.offsets.items[builder.length + 1] = @intCast(builder.values.items.len);
    builder.length += 1;
}

/// `{a,NULL,"b\"c"}`: one dimension that starts at 1.
fn storeList(plan: *const Plan, builder: *ColumnBuilder, index: usize, text: []const u8) Error!void {
    builder.length = index;
    const child = try builder.beginList();
    // `[2:3]={…}`, `{{…},{…}}`
    if (text.len > 0 and text[0] == '[') return error.OutOfRange;
    if (text.len < 2 or text[0] != '{' or text[text.len - 1] != '}') return error.Malformed;
    if (text[1] == '{') return error.OutOfRange;
    const elements = text[1 .. text.len - 1];
    var unquoted: std.ArrayList(u8) = .empty;
    defer unquoted.deinit(builder.gpa);
    var at: usize = 0;
    while (at < elements.len) {
        if (elements[at] == '"') {
            unquoted.clearRetainingCapacity();
            at = try unquote(&unquoted, builder.gpa, elements, at + 1);
            try append(plan, child, unquoted.items);
        } else {
            const end = std.mem.findScalarPos(u8, elements, at, ',') orelse elements.len;
            const element = elements[at..end];
            if (element.len == 0) return error.Malformed;
            if (std.mem.eql(u8, element, "NULL")) try child.appendNull() else try append(plan, child, element);
            at = end;
        }
        if (at == elements.len) break;
        if (elements[at] != ',' or at + 1 == elements.len) return error.Malformed;
        at += 1;
    }
    try builder.endList();
}

/// What is between the quotes, of which the first lies before `start`. Where it goes on behind the last one.
fn unquote(out: *std.ArrayList(u8), gpa: Allocator, text: []const u8, start: usize) Error!usize {
    var at = start;
    while (true) {
        const end = std.mem.findAnyPos(u8, text, at, "\"\\") orelse return error.Malformed;
        try out.appendSlice(gpa, text[at..end]);
        if (text[end] == '"') return end + 1;
        if (end + 1 == text.len) return error.Malformed;
        try out.append(gpa, text[end + 1]);
        at = end + 2;
    }
}

const printed = @import("printed.zig");
const TestColumn = decode.Column;

fn ofKind(kind: types.Kind, typmod: i32, is_list: bool) TestColumn {
    return .{ .name = "c", .type_name = "?", .kind = kind, .typmod = typmod, .element_oid = if (is_list) 1 else null };
}

/// What `text` is as a value, or the error that it is.
fn read(arena: Allocator, column: TestColumn, text: []const u8) Error!ColumnBuilder {
    const plan: Plan = .init(column);
    const own = column.kind.arrowType(column.typmod).?;
    const arrow_type: sdk.arrow.Type = if (column.element_oid == null) own else blk: {
        const item = try arena.create(sdk.arrow.Field);
        item.* = .{ .name = "item", .type = own };
        break :blk .{ .list = item };
    };
    var builder: ColumnBuilder = try .init(arena, arrow_type);
    try builder.ensureRows(1);
    try store(&plan, &builder, 0, text);
    builder.length = 1;
    return builder;
}

const samples = [_]struct { types.Kind, i32, []const []const u8 }{
    .{ .bool, -1, &.{ "t", "f" } },
    .{ .int2, -1, &.{ "0", "-32768", "32767" } },
    .{ .int4, -1, &.{ "7", "-2147483648", "2147483647" } },
    .{ .int8, -1, &.{ "-9223372036854775808", "9223372036854775807", "1234567890123456789" } },
    .{ .float4, -1, &.{ "1.5", "-0", "1e-45", "3.4028235e+38", "NaN", "-Infinity" } },
    .{ .float8, -1, &.{ "0.1", "5e-324", "1.7976931348623157e+308", "Infinity", "100000" } },
    .{ .numeric, (12 << 16 | 4) + 4, &.{ "1.1234", "-0.0001", "99999999.9999", "0.0000", "NaN", "-Infinity" } },
    .{ .numeric, (38 << 16) + 4, &.{ "99999999999999999999999999999999999999", "-1", "0", "Infinity" } },
    .{ .numeric, (76 << 16 | 38) + 4, &.{
        "99999999999999999999999999999999999999.99999999999999999999999999999999999999",
        "-0.00000000000000000000000000000000000001",
        "NaN",
    } },
    .{ .text, -1, &.{ "", "a\"b\\c", "é, {}" } },
    .{ .json, -1, &.{"{\"a\": [1, null]}"} },
    .{ .jsonb, -1, &.{"{\"a\": [1, null]}"} },
    .{ .bytea, -1, &.{ "\\x", "\\x00ff" } },
    .{ .date, -1, &.{ "2000-01-01", "0044-03-15 BC", "infinity", "5874897-12-31" } },
    .{ .time, -1, &.{ "00:00:00", "24:00:00", "23:59:59.999999", "01:02:03.5" } },
    .{ .timestamp, -1, &.{ "1999-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "-infinity" } },
    .{ .timestamptz, -1, &.{ "2026-11-23 03:20:00.5+00", "0044-03-15 12:00:00+00 BC", "infinity" } },
    .{ .interval, -1, &.{
        "00:00:00",
        "1 year 2 mons -3 days +04:05:06.789",
        "-1 years -2 mons +3 days -00:00:00.000001",
        "1 mon",
        "-178000000 years",
        "2562047:47:16.854775",
        "infinity",
    } },
    .{ .uuid, -1, &.{"0001abff-0000-0000-0000-000000000009"} },
};

test "a value in text form is printed again as it was" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    for (samples) |sample| for (sample[2]) |text| {
        var builder = try read(arena.allocator(), ofKind(sample[0], sample[1], false), text);
        const view = try builder.view(arena.allocator());
        var again: std.ArrayList(u8) = .empty;
        const metadata = [_]sdk.arrow.KeyValue{.{ .key = sdk.arrow.keys.extension_name, .value = sample[0].extension() orelse "" }};
        const of: sdk.arrow.Field = .{ .name = "c", .type = builder.type, .metadata = &metadata };
        try @import("arrow_text.zig").append(&again, arena.allocator(), &of, &view, 0);
        try std.testing.expectEqualStrings(text, again.items);
    };
}

test "arrays in text form are printed again as they were" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    for (samples) |sample| {
        var text: std.ArrayList(u8) = .empty;
        try text.appendSlice(arena.allocator(), "{NULL");
        for (sample[2]) |element| {
            try text.append(arena.allocator(), ',');
            const start = text.items.len;
            try text.appendSlice(arena.allocator(), element);
            try printed.quoteFrom(&text, arena.allocator(), start);
        }
        try text.append(arena.allocator(), '}');
        for ([_][]const u8{ text.items, "{}" }) |array| {
            var builder = try read(arena.allocator(), ofKind(sample[0], sample[1], true), array);
            const view = try builder.view(arena.allocator());
            var again: std.ArrayList(u8) = .empty;
            var item = builder.type.list.*;
            item.metadata = &.{.{ .key = sdk.arrow.keys.extension_name, .value = sample[0].extension() orelse "" }};
            const of: sdk.arrow.Field = .{ .name = "c", .type = .{ .list = &item } };
            try @import("arrow_text.zig").append(&again, arena.allocator(), &of, &view, 0);
            try std.testing.expectEqualStrings(array, again.items);
        }
    }
}

test "what Arrow has no place for is told from what is no value" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const beyond = [_]struct { types.Kind, i32, bool, []const u8 }{
        .{ .interval, -1, false, "2562047788:00:54.775807" },
        .{ .numeric, (4 << 16 | 2) + 4, false, "100.00" },
        .{ .numeric, (4 << 16 | 2) + 4, false, "1.001" },
        .{ .int4, -1, true, "[2:3]={1,2}" },
        .{ .int4, -1, true, "{{1},{2}}" },
    };
    for (beyond) |case|
        try std.testing.expectError(error.OutOfRange, read(arena.allocator(), ofKind(case[0], case[1], case[2]), case[3]));
    const wrong = [_]struct { types.Kind, bool, []const u8 }{
        .{ .bool, false, "true" },                .{ .int2, false, "32768" },    .{ .int4, false, "-" },
        .{ .int8, false, "9223372036854775808" }, .{ .int8, false, "1_0" },      .{ .float8, false, "inf" },
        .{ .float8, false, "0x1p3" },             .{ .bytea, false, "\\x0" },    .{ .bytea, false, "abc" },
        .{ .time, false, "24:00:00.1" },          .{ .time, false, "1:2:3" },    .{ .interval, false, "1" },
        .{ .interval, false, "1 decade" },        .{ .interval, false, "" },     .{ .uuid, false, "0001ABFF" },
        .{ .int4, true, "{1,}" },                 .{ .int4, true, "{,1}" },      .{ .int4, true, "{1" },
        .{ .text, true, "{\"a}" },                .{ .text, true, "{\"a\\\"}" }, .{ .text, true, "{\"a\"b}" },
    };
    for (wrong) |case|
        try std.testing.expectError(error.Malformed, read(arena.allocator(), ofKind(case[0], -1, case[1]), case[2]));
}

test "any text is a value or an error" {
    const corpus = comptime blk: {
        var all: []const []const u8 = &.{"{a,NULL,\"b\\\"c\"}"};
        for (samples) |sample| all = all ++ sample[2];
        break :blk all;
    };
    try sdk.fuzz.bytes(fuzzText, corpus);
}

fn fuzzText(text: []const u8) anyerror!void {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    for (samples) |sample| for ([_]bool{ false, true }) |is_list| {
        _ = read(arena.allocator(), ofKind(sample[0], sample[1], is_list), text) catch |err| if (err == error.OutOfMemory) return err;
    };
}
