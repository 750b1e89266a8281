//! Rows that take the place of those with the same key, or are added: one transaction from barrier to barrier.
//!
//!     batch     keys looked at (NULL? seen before?) ─ COPY ─▶ temporary table, which numbers the rows as they come
//!     complete  of several rows with one key all but the last go, unless they are known to be all different;
//!               then one MERGE into the target, which leaves alone what is there already
//!
//! MERGE hashes the target's keys and row positions and no more, which makes it the fastest way by far (PostgreSQL 15).
//! When somebody else inserts one of the keys at the same time, MERGE fails where INSERT … ON CONFLICT waits and updates:
//! that is the second try, and the only one on older servers. It looks up every single key in the index, and fires
//! triggers BEFORE INSERT for rows that are updated too.
//!
//! A table that is not there yet is filled first and gets its key afterwards.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const distinct = @import("distinct.zig");
const target_module = @import("target.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Distinct = distinct.Distinct;
const Load = @import("load.zig").Load;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;
const arrow = sdk.arrow;

const staging_name = "pg_temp._rapidbyte_upsert";

const table_columns_max = 1600;
const merge_since = 150000;

/// What a hash of a million keys takes: the join of the rows with the target stays in memory up to about there.
const work_mem = "64MB";

pub const Upsert = struct {
    /// For what lives as long as the verb.
    arena: Allocator,
    session: *Session,
    target: *const Target,
    load: Load,
    columns: []const Column,
    key: []const []const u8,
    /// Which of `columns` are the key's.
    key_columns: []const usize,
    distinct: Distinct,
    /// The temporary table's column of arrival, as SQL.
    ordinal: []const u8,
    created: bool,
    /// Null until the target that was made here has its key.
    statements: ?Statements,
    /// Rows since the last commit.
    pending: u64 = 0,

    /// In an open transaction; it may be another one afterwards.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        schema: *const arrow.Schema,
        named_key: ?[]const []const u8,
    ) !Upsert {
        const key = try target_module.requiredKey(arena, schema, named_key, target.label);
        const existing = try target.find(arena, session);
        const columns = if (existing) |*found|
            try columns_module.forExistingTable(arena, session, schema, found, target.label, true)
        else
            try columns_module.forNewTable(arena, session, schema, target.label);
        if (columns.len >= table_columns_max) return sdk.errors.failHinted(
            .unsupported,
            "leave a column out, or use another write mode",
            "an upsert into {s} takes a temporary table with one column more than the stream's {d}, and tables have at most {d}",
            .{ target.label, columns.len, table_columns_max },
        );
        const key_columns = try arena.alloc(usize, key.len);
        for (key_columns, key) |*index, name| index.* = schema.indexOf(name).?;
        const arbiter: ?Arbiter = if (existing) |*found|
            try Arbiter.require(arena, session, target, found.oid, key)
        else
            null;
        if (existing == null) {
            try target.create(arena, session, columns);
            try Arbiter.rehearse(arena, session, target, key);
        }

        const ordinal = try ordinalName(arena, columns);
        try createStaging(arena, session, columns, key_columns, arbiter, ordinal);
        return .{
            .arena = arena,
            .session = session,
            .target = target,
            .columns = columns,
            .key = key,
            .key_columns = key_columns,
            .distinct = .{
                .gpa = session.gpa,
                .columns = if (areExact(schema, columns, key_columns, arbiter)) key_columns else &.{},
            },
            .ordinal = ordinal,
            .created = existing == null,
            .statements = if (existing) |*found|
                try .init(arena, target, columns, key_columns, &arbiter.?, found)
            else
                null,
            .load = try .init(arena, session, .{
                .table = staging_name,
                .columns = columns,
                .ordinal = ordinal,
                .way = .of(columns, true),
                .doing = target.doing,
            }),
        };
    }

    pub fn deinit(self: *Upsert) void {
        self.distinct.deinit();
    }

    /// `first_row` is the stream's number of the batch's first row, for errors.
    pub fn add(self: *Upsert, batch: *const arrow.Batch, first_row: u64) !void {
        for (self.key_columns) |column| {
            const view = &batch.columns[column];
            if (view.null_count == 0) continue;
            for (0..batch.rows) |row| if (view.isNull(row)) return sdk.errors.failHinted(
                .data,
                "a row whose key is not known cannot be found again: filter it out, or name another `primary_key`",
                "{s}: column {s} of row {d} is NULL, and it is part of the key",
                .{ self.target.doing, self.columns[column].name, first_row + row + 1 },
            );
        }
        self.distinct.add(batch);
        try self.load.add(batch, first_row);
        self.pending += batch.rows;
    }

    /// Before COMMIT. `arena` lives until then.
    pub fn complete(self: *Upsert, arena: Allocator) !void {
        try self.load.finish();
        const started = sdk.host.now();
        if (self.pending > 0) {
            try self.makeRoom(arena);
            if (self.distinct.verdict == .maybe_not) try self.removeSuperseded(arena);
        }
        if (self.statements) |*statements| {
            if (self.pending > 0) try self.merge(arena, statements);
        } else {
            try self.fill(arena);
        }
        sdk.host.metric("upsert_seconds", @as(f64, @floatFromInt(sdk.host.now() - started)) / 1e6);
    }

    /// After COMMIT, which emptied the temporary table.
    pub fn committed(self: *Upsert) void {
        self.load.forgetStaging();
        self.distinct.reset();
        self.pending = 0;
    }

    fn makeRoom(self: *Upsert, arena: Allocator) !void {
        _ = try self.session.query(
            arena,
            "SELECT pg_catalog.set_config('work_mem', $1, true) " ++
                "WHERE pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) < pg_catalog.pg_size_bytes($1)",
            &.{work_mem},
            "setting the memory of the upsert",
        );
    }

    fn removeSuperseded(self: *Upsert, arena: Allocator) !void {
        const doing = self.target.doing;
        const names = try keyList(arena, self.columns, self.key_columns);
        const repeated = try self.session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT EXISTS (SELECT FROM {s} GROUP BY {s} HAVING pg_catalog.count(*) > 1)",
            .{ staging_name, names },
        ), &.{}, doing);
        if (!std.mem.eql(u8, repeated.scalar() orelse "", "t")) return;
        const removed = try self.session.query(arena, try std.fmt.allocPrint(arena,
            \\DELETE FROM {s} WHERE {s} IN (
            \\    SELECT {s} FROM (
            \\        SELECT {s}, pg_catalog.lead(1) OVER (PARTITION BY {s} ORDER BY {s}) AS later FROM {s}
            \\    ) AS rows WHERE later IS NOT NULL)
        , .{ staging_name, self.ordinal, self.ordinal, self.ordinal, names, self.ordinal, staging_name }), &.{}, doing);
        sdk.host.log(.info, "{s}: later rows with the same key supersede others: {s}", .{ doing, removed.command_tag });
    }

    /// The rows of a target that was made in this transaction, and then its key.
    fn fill(self: *Upsert, arena: Allocator) !void {
        const names = try columns_module.nameList(arena, self.columns);
        try self.session.exec(try std.fmt.allocPrint(
            arena,
            "INSERT INTO {s} ({s}) SELECT {s} FROM {s}",
            .{ self.target.quoted, names, names, staging_name },
        ), self.target.doing);
        try self.target.addPrimaryKey(arena, self.session, self.key);
        try self.session.seeCatalog();
        const made = try self.target.find(arena, self.session) orelse
            return sdk.fail(.internal, "{s} is not there after it was made", .{self.target.label});
        const found = try Arbiter.find(arena, self.session, made.oid, self.key);
        // For the commits to come.
        self.statements = try .init(self.arena, self.target, self.columns, self.key_columns, &found.usable.?, &made);
        try self.session.seeAsUser();
    }

    fn merge(self: *Upsert, arena: Allocator, statements: *const Statements) !void {
        const session = self.session;
        const doing = self.target.doing;
        const names = try keyList(arena, self.columns, self.key_columns);
        // Whether the target is read as a whole or by its index is for the planner to decide, who has to know how many
        // rows come.
        try session.exec(try std.fmt.allocPrint(arena, "ANALYZE {s} ({s})", .{ staging_name, names }), doing);
        if (statements.fixed) |fixed| try fixed.check(arena, session, self.target);
        if (session.connection.server_version < merge_since) return session.exec(statements.on_conflict, doing);
        try session.exec("SAVEPOINT rapidbyte_merge", doing);
        session.connection.exec(statements.merge) catch |err| {
            const failed = session.failed(err, doing);
            if (err != error.Server or !std.mem.eql(u8, session.connection.last_error.?.sqlstate, "23505")) return failed;
            sdk.errors.clear();
            sdk.host.log(.info, "{s}: a key was inserted by somebody else: trying again, key by key", .{doing});
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_merge", doing);
            return session.exec(statements.on_conflict, doing);
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_merge", doing);
    }
};

/// How the rows get into a target that has its key.
const Statements = struct {
    merge: []const u8,
    on_conflict: []const u8,
    fixed: ?Fixed,

    fn init(
        arena: Allocator,
        target: *const Target,
        columns: []const Column,
        key_columns: []const usize,
        arbiter: *const Arbiter,
        relation: *const Relation,
    ) !Statements {
        var changing: std.ArrayList(Column) = .empty;
        var fixed: std.ArrayList(Column) = .empty;
        for (columns, 0..) |column, i| {
            // Equal keys may be different values all the same: 1.0 and 1.00.
            if (std.mem.findScalar(usize, key_columns, i)) |at| {
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
            "INSERT INTO {s} AS old ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM {s} AS new ON CONFLICT {s} DO ",
            .{ target.quoted, names, names, staging_name, conflict },
        );
        const update = try assignments(arena, changing.items, "new");
        return .{
            .merge = try std.fmt.allocPrint(arena,
                \\MERGE INTO {s} AS old USING {s} AS new ON {s}
                \\{s}{s}{s}{s}
                \\WHEN NOT MATCHED THEN INSERT ({s}) OVERRIDING SYSTEM VALUE VALUES ({s})
            , .{
                target.quoted,
                staging_name,
                same_key,
                if (changing.items.len > 0) "WHEN MATCHED AND (" else "",
                if (changing.items.len > 0) try difference(arena, changing.items, "new") else "",
                if (changing.items.len > 0) ") THEN UPDATE SET " else "",
                update,
                names,
                try columns_module.prefixedList(arena, columns, "new"),
            }),
            .on_conflict = if (changing.items.len == 0)
                try std.fmt.allocPrint(arena, "{s}NOTHING", .{insert})
            else
                try std.fmt.allocPrint(arena, "{s}UPDATE SET {s} WHERE {s}", .{
                    insert,
                    try assignments(arena, changing.items, "excluded"),
                    try difference(arena, changing.items, "excluded"),
                }),
            .fixed = if (fixed.items.len == 0) null else .{ .columns = fixed.items, .same_key = same_key },
        };
    }
};

/// Columns that PostgreSQL updates under no circumstances: GENERATED ALWAYS AS IDENTITY.
const Fixed = struct {
    columns: []const Column,
    same_key: []const u8,

    /// The rows that are there must have them as they come.
    fn check(self: *const Fixed, arena: Allocator, session: *Session, target: *const Target) !void {
        const changed = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT pg_catalog.count(*) FROM {s} AS old JOIN {s} AS new ON {s} WHERE {s}",
            .{ target.quoted, staging_name, self.same_key, try difference(arena, self.columns, "new") },
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

/// Types and equality of the target's, and the number of each row's arrival. Empty after each commit.
fn createStaging(
    arena: Allocator,
    session: *Session,
    columns: []const Column,
    key_columns: []const usize,
    arbiter: ?Arbiter,
    ordinal: []const u8,
) !void {
    const collated = try arena.dupe(Column, columns);
    if (arbiter) |found| for (key_columns, found.columns) |index, column| {
        collated[index].type = try std.fmt.allocPrint(arena, "{s}\n{s}", .{ collated[index].type, column.collate });
    };
    const sql = try std.fmt.allocPrint(
        arena,
        "CREATE TEMPORARY TABLE {s} ({s}, {s} " ++ columns_module.ordinal_definition ++ ") ON COMMIT DELETE ROWS",
        .{ staging_name, try columns_module.definitionList(arena, collated, .beside), ordinal },
    );
    try session.exec(sql, "creating a temporary table for the rows");
}

/// A name that none of the columns has.
fn ordinalName(arena: Allocator, columns: []const Column) ![]const u8 {
    var name: []const u8 = "\"_rapidbyte_ordinal\"";
    var i: usize = 0;
    while (i < columns.len) : (i += 1) {
        if (!std.mem.eql(u8, columns[i].quoted, name)) continue;
        name = try std.fmt.allocPrint(arena, "\"_{s}", .{name[1..]});
        i = 0;
    }
    return name;
}

/// Whether keys are equal exactly where the stream's bytes are. A stream that does not name PostgreSQL's types may bring
/// text whose last blanks the server cuts off.
fn areExact(schema: *const arrow.Schema, columns: []const Column, key_columns: []const usize, arbiter: ?Arbiter) bool {
    for (key_columns, 0..) |index, i| {
        const column = &columns[index];
        if (column.text_form or !columns_module.isExact(column.type)) return false;
        const field = &schema.fields[index];
        if (field.get(arrow.keys.pg_type) == null or !distinct.canTell(field.type)) return false;
        if (arbiter) |found| if (!found.columns[i].exact) return false;
    }
    return true;
}

fn keyList(arena: Allocator, columns: []const Column, key_columns: []const usize) ![]const u8 {
    const parts = try arena.alloc([]const u8, key_columns.len);
    for (parts, key_columns) |*part, index| part.* = columns[index].quoted;
    return std.mem.join(arena, ", ", parts);
}

/// `"a" = new."a", "b" = new."b"`.
fn assignments(arena: Allocator, columns: []const Column, comptime source: []const u8) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i|
        try out.print(arena, "{s}{s} = " ++ source ++ ".{s}", .{ if (i > 0) ", " else "", column.quoted, column.quoted });
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
