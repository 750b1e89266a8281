//! COPY's sub-protocol in both directions, and the frame of its binary format.
//!
//!     CopyData      'd' length:u32 bytes…     from the server one row each; to the server cut anywhere
//!
//!     binary        ┌──────────────────────┬────────────┬─────────────────────┬───────┬──────────────┐
//!     format        │ "PGCOPY\n\xff\r\n\0" │ flags: u32 │ extension: u32, … B │ row … │ trailer: -1  │
//!                   └──────────────────────┴────────────┴─────────────────────┴───────┴──────────────┘
//!     row           fields: i16, then per field length: i32 (-1 = NULL) and that many bytes
//!
//! https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
//! https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4

const std = @import("std");
const Connection = @import("connection.zig").Connection;
const message = @import("message.zig");

const assert = std.debug.assert;
const tag = message.tag;

pub const signature = "PGCOPY\n\xff\r\n\x00";
/// Signature, no flags, no extension: what starts every COPY that is sent.
pub const header = signature ++ @as([8]u8, @splat(0));
/// In the place of a row's field count.
pub const trailer = "\xff\xff";

/// Bytes of one CopyData message to the server, its tag and length included: large enough that a send's cost
/// disappears, small enough to overlap with the server's work.
pub const frame_bytes = 256 * 1024;
const frame_header_bytes = 5;
/// The server says only when asked what became of a COPY. After this many frames (64 MiB), look whether it already
/// gave up, so that a constraint's violation does not cost the whole transfer.
const frames_between_polls = 256;
/// What such a look may wait; 1 ms is the least there is.
const poll_timeout_ms = 1;

/// `COPY … TO STDOUT`, open. Take everything until null, or close the connection.
pub const CopyOut = struct {
    connection: *Connection,
    /// Messages of data so far.
    count: u64 = 0,
    done: bool = false,

    /// One CopyData payload, valid until the next call; null once the server has confirmed the end. A connection that
    /// breaks is an error, never an end. After `error.OutOfMemory`, `large` tells what there was no memory for.
    pub inline fn next(self: *CopyOut) Connection.Error!?[]const u8 {
        const connection = self.connection;
        const taken = connection.receiver.next(connection.transport) catch |err|
            return if (err == error.OutOfMemory) err else connection.receiverError(err);
        if (taken.tag == tag.copy_data) {
            self.count += 1;
            return taken.body;
        }
        return self.nextOther(taken);
    }

    /// The payload that did not fit into memory, to be read piece by piece. Null, with a connection that is of no use any
    /// more, when it is no payload.
    pub fn large(self: *CopyOut) ?Large {
        const found = self.connection.receiver.openLarge();
        if (found == null or found.?.tag != tag.copy_data) {
            self.connection.broken = true;
            return null;
        }
        self.count += 1;
        return .{ .connection = self.connection, .left = found.?.length };
    }

    fn nextOther(self: *CopyOut, taken: Connection.Message) Connection.Error!?[]const u8 {
        @branchHint(.cold);
        assert(!self.done);
        const connection = self.connection;
        const interpreted = try connection.interpret(taken) orelse try connection.receive();
        switch (interpreted.tag) {
            tag.copy_data => {
                self.count += 1;
                return interpreted.body;
            },
            tag.copy_done => {},
            else => return connection.unexpected(interpreted, "COPY TO"),
        }
        const complete = try connection.receive();
        if (complete.tag != tag.command_complete) return connection.unexpected(complete, "COPY TO's end");
        try connection.awaitReady();
        self.done = true;
        return null;
    }
};

/// A payload that is larger than memory. All of it has to be taken before anything else.
pub const Large = struct {
    connection: *Connection,
    /// Bytes that have not been taken yet.
    left: usize,

    /// From one to `max` bytes, valid until the next call. Not more than are `left`.
    pub fn next(self: *Large, max: usize) Connection.Error![]const u8 {
        assert(max > 0 and max <= self.left);
        const connection = self.connection;
        const bytes = connection.receiver.pass(connection.transport, max) catch |err| return connection.receiverError(err);
        self.left -= bytes.len;
        return bytes;
    }
};

/// `COPY … FROM STDIN`, open. Ends with `finish` or `fail`, or with the connection.
pub const CopyIn = struct {
    connection: *Connection,
    /// The frame being filled; its first bytes are kept for the message's header. The connection owns it.
    frame: []u8,
    used: usize = frame_header_bytes,
    frames: u32 = 0,
    /// Payload bytes sent or waiting in the frame.
    bytes: u64 = 0,

    /// Room for exactly `count` bytes (at most `frame_bytes / 2`), to be filled; then `commit` what was used.
    pub inline fn reserve(self: *CopyIn, count: usize) Connection.Error![]u8 {
        if (self.frame.len - self.used < count) {
            assert(count <= frame_bytes / 2);
            try self.flush();
        }
        return self.frame[self.used..][0..count];
    }

    pub inline fn commit(self: *CopyIn, count: usize) void {
        assert(count <= self.frame.len - self.used);
        self.used += count;
        self.bytes += count;
    }

    /// Any number of bytes; large ones are sent from where they lie.
    pub fn write(self: *CopyIn, bytes: []const u8) Connection.Error!void {
        if (bytes.len > self.frame.len - self.used) {
            try self.flush();
            if (bytes.len > frame_bytes / 2) return self.writeLarge(bytes);
        }
        @memcpy(self.frame[self.used..][0..bytes.len], bytes);
        self.commit(bytes.len);
    }

    fn writeLarge(self: *CopyIn, bytes: []const u8) Connection.Error!void {
        assert(self.used == frame_header_bytes);
        var rest = bytes;
        while (rest.len > 0) {
            // The server collects a message in memory before it looks at it: keep to its usual size.
            const part = rest[0..@min(rest.len, 16 * frame_bytes)];
            var head: [frame_header_bytes]u8 = undefined;
            head[0] = tag.copy_data;
            std.mem.writeInt(u32, head[1..5], @intCast(part.len + 4), .big);
            try self.connection.send(&head);
            try self.connection.send(part);
            rest = rest[part.len..];
        }
        self.bytes += bytes.len;
    }

    /// Sends what waits in the frame.
    pub fn flush(self: *CopyIn) Connection.Error!void {
        if (self.used == frame_header_bytes) return;
        self.frame[0] = tag.copy_data;
        std.mem.writeInt(u32, self.frame[1..5], @intCast(self.used - 1), .big);
        const filled = self.frame[0..self.used];
        self.used = frame_header_bytes;
        try self.connection.send(filled);
        self.frames += 1;
        if (self.frames % frames_between_polls == 0) try self.connection.poll(poll_timeout_ms);
    }

    /// Sends the rest and waits for the server's verdict: the number of rows it took.
    pub fn finish(self: *CopyIn) Connection.Error!u64 {
        try self.flush();
        try self.connection.send("c\x00\x00\x00\x04");
        const complete = try self.connection.receive();
        if (complete.tag != tag.command_complete) return self.connection.unexpected(complete, "COPY FROM's end");
        var body: message.Body = .{ .rest = complete.body };
        const rows = message.rowsOf(body.string() catch "");
        if (rows == null) return self.connection.unexpected(complete, "COPY FROM's end");
        try self.connection.awaitReady();
        return rows.?;
    }

    /// Makes the server forget this COPY. The connection stays usable (in a failed transaction, if in one).
    pub fn fail(self: *CopyIn, reason: []const u8) Connection.Error!void {
        try self.connection.failCopy(reason);
        _ = self.connection.receive() catch |err| switch (err) {
            error.Server => return, // "COPY from stdin failed: …", which is what was asked for
            else => return err,
        };
        try self.connection.awaitReady();
    }
};

pub const FormatError = error{Protocol};

/// Skips the header of a binary COPY; what comes behind it in the same message is the first row.
pub fn skipHeader(bytes: []const u8) FormatError![]const u8 {
    if (bytes.len < header.len) return error.Protocol;
    if (!std.mem.eql(u8, bytes[0..signature.len], signature)) return error.Protocol;
    const flags = std.mem.readInt(u32, bytes[signature.len..][0..4], .big);
    // Bits 16 and up are critical; bit 16 itself says that rows carry oids, which no supported server does.
    if (flags >> 16 != 0) return error.Protocol;
    const extension_bytes = std.mem.readInt(u32, bytes[signature.len + 4 ..][0..4], .big);
    const rest = bytes[header.len..];
    if (extension_bytes > rest.len) return error.Protocol;
    return rest[extension_bytes..];
}

test "the header's extension is skipped and critical flags are refused" {
    try std.testing.expectEqualStrings("rest", try skipHeader(header ++ "rest"));
    try std.testing.expectEqualStrings("rest", try skipHeader(signature ++ "\x00\x00\x00\x00\x00\x00\x00\x02xxrest"));
    try std.testing.expectError(error.Protocol, skipHeader(signature ++ "\x00\x01\x00\x00\x00\x00\x00\x00"));
    try std.testing.expectError(error.Protocol, skipHeader(signature ++ "\x00\x00\x00\x00\x00\x00\x00\x09x"));
    try std.testing.expectError(error.Protocol, skipHeader("PGCOPY\n"));
    try std.testing.expectError(error.Protocol, skipHeader(&@as([30]u8, @splat('x'))));
}
