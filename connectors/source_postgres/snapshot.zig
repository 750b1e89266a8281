//! rb_snapshot: one state of the database that is also a position in its WAL.
//!
//! A temporary replication slot is what the server makes the two for: its snapshot holds what was committed before its
//! consistent point and nothing else. The slot goes at once; the transaction that took its snapshot over stays until
//! `rb_close`, for other sessions to read in.
//!
//! https://www.postgresql.org/docs/current/protocol-replication.html (CREATE_REPLICATION_SLOT … USE_SNAPSHOT)

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const ServerFacts = @import("server_facts.zig").ServerFacts;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const Connection = postgres.Connection;
const ident = postgres.ident;

const doing = "taking a snapshot that is a position in the WAL";

pub const Taken = struct {
    /// For SET TRANSACTION SNAPSHOT.
    id: []const u8,
    lsn: []const u8,
    /// As the server prints it, in UTC.
    taken_at: []const u8,
    /// The database system, and which of its histories: positions and transactions' numbers of others mean something else.
    system: []const u8,
};

pub fn take(arena: Allocator, session: *Session) !Taken {
    if (session.snapshot != null) return sdk.fail(.protocol, "rb_snapshot was called before", .{});
    const server: ServerFacts = try .find(arena, session);
    try server.requireLogical();
    try server.requireReplication();
    try server.requireSlots(1);
    try server.requireSenders(1);
    sdk.host.log(.info, "taking a snapshot: the server waits for every transaction that is going on", .{});

    const connection = try session.openReplication();
    errdefer connection.close();
    var random: [8]u8 = undefined;
    try sdk.host.random(&random);
    const name = try std.fmt.allocPrint(arena, "rapidbyte_snapshot_{x}", .{std.mem.readInt(u64, &random, .little)});
    const identified = try run(arena, connection, "IDENTIFY_SYSTEM");
    if (identified.rows.len != 1 or identified.columns.len < 2) return broken(connection);
    _ = try run(arena, connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const made = try run(arena, connection, try std.fmt.allocPrint(
        arena,
        "CREATE_REPLICATION_SLOT {s} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
        .{try ident.quote(arena, name)},
    ));
    if (made.rows.len != 1 or made.columns.len < 2) return broken(connection);
    const exported = try run(arena, connection, "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp()");
    if (exported.rows.len != 1 or exported.columns.len != 2) return broken(connection);
    _ = try run(arena, connection, try std.fmt.allocPrint(
        arena,
        "SELECT pg_catalog.pg_drop_replication_slot({s})",
        .{try ident.literal(arena, name)},
    ));
    const taken: Taken = .{
        .id = exported.rows[0][0] orelse return broken(connection),
        .lsn = made.rows[0][1] orelse return broken(connection),
        .taken_at = exported.rows[0][1] orelse return broken(connection),
        .system = try std.fmt.allocPrint(arena, "{s}/{s}", .{
            identified.rows[0][0] orelse return broken(connection),
            identified.rows[0][1] orelse return broken(connection),
        }),
    };
    session.snapshot = connection;
    return taken;
}

fn run(arena: Allocator, connection: *Connection, command: []const u8) !postgres.Result {
    return connection.command(arena, command) catch |err| postgres.failure.report(connection, err, doing);
}

fn broken(connection: *Connection) postgres.failure.Error {
    return postgres.failure.report(
        connection,
        connection.protocolError("the answer is not as it should be", .{}),
        doing,
    );
}
