//! transform-mask: hashes, redacts or shortens what is in the columns that it is told of.
//!
//!     root.zig          the verbs
//!     config.zig        what becomes of which column
//!     mask.zig          the stream's columns, and each batch
//!       column.zig        what a masked column is, and its values
//!         keyed_hash.zig    HMAC-SHA-256
//!         characters.zig    where characters begin

const sdk = @import("sdk");
const transform_module = @import("transform");

pub const panic = sdk.connector.panic;
pub const std_options = sdk.connector.std_options;

comptime {
    sdk.connector.exports(@This());
}

pub const role: sdk.connector.Role = .transform;
pub const manifest = @embedFile("manifest.json");

const verbs = transform_module.Verbs(@import("mask.zig").Mask);

pub const open = verbs.open;
pub const check = verbs.check;
pub const transform = verbs.transform;
pub const close = verbs.close;

test {
    _ = @import("characters.zig");
    _ = @import("column.zig");
    _ = @import("config.zig");
    _ = @import("keyed_hash.zig");
    _ = @import("mask.zig");
    _ = @import("mask_test.zig");
}
