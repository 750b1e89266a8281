//! A publication: which tables' changes the server tells, and what of them.
//!
//! One that this connector made bears a mark, its comment. Only such a one is altered or dropped; one of the user's is
//! taken as it is, and what it lacks is told with the SQL that mends it.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const ident = postgres.ident;

/// Where a partitioned table's changes can be told under its own name.
const via_root_since = 130_000;
/// Where generated columns can be told.
const generated_since = 180_000;

pub const Publication = struct {
    name: []const u8,
    exists: bool,
    /// It bears this pipeline's mark.
    ours: bool,
    all_tables: bool,
    /// What of a table's changes is told.
    insert: bool,
    update: bool,
    delete: bool,
    truncate: bool,
    /// Changes of partitions are told as their partitioned table's.
    via_root: bool,
    /// Stored generated columns are told.
    generated: bool,
    /// This user may alter it.
    alterable: bool,

    /// Inside a transaction. One that does not exist is told as it would be made.
    pub fn find(arena: Allocator, session: *Session, name: []const u8) !Publication {
        const version = session.connection.server_version;
        const doing = try std.fmt.allocPrint(arena, "looking for publication {s}", .{name});
        const found = try session.rows(9, arena, @embedFile("sql/publication.sql"), &.{name}, doing);
        if (found.len == 0) return .{
            .name = name,
            .exists = false,
            .ours = true,
            .all_tables = false,
            .insert = true,
            .update = true,
            .delete = true,
            .truncate = true,
            .via_root = version >= via_root_since,
            .generated = version >= generated_since,
            .alterable = true,
        };
        const row = found[0];
        return .{
            .name = name,
            .exists = true,
            .ours = std.mem.eql(u8, row.text(7), try mark(arena, session)),
            .all_tables = row.isTrue(0),
            .insert = row.isTrue(1),
            .update = row.isTrue(2),
            .delete = row.isTrue(3),
            .truncate = row.isTrue(4),
            .via_root = row.isTrue(5),
            .generated = row.isTrue(6),
            .alterable = row.isTrue(8),
        };
    }

    /// Whether a table that it lacks is this connector's to add.
    pub fn takesTables(self: *const Publication) bool {
        return self.ours and !self.all_tables;
    }

    /// In a transaction that ends with it, so that two runs that set up at once wait for each other.
    pub fn lock(session: *Session, arena: Allocator, name: []const u8) !void {
        const key = try std.mem.concat(arena, u8, &.{ "rapidbyte publication ", name });
        _ = try session.query(
            arena,
            "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::pg_catalog.text, 0))",
            &.{key},
            "waiting for another set-up",
        );
    }

    /// With these tables and no mark yet. Statements that a user can run as well.
    pub fn createSql(self: *const Publication, arena: Allocator, tables: []const *const Relation) Allocator.Error![]const u8 {
        var sql: std.ArrayList(u8) = .empty;
        try sql.print(arena, "CREATE PUBLICATION {s} FOR TABLE ", .{try ident.quote(arena, self.name)});
        try appendTables(&sql, arena, tables);
        if (self.via_root) try sql.appendSlice(arena, " WITH (publish_via_partition_root = true");
        if (self.generated) try sql.appendSlice(arena, ", publish_generated_columns = stored");
        if (self.via_root) try sql.append(arena, ')');
        return sql.items;
    }

    pub fn markSql(self: *const Publication, arena: Allocator, session: *const Session) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(arena, "COMMENT ON PUBLICATION {s} IS {s}", .{
            try ident.quote(arena, self.name),
            try ident.literal(arena, try mark(arena, session)),
        });
    }

    pub fn addSql(self: *const Publication, arena: Allocator, tables: []const *const Relation) Allocator.Error![]const u8 {
        var sql: std.ArrayList(u8) = .empty;
        try sql.print(arena, "ALTER PUBLICATION {s} ADD TABLE ", .{try ident.quote(arena, self.name)});
        try appendTables(&sql, arena, tables);
        return sql.items;
    }

    pub fn setSql(self: *const Publication, arena: Allocator, parameters: []const u8) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(arena, "ALTER PUBLICATION {s} SET ({s})", .{
            try ident.quote(arena, self.name),
            parameters,
        });
    }

    pub fn dropSql(self: *const Publication, arena: Allocator) Allocator.Error![]const u8 {
        return std.mem.concat(arena, u8, &.{ "DROP PUBLICATION ", try ident.quote(arena, self.name) });
    }
};

/// The comment of a publication that was made for this pipeline.
fn mark(arena: Allocator, session: *const Session) Allocator.Error![]const u8 {
    return std.mem.concat(arena, u8, &.{ "rapidbyte: made for pipeline ", session.pipeline });
}

/// A table's heirs are not among what a stream may read: ONLY leaves none out.
fn appendTables(sql: *std.ArrayList(u8), arena: Allocator, tables: []const *const Relation) Allocator.Error!void {
    for (tables, 0..) |table, i| {
        if (i > 0) try sql.appendSlice(arena, ", ");
        try sql.print(arena, "ONLY {s}", .{try ident.qualified(arena, table.schema, table.name)});
    }
}

test "a publication is made with what its server can tell" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var publication: Publication = .{
        .name = "rapidbyte_shop",
        .exists = false,
        .ours = true,
        .all_tables = false,
        .insert = true,
        .update = true,
        .delete = true,
        .truncate = true,
        .via_root = false,
        .generated = false,
        .alterable = true,
    };
    const table: Relation = .{
        .schema = "public",
        .name = "us\"ers",
        .oid = "1",
        .kind = .table,
        .row_security = false,
        .columns = &.{},
        .primary_key = &.{},
    };
    const of_12 = "CREATE PUBLICATION \"rapidbyte_shop\" FOR TABLE ONLY \"public\".\"us\"\"ers\"";
    try std.testing.expectEqualStrings(of_12, try publication.createSql(arena.allocator(), &.{&table}));
    publication.via_root = true;
    try std.testing.expectEqualStrings(
        of_12 ++ " WITH (publish_via_partition_root = true)",
        try publication.createSql(arena.allocator(), &.{&table}),
    );
    publication.generated = true;
    try std.testing.expectEqualStrings(
        of_12 ++ " WITH (publish_via_partition_root = true, publish_generated_columns = stored)",
        try publication.createSql(arena.allocator(), &.{&table}),
    );
}
