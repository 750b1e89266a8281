//! What a stream reads of its relation: which columns, as what Arrow types, by which SQL.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Captured = @import("captured.zig").Captured;
const Publication = @import("publication.zig").Publication;
const Relation = @import("relation.zig").Relation;
const RelationColumn = @import("relation.zig").Column;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;
const snapshot_marks = @import("snapshot_marks.zig");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const ident = postgres.ident;

pub const Column = struct {
    of: *const RelationColumn,
    /// What COPY sends is the type's text form.
    as_text: bool,
    /// What is selected, where it is no column of the table.
    sql: ?[]const u8 = null,

    /// Whether it is an array of the table's, whose shape only its rows tell.
    fn mayBeNoList(self: *const Column) bool {
        return !self.as_text and self.sql == null and self.of.element != null;
    }
};

pub const Selection = struct {
    relation: Relation,
    columns: []Column,
    filter: ?[]const u8,
    /// Beside the filter, in SQL of our own.
    conditions: []const []const u8 = &.{},
    /// SQL of what the rows are ordered by.
    order: []const []const u8 = &.{},
    /// Columns that no two rows of a captured table have the same values of, all of them read. Empty: none are known.
    unique: []const []const u8 = &.{},
    /// `reading public.users`, for messages.
    doing: []const u8,

    /// Looks up what `stream` names, inside a transaction.
    pub fn find(arena: Allocator, session: *Session, stream: Stream) !Selection {
        const sync_mode = try stream.mode();
        const relation: Relation = try .find(arena, session, stream.schema orelse session.schema, stream.name);
        if (sync_mode == .cdc) return ofCaptured(arena, session, relation, stream);
        return of(arena, relation, stream);
    }

    /// What `stream` begins with, before the first change: what its publication tells of the rows that are there, and
    /// beside it what the rows of changes have.
    fn ofCaptured(arena: Allocator, session: *Session, relation: Relation, stream: Stream) !Selection {
        const publication: Publication = try .find(arena, session, try session.publicationOf(arena, &stream));
        const captured: Captured = try .find(arena, session, &relation, &publication);
        try captured.require(arena, &stream);
        var published = stream;
        published.columns = try captured.columns(arena, &stream);
        published.filter = captured.row_filter;
        var selection: Selection = try .of(arena, relation, published);
        for ([_][]const []const u8{ captured.identity, selection.relation.primary_key }) |names| {
            if (selection.unique.len == 0 and selection.holds(names)) selection.unique = names;
        }
        try snapshot_marks.surround(arena, &selection, &stream);
        return selection;
    }

    /// What `stream` reads of `relation`.
    pub fn of(arena: Allocator, relation: Relation, stream: Stream) !Selection {
        const names = stream.columns orelse blk: {
            const all = try arena.alloc([]const u8, relation.columns.len);
            for (all, relation.columns) |*name, column| name.* = column.name;
            break :blk all;
        };
        const columns = try arena.alloc(Column, names.len);
        for (columns, names, 0..) |*column, name, i| {
            const found = relation.column(name) orelse return unknownColumn(arena, &relation, names);
            for (names[0..i]) |earlier| if (std.mem.eql(u8, earlier, name))
                return sdk.fail(
                    .config,
                    "{s}.{s}: column {s} is listed twice",
                    .{ relation.schema, relation.name, name },
                );
            column.* = .{ .of = found, .as_text = found.native() == null };
        }
        try stream.requireColumns(arena, &relation);
        return .{
            .relation = relation,
            .columns = columns,
            .filter = stream.filter,
            .doing = try std.fmt.allocPrint(arena, "reading {s}.{s}", .{ relation.schema, relation.name }),
        };
    }

    /// Opens the relation as the read will: takes the lock that keeps its shape until the transaction ends, and finds
    /// out about privileges, the filter, a shape that changed since the catalog was asked, and rows that went since.
    pub fn probe(self: *const Selection, arena: Allocator, session: *Session) !void {
        if (!self.printsNames()) try session.seeAsUser();
        const sql = try std.mem.concat(arena, u8, &.{ try self.query(arena), "\nLIMIT 0" });
        const result = try session.query(arena, sql, &.{}, self.doing);
        if (result.columns.len != self.columns.len) return self.changed();
        for (result.columns, self.columns) |got, column| {
            if (column.as_text) {
                if (got.type_oid != postgres.types.oid.text) return self.changed();
            } else if (got.type_oid != column.of.type_oid or got.typmod != column.of.typmod) return self.changed();
        }
        const rewritten = try session.rows(1, arena, @embedFile("sql/heirs.sql") ++ @embedFile("sql/rewritten.sql"), &.{self.relation.oid}, self.doing);
        if (rewritten.len > 0) return sdk.fail(
            .transient_db,
            "{s}: {s} was truncated or rewritten while the read began, whose snapshot finds no rows in it",
            .{ self.doing, rewritten[0].text(0) },
        );
    }

    /// Whether a column's text form depends on the search path: then it stays `pg_catalog`, so that names come with
    /// their schema.
    pub fn printsNames(self: *const Selection) bool {
        for (self.columns) |column| {
            if (column.of.prints_names) return true;
        }
        return false;
    }

    /// Where a column stands in a row; null when it is not read.
    pub fn place(self: *const Selection, name: []const u8) ?usize {
        for (self.columns, 0..) |candidate, i| if (std.mem.eql(u8, candidate.of.name, name)) return i;
        return null;
    }

    pub fn columnNamed(self: *const Selection, name: []const u8) ?*const Column {
        return &self.columns[self.place(name) orelse return null];
    }

    /// `"schema"."table"."column"`, which means the table's column wherever it stands.
    pub fn columnSql(self: *const Selection, arena: Allocator, name: []const u8) Allocator.Error![]const u8 {
        const table = try ident.qualified(arena, self.relation.schema, self.relation.name);
        return std.mem.concat(arena, u8, &.{ table, ".", try ident.quote(arena, name) });
    }

    pub fn warnOfRowSecurity(self: *const Selection) void {
        if (self.relation.row_security) sdk.host.log(
            .warning,
            "{s}.{s} has row security: rows that its policies hide from this user are not read",
            .{ self.relation.schema, self.relation.name },
        );
    }

    pub fn changed(self: *const Selection) sdk.errors.Failed {
        return sdk.fail(.transient_db, "{s}: the table was altered while the read began", .{self.doing});
    }

    /// A list can hold an array only when it has one dimension that starts at 1. Asks which columns have others, in
    /// one scan of the same snapshot, and has those cross as text.
    pub fn checkArrays(self: *Selection, arena: Allocator, session: *Session) !void {
        var sql: std.ArrayList(u8) = .empty;
        for (self.columns) |column| {
            if (!column.mayBeNoList()) continue;
            try sql.appendSlice(arena, if (sql.items.len == 0) "SELECT " else ", ");
            const name = try ident.quote(arena, column.of.name);
            try sql.print(arena, "pg_catalog.bool_or(pg_catalog.array_ndims({s}) > 1 OR pg_catalog.array_lower({s}, 1) <> 1)", .{ name, name });
        }
        if (sql.items.len == 0) return;
        try self.appendFrom(&sql, arena);
        const result = try session.query(arena, sql.items, &.{}, self.doing);
        const answers: []const ?[]const u8 = if (result.rows.len == 1) result.rows[0] else &.{};
        var i: usize = 0;
        for (self.columns) |*column| {
            if (!column.mayBeNoList()) continue;
            const answer = if (i < answers.len) answers[i] else null;
            if (answer != null and std.mem.eql(u8, answer.?, "t")) column.as_text = true;
            i += 1;
        }
    }

    /// Whether all of `names` are read.
    pub fn holds(self: *const Selection, names: []const []const u8) bool {
        for (names) |name| if (self.place(name) == null) return false;
        return true;
    }

    /// Reads no other columns than these.
    pub fn narrow(self: *Selection, arena: Allocator, names: []const []const u8) Allocator.Error!void {
        const columns = try arena.alloc(Column, names.len);
        for (columns, names) |*column, name| column.* = self.columnNamed(name).?.*;
        self.columns = columns;
    }

    /// Before the relation is opened: arrays of these names cross as text whatever their rows hold.
    pub fn readArraysAsText(self: *Selection, names: []const []const u8) void {
        for (names) |name| {
            const found = &self.columns[self.place(name) orelse continue];
            if (found.of.element != null) found.as_text = true;
        }
    }

    /// `SELECT "a", "b"::pg_catalog.text FROM …`.
    pub fn query(self: *const Selection, arena: Allocator) Allocator.Error![]const u8 {
        var sql: std.ArrayList(u8) = .empty;
        try sql.appendSlice(arena, "SELECT ");
        for (self.columns, 0..) |column, i| {
            if (i > 0) try sql.appendSlice(arena, ", ");
            const name = try ident.quote(arena, column.of.name);
            if (column.sql) |expression|
                try sql.print(arena, "{s} AS {s}", .{ expression, name })
            else if (!column.as_text)
                try sql.appendSlice(arena, name)
            else if (column.of.cast_differs)
                // IS DISTINCT FROM is a test for NULL that a row of NULLs passes.
                try sql.print(arena, "CASE WHEN {s} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {s}) END", .{ name, name })
            else
                try sql.print(arena, "{s}::pg_catalog.text", .{name});
        }
        try self.appendFrom(&sql, arena);
        for (self.order, 0..) |expression, i| {
            try sql.appendSlice(arena, if (i == 0) "\nORDER BY " else ", ");
            try sql.appendSlice(arena, expression);
        }
        return sql.items;
    }

    /// The filter is SQL of the pipeline's owner. It stands between two line ends, so that a comment in it ends there.
    pub fn appendFrom(self: *const Selection, sql: *std.ArrayList(u8), arena: Allocator) Allocator.Error!void {
        const table = try ident.qualified(arena, self.relation.schema, self.relation.name);
        try sql.print(arena, "\nFROM {s}", .{table});
        if (self.filter) |filter| try sql.print(arena, "\nWHERE (\n{s}\n)", .{filter});
        for (self.conditions, 0..) |condition, i| {
            try sql.appendSlice(arena, if (i == 0 and self.filter == null) "\nWHERE " else "\nAND ");
            try sql.appendSlice(arena, condition);
        }
    }

    pub fn copySql(self: *const Selection, arena: Allocator) Allocator.Error![]const u8 {
        return std.mem.concat(arena, u8, &.{ "COPY (\n", try self.query(arena), "\n) TO STDOUT (FORMAT binary)" });
    }

    /// After `checkArrays`, which decides about types.
    pub fn schema(self: *const Selection, arena: Allocator) Allocator.Error!arrow.Schema {
        const fields = try arena.alloc(arrow.Field, self.columns.len);
        for (fields, self.columns) |*field, column|
            field.* = try column.of.field(arena, try column.of.arrowType(arena, column.as_text));
        return .{ .fields = fields, .metadata = try self.keyMetadata(arena) };
    }

    /// The primary key, where all of it is read.
    fn keyMetadata(self: *const Selection, arena: Allocator) Allocator.Error![]const arrow.KeyValue {
        const key = self.relation.primary_key;
        if (key.len == 0) return &.{};
        for (key) |name| {
            for (self.columns) |column| {
                if (std.mem.eql(u8, column.of.name, name)) break;
            } else return &.{};
        }
        const entries = try arena.alloc(arrow.KeyValue, 1);
        entries[0] = .{ .key = arrow.keys.primary_key, .value = try sdk.json.stringify(arena, key) };
        return entries;
    }

    pub fn decoderColumns(
        self: *const Selection,
        arena: Allocator,
        server_version: u32,
    ) Allocator.Error![]postgres.decode.Column {
        const columns = try arena.alloc(postgres.decode.Column, self.columns.len);
        for (columns, self.columns) |*plan, column| plan.* = .{
            .name = column.of.name,
            .type_name = column.of.type_name,
            .kind = if (column.as_text) .text else column.of.native().?,
            .typmod = if (column.as_text) -1 else column.of.typmod,
            .element_oid = if (column.as_text or column.of.element == null) null else column.of.element.?.oid,
            .infinite_intervals = server_version >= postgres.values.infinite_intervals_since,
        };
        return columns;
    }
};

/// Every unknown name at once, and what exists.
fn unknownColumn(arena: Allocator, relation: *const Relation, names: []const []const u8) !Selection {
    var unknown: std.ArrayList(u8) = .empty;
    for (names) |name| {
        if (relation.column(name) != null) continue;
        if (unknown.items.len > 0) try unknown.appendSlice(arena, ", ");
        try unknown.appendSlice(arena, name);
    }
    try relation.missingColumns(arena, null, unknown.items);
    unreachable;
}

fn selectionForTest(columns: []Column, filter: ?[]const u8) Selection {
    return .{
        .relation = .{
            .schema = "s",
            .name = "t\"x",
            .oid = "1",
            .kind = .table,
            .row_security = false,
            .columns = &.{},
            .primary_key = &.{ "b", "a" },
        },
        .columns = columns,
        .filter = filter,
        .doing = "reading s.t",
    };
}

fn columnForTest(name: []const u8, oid: u32) RelationColumn {
    return .{
        .name = name,
        .type_name = "?",
        .type_oid = oid,
        .typmod = -1,
        .category = 'b',
        .nullable = true,
        .element = null,
        .cast_differs = false,
        .prints_names = false,
    };
}

test "names are quoted, other types cross as text, and a comment in the filter stays in its line" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = columnForTest("a", postgres.types.oid.int4);
    const b = columnForTest("b", postgres.types.oid.numeric);
    var c = columnForTest("c", 869);
    c.cast_differs = true;
    var columns = [_]Column{
        .{ .of = &a, .as_text = false },
        .{ .of = &b, .as_text = true },
        .{ .of = &c, .as_text = true },
    };
    const selection = selectionForTest(&columns, "a > 1 -- old ones");
    try std.testing.expectEqualStrings(
        \\COPY (
        \\SELECT "a", "b"::pg_catalog.text, CASE WHEN "c" IS DISTINCT FROM NULL THEN pg_catalog.format('%s', "c") END
        \\FROM "s"."t""x"
        \\WHERE (
        \\a > 1 -- old ones
        \\)
        \\) TO STDOUT (FORMAT binary)
    , try selection.copySql(arena.allocator()));
}

test "the primary key is told in its own order, and only when all of it is read" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = columnForTest("a", postgres.types.oid.int4);
    const b = columnForTest("b", postgres.types.oid.text);
    var columns = [_]Column{ .{ .of = &a, .as_text = false }, .{ .of = &b, .as_text = false } };
    const whole = try selectionForTest(&columns, null).schema(arena.allocator());
    try std.testing.expectEqualStrings("[\"b\",\"a\"]", whole.get(arrow.keys.primary_key).?);
    const part = try selectionForTest(columns[0..1], null).schema(arena.allocator());
    try std.testing.expectEqual(null, part.get(arrow.keys.primary_key));
}
