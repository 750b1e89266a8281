//! rb_discover: what there is to read.

const std = @import("std");
const sdk = @import("sdk");
const relation = @import("relation.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Found = struct { tables: []const Table };

pub const Table = struct {
    schema: json.Text,
    name: json.Text,
    kind: relation.RelationKind,
    /// As of the last ANALYZE; null when there was none, and for views.
    rows_estimate: ?i64,
    /// On disk, with indexes; null where nothing is stored here.
    bytes: ?i64,
    primary_key: []const json.Text,
    columns: []const Column,
};

pub const Column = struct {
    name: json.Text,
    type: json.Text,
    arrow_type: json.Text,
    nullable: bool,
};

const Argument = struct { schema: ?[]const u8 = null };
const doing = "listing tables";

pub fn discover(arena: Allocator, session: *Session, argument: json.Value) !Found {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    try session.lookImpatiently();
    try session.begin();
    defer session.rollback();
    const rows = try session.rows(6, arena, @embedFile("sql/tables.sql"), &.{parsed.schema}, doing);
    var tables: std.ArrayList(Table) = try .initCapacity(arena, rows.len);
    for (rows) |row| {
        const oid = row.text(0);
        const columns = try relation.columnsOf(arena, session, oid, doing);
        const key = try relation.primaryKeyOf(arena, session, oid, doing);
        tables.appendAssumeCapacity(.{
            .schema = .{ .bytes = row.text(1) },
            .name = .{ .bytes = row.text(2) },
            .kind = relation.RelationKind.ofLetter(row.letter(3)) orelse continue,
            .rows_estimate = row.optionalNumber(i64, 4),
            .bytes = row.optionalNumber(i64, 5),
            .primary_key = try texts(arena, key),
            .columns = try columnTypes(arena, columns),
        });
    }
    try session.commit();
    return .{ .tables = tables.items };
}

fn texts(arena: Allocator, names: []const []const u8) Allocator.Error![]const json.Text {
    const out = try arena.alloc(json.Text, names.len);
    for (out, names) |*text, name| text.* = .{ .bytes = name };
    return out;
}

fn columnTypes(arena: Allocator, columns: []const relation.Column) Allocator.Error![]const Column {
    const out = try arena.alloc(Column, columns.len);
    for (out, columns) |*described, column| described.* = .{
        .name = .{ .bytes = column.name },
        .type = .{ .bytes = column.type_name },
        .arrow_type = .{ .bytes = try std.fmt.allocPrint(arena, "{f}", .{try column.arrowType(arena, false)}) },
        .nullable = column.nullable,
    };
    return out;
}
