//! The tables of a transaction, locked at once and looked at once: where they are still as they were, nothing has to be
//! found out about them again.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Replica = @import("replica.zig").Replica;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

const doing = "locking the tables that are written";

/// What there is to know of the columns of a table, whose name is a literal, as a query of one value.
const description =
    \\(SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attrelid, a.attnum, a.attname, a.atttypid,
    \\    a.atttypmod, a.attnotnull, a.attgenerated, a.attidentity, a.attisdropped), ';' ORDER BY a.attnum))
    \\ FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass({s}) AND a.attnum > 0)
;

/// Claims all that wait, in two round trips. False where that does not do: then nothing is claimed, and each is to be
/// claimed by itself.
pub fn takeAll(arena: Allocator, session: *Session, replicas: []const *Replica) !bool {
    var tables: std.ArrayList(u8) = .empty;
    var wanted: std.ArrayList(*Replica) = .empty;
    for (replicas) |replica| {
        if (!replica.waits() or replica.claimed) continue;
        try tables.print(arena, "{s}ONLY {s}", .{ if (tables.items.len > 0) ", " else "", replica.target.quoted });
        try wanted.append(arena, replica);
    }
    if (wanted.items.len == 0) return true;
    session.connection.exec(try std.fmt.allocPrint(
        arena,
        "SAVEPOINT rapidbyte_claims; SET LOCAL lock_timeout = '1s'; LOCK TABLE {s} IN ROW EXCLUSIVE MODE; " ++
            "SET LOCAL lock_timeout TO DEFAULT; RELEASE SAVEPOINT rapidbyte_claims",
        .{tables.items},
    )) catch |err| {
        // Somebody holds one of them, it is gone, or the role may write some of its columns only.
        const failed = session.failed(err, doing);
        if (err != error.Server) return failed;
        sdk.errors.clear();
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_claims; RELEASE SAVEPOINT rapidbyte_claims", doing);
        return false;
    };
    const found = try descriptions(arena, session, wanted.items);
    for (wanted.items, found) |replica, now| if (!replica.isAsItWas(now)) return false;
    for (wanted.items) |replica| replica.claimed = true;
    try session.seeAsUser();
    return true;
}

/// Of each table; null where there is none.
pub fn descriptions(arena: Allocator, session: *Session, replicas: []const *const Replica) ![]const ?[]const u8 {
    var sql: std.ArrayList(u8) = .empty;
    for (replicas, 0..) |replica, i| {
        try sql.appendSlice(arena, if (i == 0) "SELECT " else ", ");
        try sql.print(arena, description, .{try postgres.ident.literal(arena, replica.target.quoted)});
    }
    const found = try session.query(arena, sql.items, &.{}, doing);
    return found.rows[0];
}
