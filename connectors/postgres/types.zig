//! Which PostgreSQL type crosses as which Arrow type, and how its binary form is read.
//!
//! One table for both directions: the source asks `Kind.ofOid` and `arrowType`, the destination the same to learn how
//! to encode for a column of the target. A type that is not in the table crosses as its text form.

const std = @import("std");
const arrow = @import("sdk").arrow;

/// Object ids of the built-in types (src/include/catalog/pg_type.dat); they never change.
pub const oid = struct {
    pub const boolean = 16;
    pub const bytea = 17;
    pub const char = 18; // "char", the one-byte type
    pub const name = 19;
    pub const int8 = 20;
    pub const int2 = 21;
    pub const int4 = 23;
    pub const text = 25;
    pub const json = 114;
    pub const xml = 142;
    pub const float4 = 700;
    pub const float8 = 701;
    pub const bpchar = 1042;
    pub const varchar = 1043;
    pub const date = 1082;
    pub const time = 1083;
    pub const timestamp = 1114;
    pub const timestamptz = 1184;
    pub const interval = 1186;
    pub const numeric = 1700;
    pub const uuid = 2950;
    pub const jsonb = 3802;
};

/// An expression over a row `t` of pg_type; the file says which.
pub const prints_names_sql = @embedFile("sql/prints_names.sql");

/// A type whose binary form both connectors understand. An array of `k` is described by its element's kind.
pub const Kind = enum(u8) {
    bool,
    int2,
    int4,
    int8,
    float4,
    float8,
    numeric,
    /// text, varchar, bpchar, name and enums: their binary form is the text.
    text,
    bytea,
    date,
    time,
    timestamp,
    timestamptz,
    interval,
    uuid,
    json,
    jsonb,

    /// Null: not native. Enums have oids of their own and are told by `typtype = 'e'`: use `.text` for them.
    pub fn ofOid(type_oid: u32) ?Kind {
        return switch (type_oid) {
            oid.boolean => .bool,
            oid.int2 => .int2,
            oid.int4 => .int4,
            oid.int8 => .int8,
            oid.float4 => .float4,
            oid.float8 => .float8,
            oid.numeric => .numeric,
            oid.text, oid.varchar, oid.bpchar, oid.name => .text,
            oid.bytea => .bytea,
            oid.date => .date,
            oid.time => .time,
            oid.timestamp => .timestamp,
            oid.timestamptz => .timestamptz,
            oid.interval => .interval,
            oid.uuid => .uuid,
            oid.json => .json,
            oid.jsonb => .jsonb,
            else => null,
        };
    }

    /// The Arrow type of this kind with this `atttypmod`; null when there is none, which is the case for a numeric
    /// without precision, of more than 76 digits, or with a scale outside 0…precision.
    pub fn arrowType(kind: Kind, typmod: i32) ?arrow.Type {
        return switch (kind) {
            .bool => .bool,
            .int2 => .int16,
            .int4 => .int32,
            .int8 => .int64,
            .float4 => .float32,
            .float8 => .float64,
            .numeric => numericType(typmod),
            .text, .json, .jsonb => .utf8,
            .bytea => .binary,
            .date => .date32,
            .time => .time64,
            .timestamp => .{ .timestamp = .{ .utc = false } },
            .timestamptz => .{ .timestamp = .{ .utc = true } },
            .interval => .interval_month_day_nano,
            .uuid => .{ .fixed_size_binary = 16 },
        };
    }

    /// Whether its values are text in the database's encoding.
    pub fn isText(kind: Kind) bool {
        return switch (kind) {
            .text, .json, .jsonb => true,
            else => false,
        };
    }

    /// `ARROW:extension:name` of the field, if it has one.
    pub fn extension(kind: Kind) ?[]const u8 {
        return switch (kind) {
            .uuid => "arrow.uuid",
            .json, .jsonb => "arrow.json",
            else => null,
        };
    }
};

/// The type that a field's values have where it does not say `rapidbyte:pg_type`; null: PostgreSQL has none.
pub fn defaultName(arena: std.mem.Allocator, field: *const arrow.Field) std.mem.Allocator.Error!?[]const u8 {
    const extension = field.get(arrow.keys.extension_name) orelse "";
    return switch (field.type) {
        .bool => "boolean",
        .int16 => "smallint",
        .int32 => "integer",
        .int64 => "bigint",
        .float32 => "real",
        .float64 => "double precision",
        .decimal128, .decimal256 => |d| try std.fmt.allocPrint(arena, "numeric({d},{d})", .{ d.precision, d.scale }),
        .utf8 => if (std.mem.eql(u8, extension, "arrow.json")) "jsonb" else "text",
        .binary => "bytea",
        .date32 => "date",
        .timestamp => |t| if (t.utc) "timestamp with time zone" else "timestamp without time zone",
        .time64 => "time without time zone",
        .interval_month_day_nano => "interval",
        .fixed_size_binary => |width| if (width == 16 and std.mem.eql(u8, extension, "arrow.uuid")) "uuid" else "bytea",
        .list => |item| {
            if (item.type == .list) return null;
            const element = try defaultName(arena, item) orelse return null;
            return try std.fmt.allocPrint(arena, "{s}[]", .{element});
        },
    };
}

/// Whether it is one of PostgreSQL's string types, as `format_type` prints them.
pub fn isString(name: []const u8) bool {
    inline for (.{ "text", "character varying", "character", "bpchar", "name" }) |string| {
        if (std.mem.eql(u8, name, string) or isModified(name, string)) return true;
    }
    return false;
}

/// `numeric(12,4)` is a modified `numeric`.
pub fn isModified(name: []const u8, comptime base: []const u8) bool {
    return std.mem.startsWith(u8, name, base ++ "(") and std.mem.endsWith(u8, name, ")");
}

/// 10 of `character varying(10)`.
pub fn lengthModifier(name: []const u8) u32 {
    const open = std.mem.findScalar(u8, name, '(') orelse return 0;
    return std.fmt.parseInt(u32, name[open + 1 .. name.len - 1], 10) catch 0;
}

pub const NumericModifier = struct { precision: u16, scale: i16 };

/// What `numeric(p, s)` keeps in `atttypmod`: `((p << 16) | (s & 0x7ff)) + 4`, with an 11-bit signed scale since
/// PostgreSQL 15. Null for -1, "no limits".
pub fn numericModifier(typmod: i32) ?NumericModifier {
    if (typmod < 4) return null;
    const bits: u32 = @intCast(typmod - 4);
    const scale_bits: u11 = @truncate(bits);
    return .{ .precision = @truncate(bits >> 16), .scale = @as(i11, @bitCast(scale_bits)) };
}

fn numericType(typmod: i32) ?arrow.Type {
    const modifier = numericModifier(typmod) orelse return null;
    const precision = modifier.precision;
    if (precision == 0 or precision > 76 or modifier.scale < 0 or modifier.scale > precision) return null;
    const decimal: arrow.Decimal = .{ .precision = @intCast(precision), .scale = modifier.scale };
    return if (precision <= 38) .{ .decimal128 = decimal } else .{ .decimal256 = decimal };
}

test "a numeric's modifier gives precision and scale" {
    const expect = std.testing.expectEqual;
    // SELECT atttypmod FROM pg_attribute of numeric(12,4), numeric(38,0), numeric(76,76), numeric(5,-2), numeric
    try expect(NumericModifier{ .precision = 12, .scale = 4 }, numericModifier(786440).?);
    try expect(NumericModifier{ .precision = 38, .scale = 0 }, numericModifier(2490372).?);
    try expect(NumericModifier{ .precision = 5, .scale = -2 }, numericModifier(329730).?);
    try expect(null, numericModifier(-1));
}

test "numerics beyond Arrow's decimals have no native type" {
    const Case = struct { u32, u11, bool };
    for ([_]Case{
        .{ 38, 38, true },
        .{ 39, 0, true },
        .{ 76, 76, true },
        .{ 77, 0, false },
        .{ 3, 5, false },
    }) |case| {
        const typmod: i32 = @intCast(((case[0] << 16) | case[1]) + 4);
        try std.testing.expectEqual(case[2], Kind.numeric.arrowType(typmod) != null);
    }
    try std.testing.expectEqual(null, Kind.numeric.arrowType(-1));
}
