//! What a connector is built on: the ABI's verbs and host functions, JSON, failures, Arrow, dead letters.

pub const arrow = @import("arrow/root.zig");
pub const connector = @import("connector.zig");
pub const errors = @import("errors.zig");
pub const host = @import("host.zig");
pub const json = @import("json.zig");
pub const Letters = @import("letters.zig").Letters;

/// For tests only.
pub const fuzz = @import("fuzz.zig");
pub const loopback = @import("loopback.zig");

pub const Failure = errors.Failure;
pub const fail = errors.fail;

test {
    _ = arrow;
    _ = connector;
    _ = errors;
    _ = host;
    _ = json;
}
