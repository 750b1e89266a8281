//! The host functions where there is no host: native unit tests. Whatever would reach outside is refused, so nothing
//! can pass for tested that was not; integration tests run the real module in the real host.

const std = @import("std");
const Piece = @import("host.zig").Piece;

const invalid: i32 = -1;
const closed: i32 = -5;

pub fn emit(_: [*]const Piece, _: u32) i32 {
    return invalid;
}

pub fn barrier(_: [*]const u8, _: u32) i32 {
    return invalid;
}

pub fn next(_: *u32) i32 {
    return invalid;
}

pub fn read(_: [*]u8, _: u32) i32 {
    return invalid;
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

pub fn emit_dlq_batch(_: [*]const u8, _: u32) i32 {
    return invalid;
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

pub fn log(_: i32, _: [*]const u8, _: u32) i32 {
    return 0;
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

pub fn is_cancelled() i32 {
    return 0;
}
