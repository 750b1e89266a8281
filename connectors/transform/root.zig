//! What transforms are built on: a handler says what becomes of a schema and of a batch, everything else is here.
//!
//!     const Upper = struct {
//!         pub fn init(arena: Allocator, config: json.Value) !Upper { … }                          // until rb_close
//!         pub fn turn(self: *Upper, arena: Allocator, shape: *const Shape) !arrow.Schema { … }    // until the next schema
//!         pub fn take(self: *Upper, scratch: Allocator, batch: *const arrow.Batch, rows: *Rows) !arrow.Batch { … }
//!     };
//!     const verbs = transform.Verbs(Upper);
//!
//!     verbs.zig      the verbs of such a handler
//!     loop.zig       next ─┬─ schema  ─▶ turn ───────────────────────▶ emit
//!                          ├─ batch   ─▶ take ─┬─ rows that stay ────▶ emit
//!                          │                   └─ rows left out ─────▶ letters.zig
//!                          └─ barrier ─▶ letters that wait, counts ──▶ barrier
//!     shape.zig      the stream, its columns and its key
//!     rows.zig       which rows of a batch are left out, and why
//!     letters.zig    rows as dead letters
//!     texts.zig      values as a cast to text makes them

pub const loop = @import("loop.zig");

pub const OnDataError = @import("shape.zig").OnDataError;
pub const Reason = @import("rows.zig").Reason;
pub const Rows = @import("rows.zig").Rows;
pub const Shape = @import("shape.zig").Shape;
pub const Stream = @import("shape.zig").Stream;
pub const Texts = @import("texts.zig").Texts;
pub const Verbs = @import("verbs.zig").Verbs;

test {
    _ = @import("letters.zig");
    _ = loop;
    _ = @import("loop_test.zig");
    _ = @import("rows.zig");
    _ = @import("shape.zig");
    _ = @import("texts.zig");
    _ = @import("verbs.zig");
}
