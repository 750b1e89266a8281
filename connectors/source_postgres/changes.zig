//! The changes of one stream that wait to be emitted, in the order in which they came.
//!
//! This is where a capture spends its time: like a read's row loop it writes straight into the columns' buffers.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Column = @import("shape.zig").Column;
const Op = @import("shape.zig").Op;
const Shape = @import("shape.zig").Shape;
const marks = @import("shape.zig").marks;
const nowhere = @import("published_relation.zig").nowhere;

const Allocator = std.mem.Allocator;
const ColumnBuilder = sdk.arrow.ColumnBuilder;
const Field = postgres.pgoutput.Field;
const decode = postgres.decode;

/// What a row has beside its columns.
pub const Marks = struct {
    op: Op,
    lsn: u64,
    seq: u64,
    /// Microseconds since 1970.
    commit_ts: i64,
};

/// Which column of the shape a row failed for, and why.
pub const Fault = struct {
    column: usize = 0,
    wrong: ?decode.Wrong = null,
};

pub const Error = decode.Error || postgres.printed.Error;

pub const Changes = struct {
    gpa: Allocator,
    shape: *const Shape,
    builders: []ColumnBuilder,
    rows: usize = 0,
    /// Rows that fit into the columns of fixed width.
    room: usize = 0,
    /// What the rows take in a batch, at most.
    bytes: usize = 0,
    row_bytes: usize,
    /// What a batch takes beside its rows.
    overhead_bytes: usize,
    /// Bytes of Arrow per byte of row at most.
    expansion: usize,
    /// Whether texts can be anything: the database does not know their encoding.
    checks_texts: bool,
    fault: Fault = .{},

    pub fn init(gpa: Allocator, shape: *const Shape, checks_texts: bool) Error!Changes {
        const builders = try gpa.alloc(ColumnBuilder, shape.types.len);
        errdefer gpa.free(builders);
        var row_bytes = shape.types.len / 8 + 1;
        var expansion: usize = 1;
        for (builders, shape.types, 0..) |*builder, arrow_type, made| {
            errdefer for (builders[0..made]) |*one| one.deinit();
            builder.* = try .init(gpa, arrow_type);
            row_bytes += decode.RowDecoder.widthOf(arrow_type);
            // `{1,2,…}`: an element has two bytes in a row, and its width, bits and offset in a batch.
            if (arrow_type == .list) expansion = @max(expansion, decode.RowDecoder.widthOf(arrow_type.list.type) / 2 + 1);
        }
        return .{
            .gpa = gpa,
            .shape = shape,
            .builders = builders,
            .row_bytes = row_bytes,
            .overhead_bytes = sdk.arrow.writer.overheadBytes(builders) + decode.column_overhead_bytes * builders.len,
            .expansion = expansion,
            .checks_texts = checks_texts,
        };
    }

    pub fn deinit(self: *Changes) void {
        for (self.builders) |*builder| builder.deinit();
        self.gpa.free(self.builders);
        self.* = undefined;
    }

    /// What a row whose message has `length` bytes takes at most; the first one with what the batch takes.
    pub inline fn bound(self: *const Changes, length: usize) usize {
        const own = self.row_bytes + length * self.expansion;
        return if (self.rows == 0) own + self.overhead_bytes else own;
    }

    /// One row, `length` bytes of a message. After an error the changes are as they were before: `OutOfRange` is a value of
    /// the column of `fault` that Arrow has no place for in the column's type, and which text has.
    pub fn append(self: *Changes, row: Marks, places: []const u16, fields: []const Field, length: usize) Error!void {
        if (self.rows == self.room) try self.grow();
        self.store(row, places, fields) catch |err| {
            self.takeBack();
            return err;
        };
        self.bytes += self.bound(length);
        self.rows += 1;
    }

    pub const Extent = struct { rows: usize, bytes: usize };

    pub inline fn extent(self: *const Changes) Extent {
        return .{ .rows = self.rows, .bytes = self.bytes };
    }

    /// Takes back what was appended since.
    pub fn shrink(self: *Changes, to: Extent) void {
        @branchHint(.cold);
        for (self.builders) |*builder| {
            builder.length = self.rows;
            builder.truncate(to.rows);
        }
        self.rows = to.rows;
        self.bytes = to.bytes;
    }

    fn grow(self: *Changes) Error!void {
        @branchHint(.unlikely);
        var room: usize = std.math.maxInt(usize);
        for (self.builders) |*builder| {
            builder.length = self.rows;
            try builder.ensureRows(1);
            room = @min(room, builder.row_capacity);
        }
        self.room = room;
    }

    fn takeBack(self: *Changes) void {
        @branchHint(.cold);
        for (self.builders) |*builder| {
            builder.length = self.rows + 1;
            builder.truncate(self.rows);
        }
    }

    fn store(self: *Changes, row: Marks, places: []const u16, fields: []const Field) Error!void {
        const index = self.rows;
        slots(i16, &self.builders[0])[index] = @backingInt(row.op);
        slots(u64, &self.builders[1])[index] = row.lsn;
        slots(u64, &self.builders[2])[index] = row.seq;
        slots(i64, &self.builders[3])[index] = row.commit_ts;
        const builders = self.builders[marks.len..];
        const columns = self.shape.columns;
        var has_unchanged = false;
        for (fields, places) |field, place| {
            if (place == nowhere) continue;
            const builder = &builders[place];
            switch (field.form) {
                .binary, .text => self.storeTold(&columns[place], builder, index, field) catch |err| {
                    self.fault.column = place;
                    return err;
                },
                .null, .unchanged => {
                    builder.length = index;
                    builder.appendNullAssumeCapacity();
                    has_unchanged = has_unchanged or field.form == .unchanged;
                },
            }
        }
        const unchanged = &self.builders[4];
        unchanged.length = index;
        if (has_unchanged) try storeUnchanged(unchanged, columns.len, places, fields) else unchanged.appendNullAssumeCapacity();
    }

    inline fn storeTold(self: *Changes, column: *const Column, builder: *ColumnBuilder, index: usize, field: Field) Error!void {
        if (self.checks_texts and column.isText()) try self.checkText(field.bytes);
        if (field.form == .binary) {
            if (column.as_text) return storePrinted(column, builder, index, field.bytes);
            return decode.store(&column.plan, builder, index, field.bytes);
        }
        if (column.as_text) return decode.storeBytes(builder, index, field.bytes);
        return postgres.text_field.store(&column.plan, builder, index, field.bytes);
    }

    /// Where texts are not known to be UTF-8, no value comes in binary form.
    fn checkText(self: *Changes, text: []const u8) Error!void {
        self.fault.wrong = decode.wrongIn(text) orelse return;
        return error.NotUtf8;
    }

    fn storePrinted(column: *const Column, builder: *ColumnBuilder, index: usize, bytes: []const u8) Error!void {
        const printed = &(column.printed orelse return error.Malformed);
        var text: std.ArrayList(u8) = .empty;
        defer text.deinit(builder.gpa);
        try postgres.printed.append(&text, builder.gpa, printed, bytes);
        return decode.storeBytes(builder, index, text.items);
    }

    fn storeUnchanged(builder: *ColumnBuilder, columns: usize, places: []const u16, fields: []const Field) Error!void {
        @branchHint(.unlikely);
        var bitmap: [postgres.pgoutput.columns_max / 8 + 1]u8 = @splat(0);
        for (fields, places) |field, place| {
            if (place != nowhere and field.form == .unchanged) bitmap[place / 8] |= @as(u8, 1) << @intCast(place % 8);
        }
        try builder.appendBytes(bitmap[0 .. (columns + 7) / 8]);
    }

    /// The batch of all rows; its memory lies in `scratch` and in the changes, which stay until `reset`.
    pub fn batch(self: *Changes, scratch: Allocator) sdk.arrow.writer.Error![]const sdk.host.Piece {
        for (self.builders) |*builder| builder.length = self.rows;
        return sdk.arrow.writer.encodeBatch(scratch, self.builders, self.rows);
    }

    /// Empties them. Of their memory no more is kept than `kept_bytes`.
    pub fn reset(self: *Changes, kept_bytes: usize) Allocator.Error!void {
        var kept: usize = 0;
        for (self.builders) |*builder| {
            builder.reset();
            var level: ?*const ColumnBuilder = builder;
            while (level) |at| : (level = at.child) kept += at.values.capacity + at.validity.capacity + 4 * at.offsets.capacity;
        }
        self.rows = 0;
        self.bytes = 0;
        if (kept <= kept_bytes) return;
        self.room = 0;
        for (self.builders, self.shape.types) |*builder, arrow_type| {
            const fresh: ColumnBuilder = try .init(self.gpa, arrow_type);
            builder.deinit();
            builder.* = fresh;
        }
    }
};

inline fn slots(comptime T: type, builder: *ColumnBuilder) [*]T {
    return @ptrCast(@alignCast(builder.values.items.ptr));
}

const RelationColumn = @import("relation.zig").Column;
const Tuples = postgres.pgoutput.Tuples;
const columnOf = @import("shape.zig").columnOf;

fn columnForTest(name: []const u8, oid: u32, typmod: i32, element: u32) Column {
    const of: RelationColumn = .{
        .name = name,
        .type_name = "?",
        .type_oid = oid,
        .typmod = typmod,
        .category = 'b',
        .nullable = true,
        .element = if (element == 0) null else .{ .oid = element, .category = 'b', .type_name = "?" },
        .cast_differs = false,
        .prints_names = false,
    };
    const is_known = postgres.types.Kind.ofOid(if (element == 0) oid else element) != null;
    return columnOf(of, if (is_known) .{
        .oid = oid,
        .category = 'b',
        .element = if (element == 0) null else .{ .oid = element, .category = 'b' },
    } else null, false, false, true);
}

const inet = 869;
const numeric_12_4 = (12 << 16 | 4) + 4;
const numeric_76_38 = (76 << 16 | 38) + 4;

fn shapeForTest(gpa: Allocator) !*Shape {
    const oid = postgres.types.oid;
    var columns: std.ArrayList(Column) = .empty;
    defer columns.deinit(gpa);
    inline for (.{
        "boolean", "int2", "int4",      "int8",        "float4",   "float8", "text", "bytea",
        "date",    "time", "timestamp", "timestamptz", "interval", "uuid",   "json", "jsonb",
        "numeric",
    }) |name| {
        try columns.append(gpa, columnForTest(name, @field(oid, name), -1, 0));
        try columns.append(gpa, columnForTest(name ++ "[]", 1, -1, @field(oid, name)));
    }
    try columns.append(gpa, columnForTest("narrow", oid.numeric, numeric_12_4, 0));
    try columns.append(gpa, columnForTest("wide", oid.numeric, numeric_76_38, 0));
    try columns.append(gpa, columnForTest("wide[]", 1, numeric_76_38, oid.numeric));
    try columns.append(gpa, columnForTest("host", inet, -1, 0));
    return .create(gpa, .{
        .stream = "t",
        .primary_key = &.{"int4"},
        .identity = .default,
        .identity_columns = &.{"int4"},
    }, columns.items);
}

const marks_for_test: Marks = .{ .op = .insert, .lsn = 7, .seq = 1, .commit_ts = 0 };

const Sample = struct {
    shape: *Shape,
    changes: Changes,
    places: []u16,
    fields: []Field,

    fn init(gpa: Allocator, checks_texts: bool) !Sample {
        const shape = try shapeForTest(gpa);
        errdefer shape.destroy(gpa);
        const places = try gpa.alloc(u16, shape.columns.len);
        errdefer gpa.free(places);
        for (places, 0..) |*place, i| place.* = @intCast(i);
        const fields = try gpa.alloc(Field, places.len);
        errdefer gpa.free(fields);
        @memset(fields, .{ .form = .null });
        return .{ .shape = shape, .changes = try .init(gpa, shape, checks_texts), .places = places, .fields = fields };
    }

    fn deinit(self: *Sample, gpa: Allocator) void {
        self.changes.deinit();
        gpa.free(self.fields);
        gpa.free(self.places);
        self.shape.destroy(gpa);
    }

    fn set(self: *Sample, name: []const u8, field: Field) void {
        for (self.shape.columns, self.fields) |column, *each| if (std.mem.eql(u8, column.of.name, name)) {
            each.* = field;
        };
    }

    fn append(self: *Sample) !void {
        return self.changes.append(marks_for_test, self.places, self.fields, 100);
    }

    /// The batch as whoever takes it reads it.
    fn read(self: *Sample, arena: Allocator) !sdk.arrow.Batch {
        var message: std.array_list.Aligned(u8, .@"8") = .empty;
        for (try self.changes.batch(arena)) |piece| try message.appendSlice(arena, piece.slice());
        var reader: sdk.arrow.BatchReader = .init(arena);
        const schema = try sdk.arrow.reader.decodeSchema(arena, self.shape.message);
        return reader.decode(&schema, message.items);
    }
};

test "values come in either form, and those that did not change are named" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var sample: Sample = try .init(gpa, false);
    defer sample.deinit(gpa);
    sample.set("int4", .{ .form = .binary, .bytes = "\x00\x00\x00\x07" });
    sample.set("numeric", .{ .form = .binary, .bytes = "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x03\xe8" });
    sample.set("text[]", .{ .form = .text, .bytes = "{a,NULL}" });
    try sample.append();
    sample.set("int4", .{ .form = .text, .bytes = "-8" });
    sample.set("host", .{ .form = .text, .bytes = "::1" });
    sample.set("text[]", .{ .form = .unchanged });
    try sample.append();
    const batch = try sample.read(arena.allocator());
    try std.testing.expectEqual(2, batch.rows);
    const place = struct {
        fn of(shape: *const Shape, name: []const u8) usize {
            for (shape.columns, 0..) |column, i| if (std.mem.eql(u8, column.of.name, name)) return marks.len + i;
            unreachable;
        }
    }.of;
    for ([_]i32{ 7, -8 }, batch.columns[place(sample.shape, "int4")].fixed(i32)) |expected, got|
        try std.testing.expectEqual(expected, got);
    try std.testing.expectEqualStrings("1.1000", batch.columns[place(sample.shape, "numeric")].bytesAt(0));
    try std.testing.expectEqualStrings("::1", batch.columns[place(sample.shape, "host")].bytesAt(1));
    const unchanged = batch.columns[4];
    try std.testing.expect(unchanged.isNull(0));
    const bit = place(sample.shape, "text[]") - marks.len;
    for (unchanged.bytesAt(1), 0..) |byte, i|
        try std.testing.expectEqual(if (i == bit / 8) @as(u8, 1) << @intCast(bit % 8) else 0, byte);
}

test "a row that cannot be stored leaves nothing behind, and names its column" {
    const gpa = std.testing.allocator;
    var sample: Sample = try .init(gpa, true);
    defer sample.deinit(gpa);
    const bad = [_]struct { []const u8, anyerror, []const u8 }{
        .{ "int4[]", error.OutOfRange, "{{1},{2}}" },
        .{ "interval", error.OutOfRange, "2562047788:00:54.775807" },
        .{ "json", error.NotUtf8, "\xff" },
        .{ "host", error.NotUtf8, "a\xff" },
        .{ "uuid", error.Malformed, "x" },
    };
    for (bad) |case| {
        sample.set("text", .{ .form = .text, .bytes = "here" });
        sample.set(case[0], .{ .form = .text, .bytes = case[2] });
        try std.testing.expectError(case[1], sample.append());
        try std.testing.expectEqualStrings(case[0], sample.shape.columns[sample.changes.fault.column].of.name);
        sample.set(case[0], .{ .form = .null });
        try sample.append();
    }
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const batch = try sample.read(arena.allocator());
    try std.testing.expectEqual(bad.len, batch.rows);
    for (sample.shape.columns, batch.columns[marks.len..]) |column, view| {
        const is_text = std.mem.eql(u8, column.of.name, "text");
        try std.testing.expectEqual(if (is_text) 0 else bad.len, view.null_count);
    }
    try sample.changes.reset(0);
    try sample.append();
    try std.testing.expectEqual(1, (try sample.read(arena.allocator())).rows);
}

test "whatever a row's values are, it is stored or refused" {
    const gpa = std.testing.allocator;
    // A value in each column, in either form.
    var corpus: std.ArrayList([]const u8) = .empty;
    defer {
        for (corpus.items) |bytes| gpa.free(bytes);
        corpus.deinit(gpa);
    }
    const count = blk: {
        const shape = try shapeForTest(gpa);
        defer shape.destroy(gpa);
        break :blk shape.columns.len;
    };
    for ([_]struct { u8, []const u8 }{
        .{ 't', "12" },
        .{ 't', "{1,NULL}" },
        .{ 't', "2000-01-01 00:00:00" },
        .{ 'b', "\x00\x00\x00\x07" },
        .{ 'b', "\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x03\xe8" },
        .{ 'b', "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01" },
    }) |value| for (0..count) |at| {
        var tuple: std.ArrayList(u8) = .empty;
        errdefer tuple.deinit(gpa);
        try tuple.appendSlice(gpa, &.{ 'N', 0, @intCast(count) });
        for (0..count) |i| {
            if (i != at) {
                try tuple.append(gpa, if (i % 5 == 0) 'u' else 'n');
                continue;
            }
            try tuple.appendSlice(gpa, &.{ value[0], 0, 0, 0, @intCast(value[1].len) });
            try tuple.appendSlice(gpa, value[1]);
        }
        try corpus.append(gpa, try tuple.toOwnedSlice(gpa));
    };
    try sdk.fuzz.bytes(fuzzRow, corpus.items);
}

fn fuzzRow(bytes: []const u8) anyerror!void {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var sample: Sample = try .init(arena.allocator(), bytes.len % 2 == 0);
    var rows: usize = 0;
    for (0..3) |_| {
        var tuples: Tuples = .{ .rest = bytes };
        _ = tuples.next(sample.fields) catch return;
        if (sample.append()) |_| {
            rows += 1;
        } else |err| if (err == error.OutOfMemory) return err;
    }
    try std.testing.expectEqual(rows, (try sample.read(arena.allocator())).rows);
}
