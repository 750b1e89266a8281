//! Dates, times of day and timestamps as ISO texts, and as the numbers that order them: days and microseconds from
//! 2000-01-01, microseconds from midnight. Infinity is at the end of i64 or, of dates, of i32.

const std = @import("std");
const postgres = @import("postgres");

const canonical = postgres.canonical;
const values = postgres.values;

/// `2024-01-31`, `0044-03-15 BC`
pub fn date(text: []const u8) ?i64 {
    return canonical.parseDate(text) orelse return null;
}

/// `15:04`, `15:04:05.123456`, `24:00`
pub fn time(text: []const u8) ?i64 {
    var buffer: [64]u8 = undefined;
    const whole = withSeconds(&buffer, text) orelse return null;
    if (std.mem.eql(u8, whole, "24:00:00")) return values.time_max_micros;
    var moment: [64]u8 = undefined;
    // On the day that counts as 0.
    return canonical.parseTimestamp(std.fmt.bufPrint(&moment, "2000-01-01 {s}", .{whole}) catch return null, "");
}

/// `2024-01-31`, `2024-01-31 15:04`, `2024-01-31T15:04:05.123456`; with a `zone` also `Z`, `+02`, `+02:00` and `-0530`
/// behind it, and UTC where there is none.
pub fn timestamp(text: []const u8, zone: bool) ?i64 {
    if (std.mem.endsWith(u8, text, "infinity")) return canonical.parseTimestamp(text, "");
    var rest = text;
    const is_bc = std.mem.endsWith(u8, rest, " BC");
    if (is_bc) rest.len -= 3;
    const separator = std.mem.findAny(u8, rest, "T ") orelse {
        const days = canonical.parseDate(text) orelse return null;
        return std.math.mul(i64, days, 86_400_000_000) catch null;
    };
    var offset: i64 = 0;
    var clock = rest[separator + 1 ..];
    if (zone) {
        if (std.mem.endsWith(u8, clock, "Z")) {
            clock.len -= 1;
        } else if (std.mem.findAny(u8, clock, "+-")) |sign| {
            offset = offsetMinutes(clock[sign..]) orelse return null;
            clock.len = sign;
        }
    }
    var buffer: [64]u8 = undefined;
    const whole = withSeconds(&buffer, clock) orelse return null;
    var moment: [128]u8 = undefined;
    const plain = std.fmt.bufPrint(&moment, "{s} {s}{s}", .{ rest[0..separator], whole, if (is_bc) " BC" else "" }) catch
        return null;
    const micros = canonical.parseTimestamp(plain, "") orelse return null;
    return std.math.sub(i64, micros, offset * 60_000_000) catch null;
}

fn withSeconds(buffer: *[64]u8, text: []const u8) ?[]const u8 {
    return std.fmt.bufPrint(buffer, "{s}{s}", .{ text, if (text.len == 5) ":00" else "" }) catch null;
}

/// Of `+02`, `+0200`, `+02:00`.
fn offsetMinutes(text: []const u8) ?i64 {
    const hours = digits(text[1..@min(3, text.len)]) orelse return null;
    const behind = text[@min(3, text.len)..];
    const minutes = if (behind.len == 0)
        0
    else
        digits(if (behind[0] == ':') behind[1..] else behind) orelse return null;
    if (hours > 15 or minutes > 59) return null;
    const offset = hours * 60 + minutes;
    return if (text[0] == '-') -offset else offset;
}

fn digits(text: []const u8) ?i64 {
    if (text.len != 2) return null;
    for (text) |digit| if (!std.ascii.isDigit(digit)) return null;
    return std.fmt.parseInt(i64, text, 10) catch null;
}

/// What the ABI sends, as what is ordered.
pub inline fn ofTimestamp(micros: i64) i64 {
    if (micros == values.timestamp_infinity or micros == values.timestamp_minus_infinity) return micros;
    return micros -% values.epoch_micros;
}

pub inline fn ofDate(days: i32) i64 {
    if (days == values.date_infinity or days == values.date_minus_infinity) return days;
    return @as(i64, days) - values.epoch_days;
}

test "moments are read as ISO writes them" {
    const day = 86_400_000_000;
    const expect = std.testing.expectEqual;
    try expect(1, date("2000-01-02"));
    try expect(values.date_infinity, date("infinity").?);
    try expect(day - 1, time("23:59:59.999999"));
    try expect(day, time("24:00"));
    try expect(day, timestamp("2000-01-02", false));
    try expect(3_600_000_000, timestamp("2000-01-01T01:00", false));
    try expect(0, timestamp("2000-01-01 02:00:00+02", true));
    try expect(0, timestamp("1999-12-31T18:30:00.000-05:30", true));
    try expect(500_000, timestamp("2000-01-01T00:00:00.5Z", true));
    try expect(values.timestamp_minus_infinity, timestamp("-infinity", true).?);
    try expect(true, timestamp("0044-03-15 00:00:00 BC", false).? < 0);
    for ([_][]const u8{ "", "2000-13-01", "2000-01-01T25:00", "2000-01-01 1:00", "now", "2000-01-01 00:00:00.1234567" }) |text| {
        try expect(null, timestamp(text, false));
        try expect(null, timestamp(text, true));
    }
    try expect(null, timestamp("2000-01-01 00:00:00Z", false));
    try expect(null, timestamp("2000-01-01 00:00:00+2", true));
    for ([_][]const u8{ "", "1:00", "24:00:01", "12:60" }) |text| try expect(null, time(text));
    for ([_][]const u8{ "", "2000-02-30", "2000-1-1", "01/02/2000" }) |text| try expect(null, date(text));
}

test "what the ABI sends is ordered with what is read" {
    try std.testing.expectEqual(date("1970-01-01").?, ofDate(0));
    try std.testing.expectEqual(timestamp("1970-01-01", true).?, ofTimestamp(0));
    // Beyond i64 when counted from 1970: it wraps on the way.
    const last = timestamp("294276-12-31 23:59:59.999999", false).?;
    try std.testing.expectEqual(last, ofTimestamp(values.timestampToArrow(last).?));
    try std.testing.expect(ofTimestamp(values.timestamp_infinity) > last);
}
