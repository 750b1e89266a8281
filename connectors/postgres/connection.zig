//! One session with a PostgreSQL server.
//!
//!     open ──▶ idle ──exec, query──▶ idle
//!                │──copyOut──▶ CopyOut.next … null ──▶ idle
//!                ├──copyIn ──▶ CopyIn.write … finish ─▶ idle
//!                └──startCopyBoth ──▶ Replication.next … finish ─▶ idle
//!
//! After `error.Server` the session is idle again and `last_error` tells what the server said; after any other error
//! nothing can be said about what the server is doing, and the connection can only be closed.

const std = @import("std");
const sdk = @import("sdk");
const Config = @import("config.zig").Config;
const Transport = @import("transport.zig").Transport;
const Receiver = @import("receiver.zig").Receiver;
const ServerError = @import("server_error.zig").ServerError;
const copy = @import("copy.zig");
const message = @import("message.zig");
const receiver_limits = @import("receiver.zig");
const startup = @import("startup.zig");

const Allocator = std.mem.Allocator;
const assert = std.debug.assert;
const tag = message.tag;

/// How long the server may work on one command without a word. A join behind a view, an index that is built or a lock
/// take what they take; the run's own time limit and cancellation hold beside it.
pub const reply_timeout_ms = 12 * 60 * 60 * 1000;
/// How long a send may wait for the server to take bytes: COPY FROM checks constraints and fires triggers meanwhile.
pub const send_timeout_ms = 12 * 60 * 60 * 1000;
/// Bytes of `problem`.
const problem_bytes_max = 256;
/// Outgoing bytes that are kept allocated between commands.
const outgoing_bytes_kept = 64 * 1024;

pub const Column = struct {
    name: []const u8,
    type_oid: u32,
    /// `atttypmod`, -1 where there is none.
    typmod: i32,
};

pub const Result = struct {
    columns: []const Column = &.{},
    /// Values as text, null for NULL.
    rows: []const []const ?[]const u8 = &.{},
    command_tag: []const u8 = "",

    /// The first row's first value; null when there is none or it is NULL.
    pub fn scalar(self: Result) ?[]const u8 {
        if (self.rows.len == 0 or self.rows[0].len == 0) return null;
        return self.rows[0][0];
    }

    /// How many rows the command touched.
    pub fn affected(self: Result) u64 {
        return message.rowsOf(self.command_tag) orelse 0;
    }
};

pub const Connection = struct {
    gpa: Allocator,
    transport: Transport,
    receiver: Receiver,
    outgoing: std.ArrayList(u8) = .empty,
    /// CopyIn's frame, kept for the next one.
    copy_frame: []u8 = &.{},
    error_arena: std.heap.ArenaAllocator,
    /// What the server said with the last `error.Server`; valid until the next command.
    last_error: ?ServerError = null,
    /// What was wrong with the last `error.Protocol`.
    problem: std.Io.Writer,
    /// As `server_version_num`: 180004.
    server_version: u32 = 0,
    /// As the server prints it: `18.4 (Debian 18.4-1)`.
    server_version_text: []const u8 = "",
    /// 'I' idle, 'T' in a transaction, 'E' in a failed one.
    transaction_status: u8 = 'I',
    tls: bool = false,
    /// Whether the database knows what encoding its texts are in. One of `SQL_ASCII` does not.
    knows_encoding: bool = true,
    /// Set by the first error after which the stream of messages cannot be trusted.
    broken: bool = false,

    pub const Message = receiver_limits.Message;
    const MalformedError = message.Body.Error || Allocator.Error;

    pub const Error = Transport.Error || Allocator.Error || error{
        /// The server refused the command: `last_error`.
        Server,
        /// The server said something that the protocol does not allow here: `problem`.
        Protocol,
        /// A message beyond `receiver.message_bytes_max`.
        TooLarge,
    };

    /// Connects, authenticates and applies the session settings. Failures are recorded with the SDK.
    pub fn open(gpa: Allocator, config: Config) (Transport.Error || Allocator.Error)!*Connection {
        return startup.open(gpa, config);
    }

    /// Over any transport, before the startup packet.
    pub fn init(gpa: Allocator, transport: Transport) Allocator.Error!*Connection {
        const self = try gpa.create(Connection);
        errdefer gpa.destroy(self);
        const problem = try gpa.alloc(u8, problem_bytes_max);
        errdefer gpa.free(problem);
        self.* = .{
            .gpa = gpa,
            .transport = transport,
            .receiver = try .init(gpa),
            .error_arena = .init(gpa),
            .problem = .fixed(problem),
        };
        return self;
    }

    /// Says goodbye where that makes sense, and frees everything.
    pub fn close(self: *Connection) void {
        if (!self.broken) self.transport.send("X\x00\x00\x00\x04", 1000) catch {};
        self.deinit();
    }

    /// Frees everything without a word to the server.
    pub fn deinit(self: *Connection) void {
        self.transport.close();
        self.receiver.deinit();
        self.outgoing.deinit(self.gpa);
        self.gpa.free(self.copy_frame);
        self.gpa.free(self.server_version_text);
        self.gpa.free(self.problem.buffer);
        self.error_arena.deinit();
        self.gpa.destroy(self);
    }

    /// Bytes received from the server so far.
    pub fn bytesReceived(self: *const Connection) u64 {
        return self.receiver.received;
    }

    /// Runs one or more statements; rows that they return are dropped.
    pub fn exec(self: *Connection, sql: []const u8) Error!void {
        try self.sendQuery(sql);
        while (true) {
            const received = try self.receive();
            switch (received.tag) {
                tag.row_description, tag.data_row, tag.command_complete, tag.empty_query => {},
                tag.ready_for_query => return self.becomeReady(received),
                else => return self.unexpected(received, "a query"),
            }
        }
    }

    /// Runs one statement with parameters `$1`, …, all as text. The result lives in `arena`.
    pub fn query(self: *Connection, arena: Allocator, sql: []const u8, parameters: []const ?[]const u8) Error!Result {
        try self.sendExtendedQuery(sql, parameters);
        return self.receiveResult(arena);
    }

    /// Runs one statement as a simple query: all that a connection for replication takes, its own commands among them.
    pub fn command(self: *Connection, arena: Allocator, text: []const u8) Error!Result {
        try self.sendQuery(text);
        return self.receiveResult(arena);
    }

    fn receiveResult(self: *Connection, arena: Allocator) Error!Result {
        var result: Result = .{};
        var rows: std.ArrayList([]const ?[]const u8) = .empty;
        while (true) {
            const received = try self.receive();
            switch (received.tag) {
                tag.parse_complete, tag.bind_complete, tag.no_data, tag.empty_query => {},
                tag.row_description => result.columns = parseColumns(arena, received.body) catch |err|
                    return self.malformed(err, received),
                tag.data_row => try rows.append(arena, parseRow(arena, received.body, result.columns.len) catch |err|
                    return self.malformed(err, received)),
                tag.command_complete => {
                    var body: message.Body = .{ .rest = received.body };
                    const said = body.string() catch |err| return self.malformed(err, received);
                    result.command_tag = try arena.dupe(u8, said);
                },
                tag.ready_for_query => {
                    try self.becomeReady(received);
                    result.rows = rows.items;
                    return result;
                },
                else => return self.unexpected(received, "a query"),
            }
        }
    }

    /// Starts `COPY … TO STDOUT (FORMAT binary)`, as an extended query: what a pipeline's `filter` adds to the SQL
    /// cannot make it more than one statement.
    pub fn copyOut(self: *Connection, sql: []const u8) Error!copy.CopyOut {
        try self.sendExtendedQuery(sql, &.{});
        while (true) {
            const received = try self.receive();
            switch (received.tag) {
                tag.parse_complete, tag.bind_complete, tag.no_data => {},
                else => {
                    try self.expectBinaryCopy(received, tag.copy_out_response);
                    return .{ .connection = self };
                },
            }
        }
    }

    /// Starts `COPY … FROM STDIN (FORMAT binary)`; the header is the caller's to write. One at a time.
    pub fn copyIn(self: *Connection, sql: []const u8) Error!copy.CopyIn {
        try self.sendQuery(sql);
        const received = try self.receive();
        try self.expectBinaryCopy(received, tag.copy_in_response);
        if (self.copy_frame.len == 0) self.copy_frame = try self.gpa.alloc(u8, copy.frame_bytes);
        return .{ .connection = self, .frame = self.copy_frame };
    }

    /// Starts a COPY in both directions, as a simple query: `replication.zig` speaks it.
    pub fn startCopyBoth(self: *Connection, sql: []const u8) Error!void {
        try self.sendQuery(sql);
        const received = try self.receive();
        if (received.tag != tag.copy_both_response) return self.unexpected(received, "the start of replication");
    }

    fn expectBinaryCopy(self: *Connection, received: Message, expected: u8) Error!void {
        if (received.tag != expected) return self.unexpected(received, "COPY's start");
        if (received.body.len < 3) return self.malformed(error.Protocol, received);
        if (received.body[0] != 1) return self.protocolError("COPY started in text format", .{});
    }

    // What the parts of the protocol share.

    fn sendQuery(self: *Connection, sql: []const u8) Error!void {
        try self.forget(sql);
        var writer: message.Writer = .{ .gpa = self.gpa, .bytes = &self.outgoing };
        try writer.query(sql);
        try self.sendOutgoing();
    }

    fn sendExtendedQuery(self: *Connection, sql: []const u8, parameters: []const ?[]const u8) Error!void {
        try self.forget(sql);
        var writer: message.Writer = .{ .gpa = self.gpa, .bytes = &self.outgoing };
        try writer.extendedQuery(sql, parameters);
        try self.sendOutgoing();
    }

    fn forget(self: *Connection, sql: []const u8) Error!void {
        assert(!self.broken);
        if (std.mem.findScalar(u8, sql, 0) != null) return self.protocolError("a NUL character inside SQL", .{});
        self.last_error = null;
        _ = self.error_arena.reset(.retain_capacity);
        self.problem.end = 0;
    }

    pub fn sendOutgoing(self: *Connection) Error!void {
        defer if (self.outgoing.capacity > outgoing_bytes_kept)
            self.outgoing.clearAndFree(self.gpa)
        else
            self.outgoing.clearRetainingCapacity();
        try self.send(self.outgoing.items);
    }

    /// When the peer is gone, what it said before it went is worth more than that it went.
    pub fn send(self: *Connection, bytes: []const u8) Error!void {
        self.transport.send(bytes, send_timeout_ms) catch |err| {
            self.broken = true;
            if (err == error.Closed) try self.lastWords();
            return err;
        };
    }

    fn lastWords(self: *Connection) Error!void {
        self.receiver.timeout_ms = 1000;
        while (true) {
            const taken = self.receiver.next(self.transport) catch return;
            if (taken.tag != tag.error_response) continue;
            try self.keepError(taken);
            return error.Server;
        }
    }

    /// The next message that means something to the command at hand. What the server may say at any time is taken
    /// care of; an ErrorResponse ends the command: `error.Server`, once the server is ready for the next one.
    pub fn receive(self: *Connection) Error!Message {
        while (true) {
            const taken = self.receiver.next(self.transport) catch |err| return self.receiverError(err);
            if (try self.interpret(taken)) |for_the_command| return for_the_command;
        }
    }

    /// Null when the message was for the session and not for the command.
    pub fn interpret(self: *Connection, taken: Message) Error!?Message {
        switch (taken.tag) {
            tag.notice => {
                if (ServerError.parse(taken.body)) |notice|
                    sdk.host.log(.debug, "{s}: {s}", .{ notice.severity, notice.message });
                return null;
            },
            tag.parameter_status => {
                try self.keepParameter(taken);
                return null;
            },
            tag.notification => return null,
            tag.error_response => {
                try self.keepError(taken);
                if (!self.last_error.?.isFatal()) try self.drain() else self.broken = true;
                return error.Server;
            },
            else => return taken,
        }
    }

    pub fn keepError(self: *Connection, taken: Message) Error!void {
        const parsed = ServerError.parse(taken.body) orelse return self.malformed(error.Protocol, taken);
        self.last_error = try parsed.dupe(self.error_arena.allocator());
    }

    /// After an error: skips to the point where the server takes the next command.
    fn drain(self: *Connection) Error!void {
        while (true) {
            const taken = self.receiver.next(self.transport) catch {
                self.broken = true;
                return;
            };
            switch (taken.tag) {
                tag.ready_for_query => return self.becomeReady(taken),
                tag.parameter_status => try self.keepParameter(taken),
                // An aborting session says why it goes after why the command failed; the first is the cause.
                else => {},
            }
        }
    }

    fn keepParameter(self: *Connection, taken: Message) Error!void {
        var body: message.Body = .{ .rest = taken.body };
        const name = body.string() catch |err| return self.malformed(err, taken);
        const value = body.string() catch |err| return self.malformed(err, taken);
        if (std.mem.eql(u8, name, "server_encoding")) self.knows_encoding = !std.mem.eql(u8, value, "SQL_ASCII");
        if (!std.mem.eql(u8, name, "server_version")) return;
        const kept = try self.gpa.dupe(u8, value);
        self.gpa.free(self.server_version_text);
        self.server_version_text = kept;
        self.server_version = parseVersion(value);
    }

    pub fn awaitReady(self: *Connection) Error!void {
        const received = try self.receive();
        if (received.tag != tag.ready_for_query) return self.unexpected(received, "a command's end");
        return self.becomeReady(received);
    }

    fn becomeReady(self: *Connection, received: Message) Error!void {
        if (received.body.len != 1) return self.malformed(error.Protocol, received);
        self.transaction_status = received.body[0];
    }

    /// Whether the server has said something against the COPY that it is being sent.
    pub fn poll(self: *Connection, timeout_ms: i32) Error!void {
        const patience = self.receiver.timeout_ms;
        self.receiver.timeout_ms = timeout_ms;
        const taken = self.receiver.next(self.transport);
        self.receiver.timeout_ms = patience;
        const arrived = taken catch |err| switch (err) {
            error.Timeout => return, // a message cut in two stays in the buffer
            else => return self.receiverError(err),
        };
        if (try self.interpret(arrived)) |other| return self.unexpected(other, "COPY FROM");
    }

    pub fn failCopy(self: *Connection, reason: []const u8) Error!void {
        const length = std.mem.findScalar(u8, reason, 0) orelse reason.len;
        var writer: message.Writer = .{ .gpa = self.gpa, .bytes = &self.outgoing };
        try writer.begin('f');
        try writer.string(reason[0..length]);
        writer.end();
        try self.sendOutgoing();
    }

    // Errors.

    pub fn protocolError(self: *Connection, comptime format: []const u8, args: anytype) error{Protocol} {
        @branchHint(.cold);
        self.broken = true;
        self.problem.end = 0;
        self.problem.print(format, args) catch {}; // cut where the buffer ends
        return error.Protocol;
    }

    pub fn unexpected(self: *Connection, received: Message, during: []const u8) error{Protocol} {
        return self.protocolError(
            "message {f} of {d} bytes came during {s}",
            .{ Tag{ .byte = received.tag }, received.body.len, during },
        );
    }

    fn malformed(self: *Connection, err: MalformedError, received: Message) Error {
        if (err == error.OutOfMemory) return error.OutOfMemory;
        return self.protocolError(
            "message {f} of {d} bytes is malformed",
            .{ Tag{ .byte = received.tag }, received.body.len },
        );
    }

    pub fn receiverError(self: *Connection, err: Receiver.Error) Error {
        @branchHint(.cold);
        self.broken = true;
        if (err == error.Protocol) return self.protocolError("a message's length is below four", .{});
        return err;
    }
};

/// A tag as it reads best: its letter, or its number where that is not printable.
const Tag = struct {
    byte: u8,

    pub fn format(self: Tag, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        if (std.ascii.isPrint(self.byte)) return writer.print("'{c}'", .{self.byte});
        try writer.print("0x{x:0>2}", .{self.byte});
    }
};

fn parseColumns(arena: Allocator, bytes: []const u8) (message.Body.Error || Allocator.Error)![]const Column {
    var body: message.Body = .{ .rest = bytes };
    const columns = try arena.alloc(Column, try body.int(u16));
    for (columns) |*column| {
        column.name = try arena.dupe(u8, try body.string());
        _ = try body.bytes(6); // table's oid, column's number
        column.type_oid = try body.int(u32);
        _ = try body.int(i16); // the type's size
        column.typmod = try body.int(i32);
        _ = try body.int(i16); // format
    }
    try body.finish();
    return columns;
}

fn parseRow(
    arena: Allocator,
    bytes: []const u8,
    columns: usize,
) (message.Body.Error || Allocator.Error)![]const ?[]const u8 {
    var body: message.Body = .{ .rest = bytes };
    if (try body.int(u16) != columns) return error.Protocol;
    const row = try arena.alloc(?[]const u8, columns);
    for (row) |*value| {
        const text = try body.value();
        value.* = if (text) |slice| try arena.dupe(u8, slice) else null;
    }
    try body.finish();
    return row;
}

/// `18.4 (Debian …)` -> 180004, `9.6.2` -> 90602, `19devel` -> 190000; 0 when there is no number in front.
fn parseVersion(text: []const u8) u32 {
    var parts: [3]u32 = .{ 0, 0, 0 };
    var count: usize = 0;
    var rest = text;
    while (count < 3) {
        const digits = std.mem.findNone(u8, rest, "0123456789") orelse rest.len;
        parts[count] = std.fmt.parseInt(u16, rest[0..digits], 10) catch break;
        count += 1;
        if (digits == rest.len or rest[digits] != '.') break;
        rest = rest[digits + 1 ..];
    }
    if (parts[0] >= 10) return parts[0] * 10_000 + parts[1];
    return parts[0] * 10_000 + parts[1] * 100 + parts[2];
}

const Script = @import("transport.zig").Script;

fn scripted(script: *Script) !*Connection {
    return Connection.init(std.testing.allocator, script.transport());
}

test "server versions are read from what the server prints" {
    const cases = [_]struct { []const u8, u32 }{
        .{ "18.4", 180004 },
        .{
            "15.13 (Debian 15.13-0+deb12u1)",
            150013,
        },
        .{ "9.6.2", 90602 },
        .{ "19devel", 190000 },
        .{ "", 0 },
    };
    for (cases) |case| try std.testing.expectEqual(case[1], parseVersion(case[0]));
}

// SELECT a FROM (VALUES (7::int4), (NULL)) t(a), in a transaction
const query_answer = "1\x00\x00\x00\x04" ++ "2\x00\x00\x00\x04" ++
    "T\x00\x00\x00\x1a\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00" ++
    "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x017" ++ "D\x00\x00\x00\x0a\x00\x01\xff\xff\xff\xff" ++
    "C\x00\x00\x00\x0dSELECT 2\x00" ++ "Z\x00\x00\x00\x05T";

test "a query brings its rows" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = query_answer };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const result = try connection.query(arena.allocator(), "select a", &.{});
    try std.testing.expectEqualStrings("7", result.scalar().?);
    try std.testing.expectEqual(null, result.rows[1][0]);
    try std.testing.expectEqual(2, result.affected());
    try std.testing.expectEqual('T', connection.transaction_status);
}

test "a command of replication is a simple query with an answer" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = query_answer[10..] };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const result = try connection.command(arena.allocator(), "IDENTIFY_SYSTEM");
    try std.testing.expectEqualStrings("Q\x00\x00\x00\x14IDENTIFY_SYSTEM\x00", script.sent.items);
    try std.testing.expectEqualStrings("7", result.scalar().?);
}

test "an error leaves the session ready for the next command" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = "E\x00\x00\x00\x19" ++
        "SERROR\x00C22012\x00Mzero\x00\x00" ++
        "Z\x00\x00\x00\x05I" ++ "C\x00\x00\x00\x0aBEGIN\x00" ++ "Z\x00\x00\x00\x05T" };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    try std.testing.expectError(error.Server, connection.exec("select 1/0"));
    try std.testing.expectEqualStrings("22012", connection.last_error.?.sqlstate);
    try connection.exec("begin");
    try std.testing.expectEqual(null, connection.last_error);
}

const copy_start = "1\x00\x00\x00\x04" ++ "2\x00\x00\x00\x04" ++ "n\x00\x00\x00\x04" ++
    "H\x00\x00\x00\x09\x01\x00\x01\x00\x01";

const whole_copy = copy_start ++ "d\x00\x00\x00\x05x" ++ "c\x00\x00\x00\x04" ++
    "C\x00\x00\x00\x0bCOPY 1\x00" ++ "Z\x00\x00\x00\x05I";

test "COPY ends only when the server says that it is complete" {
    for (copy_start.len..whole_copy.len + 1) |length| {
        var script: Script = .{ .gpa = std.testing.allocator, .incoming = whole_copy[0..length] };
        defer script.deinit();
        const connection = try scripted(&script);
        defer connection.close();
        var out = try connection.copyOut("copy t to stdout");
        const outcome = while (true) {
            const data = out.next() catch |err| break err;
            if (data == null) break {};
        } else unreachable;
        if (length == whole_copy.len) try outcome else try std.testing.expectError(error.Closed, outcome);
    }
}

test "a message that has no place in COPY is named" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = copy_start ++ "T\x00\x00\x00\x06\x00\x00" };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    var out = try connection.copyOut("copy t to stdout");
    try std.testing.expectError(error.Protocol, out.next());
    try std.testing.expectEqualStrings("message 'T' of 2 bytes came during COPY TO", connection.problem.buffered());
}

test "COPY FROM is cut into frames whose payload is what was written" {
    const gpa = std.testing.allocator;
    var script: Script = .{ .gpa = gpa, .incoming = "G\x00\x00\x00\x09\x01\x00\x01\x00\x01" ++
        "C\x00\x00\x00\x0bCOPY 3\x00" ++ "Z\x00\x00\x00\x05I" };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    var in = try connection.copyIn("copy t from stdin");
    const before = script.sent.items.len;
    const large = try gpa.alloc(u8, 5 * 1024 * 1024);
    defer gpa.free(large);
    for (large, 0..) |*byte, i| byte.* = @truncate(i *% 31);
    try in.write("ab");
    try in.write(large);
    const room = try in.reserve(4);
    @memcpy(room[0..2], "cd");
    in.commit(2);
    try std.testing.expectEqual(3, try in.finish());

    var payload: std.ArrayList(u8) = .empty;
    defer payload.deinit(gpa);
    var rest: message.Body = .{ .rest = script.sent.items[before..] };
    while (rest.rest.len > 0) {
        const byte = (try rest.bytes(1))[0];
        const body = try rest.bytes(try rest.int(u32) - 4);
        if (byte == 'd') try payload.appendSlice(gpa, body) else try std.testing.expectEqual('c', byte);
    }
    try std.testing.expectEqual(large.len + 4, payload.items.len);
    try std.testing.expectEqual(in.bytes, payload.items.len);
    try std.testing.expectEqualSlices(u8, large, payload.items[2..][0..large.len]);
    try std.testing.expectEqualStrings("cd", payload.items[payload.items.len - 2 ..]);
}

test "whatever the peer sends, a session ends in an error or a result" {
    try sdk.fuzz.bytes(fuzzSession, &.{ query_answer, whole_copy, query_answer ++ whole_copy });
}

fn fuzzSession(input: []const u8) anyerror!void {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = input, .piece_bytes = 64 };
    defer script.deinit();
    const connection = try scripted(&script);
    defer connection.close();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    _ = connection.query(arena.allocator(), "select 1", &.{}) catch {};
    if (connection.broken) return;
    var out = connection.copyOut("copy t to stdout") catch return;
    while (true) if ((out.next() catch return) == null) break;
}
