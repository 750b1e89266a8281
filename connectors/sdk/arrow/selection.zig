//! Some rows of batches as a batch of their own. Rows are copied by runs: where few are left out it costs little more than
//! moving the bytes.

const std = @import("std");
const builder = @import("builder.zig");
const reader = @import("reader.zig");
const types = @import("types.zig");
const writer = @import("writer.zig");

const Allocator = std.mem.Allocator;
const ArrayView = reader.ArrayView;
const ColumnBuilder = builder.ColumnBuilder;
const assert = std.debug.assert;

/// Rows that were chosen, in columns of one schema. What it takes of the memory is kept until `deinit`.
pub const Selection = struct {
    gpa: Allocator,
    columns: []ColumnBuilder,
    rows: usize = 0,

    /// The types of the fields have to outlive it.
    pub fn init(gpa: Allocator, fields: []const types.Field) Allocator.Error!Selection {
        const columns = try gpa.alloc(ColumnBuilder, fields.len);
        errdefer gpa.free(columns);
        for (columns, fields, 0..) |*column, *field, i| {
            errdefer for (columns[0..i]) |*earlier| earlier.deinit();
            column.* = try .init(gpa, field.type);
        }
        return .{ .gpa = gpa, .columns = columns };
    }

    pub fn deinit(self: *Selection) void {
        for (self.columns) |*column| column.deinit();
        self.gpa.free(self.columns);
        self.* = undefined;
    }

    /// Forgets the rows.
    pub fn reset(self: *Selection) void {
        for (self.columns) |*column| column.reset();
        self.rows = 0;
    }

    /// Adds the rows from `start` up to before `end` of columns that have these fields.
    pub fn add(self: *Selection, columns: []const ArrayView, start: usize, end: usize) builder.Error!void {
        for (self.columns, columns) |*column, *view| try append(column, view, start, end);
        self.rows += end - start;
    }

    /// Bytes of the message that `encode` makes, at most.
    pub fn messageBytes(self: *const Selection) usize {
        var bytes = writer.overheadBytes(self.columns);
        for (self.columns) |*column| bytes += column.dataBytes();
        return bytes;
    }

    /// See `writer.encodeBatch`.
    pub fn encode(self: *const Selection, scratch: Allocator) writer.Error![]const @import("../host.zig").Piece {
        return writer.encodeBatch(scratch, self.columns, self.rows);
    }
};

/// Appends the values from `start` up to before `end` of a view of the same type. After an error the column is of no use.
pub fn append(column: *ColumnBuilder, view: *const ArrayView, start: usize, end: usize) builder.Error!void {
    assert(start <= end and end <= view.length);
    if (start == end) return;
    const count = end - start;
    const at = column.length;
    try column.ensureRows(count);
    switch (column.layout) {
        .bits => for (start..end, at..) |from, to| {
            column.values.items[to / 8] |= @as(u8, @intFromBool(view.boolAt(from))) << @intCast(to % 8);
        },
        .fixed => |width| @memcpy(column.values.items[at * width ..][0 .. count * width], view.values[start * width .. end * width]),
        .bytes => {
            const first: usize = @intCast(view.offsets[start]);
            const last: usize = @intCast(view.offsets[end]);
            try column.ensureBytes(last - first);
            appendOffsets(column, view, start, end, column.values.items.len);
            column.values.appendSliceAssumeCapacity(view.values[first..last]);
        },
        .list => {
            const child = column.child.?;
            const before = child.length;
            try append(child, view.child.?, @intCast(view.offsets[start]), @intCast(view.offsets[end]));
            if (child.length > builder.max_offset) return error.ColumnTooLarge;
            appendOffsets(column, view, start, end, before);
        },
    }
    if (view.null_count > 0) appendNulls(column, view, start, end);
    column.length = at + count;
}

/// Those of the view, which may begin anywhere, as ones that go on at `base`.
fn appendOffsets(column: *ColumnBuilder, view: *const ArrayView, start: usize, end: usize, base: usize) void {
    const shift = @as(i32, @intCast(base)) - view.offsets[start];
    const slots = column.offsets.items[column.length + 1 ..][0 .. end - start];
    for (slots, view.offsets[start + 1 .. end + 1]) |*slot, offset| slot.* = offset + shift;
}

fn appendNulls(column: *ColumnBuilder, view: *const ArrayView, start: usize, end: usize) void {
    for (start..end, column.length..) |from, to| {
        if (!view.isNull(from)) continue;
        if (column.null_count == 0) @memset(column.validity.items, 0xff);
        column.null_count += 1;
        column.validity.items[to / 8] &= ~(@as(u8, 1) << @intCast(to % 8));
    }
}

// Tests: batches of random values of every type, by way of their messages.

const Sample = struct {
    const item_types = [_]types.Type{
        .bool,                                               .int16,
        .int32,                                              .int64,
        .float32,                                            .float64,
        .{ .decimal128 = .{ .precision = 12, .scale = 4 } }, .{ .decimal256 = .{ .precision = 50, .scale = 0 } },
        .utf8,                                               .binary,
        .date32,                                             .{ .timestamp = .{ .utc = true } },
        .time64,                                             .interval_month_day_nano,
        .{ .fixed_size_binary = 16 },                        .{ .fixed_size_binary = 3 },
    };

    /// Every type, lists of every type, and lists of these.
    const fields: [3 * item_types.len]types.Field = blk: {
        var result: [3 * item_types.len]types.Field = undefined;
        for (item_types, 0..) |item_type, i| result[i] = .{ .name = "c", .type = item_type };
        for (item_types.len..result.len) |i| {
            const item: types.Field = result[i - item_types.len];
            result[i] = .{ .name = "c", .type = .{ .list = &item } };
        }
        break :blk result;
    };

    fn appendRandom(column: *ColumnBuilder, random: std.Random, null_share: u8) !void {
        if (random.uintLessThan(u8, 10) < null_share) return column.appendNull();
        var noise: [32]u8 = undefined;
        random.bytes(&noise);
        switch (column.layout) {
            .bits => try column.appendBool(random.boolean()),
            .fixed => |width| {
                try column.ensureRows(1);
                column.appendBytesAssumeCapacity(noise[0..width]);
            },
            .bytes => try column.appendBytes(noise[0..random.uintAtMost(usize, noise.len)]),
            .list => {
                const items = try column.beginList();
                for (0..random.uintLessThan(usize, 4)) |_| try appendRandom(items, random, null_share);
                try column.endList();
            },
        }
    }

    fn expectSame(expected: *const ArrayView, i: usize, found: *const ArrayView, k: usize) !void {
        try std.testing.expectEqual(expected.isNull(i), found.isNull(k));
        if (expected.isNull(i)) return;
        switch (expected.type.layout()) {
            .bits => try std.testing.expectEqual(expected.boolAt(i), found.boolAt(k)),
            .fixed => |width| try std.testing.expectEqualSlices(u8, expected.values[i * width ..][0..width], found.values[k * width ..][0..width]),
            .bytes => try std.testing.expectEqualSlices(u8, expected.bytesAt(i), found.bytesAt(k)),
            .list => {
                const start: usize = @intCast(expected.offsets[i]);
                const other: usize = @intCast(found.offsets[k]);
                const count: usize = @as(usize, @intCast(expected.offsets[i + 1])) - start;
                try std.testing.expectEqual(count, @as(usize, @intCast(found.offsets[k + 1])) - other);
                for (0..count) |n| try expectSame(expected.child.?, start + n, found.child.?, other + n);
            },
        }
    }

    fn countNulls(view: *const ArrayView) usize {
        var count: usize = 0;
        for (0..view.length) |i| count += @intFromBool(view.isNull(i));
        return count;
    }
};

/// The message in one piece.
fn joined(arena: Allocator, pieces: []const @import("../host.zig").Piece) ![]align(8) const u8 {
    const bytes = try arena.alignedAlloc(u8, .@"8", writer.messageBytes(pieces));
    var at: usize = 0;
    for (pieces) |piece| {
        @memcpy(bytes[at..][0..piece.len], piece.slice());
        at += piece.len;
    }
    return bytes;
}

test "the rows that are chosen keep every value, of every type" {
    const gpa = std.testing.allocator;
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    const random = generator.random();
    const schema: types.Schema = .{ .fields = &Sample.fields };
    var source: Selection = try .init(gpa, schema.fields);
    defer source.deinit();
    var chosen: Selection = try .init(gpa, schema.fields);
    defer chosen.deinit();
    // In the last rounds the columns are larger than those that they follow, and smaller.
    for ([_]usize{ 1, 7, 40, 300, 0, 9 }, 0..) |rows, round| {
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        source.reset();
        for (0..rows) |_| for (source.columns) |*column| try Sample.appendRandom(column, random, @intCast(round % 3 * 3));
        source.rows = rows;
        var reader_of_source: reader.BatchReader = .init(gpa);
        defer reader_of_source.deinit();
        const batch = try reader_of_source.decode(&schema, try joined(arena.allocator(), try source.encode(arena.allocator())));

        chosen.reset();
        var places: std.ArrayList(usize) = .empty;
        var at: usize = 0;
        while (at < rows) {
            const start = @min(rows, at + random.uintLessThan(usize, 3));
            const end = @min(rows, start + random.uintLessThan(usize, 20));
            try chosen.add(batch.columns, start, end);
            for (start..end) |i| try places.append(arena.allocator(), i);
            at = end;
        }
        const message = try joined(arena.allocator(), try chosen.encode(arena.allocator()));
        try std.testing.expect(message.len <= chosen.messageBytes());
        var reader_of_chosen: reader.BatchReader = .init(gpa);
        defer reader_of_chosen.deinit();
        const found = try reader_of_chosen.decode(&schema, message);
        try std.testing.expectEqual(places.items.len, found.rows);
        for (batch.columns, found.columns) |*expected, *column| {
            try std.testing.expectEqual(Sample.countNulls(column), column.null_count);
            for (places.items, 0..) |i, k| try Sample.expectSame(expected, i, column, k);
        }
    }
}

test "columns that were read and columns that were built go into one message" {
    const gpa = std.testing.allocator;
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    const schema: types.Schema = .{ .fields = &Sample.fields };
    for ([_]usize{ 0, 1, 50 }) |rows| {
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        var source: Selection = try .init(gpa, schema.fields);
        defer source.deinit();
        for (0..rows) |_| for (source.columns) |*column| try Sample.appendRandom(column, generator.random(), 3);
        source.rows = rows;
        const original = try joined(arena.allocator(), try source.encode(arena.allocator()));
        var first: reader.BatchReader = .init(gpa);
        defer first.deinit();
        const batch = try first.decode(&schema, original);
        // Every second one as it was built.
        const columns = try arena.allocator().dupe(ArrayView, batch.columns);
        for (columns, source.columns, 0..) |*column, *built, i| if (i % 2 == 1) {
            column.* = try built.view(arena.allocator());
        };
        const message = try joined(arena.allocator(), try writer.encodeViews(arena.allocator(), columns, rows));
        try std.testing.expectEqualSlices(u8, original, message);
    }
}
