//! The host functions as the module imports them, module `rapidbyte`. See docs/connector-abi.md.
//!
//! A function that the connector never calls does not reach its import list.

pub extern "rapidbyte" fn emit(pieces: [*]const @import("host.zig").Piece, count: u32) i32;
pub extern "rapidbyte" fn barrier(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn next(out: *u32) i32;
pub extern "rapidbyte" fn read(ptr: [*]u8, len: u32) i32;
pub extern "rapidbyte" fn prepare(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn committed(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn drift(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn emit_dlq_batch(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn room(timeout_ms: i32) i32;
pub extern "rapidbyte" fn settled() i64;
pub extern "rapidbyte" fn spool_append(id: i64, ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn spool_read(id: i64, offset: i64, ptr: [*]u8, len: u32) i32;
pub extern "rapidbyte" fn spool_drop(id: i64) i32;
pub extern "rapidbyte" fn tcp_connect(ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn tcp_start_tls(handle: i32, ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn tcp_recv(handle: i32, ptr: [*]u8, len: u32, timeout_ms: i32) i32;
pub extern "rapidbyte" fn tcp_send(handle: i32, ptr: [*]const u8, len: u32, timeout_ms: i32) i32;
pub extern "rapidbyte" fn tcp_close(handle: i32) i32;
pub extern "rapidbyte" fn log(level: i32, ptr: [*]const u8, len: u32) i32;
pub extern "rapidbyte" fn metric(ptr: [*]const u8, len: u32, value: f64) i32;
pub extern "rapidbyte" fn now() i64;
pub extern "rapidbyte" fn random(ptr: [*]u8, len: u32) i32;
pub extern "rapidbyte" fn is_cancelled() i32;
pub extern "rapidbyte" fn pause(milliseconds: i32) i32;
