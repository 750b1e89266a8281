//! Round trips through writer and reader, and malformed messages. Tests against pyarrow are in tests/unit/arrow.

const std = @import("std");
const arrow = @import("root.zig");
const fuzz = @import("../fuzz.zig");
const roundtrip = @import("roundtrip.zig");

const Allocator = std.mem.Allocator;
const testing = std.testing;

const item: arrow.Field = .{ .name = "item", .type = .int64 };
const items: arrow.Field = .{ .name = "item", .type = .{ .list = &item } };

/// One field of every type.
const every_type: arrow.Schema = .{
    .fields = &.{
        .{ .name = "bool", .type = .bool },
        .{ .name = "int16", .type = .int16 },
        .{ .name = "int32", .type = .int32, .nullable = false },
        .{ .name = "int64", .type = .int64 },
        .{ .name = "float32", .type = .float32 },
        .{ .name = "float64", .type = .float64 },
        .{ .name = "decimal128", .type = .{ .decimal128 = .{ .precision = 38, .scale = 4 } } },
        .{ .name = "decimal256", .type = .{ .decimal256 = .{ .precision = 76, .scale = -3 } } },
        .{ .name = "utf8", .type = .utf8, .metadata = &.{
            .{ .key = arrow.keys.pg_type, .value = "public.mood" },
            .{ .key = arrow.keys.pg_kind, .value = "enum" },
        } },
        .{ .name = "binary", .type = .binary },
        .{ .name = "date32", .type = .date32 },
        .{ .name = "timestamp", .type = .{ .timestamp = .{ .utc = false } } },
        .{ .name = "timestamptz", .type = .{ .timestamp = .{ .utc = true } } },
        .{ .name = "time64", .type = .time64 },
        .{ .name = "interval", .type = .interval_month_day_nano },
        .{ .name = "uuid", .type = .{ .fixed_size_binary = 16 } },
        .{ .name = "list", .type = .{ .list = &item } },
        .{ .name = "lists", .type = .{ .list = &items } },
    },
    .metadata = &.{.{ .key = arrow.keys.primary_key, .value = "[\"int64\"]" }},
};

/// A message with an address that the reader accepts.
fn join(gpa: Allocator, pieces: []const @import("../host.zig").Piece) ![]align(8) u8 {
    var message: std.array_list.Aligned(u8, .@"8") = .empty;
    defer message.deinit(gpa);
    for (pieces) |piece| try message.appendSlice(gpa, piece.slice());
    return message.toOwnedSlice(gpa);
}

/// A batch of every type, encoded; each `null_each`-th value is null.
fn sample(gpa: Allocator, rows: usize, null_each: usize) ![]align(8) u8 {
    const columns = try roundtrip.makeColumns(gpa, &every_type);
    defer {
        for (columns) |*column| column.deinit();
        gpa.free(columns);
    }
    for (0..rows) |row| {
        for (columns, 0..) |*column, i| {
            if ((row + i) % null_each == 0) try column.appendNull() else try appendSample(column, row);
        }
    }
    var scratch: std.heap.ArenaAllocator = .init(gpa);
    defer scratch.deinit();
    const pieces = try arrow.writer.encodeBatch(scratch.allocator(), columns, rows);

    var data_bytes: usize = 0;
    for (columns) |*column| data_bytes += column.dataBytes();
    const message_bytes = arrow.writer.messageBytes(pieces);
    try testing.expect(message_bytes >= data_bytes);
    try testing.expect(message_bytes <= data_bytes + arrow.writer.overheadBytes(columns));
    try testing.expectEqual(0, message_bytes % 8);
    return join(gpa, pieces);
}

fn appendSample(column: *arrow.ColumnBuilder, row: usize) arrow.builder.Error!void {
    const number: i64 = @intCast(row);
    switch (column.type) {
        .bool => try column.appendBool(row % 3 == 0),
        .int16 => try column.appendFixed(i16, @truncate(number)),
        .int32, .date32 => try column.appendFixed(i32, @truncate(number)),
        .int64, .timestamp, .time64 => try column.appendFixed(i64, -number),
        .float32 => try column.appendFixed(f32, @floatFromInt(row)),
        .float64 => try column.appendFixed(f64, @floatFromInt(row)),
        .decimal128 => try column.appendFixed(i128, @as(i128, std.math.minInt(i128)) + number),
        .decimal256 => try column.appendFixed(i256, @as(i256, std.math.maxInt(i256)) - number),
        .interval_month_day_nano => {
            try column.appendFixed(arrow.MonthDayNano, .{ .months = 1, .days = -2, .nanos = number });
        },
        .utf8, .binary => try column.appendBytes("0123456789"[0 .. row % 11]),
        .fixed_size_binary => try column.appendBytes(&@as([16]u8, @splat(@truncate(row)))),
        .list => {
            const elements = try column.beginList();
            for (0..row % 4) |i| {
                if (i == 2) try elements.appendNull() else try appendSample(elements, row + i);
            }
            try column.endList();
        },
    }
}

test "a schema survives" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const message = try arrow.writer.encodeSchema(testing.allocator, &every_type);
    defer testing.allocator.free(message);
    try testing.expectEqual(.schema, try arrow.reader.messageKind(message));
    const schema = try arrow.reader.decodeSchema(arena.allocator(), message);
    try testing.expectEqual(every_type.fields.len, schema.fields.len);
    for (every_type.fields, schema.fields) |expected, actual| {
        try testing.expectEqualStrings(expected.name, actual.name);
        try testing.expect(expected.type.eql(actual.type));
        try testing.expectEqual(expected.nullable, actual.nullable);
        try testing.expectEqual(expected.metadata.len, actual.metadata.len);
    }
    try testing.expectEqualStrings("public.mood", schema.fields[8].get(arrow.keys.pg_type).?);
    try testing.expectEqualStrings("[\"int64\"]", schema.get(arrow.keys.primary_key).?);
    try testing.expectEqual(8, schema.indexOf("utf8").?);
}

test "a batch survives, whatever its number of rows and nulls" {
    var reader: arrow.BatchReader = .init(testing.allocator);
    defer reader.deinit();
    const columns = try roundtrip.makeColumns(testing.allocator, &every_type);
    defer {
        for (columns) |*column| column.deinit();
        testing.allocator.free(columns);
    }
    var scratch: std.heap.ArenaAllocator = .init(testing.allocator);
    defer scratch.deinit();
    for ([_]usize{ 0, 1, 7, 8, 9, 63, 64, 65, 1000 }) |rows| {
        for ([_]usize{ 1, 2, 3, 64, 1_000_000 }) |null_each| {
            const message = try sample(testing.allocator, rows, null_each);
            defer testing.allocator.free(message);
            const batch = try reader.decode(&every_type, message);
            try testing.expectEqual(rows, batch.rows);
            // The builders serve one batch after the other, as a connector's do.
            for (columns, batch.columns) |*column, *view| {
                column.reset();
                try roundtrip.rebuild(column, view, 0, rows);
            }
            const pieces = try arrow.writer.encodeBatch(scratch.allocator(), columns, rows);
            const again = try join(testing.allocator, pieces);
            defer testing.allocator.free(again);
            try testing.expectEqualSlices(u8, message, again);
        }
    }
}

test "a list's view reaches its elements" {
    const message = try sample(testing.allocator, 6, 5);
    defer testing.allocator.free(message);
    var reader: arrow.BatchReader = .init(testing.allocator);
    defer reader.deinit();
    const batch = try reader.decode(&every_type, message);
    const list = &batch.columns[16];
    try testing.expect(!list.isNull(2));
    try testing.expectEqual(2, list.offsets[3] - list.offsets[2]);
    try testing.expectEqual(-3, list.child.?.fixed(i64)[@intCast(list.offsets[2] + 1)]);
}

test "a batch of another shape does not match the schema" {
    const message = try sample(testing.allocator, 3, 2);
    defer testing.allocator.free(message);
    var reader: arrow.BatchReader = .init(testing.allocator);
    defer reader.deinit();
    const fewer: arrow.Schema = .{ .fields = every_type.fields[0..3] };
    try testing.expectError(error.SchemaMismatch, reader.decode(&fewer, message));
    const more: arrow.Schema = .{ .fields = every_type.fields ++ .{arrow.Field{ .name = "x", .type = .bool }} };
    try testing.expectError(error.SchemaMismatch, reader.decode(&more, message));
    const schema_message = try arrow.writer.encodeSchema(testing.allocator, &every_type);
    defer testing.allocator.free(schema_message);
    const aligned = try join(testing.allocator, &.{.from(schema_message)});
    defer testing.allocator.free(aligned);
    try testing.expectError(error.Malformed, reader.decode(&every_type, aligned));
}

test "a list nested too deep is refused, not followed" {
    var levels: [arrow.types.max_depth]arrow.Field = undefined;
    levels[0] = .{ .name = "item", .type = .int32 };
    for (1..levels.len) |i| levels[i] = .{ .name = "item", .type = .{ .list = &levels[i - 1] } };
    const top: arrow.Field = .{ .name = "deep", .type = .{ .list = &levels[levels.len - 1] } };
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();

    const deepest: arrow.Schema = .{ .fields = levels[levels.len - 1 ..] };
    const accepted = try arrow.writer.encodeSchema(arena.allocator(), &deepest);
    _ = try arrow.reader.decodeSchema(arena.allocator(), accepted);

    const too_deep: arrow.Schema = .{ .fields = &.{top} };
    const refused = try arrow.writer.encodeSchema(arena.allocator(), &too_deep);
    var problem: arrow.reader.Problem = .{};
    try testing.expectError(
        error.UnsupportedType,
        arrow.reader.decodeSchemaExplained(arena.allocator(), refused, &problem),
    );
    try testing.expectEqualStrings("deep", problem.field);
}

test "a message cut anywhere is an error" {
    const message = try sample(testing.allocator, 2, 2);
    defer testing.allocator.free(message);
    var reader: arrow.BatchReader = .init(testing.allocator);
    defer reader.deinit();
    for (0..message.len) |length| {
        try testing.expectError(error.Malformed, reader.decode(&every_type, message[0..length]));
    }
}

test "a column beyond 2 GiB is an error before memory is asked for" {
    var column: arrow.ColumnBuilder = try .init(testing.allocator, .utf8);
    defer column.deinit();
    try testing.expectError(error.ColumnTooLarge, column.ensureBytes(1 << 31));
    try testing.expectError(error.ColumnTooLarge, column.ensureRows(1 << 31));
}

test "a null leaves nothing of an earlier batch behind" {
    var column: arrow.ColumnBuilder = try .init(testing.allocator, .int64);
    defer column.deinit();
    try column.appendFixed(i64, -1);
    column.reset();
    try column.appendNull();
    try testing.expectEqual(0, std.mem.bytesAsSlice(i64, column.values.items)[0]);
}

test "any bytes are a batch or an error" {
    const message = try sample(testing.allocator, 3, 2);
    defer testing.allocator.free(message);
    const empty = try sample(testing.allocator, 0, 1);
    defer testing.allocator.free(empty);
    try fuzz.bytes(fuzzBatch, &.{ message, empty });
}

fn fuzzBatch(input: []const u8) anyerror!void {
    const gpa = testing.allocator;
    const message = try gpa.alignedAlloc(u8, .@"8", input.len);
    defer gpa.free(message);
    @memcpy(message, input);
    var reader: arrow.BatchReader = .init(gpa);
    defer reader.deinit();
    const batch = reader.decode(&every_type, message) catch return;
    const columns = try roundtrip.makeColumns(gpa, &every_type);
    defer {
        for (columns) |*column| column.deinit();
        gpa.free(columns);
    }
    // Touches every value: what decode accepts, loops may index freely.
    for (columns, batch.columns) |*column, *view| try roundtrip.rebuild(column, view, 0, view.length);
}

test "any bytes are a schema or an error" {
    const message = try arrow.writer.encodeSchema(testing.allocator, &every_type);
    defer testing.allocator.free(message);
    const small: arrow.Schema = .{ .fields = every_type.fields[16..], .metadata = every_type.metadata };
    const second = try arrow.writer.encodeSchema(testing.allocator, &small);
    defer testing.allocator.free(second);
    try fuzz.bytes(fuzzSchema, &.{ message, second });
}

fn fuzzSchema(input: []const u8) anyerror!void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const schema = arrow.reader.decodeSchema(arena.allocator(), input) catch return;
    // What was accepted can be written, and reads as itself.
    const message = try arrow.writer.encodeSchema(arena.allocator(), &schema);
    const again = try arrow.reader.decodeSchema(arena.allocator(), message);
    try testing.expectEqual(schema.fields.len, again.fields.len);
    for (schema.fields, again.fields) |*a, *b| try testing.expect(a.type.eql(b.type));
}
