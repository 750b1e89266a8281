//! Text of a value as PostgreSQL prints it with `DateStyle` ISO and `TimeZone` UTC, made from its binary form: the same
//! whatever the session, the role or the server is set to.
//!
//! What is written here can be read by the server as a literal of the type, and by `parseDate` and `parseTimestamp`.
//! Numerics lose the zeros behind the point that only their scale asks for: equal values have equal texts.

const std = @import("std");
const sdk = @import("sdk");
const values = @import("values.zig");

const Allocator = std.mem.Allocator;

/// What a value's bytes may turn out to be.
pub const Error = Allocator.Error || error{Malformed};

const Text = std.ArrayList(u8);

pub fn appendInteger(text: *Text, gpa: Allocator, bytes: []const u8) Error!void {
    try text.print(gpa, "{d}", .{try integer(bytes)});
}

/// Of int2, int4 and int8 alike.
pub fn integer(bytes: []const u8) error{Malformed}!i64 {
    return switch (bytes.len) {
        2 => std.mem.readInt(i16, bytes[0..2], .big),
        4 => std.mem.readInt(i32, bytes[0..4], .big),
        8 => std.mem.readInt(i64, bytes[0..8], .big),
        else => error.Malformed,
    };
}

pub fn appendUuid(text: *Text, gpa: Allocator, bytes: []const u8) Error!void {
    if (bytes.len != 16) return error.Malformed;
    try text.print(gpa, "{x}-{x}-{x}-{x}-{x}", .{ bytes[0..4], bytes[4..6], bytes[6..8], bytes[8..10], bytes[10..16] });
}

/// Whether `text` is what `appendUuid` writes.
pub fn isUuid(text: []const u8) bool {
    if (text.len != 36) return false;
    for (text, 0..) |byte, i| switch (i) {
        8, 13, 18, 23 => if (byte != '-') return false,
        else => switch (byte) {
            '0'...'9', 'a'...'f' => {},
            else => return false,
        },
    };
    return true;
}

// Numerics.

/// Of the binary form; see numeric.zig for its picture.
pub fn appendNumeric(text: *Text, gpa: Allocator, bytes: []const u8) Error!void {
    if (bytes.len < 8) return error.Malformed;
    const count: usize = std.mem.readInt(u16, bytes[0..2], .big);
    if (bytes.len != 8 + 2 * count) return error.Malformed;
    const weight: i32 = std.mem.readInt(i16, bytes[2..4], .big);
    switch (std.mem.readInt(u16, bytes[4..6], .big)) {
        values.numeric_positive => {},
        values.numeric_negative => if (count > 0) try text.append(gpa, '-'),
        values.numeric_nan => return text.appendSlice(gpa, "NaN"),
        values.numeric_infinity => return text.appendSlice(gpa, "Infinity"),
        values.numeric_minus_infinity => return text.appendSlice(gpa, "-Infinity"),
        else => return error.Malformed,
    }
    if (count == 0 or weight < 0) try text.append(gpa, '0');
    var group: i32 = weight;
    const start = text.items.len;
    while (group >= 0 and count > 0) : (group -= 1)
        try text.print(gpa, "{d:0>4}", .{try digitsAt(bytes, count, weight - group)});
    // The first group has no zeros in front, the last digits behind the point none at the end.
    if (weight >= 0 and count > 0) {
        const zeros = countZeros(text.items[start..]);
        text.replaceRangeAssumeCapacity(start, @min(zeros, text.items.len - start - 1), "");
    }
    const last = weight - @as(i32, @intCast(count)) + 1;
    if (last >= 0 or count == 0) return;
    try text.append(gpa, '.');
    group = -1;
    while (group >= last) : (group -= 1)
        try text.print(gpa, "{d:0>4}", .{try digitsAt(bytes, count, weight - group)});
    text.items.len = trimNumeric(text.items).len;
}

fn countZeros(digits: []const u8) usize {
    return std.mem.findNone(u8, digits, "0") orelse digits.len;
}

/// The four digits of a group; groups above the first are zero.
fn digitsAt(bytes: []const u8, count: usize, i: i32) Error!u16 {
    if (i < 0 or i >= count) return 0;
    const digits = std.mem.readInt(u16, bytes[8 + 2 * @as(usize, @intCast(i)) ..][0..2], .big);
    return if (digits < 10_000) digits else error.Malformed;
}

/// A numeric's text without the zeros at its end that mean nothing.
pub fn trimNumeric(text: []const u8) []const u8 {
    if (std.mem.findScalar(u8, text, '.') == null) return text;
    const digits = std.mem.trimEnd(u8, text, "0");
    return std.mem.trimEnd(u8, digits, ".");
}

/// Whether `text` is what `appendNumeric` writes for a value that has its place in the order.
pub fn isNumeric(text: []const u8) bool {
    if (std.mem.eql(u8, text, "-Infinity")) return true;
    const digits = if (std.mem.startsWith(u8, text, "-")) text[1..] else text;
    var points: usize = 0;
    for (digits, 0..) |byte, i| switch (byte) {
        '0'...'9' => {},
        '.' => {
            points += 1;
            if (i == 0 or i + 1 == digits.len) return false;
        },
        else => return false,
    };
    return digits.len > 0 and points <= 1;
}

// Dates and timestamps, counted from 2000-01-01 as PostgreSQL does.

const infinity = "infinity";
const minus_infinity = "-infinity";
const before_christ = " BC";
const micros_per_day = 86_400_000_000;

/// Of a date's bytes.
pub fn dateDays(bytes: []const u8) error{Malformed}!i32 {
    return if (bytes.len == 4) std.mem.readInt(i32, bytes[0..4], .big) else error.Malformed;
}

/// Of a timestamp's bytes, with time zone or without.
pub fn timestampMicros(bytes: []const u8) error{Malformed}!i64 {
    return if (bytes.len == 8) std.mem.readInt(i64, bytes[0..8], .big) else error.Malformed;
}

pub fn appendDate(text: *Text, gpa: Allocator, days: i32) Allocator.Error!void {
    if (days == values.date_infinity) return text.appendSlice(gpa, infinity);
    if (days == values.date_minus_infinity) return text.appendSlice(gpa, minus_infinity);
    const date: Civil = .ofDays(days);
    try date.append(text, gpa);
    if (date.year <= 0) try text.appendSlice(gpa, before_christ);
}

/// `zone`: "+00" for timestamptz, nothing for timestamp.
pub fn appendTimestamp(text: *Text, gpa: Allocator, micros: i64, zone: []const u8) Allocator.Error!void {
    if (micros == values.timestamp_infinity) return text.appendSlice(gpa, infinity);
    if (micros == values.timestamp_minus_infinity) return text.appendSlice(gpa, minus_infinity);
    const date: Civil = .ofDays(@divFloor(micros, micros_per_day));
    const time: u64 = @intCast(@mod(micros, micros_per_day));
    const seconds = time / 1_000_000;
    try date.append(text, gpa);
    try text.print(gpa, " {d:0>2}:{d:0>2}:{d:0>2}", .{ seconds / 3600, seconds / 60 % 60, seconds % 60 });
    if (time % 1_000_000 != 0) {
        try text.print(gpa, ".{d:0>6}", .{time % 1_000_000});
        text.items.len = std.mem.trimEnd(u8, text.items, "0").len;
    }
    try text.appendSlice(gpa, zone);
    if (date.year <= 0) try text.appendSlice(gpa, before_christ);
}

/// Null: not what `appendDate` writes.
pub fn parseDate(text: []const u8) ?i32 {
    if (std.mem.eql(u8, text, infinity)) return values.date_infinity;
    if (std.mem.eql(u8, text, minus_infinity)) return values.date_minus_infinity;
    var rest = text;
    const is_bc = cutEnd(&rest, before_christ);
    const date = Civil.parse(rest, is_bc) orelse return null;
    const days = std.math.cast(i32, date.toDays()) orelse return null;
    return if (days == values.date_infinity or days == values.date_minus_infinity) null else days;
}

/// Null: not what `appendTimestamp` writes with this `zone`.
pub fn parseTimestamp(text: []const u8, zone: []const u8) ?i64 {
    if (std.mem.eql(u8, text, infinity)) return values.timestamp_infinity;
    if (std.mem.eql(u8, text, minus_infinity)) return values.timestamp_minus_infinity;
    var rest = text;
    const is_bc = cutEnd(&rest, before_christ);
    if (!cutEnd(&rest, zone)) return null;
    const space = std.mem.findScalar(u8, rest, ' ') orelse return null;
    const date = Civil.parse(rest[0..space], is_bc) orelse return null;
    const time = parseTime(rest[space + 1 ..]) orelse return null;
    const whole = std.math.mul(i64, date.toDays(), micros_per_day) catch return null;
    const micros = std.math.add(i64, whole, time) catch return null;
    return if (micros == values.timestamp_infinity or micros == values.timestamp_minus_infinity) null else micros;
}

fn parseTime(text: []const u8) ?i64 {
    if (text.len < 8 or text[2] != ':' or text[5] != ':') return null;
    const hours = number(text[0..2]) orelse return null;
    const minutes = number(text[3..5]) orelse return null;
    const seconds = number(text[6..8]) orelse return null;
    if (hours > 23 or minutes > 59 or seconds > 59) return null;
    var micros: i64 = 0;
    if (text.len > 8) {
        const fraction = text[9..];
        if (text[8] != '.' or fraction.len == 0 or fraction.len > 6) return null;
        micros = number(fraction) orelse return null;
        for (fraction.len..6) |_| micros *= 10;
    }
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
}

/// Digits alone, a few of them.
fn number(text: []const u8) ?i64 {
    if (text.len == 0 or text.len > 9) return null;
    for (text) |byte| if (!std.ascii.isDigit(byte)) return null;
    return std.fmt.parseInt(i64, text, 10) catch null;
}

fn cutEnd(text: *[]const u8, end: []const u8) bool {
    if (!std.mem.endsWith(u8, text.*, end)) return false;
    text.len -= end.len;
    return true;
}

/// A day of the Gregorian calendar, counted backwards to before there was one. Year 0 is 1 BC.
const Civil = struct {
    year: i64,
    month: u8,
    day: u8,

    // Years begin in March here, so that a leap day is the last day of one; 400 of them have 146,097 days.
    const days_per_era = 146_097;
    /// From 0000-03-01 to 2000-01-01.
    const epoch = 730_425;

    fn ofDays(days: i64) Civil {
        const from_march = days + epoch;
        const era = @divFloor(from_march, days_per_era);
        const day_of_era: u32 = @intCast(@mod(from_march, days_per_era));
        // Leap days before it: one in 4 years, but one less in 100, and the last day of the era.
        const year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (days_per_era - 1)) / 365;
        const day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        const march_month: u8 = @intCast((5 * day_of_year + 2) / 153);
        const month = if (march_month < 10) march_month + 3 else march_month - 9;
        return .{
            .year = era * 400 + year_of_era + @intFromBool(month <= 2),
            .month = month,
            .day = @intCast(day_of_year - daysBefore(march_month) + 1),
        };
    }

    fn toDays(self: Civil) i64 {
        const year = self.year - @intFromBool(self.month <= 2);
        const era = @divFloor(year, 400);
        const year_of_era = @mod(year, 400);
        const march_month = if (self.month > 2) self.month - 3 else self.month + 9;
        const day_of_year = daysBefore(march_month) + @as(i64, self.day) - 1;
        const day_of_era = year_of_era * 365 + @divFloor(year_of_era, 4) - @divFloor(year_of_era, 100) + day_of_year;
        return era * days_per_era + day_of_era - epoch;
    }

    /// Days of a year that begins in March before its month 0…11: 153 in five of them.
    fn daysBefore(march_month: u8) u32 {
        return (153 * @as(u32, march_month) + 2) / 5;
    }

    fn append(self: Civil, text: *Text, gpa: Allocator) Allocator.Error!void {
        const year: u64 = @intCast(if (self.year > 0) self.year else 1 - self.year);
        try text.print(gpa, "{d:0>4}-{d:0>2}-{d:0>2}", .{ year, self.month, self.day });
    }

    /// Null: not such a text, or no such day.
    fn parse(text: []const u8, is_bc: bool) ?Civil {
        if (text.len < 10) return null;
        const year_length = text.len - 6;
        if (text[year_length] != '-' or text[year_length + 3] != '-') return null;
        const year = number(text[0..year_length]) orelse return null;
        const month = number(text[year_length + 1 ..][0..2]) orelse return null;
        const day = number(text[year_length + 4 ..]) orelse return null;
        if (year == 0 or month < 1 or month > 12 or day < 1 or day > 31) return null;
        const parsed: Civil = .{
            .year = if (is_bc) 1 - year else year,
            .month = @intCast(month),
            .day = @intCast(day),
        };
        return if (std.meta.eql(parsed, Civil.ofDays(parsed.toDays()))) parsed else null;
    }
};

fn expectText(expected: []const u8, comptime append: anytype, arguments: anytype) !void {
    const gpa = std.testing.allocator;
    var text: Text = .empty;
    defer text.deinit(gpa);
    try @call(.auto, append, .{ &text, gpa } ++ arguments);
    try std.testing.expectEqualStrings(expected, text.items);
}

test "integers of every width, and uuids" {
    // SELECT int2send(-2), int4send(7), int8send(-9223372036854775808)
    try expectText("-2", appendInteger, .{"\xff\xfe"});
    try expectText("7", appendInteger, .{"\x00\x00\x00\x07"});
    try expectText("-9223372036854775808", appendInteger, .{"\x80\x00\x00\x00\x00\x00\x00\x00"});
    const uuid = "\x00\x01\xab\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09";
    try expectText("0001abff-0000-0000-0000-000000000009", appendUuid, .{uuid});
    try std.testing.expect(isUuid("0001abff-0000-0000-0000-000000000009"));
    try std.testing.expect(!isUuid("0001ABFF-0000-0000-0000-000000000009"));
    try std.testing.expectError(error.Malformed, integer("abc"));
}

test "numerics are written without zeros that mean nothing" {
    // SELECT numeric_send(x), trim_scale(x) of 0.0000, 1.1234, -1.0010, 0.0001, 12345678.9012, 1.4200, 100000000
    try expectText("0", appendNumeric, .{"\x00\x00\x00\x00\x00\x00\x00\x04"});
    try expectText("1.1234", appendNumeric, .{"\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x04\xd2"});
    try expectText("-1.001", appendNumeric, .{"\x00\x02\x00\x00\x40\x00\x00\x04\x00\x01\x00\x0a"});
    try expectText("0.0001", appendNumeric, .{"\x00\x01\xff\xff\x00\x00\x00\x04\x00\x01"});
    try expectText("0.00000001", appendNumeric, .{"\x00\x01\xff\xfe\x00\x00\x00\x08\x00\x01"});
    try expectText("12345678.9012", appendNumeric, .{"\x00\x03\x00\x01\x00\x00\x00\x04\x04\xd2\x16\x2e\x23\x34"});
    try expectText("1.42", appendNumeric, .{"\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x10\x68"});
    try expectText("100000000", appendNumeric, .{"\x00\x01\x00\x02\x00\x00\x00\x00\x00\x01"});
    try expectText("-Infinity", appendNumeric, .{"\x00\x00\x00\x00\xf0\x00\x00\x00"});
    try std.testing.expectEqualStrings("1.5", trimNumeric("1.500"));
    try std.testing.expectEqualStrings("1", trimNumeric("1.000"));
    try std.testing.expectEqualStrings("1000", trimNumeric("1000"));
    for ([_][]const u8{ "0", "-1.5", "100", "-Infinity" }) |text| try std.testing.expect(isNumeric(text));
    for ([_][]const u8{ "", "-", ".5", "5.", "1.2.3", "1e5", "NaN", " 1" }) |text|
        try std.testing.expect(!isNumeric(text));
}

test "any bytes are a numeric's text or an error" {
    try sdk.fuzz.bytes(fuzzNumeric, &.{
        "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x04\xd2",
        "\x00\x05\x00\x03\x40\x00\x00\x04\x00\x63\x27\x0f\x27\x0f\x27\x0f\x27\x0f",
    });
}

fn fuzzNumeric(bytes: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var text: Text = .empty;
    defer text.deinit(gpa);
    appendNumeric(&text, gpa, bytes) catch |err| return if (err == error.Malformed) {} else err;
}

test "dates and timestamps are written as PostgreSQL does, and read back" {
    const gpa = std.testing.allocator;
    // SELECT x::date - '2000-01-01'::date, x
    const dates = .{
        .{ 0, "2000-01-01" },
        .{ 59, "2000-02-29" },
        .{ -1, "1999-12-31" },
        .{ -36_465, "1900-03-01" },
        .{ -730_119, "0001-01-01" },
        .{ -730_120, "0001-12-31 BC" },
        .{ -2_451_545, "4714-11-24 BC" },
        .{ 2_921_940, "10000-01-01" },
        .{ 2_145_031_948, "5874897-12-31" },
        .{ values.date_infinity, "infinity" },
        .{ values.date_minus_infinity, "-infinity" },
    };
    inline for (dates) |case| {
        try expectText(case[1], appendDate, .{case[0]});
        try std.testing.expectEqual(case[0], parseDate(case[1]).?);
    }
    const timestamps = .{
        .{ 0, "2000-01-01 00:00:00" },
        .{ -1, "1999-12-31 23:59:59.999999" },
        .{ 1_500_000, "2000-01-01 00:00:01.5" },
        .{ -211_813_488_000_000_000, "4714-11-24 00:00:00 BC" },
        .{ 9_223_371_331_199_999_999, "294276-12-31 23:59:59.999999" },
        .{ values.timestamp_minus_infinity, "-infinity" },
    };
    inline for (timestamps) |case| {
        try expectText(case[1], appendTimestamp, .{ case[0], "" });
        try std.testing.expectEqual(case[0], parseTimestamp(case[1], "").?);
    }
    try expectText("0044-03-15 12:00:00+00 BC", appendTimestamp, .{ -64464465600000000, "+00" });
    var text: Text = .empty;
    defer text.deinit(gpa);
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    for (0..2000) |_| {
        const days = generator.random().intRangeAtMost(i32, -2_451_545, 2_145_031_948);
        text.clearRetainingCapacity();
        try appendDate(&text, gpa, days);
        try std.testing.expectEqual(days, parseDate(text.items).?);
        const micros = generator.random().intRangeAtMost(i64, -211_813_488_000_000_000, 9_223_371_331_199_999_999);
        text.clearRetainingCapacity();
        try appendTimestamp(&text, gpa, micros, "+00");
        try std.testing.expectEqual(micros, parseTimestamp(text.items, "+00").?);
    }
}

test "what is no date, or no timestamp, is told" {
    for ([_][]const u8{ "", "2000-1-1", "2000-02-30", "0000-01-01", "2000-13-01", "99999999999-01-01", "x000-01-01" }) |text|
        try std.testing.expectEqual(null, parseDate(text));
    for ([_][]const u8{
        "2000-01-01",
        "2000-01-01 24:00:00",
        "2000-01-01 00:00",
        "2000-01-01 00:00:00.",
        "2000-01-01 00:00:00+00",
        "999999-01-01 00:00:00",
    }) |text| try std.testing.expectEqual(null, parseTimestamp(text, ""));
    try std.testing.expectEqual(null, parseTimestamp("2000-01-01 00:00:00", "+00"));
}
