//! transform-validate: holds rows against rules, and refuses those that break one.
//!
//!     root.zig         the verbs
//!     config.zig       the rules, as the pipeline has them
//!     validate.zig     the rules of a stream's columns, and each batch
//!       pattern.zig      assert_regex
//!       range.zig        assert_range
//!       choice.zig       assert_in
//!       unique.zig       assert_unique
//!         identity.zig     what makes two values the same
//!         seen.zig         the keys of a run
//!     domain.zig       what a column's values are, and how they are ordered
//!       decimal.zig      numbers, digit for digit
//!       moment.zig       dates and times of day

const sdk = @import("sdk");
const transform_module = @import("transform");

pub const panic = sdk.connector.panic;
pub const std_options = sdk.connector.std_options;

comptime {
    sdk.connector.exports(@This());
}

pub const role: sdk.connector.Role = .transform;
pub const manifest = @embedFile("manifest.json");

const verbs = transform_module.Verbs(@import("validate.zig").Validate);

pub const open = verbs.open;
pub const check = verbs.check;
pub const transform = verbs.transform;
pub const close = verbs.close;

test {
    _ = @import("choice.zig");
    _ = @import("config.zig");
    _ = @import("decimal.zig");
    _ = @import("domain.zig");
    _ = @import("identity.zig");
    _ = @import("moment.zig");
    _ = @import("pattern.zig");
    _ = @import("range.zig");
    _ = @import("seen.zig");
    _ = @import("unique.zig");
    _ = @import("validate.zig");
    _ = @import("validate_test.zig");
}
