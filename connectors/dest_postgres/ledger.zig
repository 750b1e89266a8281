//! The ledger of staged rows: a table beside theirs.
//!
//!     shard   rows   bytes
//!     0       1000   90112    what each shard has loaded, in the shard's own transaction
//!     …
//!     -1        -3       0    rows that went and came since, where loaded shards were brought up to a later snapshot
//!
//! So nobody has to read the rows to count them, and no shard is loaded twice. Of a load that a later run can take up, the
//! ledger's comment tells all that has to be known for it. Each attempt has a ledger of its own, with the lines of the one
//! before: whoever is late and belongs to that one does not find his.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const relation = @import("relation.zig");
const Session = @import("session.zig").Session;
const Staged = @import("stage.zig").Staged;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const corrections = -1;

const doing = "keeping the ledger of the shards' rows";

/// With no lines.
pub fn create(arena: Allocator, session: *Session, schema: []const u8, name: []const u8, is_logged: bool) !u32 {
    try session.exec(try std.fmt.allocPrint(
        arena,
        "CREATE {s}TABLE {s} (shard integer PRIMARY KEY, rows bigint NOT NULL, bytes bigint NOT NULL)",
        .{ if (is_logged) "" else "UNLOGGED ", try postgres.ident.qualified(arena, schema, name) },
    ), doing);
    const created = try relation.Relation.find(arena, session, schema, name);
    return created.?.oid;
}

pub fn add(arena: Allocator, session: *Session, staged: *const Staged, rows: u64, bytes: u64) !void {
    try session.exec(try std.fmt.allocPrint(
        arena,
        "INSERT INTO {s} (shard, rows, bytes) VALUES ({d}, {d}, {d})",
        .{ try staged.quotedLedger(arena), session.shard.?, rows, bytes },
    ), doing);
}

pub fn correct(arena: Allocator, session: *Session, staged: *const Staged, rows: i64, bytes: u64) !void {
    try session.exec(try std.fmt.allocPrint(
        arena,
        "INSERT INTO {s} AS known (shard, rows, bytes) VALUES ({d}, {d}, {d}) " ++
            "ON CONFLICT (shard) DO UPDATE SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes",
        .{ try staged.quotedLedger(arena), corrections, rows, bytes },
    ), doing);
}

pub const Sum = struct { rows: u64, bytes: u64 };

pub fn sum(arena: Allocator, session: *Session, staged: *const Staged) !Sum {
    const counted = try session.query(arena, try std.fmt.allocPrint(
        arena,
        "SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM {s}",
        .{try staged.quotedLedger(arena)},
    ), &.{}, doing);
    return .{
        .rows = relation.number(u64, counted.rows[0][0]),
        .bytes = relation.number(u64, counted.rows[0][1]),
    };
}

/// The numbers of the shards that are there.
pub fn loaded(arena: Allocator, session: *Session, staged: *const Staged) ![]const u32 {
    const found = try session.query(arena, try std.fmt.allocPrint(
        arena,
        "SELECT shard FROM {s} WHERE shard > {d} ORDER BY shard",
        .{ try staged.quotedLedger(arena), corrections },
    ), &.{}, doing);
    const numbers = try arena.alloc(u32, found.rows.len);
    for (numbers, found.rows) |*shard, row| shard.* = relation.number(u32, row[0]);
    return numbers;
}

/// Nothing counts as loaded any more.
pub fn clear(arena: Allocator, session: *Session, staged: *const Staged) !void {
    try session.exec(try std.fmt.allocPrint(arena, "DELETE FROM {s}", .{try staged.quotedLedger(arena)}), doing);
}

/// Another ledger with the same lines. Nobody holds the staging table meanwhile.
pub fn renew(arena: Allocator, session: *Session, staged: *const Staged) !u32 {
    const quoted = try staged.quotedLedger(arena);
    const old = try std.fmt.allocPrint(arena, "{s}_old", .{staged.ledger});
    try session.exec(try std.fmt.allocPrint(
        arena,
        "ALTER TABLE {s} RENAME TO {s}",
        .{ quoted, try postgres.ident.quote(arena, old) },
    ), doing);
    const oid = try create(arena, session, staged.schema, staged.ledger, staged.role != .gives_rows);
    const quoted_old = try postgres.ident.qualified(arena, staged.schema, old);
    try session.exec(try std.fmt.allocPrint(
        arena,
        "INSERT INTO {s} SELECT * FROM {s}; DROP TABLE {s}",
        .{ quoted, quoted_old, quoted_old },
    ), doing);
    return oid;
}

/// Writes down what a later run has to know.
pub fn describe(arena: Allocator, session: *Session, staged: *const Staged) !void {
    try session.exec(try std.fmt.allocPrint(arena, "COMMENT ON TABLE {s} IS {s}", .{
        try staged.quotedLedger(arena),
        try postgres.ident.literal(arena, try json.stringify(arena, staged)),
    }), doing);
}

/// What an earlier run wrote down, of the ledgers of this name; null: nothing, or nothing that can be read.
pub fn described(arena: Allocator, session: *Session, name: []const u8) !?Staged {
    const found = try session.query(
        arena,
        "SELECT pg_catalog.obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c " ++
            "WHERE c.relname = $1 AND c.relkind = 'r' AND pg_catalog.pg_has_role(c.relowner, 'USAGE') " ++
            "AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')",
        &.{name},
        "looking for what an earlier run left behind",
    );
    if (found.rows.len != 1) return null;
    return json.parse(Staged, arena, found.rows[0][0] orelse return null) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => null,
    };
}
