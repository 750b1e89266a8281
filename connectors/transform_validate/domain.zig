//! What a column's values are, whatever they cross as: in a type of their own or, from a source that has none or in a
//! replay, as their text.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const decimal = @import("decimal.zig");
const moment = @import("moment.zig");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const isModified = postgres.types.isModified;

pub const Domain = enum {
    text,
    boolean,
    /// smallint, integer, bigint
    integer,
    numeric,
    real,
    double,
    date,
    time,
    timestamp,
    timestamptz,
    uuid,
    bytes,
    interval,
    list,
    /// Of a type that the ABI has none for: its text says which value it is, and nothing about an order.
    other,

    pub fn of(field: *const arrow.Field, type_name: []const u8) Domain {
        return switch (field.type) {
            .bool => .boolean,
            .int16, .int32, .int64 => .integer,
            .float32 => .real,
            .float64 => .double,
            .decimal128, .decimal256 => .numeric,
            .binary => .bytes,
            .date32 => .date,
            .timestamp => |timestamp| if (timestamp.utc) .timestamptz else .timestamp,
            .time64 => .time,
            .interval_month_day_nano => .interval,
            .fixed_size_binary => |width| if (width == 16 and std.mem.eql(u8, type_name, "uuid")) .uuid else .bytes,
            .list => .list,
            .utf8 => ofText(type_name),
        };
    }

    fn ofText(type_name: []const u8) Domain {
        if (postgres.types.isString(type_name)) return .text;
        const names = .{
            .{ "boolean", .boolean },         .{ "smallint", .integer },  .{ "integer", .integer },
            .{ "bigint", .integer },          .{ "numeric", .numeric },   .{ "real", .real },
            .{ "double precision", .double }, .{ "date", .date },         .{ "uuid", .uuid },
            .{ "bytea", .bytes },             .{ "interval", .interval },
        };
        inline for (names) |name| if (std.mem.eql(u8, type_name, name[0])) return name[1];
        if (isModified(type_name, "numeric")) return .numeric;
        if (isOfZone(type_name, "timestamp", "with time zone")) return .timestamptz;
        if (isOfZone(type_name, "timestamp", "without time zone")) return .timestamp;
        if (isOfZone(type_name, "time", "without time zone")) return .time;
        if (std.mem.endsWith(u8, type_name, "[]")) return .list;
        return .other;
    }

    /// `timestamp(3) with time zone`, with its modifier or without.
    fn isOfZone(type_name: []const u8, comptime base: []const u8, comptime zone: []const u8) bool {
        if (!std.mem.endsWith(u8, type_name, " " ++ zone)) return false;
        const name = type_name[0 .. type_name.len - zone.len - 1];
        return std.mem.eql(u8, name, base) or isModified(name, base);
    }

    /// Whether whole numbers order its values: see `Ordinals`.
    pub fn isOrdinal(self: Domain) bool {
        return switch (self) {
            .integer, .date, .time, .timestamp, .timestamptz => true,
            else => false,
        };
    }

    /// The ordinal of a text; null: it is none of the domain's.
    pub fn ordinal(self: Domain, text: []const u8) ?i64 {
        return switch (self) {
            .integer => std.fmt.parseInt(i64, text, 10) catch null,
            .date => moment.date(text),
            .time => moment.time(text),
            .timestamp => moment.timestamp(text, false),
            .timestamptz => moment.timestamp(text, true),
            else => unreachable,
        };
    }

    /// How a value is written, for messages.
    pub fn example(self: Domain) []const u8 {
        return switch (self) {
            .boolean => "true or false",
            .integer => "a whole number",
            .numeric, .real, .double => "a number",
            .date => "a date: 2024-01-31",
            .time => "a time of day: 15:04:05",
            .timestamp => "a timestamp: 2024-01-31T15:04:05",
            .timestamptz => "a timestamp: 2024-01-31T15:04:05Z",
            .uuid => "a UUID: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            .text, .bytes, .interval, .list, .other => "a text",
        };
    }
};

/// The values of a column whose domain is ordinal, as whole numbers that have their order.
pub const Ordinals = struct {
    domain: Domain,
    view: *const arrow.ArrayView,

    /// Null: the text is no value of the domain.
    pub inline fn at(self: Ordinals, comptime layout: Layout, row: usize) ?i64 {
        return switch (layout) {
            .int16 => self.view.fixed(i16)[row],
            .int32 => self.view.fixed(i32)[row],
            .int64 => self.view.fixed(i64)[row],
            .date => moment.ofDate(self.view.fixed(i32)[row]),
            .timestamp => moment.ofTimestamp(self.view.fixed(i64)[row]),
            .text => self.domain.ordinal(self.view.bytesAt(row)),
        };
    }

    pub const Layout = enum { int16, int32, int64, date, timestamp, text };

    pub fn ofView(self: Ordinals) Layout {
        return switch (self.view.type) {
            .int16 => .int16,
            .int32 => .int32,
            .int64, .time64 => .int64,
            .date32 => .date,
            .timestamp => .timestamp,
            .utf8 => .text,
            else => unreachable,
        };
    }
};

/// A value of a column of floats; null: the text is none. A `real` has the digits of one, wherever it comes from.
pub inline fn floatAt(domain: Domain, view: *const arrow.ArrayView, row: usize) ?f64 {
    return switch (view.type) {
        .float32 => view.fixed(f32)[row],
        .float64 => view.fixed(f64)[row],
        else => if (domain == .real)
            std.fmt.parseFloat(f32, view.bytesAt(row)) catch null
        else
            std.fmt.parseFloat(f64, view.bytesAt(row)) catch null,
    };
}

/// A number of the config, as text: digit for digit as it is written there.
pub fn numberText(arena: Allocator, value: sdk.json.Value) Allocator.Error!?[]const u8 {
    return switch (value) {
        .integer => |integer| try std.fmt.allocPrint(arena, "{d}", .{integer}),
        .float => |float| try std.fmt.allocPrint(arena, "{d}", .{float}),
        .number_string, .string => |text| try arena.dupe(u8, text),
        else => null,
    };
}

/// Digits that a number has in the config's JSON whatever they are: of more, some may have been lost on the way.
pub const sure_digits = 15;

test "a column is what its type says, in a type of its own and as text" {
    const Case = struct { arrow.Type, []const u8, Domain };
    for ([_]Case{
        .{ .int64, "bigint", .integer },
        .{ .utf8, "bigint", .integer },
        .{ .utf8, "character varying(10)", .text },
        .{ .utf8, "numeric", .numeric },
        .{ .utf8, "numeric(90,2)", .numeric },
        .{ .utf8, "timestamp(3) with time zone", .timestamptz },
        .{ .utf8, "timestamp without time zone", .timestamp },
        .{ .utf8, "time with time zone", .other },
        .{ .utf8, "time(0) without time zone", .time },
        .{ .utf8, "public.mood", .other },
        .{ .utf8, "integer[]", .list },
        .{ .{ .fixed_size_binary = 16 }, "uuid", .uuid },
        .{ .{ .fixed_size_binary = 16 }, "bytea", .bytes },
    }) |case| try std.testing.expectEqual(case[2], Domain.of(&.{ .name = "c", .type = case[0] }, case[1]));
}
