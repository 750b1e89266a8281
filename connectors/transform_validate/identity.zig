//! What makes two values the same, as bytes: those that PostgreSQL calls equal have the same.
//!
//! Texts are the same when their bytes are: what a collation of the database's says is not known here.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Domain = @import("domain.zig").Domain;
const Number = @import("decimal.zig").Number;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const values = postgres.values;

const Bytes = std.ArrayList(u8);

/// Of a value that is not NULL. No two lists of values have the same bytes where the values differ.
pub fn append(bytes: *Bytes, gpa: Allocator, domain: Domain, is_padded: bool, view: *const arrow.ArrayView, row: usize) Allocator.Error!void {
    switch (view.type) {
        .bool => try bytes.append(gpa, @intFromBool(view.boolAt(row))),
        .int16, .int32, .int64, .date32, .time64, .timestamp, .decimal128, .decimal256 => {
            const width = view.type.layout().fixed;
            try bytes.appendSlice(gpa, view.values[row * width ..][0..width]);
        },
        .float32 => try appendFloat(bytes, gpa, view.fixed(f32)[row]),
        .float64 => try appendFloat(bytes, gpa, view.fixed(f64)[row]),
        .interval_month_day_nano => try appendInterval(bytes, gpa, view.fixed(arrow.MonthDayNano)[row]),
        .fixed_size_binary => try bytes.appendSlice(gpa, view.bytesAt(row)),
        .binary => try appendSized(bytes, gpa, view.bytesAt(row)),
        .utf8 => try appendText(bytes, gpa, domain, is_padded, view.bytesAt(row)),
        .list => |item| {
            const from: usize = @intCast(view.offsets[row]);
            const to: usize = @intCast(view.offsets[row + 1]);
            const elements = view.child.?;
            try appendLength(bytes, gpa, to - from);
            const type_name = item.get(arrow.keys.pg_type) orelse "";
            for (from..to) |i| {
                try bytes.append(gpa, @intFromBool(elements.isNull(i)));
                if (!elements.isNull(i)) try append(bytes, gpa, .of(item, type_name), is_padded, elements, i);
            }
        },
    }
}

fn appendText(bytes: *Bytes, gpa: Allocator, domain: Domain, is_padded: bool, text: []const u8) Allocator.Error!void {
    switch (domain) {
        // 1.0 and 1.00
        .numeric => if (Number.parse(text)) |number| {
            if (number != .finite) return appendSized(bytes, gpa, text);
            const start = bytes.items.len;
            try appendLength(bytes, gpa, 0);
            try bytes.print(gpa, "{f}", .{number.finite});
            return setLength(bytes, start);
        },
        .real, .double => if (std.fmt.parseFloat(f64, text)) |value| return appendFloat(bytes, gpa, value) else |_| {},
        else => {},
    }
    try appendSized(bytes, gpa, if (is_padded) std.mem.trimEnd(u8, text, " ") else text);
}

fn appendFloat(bytes: *Bytes, gpa: Allocator, value: f64) Allocator.Error!void {
    // Zero has two signs, and NaN many forms.
    const one = if (value == 0) 0 else if (value != value) std.math.nan(f64) else value;
    try bytes.appendSlice(gpa, std.mem.asBytes(&one));
}

/// A month has 30 days, and a day 24 hours.
fn appendInterval(bytes: *Bytes, gpa: Allocator, interval: arrow.MonthDayNano) Allocator.Error!void {
    const days = @as(i128, interval.months) * 30 + interval.days;
    const nanos: i128 = if (std.meta.eql(interval, values.interval_infinity))
        std.math.maxInt(i128)
    else if (std.meta.eql(interval, values.interval_minus_infinity))
        std.math.minInt(i128)
    else
        days * std.time.ns_per_day + interval.nanos;
    try bytes.appendSlice(gpa, std.mem.asBytes(&nanos));
}

fn appendSized(bytes: *Bytes, gpa: Allocator, value: []const u8) Allocator.Error!void {
    try appendLength(bytes, gpa, value.len);
    try bytes.appendSlice(gpa, value);
}

fn appendLength(bytes: *Bytes, gpa: Allocator, length: usize) Allocator.Error!void {
    try bytes.appendSlice(gpa, std.mem.asBytes(&@as(u32, @intCast(length))));
}

fn setLength(bytes: *Bytes, start: usize) void {
    const length: u32 = @intCast(bytes.items.len - start - @sizeOf(u32));
    @memcpy(bytes.items[start..][0..@sizeOf(u32)], std.mem.asBytes(&length));
}

fn expectSame(is_same: bool, domain: Domain, of: arrow.Type, comptime T: type, a: T, b: T) !void {
    const gpa = std.testing.allocator;
    var column: arrow.ColumnBuilder = try .init(gpa, of);
    defer column.deinit();
    for ([_]T{ a, b }) |value| if (T == []const u8) try column.appendBytes(value) else try column.appendFixed(T, value);
    const view = try column.view(gpa);
    var first: Bytes = .empty;
    defer first.deinit(gpa);
    var second: Bytes = .empty;
    defer second.deinit(gpa);
    try append(&first, gpa, domain, domain == .text, &view, 0);
    try append(&second, gpa, domain, domain == .text, &view, 1);
    try std.testing.expectEqual(is_same, std.mem.eql(u8, first.items, second.items));
}

test "values are the same that PostgreSQL calls equal" {
    try expectSame(true, .double, .float64, f64, 0.0, -0.0);
    try expectSame(true, .double, .float64, f64, std.math.nan(f64), -std.math.nan(f64));
    try expectSame(false, .double, .float64, f64, 0.1, 0.2);
    try expectSame(true, .numeric, .utf8, []const u8, "1.0", "1.00");
    try expectSame(true, .numeric, .utf8, []const u8, "-0.0", "0");
    try expectSame(true, .numeric, .utf8, []const u8, "NaN", "NaN");
    try expectSame(false, .numeric, .utf8, []const u8, "1.0", "10");
    try expectSame(true, .double, .utf8, []const u8, "-0", "0");
    try expectSame(true, .text, .utf8, []const u8, "a  ", "a");
    try expectSame(false, .text, .utf8, []const u8, "a", "A");
    const interval: arrow.Type = .interval_month_day_nano;
    try expectSame(true, .interval, interval, arrow.MonthDayNano, .{ .months = 1, .days = 0, .nanos = 0 }, .{
        .months = 0,
        .days = 29,
        .nanos = std.time.ns_per_day,
    });
    try expectSame(false, .interval, interval, arrow.MonthDayNano, values.interval_infinity, values.interval_minus_infinity);
}
