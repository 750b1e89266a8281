//! Numbers as their digits: never through a float, which has no place for most of them.

const std = @import("std");

const Allocator = std.mem.Allocator;

/// Digits that a number may have once its exponent is written out.
const digits_max = 1000;

pub const Decimal = struct {
    negative: bool,
    /// Without zeros in front.
    whole: []const u8,
    /// Without zeros at its end.
    fraction: []const u8,

    /// Of what PostgreSQL prints, without an exponent; points into the text. Null: not a number.
    pub fn parse(text: []const u8) ?Decimal {
        const negative = std.mem.startsWith(u8, text, "-");
        const unsigned = if (negative or std.mem.startsWith(u8, text, "+")) text[1..] else text;
        const point = std.mem.findScalar(u8, unsigned, '.') orelse unsigned.len;
        const whole = unsigned[0..point];
        const fraction = if (point < unsigned.len) unsigned[point + 1 ..] else "";
        if (whole.len + fraction.len == 0) return null;
        for ([_][]const u8{ whole, fraction }) |digits| for (digits) |digit| if (!std.ascii.isDigit(digit)) return null;
        const value: Decimal = .{
            .negative = negative,
            .whole = std.mem.trimStart(u8, whole, "0"),
            .fraction = std.mem.trimEnd(u8, fraction, "0"),
        };
        return if (value.isZero()) .{ .negative = false, .whole = "", .fraction = "" } else value;
    }

    /// As a user writes it: with an exponent perhaps. Null: not a number, or one of too many digits.
    pub fn parseWritten(arena: Allocator, text: []const u8) Allocator.Error!?Decimal {
        const e = std.mem.findAny(u8, text, "eE") orelse return if (text.len <= digits_max) parse(text) else null;
        const plain = parse(text[0..e]) orelse return null;
        const exponent = std.fmt.parseInt(i32, text[e + 1 ..], 10) catch return null;
        if (@abs(exponent) > digits_max or e > digits_max) return null;
        // The point moves in what is digits behind zeros and before zeros.
        const zeros: [digits_max]u8 = @splat('0');
        const digits = try std.mem.concat(arena, u8, &.{ &zeros, plain.whole, plain.fraction, &zeros });
        const point: usize = @intCast(@as(i32, @intCast(digits_max + plain.whole.len)) + exponent);
        const sign = if (plain.negative) "-" else "";
        return parse(try std.fmt.allocPrint(arena, "{s}{s}.{s}", .{ sign, digits[0..point], digits[point..] }));
    }

    pub fn isZero(self: Decimal) bool {
        return self.whole.len == 0 and self.fraction.len == 0;
    }

    pub fn order(a: Decimal, b: Decimal) std.math.Order {
        if (a.negative != b.negative) return if (a.negative) .lt else .gt;
        const magnitudes = a.orderMagnitude(b);
        return if (a.negative) magnitudes.invert() else magnitudes;
    }

    fn orderMagnitude(a: Decimal, b: Decimal) std.math.Order {
        if (a.whole.len != b.whole.len) return std.math.order(a.whole.len, b.whole.len);
        const whole = std.mem.order(u8, a.whole, b.whole);
        return if (whole != .eq) whole else std.mem.order(u8, a.fraction, b.fraction);
    }

    pub fn significantDigits(self: Decimal) usize {
        if (self.fraction.len == 0) return std.mem.trimEnd(u8, self.whole, "0").len;
        if (self.whole.len == 0) return std.mem.trimStart(u8, self.fraction, "0").len;
        return self.whole.len + self.fraction.len;
    }

    pub const Rounding = enum { down, up };

    /// Times 10^scale, as a whole number; one of more than `digits` digits is cut to 10^digits, which no value reaches.
    pub fn scaled(self: Decimal, comptime Int: type, scale: i32, digits: u8, rounding: Rounding) Int {
        if (self.isZero()) return 0;
        const point = @as(i64, @intCast(self.whole.len)) + scale;
        const limit = std.math.powi(Int, 10, digits) catch unreachable;
        // More places before the point than digits.
        if (point > digits and (self.whole.len > 0 or self.leadingZeros() + digits < point))
            return if (self.negative) -limit else limit;
        var magnitude: Int = 0;
        var i: i64 = 0;
        while (i < point) : (i += 1) magnitude = magnitude * 10 + self.digitAt(@intCast(i));
        const has_rest = if (point < 0) !self.isZero() else blk: {
            var rest: usize = @intCast(point);
            while (rest < self.whole.len + self.fraction.len) : (rest += 1) if (self.digitAt(rest) != 0) break :blk true;
            break :blk false;
        };
        const away = has_rest and (rounding == .up) != self.negative;
        magnitude += @intFromBool(away);
        return if (self.negative) -magnitude else magnitude;
    }

    fn leadingZeros(self: Decimal) usize {
        return self.fraction.len - std.mem.trimStart(u8, self.fraction, "0").len;
    }

    fn digitAt(self: Decimal, i: usize) u8 {
        if (i < self.whole.len) return self.whole[i] - '0';
        const behind = i - self.whole.len;
        return if (behind < self.fraction.len) self.fraction[behind] - '0' else 0;
    }

    pub fn format(self: Decimal, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        if (self.negative) try writer.writeByte('-');
        try writer.writeAll(if (self.whole.len > 0) self.whole else "0");
        if (self.fraction.len > 0) try writer.print(".{s}", .{self.fraction});
    }
};

/// A number that PostgreSQL's `numeric` can have.
pub const Number = union(enum) {
    minus_infinity,
    finite: Decimal,
    infinity,
    nan,

    pub fn parse(text: []const u8) ?Number {
        if (std.mem.eql(u8, text, "NaN")) return .nan;
        if (std.mem.eql(u8, text, "Infinity")) return .infinity;
        if (std.mem.eql(u8, text, "-Infinity")) return .minus_infinity;
        return .{ .finite = Decimal.parse(text) orelse return null };
    }

    /// As PostgreSQL orders them: NaN is above all.
    pub fn order(a: Number, b: Decimal) std.math.Order {
        return switch (a) {
            .minus_infinity => .lt,
            .finite => |finite| finite.order(b),
            .infinity, .nan => .gt,
        };
    }
};

test "numbers are ordered by their digits" {
    const ascending = [_][]const u8{
        "-100000000000000000000000000000000000000000.1", "-12",                                  "-1.5", "-1.49", "-0.001", "0", "0.0010001", "0.01", "1.5", "1.51", "9", "10",
        "9007199254740993",                              "9007199254740993.0000000000000000001",
    };
    for (ascending, 0..) |a, i| for (ascending, 0..) |b, j|
        try std.testing.expectEqual(std.math.order(i, j), Decimal.parse(a).?.order(Decimal.parse(b).?));
    for ([_][2][]const u8{ .{ "1.50", "+01.5" }, .{ "-0.00", "0" }, .{ ".5", "0.5" }, .{ "5.", "5" } }) |same|
        try std.testing.expectEqual(.eq, Decimal.parse(same[0]).?.order(Decimal.parse(same[1]).?));
    for ([_][]const u8{ "", "-", ".", "1e5", "1,5", " 1", "0x1", "NaN", "--1" }) |text|
        try std.testing.expectEqual(null, Decimal.parse(text));
    try std.testing.expectEqual(.gt, Number.parse("NaN").?.order(Decimal.parse("1").?));
    try std.testing.expectEqual(.lt, Number.parse("-Infinity").?.order(Decimal.parse("-1").?));
}

test "exponents are written out" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const cases = [_][2][]const u8{
        .{ "1e3", "1000" }, .{ "1.5E-7", "0.00000015" }, .{ "-12.5e+1", "-125" }, .{ "0e5", "0" }, .{ "7", "7" },
    };
    for (cases) |case| try std.testing.expectEqual(
        .eq,
        (try Decimal.parseWritten(arena.allocator(), case[0])).?.order(Decimal.parse(case[1]).?),
    );
    for ([_][]const u8{ "e5", "1e", "1e1001", "1e5.5", "abc" }) |text|
        try std.testing.expectEqual(null, try Decimal.parseWritten(arena.allocator(), text));
    try std.testing.expectEqual(17, Decimal.parse("0.30000000000000004").?.significantDigits());
    try std.testing.expectEqual(1, Decimal.parse("100000000000000000000").?.significantDigits());
}

test "a number becomes the whole number of a column's scale, down or up" {
    const Case = struct { []const u8, i32, i128, i128 };
    for ([_]Case{
        .{ "12.5", 2, 1250, 1250 },
        .{ "12.5", 0, 12, 13 },
        .{ "-12.5", 0, -13, -12 },
        .{ "0.001", 2, 0, 1 },
        .{ "-0.001", 2, -1, 0 },
        .{ "1250", -2, 12, 13 },
        .{ "5", -2, 0, 1 },
        .{ "-5", -2, -1, 0 },
        .{ "0", 38, 0, 0 },
        .{ "0.0000000000000000000000000000000000001", 38, 10, 10 },
        .{ "1e40", 0, 100_000_000_000_000_000_000_000_000_000_000_000_000, 100_000_000_000_000_000_000_000_000_000_000_000_000 },
        .{ "-10", 38, -100_000_000_000_000_000_000_000_000_000_000_000_000, -100_000_000_000_000_000_000_000_000_000_000_000_000 },
    }) |case| {
        var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
        defer arena.deinit();
        const value = (try Decimal.parseWritten(arena.allocator(), case[0])).?;
        try std.testing.expectEqual(case[2], value.scaled(i128, case[1], 38, .down));
        try std.testing.expectEqual(case[3], value.scaled(i128, case[1], 38, .up));
    }
}
