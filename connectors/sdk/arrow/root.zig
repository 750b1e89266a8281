//! Arrow in memory and as IPC messages: what the connectors speak to each other.

pub const types = @import("types.zig");
pub const builder = @import("builder.zig");
pub const reader = @import("reader.zig");
pub const selection = @import("selection.zig");
pub const writer = @import("writer.zig");

pub const KeyValue = types.KeyValue;
pub const Decimal = types.Decimal;
pub const Timestamp = types.Timestamp;
pub const MonthDayNano = types.MonthDayNano;
pub const Type = types.Type;
pub const Field = types.Field;
pub const Schema = types.Schema;
pub const keys = types.keys;

pub const ColumnBuilder = builder.ColumnBuilder;
pub const BatchReader = reader.BatchReader;
pub const Batch = reader.Batch;
pub const ArrayView = reader.ArrayView;
pub const Selection = selection.Selection;

test {
    _ = types;
    _ = @import("flatbuffer.zig");
    _ = builder;
    _ = reader;
    _ = selection;
    _ = writer;
}
