//! assert_range: the column's number, date or time is within bounds.
//!
//! Bounds become the first and the last value that pass, in what orders the column's values. Infinity and NaN have the
//! places that PostgreSQL gives them: NaN is above infinity, and that above everything else.

const std = @import("std");
const sdk = @import("sdk");
const transform = @import("transform");
const config = @import("config.zig");
const decimal = @import("decimal.zig");
const domain_module = @import("domain.zig");

const Allocator = std.mem.Allocator;
const Decimal = decimal.Decimal;
const Domain = domain_module.Domain;
const Number = decimal.Number;
const Ordinals = domain_module.Ordinals;
const Rows = transform.Rows;
const Reason = transform.Reason;
const arrow = sdk.arrow;

pub const Range = struct {
    bounds: Bounds,
    reason: Reason,
    /// Of a text that is no value of the column's type.
    malformed: Reason,

    const Bounds = union(enum) {
        ordinal: struct { domain: Domain, span: Span(i64) },
        decimal128: Span(u128),
        decimal256: Span(u256),
        float: FloatSpan,
        number: struct { lowest: ?Limit, highest: ?Limit },
    };

    /// Everything lives in `arena`. `path`: where the rule is in the config.
    pub fn init(arena: Allocator, path: []const u8, rule: *const config.Range, field: *const arrow.Field, type_name: []const u8) !Range {
        const domain: Domain = .of(field, type_name);
        var limits: Limits = .{};
        inline for (config.Range.bounds) |name| if (@field(rule, name)) |value|
            try limits.add(arena, path, name, domain, field, type_name, value);
        const told = try limits.told(arena);
        const bounds = try boundsOf(&limits, domain, field) orelse return sdk.fail(
            .config,
            "{s}: no value of column {s} ({s}) is within {s}",
            .{ path, field.name, type_name, told },
        );
        return .{
            .bounds = bounds,
            .reason = .{
                .message = try std.fmt.allocPrint(arena, "{s} is not within {s} (assert_range)", .{ field.name, told }),
                .column = field.name,
            },
            .malformed = .{
                .message = try std.fmt.allocPrint(arena, "{s} is not {s} (assert_range)", .{ field.name, domain.example() }),
                .column = field.name,
                .category = .invalid_text,
            },
        };
    }

    pub fn judge(self: *const Range, view: *const arrow.ArrayView, rows: *Rows) !void {
        switch (self.bounds) {
            .ordinal => |ordinal| {
                const ordinals: Ordinals = .{ .domain = ordinal.domain, .view = view };
                switch (ordinals.ofView()) {
                    inline else => |layout| for (0..view.length) |row| {
                        if (ordinals.at(layout, row)) |value| {
                            if (!ordinal.span.holds(value) and !view.isNull(row)) try rows.refuse(row, self.reason);
                        } else if (!view.isNull(row)) try rows.refuse(row, self.malformed);
                    },
                }
            },
            .decimal128 => |span| for (view.fixed(i128), 0..) |value, row| {
                if (!span.holds(place(i128, value)) and !view.isNull(row)) try rows.refuse(row, self.reason);
            },
            .decimal256 => |span| for (view.fixed(i256), 0..) |value, row| {
                if (!span.holds(place(i256, value)) and !view.isNull(row)) try rows.refuse(row, self.reason);
            },
            .float => |*span| for (0..view.length) |row| {
                if (domain_module.floatAt(span.domain, view, row)) |value| {
                    if (!span.holds(value) and !view.isNull(row)) try rows.refuse(row, self.reason);
                } else if (!view.isNull(row)) try rows.refuse(row, self.malformed);
            },
            .number => |limits| for (0..view.length) |row| {
                if (view.isNull(row)) continue;
                const value = Number.parse(view.bytesAt(row)) orelse {
                    try rows.refuse(row, self.malformed);
                    continue;
                };
                const is_below = if (limits.lowest) |limit| !limit.isPassed(value.order(limit.value)) else false;
                const is_above = if (limits.highest) |limit| !limit.isPassed(value.order(limit.value).invert()) else false;
                if (is_below or is_above) try rows.refuse(row, self.reason);
            },
        }
    }
};

fn Span(comptime Int: type) type {
    return struct {
        first: Int = std.math.minInt(Int),
        last: Int = std.math.maxInt(Int),

        inline fn holds(self: @This(), value: Int) bool {
            return value >= self.first and value <= self.last;
        }
    };
}

const FloatSpan = struct {
    domain: Domain,
    first: f64 = -std.math.inf(f64),
    last: f64 = std.math.inf(f64),
    has_last: bool = false,

    inline fn holds(self: *const FloatSpan, value: f64) bool {
        // NaN is neither: it is above all.
        return (value >= self.first and value <= self.last) or (value != value and !self.has_last);
    }
};

/// A decimal's place in their order, in which NaN, the smallest number, is the last.
inline fn place(comptime Int: type, value: Int) @Int(.unsigned, @bitSizeOf(Int)) {
    const Unsigned = @Int(.unsigned, @bitSizeOf(Int));
    const sign = @as(Unsigned, 1) << (@bitSizeOf(Int) - 1);
    return (@as(Unsigned, @bitCast(value)) ^ sign) -% 1;
}

/// One bound of numbers.
const Limit = struct {
    value: Decimal,
    is_exclusive: bool,

    /// `order`: of the value to the lower bound, or of the upper bound to the value.
    fn isPassed(self: Limit, order: std.math.Order) bool {
        return order == .gt or (order == .eq and !self.is_exclusive);
    }
};

/// What the rule says, read as the column's domain wants it.
const Limits = struct {
    texts: [4]?[]const u8 = @splat(null),
    numbers: [4]?Decimal = @splat(null),
    ordinals: [4]?i64 = @splat(null),

    fn add(
        self: *Limits,
        arena: Allocator,
        path: []const u8,
        comptime name: []const u8,
        domain: Domain,
        field: *const arrow.Field,
        type_name: []const u8,
        value: sdk.json.Value,
    ) !void {
        const i = indexOf(name);
        switch (domain) {
            .integer, .numeric, .real, .double, .date, .time, .timestamp, .timestamptz => {},
            else => return sdk.fail(
                .config,
                "{s}: column {s} is {s}; allowed: columns of numbers, dates, times of day and timestamps",
                .{ path, field.name, type_name },
            ),
        }
        const text = try domain_module.numberText(arena, value) orelse "";
        self.texts[i] = text;
        switch (domain) {
            .integer, .numeric, .real, .double => {
                const number = try Decimal.parseWritten(arena, text) orelse
                    return refused(path, name, field, type_name, domain, text);
                if (value == .float and number.significantDigits() > domain_module.sure_digits) return sdk.fail(
                    .config,
                    "{s}.{s}: found a number of more than {d} digits; put it in quotes, so that none is lost",
                    .{ path, name, domain_module.sure_digits },
                );
                self.numbers[i] = number;
            },
            else => self.ordinals[i] = domain.ordinal(text) orelse
                return refused(path, name, field, type_name, domain, text),
        }
    }

    fn refused(path: []const u8, name: []const u8, field: *const arrow.Field, type_name: []const u8, domain: Domain, text: []const u8) error{Failed} {
        return sdk.fail(
            .config,
            "{s}.{s}: found {s}; allowed for column {s} ({s}): {s}",
            .{ path, name, text, field.name, type_name, domain.example() },
        );
    }

    /// `min 0, exclusive_max 150`
    fn told(self: *const Limits, arena: Allocator) Allocator.Error![]const u8 {
        var text: std.ArrayList(u8) = .empty;
        inline for (config.Range.bounds) |name| if (self.texts[comptime indexOf(name)]) |bound|
            try text.print(arena, "{s}{s} {s}", .{ if (text.items.len > 0) ", " else "", name, bound });
        return text.items;
    }

    fn indexOf(comptime name: []const u8) usize {
        inline for (config.Range.bounds, 0..) |bound, i| if (comptime std.mem.eql(u8, bound, name)) return i;
        unreachable;
    }

    /// The bound below, of which the greater one counts, or above.
    fn strictest(self: *const Limits, comptime inclusive: []const u8, comptime exclusive: []const u8, stricter: std.math.Order) ?Limit {
        const open: ?Limit = if (self.numbers[comptime indexOf(exclusive)]) |value| .{ .value = value, .is_exclusive = true } else null;
        const closed: ?Limit = if (self.numbers[comptime indexOf(inclusive)]) |value| .{ .value = value, .is_exclusive = false } else null;
        if (open == null or closed == null) return open orelse closed;
        return if (closed.?.value.order(open.?.value) == stricter) closed else open;
    }

    fn lowest(self: *const Limits) ?Limit {
        return self.strictest("min", "exclusive_min", .gt);
    }

    fn highest(self: *const Limits) ?Limit {
        return self.strictest("max", "exclusive_max", .lt);
    }
};

/// Null: nothing is within.
fn boundsOf(limits: *const Limits, domain: Domain, field: *const arrow.Field) !?Range.Bounds {
    const lowest = limits.lowest();
    const highest = limits.highest();
    switch (domain) {
        .integer => {
            const span = wholeSpan(i128, lowest, highest, 0, 38);
            const least: i128, const most: i128 = switch (field.type) {
                .int16 => .{ std.math.minInt(i16), std.math.maxInt(i16) },
                .int32 => .{ std.math.minInt(i32), std.math.maxInt(i32) },
                else => .{ std.math.minInt(i64), std.math.maxInt(i64) },
            };
            const first = @max(span.first, least);
            const last = @min(span.last, most);
            if (first > last) return null;
            return .{ .ordinal = .{ .domain = domain, .span = .{ .first = @intCast(first), .last = @intCast(last) } } };
        },
        .date, .time, .timestamp, .timestamptz => {
            var span: Span(i64) = .{};
            const min, const exclusive_min, const max, const exclusive_max = limits.ordinals;
            if (min) |bound| span.first = bound;
            if (exclusive_min) |bound| span.first = @max(span.first, bound +| 1);
            if (max) |bound| span.last = bound;
            if (exclusive_max) |bound| span.last = @min(span.last, bound -| 1);
            return if (span.first > span.last) null else .{ .ordinal = .{ .domain = domain, .span = span } };
        },
        .real => return floatBounds(f32, lowest, highest),
        .double => return floatBounds(f64, lowest, highest),
        .numeric => switch (field.type) {
            .decimal128 => |of| return if (placeSpan(i128, lowest, highest, of.scale, 38)) |span| .{ .decimal128 = span } else null,
            .decimal256 => |of| return if (placeSpan(i256, lowest, highest, of.scale, 76)) |span| .{ .decimal256 = span } else null,
            else => {
                if (lowest != null and highest != null) switch (lowest.?.value.order(highest.?.value)) {
                    .gt => return null,
                    .eq => if (lowest.?.is_exclusive or highest.?.is_exclusive) return null,
                    .lt => {},
                };
                return .{ .number = .{ .lowest = lowest, .highest = highest } };
            },
        },
        else => unreachable,
    }
}

/// The whole numbers within, once all are multiplied by 10^scale.
fn wholeSpan(comptime Int: type, lowest: ?Limit, highest: ?Limit, scale: i32, digits: u8) Span(Int) {
    var span: Span(Int) = .{};
    if (lowest) |limit| span.first = if (limit.is_exclusive)
        limit.value.scaled(Int, scale, digits, .down) + 1
    else
        limit.value.scaled(Int, scale, digits, .up);
    if (highest) |limit| span.last = if (limit.is_exclusive)
        limit.value.scaled(Int, scale, digits, .up) - 1
    else
        limit.value.scaled(Int, scale, digits, .down);
    return span;
}

fn placeSpan(comptime Int: type, lowest: ?Limit, highest: ?Limit, scale: i32, digits: u8) ?Span(@Int(.unsigned, @bitSizeOf(Int))) {
    const whole = wholeSpan(Int, lowest, highest, scale, digits);
    if (whole.first > whole.last) return null;
    var span: Span(@Int(.unsigned, @bitSizeOf(Int))) = .{};
    if (lowest != null) span.first = place(Int, whole.first);
    if (highest != null) span.last = place(Int, whole.last);
    return span;
}

/// The bounds are the nearest values that the column can have.
fn floatBounds(comptime Float: type, lowest: ?Limit, highest: ?Limit) !?Range.Bounds {
    var span: FloatSpan = .{ .domain = if (Float == f32) .real else .double, .has_last = highest != null };
    if (lowest) |limit| {
        const bound = try float(Float, limit.value);
        span.first = if (limit.is_exclusive) std.math.nextAfter(Float, bound, std.math.inf(Float)) else bound;
    }
    if (highest) |limit| {
        const bound = try float(Float, limit.value);
        span.last = if (limit.is_exclusive) std.math.nextAfter(Float, bound, -std.math.inf(Float)) else bound;
    }
    return if (span.first > span.last) null else .{ .float = span };
}

/// The nearest float.
pub fn float(comptime Float: type, value: Decimal) Allocator.Error!Float {
    const gpa = sdk.connector.gpa;
    const text = try std.fmt.allocPrint(gpa, "{f}", .{value});
    defer gpa.free(text);
    return std.fmt.parseFloat(Float, text) catch unreachable;
}
