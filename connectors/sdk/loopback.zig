//! The host functions where there is no host: native unit tests. Whatever would reach outside is refused, so nothing
//! can pass for tested that was not; integration tests run the real module in the real host.

const std = @import("std");
const Piece = @import("host.zig").Piece;

const invalid: i32 = -1;
const closed: i32 = -5;

/// A stream that a test hands out, and what the guest says, in its order.
pub const Script = struct {
    /// Of what is said; an arena.
    arena: std.mem.Allocator,
    items: []const Item,
    at: usize = 0,
    said: std.ArrayList(Said) = .empty,
    /// What `settled` answers.
    settled: i64 = 0,
    spools: std.AutoArrayHashMapUnmanaged(i64, std.ArrayList(u8)) = .empty,

    pub const Item = union(enum) { message: []const u8, barrier: []const u8 };

    pub const Said = union(enum) {
        message: []align(8) const u8,
        barrier: []const u8,
        letters: []const u8,
        line: []const u8,
    };

    fn say(self: *Script, what: Said) i32 {
        self.said.append(self.arena, what) catch @panic("out of memory");
        return 0;
    }

    fn keep(self: *Script, bytes: []const u8) []const u8 {
        return self.arena.dupe(u8, bytes) catch @panic("out of memory");
    }

    fn pending(self: *const Script) []const u8 {
        return switch (self.items[self.at]) {
            inline else => |bytes| bytes,
        };
    }
};

/// Set by the test that has one.
pub var script: ?*Script = null;

pub fn emit(pieces: [*]const Piece, count: u32) i32 {
    const playing = script orelse return invalid;
    var size: usize = 0;
    for (pieces[0..count]) |piece| size += piece.len;
    const message = playing.arena.alignedAlloc(u8, .@"8", size) catch @panic("out of memory");
    var at: usize = 0;
    for (pieces[0..count]) |piece| {
        @memcpy(message[at..][0..piece.len], piece.slice());
        at += piece.len;
    }
    return playing.say(.{ .message = message });
}

pub fn barrier(ptr: [*]const u8, len: u32) i32 {
    const playing = script orelse return invalid;
    return playing.say(.{ .barrier = playing.keep(ptr[0..len]) });
}

pub fn next(out: *u32) i32 {
    const playing = script orelse return invalid;
    if (playing.at == playing.items.len) return 3;
    out.* = @intCast(playing.pending().len);
    return if (playing.items[playing.at] == .message) 1 else 2;
}

pub fn read(ptr: [*]u8, len: u32) i32 {
    const playing = script orelse return invalid;
    if (playing.at == playing.items.len or playing.pending().len != len) return invalid;
    @memcpy(ptr[0..len], playing.pending());
    playing.at += 1;
    return 0;
}

pub fn prepare(_: [*]const u8, _: u32) i32 {
    return invalid;
}

pub fn committed(_: [*]const u8, _: u32) i32 {
    return invalid;
}

pub fn drift(_: [*]const u8, _: u32) i32 {
    return invalid;
}

pub fn emit_dlq_batch(ptr: [*]const u8, len: u32) i32 {
    const playing = script orelse return invalid;
    return playing.say(.{ .letters = playing.keep(ptr[0..len]) });
}

pub fn room(_: i32) i32 {
    return if (script == null) invalid else 1;
}

pub fn settled() i64 {
    const playing = script orelse return invalid;
    return playing.settled;
}

pub fn spool_append(id: i64, ptr: [*]const u8, len: u32) i32 {
    const playing = script orelse return invalid;
    const found = playing.spools.getOrPutValue(playing.arena, id, .empty) catch @panic("out of memory");
    found.value_ptr.appendSlice(playing.arena, ptr[0..len]) catch @panic("out of memory");
    return 0;
}

pub fn spool_read(id: i64, offset: i64, ptr: [*]u8, len: u32) i32 {
    const playing = script orelse return invalid;
    const spool = playing.spools.get(id) orelse return invalid;
    if (offset < 0 or offset > spool.items.len) return invalid;
    const rest = spool.items[@intCast(offset)..];
    const count = @min(rest.len, len);
    @memcpy(ptr[0..count], rest[0..count]);
    return @intCast(count);
}

pub fn spool_drop(id: i64) i32 {
    const playing = script orelse return invalid;
    _ = playing.spools.swapRemove(id);
    return 0;
}

pub fn tcp_connect(_: [*]const u8, _: u32) i32 {
    return closed;
}

pub fn tcp_start_tls(_: i32, _: [*]const u8, _: u32) i32 {
    return closed;
}

pub fn tcp_recv(_: i32, _: [*]u8, _: u32, _: i32) i32 {
    return closed;
}

pub fn tcp_send(_: i32, _: [*]const u8, _: u32, _: i32) i32 {
    return closed;
}

pub fn tcp_close(_: i32) i32 {
    return closed;
}

pub fn log(_: i32, ptr: [*]const u8, len: u32) i32 {
    const playing = script orelse return 0;
    return playing.say(.{ .line = playing.keep(ptr[0..len]) });
}

pub fn metric(_: [*]const u8, _: u32, _: f64) i32 {
    return 0;
}

/// 2026-01-01, always: tests repeat.
pub fn now() i64 {
    return 1_767_225_600_000_000;
}

/// The same bytes each time, for the same reason.
pub fn random(ptr: [*]u8, len: u32) i32 {
    var source: std.Random.DefaultPrng = .init(0);
    source.fill(ptr[0..len]);
    return 0;
}

pub fn pause(_: i32) i32 {
    return 0;
}

pub fn is_cancelled() i32 {
    return 0;
}
