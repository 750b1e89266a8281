//! What went wrong with a session, as the connector's failure: which kind, and what to do about it.
//!
//! The kind decides whether a run is tried again, so the table below is the one place where SQLSTATEs are judged.
//! https://www.postgresql.org/docs/current/errcodes-appendix.html

const std = @import("std");
const sdk = @import("sdk");
const Connection = @import("connection.zig").Connection;
const ServerError = @import("server_error.zig").ServerError;
const Transport = @import("transport.zig").Transport;

const Kind = sdk.errors.Kind;

/// What a verb returns: a recorded failure, or a status of the host's for it to explain.
pub const Error = Transport.Error || error{OutOfMemory};

/// Records what `err` of a call on `connection` means. `doing` continues "… while": `reading public.users`.
pub fn report(connection: *const Connection, err: Connection.Error, doing: []const u8) Error {
    return switch (err) {
        error.Server => fromServer(connection, doing),
        error.Closed => sdk.errors.failHinted(
            .transient_network,
            "look into the server's log: it may have been restarted, or the session terminated",
            "the server closed the connection while {s}",
            .{doing},
        ),
        error.Timeout => sdk.errors.failHinted(
            .timeout,
            "see what the server is doing (pg_stat_activity), or whether a lock is waited for",
            "no answer came from the server while {s}",
            .{doing},
        ),
        error.Protocol => sdk.errors.failHinted(
            .protocol,
            "make sure that host and port lead to PostgreSQL",
            "the server broke the protocol while {s}: {s}",
            .{ doing, connection.problem.buffered() },
        ),
        error.TooLarge => sdk.errors.fail(
            .resource,
            "a message from the server is larger than {d} bytes while {s}",
            .{ connection.receiver.limit, doing },
        ),
        error.OutOfMemory => error.OutOfMemory,
        // The host knows why, and says so.
        error.Invalid, error.Cancelled, error.Denied, error.Failed, error.Aborted => |host_status| host_status,
    };
}

/// Records the server's own error, which `connection` keeps.
pub fn fromServer(connection: *const Connection, doing: []const u8) sdk.errors.Failed {
    const said = connection.last_error orelse ServerError{ .message = "an error without a message" };
    return fromServerError(said, doing);
}

fn fromServerError(said: ServerError, doing: []const u8) sdk.errors.Failed {
    var message: [message_bytes_max]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&message);
    // Cut where the buffer ends. `connecting: ` says nothing that the message does not.
    if (!std.mem.eql(u8, doing, "connecting")) writer.print("{s}: ", .{doing}) catch {};
    writer.writeAll(said.message) catch {};
    var detail: [message_bytes_max]u8 = undefined;
    const verdict = judge(said.sqlstate);
    return sdk.errors.failWith(.{
        .kind = verdict.kind,
        .message = writer.buffered(),
        .detail = detailOf(said, &detail),
        .hint = said.hint orelse verdict.hint,
        .sqlstate = said.sqlstate,
    });
}

/// Bytes of a failure's message and of its detail; what is longer is cut.
const message_bytes_max = 4096;

/// Where COPY stands (its line and column) is in the server's call stack, and worth as much as the detail.
fn detailOf(said: ServerError, buffer: []u8) ?[]const u8 {
    if (said.where == null) return said.detail;
    var writer: std.Io.Writer = .fixed(buffer);
    if (said.detail) |detail| writer.print("{s}\n", .{detail}) catch {};
    writer.writeAll(said.where.?) catch {};
    return writer.buffered();
}

pub const Verdict = struct { kind: Kind, hint: ?[]const u8 = null };

/// By the whole SQLSTATE first, by its class second.
pub fn judge(sqlstate: []const u8) Verdict {
    for (by_state) |entry| if (std.mem.eql(u8, entry[0], sqlstate)) return entry[1];
    if (sqlstate.len >= 2) for (by_class) |entry| if (std.mem.eql(u8, entry[0], sqlstate[0..2])) return entry[1];
    return .{ .kind = .internal };
}

const Entry = struct { []const u8, Verdict };

const by_state = [_]Entry{
    .{ "28P01", .{ .kind = .auth, .hint = "check `user` and `password`" } },
    .{
        "28000",
        .{
            .kind = .auth,
            .hint = "check `user`, and the server's pg_hba.conf for this user, database, address and TLS",
        },
    },
    .{ "42501", .{ .kind = .permission, .hint = "grant the missing privilege to the user of the config" } },
    .{
        "25006",
        .{ .kind = .permission, .hint = "connect to the primary server: this one is read-only" },
    },
    .{ "3D000", .{ .kind = .not_found, .hint = "check `database`" } },
    .{ "3F000", .{ .kind = .not_found, .hint = "check `schema`" } },
    .{ "42P01", .{ .kind = .not_found, .hint = "check the table's name and `schema`" } },
    .{ "42703", .{ .kind = .not_found, .hint = "check the names of columns" } },
    .{ "42704", .{ .kind = .not_found, .hint = "create the type or extension, or leave the column out" } },
    .{ "42601", .{ .kind = .config, .hint = "check the SQL in the pipeline's `filter`" } },
    .{
        "42883",
        .{
            .kind = .config,
            .hint = "a `filter` finds functions and operators on the user's search_path: others need their schema's name",
        },
    },
    .{
        "23505",
        .{
            .kind = .data,
            .hint = "rows share what a unique index has once: name another `primary_key`, or use write_mode upsert, which keeps the last",
        },
    },
    .{ "40001", .{ .kind = .transient_db } },
    .{ "40P01", .{ .kind = .transient_db } },
    .{ "55P03", .{ .kind = .transient_db, .hint = "another session holds a lock" } },
    .{ "55006", .{ .kind = .transient_db, .hint = "another session is using it" } },
    .{
        "57P01",
        .{ .kind = .transient_db, .hint = "an administrator ended the session, or the server is shutting down" },
    },
    .{ "57P02", .{ .kind = .transient_db, .hint = "the server is recovering from a crash" } },
    .{ "57P03", .{ .kind = .transient_db, .hint = "the server is starting up or shutting down" } },
    .{ "57P05", .{ .kind = .transient_db, .hint = "the server ended the idle session" } },
    .{
        "57014",
        .{
            .kind = .timeout,
            .hint = "a time limit, an administrator or a conflict with recovery cancelled the statement",
        },
    },
    .{ "53300", .{ .kind = .transient_db, .hint = "the server's connections are all in use" } },
    .{ "53100", .{ .kind = .resource, .hint = "the server's disk is full" } },
    .{ "53200", .{ .kind = .resource, .hint = "the server is out of memory" } },
    .{ "58030", .{ .kind = .resource, .hint = "the server could not read or write a file" } },
};

const by_class = [_]Entry{
    .{ "08", .{ .kind = .transient_network } },
    .{ "0A", .{ .kind = .unsupported } },
    .{ "21", .{ .kind = .data } },
    .{ "22", .{ .kind = .data } },
    .{ "23", .{ .kind = .data } },
    .{ "28", .{ .kind = .auth } },
    .{ "40", .{ .kind = .transient_db } },
    .{ "42", .{ .kind = .config } },
    .{ "44", .{ .kind = .data } },
    .{ "53", .{ .kind = .resource } },
    .{ "54", .{ .kind = .resource } },
    .{ "55", .{ .kind = .transient_db } },
    .{ "57", .{ .kind = .transient_db } },
    .{ "58", .{ .kind = .resource } },
    // What a function or a trigger raises is about the rows that it was given.
    .{ "P0", .{ .kind = .data } },
};

test "what is worth another try is told from what is not" {
    const cases = [_]struct { []const u8, Kind }{
        .{ "28P01", .auth },              .{ "42501", .permission },   .{ "42P01", .not_found },
        .{ "08006", .transient_network }, .{ "57P01", .transient_db }, .{ "40001", .transient_db },
        .{ "53300", .transient_db },      .{ "53100", .resource },     .{ "54000", .resource },
        .{ "23505", .data },              .{ "22003", .data },         .{ "57014", .timeout },
        .{ "XX000", .internal },          .{ "", .internal },          .{ "P0001", .data },
    };
    for (cases) |case| try std.testing.expectEqual(case[1], judge(case[0]).kind);
}

test "the server's own hint goes before ours" {
    defer sdk.errors.clear();
    _ = &fromServerError(
        .{ .sqlstate = "42703", .message = "column \"nmae\" does not exist", .hint = "Perhaps you meant \"name\"." },
        "reading public.t",
    );
    const recorded = sdk.errors.current().?;
    try std.testing.expectEqualStrings("reading public.t: column \"nmae\" does not exist", recorded.message);
    try std.testing.expectEqualStrings("Perhaps you meant \"name\".", recorded.hint.?);
    try std.testing.expectEqualStrings("42703", recorded.sqlstate.?);
}
