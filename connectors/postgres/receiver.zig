//! The receive buffer and the messages in it.
//!
//!     ┌──────────┬───────────────────┬──────────────────┐
//!     │ tag (u8) │ length (u32, BE)  │ body             │   length counts itself, not the tag
//!     └──────────┴───────────────────┴──────────────────┘
//!
//! A message's body is a slice of the buffer: nothing is copied, and the slice lives until the next message is
//! taken. https://www.postgresql.org/docs/current/protocol-message-formats.html

const std = @import("std");
const Transport = @import("transport.zig").Transport;

const Allocator = std.mem.Allocator;
const assert = std.debug.assert;

/// One recv of the largest size that kernels hand over, with the row it cuts in two.
pub const buffer_bytes = 1024 * 1024;
/// The least free space worth a recv; below it, what is left over moves to the front.
const recv_bytes_min = 128 * 1024;
/// PostgreSQL builds a message in one allocation, which it limits to 1 GiB.
pub const message_bytes_max = 1024 * 1024 * 1024;
/// Before authentication nobody has a reason to send more than an error message or a salt.
pub const startup_message_bytes_max = 64 * 1024;

const header_bytes = 5;

pub const Message = struct {
    tag: u8,
    body: []const u8,
};

pub const Receiver = struct {
    gpa: Allocator,
    buffer: []u8,
    start: usize = 0,
    end: usize = 0,
    /// Longest message that is accepted, in bytes.
    limit: usize = startup_message_bytes_max,
    /// How long one recv may wait; 0 is the host's default.
    timeout_ms: i32 = 0,
    /// Everything that came from the server, in bytes.
    received: u64 = 0,
    /// The memory of a large message is needed elsewhere: it is given back with the next recv.
    is_to_shrink: bool = false,

    pub const Error = Transport.Error || Allocator.Error || error{
        /// A length that no message has.
        Protocol,
        /// Longer than `limit`.
        TooLarge,
    };

    pub fn init(gpa: Allocator) Allocator.Error!Receiver {
        return .{ .gpa = gpa, .buffer = try gpa.alloc(u8, buffer_bytes) };
    }

    pub fn deinit(self: *Receiver) void {
        self.gpa.free(self.buffer);
        self.* = undefined;
    }

    /// The next message, whole. Its body is valid until the next call.
    pub inline fn next(self: *Receiver, transport: Transport) Error!Message {
        const available = self.end - self.start;
        if (available >= header_bytes) {
            const bytes = self.buffer[self.start..self.end];
            const length = std.mem.readInt(u32, bytes[1..header_bytes], .big);
            if (length >= 4 and length < available) {
                self.start += 1 + length;
                return .{ .tag = bytes[0], .body = bytes[header_bytes .. 1 + length] };
            }
        }
        return self.nextSlow(transport);
    }

    /// Whether the next message is here already, whole.
    pub fn holdsMessage(self: *const Receiver) bool {
        const available = self.end - self.start;
        if (available < header_bytes) return false;
        return std.mem.readInt(u32, self.buffer[self.start + 1 ..][0..4], .big) < available;
    }

    fn nextSlow(self: *Receiver, transport: Transport) Error!Message {
        @branchHint(.unlikely);
        if (self.is_to_shrink) self.shrink();
        try self.fill(transport, header_bytes);
        const length = std.mem.readInt(u32, self.buffer[self.start + 1 ..][0..4], .big);
        if (length < 4) return error.Protocol;
        if (length > self.limit) return error.TooLarge;
        try self.fill(transport, 1 + length);
        const bytes = self.buffer[self.start..][0 .. 1 + length];
        self.start += bytes.len;
        return .{ .tag = bytes[0], .body = bytes[header_bytes..] };
    }

    pub const Large = struct { tag: u8, length: usize };

    /// The message for which `next` had no memory; null when it was not for the memory. Its body comes by `pass` then,
    /// all of it, before the next message is asked for.
    pub fn openLarge(self: *Receiver) ?Large {
        if (self.end - self.start < header_bytes) return null;
        const bytes = self.buffer[self.start..][0..header_bytes];
        const length = std.mem.readInt(u32, bytes[1..], .big);
        if (length < self.buffer.len or length > self.limit) return null;
        self.start += header_bytes;
        return .{ .tag = bytes[0], .length = length - 4 };
    }

    /// The next bytes of a large message's body, from one to `max` of them, valid until the next call.
    pub fn pass(self: *Receiver, transport: Transport, max: usize) Error![]const u8 {
        assert(max > 0);
        try self.fill(transport, 1);
        const bytes = self.buffer[self.start..][0..@min(max, self.end - self.start)];
        self.start += bytes.len;
        return bytes;
    }

    fn shrink(self: *Receiver) void {
        self.is_to_shrink = false;
        const rest = self.buffer[self.start..self.end];
        if (self.buffer.len == buffer_bytes or rest.len > buffer_bytes) return;
        const smaller = self.gpa.alloc(u8, buffer_bytes) catch return;
        @memcpy(smaller[0..rest.len], rest);
        self.gpa.free(self.buffer);
        self.buffer = smaller;
        self.start = 0;
        self.end = rest.len;
    }

    /// One byte outside any message: the answer to SSLRequest. What came with it would be plain text from before the
    /// handshake, so there must be nothing (CVE-2021-23222).
    pub fn byte(self: *Receiver, transport: Transport) Error!u8 {
        assert(self.start == self.end);
        try self.fill(transport, 1);
        if (self.end - self.start != 1) return error.Protocol;
        const value = self.buffer[self.start];
        self.start = self.end;
        return value;
    }

    /// Waits until `count` bytes lie at `start`.
    fn fill(self: *Receiver, transport: Transport, count: usize) Error!void {
        if (self.end - self.start >= count) return;
        try self.makeRoom(count);
        while (self.end - self.start < count) {
            const received = try transport.recv(self.buffer[self.end..], self.timeout_ms);
            self.end += received;
            self.received += received;
        }
    }

    fn makeRoom(self: *Receiver, count: usize) Allocator.Error!void {
        const rest = self.buffer[self.start..self.end];
        if (count > self.buffer.len) {
            // The large message of a stream is seldom alone: keep the larger buffer.
            const larger = try self.gpa.alloc(u8, std.mem.alignForward(usize, count + recv_bytes_min, 4096));
            @memcpy(larger[0..rest.len], rest);
            self.gpa.free(self.buffer);
            self.buffer = larger;
        } else if (rest.len == 0 or self.buffer.len - self.start < count or
            self.buffer.len - self.end < @min(recv_bytes_min, self.buffer.len / 8))
        {
            @memmove(self.buffer[0..rest.len], rest);
        } else return;
        self.start = 0;
        self.end = rest.len;
    }
};

const Script = @import("transport.zig").Script;

test "messages come whole, however the network cuts them" {
    const bytes = "Z\x00\x00\x00\x05I" ++ "D\x00\x00\x00\x06ab" ++ "c\x00\x00\x00\x04";
    for (1..bytes.len + 1) |piece_bytes| {
        var script: Script = .{ .gpa = std.testing.allocator, .incoming = bytes, .piece_bytes = piece_bytes };
        defer script.deinit();
        var receiver: Receiver = try .init(std.testing.allocator);
        defer receiver.deinit();
        const expected = [_]Message{
            .{ .tag = 'Z', .body = "I" },
            .{ .tag = 'D', .body = "ab" },
            .{ .tag = 'c', .body = "" },
        };
        for (expected) |message| {
            const got = try receiver.next(script.transport());
            try std.testing.expectEqual(message.tag, got.tag);
            try std.testing.expectEqualStrings(message.body, got.body);
        }
        try std.testing.expectError(error.Closed, receiver.next(script.transport()));
        try std.testing.expectEqual(bytes.len, receiver.received);
    }
}

test "a message larger than the buffer grows it, up to the limit" {
    const gpa = std.testing.allocator;
    const length = 3 * buffer_bytes;
    const bytes = try gpa.alloc(u8, 1 + length + 6);
    defer gpa.free(bytes);
    @memset(bytes, 'x');
    bytes[0] = 'd';
    std.mem.writeInt(u32, bytes[1..5], length, .big);
    @memcpy(bytes[1 + length ..], "Z\x00\x00\x00\x05I");

    var script: Script = .{ .gpa = gpa, .incoming = bytes, .piece_bytes = 100_000 };
    defer script.deinit();
    var receiver: Receiver = try .init(gpa);
    defer receiver.deinit();
    try std.testing.expectError(error.TooLarge, receiver.next(script.transport()));
    receiver.limit = message_bytes_max;
    try std.testing.expectEqual(length - 4, (try receiver.next(script.transport())).body.len);
    try std.testing.expectEqualStrings("I", (try receiver.next(script.transport())).body);
}

test "a message that there is no memory for goes by, and the next one comes" {
    const gpa = std.testing.allocator;
    const length = 3 * buffer_bytes;
    const bytes = try gpa.alloc(u8, 1 + length + 6);
    defer gpa.free(bytes);
    @memset(bytes, 'x');
    bytes[0] = 'd';
    std.mem.writeInt(u32, bytes[1..5], length, .big);
    @memcpy(bytes[1 + length ..], "Z\x00\x00\x00\x05I");

    var script: Script = .{ .gpa = gpa, .incoming = bytes, .piece_bytes = 100_000 };
    defer script.deinit();
    var failing: std.testing.FailingAllocator = .init(gpa, .{ .fail_index = 1 });
    var receiver: Receiver = try .init(failing.allocator());
    defer receiver.deinit();
    receiver.limit = message_bytes_max;
    try std.testing.expectError(error.OutOfMemory, receiver.next(script.transport()));
    const large = receiver.openLarge().?;
    try std.testing.expectEqual(Receiver.Large{ .tag = 'd', .length = length - 4 }, large);
    var left = large.length;
    while (left > 0) left -= (try receiver.pass(script.transport(), left)).len;
    try std.testing.expectEqualStrings("I", (try receiver.next(script.transport())).body);
    try std.testing.expectEqual(null, receiver.openLarge());
}

test "the memory of a large message is given back when that is asked for" {
    const gpa = std.testing.allocator;
    const length = 3 * buffer_bytes;
    const bytes = try gpa.alloc(u8, 1 + length + 6);
    defer gpa.free(bytes);
    @memset(bytes, 'x');
    bytes[0] = 'd';
    std.mem.writeInt(u32, bytes[1..5], length, .big);
    @memcpy(bytes[1 + length ..], "Z\x00\x00\x00\x05I");

    var script: Script = .{ .gpa = gpa, .incoming = bytes, .piece_bytes = 100_000 };
    defer script.deinit();
    var receiver: Receiver = try .init(gpa);
    defer receiver.deinit();
    receiver.limit = message_bytes_max;
    _ = try receiver.next(script.transport());
    try std.testing.expect(receiver.buffer.len > buffer_bytes);
    receiver.is_to_shrink = true;
    try std.testing.expectEqualStrings("I", (try receiver.next(script.transport())).body);
    try std.testing.expectError(error.Closed, receiver.next(script.transport()));
    try std.testing.expectEqual(buffer_bytes, receiver.buffer.len);
}

test "a length below its own four bytes is a protocol error" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = "Z\x00\x00\x00\x03I" };
    defer script.deinit();
    var receiver: Receiver = try .init(std.testing.allocator);
    defer receiver.deinit();
    try std.testing.expectError(error.Protocol, receiver.next(script.transport()));
}

test "bytes sent along with the answer to SSLRequest are refused" {
    var script: Script = .{ .gpa = std.testing.allocator, .incoming = "SR\x00\x00\x00\x08\x00\x00\x00\x00" };
    defer script.deinit();
    var receiver: Receiver = try .init(std.testing.allocator);
    defer receiver.deinit();
    try std.testing.expectError(error.Protocol, receiver.byte(script.transport()));
}
