//! A table (view, foreign table, …) as the catalog has it.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const Kind = postgres.types.Kind;

/// What can be read, by the letter in `pg_class.relkind`.
pub const RelationKind = enum {
    table,
    partitioned_table,
    view,
    materialized_view,
    foreign_table,

    pub fn ofLetter(letter: u8) ?RelationKind {
        return switch (letter) {
            'r' => .table,
            'p' => .partitioned_table,
            'v' => .view,
            'm' => .materialized_view,
            'f' => .foreign_table,
            else => null,
        };
    }
};

pub const Column = struct {
    name: []const u8,
    /// `attnum`; 0 of what is no column of the table's.
    number: i16 = 0,
    /// As `format_type` prints it with an empty search_path.
    type_name: []const u8,
    type_oid: u32,
    typmod: i32,
    /// `pg_type.typtype`: b, c, d, e, p, r, m.
    category: u8,
    nullable: bool,
    /// Of a true array.
    element: ?struct { oid: u32, category: u8, type_name: []const u8 },
    /// The type's text form is not what a cast to text gives.
    cast_differs: bool,
    /// `attgenerated`: s where its values are stored, v where they are not, 0 where it is not generated.
    generated: u8 = 0,
    /// `regclass` and its like, and what is made of them: they print as much of a name as the search path asks for.
    prints_names: bool,

    /// How the column crosses on the binary path: the kind of its values, or of its elements. Null: as text.
    pub fn native(self: *const Column) ?Kind {
        const kind = if (self.element) |element|
            kindOf(element.oid, element.category)
        else
            kindOf(self.type_oid, self.category);
        if (kind == null or kind.?.arrowType(self.typmod) == null) return null;
        return kind;
    }

    pub fn kindOf(oid: u32, category: u8) ?Kind {
        return switch (category) {
            'e' => .text,
            'b' => .ofOid(oid),
            else => null,
        };
    }

    /// The Arrow type; `as_text` where an array turned out to be none that a list can hold.
    pub fn arrowType(self: *const Column, arena: Allocator, as_text: bool) Allocator.Error!arrow.Type {
        const kind = self.native() orelse return .utf8;
        if (as_text) return .utf8;
        const own = kind.arrowType(self.typmod).?;
        const element = self.element orelse return own;
        const item = try arena.create(arrow.Field);
        item.* = .{
            .name = "item",
            .type = own,
            .metadata = try metadata(arena, element.type_name, element.category, kind),
        };
        return .{ .list = item };
    }

    pub fn field(self: *const Column, arena: Allocator, arrow_type: arrow.Type) Allocator.Error!arrow.Field {
        const kind: ?Kind = if (self.element == null and arrow_type != .list) self.native() else null;
        return .{
            .name = self.name,
            .type = arrow_type,
            .nullable = self.nullable,
            .metadata = try metadata(arena, self.type_name, self.category, kind),
        };
    }
};

fn metadata(arena: Allocator, type_name: []const u8, category: u8, kind: ?Kind) Allocator.Error![]const arrow.KeyValue {
    const extension = if (kind) |native| native.extension() else null;
    const entries = try arena.alloc(arrow.KeyValue, if (extension == null) 2 else 3);
    entries[0] = .{ .key = arrow.keys.pg_type, .value = type_name };
    entries[1] = .{ .key = arrow.keys.pg_kind, .value = switch (category) {
        'e' => "enum",
        'd' => "domain",
        'c' => "composite",
        'r' => "range",
        'm' => "multirange",
        else => "base",
    } };
    if (extension) |name| entries[2] = .{ .key = arrow.keys.extension_name, .value = name };
    return entries;
}

pub const Relation = struct {
    schema: []const u8,
    name: []const u8,
    oid: []const u8,
    kind: RelationKind,
    /// Policies of the table hide rows from this user.
    row_security: bool,
    columns: []const Column,
    /// In the key's order; empty without a key.
    primary_key: []const []const u8,

    /// Looks the relation up; not_found or permission when there is none that can be read.
    pub fn find(arena: Allocator, session: *Session, schema: []const u8, name: []const u8) !Relation {
        const doing = try std.fmt.allocPrint(arena, "looking for {s}.{s}", .{ schema, name });
        const found = try session.rows(4, arena, @embedFile("sql/relation.sql"), &.{ schema, name }, doing);
        if (found.len == 0) return missing(arena, session, schema, name, doing);
        const row = found[0];
        const kind = RelationKind.ofLetter(row.letter(1)) orelse return sdk.errors.failHinted(
            .unsupported,
            "a stream reads a table, a view, a materialized view or a foreign table",
            "{s}.{s} is nothing that can be read (pg_class.relkind {s})",
            .{ schema, name, row.text(1) },
        );
        if (!row.isTrue(2)) return sdk.errors.failHinted(
            .permission,
            "GRANT USAGE ON SCHEMA … TO the user of the config",
            "no privilege to use schema {s}",
            .{schema},
        );
        const oid = row.text(0);
        return .{
            .schema = schema,
            .name = name,
            .oid = oid,
            .kind = kind,
            .row_security = row.isTrue(3),
            .columns = try columnsOf(arena, session, oid, doing),
            .primary_key = try primaryKeyOf(arena, session, oid, doing),
        };
    }

    /// Whether `names` are the primary key, in its order.
    pub fn hasKey(self: *const Relation, names: []const []const u8) bool {
        if (names.len != self.primary_key.len) return false;
        for (names, self.primary_key) |one, other| if (!std.mem.eql(u8, one, other)) return false;
        return true;
    }

    pub fn column(self: *const Relation, name: []const u8) ?*const Column {
        for (self.columns) |*candidate| if (std.mem.eql(u8, candidate.name, name)) return candidate;
        return null;
    }

    /// Says that columns do not exist, and which do. `role`: what they were named for, where that needs saying.
    pub fn missingColumns(self: *const Relation, arena: Allocator, role: ?[]const u8, names: []const u8) !void {
        var existing: std.ArrayList(u8) = .empty;
        try existing.appendSlice(arena, "its columns are: ");
        for (self.columns, 0..) |candidate, i| {
            if (i > 0) try existing.appendSlice(arena, ", ");
            try existing.appendSlice(arena, candidate.name);
        }
        return sdk.errors.failHinted(
            .not_found,
            existing.items,
            "{s}.{s} has no such column: {s}{s}{s}",
            .{ self.schema, self.name, names, if (role == null) "" else ", named by ", role orelse "" },
        );
    }
};

const columns_sql = std.fmt.comptimePrint(@embedFile("sql/columns.sql"), .{postgres.types.prints_names_sql});

pub fn columnsOf(arena: Allocator, session: *Session, oid: []const u8, doing: []const u8) ![]const Column {
    const found = try session.rows(13, arena, columns_sql, &.{oid}, doing);
    const columns = try arena.alloc(Column, found.len);
    for (columns, found) |*column, row| column.* = .{
        .name = row.text(0),
        .number = row.number(i16, 1),
        .type_name = row.text(2),
        .type_oid = row.number(u32, 3),
        .typmod = row.number(i32, 4),
        .category = row.letter(5),
        .nullable = row.isTrue(6),
        .element = if (row.optional(7) == null) null else .{
            .oid = row.number(u32, 7),
            .category = row.letter(8),
            .type_name = row.text(9),
        },
        .cast_differs = row.isTrue(10),
        .generated = row.letter(11),
        .prints_names = row.isTrue(12),
    };
    return columns;
}

pub fn primaryKeyOf(arena: Allocator, session: *Session, oid: []const u8, doing: []const u8) ![]const []const u8 {
    const found = try session.rows(1, arena, @embedFile("sql/primary_key.sql"), &.{oid}, doing);
    const names = try arena.alloc([]const u8, found.len);
    for (names, found) |*name, row| name.* = row.text(0);
    return names;
}

fn missing(arena: Allocator, session: *Session, schema: []const u8, name: []const u8, doing: []const u8) !Relation {
    const near = try session.rows(1, arena, @embedFile("sql/near_names.sql"), &.{ schema, name }, doing);
    var hint: std.ArrayList(u8) = .empty;
    if (near.len == 0) try hint.appendSlice(arena, "check the stream's `name` and `schema`; case matters");
    for (near, 0..) |row, i| {
        try hint.appendSlice(arena, if (i == 0) "did you mean " else " or ");
        try hint.appendSlice(arena, row.text(0));
        if (i + 1 == near.len) try hint.append(arena, '?');
    }
    return sdk.errors.failHinted(.not_found, hint.items, "there is no table {s}.{s}", .{ schema, name });
}
