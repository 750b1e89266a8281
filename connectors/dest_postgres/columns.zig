//! Which column of the stream goes into which column of the target, as what type, encoded how.
//!
//! The stream says `rapidbyte:pg_type` where it comes from PostgreSQL; otherwise each Arrow type has a default. A
//! column of an existing target takes exactly its own type, or one whose every value it holds unchanged; what becomes of
//! any other is evolution.zig's to say.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const conversion = @import("conversion.zig");
const encode = @import("encode.zig");
const relation = @import("relation.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const Codec = encode.Codec;
const TypeInfo = relation.TypeInfo;

pub const Column = struct {
    name: []const u8,
    /// As SQL.
    quoted: []const u8,
    /// The target's, as SQL.
    type: []const u8,
    nullable: bool,
    /// Of the values as they are sent.
    codec: Codec,
    /// The type that they are sent as, where the server has to convert them on the way from a staging table: `text` for
    /// text forms.
    sent_as: ?[]const u8 = null,
    /// The stream's own type, where that is another one than the target's.
    cast_from: []const u8 = "",
    /// What becomes of a value that is not of the target's type.
    misfit: conversion.Misfit = .impossible,
    /// Rows are found by it: what differed before a conversion has to differ after it.
    in_key: bool = false,
    /// How the server converts; where `sent_as` is not null.
    conversion: ?conversion.Conversion = null,
};

/// Whether the server has to convert any of them.
pub fn anyConverted(columns: []const Column) bool {
    for (columns) |column| if (column.sent_as != null) return true;
    return false;
}

pub fn codecsOf(arena: Allocator, columns: []const Column) ![]const Codec {
    const codecs = try arena.alloc(Codec, columns.len);
    for (codecs, columns) |*codec, column| codec.* = column.codec;
    return codecs;
}

/// The type that a field asks for.
pub const Wanted = struct {
    /// As SQL; `known` tells whether the stream named it.
    type: []const u8,
    known: bool,
    /// Null when this server has no such type.
    info: ?TypeInfo,
};

/// For a table that does not exist yet.
pub fn forNewTable(arena: Allocator, session: *Session, schema: *const arrow.Schema, table: []const u8) ![]const Column {
    const wanted = try resolve(arena, session, schema);
    const columns = try arena.alloc(Column, schema.fields.len);
    for (columns, schema.fields, wanted) |*column, *field, *want|
        column.* = try new(arena, session, field, want, table, "");
    try conversion.resolve(arena, session, columns);
    return columns;
}

/// A column that is yet to be made. `why` ends the message of a type that is missing here.
pub fn new(
    arena: Allocator,
    session: *Session,
    field: *const arrow.Field,
    want: *const Wanted,
    table: []const u8,
    why: []const u8,
) !Column {
    var asked = want.*;
    if (asked.info == null) if (substituteForEnum(field)) |substitute| {
        sdk.host.log(
            .info,
            "column {s} of {s} becomes {s}: there is no enum type {s} here",
            .{ field.name, table, substitute.type, want.type },
        );
        asked = substitute;
    };
    const info = asked.info orelse return sdk.errors.failHinted(
        .schema,
        "create the type (or the extension that brings it) in the destination, or leave the column out",
        "column {s} of {s}: there is no type {s} in the destination{s}",
        .{ field.name, table, want.type, why },
    );
    return try columnOf(arena, session, field, asked.type, info) orelse sdk.fail(
        .schema,
        "column {s} of {s}: {f} does not fit into type {s}",
        .{ field.name, table, field.type, want.type },
    );
}

/// Null where the column that is there does not take the field as it comes.
pub fn existing(
    arena: Allocator,
    session: *Session,
    field: *const arrow.Field,
    want: *const Wanted,
    found: *const relation.Column,
) !?Column {
    if (!takes(found, field, want.*)) return null;
    return columnOf(arena, session, field, found.type, found.info);
}

/// A column of another type, into which the server casts what comes. Null where the stream's own type is not known here,
/// and its values have no text form.
pub fn cast(
    arena: Allocator,
    session: *Session,
    field: *const arrow.Field,
    want: *const Wanted,
    found: *const relation.Column,
    misfit: conversion.Misfit,
) !?Column {
    const asked = if (want.info == null) substituteForEnum(field) orelse want.* else want.*;
    var column = if (asked.info) |info|
        try columnOf(arena, session, field, asked.type, info) orelse return null
    else if (field.type == .utf8)
        try columnOf(arena, session, field, "text", .{ .oid = postgres.types.oid.text }) orelse return null
    else
        return null;
    column.sent_as = column.sent_as orelse if (asked.info == null) "text" else asked.type;
    column.type = found.type;
    column.cast_from = want.type;
    column.misfit = misfit;
    return column;
}

/// Whether every value of the field's type is a value of the column's type, unchanged.
fn takes(found: *const relation.Column, field: *const arrow.Field, want: Wanted) bool {
    if (std.mem.eql(u8, found.type, want.type)) return true;
    if (!want.known) return takesUnnamed(found, field);
    const is_enum = isEnum(field) or (want.info != null and want.info.?.category == 'e');
    const is_enum_array = field.type == .list and (isEnum(field) or (want.info != null and want.info.?.element_category == 'e'));
    if (std.mem.eql(u8, found.type, "text")) return field.type == .utf8 and (is_enum or postgres.types.isString(want.type));
    if (std.mem.eql(u8, found.type, "text[]")) {
        const element = elementName(want.type) orelse return false;
        return field.type == .list and (is_enum_array or postgres.types.isString(element));
    }
    if (std.mem.eql(u8, found.type, "numeric")) return postgres.types.isModified(want.type, "numeric");
    if (std.mem.eql(u8, found.type, "numeric[]")) return postgres.types.isModified(elementName(want.type) orelse return false, "numeric");
    if (postgres.types.isModified(want.type, "character varying")) {
        if (std.mem.eql(u8, found.type, "character varying")) return true;
        if (postgres.types.isModified(found.type, "character varying")) return postgres.types.lengthModifier(want.type) <= postgres.types.lengthModifier(found.type);
    }
    return false;
}

/// A field of a source that does not name PostgreSQL types: by what the column holds without rounding. Text that is
/// too long for the column is the server's to refuse.
fn takesUnnamed(found: *const relation.Column, field: *const arrow.Field) bool {
    return switch (field.type) {
        .utf8 => postgres.types.Kind.ofOid(found.info.oid) != null or found.info.category == 'e',
        .decimal128, .decimal256 => |decimal| holdsDecimal(found.modifier, decimal),
        .timestamp, .time64, .interval_month_day_nano => found.modifier == -1,
        .list => found.modifier == -1,
        else => true,
    };
}

fn holdsDecimal(typmod: i32, decimal: arrow.Decimal) bool {
    const column = postgres.types.numericModifier(typmod) orelse return true;
    return column.scale >= decimal.scale and
        @as(i32, column.precision) - column.scale >= @as(i32, decimal.precision) - decimal.scale;
}

/// `text` of `text[]`.
pub fn elementName(name: []const u8) ?[]const u8 {
    if (!std.mem.endsWith(u8, name, "[]")) return null;
    return name[0 .. name.len - 2];
}

fn isEnum(field: *const arrow.Field) bool {
    if (kindIs(field, "enum")) return true;
    return field.type == .list and kindIs(field.type.list, "enum");
}

fn kindIs(field: *const arrow.Field, kind: []const u8) bool {
    return std.mem.eql(u8, field.get(arrow.keys.pg_kind) orelse "", kind);
}

/// Where an enum's type is missing, its labels are text.
fn substituteForEnum(field: *const arrow.Field) ?Wanted {
    if (!isEnum(field)) return null;
    return switch (field.type) {
        .utf8 => .{ .type = "text", .known = true, .info = .{ .oid = postgres.types.oid.text } },
        .list => |item| if (item.type == .utf8) .{
            .type = "text[]",
            .known = true,
            .info = .{ .oid = text_array_oid, .element_oid = postgres.types.oid.text },
        } else null,
        else => null,
    };
}

const text_array_oid = 1009;

/// What each field asks for.
pub fn resolve(arena: Allocator, session: *Session, schema: *const arrow.Schema) ![]Wanted {
    const names = try arena.alloc([]const u8, schema.fields.len);
    const wanted = try arena.alloc(Wanted, schema.fields.len);
    for (names, wanted, schema.fields) |*name, *want, *field| {
        const told = field.get(arrow.keys.pg_type);
        name.* = told orelse try postgres.types.defaultName(arena, field) orelse return sdk.fail(
            .unsupported,
            "column {s}: {f} has no PostgreSQL type",
            .{ field.name, field.type },
        );
        want.* = .{ .type = name.*, .known = told != null, .info = null };
    }
    // to_regtype takes nothing but the name of a type, so that what passes it can stand in SQL.
    const found = session.connection.query(arena,
        \\SELECT t.oid, t.typtype, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, coalesce(e.typtype, 'b')
        \\FROM json_array_elements_text($1::json) WITH ORDINALITY AS f(name, position)
        \\LEFT JOIN pg_type t ON t.oid = to_regtype(f.name)
        \\LEFT JOIN pg_type e ON e.oid = t.typelem
        \\ORDER BY f.position
    , &.{try sdk.json.stringify(arena, names)}) catch |err| {
        const doing = "looking for the columns' types";
        if (err != error.Server or !session.connection.last_error.?.hasClass("42")) return session.failed(err, doing);
        const said = session.connection.last_error.?;
        return sdk.errors.failWith(.{
            .kind = .schema,
            .message = "the stream names a type that cannot be the name of a type",
            .detail = said.detail orelse said.message,
        });
    };
    for (wanted, found.rows) |*want, row| {
        if (row[0] == null) continue;
        want.info = .{
            .oid = relation.number(u32, row[0]),
            .category = row[1].?[0],
            .element_oid = relation.number(u32, row[2]),
            .element_category = row[3].?[0],
        };
    }
    return wanted;
}

/// Null when values of the field cannot be written into such a column.
fn columnOf(
    arena: Allocator,
    session: *const Session,
    field: *const arrow.Field,
    type_name: []const u8,
    info: TypeInfo,
) !?Column {
    if (field.name.len == 0 or field.name.len > postgres.ident.name_bytes_max)
        return sdk.fail(.schema, "\"{s}\" cannot be a column's name: it is not of 1 to 63 bytes", .{field.name});
    const typed = field.get(arrow.keys.pg_type) != null;
    var native = try codecOf(arena, field.type, info, session.connection.server_version);
    // The most common text form: numeric without precision. Converted here, it needs no staging table.
    if (typed and field.type == .utf8 and info.oid == postgres.types.oid.numeric) native = .{ .wire = .numeric_text };
    const text_form = native == null and typed and field.type == .utf8;
    return .{
        .name = field.name,
        .quoted = try postgres.ident.quote(arena, field.name),
        .type = type_name,
        .nullable = field.nullable,
        .codec = native orelse if (text_form) .{ .wire = .bytes } else return null,
        .sent_as = if (text_form) "text" else null,
    };
}

/// How values of an Arrow type become binary values of a type of the server; null when they do not.
fn codecOf(arena: Allocator, field_type: arrow.Type, info: TypeInfo, server_version: u32) Allocator.Error!?Codec {
    if (field_type == .list) {
        const item = field_type.list;
        if (info.element_oid == 0 or item.type == .list) return null;
        const element_info: TypeInfo = .{ .oid = info.element_oid, .category = info.element_category };
        const element = try arena.create(Codec);
        element.* = try codecOf(arena, item.type, element_info, server_version) orelse return null;
        return .{ .wire = .array, .element = element, .element_oid = info.element_oid };
    }
    const kind: postgres.types.Kind = if (info.category == 'e')
        .text
    else if (info.category == 'b')
        postgres.types.Kind.ofOid(info.oid) orelse return null
    else
        return null;
    return switch (field_type) {
        .bool => if (kind == .bool) .{ .wire = .bool } else null,
        .int16 => if (kind == .int2) .{ .wire = .bits16 } else null,
        .int32 => if (kind == .int4) .{ .wire = .bits32 } else null,
        .int64 => if (kind == .int8) .{ .wire = .bits64 } else null,
        .float32 => if (kind == .float4) .{ .wire = .bits32 } else null,
        .float64 => if (kind == .float8) .{ .wire = .bits64 } else null,
        .decimal128 => |d| numericCodec(.numeric128, kind, d),
        .decimal256 => |d| numericCodec(.numeric256, kind, d),
        .utf8 => switch (kind) {
            .text, .json => .{ .wire = .bytes },
            .jsonb => .{ .wire = .jsonb },
            else => null,
        },
        .binary => if (kind == .bytea) .{ .wire = .bytes } else null,
        .date32 => if (kind == .date) .{ .wire = .date } else null,
        .timestamp => |t| if (kind == @as(postgres.types.Kind, if (t.utc) .timestamptz else .timestamp)) .{ .wire = .timestamp } else null,
        .time64 => if (kind == .time) .{ .wire = .bits64 } else null,
        .interval_month_day_nano => if (kind == .interval) .{
            .wire = .interval,
            .infinite_intervals = server_version >= postgres.values.infinite_intervals_since,
        } else null,
        .fixed_size_binary => |width| switch (kind) {
            .uuid => if (width == 16) .{ .wire = .bytes16 } else null,
            .bytea => .{ .wire = .bytes_fixed, .width = width },
            else => null,
        },
        .list => unreachable,
    };
}

fn numericCodec(wire: encode.Wire, kind: postgres.types.Kind, decimal: arrow.Decimal) ?Codec {
    if (kind != .numeric or decimal.scale < 0 or decimal.scale > encode.max_scale) return null;
    return .{ .wire = wire, .scale = .init(@intCast(decimal.scale)) };
}

/// Names and types in few bytes.
pub fn fingerprint(arena: Allocator, columns: []const Column) ![]const u8 {
    var hash: std.crypto.hash.sha2.Sha256 = .init(.{});
    // No name holds a NUL.
    for (columns) |column| for ([_][]const u8{ column.name, "\x00", column.type, "\x00" }) |part| hash.update(part);
    return std.fmt.allocPrint(arena, "{x}", .{hash.finalResult()[0..16]});
}

/// `"a", "b"`.
pub fn nameList(arena: Allocator, columns: []const Column) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i| {
        if (i > 0) try out.appendSlice(arena, ", ");
        try out.appendSlice(arena, column.quoted);
    }
    return out.items;
}

/// `new."a", new."b"`.
pub fn prefixedList(arena: Allocator, columns: []const Column, comptime table: []const u8) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i|
        try out.print(arena, "{s}" ++ table ++ ".{s}", .{ if (i > 0) ", " else "", column.quoted });
    return out.items;
}

/// Whether values that `=` calls equal are the same in every byte, given a collation that is deterministic. Of
/// `numeric` only where the scale is fixed: 1.0 = 1.00.
pub fn isExact(type_name: []const u8) bool {
    if (isCollatable(type_name)) return true;
    inline for (.{ "boolean", "smallint", "integer", "bigint", "uuid", "bytea", "date" }) |exact| {
        if (std.mem.eql(u8, type_name, exact)) return true;
    }
    inline for (.{
        .{ "timestamp", " with time zone" },
        .{ "timestamp", " without time zone" },
        .{ "time", " without time zone" },
    }) |of_time| if (isOfTime(type_name, of_time[0], of_time[1])) return true;
    return postgres.types.isModified(type_name, "numeric");
}

/// Of the types that `isExact`, those that are compared by a collation.
pub fn isCollatable(type_name: []const u8) bool {
    inline for (.{ "text", "character varying" }) |name| if (std.mem.eql(u8, type_name, name)) return true;
    return postgres.types.isModified(type_name, "character varying");
}

/// `timestamp with time zone` and `timestamp(3) with time zone`.
fn isOfTime(name: []const u8, comptime base: []const u8, comptime zone: []const u8) bool {
    if (!std.mem.startsWith(u8, name, base) or !std.mem.endsWith(u8, name, zone)) return false;
    if (name.len <= base.len + zone.len) return name.len == base.len + zone.len;
    return postgres.types.isModified(name[0 .. name.len - zone.len], base);
}

/// Of a table that numbers its rows as they come. COPY appends, but not always at the table's end: the place of a row
/// tells nothing.
pub const ordinal_definition = "bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000)";

/// A name for that column that none of the others has, as SQL.
pub fn ordinalName(arena: Allocator, columns: []const Column) ![]const u8 {
    var name: []const u8 = "\"_rapidbyte_ordinal\"";
    var i: usize = 0;
    while (i < columns.len) : (i += 1) {
        if (!std.mem.eql(u8, columns[i].quoted, name)) continue;
        name = try std.fmt.allocPrint(arena, "\"_{s}", .{name[1..]});
        i = 0;
    }
    return name;
}

pub const Definitions = enum {
    /// Types and NOT NULL as the target has them.
    target,
    /// The same types, everything nullable: the target checks it.
    beside,
    /// The types that values are sent as.
    staging,
};

/// The column definitions of a CREATE TABLE. Each on a line of its own: the name of a type may end in a comment.
pub fn definitionList(arena: Allocator, columns: []const Column, definitions: Definitions) ![]const u8 {
    var out: std.Io.Writer.Allocating = .init(arena);
    const writer = &out.writer;
    for (columns, 0..) |column, i| {
        const type_name = if (definitions == .staging) column.sent_as orelse column.type else column.type;
        const suffix = if (definitions == .target and !column.nullable) "NOT NULL" else "";
        writer.print("{s}\n    {s} {s}\n{s}", .{ if (i > 0) "," else "", column.quoted, type_name, suffix }) catch
            return error.OutOfMemory;
    }
    return out.written();
}

test "types whose equality is that of the bytes" {
    for ([_][]const u8{
        "bigint",                 "text",                     "character varying(9)",        "numeric(12,4)",
        "time without time zone", "timestamp with time zone", "timestamp(3) with time zone",
    }) |name| try std.testing.expect(isExact(name));
    for ([_][]const u8{
        "numeric",                "double precision", "character(3)", "interval",      "time with time zone",
        "time(3) with time zone", "jsonb",            "integer[]",    "public.citext", "timestamptz_like without time zone",
    }) |name| try std.testing.expect(!isExact(name));
}

test "a column takes its own type and those whose every value it holds" {
    const Case = struct { found: []const u8, want: []const u8, type: arrow.Type = .utf8, kind: []const u8 = "base", ok: bool };
    const cases = [_]Case{
        .{ .found = "integer", .want = "integer", .type = .int32, .ok = true },
        .{ .found = "bigint", .want = "integer", .type = .int32, .ok = false },
        .{ .found = "text", .want = "character varying(5)", .ok = true },
        .{ .found = "text", .want = "character(5)", .ok = true },
        .{ .found = "text", .want = "public.mood", .kind = "enum", .ok = true },
        .{ .found = "text", .want = "inet", .ok = false },
        .{ .found = "character varying(5)", .want = "text", .ok = false },
        .{ .found = "character varying(5)", .want = "character varying(5)", .ok = true },
        .{ .found = "character varying(9)", .want = "character varying(10)", .ok = false },
        .{ .found = "character varying(10)", .want = "character varying(9)", .ok = true },
        .{ .found = "character varying", .want = "character varying(9)", .ok = true },
        .{ .found = "numeric", .want = "numeric(12,4)", .type = .{ .decimal128 = .{ .precision = 12, .scale = 4 } }, .ok = true },
        .{ .found = "numeric(12,4)", .want = "numeric(12,2)", .type = .{ .decimal128 = .{ .precision = 12, .scale = 2 } }, .ok = false },
    };
    for (cases) |case| {
        const field: arrow.Field = .{
            .name = "c",
            .type = case.type,
            .metadata = &.{.{ .key = arrow.keys.pg_kind, .value = case.kind }},
        };
        const found: relation.Column = .{
            .name = "c",
            .type = case.found,
            .info = .{ .oid = 0 },
            .modifier = -1,
            .nullable = true,
            .generated = false,
            .has_default = false,
        };
        const want: Wanted = .{ .type = case.want, .known = true, .info = null };
        errdefer std.debug.print("{s} <- {s}\n", .{ case.found, case.want });
        try std.testing.expectEqual(case.ok, takes(&found, &field, want));
    }
}
