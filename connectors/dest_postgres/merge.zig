//! A table of new rows into the target, by their keys: of several rows with one key all but the last go, then one MERGE
//! leaves alone what is there already.
//!
//! MERGE hashes the target's keys and row positions and no more, which makes it the fastest way by far (PostgreSQL 15).
//! When somebody else inserts one of the keys at the same time, MERGE fails where INSERT … ON CONFLICT waits and updates:
//! that is the second try, and the only one on older servers. It looks up every single key in the index, and fires
//! triggers BEFORE INSERT for rows that are updated too.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Landing = @import("landing.zig").Landing;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;
const arrow = sdk.arrow;

const merge_since = 150000;

/// What a hash of a million keys takes: the join of the rows with the target stays in memory up to about there.
pub const work_mem = "64MB";

/// The order of rows in a table that does not number them. Rows that arrive by several sessions at once have no other;
/// those of one COPY may be out of order.
pub const place = "ctid";

/// The new rows.
pub const Rows = struct {
    /// As SQL.
    table: []const u8,
    columns: []const Column,
    /// Which of `columns` are the key's.
    key: []const usize,
    /// The table's column whose values say which row is later, as SQL; no two rows have the same.
    order: []const u8,

    pub fn init(
        arena: Allocator,
        schema: *const arrow.Schema,
        table: []const u8,
        columns: []const Column,
        key: []const []const u8,
        order: []const u8,
    ) !Rows {
        const indexes = try arena.alloc(usize, key.len);
        for (indexes, key) |*index, name| index.* = schema.indexOf(name).?;
        return .{ .table = table, .columns = columns, .key = indexes, .order = order };
    }

    /// Fails on NULL in a key of the batch's rows from the one number up to before the other. `first_row` is the stream's
    /// number of the batch's first row.
    pub fn refuseNullKeys(
        self: *const Rows,
        session: *Session,
        batch: *const arrow.Batch,
        from: usize,
        to: usize,
        first_row: u64,
        doing: []const u8,
    ) !void {
        var first: ?struct { row: usize, column: usize } = null;
        for (self.key) |column| {
            const view = &batch.columns[column];
            if (view.null_count == 0) continue;
            for (from..if (first) |found| found.row else to) |row| if (view.isNull(row)) {
                first = .{ .row = row, .column = column };
                break;
            };
        }
        const found = first orelse return;
        const name = self.columns[found.column].name;
        session.culprit = .{ .category = .null_key, .column = name, .row = found.row };
        return sdk.errors.failHinted(
            .data,
            "a row whose key is not known cannot be found again: filter it out, or name another `primary_key`",
            "{s}: column {s} of row {d} is NULL, and it is part of the key",
            .{ doing, name, first_row + found.row + 1 },
        );
    }

    /// `arbiter` decides which keys are the same; null where the columns' own types do.
    pub fn removeSuperseded(self: *const Rows, arena: Allocator, session: *Session, arbiter: ?*const Arbiter, doing: []const u8) !void {
        const keys = try self.keyList(arena, arbiter);
        const repeated = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT EXISTS (SELECT FROM {s} GROUP BY {s} HAVING pg_catalog.count(*) > 1)",
            .{ self.table, keys },
        ), &.{}, doing);
        if (!std.mem.eql(u8, repeated.scalar() orelse "", "t")) return;
        const removed = try session.query(arena, try std.fmt.allocPrint(arena,
            \\DELETE FROM {s} WHERE {s} IN (
            \\    SELECT place FROM (
            \\        SELECT {s} AS place, pg_catalog.lead(1) OVER (PARTITION BY {s} ORDER BY {s}) AS later FROM {s}
            \\    ) AS rows WHERE later IS NOT NULL)
        , .{ self.table, self.order, self.order, keys, self.order, self.table }), &.{}, doing);
        sdk.host.log(.info, "{s}: later rows with the same key supersede others: {s}", .{ doing, removed.command_tag });
    }

    /// Rows that are not numbered have no order but that of their places.
    fn isNumbered(self: *const Rows) bool {
        return !std.mem.eql(u8, self.order, place);
    }

    fn keyList(self: *const Rows, arena: Allocator, arbiter: ?*const Arbiter) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        for (self.key, 0..) |index, i| {
            if (i > 0) try out.appendSlice(arena, ", ");
            try out.appendSlice(arena, self.columns[index].quoted);
            if (arbiter) |found| try out.print(arena, " {s}", .{found.columns[i].collate});
        }
        return out.items;
    }
};

/// Before `removeSuperseded` and `Merge.run`, in their transaction.
pub fn prepare(arena: Allocator, session: *Session) !void {
    _ = try session.query(
        arena,
        "SELECT pg_catalog.set_config('work_mem', $1, true) " ++
            "WHERE pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) < pg_catalog.pg_size_bytes($1)",
        &.{work_mem},
        "setting the memory of the upsert",
    );
}

/// What can be repeated for new rows in the same table.
pub const Merge = struct {
    session: *Session,
    target: *const Target,
    rows: Rows,
    statements: Statements,

    pub fn init(
        arena: Allocator,
        landing: *const Landing,
        rows: Rows,
        arbiter: *const Arbiter,
        relation: *const Relation,
    ) !Merge {
        const cleared: []const []const u8 = if (landing.evolution) |evolution| evolution.cleared else &.{};
        return .{
            .session = landing.session,
            .target = landing.target,
            .rows = rows,
            .statements = try .init(arena, landing.target, &rows, arbiter, relation, cleared),
        };
    }

    /// No two rows have the same key.
    pub fn run(self: *const Merge, arena: Allocator) !void {
        try self.analyze(arena);
        try self.write(arena, self.rows.table);
    }

    /// Whether the target is read as a whole or by its index is for the planner to decide, who has to know how many rows
    /// come.
    pub fn analyze(self: *const Merge, arena: Allocator) !void {
        const keys = try self.rows.keyList(arena, null);
        try self.session.exec(try std.fmt.allocPrint(
            arena,
            "ANALYZE {s} ({s}{s}{s})",
            .{ self.rows.table, keys, if (self.rows.isNumbered()) ", " else "", if (self.rows.isNumbered()) self.rows.order else "" },
        ), self.target.doing);
    }

    /// `from` is the rows' table, or some of its rows, as SQL.
    pub fn write(self: *const Merge, arena: Allocator, from: []const u8) !void {
        const session = self.session;
        const doing = self.target.doing;
        const statements = &self.statements;
        if (statements.fixed) |fixed| try fixed.check(arena, session, self.target, from);
        if (session.connection.server_version < merge_since)
            return session.exec(try statements.on_conflict.sql(arena, from), doing);
        const merging = try std.mem.concat(arena, u8, &.{
            "SAVEPOINT rapidbyte_merge; ", try statements.merge.sql(arena, from), "; RELEASE SAVEPOINT rapidbyte_merge",
        });
        session.connection.exec(merging) catch |err| {
            const failed = session.failed(err, doing);
            if (err != error.Server or !std.mem.eql(u8, session.connection.last_error.?.sqlstate, "23505")) return failed;
            sdk.errors.clear();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_merge", doing);
            try session.exec(try statements.on_conflict.sql(arena, from), doing);
            try session.exec("RELEASE SAVEPOINT rapidbyte_merge", doing);
            sdk.host.log(.info, "{s}: a key was inserted by somebody else: tried again, key by key", .{doing});
        };
    }
};

/// SQL around the table that the new rows are in.
const Statement = struct {
    before: []const u8,
    after: []const u8,

    fn sql(self: *const Statement, arena: Allocator, from: []const u8) ![]const u8 {
        return std.mem.concat(arena, u8, &.{ self.before, from, self.after });
    }
};

/// What an existing target is merged into with.
const Statements = struct {
    merge: Statement,
    on_conflict: Statement,
    fixed: ?Fixed,

    fn init(
        arena: Allocator,
        target: *const Target,
        rows: *const Rows,
        arbiter: *const Arbiter,
        relation: *const Relation,
        /// Columns that the stream used to have, as SQL: a row that it has anew does not keep them.
        cleared: []const []const u8,
    ) !Statements {
        const columns = rows.columns;
        var changing: std.ArrayList(Column) = .empty;
        var fixed: std.ArrayList(Column) = .empty;
        for (columns, 0..) |column, i| {
            // Equal keys may be different values all the same: 1.0 and 1.00.
            if (std.mem.findScalar(usize, rows.key, i)) |at| {
                if (arbiter.columns[at].exact and columns_module.isExact(column.type)) continue;
            } else if (relation.column(column.name).?.always_identity) {
                try fixed.append(arena, column);
                continue;
            }
            try changing.append(arena, column);
        }
        const names = try columns_module.nameList(arena, columns);
        const same_key = try arbiter.sameKey(arena);
        const conflict = try arbiter.conflictTarget(arena);
        const insert = try std.fmt.allocPrint(
            arena,
            "INSERT INTO {s} AS old ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM ",
            .{ target.quoted, names, names },
        );
        const clearing = try clearings(arena, cleared);
        const update = try std.mem.concat(arena, u8, &.{ try assignments(arena, changing.items, "new"), clearing });
        return .{
            .merge = .{ .before = try std.fmt.allocPrint(arena, "MERGE INTO {s} AS old USING ", .{target.quoted}), .after = try std.fmt.allocPrint(arena,
                \\ AS new ON {s}
                \\{s}{s}{s}{s}
                \\WHEN NOT MATCHED THEN INSERT ({s}) OVERRIDING SYSTEM VALUE VALUES ({s})
            , .{
                same_key,
                if (changing.items.len > 0) "WHEN MATCHED AND (" else "",
                if (changing.items.len > 0) try difference(arena, changing.items, "new") else "",
                if (changing.items.len > 0) ") THEN UPDATE SET " else "",
                if (changing.items.len > 0) update else "",
                names,
                try columns_module.prefixedList(arena, columns, "new"),
            }) },
            .on_conflict = .{ .before = insert, .after = if (changing.items.len == 0)
                try std.fmt.allocPrint(arena, " AS new ON CONFLICT {s} DO NOTHING", .{conflict})
            else
                try std.fmt.allocPrint(arena, " AS new ON CONFLICT {s} DO UPDATE SET {s}{s} WHERE {s}", .{
                    conflict,
                    try assignments(arena, changing.items, "excluded"),
                    clearing,
                    try difference(arena, changing.items, "excluded"),
                }) },
            .fixed = if (fixed.items.len == 0) null else .{ .columns = fixed.items, .same_key = same_key },
        };
    }
};

/// Columns that PostgreSQL updates under no circumstances: GENERATED ALWAYS AS IDENTITY.
const Fixed = struct {
    columns: []const Column,
    same_key: []const u8,

    /// The rows that are there must have them as they come.
    fn check(self: *const Fixed, arena: Allocator, session: *Session, target: *const Target, from: []const u8) !void {
        const changed = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT pg_catalog.count(*) FROM {s} AS old JOIN {s} AS new ON {s} WHERE {s}",
            .{ target.quoted, from, self.same_key, try difference(arena, self.columns, "new") },
        ), &.{}, target.doing);
        const count = changed.scalar() orelse "";
        if (std.mem.eql(u8, count, "0")) return;
        const names = try arena.alloc([]const u8, self.columns.len);
        for (names, self.columns) |*name, column| name.* = column.name;
        return sdk.errors.failHinted(
            .data,
            "make the column GENERATED BY DEFAULT, or leave it out",
            "{s}: {s} rows have another value of {s}, which is GENERATED ALWAYS AS IDENTITY and cannot be updated",
            .{ target.doing, count, try std.mem.join(arena, ", ", names) },
        );
    }
};

/// `"a" = new."a", "b" = new."b"`.
fn assignments(arena: Allocator, columns: []const Column, comptime source: []const u8) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i|
        try out.print(arena, "{s}{s} = " ++ source ++ ".{s}", .{ if (i > 0) ", " else "", column.quoted, column.quoted });
    return out.items;
}

/// `, "c" = DEFAULT, "d" = DEFAULT`: NULL, mostly.
fn clearings(arena: Allocator, cleared: []const []const u8) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (cleared) |quoted| try out.print(arena, ", {s} = DEFAULT", .{quoted});
    return out.items;
}

/// Whether the row `old` has other values than `source`, byte for byte.
///
/// `*<>` compares what is stored, so that it works for types without equality, and 1.0 differs from 1.00. Types whose
/// equality says the same are compared by that: no row has to be formed for it.
fn difference(arena: Allocator, columns: []const Column, comptime source: []const u8) ![]const u8 {
    var olds: [2]std.ArrayList(u8) = .{ .empty, .empty };
    var news: [2]std.ArrayList(u8) = .{ .empty, .empty };
    for (columns) |column| {
        const which = @intFromBool(columns_module.isExact(column.type));
        const separator = if (olds[which].items.len > 0) ", " else "";
        const bytewise = if (columns_module.isCollatable(column.type)) " COLLATE pg_catalog.\"C\"" else "";
        try olds[which].print(arena, "{s}old.{s}{s}", .{ separator, column.quoted, if (which == 1) bytewise else "" });
        try news[which].print(arena, "{s}" ++ source ++ ".{s}", .{ separator, column.quoted });
    }
    var out: std.ArrayList(u8) = .empty;
    if (olds[1].items.len > 0)
        try out.print(arena, "ROW({s}) IS DISTINCT FROM ROW({s})", .{ olds[1].items, news[1].items });
    if (olds[0].items.len > 0) try out.print(arena, "{s}ROW({s})::record OPERATOR(pg_catalog.*<>) ROW({s})::record", .{
        if (out.items.len > 0) " OR " else "", olds[0].items, news[0].items,
    });
    return out.items;
}
