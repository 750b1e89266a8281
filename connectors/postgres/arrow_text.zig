//! Values of Arrow -> the text that PostgreSQL prints for them under the sessions' settings (startup.zig): printed.zig for
//! whoever has no server's bytes.

const std = @import("std");
const sdk = @import("sdk");
const canonical = @import("canonical.zig");
const printed = @import("printed.zig");
const values = @import("values.zig");

const Allocator = std.mem.Allocator;
const Text = std.ArrayList(u8);
const arrow = sdk.arrow;

/// A value that is not NULL. What is none of PostgreSQL's values is told by its number. Text is appended as it comes, also
/// where it is not UTF-8.
pub fn append(text: *Text, gpa: Allocator, field: *const arrow.Field, view: *const arrow.ArrayView, row: usize) Allocator.Error!void {
    switch (field.type) {
        .bool => try text.append(gpa, if (view.boolAt(row)) 't' else 'f'),
        .int16 => try text.print(gpa, "{d}", .{view.fixed(i16)[row]}),
        .int32 => try text.print(gpa, "{d}", .{view.fixed(i32)[row]}),
        .int64 => try text.print(gpa, "{d}", .{view.fixed(i64)[row]}),
        .float32 => try printed.appendFloat(f32, text, gpa, view.fixed(f32)[row]),
        .float64 => try printed.appendFloat(f64, text, gpa, view.fixed(f64)[row]),
        .decimal128 => |decimal| try appendDecimal(i128, text, gpa, view.fixed(i128)[row], decimal.scale),
        .decimal256 => |decimal| try appendDecimal(i256, text, gpa, view.fixed(i256)[row], decimal.scale),
        .utf8 => try text.appendSlice(gpa, view.bytesAt(row)),
        .binary => try text.print(gpa, "\\x{x}", .{view.bytesAt(row)}),
        .date32 => if (values.dateFromArrow(view.fixed(i32)[row])) |days|
            try canonical.appendDate(text, gpa, days)
        else
            try appendNumber(text, gpa, view, row),
        .timestamp => |timestamp| if (values.timestampFromArrow(view.fixed(i64)[row])) |micros|
            try canonical.appendTimestamp(text, gpa, micros, if (timestamp.utc) "+00" else "")
        else
            try appendNumber(text, gpa, view, row),
        .time64 => {
            const micros = view.fixed(i64)[row];
            if (micros < 0 or micros > values.time_max_micros) return appendNumber(text, gpa, view, row);
            try printed.appendClock(text, gpa, @intCast(micros));
        },
        .interval_month_day_nano => try appendInterval(text, gpa, view, row),
        .fixed_size_binary => |width| if (width == 16 and isUuid(field))
            canonical.appendUuid(text, gpa, view.bytesAt(row)) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                error.Malformed => unreachable,
            }
        else
            try text.print(gpa, "\\x{x}", .{view.bytesAt(row)}),
        .list => |item| try appendList(text, gpa, item, view, row),
    }
}

fn isUuid(field: *const arrow.Field) bool {
    return std.mem.eql(u8, field.get(arrow.keys.extension_name) orelse "", "arrow.uuid") or
        std.mem.eql(u8, field.get(arrow.keys.pg_type) orelse "", "uuid");
}

fn appendDecimal(comptime Int: type, text: *Text, gpa: Allocator, value: Int, scale: i32) Allocator.Error!void {
    const special = values.Numeric(Int);
    if (value == special.nan) return text.appendSlice(gpa, "NaN");
    if (value == special.infinity) return text.appendSlice(gpa, "Infinity");
    if (value == special.minus_infinity) return text.appendSlice(gpa, "-Infinity");
    var buffer: [80]u8 = undefined;
    const digits = std.fmt.bufPrint(&buffer, "{d}", .{@abs(value)}) catch unreachable;
    if (value < 0) try text.append(gpa, '-');
    if (scale <= 0) {
        try text.appendSlice(gpa, digits);
        if (value != 0) try text.appendNTimes(gpa, '0', @intCast(-scale));
        return;
    }
    const behind: usize = @intCast(scale);
    const whole = digits.len -| behind;
    try text.appendSlice(gpa, if (whole == 0) "0" else digits[0..whole]);
    try text.append(gpa, '.');
    try text.appendNTimes(gpa, '0', behind -| digits.len);
    try text.appendSlice(gpa, digits[whole..]);
}

fn appendInterval(text: *Text, gpa: Allocator, view: *const arrow.ArrayView, row: usize) Allocator.Error!void {
    const interval = view.fixed(arrow.MonthDayNano)[row];
    if (std.meta.eql(interval, values.interval_infinity)) return text.appendSlice(gpa, "infinity");
    if (std.meta.eql(interval, values.interval_minus_infinity)) return text.appendSlice(gpa, "-infinity");
    if (@rem(interval.nanos, 1000) != 0) return appendNumber(text, gpa, view, row);
    try printed.appendSpan(text, gpa, .{
        .months = interval.months,
        .days = interval.days,
        .micros = @divExact(interval.nanos, 1000),
    });
}

fn appendList(text: *Text, gpa: Allocator, item: *const arrow.Field, view: *const arrow.ArrayView, row: usize) Allocator.Error!void {
    const elements = view.child.?;
    const from: usize = @intCast(view.offsets[row]);
    try text.append(gpa, '{');
    for (from..@intCast(view.offsets[row + 1])) |i| {
        if (i > from) try text.append(gpa, ',');
        if (elements.isNull(i)) {
            try text.appendSlice(gpa, "NULL");
            continue;
        }
        const start = text.items.len;
        try append(text, gpa, item, elements, i);
        // A dimension is not quoted.
        if (item.type != .list) try printed.quoteFrom(text, gpa, start);
    }
    try text.append(gpa, '}');
}

/// A value that PostgreSQL does not take, by what came.
pub fn appendNumber(text: *Text, gpa: Allocator, view: *const arrow.ArrayView, row: usize) Allocator.Error!void {
    switch (view.type) {
        .date32 => try text.print(gpa, "{d} days since 1970-01-01", .{view.fixed(i32)[row]}),
        .time64 => try text.print(gpa, "{d} microseconds since midnight", .{view.fixed(i64)[row]}),
        .timestamp => try text.print(gpa, "{d} microseconds since 1970-01-01", .{view.fixed(i64)[row]}),
        .interval_month_day_nano => {
            const interval = view.fixed(arrow.MonthDayNano)[row];
            try text.print(gpa, "{d} months {d} days {d} nanoseconds", .{ interval.months, interval.days, interval.nanos });
        },
        .list => {
            try text.append(gpa, '{');
            const from: usize = @intCast(view.offsets[row]);
            const elements = view.child.?;
            for (from..@intCast(view.offsets[row + 1])) |i| {
                if (i > from) try text.append(gpa, ',');
                if (elements.isNull(i)) {
                    try text.appendSlice(gpa, "NULL");
                    continue;
                }
                try text.append(gpa, '"');
                try appendNumber(text, gpa, elements, i);
                try text.append(gpa, '"');
            }
            try text.append(gpa, '}');
        },
        else => {
            const width = view.values.len / @max(1, view.length);
            try text.print(gpa, "the bytes {x} of {f}", .{ view.values[row * width ..][0..width], view.type });
        },
    }
}

fn expectText(expected: []const u8, field: arrow.Field, comptime T: type, value: T) !void {
    const gpa = std.testing.allocator;
    var column: arrow.ColumnBuilder = try .init(gpa, field.type);
    defer column.deinit();
    if (T == bool) try column.appendBool(value) else if (T == []const u8) try column.appendBytes(value) else try column.appendFixed(T, value);
    const view = try column.view(gpa);
    var text: Text = .empty;
    defer text.deinit(gpa);
    try append(&text, gpa, &field, &view, 0);
    try std.testing.expectEqualStrings(expected, text.items);
}

fn decimalOf(scale: i32) arrow.Field {
    return .{ .name = "c", .type = .{ .decimal128 = .{ .precision = 38, .scale = scale } } };
}

test "values are printed as PostgreSQL prints them" {
    try expectText("t", .{ .name = "c", .type = .bool }, bool, true);
    try expectText("-32768", .{ .name = "c", .type = .int16 }, i16, -32768);
    try expectText("1e-07", .{ .name = "c", .type = .float32 }, f32, 1e-7);
    try expectText("0.0001", .{ .name = "c", .type = .float64 }, f64, 1e-4);
    // SELECT 12.50::numeric(12,2), -0.05::numeric(12,2), 0::numeric(12,2), 7::numeric(5,0), 120::numeric(3,-1)
    try expectText("12.50", decimalOf(2), i128, 1250);
    try expectText("-0.05", decimalOf(2), i128, -5);
    try expectText("0.00", decimalOf(2), i128, 0);
    try expectText("7", decimalOf(0), i128, 7);
    try expectText("120", decimalOf(-1), i128, 12);
    try expectText("0", decimalOf(-1), i128, 0);
    try expectText("NaN", decimalOf(2), i128, values.Numeric128.nan);
    try expectText("-Infinity", decimalOf(2), i128, values.Numeric128.minus_infinity);
    const wide: arrow.Field = .{ .name = "c", .type = .{ .decimal256 = .{ .precision = 76, .scale = 76 } } };
    try expectText("-0." ++ @as([76]u8, @splat('9')), wide, i256, -(std.math.pow(i256, 10, 76) - 1));
    try expectText("infinity", .{ .name = "c", .type = .date32 }, i32, values.date_infinity);
    try expectText("0044-03-15 BC", .{ .name = "c", .type = .date32 }, i32, -735_160);
    try expectText("1970-01-01 00:00:00.5+00", .{ .name = "c", .type = .{ .timestamp = .{ .utc = true } } }, i64, 500_000);
    try expectText("24:00:00", .{ .name = "c", .type = .time64 }, i64, values.time_max_micros);
    const span: arrow.MonthDayNano = .{ .months = 14, .days = -3, .nanos = 4_000 };
    try expectText("1 year 2 mons -3 days +00:00:00.000004", .{ .name = "c", .type = .interval_month_day_nano }, arrow.MonthDayNano, span);
    try expectText("\\x00ff", .{ .name = "c", .type = .binary }, []const u8, "\x00\xff");
    const uuid: arrow.Field = .{
        .name = "c",
        .type = .{ .fixed_size_binary = 16 },
        .metadata = &.{.{ .key = arrow.keys.extension_name, .value = "arrow.uuid" }},
    };
    try expectText("00000000-0000-0000-0000-0000000000ff", uuid, []const u8, &(@as([15]u8, @splat(0)) ++ "\xff".*));
    try expectText("\\x61", .{ .name = "c", .type = .{ .fixed_size_binary = 1 } }, []const u8, "a");
}

test "what PostgreSQL has no value for is told by its number" {
    try expectText("-1 microseconds since midnight", .{ .name = "c", .type = .time64 }, i64, -1);
    const span: arrow.MonthDayNano = .{ .months = 0, .days = 1, .nanos = 7 };
    try expectText("0 months 1 days 7 nanoseconds", .{ .name = "c", .type = .interval_month_day_nano }, arrow.MonthDayNano, span);
}

test "lists are printed as arrays" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const item: arrow.Field = .{ .name = "item", .type = .{ .timestamp = .{ .utc = false } } };
    const field: arrow.Field = .{ .name = "c", .type = .{ .list = &item } };
    var column: arrow.ColumnBuilder = try .init(arena.allocator(), field.type);
    const items = try column.beginList();
    try items.appendFixed(i64, 0);
    try items.appendNull();
    try column.endList();
    _ = try column.beginList();
    try column.endList();
    const view = try column.view(arena.allocator());
    for ([_][]const u8{ "{\"1970-01-01 00:00:00\",NULL}", "{}" }, 0..) |expected, row| {
        var text: Text = .empty;
        try append(&text, arena.allocator(), &field, &view, row);
        try std.testing.expectEqualStrings(expected, text.items);
    }
}
