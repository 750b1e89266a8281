//! Bytes to and from one server, whoever carries them: the host's sockets in a connector, a script in the tests.

const std = @import("std");

pub const Transport = struct {
    context: *anyopaque,
    vtable: *const VTable,

    /// The host's statuses; `Closed` is a peer that went away.
    pub const Error = error{ Invalid, Cancelled, Timeout, Denied, Closed, Failed, Aborted };

    pub const VTable = struct {
        recv: *const fn (context: *anyopaque, buffer: []u8, timeout_ms: i32) Error!usize,
        send: *const fn (context: *anyopaque, bytes: []const u8, timeout_ms: i32) Error!void,
        startTls: *const fn (context: *anyopaque, tls: Tls) Error!void,
        close: *const fn (context: *anyopaque) void,
    };

    pub const Tls = struct {
        server_name: []const u8,
        verify: enum { none, ca, full },
        root_cert: ?[]const u8 = null,
        cert: ?[]const u8 = null,
        key: ?[]const u8 = null,
    };

    /// At least one byte. An orderly end of the peer is `error.Closed` too: PostgreSQL never ends a session first
    /// without being asked.
    pub fn recv(self: Transport, buffer: []u8, timeout_ms: i32) Error!usize {
        std.debug.assert(buffer.len > 0);
        const count = try self.vtable.recv(self.context, buffer, timeout_ms);
        if (count == 0) return error.Closed;
        std.debug.assert(count <= buffer.len);
        return count;
    }

    pub fn send(self: Transport, bytes: []const u8, timeout_ms: i32) Error!void {
        return self.vtable.send(self.context, bytes, timeout_ms);
    }

    pub fn startTls(self: Transport, tls: Tls) Error!void {
        return self.vtable.startTls(self.context, tls);
    }

    pub fn close(self: Transport) void {
        self.vtable.close(self.context);
    }
};

/// A server that was written down: what it sends, cut into given pieces, and what it was sent.
pub const Script = struct {
    gpa: std.mem.Allocator,
    incoming: []const u8,
    /// Bytes that one recv brings at most.
    piece_bytes: usize = std.math.maxInt(usize),
    sent: std.ArrayList(u8) = .empty,
    position: usize = 0,

    pub fn deinit(self: *Script) void {
        self.sent.deinit(self.gpa);
    }

    pub fn transport(self: *Script) Transport {
        return .{ .context = self, .vtable = &.{ .recv = recv, .send = send, .startTls = startTls, .close = close } };
    }

    fn recv(context: *anyopaque, buffer: []u8, _: i32) Transport.Error!usize {
        const self: *Script = @ptrCast(@alignCast(context));
        const rest = self.incoming[self.position..];
        const count = @min(rest.len, buffer.len, self.piece_bytes);
        @memcpy(buffer[0..count], rest[0..count]);
        self.position += count;
        return count;
    }

    fn send(context: *anyopaque, bytes: []const u8, _: i32) Transport.Error!void {
        const self: *Script = @ptrCast(@alignCast(context));
        self.sent.appendSlice(self.gpa, bytes) catch return error.Failed;
    }

    fn startTls(_: *anyopaque, _: Transport.Tls) Transport.Error!void {}
    fn close(_: *anyopaque) void {}
};
