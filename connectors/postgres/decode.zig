//! COPY's binary rows to Arrow columns.
//!
//! This is where a read spends its time, so the row loop writes straight into the columns' buffers: one room check
//! per batch for everything of fixed width, one per value for text, nothing allocated per row or field.
//!
//!     array    dimensions: i32 │ has NULLs: i32 │ element's oid: u32 │ per dimension length: i32, lower bound: i32
//!              then per element: length: i32 (-1 = NULL) and that many bytes        array_send in arrayfuncs.c

const std = @import("std");
const sdk = @import("sdk");
const copy = @import("copy.zig");
const field = @import("field.zig");
const message = @import("message.zig");
const numeric = @import("numeric.zig");
const types = @import("types.zig");

const Allocator = std.mem.Allocator;
const ColumnBuilder = sdk.arrow.ColumnBuilder;
const Kind = types.Kind;
const assert = std.debug.assert;

/// Rows of one batch at most: keeps validity, offsets and fixed-width columns of many narrow rows in the caches.
pub const batch_rows_max = 65_536;
/// Where a batch is full, in bytes as bounded by `Layout`. Larger ones only fall out of the processor's caches and
/// cost memory once more in every stage; smaller ones make the price per batch show.
pub const batch_bytes_target = 4 * 1024 * 1024;
/// Text columns that a single huge value made larger than this give their memory back after the batch.
const text_bytes_kept = 2 * batch_bytes_target;
/// What a column's bitmaps and offsets take beyond `fixed_row_bytes`, in bytes: the offsets' last slot, last bytes of
/// bitmaps; those of its elements too.
pub const column_overhead_bytes = 16;

pub const Column = struct {
    name: []const u8,
    /// As `format_type` prints it, for error messages.
    type_name: []const u8,
    kind: Kind,
    /// Of the type, or of an array's elements.
    typmod: i32 = -1,
    /// The elements' type where the column is an array of them.
    element_oid: ?u32 = null,
    /// Whether the server knows infinite intervals.
    infinite_intervals: bool = true,
};

pub const Error = Allocator.Error || error{
    /// Not what the binary format allows: `fault`.
    Malformed,
    /// A value that Arrow has no place for: `fault`.
    OutOfRange,
    /// A text that is none in UTF-8, where texts are checked: `fault`.
    NotUtf8,
    ColumnTooLarge,
};

/// What was wrong, for the message.
pub const Fault = struct {
    /// Null: the row as a whole.
    column: ?usize = null,
    /// Bytes of the field, or of the row.
    length: usize = 0,
    /// Where the first byte stands that is wrong, if one is, and what it is.
    at: usize = 0,
    byte: u8 = 0,
    reason: []const u8 = "",
};

/// How to read one column's fields.
pub const Plan = struct {
    kind: Kind,
    is_list: bool = false,
    wide: bool = false,
    precision: u8 = 0,
    scale: u8 = 0,
    element_oid: u32 = 0,
    infinite_intervals: bool = true,

    /// Of a column with a native type.
    pub fn init(column: Column) Plan {
        var plan: Plan = .{
            .kind = column.kind,
            .is_list = column.element_oid != null,
            .element_oid = column.element_oid orelse 0,
            .infinite_intervals = column.infinite_intervals,
        };
        if (column.kind == .numeric) {
            const modifier = types.numericModifier(column.typmod).?;
            plan.precision = @intCast(modifier.precision);
            plan.scale = @intCast(modifier.scale);
            plan.wide = modifier.precision > 38;
        }
        return plan;
    }
};

pub const RowDecoder = struct {
    gpa: Allocator,
    columns: []const Column,
    plans: []Plan,
    builders: []ColumnBuilder,
    /// Rows in the builders.
    rows: usize = 0,
    /// What the builders' buffers take at most, with their metadata.
    batch_bytes: usize = 0,
    batch_bytes_limit: usize,
    batch_rows_max: usize,
    fixed_row_bytes: usize,
    /// Bytes of Arrow per byte of row at most, in 16ths.
    expansion: usize,
    /// Whether texts can be anything: the database does not know their encoding.
    checks_texts: bool = false,
    /// The header came.
    started: bool = false,
    /// The trailer came: nothing may follow.
    finished: bool = false,
    fault: Fault = .{},

    /// `columns` must outlive the decoder; each has a native type (`Kind.arrowType` is not null).
    pub fn init(
        gpa: Allocator,
        columns: []const Column,
        arrow_types: []const sdk.arrow.Type,
        max_batch_bytes: usize,
    ) Error!RowDecoder {
        assert(columns.len == arrow_types.len);
        const plans = try gpa.alloc(Plan, columns.len);
        errdefer gpa.free(plans);
        const builders = try gpa.alloc(ColumnBuilder, columns.len);
        errdefer gpa.free(builders);
        var made: usize = 0;
        errdefer for (builders[0..made]) |*builder| builder.deinit();
        var fixed_row_bytes: usize = columns.len / 8 + 1;
        var expansion: usize = 17; // 1/16 for the validity and offsets of list elements
        for (columns, arrow_types, plans, builders) |column, arrow_type, *plan, *builder| {
            plan.* = .init(column);
            builder.* = try .init(gpa, arrow_type);
            made += 1;
            fixed_row_bytes += widthOf(arrow_type);
            // A NULL element has four bytes in a row and the element's width in a batch.
            if (arrow_type == .list) expansion = @max(expansion, 16 * (widthOf(arrow_type.list.type) / 4) + 1);
        }
        const overhead = sdk.arrow.writer.overheadBytes(builders) + columns.len * column_overhead_bytes;
        const batch_bytes_limit = max_batch_bytes -| overhead;
        var self: RowDecoder = .{
            .gpa = gpa,
            .columns = columns,
            .plans = plans,
            .builders = builders,
            .batch_bytes_limit = batch_bytes_limit,
            .batch_rows_max = std.math.clamp(
                @min(batch_bytes_target, batch_bytes_limit) / fixed_row_bytes,
                1,
                batch_rows_max,
            ),
            .fixed_row_bytes = fixed_row_bytes,
            .expansion = expansion,
        };
        try self.reserve();
        return self;
    }

    pub fn deinit(self: *RowDecoder) void {
        for (self.builders) |*builder| builder.deinit();
        self.gpa.free(self.builders);
        self.gpa.free(self.plans);
        self.* = undefined;
    }

    pub fn widthOf(arrow_type: sdk.arrow.Type) usize {
        return switch (arrow_type.layout()) {
            .bits => 1,
            .fixed => |width| width,
            .bytes, .list => 4,
        };
    }

    /// Room for a whole batch, but for the bytes of text and the elements of lists.
    fn reserve(self: *RowDecoder) Error!void {
        for (self.builders) |*builder| try builder.ensureRows(self.batch_rows_max);
    }

    /// Whether the batch must leave before a row of `row_bytes` comes in. One row alone always has its place.
    pub fn isFull(self: *const RowDecoder, row_bytes: usize) bool {
        if (self.rows == 0) return false;
        if (self.rows >= self.batch_rows_max or self.batch_bytes >= batch_bytes_target) return true;
        return self.batch_bytes + self.rowBound(row_bytes) > self.batch_bytes_limit;
    }

    inline fn rowBound(self: *const RowDecoder, row_bytes: usize) usize {
        return self.fixed_row_bytes + row_bytes + (row_bytes * (self.expansion - 16)) / 16;
    }

    /// Makes the builders' lengths those of the batch: call it before encoding. Then `reset`.
    pub fn finishBatch(self: *RowDecoder) void {
        for (self.builders) |*builder| builder.length = self.rows;
    }

    pub fn reset(self: *RowDecoder) void {
        self.resetKeeping(text_bytes_kept);
    }

    fn resetKeeping(self: *RowDecoder, kept_bytes: usize) void {
        for (self.builders) |*builder| {
            builder.reset();
            if (builder.layout == .bytes and builder.values.capacity > kept_bytes)
                builder.values.clearAndFree(builder.gpa);
        }
        self.rows = 0;
        self.batch_bytes = 0;
    }

    /// Gives back what memory an empty batch can do without.
    pub fn relax(self: *RowDecoder) void {
        assert(self.rows == 0);
        self.resetKeeping(0);
    }

    /// Takes the header off the first message, and tells the trailer from a row. Null: no row in this message.
    pub fn open(self: *RowDecoder, data: []const u8) Error!?[]const u8 {
        var rest = data;
        if (!self.started) {
            rest = copy.skipHeader(data) catch return self.malformed(
                .{ .length = data.len, .reason = "COPY's header is not one" },
            );
            self.started = true;
            if (rest.len == 0) return null;
        }
        if (self.finished) return self.malformed(.{ .length = rest.len, .reason = "data follows COPY's trailer" });
        if (std.mem.eql(u8, rest, copy.trailer)) {
            self.finished = true;
            return null;
        }
        return rest;
    }

    /// Takes the header off a message of which only the beginning is there; `header` is `copy.header.len` bytes of it.
    pub fn start(self: *RowDecoder, header: []const u8) Error!void {
        assert(!self.started);
        const rest = copy.skipHeader(header) catch null;
        if (rest == null or rest.?.len > 0) return self.malformed(
            .{ .length = header.len, .reason = "COPY's header is not one" },
        );
        self.started = true;
    }

    /// Appends one row: what `open` gave back, whole. The batch must not be full. After an error it is as it was before.
    pub fn append(self: *RowDecoder, row: []const u8) Error!void {
        assert(self.rows < self.batch_rows_max);
        if (self.checks_texts) try self.checkTexts(row);
        self.appendFields(row) catch |err| {
            self.takeBack();
            return err;
        };
        self.batch_bytes += self.rowBound(row.len);
        self.rows += 1;
    }

    fn takeBack(self: *RowDecoder) void {
        @branchHint(.cold);
        for (self.builders) |*builder| {
            // The row may have come as far as here or not: behind the last one, every column is as new.
            builder.length = self.rows + 1;
            builder.truncate(self.rows);
        }
    }

    /// Before anything is stored. What is not a row at all is left to `appendFields`.
    fn checkTexts(self: *RowDecoder, row: []const u8) Error!void {
        var body: message.Body = .{ .rest = row };
        _ = body.int(u16) catch return;
        for (self.plans, 0..) |*plan, column| {
            const value = (body.value() catch return) orelse continue;
            if (!plan.kind.isText()) continue;
            const wrong = (if (plan.is_list) wrongInList(value) else wrongIn(value)) orelse continue;
            self.fault = .{
                .column = column,
                .length = value.len,
                .at = wrong.place,
                .byte = wrong.byte,
                .reason = "the text is not UTF-8",
            };
            return error.NotUtf8;
        }
    }

    /// Safety checks are off in here: every access below is behind a comparison with the row's length, and the columns
    /// have room for `batch_rows_max` rows since `init`.
    fn appendFields(self: *RowDecoder, row: []const u8) Error!void {
        @setRuntimeSafety(false);
        if (row.len < 2 or std.mem.readInt(u16, row[0..2], .big) != self.plans.len)
            return self.malformed(
                .{ .length = row.len, .reason = "a row has another number of fields than the query" },
            );
        const index = self.rows;
        var at: usize = 2;
        for (self.plans, self.builders, 0..) |*plan, *builder, column| {
            if (row.len - at < 4) return self.malformed(
                .{ .column = column, .length = row.len, .reason = "the row ends before the field" },
            );
            const length: usize = std.mem.readInt(u32, row[at..][0..4], .big);
            at += 4;
            if (length > row.len - at) {
                if (length != null_length) return self.malformed(
                    .{ .column = column, .length = length, .reason = "the row ends inside the field" },
                );
                builder.length = index;
                builder.appendNullAssumeCapacity();
                continue;
            }
            const bytes = row[at..][0..length];
            at += length;
            store(plan, builder, index, bytes) catch |err| return self.fail(err, column, length);
        }
        if (at != row.len) return self.malformed(.{ .length = row.len, .reason = "bytes are left over behind a row" });
    }

    fn fail(self: *RowDecoder, err: Error, column: usize, length: usize) Error {
        @branchHint(.cold);
        self.fault = .{ .column = column, .length = length, .reason = switch (err) {
            error.Malformed => "the field is not of its type",
            error.OutOfRange => "the value is outside of what Arrow holds for this type",
            else => "",
        } };
        return err;
    }

    fn malformed(self: *RowDecoder, fault: Fault) Error {
        @branchHint(.cold);
        self.fault = fault;
        return error.Malformed;
    }
};

const null_length: usize = std.math.maxInt(u32);

pub const Wrong = struct { place: usize, byte: u8 };

/// The first byte of a text, or of the texts in an array, that is not of a UTF-8 sequence. `column` is one of texts.
pub fn wrongText(column: *const Column, bytes: []const u8) ?Wrong {
    assert(column.kind.isText());
    return if (column.element_oid == null) wrongIn(bytes) else wrongInList(bytes);
}

/// The first byte that is not of a UTF-8 sequence.
pub fn wrongIn(text: []const u8) ?Wrong {
    if (std.unicode.utf8ValidateSlice(text)) return null;
    const place = sdk.json.validPrefix(text);
    return .{ .place = place, .byte = text[place] };
}

/// In the first element that is wrong. What is not an array is left to `storeList`.
fn wrongInList(bytes: []const u8) ?Wrong {
    var body: message.Body = .{ .rest = bytes };
    const dimensions = body.int(i32) catch return null;
    if (dimensions < 0 or dimensions > array_dimensions_max) return null;
    _ = body.bytes(8 + 8 * @as(usize, @intCast(dimensions))) catch return null;
    while (body.rest.len > 0) {
        const element = (body.value() catch return null) orelse continue;
        if (wrongIn(element)) |wrong| return wrong;
    }
    return null;
}

/// Writes one field that is not NULL to its place. The slots of fixed width were reserved.
pub inline fn store(plan: *const Plan, builder: *ColumnBuilder, index: usize, bytes: []const u8) Error!void {
    @setRuntimeSafety(false);
    if (plan.is_list) return storeList(plan, builder, index, bytes);
    switch (plan.kind) {
        .bool => {
            const bit = @as(u8, @intFromBool(try field.boolean(bytes))) << @intCast(index % 8);
            builder.values.items.ptr[index / 8] |= bit;
        },
        inline else => |kind| {
            const slots: [*]field.Slot(kind) = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try fixedOf(kind, plan, bytes);
        },
        .numeric => if (plan.wide) {
            const slots: [*]i256 = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try numeric.decode256(bytes, plan.precision, plan.scale);
        } else {
            const slots: [*]i128 = @ptrCast(@alignCast(builder.values.items.ptr));
            slots[index] = try numeric.decode128(bytes, plan.precision, plan.scale);
        },
        .text, .json, .bytea => try storeBytes(builder, index, bytes),
        .jsonb => try storeBytes(builder, index, try field.jsonb(bytes)),
    }
}

inline fn fixedOf(comptime kind: Kind, plan: *const Plan, bytes: []const u8) field.Error!field.Slot(kind) {
    const slot = try field.fixed(kind, bytes);
    // A finite interval of an older server: Arrow would call it infinite.
    if (kind == .interval and !plan.infinite_intervals and field.isInfinite(slot)) return error.OutOfRange;
    return slot;
}

pub inline fn storeBytes(builder: *ColumnBuilder, index: usize, bytes: []const u8) Error!void {
    @setRuntimeSafety(false);
    const start = builder.values.items.len;
    if (bytes.len > builder.values.capacity - start) try builder.ensureBytes(bytes.len);
    const end = start + bytes.len;
    copyBytes(builder.values.items.ptr + start, bytes);
    builder.values.items.len = end;
    builder.offsets.items.ptr[index + 1] = @intCast(end);
}

/// Most texts are a few bytes long, for which the call behind `@memcpy` in WebAssembly costs more than the bytes.
inline fn copyBytes(to: [*]u8, from: []const u8) void {
    @setRuntimeSafety(false);
    const length = from.len;
    if (length > 64) return copyLong(to, from);
    if (length >= 16) {
        var at: usize = 0;
        while (at + 16 < length) : (at += 16) to[at..][0..16].* = from[at..][0..16].*;
        // The last sixteen, which may lie over bytes that are there already.
        to[length - 16 ..][0..16].* = from[length - 16 ..][0..16].*;
    } else if (length >= 8) {
        const head = from[0..8].*;
        to[length - 8 ..][0..8].* = from[length - 8 ..][0..8].*;
        to[0..8].* = head;
    } else if (length >= 4) {
        const head = from[0..4].*;
        to[length - 4 ..][0..4].* = from[length - 4 ..][0..4].*;
        to[0..4].* = head;
    } else if (length > 0) {
        to[0] = from[0];
        to[length / 2] = from[length / 2];
        to[length - 1] = from[length - 1];
    }
}

noinline fn copyLong(to: [*]u8, from: []const u8) void {
    @memcpy(to[0..from.len], from);
}

/// An array of one dimension that starts at 1, or an empty one.
fn storeList(plan: *const Plan, builder: *ColumnBuilder, index: usize, bytes: []const u8) Error!void {
    var body: message.Body = .{ .rest = bytes };
    const dimensions = body.int(i32) catch return error.Malformed;
    _ = body.int(i32) catch return error.Malformed; // whether there are NULLs, as the elements say themselves
    const element_oid = body.int(u32) catch return error.Malformed;
    if (element_oid != plan.element_oid) return error.Malformed;
    builder.length = index;
    const child = try builder.beginList();
    if (dimensions == 1) {
        const count = body.int(i32) catch return error.Malformed;
        const lower_bound = body.int(i32) catch return error.Malformed;
        if (count < 0 or @as(usize, @intCast(count)) > body.rest.len / 4) return error.Malformed;
        if (lower_bound != 1) return error.OutOfRange;
        try child.ensureRows(@intCast(count));
        for (0..@intCast(count)) |_| {
            const element = body.value() catch return error.Malformed;
            if (element) |value| try appendElement(plan, child, value) else try child.appendNull();
        }
    } else if (dimensions > 1 and dimensions <= array_dimensions_max) {
        return error.OutOfRange;
    } else if (dimensions != 0) return error.Malformed;
    body.finish() catch return error.Malformed;
    try builder.endList();
}

/// MAXDIM of PostgreSQL.
pub const array_dimensions_max = 6;

fn appendElement(plan: *const Plan, child: *ColumnBuilder, bytes: []const u8) Error!void {
    switch (plan.kind) {
        .bool => try child.appendBool(try field.boolean(bytes)),
        inline else => |kind| {
            try child.appendFixed(field.Slot(kind), try fixedOf(kind, plan, bytes));
        },
        .numeric => if (plan.wide)
            try child.appendFixed(i256, try numeric.decode256(bytes, plan.precision, plan.scale))
        else
            try child.appendFixed(i128, try numeric.decode128(bytes, plan.precision, plan.scale)),
        .text, .json, .bytea => try child.appendBytes(bytes),
        .jsonb => try child.appendBytes(try field.jsonb(bytes)),
    }
}

const TestDecoder = struct {
    arena: std.heap.ArenaAllocator,
    decoder: RowDecoder,

    fn init(columns: []const Column, max_batch_bytes: usize) !*TestDecoder {
        const gpa = std.testing.allocator;
        const self = try gpa.create(TestDecoder);
        errdefer gpa.destroy(self);
        self.arena = .init(gpa);
        errdefer self.arena.deinit();
        const arrow_types = try self.arena.allocator().alloc(sdk.arrow.Type, columns.len);
        for (columns, arrow_types) |column, *arrow_type| {
            const item = column.kind.arrowType(column.typmod).?;
            if (column.element_oid != null) {
                const child = try self.arena.allocator().create(sdk.arrow.Field);
                child.* = .{ .name = "item", .type = item };
                arrow_type.* = .{ .list = child };
            } else arrow_type.* = item;
        }
        self.decoder = try .init(gpa, columns, arrow_types, max_batch_bytes);
        return self;
    }

    fn deinit(self: *TestDecoder) void {
        self.decoder.deinit();
        self.arena.deinit();
        std.testing.allocator.destroy(self);
    }

    fn feed(self: *TestDecoder, data: []const u8) !void {
        const row = try self.decoder.open(data) orelse return;
        try self.decoder.append(row);
    }
};

const numeric_12_4 = 786440;
const sample_columns = [_]Column{
    .{ .name = "id", .type_name = "integer", .kind = .int4 },
    .{ .name = "price", .type_name = "numeric(12,4)", .kind = .numeric, .typmod = numeric_12_4 },
    .{ .name = "note", .type_name = "text", .kind = .text },
    .{ .name = "done", .type_name = "boolean", .kind = .bool },
    .{ .name = "tags", .type_name = "text[]", .kind = .text, .element_oid = types.oid.text },
};

// COPY (SELECT 7::int4, 1.1234::numeric(12,4), 'ab'::text, true, array['x', NULL, '']) TO STDOUT (FORMAT binary)
const sample_row = "\x00\x05" ++ "\x00\x00\x00\x04\x00\x00\x00\x07" ++
    "\x00\x00\x00\x0c\x00\x02\x00\x00\x00\x00\x00\x04\x00\x01\x04\xd2" ++
    "\x00\x00\x00\x02ab" ++ "\x00\x00\x00\x01\x01" ++
    "\x00\x00\x00\x21\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x19\x00\x00\x00\x03\x00\x00\x00\x01" ++
    "\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x00\x00\x00";
const sample_nulls = "\x00\x05" ++ null_field ++ null_field ++ null_field ++ null_field ++ null_field;
const null_field = "\xff\xff\xff\xff";

test "rows become columns" {
    const sample: *TestDecoder = try .init(&sample_columns, 1 << 20);
    defer sample.deinit();
    try sample.feed(copy.header ++ sample_row);
    try sample.feed(sample_nulls);
    try sample.feed(sample_row);
    try sample.feed(copy.trailer);
    const decoder = &sample.decoder;
    try std.testing.expect(decoder.finished);
    decoder.finishBatch();
    try std.testing.expectEqual(3, decoder.rows);
    for (decoder.builders) |builder| {
        try std.testing.expectEqual(3, builder.length);
        try std.testing.expectEqual(1, builder.null_count);
        try std.testing.expectEqual(0b101, builder.validity.items[0] & 0b111);
    }
    const ids: [*]const i32 = @ptrCast(@alignCast(decoder.builders[0].values.items.ptr));
    try std.testing.expectEqualSlices(i32, &.{ 7, 0, 7 }, ids[0..3]);
    const prices: [*]const i128 = @ptrCast(@alignCast(decoder.builders[1].values.items.ptr));
    try std.testing.expectEqual(1_1234, prices[2]);
    try std.testing.expectEqualStrings("abab", decoder.builders[2].values.items);
    try std.testing.expectEqualSlices(i32, &.{ 0, 2, 2, 4 }, decoder.builders[2].offsets.items[0..4]);
    try std.testing.expectEqual(0b101, decoder.builders[3].values.items[0]);
    try std.testing.expectEqualSlices(i32, &.{ 0, 3, 3, 6 }, decoder.builders[4].offsets.items[0..4]);
    const tags = decoder.builders[4].child.?;
    try std.testing.expectEqual(6, tags.length);
    try std.testing.expectEqual(2, tags.null_count);
    try std.testing.expectEqualStrings("xx", tags.values.items);
}

test "a batch is used again without what the last one left" {
    const sample: *TestDecoder = try .init(&sample_columns, 1 << 20);
    defer sample.deinit();
    try sample.feed(copy.header ++ sample_row);
    sample.decoder.finishBatch();
    sample.decoder.reset();
    try sample.feed(sample_nulls);
    sample.decoder.finishBatch();
    try std.testing.expectEqual(0, sample.decoder.builders[3].values.items[0]);
    try std.testing.expectEqual(0, sample.decoder.builders[2].values.items.len);
    try std.testing.expectEqual(0, sample.decoder.builders[4].child.?.length);
}

test "a row cut short or too long anywhere is malformed" {
    for (0..sample_row.len) |length| {
        const sample: *TestDecoder = try .init(&sample_columns, 1 << 20);
        defer sample.deinit();
        sample.decoder.started = true;
        try std.testing.expectError(error.Malformed, sample.feed(sample_row[0..length]));
        try std.testing.expect(sample.decoder.fault.reason.len > 0);
    }
    const sample: *TestDecoder = try .init(&sample_columns, 1 << 20);
    defer sample.deinit();
    sample.decoder.started = true;
    try std.testing.expectError(error.Malformed, sample.feed(sample_row ++ "x"));
}

test "a row that cannot be stored leaves nothing behind" {
    const columns = sample_columns ++ [_]Column{
        .{ .name = "span", .type_name = "interval", .kind = .interval },
    };
    const fine = "\x00\x00\x00\x10" ++ "\x00\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xfe\x00\x00\x00\x01";
    // SELECT interval_send('2562047788:00:54.775807')
    const beyond = "\x00\x00\x00\x10" ++ "\x7f\xff\xff\xff\xff\xff\xff\xff" ++ "\x00\x00\x00\x00\x00\x00\x00\x00";
    const bad = [_][]const u8{
        "\x00\x06" ++ sample_row[2..] ++ beyond,
        "\x00\x06" ++ sample_nulls[2..] ++ beyond,
        ("\x00\x06" ++ sample_row[2..])[0 .. sample_row.len - 3],
    };
    const with: *TestDecoder = try .init(&columns, 1 << 20);
    defer with.deinit();
    const without: *TestDecoder = try .init(&columns, 1 << 20);
    defer without.deinit();
    for ([_]*TestDecoder{ with, without }) |sample| sample.decoder.started = true;
    for ([_][]const u8{ sample_row, sample_nulls, sample_row, sample_nulls }) |row| {
        for (bad) |refused| if (with.feed(refused)) |_| return error.TestUnexpectedResult else |_| {};
        const whole = try std.mem.concat(std.testing.allocator, u8, &.{ "\x00\x06", row[2..], fine });
        defer std.testing.allocator.free(whole);
        for ([_]*TestDecoder{ with, without }) |sample| try sample.feed(whole);
    }
    for (bad) |refused| if (with.feed(refused)) |_| return error.TestUnexpectedResult else |_| {};
    try std.testing.expectEqual(without.decoder.batch_bytes, with.decoder.batch_bytes);
    var messages: [2][]u8 = undefined;
    for (&messages, [_]*TestDecoder{ with, without }) |*bytes, sample| {
        sample.decoder.finishBatch();
        const pieces = try sdk.arrow.writer.encodeBatch(sample.arena.allocator(), sample.decoder.builders, sample.decoder.rows);
        var collected: std.ArrayList(u8) = .empty;
        for (pieces) |piece| try collected.appendSlice(sample.arena.allocator(), piece.slice());
        bytes.* = collected.items;
    }
    try std.testing.expectEqualSlices(u8, messages[1], messages[0]);
}

test "a text that is not UTF-8 is found where texts are checked" {
    const columns = [_]Column{
        .{ .name = "t", .type_name = "text", .kind = .text },
        .{ .name = "a", .type_name = "text[]", .kind = .text, .element_oid = types.oid.text },
        .{ .name = "b", .type_name = "bytea", .kind = .bytea },
    };
    const array = "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x19\x00\x00\x00\x03\x00\x00\x00\x01";
    const bytes = "\x00\x00\x00\x01\xff";
    const head = "\x00\x03" ++ "\x00\x00\x00\x02\xc3\xa9" ++ "\x00\x00\x00\x20" ++ array;
    const elements = "\xff\xff\xff\xff" ++ "\x00\x00\x00\x00";
    const sample: *TestDecoder = try .init(&columns, 1 << 20);
    defer sample.deinit();
    sample.decoder.started = true;
    sample.decoder.checks_texts = true;
    try sample.feed(head[0..] ++ elements ++ "\x00\x00\x00\x00" ++ "" ++ bytes);
    const in_element = "\x00\x03" ++ "\xff\xff\xff\xff" ++ "\x00\x00\x00\x22" ++ array ++ elements ++
        "\x00\x00\x00\x02a\xe9" ++ bytes;
    try std.testing.expectError(error.NotUtf8, sample.feed(in_element));
    try std.testing.expectEqual(Fault{
        .column = 1,
        .length = 0x22,
        .at = 1,
        .byte = 0xe9,
        .reason = "the text is not UTF-8",
    }, sample.decoder.fault);
    try std.testing.expectEqual(1, sample.decoder.rows);
    sample.decoder.checks_texts = false;
    try sample.feed(in_element);
}

test "nothing may follow the trailer, and nothing may come before the header" {
    const sample: *TestDecoder = try .init(&sample_columns, 1 << 20);
    defer sample.deinit();
    try std.testing.expectError(error.Malformed, sample.feed(sample_row));
    try sample.feed(copy.header);
    try sample.feed(copy.trailer);
    try std.testing.expectError(error.Malformed, sample.feed(sample_row));
}

test "arrays that a list cannot be are told apart from malformed ones" {
    const columns = [_]Column{.{ .name = "a", .type_name = "integer[]", .kind = .int4, .element_oid = types.oid.int4 }};
    const Case = struct { anyerror, []const u8 };
    // SELECT array_send(array[[1],[2]]), array_send('[0:0]={1}'::int4[])
    const cases = [_]Case{
        .{
            error.OutOfRange,
            "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x17" ++
                "\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01",
        },
        .{
            error.OutOfRange,
            "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17" ++
                "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01",
        },
        .{ error.Malformed, "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x00\x00\x00\x00\x01" },
        .{ error.Malformed, "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x7f\xff\xff\xff\x00\x00\x00\x01" },
        .{ error.Malformed, "\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x17" },
    };
    for (cases) |case| {
        const sample: *TestDecoder = try .init(&columns, 1 << 20);
        defer sample.deinit();
        sample.decoder.started = true;
        var row: [64]u8 = undefined;
        std.mem.writeInt(u16, row[0..2], 1, .big);
        std.mem.writeInt(u32, row[2..6], @intCast(case[1].len), .big);
        @memcpy(row[6..][0..case[1].len], case[1]);
        try std.testing.expectError(case[0], sample.feed(row[0 .. 6 + case[1].len]));
    }
}

test "the bound of a batch is never below what its columns take" {
    var random: std.Random.DefaultPrng = .init(std.testing.random_seed);
    errdefer std.debug.print("seed {d}\n", .{std.testing.random_seed});
    const columns = sample_columns ++ [_]Column{
        .{
            .name = "prices",
            .type_name = "numeric(12,4)[]",
            .kind = .numeric,
            .typmod = numeric_12_4,
            .element_oid = types.oid.numeric,
        },
    };
    const sample: *TestDecoder = try .init(&columns, 1 << 20);
    defer sample.deinit();
    var row: std.ArrayList(u8) = .empty;
    defer row.deinit(std.testing.allocator);
    sample.decoder.started = true;
    for (0..1000) |_| {
        row.clearRetainingCapacity();
        try row.appendSlice(std.testing.allocator, "\x00\x06");
        try row.appendSlice(
            std.testing.allocator,
            if (random.random().boolean()) sample_row[2..] else sample_nulls[2..],
        );
        var list: [20 + 4 * 50]u8 = @splat(0xff); // elements that are NULL
        const count = random.random().uintLessThan(u32, 50);
        inline for (.{ 1, 1, types.oid.numeric, count, 1 }, 0..) |word, i| std.mem.writeInt(
            u32,
            list[4 * i ..][0..4],
            word,
            .big,
        );
        var length: [4]u8 = undefined;
        std.mem.writeInt(u32, &length, 20 + 4 * count, .big);
        try row.appendSlice(std.testing.allocator, &length);
        try row.appendSlice(std.testing.allocator, list[0 .. 20 + 4 * count]);
        try sample.feed(row.items);
        sample.decoder.finishBatch();
        var taken: usize = 0;
        for (sample.decoder.builders) |builder| taken += builder.dataBytes();
        // The offsets' extra slot and rounded-up bitmaps are in the overhead that the limit leaves free.
        try std.testing.expect(taken <= sample.decoder.batch_bytes + columns.len * column_overhead_bytes);
    }
}

test "short and long texts are copied exactly" {
    var from: [200]u8 = undefined;
    for (&from, 0..) |*byte, i| byte.* = @truncate(i + 1);
    for (0..from.len + 1) |length| {
        var to: [202]u8 = @splat(0);
        copyBytes(to[1..].ptr, from[0..length]);
        try std.testing.expectEqualSlices(u8, from[0..length], to[1..][0..length]);
        try std.testing.expectEqual(0, to[0]);
        try std.testing.expectEqual(0, to[1 + length]);
    }
}

test "any bytes are rows or an error" {
    try sdk.fuzz.bytes(fuzzRows, &.{ sample_row, sample_nulls, copy.trailer });
}

fn fuzzRows(input: []const u8) anyerror!void {
    const sample: *TestDecoder = try .init(&sample_columns, 1 << 16);
    defer sample.deinit();
    sample.decoder.started = true;
    sample.decoder.checks_texts = input.len % 2 == 0;
    // Twice: what the first row leaves in the columns must not matter to the second.
    for (0..2) |_| sample.feed(input) catch |err| return if (err == error.OutOfMemory) err;
}
