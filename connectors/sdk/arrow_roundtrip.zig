//! Root of the `arrow-roundtrip` command: a module reaches only files beside and below its root.

pub const main = @import("arrow/roundtrip.zig").main;
