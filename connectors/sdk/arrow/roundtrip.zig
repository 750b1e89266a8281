//! A command for the tests against pyarrow: decodes what comes in, rebuilds it value by value, encodes it again.
//!
//!     request, reply    u32 length | one IPC message
//!     reply to what could not be decoded    u32 length + 2^31 | the error's name
//!
//! Little-endian; ends with the input. A schema message replaces the schema.

const std = @import("std");
const arrow = @import("root.zig");

const Allocator = std.mem.Allocator;

const error_flag: u32 = 1 << 31;

/// Bytes of one request.
const max_message = 1 << 30;

pub fn main(init: std.process.Init) !void {
    const gpa = init.gpa;
    var input_buffer: [64 * 1024]u8 = undefined;
    var output_buffer: [64 * 1024]u8 = undefined;
    var input_file: std.Io.File.Reader = .init(.stdin(), init.io, &input_buffer);
    var output_file: std.Io.File.Writer = .init(.stdout(), init.io, &output_buffer);
    const input = &input_file.interface;
    const output = &output_file.interface;

    var session: Session = .init(gpa);
    defer session.deinit();
    while (true) {
        const length = input.takeInt(u32, .little) catch |err| switch (err) {
            error.EndOfStream => break,
            else => return err,
        };
        if (length > max_message) return error.MessageTooLarge;
        const message = try gpa.alignedAlloc(u8, .@"8", length);
        defer gpa.free(message);
        try input.readSliceAll(message);
        session.answer(message, output) catch |err| switch (err) {
            error.WriteFailed, error.OutOfMemory => return err,
            else => {
                const name = @errorName(err);
                try output.writeInt(u32, error_flag | @as(u32, @intCast(name.len)), .little);
                try output.writeAll(name);
            },
        };
    }
    try output.flush();
}

const Session = struct {
    gpa: Allocator,
    schema_arena: std.heap.ArenaAllocator,
    schema: arrow.Schema = .{ .fields = &.{} },
    columns: []arrow.ColumnBuilder = &.{},
    reader: arrow.BatchReader,
    scratch: std.heap.ArenaAllocator,

    fn init(gpa: Allocator) Session {
        return .{ .gpa = gpa, .schema_arena = .init(gpa), .reader = .init(gpa), .scratch = .init(gpa) };
    }

    fn deinit(self: *Session) void {
        self.dropColumns();
        self.schema_arena.deinit();
        self.reader.deinit();
        self.scratch.deinit();
    }

    fn dropColumns(self: *Session) void {
        for (self.columns) |*column| column.deinit();
        self.gpa.free(self.columns);
        self.columns = &.{};
    }

    fn answer(self: *Session, message: []align(8) const u8, output: *std.Io.Writer) !void {
        switch (try arrow.reader.messageKind(message)) {
            .schema => {
                self.dropColumns();
                _ = self.schema_arena.reset(.retain_capacity);
                self.schema = .{ .fields = &.{} };
                self.schema = try arrow.reader.decodeSchema(self.schema_arena.allocator(), message);
                self.columns = try makeColumns(self.gpa, &self.schema);
                const encoded = try arrow.writer.encodeSchema(self.gpa, &self.schema);
                defer self.gpa.free(encoded);
                try output.writeInt(u32, @intCast(encoded.len), .little);
                try output.writeAll(encoded);
            },
            .record_batch => {
                const batch = try self.reader.decode(&self.schema, message);
                for (self.columns, batch.columns) |*column, *view| {
                    column.reset();
                    try rebuild(column, view, 0, view.length);
                }
                _ = self.scratch.reset(.retain_capacity);
                const pieces = try arrow.writer.encodeBatch(self.scratch.allocator(), self.columns, batch.rows);
                try output.writeInt(u32, @intCast(arrow.writer.messageBytes(pieces)), .little);
                for (pieces) |piece| try output.writeAll(piece.slice());
            },
        }
    }
};

pub fn makeColumns(gpa: Allocator, schema: *const arrow.Schema) Allocator.Error![]arrow.ColumnBuilder {
    const columns = try gpa.alloc(arrow.ColumnBuilder, schema.fields.len);
    errdefer gpa.free(columns);
    for (schema.fields, columns, 0..) |field, *column, i| {
        errdefer for (columns[0..i]) |*earlier| earlier.deinit();
        column.* = try .init(gpa, field.type);
    }
    return columns;
}

/// Appends the values `start..end` of the view, by the function that a connector would use for each.
pub fn rebuild(
    column: *arrow.ColumnBuilder,
    view: *const arrow.ArrayView,
    start: usize,
    end: usize,
) arrow.builder.Error!void {
    for (start..end) |i| {
        if (view.isNull(i)) {
            try column.appendNull();
            continue;
        }
        switch (view.type) {
            .bool => try column.appendBool(view.boolAt(i)),
            .int16 => try column.appendFixed(i16, view.fixed(i16)[i]),
            .int32, .date32 => try column.appendFixed(i32, view.fixed(i32)[i]),
            .int64, .timestamp, .time64 => try column.appendFixed(i64, view.fixed(i64)[i]),
            .float32 => try column.appendFixed(f32, view.fixed(f32)[i]),
            .float64 => try column.appendFixed(f64, view.fixed(f64)[i]),
            .decimal128 => try column.appendFixed(i128, view.fixed(i128)[i]),
            .decimal256 => try column.appendFixed(i256, view.fixed(i256)[i]),
            .interval_month_day_nano => {
                try column.appendFixed(arrow.MonthDayNano, view.fixed(arrow.MonthDayNano)[i]);
            },
            .utf8, .binary, .fixed_size_binary => try column.appendBytes(view.bytesAt(i)),
            .list => {
                const items = try column.beginList();
                try rebuild(items, view.child.?, @intCast(view.offsets[i]), @intCast(view.offsets[i + 1]));
                try column.endList();
            },
        }
    }
}
