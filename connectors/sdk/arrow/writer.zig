//! Writes Arrow IPC messages.
//!
//!     ┌────────────┬──────────┬───────────────────────┬─────┬────────┬─────┬────────┬─────┐
//!     │ 0xFFFFFFFF │ i32 size │ Message (FlatBuffers) │ pad │ buffer │ pad │ buffer │ pad │ …
//!     └────────────┴──────────┴───────────────────────┴─────┴────────┴─────┴────────┴─────┘
//!                             └──────── size ───────────────┘└─────── bodyLength ─────────┘
//!
//! Everything is padded to 8 bytes. A record batch is a gather list: its metadata, then the builders' own buffers
//! with paddings between, so that no value is copied.
//!
//! Specification: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format,
//! https://github.com/apache/arrow/tree/main/format (Message.fbs, Schema.fbs)

const std = @import("std");
const flatbuffer = @import("flatbuffer.zig");
const metadata = @import("metadata.zig");
const types = @import("types.zig");
const bitmapBytes = @import("builder.zig").bitmapBytes;
const ArrayView = @import("reader.zig").ArrayView;
const ColumnBuilder = @import("builder.zig").ColumnBuilder;
const Piece = @import("../host.zig").Piece;

const Allocator = std.mem.Allocator;
const assert = std.debug.assert;

pub const Error = Allocator.Error || error{
    /// A message of 2 GiB or more, or metadata that large.
    MessageTooLarge,
};

const prefix_bytes = metadata.prefix_bytes;

/// The schema message, ready to be emitted; the caller frees it.
pub fn encodeSchema(gpa: Allocator, schema: *const types.Schema) Error![]u8 {
    var writer: flatbuffer.Writer = try .init(gpa, prefix_bytes);
    errdefer writer.deinit();
    const message = try startMessage(&writer, .schema, 0);
    const slots = try writer.tableAt(message, 3, .{
        .{ .short = metadata.little_endian },
        .reference,
        if (schema.metadata.len > 0) .reference else .absent,
    });
    try writeFields(&writer, slots[1], schema.fields);
    if (schema.metadata.len > 0) try writeKeyValues(&writer, slots[2], schema.metadata);
    try finish(&writer);
    return writer.bytes.toOwnedSlice(gpa);
}

/// The record batch message as pieces. Metadata and the list itself lie in `scratch` (an arena, reset per batch); the
/// rest points into the builders, which must not change before the message is out.
pub fn encodeBatch(scratch: Allocator, columns: []const ColumnBuilder, rows: usize) Error![]const Piece {
    var gather: Gather = .{ .scratch = scratch };
    // The metadata's piece, filled in at the end.
    try gather.pieces.append(scratch, .from(""));
    for (columns) |*column| {
        assert(column.length == rows);
        try gather.column(column);
    }
    gather.pieces.items[0] = .from(try gather.message(rows));
    return gather.pieces.items;
}

/// `encodeBatch` of columns that were read, or of some that were and others that were built (`ColumnBuilder.view`): the
/// pieces point to where their values lie.
pub fn encodeViews(scratch: Allocator, columns: []const ArrayView, rows: usize) Error![]const Piece {
    var gather: Gather = .{ .scratch = scratch };
    try gather.pieces.append(scratch, .from(""));
    for (columns) |*column| {
        assert(column.length == rows);
        try gather.view(column);
    }
    gather.pieces.items[0] = .from(try gather.message(rows));
    return gather.pieces.items;
}

/// Bytes of the whole message.
pub fn messageBytes(pieces: []const Piece) usize {
    var total: usize = 0;
    for (pieces) |piece| total += piece.len;
    return total;
}

/// What a batch message of these columns takes beside the columns' `dataBytes`, at most: metadata and paddings.
pub fn overheadBytes(columns: []const ColumnBuilder) usize {
    var total: usize = 256;
    for (columns) |*column| {
        var level: ?*const ColumnBuilder = column;
        // A node of 16 bytes, and three buffers at most: 16 bytes of metadata and under 8 of padding for each.
        while (level) |at| : (level = at.child) total += 16 + 3 * 24;
    }
    return total;
}

/// Collects the buffers of a batch in the order that its metadata lists them.
const Gather = struct {
    scratch: Allocator,
    pieces: std.ArrayList(Piece) = .empty,
    nodes: std.ArrayList(Node) = .empty,
    buffers: std.ArrayList(Extent) = .empty,
    body_bytes: u64 = 0,

    const Node = struct { length: usize, null_count: usize };
    const Extent = struct { offset: u64, length: usize };

    fn column(self: *Gather, builder: *const ColumnBuilder) Error!void {
        const length = builder.length;
        try self.nodes.append(self.scratch, .{ .length = length, .null_count = builder.null_count });
        try self.buffer(if (builder.null_count > 0) builder.validity.items[0..bitmapBytes(length)] else "");
        switch (builder.layout) {
            .bits => try self.buffer(builder.values.items[0..bitmapBytes(length)]),
            .fixed => |width| try self.buffer(builder.values.items[0 .. length * width]),
            .bytes => {
                try self.buffer(std.mem.sliceAsBytes(offsetsOf(builder)));
                try self.buffer(builder.values.items);
            },
            .list => {
                try self.buffer(std.mem.sliceAsBytes(offsetsOf(builder)));
                try self.column(builder.child.?);
            },
        }
    }

    fn view(self: *Gather, column_view: *const ArrayView) Error!void {
        try self.nodes.append(self.scratch, .{ .length = column_view.length, .null_count = column_view.null_count });
        try self.buffer(column_view.validity orelse "");
        if (column_view.type.layout() == .bytes or column_view.child != null)
            try self.buffer(std.mem.sliceAsBytes(column_view.offsets));
        if (column_view.child) |child| try self.view(child) else try self.buffer(column_view.values);
    }

    fn offsetsOf(builder: *const ColumnBuilder) []const i32 {
        // A builder that never held a value has no offsets yet; the format wants one more than values.
        return if (builder.length == 0) &.{0} else builder.offsets.items[0 .. builder.length + 1];
    }

    fn buffer(self: *Gather, bytes: []const u8) Error!void {
        try self.buffers.append(self.scratch, .{ .offset = self.body_bytes, .length = bytes.len });
        if (bytes.len == 0) return;
        const padding = zeros[0 .. std.mem.alignForward(usize, bytes.len, 8) - bytes.len];
        try self.pieces.append(self.scratch, .from(bytes));
        if (padding.len > 0) try self.pieces.append(self.scratch, .from(padding));
        self.body_bytes += bytes.len + padding.len;
        if (self.body_bytes > std.math.maxInt(i32)) return error.MessageTooLarge;
    }

    fn message(self: *Gather, rows: usize) Error![]const u8 {
        var writer: flatbuffer.Writer = try .init(self.scratch, prefix_bytes);
        const header = try startMessage(&writer, .record_batch, @intCast(self.body_bytes));
        const slots = try writer.tableAt(header, 3, .{ .{ .long = @intCast(rows) }, .reference, .reference });
        const nodes = try writer.vector(slots[1], self.nodes.items.len, 16, 8);
        for (self.nodes.items, 0..) |node, i| storePair(nodes[16 * i ..], node.length, node.null_count);
        const buffers = try writer.vector(slots[2], self.buffers.items.len, 16, 8);
        for (self.buffers.items, 0..) |extent, i| storePair(buffers[16 * i ..], extent.offset, extent.length);
        try finish(&writer);
        return writer.bytes.items;
    }
};

const zeros: [8]u8 = @splat(0);

fn storePair(area: []u8, first: u64, second: u64) void {
    std.mem.writeInt(u64, area[0..8], first, .little);
    std.mem.writeInt(u64, area[8..16], second, .little);
}

/// Writes the Message table and returns where the reference to its header goes.
fn startMessage(writer: *flatbuffer.Writer, kind: metadata.Header, body_bytes: i64) Error!usize {
    const slots = try writer.tableAt(prefix_bytes, 4, .{
        .{ .short = metadata.version_5 },
        .{ .byte = @backingInt(kind) },
        .reference,
        .{ .long = body_bytes },
    });
    return slots[2];
}

/// Pads the metadata and fills in what stands before it.
fn finish(writer: *flatbuffer.Writer) Error!void {
    try writer.pad(8, 0);
    const bytes = writer.bytes.items;
    std.mem.writeInt(u32, bytes[0..4], metadata.continuation, .little);
    std.mem.writeInt(u32, bytes[4..8], @intCast(bytes.len - prefix_bytes), .little);
}

fn writeFields(writer: *flatbuffer.Writer, position: usize, fields: []const types.Field) Error!void {
    const first = try writer.references(position, fields.len);
    for (fields, 0..) |*field, i| try writeField(writer, first + 4 * i, field);
}

fn writeField(writer: *flatbuffer.Writer, position: usize, field: *const types.Field) Error!void {
    const is_list = field.type == .list;
    const slots = try writer.tableAt(position, 7, .{
        .reference,
        .{ .byte = @intFromBool(field.nullable) },
        .{ .byte = @backingInt(metadata.TypeTag.of(field.type)) },
        .reference,
        .absent,
        // Readers in other languages expect the vector of children even where there are none.
        .reference,
        if (field.metadata.len > 0) .reference else .absent,
    });
    try writer.string(slots[0], field.name);
    try writeType(writer, slots[3], field.type);
    try writeFields(writer, slots[5], if (is_list) field.type.list[0..1] else &.{});
    if (field.metadata.len > 0) try writeKeyValues(writer, slots[6], field.metadata);
}

fn writeType(writer: *flatbuffer.Writer, position: usize, of: types.Type) Error!void {
    switch (of) {
        .bool, .utf8, .binary, .list => _ = try writer.tableAt(position, 0, .{}),
        .int16 => try writeInt(writer, position, 16),
        .int32 => try writeInt(writer, position, 32),
        .int64 => try writeInt(writer, position, 64),
        .float32 => _ = try writer.tableAt(position, 1, .{.{ .short = metadata.float_single }}),
        .float64 => _ = try writer.tableAt(position, 1, .{.{ .short = metadata.float_double }}),
        .decimal128 => |decimal| try writeDecimal(writer, position, decimal, 128),
        .decimal256 => |decimal| try writeDecimal(writer, position, decimal, 256),
        .date32 => _ = try writer.tableAt(position, 1, .{.{ .short = metadata.date_day }}),
        .time64 => _ = try writer.tableAt(position, 2, .{ .{ .short = metadata.unit_microsecond }, .{ .int = 64 } }),
        .timestamp => |timestamp| {
            const slots = try writer.tableAt(position, 2, .{
                .{ .short = metadata.unit_microsecond },
                if (timestamp.utc) .reference else .absent,
            });
            if (timestamp.utc) try writer.string(slots[1], "UTC");
        },
        .interval_month_day_nano => {
            _ = try writer.tableAt(position, 1, .{.{ .short = metadata.interval_month_day_nano }});
        },
        .fixed_size_binary => |width| _ = try writer.tableAt(position, 1, .{.{ .int = @intCast(width) }}),
    }
}

fn writeInt(writer: *flatbuffer.Writer, position: usize, bits: i32) Error!void {
    _ = try writer.tableAt(position, 2, .{ .{ .int = bits }, .{ .byte = 1 } });
}

fn writeDecimal(writer: *flatbuffer.Writer, position: usize, decimal: types.Decimal, bits: i32) Error!void {
    _ = try writer.tableAt(position, 3, .{
        .{ .int = decimal.precision },
        .{ .int = decimal.scale },
        .{ .int = bits },
    });
}

fn writeKeyValues(writer: *flatbuffer.Writer, position: usize, entries: []const types.KeyValue) Error!void {
    const first = try writer.references(position, entries.len);
    for (entries, 0..) |entry, i| {
        const slots = try writer.tableAt(first + 4 * i, 2, .{ .reference, .reference });
        try writer.string(slots[0], entry.key);
        try writer.string(slots[1], entry.value);
    }
}
