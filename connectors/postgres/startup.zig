//! From nothing to a session: TLS, the startup packet, authentication, session settings.
//!
//!     SSLRequest                        'S' → the host starts TLS    'N' → plain, or an error when TLS is required
//!     startup packet                    length:u32 version:u32 (name\0 value\0)… \0
//!     Authentication 'R' kind:u32 …     0 ok · 3 cleartext · 5 MD5 (salt:4 B) · 10 SASL (mechanism\0… \0)
//!                                       11 SASL continue · 12 SASL final
//!     PasswordMessage 'p' …             the answers, each in this one type of message
//!     ParameterStatus…, BackendKeyData, ReadyForQuery
//!
//! https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP

const std = @import("std");
const sdk = @import("sdk");
const Config = @import("config.zig").Config;
const Connection = @import("connection.zig").Connection;
const Transport = @import("transport.zig").Transport;
const failure = @import("failure.zig");
const connection_limits = @import("connection.zig");
const md5 = @import("md5.zig");
const message = @import("message.zig");
const receiver_limits = @import("receiver.zig");
const scram = @import("scram.zig");

const Allocator = std.mem.Allocator;
const tag = message.tag;

/// TCP connect, in milliseconds: long enough for a slow link, short enough to fail while somebody watches.
const connect_timeout_ms = 15_000;
/// Each answer of the server until the session stands.
const startup_timeout_ms = 30_000;
/// The oldest server whose catalogs and settings are as the connectors' queries expect.
pub const server_version_min = 120_000;

/// Every value crosses as text in one known form, whatever the server, the database or the role are set to.
/// `set_config` row by row, so that settings an older server lacks are skipped.
const session_settings =
    \\select pg_catalog.set_config(name, value, false)
    \\from (values
    \\  ('client_encoding', 'UTF8'), ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'),
    \\  ('extra_float_digits', '3'), ('bytea_output', 'hex'), ('lc_monetary', 'C'), ('xmloption', 'content'),
    \\  ('search_path', 'pg_catalog'), ('standard_conforming_strings', 'on'), ('array_nulls', 'on'),
    \\  ('quote_all_identifiers', 'off'), ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
    \\  ('transaction_timeout', '0'), ('idle_session_timeout', '0')
    \\) as settings(name, value)
    \\where pg_catalog.current_setting(name, true) is not null
;

/// A run that is cancelled or killed takes its connection with it: the server shall stop its statement then, and not when
/// it next has something to write. PostgreSQL 14 and later.
const watch_connection =
    \\select pg_catalog.set_config('client_connection_check_interval', '1s', false)
    \\where pg_catalog.current_setting('client_connection_check_interval', true) is not null
;

const OpenError = Transport.Error || Allocator.Error;

/// See `Connection.open`. `prefer` tries TLS first and plain second, as libpq does.
pub fn open(gpa: Allocator, config: Config) OpenError!*Connection {
    const want_tls = config.sslmode != .disable and !config.isUnixSocket();
    if (want_tls) {
        if (attempt(gpa, config, true)) |connection| return connection else |err| switch (err) {
            error.TryPlain => sdk.host.log(.debug, "no TLS with {s}: going on without", .{config.host}),
            else => |other| return other,
        }
    }
    return attempt(gpa, config, false) catch |err| switch (err) {
        error.TryPlain => unreachable, // only an attempt with TLS returns it
        else => |other| return other,
    };
}

fn attempt(gpa: Allocator, config: Config, tls: bool) (OpenError || error{TryPlain})!*Connection {
    const socket = try HostSocket.connect(gpa, config);
    const connection = Connection.init(gpa, socket.transport()) catch |err| {
        HostSocket.close(socket);
        return err;
    };
    errdefer connection.deinit();
    connection.receiver.timeout_ms = startup_timeout_ms;
    if (tls) try negotiateTls(connection, config);
    begin(connection, config) catch |err| {
        // A server whose pg_hba.conf has no line for TLS refuses with 28000; `prefer` then goes without.
        if (err == error.Server and tls and config.sslmode == .prefer and
            std.mem.eql(u8, connection.last_error.?.sqlstate, "28000")) return error.TryPlain;
        return failure.report(connection, err, "connecting");
    };
    connection.receiver.timeout_ms = connection_limits.reply_timeout_ms;
    connection.receiver.limit = receiver_limits.message_bytes_max;
    try settle(connection, config);
    return connection;
}

fn negotiateTls(connection: *Connection, config: Config) (OpenError || error{TryPlain})!void {
    const prefer = config.sslmode == .prefer;
    const said = blk: {
        connection.send(message.ssl_request) catch |err| break :blk err;
        break :blk connection.receiver.byte(connection.transport) catch |err| connection.receiverError(err);
    } catch |err| return failure.report(connection, err, "asking for TLS");
    switch (said) {
        'S' => {},
        'N' => return if (prefer) error.TryPlain else sdk.errors.failHinted(
            .tls,
            "enable ssl at the server, or set sslmode to prefer or disable",
            "the server at {s} does not speak TLS, which sslmode {t} requires",
            .{ config.host, config.sslmode },
        ),
        else => return failure.report(
            connection,
            connection.protocolError("0x{x:0>2} is not an answer to SSLRequest", .{said}),
            "asking for TLS",
        ),
    }
    connection.transport.startTls(.{
        .server_name = config.host,
        // As with libpq: where `require` is given a root certificate, that is checked.
        .verify = switch (config.sslmode) {
            .disable => unreachable,
            .prefer => .none,
            .require => if (config.sslrootcert != null) .ca else .none,
            .@"verify-ca" => .ca,
            .@"verify-full" => .full,
        },
        .root_cert = config.sslrootcert,
        .cert = config.sslcert,
        .key = config.sslkey,
    }) catch |err| switch (err) {
        error.Failed, error.Closed => return if (prefer) error.TryPlain else err,
        else => return err,
    };
    connection.tls = true;
}

/// The startup packet and the answers to it, until the server is ready for a query.
pub fn begin(connection: *Connection, config: Config) (Connection.Error || Failed)!void {
    var writer: message.Writer = .{ .gpa = connection.gpa, .bytes = &connection.outgoing };
    try writer.begin(null);
    try writer.int(u32, message.protocol_version);
    const application_name = asciiPrefix(config.application_name);
    const parameters = [_][2][]const u8{
        .{ "user", config.user },
        .{ "database", config.database },
        .{ "client_encoding", "UTF8" },
        .{ "application_name", application_name },
    };
    for (parameters) |parameter| for (parameter) |text| try writer.string(text);
    if (config.replication) for ([_][]const u8{ "replication", "database" }) |text| try writer.string(text);
    try writer.raw("\x00");
    writer.end();
    try connection.sendOutgoing();

    try authenticate(connection, config);
    while (true) {
        const received = try startupMessage(connection);
        switch (received.tag) {
            tag.backend_key_data => {},
            tag.ready_for_query => return,
            else => return connection.unexpected(received, "startup"),
        }
    }
}

/// A message before the session stands: an error is final here, no ReadyForQuery follows it.
fn startupMessage(connection: *Connection) Connection.Error!Connection.Message {
    while (true) {
        const taken = connection.receiver.next(connection.transport) catch |err| return connection.receiverError(err);
        if (taken.tag == tag.error_response) {
            connection.broken = true;
            try connection.keepError(taken);
            return error.Server;
        }
        if (taken.tag == tag.negotiate_version) continue; // a minor version of protocol 3 that was not asked for
        if (try connection.interpret(taken)) |received| return received;
    }
}

const Failed = sdk.errors.Failed;

fn authenticate(connection: *Connection, config: Config) (Connection.Error || Failed)!void {
    while (true) {
        const received = try startupMessage(connection);
        if (received.tag != tag.authentication) return connection.unexpected(received, "authentication");
        var body: message.Body = .{ .rest = received.body };
        const kind = body.int(u32) catch return connection.protocolError("authentication without a kind", .{});
        switch (kind) {
            0 => return,
            3 => try sendPassword(connection, try passwordOf(config)),
            5 => {
                const salt = body.bytes(4) catch return connection.protocolError(
                    "MD5 authentication without a salt",
                    .{},
                );
                const hashed = md5.answer(config.user, try passwordOf(config), salt[0..4].*);
                try sendPassword(connection, &hashed);
            },
            10 => try authenticateScram(connection, config, &body),
            else => return sdk.errors.failHinted(
                .unsupported,
                "use password (SCRAM-SHA-256, MD5, cleartext), trust or certificate authentication for this user",
                "the server asks for authentication of kind {d} ({s}), which this connector does not know",
                .{ kind, switch (kind) {
                    2 => "Kerberos",
                    7, 8 => "GSSAPI",
                    9 => "SSPI",
                    else => "unknown",
                } },
            ),
        }
    }
}

fn passwordOf(config: Config) Failed![]const u8 {
    return config.password orelse sdk.errors.failHinted(
        .auth,
        "set `password` in the connector's config",
        "the server asks for a password for user \"{s}\", and none is configured",
        .{config.user},
    );
}

fn sendPassword(connection: *Connection, password: []const u8) Connection.Error!void {
    var writer: message.Writer = .{ .gpa = connection.gpa, .bytes = &connection.outgoing };
    try writer.begin('p');
    try writer.string(password);
    writer.end();
    try sendSecret(connection);
}

/// Sends what was built, and leaves no copy of it in the outgoing buffer.
fn sendSecret(connection: *Connection) Connection.Error!void {
    const built = connection.outgoing.items;
    defer {
        std.crypto.secureZero(u8, built);
        connection.outgoing.clearRetainingCapacity();
    }
    try connection.send(built);
}

fn authenticateScram(
    connection: *Connection,
    config: Config,
    offered: *message.Body,
) (Connection.Error || Failed)!void {
    while (true) {
        const name = offered.string() catch return connection.protocolError(
            "the list of SASL mechanisms has no end",
            .{},
        );
        if (std.mem.eql(u8, name, scram.mechanism)) break;
        if (name.len == 0) return sdk.errors.fail(
            .unsupported,
            "the server offers no SASL mechanism but others than {s}",
            .{scram.mechanism},
        );
    }
    var random: [scram.nonce_bytes]u8 = undefined;
    try sdk.host.random(&random);
    var nonce: scram.Client.NonceText = undefined;
    var client: scram.Client = .{
        .password = try passwordOf(config),
        .nonce = scram.Client.encodeNonce(&random, &nonce),
    };

    var writer: message.Writer = .{ .gpa = connection.gpa, .bytes = &connection.outgoing };
    const first = client.first();
    try writer.begin('p');
    try writer.string(scram.mechanism);
    try writer.int(i32, @intCast(first.len));
    try writer.raw(first);
    writer.end();
    try sendSecret(connection);

    const server_first = try saslMessage(connection, 11);
    const final = client.final(server_first) catch |err| return scramError(connection, config, err);
    try writer.begin('p');
    try writer.raw(final);
    writer.end();
    try sendSecret(connection);

    const server_final = try saslMessage(connection, 12);
    client.verify(server_final) catch |err| return scramError(connection, config, err);
}

fn saslMessage(connection: *Connection, kind: u32) Connection.Error![]const u8 {
    const received = try startupMessage(connection);
    if (received.tag != tag.authentication) return connection.unexpected(received, "SCRAM");
    var body: message.Body = .{ .rest = received.body };
    const got = body.int(u32) catch return connection.protocolError("authentication without a kind", .{});
    if (got != kind) return connection.protocolError(
        "authentication message {d} came where SCRAM has {d}",
        .{ got, kind },
    );
    return body.rest;
}

fn scramError(connection: *Connection, config: Config, err: scram.Error) (Connection.Error || Failed) {
    return switch (err) {
        error.WrongSignature => sdk.errors.failHinted(
            .auth,
            "make sure that nobody stands between this machine and the server",
            "the server at {s} does not know the password of \"{s}\": it is not the server it claims to be",
            .{ config.host, config.user },
        ),
        error.Malformed => connection.protocolError("a SCRAM message is malformed", .{}),
        error.WrongNonce => connection.protocolError("the server's SCRAM nonce does not continue ours", .{}),
        error.TooManyIterations => connection.protocolError(
            "the server asks for more than {d} SCRAM iterations",
            .{scram.iterations_max},
        ),
        error.Refused => connection.protocolError("the server refused the SCRAM exchange", .{}),
    };
}

fn settle(connection: *Connection, config: Config) OpenError!void {
    if (connection.server_version < server_version_min) return sdk.errors.failHinted(
        .unsupported,
        "use a server of version 12 or later",
        "the server at {s} is PostgreSQL {s}",
        .{
            config.host,
            if (connection.server_version_text.len > 0) connection.server_version_text else "of unknown version",
        },
    );
    connection.exec(session_settings) catch |err| return failure.report(connection, err, "setting up the session");
    connection.exec(watch_connection) catch |err| switch (err) {
        // A server on a platform that cannot watch: it notices a client that is gone when it next writes.
        error.Server => {},
        else => return failure.report(connection, err, "setting up the session"),
    };
}

/// PostgreSQL replaces other characters by `?` anyway, and a startup packet must not hold a NUL.
fn asciiPrefix(text: []const u8) []const u8 {
    for (text, 0..) |byte, i| if (byte < 0x20 or byte > 0x7e) return text[0..i];
    return text;
}

/// The host's socket as a transport.
const HostSocket = struct {
    gpa: Allocator,
    socket: sdk.host.Socket,

    fn connect(gpa: Allocator, config: Config) OpenError!*HostSocket {
        const self = try gpa.create(HostSocket);
        errdefer gpa.destroy(self);
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        const host = if (config.isUnixSocket())
            try std.fmt.allocPrint(
                arena.allocator(),
                "{s}/.s.PGSQL.{d}",
                .{ std.mem.trimEnd(u8, config.host, "/"), config.port },
            )
        else
            config.host;
        self.* = .{ .gpa = gpa, .socket = try .connect(arena.allocator(), host, config.port, connect_timeout_ms) };
        return self;
    }

    fn transport(self: *HostSocket) Transport {
        return .{ .context = self, .vtable = &.{ .recv = recv, .send = send, .startTls = startTls, .close = close } };
    }

    fn recv(context: *anyopaque, buffer: []u8, timeout_ms: i32) Transport.Error!usize {
        const self: *HostSocket = @ptrCast(@alignCast(context));
        return self.socket.recv(buffer, timeout_ms);
    }

    fn send(context: *anyopaque, bytes: []const u8, timeout_ms: i32) Transport.Error!void {
        const self: *HostSocket = @ptrCast(@alignCast(context));
        return self.socket.send(bytes, timeout_ms);
    }

    fn startTls(context: *anyopaque, tls: Transport.Tls) Transport.Error!void {
        const self: *HostSocket = @ptrCast(@alignCast(context));
        var arena: std.heap.ArenaAllocator = .init(self.gpa);
        defer arena.deinit();
        self.socket.startTls(arena.allocator(), .{
            .server_name = tls.server_name,
            .verify = switch (tls.verify) {
                .none => .none,
                .ca => .ca,
                .full => .full,
            },
            .root_cert = tls.root_cert,
            .cert = tls.cert,
            .key = tls.key,
        }) catch |err| switch (err) {
            error.OutOfMemory => return error.Failed,
            else => |other| return other,
        };
    }

    fn close(context: *anyopaque) void {
        const self: *HostSocket = @ptrCast(@alignCast(context));
        self.socket.close();
        self.gpa.destroy(self);
    }
};

const Script = @import("transport.zig").Script;

const test_config: Config = .{
    .host = "db",
    .user = "etl",
    .password = "secret",
    .database = "shop",
    .application_name = "rapidbyte",
};

fn beginScripted(incoming: []const u8, config: Config, sent: *std.ArrayList(u8)) !void {
    const gpa = std.testing.allocator;
    var script: Script = .{ .gpa = gpa, .incoming = incoming, .piece_bytes = 5 };
    defer script.deinit();
    const connection: *Connection = try .init(gpa, script.transport());
    defer connection.deinit();
    const outcome = begin(connection, config);
    try sent.appendSlice(gpa, script.sent.items);
    return outcome;
}

const ok = "R\x00\x00\x00\x08\x00\x00\x00\x00" ++ "S\x00\x00\x00\x18server_version\x0018.4\x00" ++
    "K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02" ++ "Z\x00\x00\x00\x05I";

test "the startup packet names user, database and application" {
    var sent: std.ArrayList(u8) = .empty;
    defer sent.deinit(std.testing.allocator);
    try beginScripted(ok, test_config, &sent);
    try std.testing.expectEqualStrings("\x00\x00\x00\x50\x00\x03\x00\x00user\x00etl\x00database\x00shop\x00" ++
        "client_encoding\x00UTF8\x00application_name\x00rapidbyte\x00\x00", sent.items);
}

test "a connection for replication asks for the database's WAL sender" {
    var sent: std.ArrayList(u8) = .empty;
    defer sent.deinit(std.testing.allocator);
    var config = test_config;
    config.replication = true;
    try beginScripted(ok, config, &sent);
    try std.testing.expect(std.mem.endsWith(u8, sent.items, "rapidbyte\x00replication\x00database\x00\x00"));
}

test "cleartext and MD5 passwords are sent as the server asks" {
    const gpa = std.testing.allocator;
    const cases = [_]struct { []const u8, []const u8 }{
        .{ "R\x00\x00\x00\x08\x00\x00\x00\x03", "p\x00\x00\x00\x0bsecret\x00" },
        .{
            "R\x00\x00\x00\x0c\x00\x00\x00\x05\x01\x02\x03\x04",
            "p\x00\x00\x00\x28" ++ md5.answer("etl", "secret", .{ 1, 2, 3, 4 }) ++ "\x00",
        },
    };
    for (cases) |case| {
        var sent: std.ArrayList(u8) = .empty;
        defer sent.deinit(gpa);
        const incoming = try std.mem.concat(gpa, u8, &.{ case[0], ok });
        defer gpa.free(incoming);
        try beginScripted(incoming, test_config, &sent);
        try std.testing.expect(std.mem.endsWith(u8, sent.items, case[1]));
    }
}

test "a password that is asked for and not configured is an auth failure" {
    defer sdk.errors.clear();
    var sent: std.ArrayList(u8) = .empty;
    defer sent.deinit(std.testing.allocator);
    var config = test_config;
    config.password = null;
    try std.testing.expectError(error.Failed, beginScripted("R\x00\x00\x00\x08\x00\x00\x00\x03", config, &sent));
    try std.testing.expectEqual(sdk.errors.Kind.auth, sdk.errors.current().?.kind);
}

test "whatever a server says at startup ends in a session or an error" {
    try sdk.fuzz.bytes(fuzzStartup, &.{
        ok,
        "R\x00\x00\x00\x0c\x00\x00\x00\x05\x01\x02\x03\x04" ++ ok,
        "R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" ++ "R\x00\x00\x00\x08\x00\x00\x00\x0b",
    });
}

fn fuzzStartup(bytes: []const u8) anyerror!void {
    defer sdk.errors.clear();
    var sent: std.ArrayList(u8) = .empty;
    defer sent.deinit(std.testing.allocator);
    beginScripted(bytes, test_config, &sent) catch |err| if (err == error.OutOfMemory) return err;
}
