//! The rows of a table are replaced where they are: the new ones wait in a table beside it, and one transaction deletes
//! and inserts. Snapshots make that exact for every reader; views, foreign keys, triggers, grants and publications are
//! not touched.
//!
//! Where other tables' foreign keys point to the target, deleting a row that comes back in the next moment would fire
//! their ON DELETE actions. There the two sets are compared by the referenced key, and only real differences are
//! written, in one statement, at whose end the foreign keys are checked.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const ranges = @import("ranges.zig");
const Column = columns_module.Column;
const Guard = @import("guard.zig").Guard;
const Landing = @import("landing.zig").Landing;
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

/// The temporary table, as SQL.
pub const beside = "pg_temp._rapidbyte_new";

pub const Beside = struct {
    /// Has a column that numbers the rows as they come.
    numbered: bool,
    /// Is there, and empty, in the next transaction too.
    stays: bool = false,
};

pub fn createBeside(arena: Allocator, session: *Session, columns: []const Column, options: Beside) ![]const u8 {
    const ordinal = if (!options.numbered) "" else try std.mem.concat(arena, u8, &.{
        ", ", try columns_module.ordinalName(arena, columns), " ", columns_module.ordinal_definition,
    });
    const sql = try std.fmt.allocPrint(
        arena,
        // One that stays is there already when the stream's columns change on the way.
        "DROP TABLE IF EXISTS {s}; CREATE TEMPORARY TABLE {s} ({s}{s}) ON COMMIT {s}",
        .{
            beside,
            beside,
            try columns_module.definitionList(arena, columns, .beside),
            ordinal,
            if (options.stays) "DELETE ROWS" else "DROP",
        },
    );
    try session.exec(sql, "creating a temporary table for the new rows");
    return beside;
}

/// Replaces the target's rows by those of table `from`.
pub fn publish(arena: Allocator, landing: *Landing, from: []const u8) !void {
    const session = landing.session;
    const target = landing.target;
    const columns = landing.columns;
    const started = sdk.host.now();
    const doing = try std.fmt.allocPrint(arena, "publishing {s}", .{target.label});
    try claim(arena, landing, doing);
    const key = try referencedKey(arena, session, target, columns);
    const names = try columns_module.nameList(arena, columns);
    const sql = if (key.len == 0)
        try std.fmt.allocPrint(
            arena,
            "DELETE FROM {s}; INSERT INTO {s} ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM {s}",
            .{ target.quoted, target.quoted, names, names, from },
        )
    else
        try differences(arena, target, columns, from, key);
    if (key.len > 0) try session.exec(try std.fmt.allocPrint(arena, "ANALYZE {s}", .{from}), doing);
    try session.seeAsUser();
    if (key.len > 0) try clear(arena, landing, doing);
    try session.exec(sql, doing);
    try tighten(arena, landing, doing);
    sdk.host.metric("rewrite_seconds", @as(f64, @floatFromInt(sdk.host.now() - started)) / 1e6);
}

/// `publish` of the numbered rows beside, before the host is told of the checkpoint: those that the target refuses are left
/// out.
pub fn sift(arena: Allocator, landing: *Landing, guard: *Guard) !void {
    const session = landing.session;
    const started = sdk.host.now();
    const doing = try std.fmt.allocPrint(arena, "publishing {s}", .{landing.target.label});
    try claim(arena, landing, doing);
    // Foreign keys may have been made since the rows began to come.
    try requireNoReferences(arena, landing);
    try session.seeAsUser();
    try session.exec(try std.fmt.allocPrint(arena, "DELETE FROM {s}", .{landing.target.quoted}), doing);
    // The rows to come have to fit it.
    try tighten(arena, landing, doing);
    try session.seeAsUser();
    try siftInto(arena, landing, guard, doing);
    sdk.host.metric("rewrite_seconds", @as(f64, @floatFromInt(sdk.host.now() - started)) / 1e6);
}

/// Adds the numbered rows beside to the target.
pub fn siftInto(arena: Allocator, landing: *Landing, guard: *Guard, doing: []const u8) !void {
    var rows: ranges.TableRows(Insert) = .{
        .landing = landing,
        .write = .{ .landing = landing, .doing = doing },
        .table = beside,
        .ordinal = try columns_module.ordinalName(arena, landing.columns),
        .doing = doing,
        .scratch = .init(landing.session.gpa),
    };
    try rows.sift(guard);
}

/// Adds rows of another table.
pub const Insert = struct {
    landing: *const Landing,
    doing: []const u8,

    pub fn write(self: Insert, arena: Allocator, from: []const u8) !void {
        const names = try columns_module.nameList(arena, self.landing.columns);
        try self.landing.session.exec(try std.fmt.allocPrint(
            arena,
            "INSERT INTO {s} ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM {s} AS new",
            .{ self.landing.target.quoted, names, names, from },
        ), self.doing);
    }
};

/// Where foreign keys point to the target, its old rows and the new ones are compared in one statement, of which no single
/// row can be left out.
pub const referenced_message =
    "{s} is replaced, and foreign keys point to it: leaving rows out is not supported yet there";
pub const referenced_hint = "use write_mode upsert, or `on_data_error: fail`, or drop the foreign keys";

pub fn requireNoReferences(arena: Allocator, landing: *const Landing) !void {
    if (!try isReferenced(arena, landing.session, landing.existing.?.oid)) return;
    return sdk.errors.failHinted(.unsupported, referenced_hint, referenced_message, .{landing.target.label});
}

pub fn isReferenced(arena: Allocator, session: *Session, oid: u32) !bool {
    const found = try session.query(
        arena,
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1::pg_catalog.oid)",
        &.{try std.fmt.allocPrint(arena, "{d}", .{oid})},
        "looking for foreign keys to the target table",
    );
    return std.mem.eql(u8, found.scalar() orelse "", "t");
}

/// Writers wait from here on, and the table is as the rows were made for.
fn claim(arena: Allocator, landing: *Landing, doing: []const u8) !void {
    const session = landing.session;
    const target = landing.target;
    // Writers wait, readers do not. A policy that hides rows would make the replacement incomplete: an error instead.
    try session.exec("SET LOCAL row_security = off", doing);
    if (landing.changesTable()) {
        try landing.alter(arena);
    } else {
        _ = try session.lockTable(arena, .{
            .table = target.quoted,
            .label = target.label,
            .mode = "SHARE ROW EXCLUSIVE",
            .doing = doing,
        });
    }
    try session.seeCatalog();
    // Another session may have replaced the table, or altered it, until a moment ago.
    try landing.requireUnchanged(arena);
}

fn tighten(arena: Allocator, landing: *Landing, doing: []const u8) !void {
    const evolution = landing.evolution orelse return;
    if (evolution.tightenings.len == 0) return;
    // Foreign keys that wait for the end stand in the way of an ALTER TABLE.
    try landing.session.exec("SET CONSTRAINTS ALL IMMEDIATE", doing);
    try landing.tighten(arena, landing.target.quoted);
}

/// Rows that stay keep nothing of the columns that the stream does not have any more.
fn clear(arena: Allocator, landing: *const Landing, doing: []const u8) !void {
    const evolution = landing.evolution orelse return;
    if (evolution.removed.len == 0) return;
    const sql = try std.fmt.allocPrint(arena, "UPDATE {s} SET {s} WHERE {s}", .{
        landing.target.quoted,
        try joined(arena, "{s} = DEFAULT", ", ", evolution.removed),
        try joined(arena, "{s} IS NOT NULL", " OR ", evolution.removed),
    });
    try landing.session.exec(sql, doing);
}

/// The key that foreign keys point to, empty when there are none. The primary key goes before other unique ones.
fn referencedKey(
    arena: Allocator,
    session: *Session,
    target: *const Target,
    columns: []const Column,
) ![]const []const u8 {
    const found = try session.query(arena,
        \\SELECT a.attname
        \\FROM (SELECT f.confrelid, f.confkey
        \\      FROM pg_constraint f
        \\      JOIN pg_class c ON c.oid = f.confrelid
        \\      JOIN pg_namespace n ON n.oid = c.relnamespace
        \\      LEFT JOIN pg_index i ON i.indexrelid = f.conindid
        \\      WHERE f.contype = 'f' AND n.nspname = $1 AND c.relname = $2
        \\      ORDER BY i.indisprimary DESC NULLS LAST, f.oid
        \\      LIMIT 1) AS f
        \\CROSS JOIN LATERAL unnest(f.confkey) WITH ORDINALITY AS k(attnum, position)
        \\JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
        \\ORDER BY k.position
    , &.{ target.schema, target.table }, "looking for foreign keys to the target table");
    const key = try arena.alloc([]const u8, found.rows.len);
    for (key, found.rows) |*name, row| {
        name.* = try postgres.ident.quote(arena, row[0].?);
        if (!isColumn(columns, row[0].?)) return sdk.errors.failHinted(
            .schema,
            "add the column to the stream's `columns`, or drop the foreign keys",
            "{s} cannot be replaced: foreign keys point to its column {s}, which the stream does not have",
            .{ target.label, row[0].? },
        );
    }
    return key;
}

fn isColumn(columns: []const Column, name: []const u8) bool {
    for (columns) |column| if (std.mem.eql(u8, column.name, name)) return true;
    return false;
}

fn isInteger(type_name: []const u8) bool {
    inline for (.{ "smallint", "integer", "bigint" }) |name| if (std.mem.eql(u8, type_name, name)) return true;
    return false;
}

/// One statement with three parts; each waits for the one before it by counting its rows, so that a unique value that
/// moves from a deleted row to a new one is free by then.
fn differences(
    arena: Allocator,
    target: *const Target,
    columns: []const Column,
    from: []const u8,
    key: []const []const u8,
) ![]const u8 {
    const same_key = try joined(arena, "old.{s} = new.{s}", " AND ", key);
    const all = try arena.alloc([]const u8, columns.len);
    var changing: std.ArrayList([]const u8) = .empty;
    for (all, columns) |*name, column| {
        name.* = column.quoted;
        // Equal keys may be different values all the same: 1.0 and 1.00. Not integers, of which identities are made,
        // that must not be updated.
        const fixed = isInteger(column.type) and for (key) |part| {
            if (std.mem.eql(u8, part, column.quoted)) break true;
        } else false;
        if (!fixed) try changing.append(arena, column.quoted);
    }
    const names = try columns_module.nameList(arena, columns);
    const new = try std.fmt.allocPrint(arena, "{s} AS new", .{from});
    // `*<>` compares the stored bytes, so that it works for types without equality, and 1.0 differs from 1.00.
    const update = if (changing.items.len == 0) "SELECT FROM gone" else try std.fmt.allocPrint(arena,
        \\UPDATE {s} AS old SET {s} FROM {s}
        \\WHERE {s} AND ROW({s})::record OPERATOR(pg_catalog.*<>) ROW({s})::record AND (SELECT count(*) FROM gone) >= 0
        \\RETURNING 1
    , .{
        target.quoted,                                      try joined(arena, "{s} = new.{s}", ", ", changing.items), new, same_key,
        try joined(arena, "old.{s}", ", ", changing.items), try joined(arena, "new.{s}", ", ", changing.items),
    });
    return std.fmt.allocPrint(arena,
        \\WITH gone AS (
        \\    DELETE FROM {s} AS old WHERE NOT EXISTS (SELECT FROM {s} WHERE {s}) RETURNING 1
        \\), changed AS (
        \\    {s}
        \\)
        \\INSERT INTO {s} ({s}) OVERRIDING SYSTEM VALUE
        \\SELECT {s} FROM {s}
        \\WHERE NOT EXISTS (SELECT FROM {s} AS old WHERE {s}) AND (SELECT count(*) FROM changed) >= 0
    , .{
        target.quoted, new,      same_key, update,
        target.quoted, names,    names,    new,
        target.quoted, same_key,
    });
}

/// The template for each name, its `{s}`s all that name.
fn joined(arena: Allocator, comptime template: []const u8, separator: []const u8, names: []const []const u8) ![]const u8 {
    const twice = comptime std.mem.count(u8, template, "{s}") == 2;
    var out: std.ArrayList(u8) = .empty;
    for (names, 0..) |name, i| {
        if (i > 0) try out.appendSlice(arena, separator);
        try out.print(arena, template, if (twice) .{ name, name } else .{name});
    }
    return out.items;
}
