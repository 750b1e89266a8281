//! Where PostgreSQL's values lie in Arrow's ranges, and what stands for those that have no place there.
//!
//! An Arrow timestamp knows no infinity and a decimal no NaN. The source writes, and the destination reads,
//! a value at the very end of the Arrow type's range instead; docs/types.md lists them for other readers.
//! Each is outside what PostgreSQL can hold as an ordinary value of the type, or the source refuses the row.

const std = @import("std");
const MonthDayNano = @import("sdk").arrow.MonthDayNano;

/// PostgreSQL counts days and microseconds from 2000-01-01, Arrow from 1970-01-01.
pub const epoch_days: i32 = 10_957;
pub const epoch_micros: i64 = 946_684_800_000_000;

/// Both sides use the same two values, so that these need no translation but no epoch shift either.
pub const date_infinity: i32 = std.math.maxInt(i32);
pub const date_minus_infinity: i32 = std.math.minInt(i32);
pub const timestamp_infinity: i64 = std.math.maxInt(i64);
pub const timestamp_minus_infinity: i64 = std.math.minInt(i64);

/// 4714-11-24 BC, the first day that PostgreSQL has, counted from 2000-01-01.
pub const first_day = -2_451_545;

/// `24:00:00`, the one time of day that is not below a day.
pub const time_max_micros: i64 = 86_400_000_000;

/// PostgreSQL 17 and later: all three fields at their end.
pub const Interval = struct {
    months: i32,
    days: i32,
    micros: i64,

    pub const infinity: Interval = .{
        .months = std.math.maxInt(i32),
        .days = std.math.maxInt(i32),
        .micros = std.math.maxInt(i64),
    };
    pub const minus_infinity: Interval = .{
        .months = std.math.minInt(i32),
        .days = std.math.minInt(i32),
        .micros = std.math.minInt(i64),
    };

    pub fn eql(a: Interval, b: Interval) bool {
        return a.months == b.months and a.days == b.days and a.micros == b.micros;
    }
};

/// The server version that has infinite intervals. Before it, their bits are those of two finite ones.
pub const infinite_intervals_since: u32 = 170_000;

/// What stands for an infinite interval: three fields at the end of their ranges. No finite interval reads like
/// this, because i64's ends are not whole microseconds.
pub const interval_infinity: MonthDayNano = .{
    .months = std.math.maxInt(i32),
    .days = std.math.maxInt(i32),
    .nanos = std.math.maxInt(i64),
};
pub const interval_minus_infinity: MonthDayNano = .{
    .months = std.math.minInt(i32),
    .days = std.math.minInt(i32),
    .nanos = std.math.minInt(i64),
};

/// A decimal of at most 38 (76) digits stays below 10^38 (10^76), well inside i128 (i256): the ends are free.
pub fn Numeric(comptime Int: type) type {
    return struct {
        pub const nan: Int = std.math.minInt(Int);
        pub const minus_infinity: Int = std.math.minInt(Int) + 1;
        pub const infinity: Int = std.math.maxInt(Int);
    };
}
pub const Numeric128 = Numeric(i128);
pub const Numeric256 = Numeric(i256);

/// The sign word of a binary numeric (src/backend/utils/adt/numeric.c).
pub const numeric_positive: u16 = 0x0000;
pub const numeric_negative: u16 = 0x4000;
pub const numeric_nan: u16 = 0xC000;
pub const numeric_infinity: u16 = 0xD000;
pub const numeric_minus_infinity: u16 = 0xF000;

/// jsonb's binary form is this byte and then the JSON text.
pub const jsonb_version: u8 = 1;

/// PostgreSQL µs since 2000 -> Arrow µs since 1970. Addition wraps, which keeps the mapping one to one for the
/// 30 years (294247 to 294276) that lie beyond i64 when counted from 1970. Null when the shifted value is one of
/// the two that mean infinity.
pub fn timestampToArrow(micros: i64) ?i64 {
    if (micros == timestamp_infinity or micros == timestamp_minus_infinity) return micros;
    const shifted = micros +% epoch_micros;
    if (shifted == timestamp_infinity or shifted == timestamp_minus_infinity) return null;
    return shifted;
}

/// The inverse of `timestampToArrow`. Null when `micros` (no infinity) would read as infinity in PostgreSQL.
pub fn timestampFromArrow(micros: i64) ?i64 {
    if (micros == timestamp_infinity or micros == timestamp_minus_infinity) return micros;
    const shifted = micros -% epoch_micros;
    if (shifted == timestamp_infinity or shifted == timestamp_minus_infinity) return null;
    return shifted;
}

/// PostgreSQL days since 2000 -> Arrow days since 1970. Null when out of i32's finite range.
pub fn dateToArrow(days: i32) ?i32 {
    if (days == date_infinity or days == date_minus_infinity) return days;
    const shifted = std.math.add(i32, days, epoch_days) catch return null;
    return if (shifted == date_infinity) null else shifted;
}

pub fn dateFromArrow(days: i32) ?i32 {
    if (days == date_infinity or days == date_minus_infinity) return days;
    const shifted = std.math.sub(i32, days, epoch_days) catch return null;
    return if (shifted == date_minus_infinity) null else shifted;
}

test "timestamps keep their value through both epochs, wrapped or not" {
    const cases = [_]i64{
        0, -1, 1,
        -211_813_488_000_000_000, // 4714-11-24 BC, the first day
        9_223_371_331_199_999_999, // 294276-12-31 23:59:59.999999, the last microsecond
        timestamp_infinity,
        timestamp_minus_infinity,
    };
    for (cases) |micros| {
        const arrow = timestampToArrow(micros).?;
        try std.testing.expectEqual(micros, timestampFromArrow(arrow).?);
    }
    try std.testing.expectEqual(epoch_micros, timestampToArrow(0).?);
}

test "a finite timestamp that would read as infinity is told apart" {
    try std.testing.expectEqual(null, timestampToArrow(timestamp_infinity - epoch_micros));
    try std.testing.expectEqual(null, timestampToArrow(timestamp_minus_infinity -% epoch_micros));
}

test "dates keep their value, and infinity" {
    const cases = [_]i32{ 0, -2_451_507, 2_145_031_948, date_infinity, date_minus_infinity };
    for (cases) |days| try std.testing.expectEqual(days, dateFromArrow(dateToArrow(days).?).?);
}
