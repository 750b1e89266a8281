//! Reads Arrow IPC messages (writer.zig draws them). Everything is checked here, once: offsets, lengths, counts,
//! nesting, so that loops over the views need no checks. Any malformed input is an error, never a panic.
//!
//! Specification: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format,
//! https://github.com/apache/arrow/tree/main/format (Message.fbs, Schema.fbs)

const std = @import("std");
const flatbuffer = @import("flatbuffer.zig");
const metadata = @import("metadata.zig");
const schema_reader = @import("schema_reader.zig");
const types = @import("types.zig");
const bitmapBytes = @import("builder.zig").bitmapBytes;

const Allocator = std.mem.Allocator;

pub const Error = Allocator.Error || error{
    /// Not a well-formed message: truncated, an offset outside its buffer, a count that does not fit, …
    Malformed,
    /// A well-formed message that uses what the ABI leaves out: compression, dictionaries, big-endian, V4, tensors.
    Unsupported,
    /// A field's type is none of the ABI's types.
    UnsupportedType,
    /// A batch that does not have the schema's shape.
    SchemaMismatch,
};

pub const Kind = enum { schema, record_batch };

/// What a schema's error was about, for the message to the user.
pub const Problem = schema_reader.Problem;

/// One column of a batch. Slices point into the message.
pub const ArrayView = struct {
    type: types.Type,
    length: usize,
    null_count: usize,
    /// LSB bitmap of at least `length` bits, null when there is no null.
    validity: ?[]const u8,
    /// `length + 1` offsets for text, binary and lists, monotone, within `values` or the child; empty otherwise. They
    /// need not start at 0.
    offsets: []const i32,
    /// Fixed width: exactly `length * width` bytes. Bool: a bitmap of exactly the bytes that `length` bits take. Text
    /// and binary: the bytes.
    values: []const u8,
    /// List: the elements, `offsets[i]..offsets[i + 1]` those of value i.
    child: ?*ArrayView,

    pub inline fn isNull(self: *const ArrayView, i: usize) bool {
        const bitmap = self.validity orelse return false;
        return bitmap[i / 8] >> @intCast(i % 8) & 1 == 0;
    }

    pub inline fn boolAt(self: *const ArrayView, i: usize) bool {
        return self.values[i / 8] >> @intCast(i % 8) & 1 == 1;
    }

    /// `T` as wide as the values. The slice has `length` items.
    pub inline fn fixed(self: *const ArrayView, comptime T: type) []align(1) const T {
        std.debug.assert(self.values.len == self.length * @sizeOf(T));
        return @as([*]align(1) const T, @ptrCast(self.values.ptr))[0..self.length];
    }

    /// Text, binary or fixed-size binary.
    pub inline fn bytesAt(self: *const ArrayView, i: usize) []const u8 {
        if (self.type == .fixed_size_binary) {
            const width = self.type.fixed_size_binary;
            return self.values[i * width ..][0..width];
        }
        return self.values[@intCast(self.offsets[i])..@intCast(self.offsets[i + 1])];
    }
};

pub const Batch = struct {
    rows: usize,
    columns: []ArrayView,
};

/// A message taken apart.
const Message = struct {
    kind: Kind,
    header: flatbuffer.Table,
    body: []const u8,

    fn parse(bytes: []const u8) Error!Message {
        if (bytes.len < metadata.prefix_bytes) return error.Malformed;
        if (std.mem.readInt(u32, bytes[0..4], .little) != metadata.continuation) return error.Malformed;
        const size = std.mem.readInt(u32, bytes[4..8], .little);
        const rest = bytes[metadata.prefix_bytes..];
        if (size % 8 != 0 or size > rest.len) return error.Malformed;

        const table: flatbuffer.Table = try .root(rest[0..size]);
        if (try table.scalar(i16, metadata.message.version, 0) != metadata.version_5) return error.Unsupported;
        const body_bytes = try table.scalar(i64, metadata.message.body_length, 0);
        if (body_bytes < 0 or body_bytes > rest.len - size) return error.Malformed;
        const tag = try table.scalar(u8, metadata.message.header_tag, 0);
        const kind: Kind = switch (@as(metadata.Header, @fromBackingInt(@intCast(tag)))) {
            .schema => .schema,
            .record_batch => .record_batch,
            .none => return error.Malformed,
            else => return error.Unsupported,
        };
        return .{
            .kind = kind,
            .header = try table.table(metadata.message.header) orelse return error.Malformed,
            .body = rest[size..][0..@intCast(body_bytes)],
        };
    }
};

/// What the message is.
pub fn messageKind(message: []const u8) Error!Kind {
    return (try Message.parse(message)).kind;
}

/// How many rows a record batch has.
pub fn rowsOf(message: []const u8) Error!usize {
    const parsed = try Message.parse(message);
    if (parsed.kind != .record_batch) return error.Malformed;
    return boundedLength(try parsed.header.scalar(i64, metadata.record_batch.length, 0));
}

/// Names and metadata are copied into `arena`.
pub fn decodeSchema(arena: Allocator, message: []const u8) Error!types.Schema {
    var problem: Problem = .{};
    return decodeSchemaExplained(arena, message, &problem);
}

/// `decodeSchema` that also says which field is to blame.
pub fn decodeSchemaExplained(arena: Allocator, message: []const u8, problem: *Problem) Error!types.Schema {
    const parsed = Message.parse(message) catch |err| {
        problem.what = "the message itself";
        return err;
    };
    if (parsed.kind != .schema) return error.Malformed;
    return schema_reader.read(arena, &parsed.header, problem);
}

/// Rows of one batch, at most: offsets and row numbers are kept in 32 bits.
const max_length = std.math.maxInt(i32) - 1;

/// Decodes record batches, one at a time; the views of a batch die with the next `decode`.
pub const BatchReader = struct {
    arena: std.heap.ArenaAllocator,

    pub fn init(gpa: Allocator) BatchReader {
        return .{ .arena = .init(gpa) };
    }

    pub fn deinit(self: *BatchReader) void {
        self.arena.deinit();
    }

    /// `message` starts at an address that is a multiple of 8 (`host.read` into an 8-aligned buffer) and outlives the
    /// views, which point into it.
    pub fn decode(self: *BatchReader, schema: *const types.Schema, message: []align(8) const u8) Error!Batch {
        const parsed = try Message.parse(message);
        if (parsed.kind != .record_batch) return error.Malformed;
        const header = &parsed.header;
        if (try header.has(metadata.record_batch.compression)) return error.Unsupported;
        if (try header.vector(metadata.record_batch.variadic_counts, 8)) |counts| {
            if (counts.count > 0) return error.Unsupported;
        }
        const rows = try boundedLength(try header.scalar(i64, metadata.record_batch.length, 0));

        _ = self.arena.reset(.retain_capacity);
        const arena = self.arena.allocator();
        var cursor: Cursor = .{
            .arena = arena,
            .body = @alignCast(parsed.body),
            .nodes = try header.vector(metadata.record_batch.nodes, 16) orelse .empty,
            .buffers = try header.vector(metadata.record_batch.buffers, 16) orelse .empty,
        };
        const columns = try arena.alloc(ArrayView, schema.fields.len);
        for (schema.fields, columns) |*field, *column| {
            column.* = try cursor.array(field.type);
            if (column.length != rows) return error.SchemaMismatch;
        }
        if (cursor.next_node != cursor.nodes.count or cursor.next_buffer != cursor.buffers.count) {
            return error.SchemaMismatch;
        }
        return .{ .rows = rows, .columns = columns };
    }
};

fn boundedLength(length: i64) Error!usize {
    if (length < 0 or length > max_length) return error.Malformed;
    return @intCast(length);
}

/// Walks the nodes and buffers of a batch, which stand in the order of the fields, parents before children.
const Cursor = struct {
    arena: Allocator,
    body: []align(8) const u8,
    nodes: flatbuffer.Vector,
    buffers: flatbuffer.Vector,
    next_node: usize = 0,
    next_buffer: usize = 0,

    /// As deep as the schema's types, which `schema_reader` bounds.
    fn array(self: *Cursor, of: types.Type) Error!ArrayView {
        if (self.next_node == self.nodes.count) return error.SchemaMismatch;
        const length = try boundedLength(self.nodes.long(self.next_node, 0));
        const null_count = try boundedLength(self.nodes.long(self.next_node, 8));
        self.next_node += 1;
        if (null_count > length) return error.Malformed;

        const bitmap = try self.buffer();
        if (null_count > 0 and bitmap.len < bitmapBytes(length)) return error.Malformed;
        var view: ArrayView = .{
            .type = of,
            .length = length,
            .null_count = null_count,
            .validity = if (null_count > 0) bitmap[0..bitmapBytes(length)] else null,
            .offsets = &.{},
            .values = "",
            .child = null,
        };
        switch (of.layout()) {
            .bits => view.values = try take(try self.buffer(), bitmapBytes(length)),
            .fixed => |width| view.values = try take(try self.buffer(), @as(u64, length) * width),
            .bytes => {
                const offsets = try self.buffer();
                view.values = try self.buffer();
                view.offsets = try checkedOffsets(offsets, length, view.values.len);
            },
            .list => {
                const offsets = try self.buffer();
                const child = try self.arena.create(ArrayView);
                child.* = try self.array(of.list.type);
                view.child = child;
                view.offsets = try checkedOffsets(offsets, length, child.length);
            },
        }
        return view;
    }

    fn buffer(self: *Cursor) Error![]align(8) const u8 {
        if (self.next_buffer == self.buffers.count) return error.SchemaMismatch;
        const offset = self.buffers.long(self.next_buffer, 0);
        const length = self.buffers.long(self.next_buffer, 8);
        self.next_buffer += 1;
        if (length == 0) return &.{};
        if (offset < 0 or length < 0 or @rem(offset, 8) != 0) return error.Malformed;
        if (offset > self.body.len or length > self.body.len - @as(u64, @intCast(offset))) return error.Malformed;
        const start: usize = @intCast(offset);
        return @alignCast(self.body[start..][0..@intCast(length)]);
    }
};

fn take(buffer: []const u8, size: u64) Error![]const u8 {
    if (size > buffer.len) return error.Malformed;
    return buffer[0..@intCast(size)];
}

/// The offsets of `length` values within `end` bytes or elements.
fn checkedOffsets(buffer: []align(8) const u8, length: usize, end: usize) Error![]const i32 {
    // An empty array may come without its single offset.
    if (length == 0) return &.{0};
    if ((@as(u64, length) + 1) * 4 > buffer.len) return error.Malformed;
    const offsets = std.mem.bytesAsSlice(i32, buffer[0 .. (length + 1) * 4]);
    if (offsets[0] < 0) return error.Malformed;
    // Without a branch per value, so that it vectorises.
    var descents: u32 = 0;
    for (offsets[0..length], offsets[1..]) |start, stop| descents |= @intFromBool(stop < start);
    if (descents != 0 or offsets[length] > end) return error.Malformed;
    return offsets;
}

test {
    _ = @import("reader_test.zig");
}
