//! What the host offers, with Zig types. Every function of the ABI is one call here; statuses become errors.

const std = @import("std");
const builtin = @import("builtin");
const errors = @import("errors.zig");
const json = @import("json.zig");

const imports = if (builtin.cpu.arch.isWasm()) @import("imports.zig") else @import("loopback.zig");

pub const Kind = errors.Kind;
pub const Failure = errors.Failure;
pub const fail = errors.fail;
pub const failHinted = errors.failHinted;
pub const failWith = errors.failWith;

/// A status below zero. Return it as it is and the host reports its own reason.
pub const Error = error{
    /// −1: malformed argument or a call out of order.
    Invalid,
    /// −2: the run is being stopped; return as soon as possible.
    Cancelled,
    /// −3: the deadline of the call passed.
    Timeout,
    /// −4: outside the sandbox.
    Denied,
    /// −5: the peer closed or reset the connection.
    Closed,
    /// −6: anything else outside: name resolution, refused connection, TLS, the state store.
    Failed,
    /// −7: another stage failed: roll back.
    Aborted,
};

/// Part of a gather list; on wasm32 it is the ABI's pair of u32.
pub const Piece = extern struct {
    ptr: [*]const u8,
    len: usize,

    pub fn from(bytes: []const u8) Piece {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }

    pub fn slice(self: Piece) []const u8 {
        return self.ptr[0..self.len];
    }
};

/// Names of host functions, for "while …" in a failure's message.
pub const Call = enum {
    emit,
    barrier,
    next,
    read,
    prepare,
    committed,
    drift,
    emit_dlq_batch,
    room,
    settled,
    spool_append,
    spool_read,
    spool_drop,
    tcp_connect,
    tcp_start_tls,
    tcp_recv,
    tcp_send,
    tcp_close,
    metric,
    random,
    pause,

    /// What the guest was doing.
    pub fn describe(self: Call) []const u8 {
        return switch (self) {
            .emit => "handing over a batch",
            .barrier => "marking a checkpoint",
            .next, .read => "waiting for a batch",
            .prepare => "preparing a checkpoint",
            .committed => "finalising a checkpoint",
            .drift => "telling of schema changes",
            .emit_dlq_batch => "setting rows aside",
            .room => "waiting for room for a batch",
            .settled => "asking what is committed",
            .spool_append => "putting a transaction by",
            .spool_read => "reading a transaction that was put by",
            .spool_drop => "dropping a transaction that was put by",
            .tcp_connect => "connecting",
            .tcp_start_tls => "starting TLS",
            .tcp_recv => "receiving from the server",
            .tcp_send => "sending to the server",
            .tcp_close => "closing the connection",
            .metric => "counting",
            .random => "asking for randomness",
            .pause => "waiting a moment",
        };
    }
};

/// The call whose status was below zero last.
pub var last_failed_call: ?Call = null;

/// Batches
/// One IPC message; blocks while the channel is full.
pub fn emit(pieces: []const Piece) Error!void {
    _ = try check(.emit, imports.emit(pieces.ptr, @intCast(pieces.len)));
}

/// One IPC message that lies in one place.
pub fn emitBytes(message: []const u8) Error!void {
    return emit(&.{.from(message)});
}

/// Source: everything emitted before can be committed; reading can resume from `cursor` (anything that JSON holds).
/// `rejected` rows were left out since the last barrier, and told by no letter.
pub fn barrier(
    arena: std.mem.Allocator,
    cursor: anytype,
    final: bool,
    rejected: u64,
) (Error || std.mem.Allocator.Error)!void {
    const text = if (rejected == 0)
        try json.stringify(arena, .{ .cursor = cursor, .final = final })
    else
        try json.stringify(arena, .{ .cursor = cursor, .final = final, .rejected = rejected });
    _ = try check(.barrier, imports.barrier(text.ptr, @intCast(text.len)));
}

/// `barrier` where several streams are captured; `rejected` says of each stream how many changes were left out.
pub fn barrierOfStreams(
    arena: std.mem.Allocator,
    cursor: anytype,
    final: bool,
    rejected: json.ArrayHashMap(u64),
) (Error || std.mem.Allocator.Error)!void {
    const text = try json.stringify(arena, .{ .cursor = cursor, .final = final, .rejected = rejected });
    _ = try check(.barrier, imports.barrier(text.ptr, @intCast(text.len)));
}

/// Transform: everything that came before the barrier of this number is emitted. What is counted, is counted since the last
/// one: `rejected` rows were left out because of what is in them, `filtered` ones on purpose.
pub fn passBarrier(sequence: u64, rejected: u64, filtered: u64) Error!void {
    var buffer: [128]u8 = undefined;
    const text = std.fmt.bufPrint(
        &buffer,
        "{{\"sequence\":{d},\"rejected\":{d},\"filtered\":{d}}}",
        .{ sequence, rejected, filtered },
    ) catch unreachable;
    _ = try check(.barrier, imports.barrier(text.ptr, @intCast(text.len)));
}

pub const ItemKind = enum { message, barrier, end };

pub const Item = struct {
    kind: ItemKind,
    /// Bytes to `read`.
    len: usize,
};

/// Destination and transform: waits for what comes next. `read` it before asking again.
pub fn next() Error!Item {
    var len: u32 = 0;
    return switch (try check(.next, imports.next(&len))) {
        1 => .{ .kind = .message, .len = len },
        2 => .{ .kind = .barrier, .len = len },
        3 => .{ .kind = .end, .len = 0 },
        else => error.Invalid,
    };
}

/// Copies the pending item in; `buffer` has exactly the item's length.
pub fn read(buffer: []u8) Error!void {
    _ = try check(.read, imports.read(buffer.ptr, @intCast(buffer.len)));
}

pub const Barrier = struct {
    sequence: u64,
    cursor: std.json.Value = .null,
    final: bool = false,
};

/// Reads the pending barrier.
pub fn readBarrier(arena: std.mem.Allocator, len: usize) (Error || std.mem.Allocator.Error)!Barrier {
    const buffer = try arena.alloc(u8, len);
    try read(buffer);
    return json.parse(Barrier, arena, buffer) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => error.Invalid,
    };
}

/// Destination, before COMMIT. What is counted, is counted since the last one: `rows` are those that were taken, and
/// `rejected` are those among them that are in no table.
pub fn prepare(sequence: u64, rows: u64, bytes: u64, rejected: u64) Error!void {
    var buffer: [160]u8 = undefined;
    const text = std.fmt.bufPrint(
        &buffer,
        "{{\"sequence\":{d},\"rows\":{d},\"bytes\":{d},\"rejected\":{d}}}",
        .{ sequence, rows, bytes, rejected },
    ) catch unreachable;
    _ = try check(.prepare, imports.prepare(text.ptr, @intCast(text.len)));
}

/// Destination, after COMMIT.
pub fn committed(sequence: u64) Error!void {
    var buffer: [64]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, "{{\"sequence\":{d}}}", .{sequence}) catch unreachable;
    _ = try check(.committed, imports.committed(text.ptr, @intCast(text.len)));
}

/// `prepare` of several streams, as the ABI has it.
pub fn prepareStreams(arena: std.mem.Allocator, payload: anytype) (Error || std.mem.Allocator.Error)!void {
    const text = try json.stringify(arena, payload);
    _ = try check(.prepare, imports.prepare(text.ptr, @intCast(text.len)));
}

/// Destination: how the stream and its table differ, and what becomes of that. `changes` is a list of what the ABI calls
/// changes; `stream` is named where several are written.
pub fn drift(arena: std.mem.Allocator, stream: ?[]const u8, changes: anytype) (Error || std.mem.Allocator.Error)!void {
    const text = if (stream) |name|
        try json.stringify(arena, .{ .stream = name, .changes = changes })
    else
        try json.stringify(arena, .{ .changes = changes });
    _ = try check(.drift, imports.drift(text.ptr, @intCast(text.len)));
}

/// Rows that are set aside because of what is in them, before the `prepare` that covers them. `letters` is a list of what
/// the ABI calls letters; a few megabytes of them at once keep host and guest small.
pub fn emitDlqBatch(arena: std.mem.Allocator, letters: anytype) (Error || std.mem.Allocator.Error)!void {
    try emitDlqText(try json.stringify(arena, .{ .letters = letters }));
}

/// `emitDlqBatch` where several streams are written.
pub fn emitDlqBatchOf(arena: std.mem.Allocator, stream: []const u8, letters: anytype) (Error || std.mem.Allocator.Error)!void {
    try emitDlqText(try json.stringify(arena, .{ .stream = stream, .letters = letters }));
}

/// `emitDlqBatch` of what is JSON already.
pub fn emitDlqText(text: []const u8) Error!void {
    _ = try check(.emit_dlq_batch, imports.emit_dlq_batch(text.ptr, @intCast(text.len)));
}

/// Source: whether an `emit` would not have to wait; waits for that up to `timeout_ms` (at least 0).
pub fn room(timeout_ms: i32) Error!bool {
    return try check(.room, imports.room(timeout_ms)) == 1;
}

/// Source: the number, from 1, of the last of this instance's barriers up to which everything is committed; 0 for none.
pub fn settled() Error!u64 {
    const number = imports.settled();
    if (number < 0) _ = try check(.settled, @intCast(@max(number, std.math.minInt(i32))));
    return @intCast(number);
}

/// A file of the host's for what does not fit into memory. It goes with the instance.
pub const Spool = struct {
    /// The instance's own name for it; the first `append` makes it.
    id: i64,

    /// Bytes at the end, all of them.
    pub fn append(self: Spool, bytes: []const u8) Error!void {
        var rest = bytes;
        while (rest.len > 0) {
            const part = rest[0..@min(rest.len, max_transfer)];
            _ = try check(.spool_append, imports.spool_append(self.id, part.ptr, @intCast(part.len)));
            rest = rest[part.len..];
        }
    }

    /// As many of the bytes from `offset` on as there are and fit.
    pub fn read(self: Spool, offset: u64, buffer: []u8) Error!usize {
        const count = imports.spool_read(self.id, @intCast(offset), buffer.ptr, @intCast(@min(buffer.len, max_transfer)));
        return @intCast(try check(.spool_read, count));
    }

    /// Nothing happens where there is none of that name.
    pub fn drop(self: Spool) Error!void {
        _ = try check(.spool_drop, imports.spool_drop(self.id));
    }
};

pub const TlsVerify = enum { none, ca, full };

pub const TlsOptions = struct {
    server_name: []const u8,
    verify: TlsVerify,
    root_cert: ?[]const u8 = null,
    cert: ?[]const u8 = null,
    key: ?[]const u8 = null,
};

/// A connection that the host holds. Timeouts are in milliseconds; 0 is the host's default.
pub const Socket = struct {
    handle: i32,

    /// A `host` that starts with `/` is the path of a unix socket.
    pub fn connect(
        arena: std.mem.Allocator,
        host: []const u8,
        port: u16,
        timeout_ms: i32,
    ) (Error || std.mem.Allocator.Error)!Socket {
        const text = try json.stringify(arena, .{ .host = host, .port = port, .timeout_ms = timeout_ms });
        return .{ .handle = try check(.tcp_connect, imports.tcp_connect(text.ptr, @intCast(text.len))) };
    }

    pub fn startTls(
        self: Socket,
        arena: std.mem.Allocator,
        options: TlsOptions,
    ) (Error || std.mem.Allocator.Error)!void {
        const text = try json.stringify(arena, options);
        _ = try check(.tcp_start_tls, imports.tcp_start_tls(self.handle, text.ptr, @intCast(text.len)));
    }

    /// At least one byte; 0 when the peer closed.
    pub fn recv(self: Socket, buffer: []u8, timeout_ms: i32) Error!usize {
        return @intCast(try check(
            .tcp_recv,
            imports.tcp_recv(self.handle, buffer.ptr, @intCast(@min(buffer.len, max_transfer)), timeout_ms),
        ));
    }

    /// All of `bytes`.
    pub fn send(self: Socket, bytes: []const u8, timeout_ms: i32) Error!void {
        var rest = bytes;
        while (rest.len > 0) {
            const part = rest[0..@min(rest.len, max_transfer)];
            _ = try check(.tcp_send, imports.tcp_send(self.handle, part.ptr, @intCast(part.len), timeout_ms));
            rest = rest[part.len..];
        }
    }

    /// Never fails: what is gone is closed.
    pub fn close(self: Socket) void {
        _ = imports.tcp_close(self.handle);
    }
};

/// Bytes of one send or receive: the result is an i32, so a longer one could not be told from a status.
const max_transfer = 1 << 30;

pub const Level = enum(i32) { debug = 0, info = 1, warning = 2, err = 3 };

/// Bytes of one line of the log; what is longer is cut.
pub const log_limit = 4096;

pub fn log(level: Level, comptime format: []const u8, args: anytype) void {
    var buffer: [log_limit]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    writer.print(format, args) catch {};
    logText(level, writer.buffered());
}

/// Bytes that are not UTF-8 are shown as U+FFFD by the host.
pub fn logText(level: Level, text: []const u8) void {
    _ = imports.log(@backingInt(level), text.ptr, @intCast(text.len));
}

/// Adds `value` to the counter of that name.
pub fn metric(name: []const u8, value: f64) void {
    _ = imports.metric(name.ptr, @intCast(name.len), value);
}

/// Microseconds since 1970-01-01 UTC.
pub fn now() i64 {
    return imports.now();
}

/// Does nothing for so long, at most 100 ms.
pub fn pause(milliseconds: i32) Error!void {
    _ = try check(.pause, imports.pause(milliseconds));
}

/// Cryptographic randomness.
pub fn random(buffer: []u8) Error!void {
    _ = try check(.random, imports.random(buffer.ptr, @intCast(buffer.len)));
}

pub fn isCancelled() bool {
    return imports.is_cancelled() == 1;
}

fn check(call: Call, status: i32) Error!i32 {
    if (status >= 0) return status;
    last_failed_call = call;
    // A record of an earlier, handled failure must not be taken for this one's.
    errors.clear();
    return switch (status) {
        -1 => error.Invalid,
        -2 => error.Cancelled,
        -3 => error.Timeout,
        -4 => error.Denied,
        -5 => error.Closed,
        -7 => error.Aborted,
        else => error.Failed,
    };
}

test "a status becomes its error and forgets an older failure" {
    errors.failWith(.{ .kind = .data, .message = "old" }) catch {};
    try std.testing.expectError(error.Denied, check(.tcp_connect, -4));
    try std.testing.expectEqual(Call.tcp_connect, last_failed_call.?);
    try std.testing.expectEqual(null, errors.current());
    try std.testing.expectEqual(7, try check(.tcp_recv, 7));
    try std.testing.expectError(error.Failed, check(.tcp_send, -99));
}

test "what is put by comes back from any place, until it is dropped" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const loopback = @import("loopback.zig");
    var playing: loopback.Script = .{ .arena = arena.allocator(), .items = &.{} };
    loopback.script = &playing;
    defer loopback.script = null;
    const spool: Spool = .{ .id = -7 };
    try spool.append("abc");
    try spool.append("defg");
    var buffer: [4]u8 = undefined;
    try std.testing.expectEqual(4, try spool.read(2, &buffer));
    try std.testing.expectEqualStrings("cdef", &buffer);
    try std.testing.expectEqual(1, try spool.read(6, &buffer));
    try std.testing.expectEqual(0, try spool.read(7, &buffer));
    try spool.drop();
    try std.testing.expectError(error.Invalid, spool.read(0, &buffer));
    try std.testing.expectEqual(0, try settled());
    try std.testing.expect(try room(0));
}
