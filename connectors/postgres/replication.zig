//! A logical slot's stream of changes: COPY in both directions.
//! https://www.postgresql.org/docs/current/protocol-replication.html
//!
//!     START_REPLICATION SLOT … LOGICAL … (…)     →  CopyBothResponse 'W'
//!     from the server, in CopyData
//!       XLogData        'w' start:u64 end:u64 time:i64 payload…
//!       keepalive       'k' end:u64 time:i64 reply:u8          everything before `end` was sent or is not for us
//!     to the server, in CopyData
//!       standby status  'r' written:u64 flushed:u64 applied:u64 time:i64 reply:u8
//!     either side ends it with CopyDone 'c'; the server then says CommandComplete and ReadyForQuery
//!
//! What is flushed is what the server may forget: it moves the slot, and no change before it comes again.

const std = @import("std");
const sdk = @import("sdk");
const Connection = @import("connection.zig").Connection;
const Lsn = @import("lsn.zig").Lsn;
const ident = @import("ident.zig");
const message = @import("message.zig");
const values = @import("values.zig");

const Allocator = std.mem.Allocator;
const tag = message.tag;

/// A server that was told to stop streaming may be in the midst of a large transaction.
const end_timeout_ms = 10_000;

const data_header_bytes = 1 + 8 + 8 + 8;
/// Bytes of a message that are kept where it is too large: enough to tell what it is about, and mostly of which row.
const beginning_bytes = 4096;

/// Nothing but the network tells a dead client: the time between two answers says how busy the destination is. Settings that a
/// server does not have, or that mean nothing on a unix socket, are passed over.
const settings =
    \\select pg_catalog.set_config(name, value, false)
    \\from (values
    \\  ('wal_sender_timeout', '0'), ('tcp_keepalives_idle', '60'), ('tcp_keepalives_interval', '10'),
    \\  ('tcp_keepalives_count', '6'), ('tcp_user_timeout', '120000')
    \\) as settings(name, value)
    \\where pg_catalog.current_setting(name, true) is not null
;

pub const Options = struct {
    slot: []const u8,
    publication: []const u8,
    /// Transactions that were committed before it are not sent.
    from: Lsn,
    /// Values in the types' binary forms, where they have one. PostgreSQL 14 and later.
    binary: bool,
};

/// Binary values, and large transactions before they are committed.
pub const version_2_since = 140_000;

pub const Replication = struct {
    connection: *Connection,
    beginning: [data_header_bytes + beginning_bytes]u8 = undefined,

    pub const Event = union(enum) {
        /// One message of the plugin, valid until the next event.
        data: []const u8,
        large: Large,
        keepalive: Keepalive,
        /// Nothing came in the given time.
        quiet,
    };

    /// One message of the plugin for which there is no memory.
    pub const Large = struct {
        /// How it begins; valid until the next event.
        beginning: []const u8,
        /// Bytes of all of it.
        length: usize,
    };

    pub const Keepalive = struct {
        end: Lsn,
        /// The server wants a status now.
        reply: bool,
    };

    /// On a session that was opened for replication. `error.Server` where the slot is not to be had.
    pub fn start(connection: *Connection, gpa: Allocator, options: Options) Connection.Error!Replication {
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        try connection.exec(settings);
        const has_version_2 = connection.server_version >= version_2_since;
        try connection.startCopyBoth(try command(arena.allocator(), options, has_version_2));
        return .{ .connection = connection };
    }

    /// Whether `next` would not have to wait.
    pub fn isReady(self: *const Replication) bool {
        return self.connection.receiver.holdsMessage();
    }

    /// What comes next, within `timeout_ms` (at least 1).
    pub inline fn next(self: *Replication, timeout_ms: i32) Connection.Error!Event {
        const connection = self.connection;
        connection.receiver.timeout_ms = timeout_ms;
        while (true) {
            // A message that has come in part stays in the buffer.
            const taken = connection.receiver.next(connection.transport) catch |err| return switch (err) {
                error.Timeout => .quiet,
                error.OutOfMemory => .{ .large = try self.pass() },
                else => connection.receiverError(err),
            };
            if (taken.tag == tag.copy_data and taken.body.len >= data_header_bytes and taken.body[0] == 'w')
                return .{ .data = taken.body[data_header_bytes..] };
            if (try self.other(taken)) |keepalive| return .{ .keepalive = keepalive };
        }
    }

    /// Lets a message go by, all but its beginning.
    fn pass(self: *Replication) Connection.Error!Large {
        @branchHint(.cold);
        const connection = self.connection;
        const large = connection.receiver.openLarge() orelse return connection.receiverError(error.OutOfMemory);
        connection.receiver.timeout_ms = 0;
        var kept: usize = 0;
        var left = large.length;
        while (left > 0) {
            const piece = connection.receiver.pass(connection.transport, left) catch |err| return connection.receiverError(err);
            const wanted = piece[0..@min(piece.len, self.beginning.len - kept)];
            @memcpy(self.beginning[kept..][0..wanted.len], wanted);
            kept += wanted.len;
            left -= piece.len;
        }
        if (large.tag != tag.copy_data or kept < data_header_bytes or self.beginning[0] != 'w')
            return connection.protocolError("a message of {d} bytes of replication is malformed", .{large.length});
        return .{ .beginning = self.beginning[data_header_bytes..kept], .length = large.length - data_header_bytes };
    }

    /// Null when it was for the session.
    fn other(self: *Replication, taken: Connection.Message) Connection.Error!?Keepalive {
        const connection = self.connection;
        const received = try connection.interpret(taken) orelse return null;
        if (received.tag == tag.copy_data) {
            var body: message.Body = .{ .rest = received.body };
            if (keepaliveOf(&body)) |keepalive| return keepalive;
            return connection.protocolError("a message of {d} bytes of replication is malformed", .{received.body.len});
        }
        // The server is being shut down: it has sent all there was.
        if (received.tag == tag.command_complete or received.tag == tag.copy_done) {
            connection.broken = true;
            return error.Closed;
        }
        return connection.unexpected(received, "replication");
    }

    fn keepaliveOf(body: *message.Body) ?Keepalive {
        if ((body.int(u8) catch return null) != 'k') return null;
        const end = body.int(u64) catch return null;
        _ = body.int(i64) catch return null;
        const reply = body.int(u8) catch return null;
        body.finish() catch return null;
        return .{ .end = .{ .value = end }, .reply = reply == 1 };
    }

    /// Everything before `lsn` is safe where it belongs; zero: nothing is known to be. `now`: microseconds since 1970.
    /// `ask`: a keepalive shall come back at once.
    pub fn confirm(self: *Replication, lsn: Lsn, now: i64, ask: bool) Connection.Error!void {
        var frame: [5 + 34]u8 = undefined;
        frame[0] = tag.copy_data;
        std.mem.writeInt(u32, frame[1..5], frame.len - 1, .big);
        frame[5] = 'r';
        for (0..3) |i| std.mem.writeInt(u64, frame[6 + 8 * i ..][0..8], lsn.value, .big);
        std.mem.writeInt(i64, frame[30..38], now -% values.epoch_micros, .big);
        frame[38] = @intFromBool(ask);
        try self.connection.send(&frame);
    }

    /// Ends the stream, after which the slot is as it was confirmed and free. What the server still had to say is dropped.
    /// A server that does not come to its end is left alone: the connection can only be closed then.
    pub fn finish(self: *Replication) Connection.Error!void {
        const connection = self.connection;
        try connection.send("c\x00\x00\x00\x04");
        const started = sdk.host.now();
        connection.receiver.timeout_ms = end_timeout_ms;
        while (sdk.host.now() - started < end_timeout_ms * 1000) {
            const taken = connection.receiver.next(connection.transport) catch |err| {
                connection.broken = true;
                return if (err == error.Timeout) {} else connection.receiverError(err);
            };
            const received = try connection.interpret(taken) orelse continue;
            switch (received.tag) {
                tag.copy_data, tag.copy_done, tag.command_complete => {},
                tag.ready_for_query => return,
                else => return connection.unexpected(received, "the end of replication"),
            }
        }
        connection.broken = true;
    }
};

fn command(arena: Allocator, options: Options, has_version_2: bool) Allocator.Error![]const u8 {
    const publication = try ident.quote(arena, options.publication);
    var sql: std.ArrayList(u8) = .empty;
    try sql.print(arena, "START_REPLICATION SLOT {s} LOGICAL {f} (proto_version '{d}', publication_names {s}", .{
        try ident.quote(arena, options.slot),
        options.from,
        @as(u8, if (has_version_2) 2 else 1),
        try literal(arena, publication),
    });
    if (has_version_2) {
        try sql.appendSlice(arena, ", streaming 'on'");
        if (options.binary) try sql.appendSlice(arena, ", binary 'true'");
    }
    try sql.append(arena, ')');
    return sql.items;
}

/// Replication commands have a grammar of their own, in which a backslash is one.
fn literal(arena: Allocator, text: []const u8) Allocator.Error![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    try out.append(arena, '\'');
    for (text) |byte| {
        if (byte == '\'') try out.append(arena, '\'');
        try out.append(arena, byte);
    }
    try out.append(arena, '\'');
    return out.items;
}

const Script = @import("transport.zig").Script;

const ready = "Z\x00\x00\x00\x05I";
const stream_start = "W\x00\x00\x00\x07\x00\x00\x00";
const keepalive_message = "d\x00\x00\x00\x16k\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x00\x00\x00\x00\x00\x00\x00\x01";
const sample_lsn = "\x00\x00\x00\x00\x01\x6b\x37\x48";
const data_message = "d\x00\x00\x00\x1fw" ++ @as([24]u8, @splat(0)) ++ "ab";
const ended = "c\x00\x00\x00\x04" ++ "C\x00\x00\x00\x0bCOPY 0\x00" ++ ready;

fn openScripted(script: *Script) !*Connection {
    const connection: *Connection = try .init(std.testing.allocator, script.transport());
    connection.server_version = 180000;
    return connection;
}

const sample_options: Options = .{ .slot = "sl\"ot", .publication = "it's", .from = .{ .value = 0x1_0000_00ff }, .binary = true };

test "a stream has data and keepalives, is confirmed and ends" {
    const gpa = std.testing.allocator;
    const incoming = ready ++ stream_start ++ keepalive_message ++ data_message ++ data_message ++ ended;
    for ([_]usize{ 1, 7, 1000 }) |piece_bytes| {
        var script: Script = .{ .gpa = gpa, .incoming = incoming, .piece_bytes = piece_bytes };
        defer script.deinit();
        const connection = try openScripted(&script);
        defer connection.deinit();
        var replication: Replication = try .start(connection, gpa, sample_options);
        const before = script.sent.items.len;
        try std.testing.expect(std.mem.endsWith(u8, script.sent.items, "START_REPLICATION SLOT \"sl\"\"ot\" LOGICAL 1/FF " ++
            "(proto_version '2', publication_names '\"it''s\"', streaming 'on', binary 'true')\x00"));
        const keepalive = (try replication.next(1)).keepalive;
        try std.testing.expectEqual(Replication.Keepalive{ .end = .{ .value = 0x16b3748 }, .reply = true }, keepalive);
        try std.testing.expectEqualStrings("ab", (try replication.next(1)).data);
        try replication.confirm(.{ .value = 0x16b3748 }, values.epoch_micros + 1, false);
        try std.testing.expectEqualStrings("d\x00\x00\x00\x26r" ++ sample_lsn ++ sample_lsn ++ sample_lsn ++
            "\x00\x00\x00\x00\x00\x00\x00\x01\x00", script.sent.items[before..]);
        try replication.finish();
        try std.testing.expect(!connection.broken);
    }
}

test "a message that there is no memory for goes by, and tells how it begins" {
    const gpa = std.testing.allocator;
    const length = 2 * @import("receiver.zig").buffer_bytes;
    const bytes = try gpa.alloc(u8, stream_start.len + 1 + length + data_message.len);
    defer gpa.free(bytes);
    @memset(bytes, 'x');
    @memcpy(bytes[0..stream_start.len], stream_start);
    const large = bytes[stream_start.len..];
    large[0] = 'd';
    std.mem.writeInt(u32, large[1..5], length, .big);
    large[5] = 'w';
    @memcpy(large[1 + length ..], data_message);
    var script: Script = .{ .gpa = gpa, .incoming = bytes, .piece_bytes = 100_000 };
    defer script.deinit();
    const connection = try openScripted(&script);
    defer connection.deinit();
    var replication: Replication = .{ .connection = connection };
    connection.receiver.limit = length + 1;
    _ = try connection.receiver.next(connection.transport);
    var failing: std.testing.FailingAllocator = .init(gpa, .{ .fail_index = 0 });
    connection.receiver.gpa = failing.allocator();
    defer connection.receiver.gpa = gpa;
    const event = (try replication.next(1)).large;
    try std.testing.expectEqualStrings(&@as([beginning_bytes]u8, @splat('x')), event.beginning);
    try std.testing.expectEqual(length - 4 - data_header_bytes, event.length);
    try std.testing.expectEqualStrings("ab", (try replication.next(1)).data);
}

test "an older server is asked for what it has" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    try std.testing.expectEqualStrings(
        "START_REPLICATION SLOT \"sl\"\"ot\" LOGICAL 1/FF (proto_version '1', publication_names '\"it''s\"')",
        try command(arena.allocator(), sample_options, false),
    );
}

test "whatever comes during replication ends in an event or an error" {
    try sdk.fuzz.bytes(fuzzStream, &.{ keepalive_message, data_message, ended, keepalive_message ++ data_message ++ ended });
}

fn fuzzStream(bytes: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var script: Script = .{ .gpa = gpa, .incoming = bytes, .piece_bytes = 64 };
    defer script.deinit();
    const connection = try openScripted(&script);
    defer connection.deinit();
    var replication: Replication = .{ .connection = connection };
    while (true) _ = replication.next(1) catch |err| return if (err == error.OutOfMemory) err;
}
