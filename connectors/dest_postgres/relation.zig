//! A table as the catalog has it.

const std = @import("std");
const sdk = @import("sdk");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// What decides how values are written into a column.
pub const TypeInfo = struct {
    oid: u32,
    /// `typtype`: `b` base, `e` enum, `d` domain, …
    category: u8 = 'b',
    /// Of array types, 0 otherwise.
    element_oid: u32 = 0,
    element_category: u8 = 'b',
};

pub const Column = struct {
    name: []const u8,
    /// As `format_type` prints it.
    type: []const u8,
    info: TypeInfo,
    /// `atttypmod`.
    modifier: i32,
    nullable: bool,
    generated: bool,
    /// Whether the server fills the column in where it is left out: a default or an identity.
    has_default: bool,
    /// GENERATED … AS IDENTITY, which is never NULL.
    identity: bool = false,
    /// GENERATED ALWAYS AS IDENTITY.
    always_identity: bool = false,
};

pub const Relation = struct {
    oid: u32,
    /// `relkind`.
    kind: u8,
    columns: []const Column,
    primary_key: []const []const u8,

    pub fn column(self: *const Relation, name: []const u8) ?*const Column {
        for (self.columns) |*found| if (std.mem.eql(u8, found.name, name)) return found;
        return null;
    }

    pub fn inPrimaryKey(self: *const Relation, name: []const u8) bool {
        for (self.primary_key) |part| if (std.mem.eql(u8, part, name)) return true;
        return false;
    }

    /// Whether both have the same columns and the same key.
    pub fn eql(self: *const Relation, other: *const Relation) bool {
        if (self.oid != other.oid or self.columns.len != other.columns.len) return false;
        for (self.columns, other.columns) |*a, *b| {
            if (!std.mem.eql(u8, a.name, b.name) or !std.mem.eql(u8, a.type, b.type)) return false;
            if (a.nullable != b.nullable or a.generated != b.generated or a.has_default != b.has_default) return false;
        }
        if (self.primary_key.len != other.primary_key.len) return false;
        for (self.primary_key, other.primary_key) |a, b| if (!std.mem.eql(u8, a, b)) return false;
        return true;
    }

    /// An ordinary or partitioned table: what rows can be written to.
    pub fn isTable(self: *const Relation) bool {
        return self.kind == 'r' or self.kind == 'p';
    }

    pub fn describeKind(self: *const Relation) []const u8 {
        return switch (self.kind) {
            'r' => "table",
            'p' => "partitioned table",
            'v' => "view",
            'm' => "materialized view",
            'f' => "foreign table",
            'S' => "sequence",
            'i', 'I' => "index",
            'c' => "composite type",
            else => "relation of an unknown kind",
        };
    }

    /// Null when there is none of that name.
    pub fn find(arena: Allocator, session: *Session, schema: []const u8, name: []const u8) !?Relation {
        const doing = "reading the target table's definition";
        const found = try session.query(arena,
            \\SELECT c.oid, c.relkind
            \\FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            \\WHERE n.nspname = $1 AND c.relname = $2
        , &.{ schema, name }, doing);
        if (found.rows.len == 0) return null;
        const oid = found.rows[0][0].?;
        return .{
            .oid = number(u32, oid),
            .kind = found.rows[0][1].?[0],
            .columns = try readColumns(arena, session, oid),
            .primary_key = try readPrimaryKey(arena, session, oid),
        };
    }
};

/// Of the catalog's own numbers.
pub fn number(comptime T: type, text: ?[]const u8) T {
    return std.fmt.parseInt(T, text orelse return 0, 10) catch 0;
}

fn readColumns(arena: Allocator, session: *Session, oid: []const u8) ![]const Column {
    const found = try session.query(arena,
        \\SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, t.typtype,
        \\       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, coalesce(e.typtype, 'b'), a.atttypmod,
        \\       a.attnotnull, a.attgenerated <> '', a.atthasdef OR a.attidentity <> '',
        \\       a.attidentity <> '', a.attidentity = 'a'
        \\FROM pg_attribute a
        \\JOIN pg_type t ON t.oid = a.atttypid
        \\LEFT JOIN pg_type e ON e.oid = t.typelem
        \\WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
        \\ORDER BY a.attnum
    , &.{oid}, "reading the target table's columns");
    const columns = try arena.alloc(Column, found.rows.len);
    for (columns, found.rows) |*column, row| column.* = .{
        .name = row[0].?,
        .type = row[1].?,
        .info = .{
            .oid = number(u32, row[2]),
            .category = row[3].?[0],
            .element_oid = number(u32, row[4]),
            .element_category = row[5].?[0],
        },
        .modifier = number(i32, row[6]),
        .nullable = row[7].?[0] == 'f',
        .generated = row[8].?[0] == 't',
        .has_default = row[9].?[0] == 't',
        .identity = row[10].?[0] == 't',
        .always_identity = row[11].?[0] == 't',
    };
    return columns;
}

fn readPrimaryKey(arena: Allocator, session: *Session, oid: []const u8) ![]const []const u8 {
    const found = try session.query(arena,
        \\SELECT a.attname
        \\FROM pg_constraint c
        \\CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k(attnum, position)
        \\JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
        \\WHERE c.conrelid = $1::oid AND c.contype = 'p'
        \\ORDER BY k.position
    , &.{oid}, "reading the target table's primary key");
    const names = try arena.alloc([]const u8, found.rows.len);
    for (names, found.rows) |*name, row| name.* = row[0].?;
    return names;
}
