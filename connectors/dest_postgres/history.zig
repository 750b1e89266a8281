//! Every change as a row of its own, in the order in which they were committed: what happened, when, and the row after it.
//!
//!     _rb_op  _rb_lsn     _rb_seq  _rb_commit_ts  _rb_unchanged │ the table's columns …
//!     update  0/16B3748         7  12:00:00       {photo}       │  7   "a"   NULL
//!
//! An update that changes the key is a delete of the old one and an update to the new. A value that PostgreSQL did not tell,
//! because the update left it alone, is NULL and named in `_rb_unchanged`.

const std = @import("std");
const sdk = @import("sdk");
const changes_module = @import("changes.zig");
const columns_module = @import("columns.zig");
const Batch = changes_module.Batch;
const Changes = changes_module.Changes;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Pouring = @import("pouring.zig").Pouring;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const ArrayView = sdk.arrow.ArrayView;
const Column = columns_module.Column;
const arrow = sdk.arrow;

const item: arrow.Field = .{ .name = "item", .type = .utf8 };

/// The first columns of a history.
const first = [_]arrow.Field{
    .{ .name = "_rb_op", .nullable = false, .type = .utf8, .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "text" }} },
    .{ .name = "_rb_lsn", .nullable = false, .type = .utf8, .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "pg_lsn" }} },
    .{ .name = "_rb_seq", .nullable = false, .type = .int64, .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "bigint" }} },
    .{
        .name = "_rb_commit_ts",
        .nullable = false,
        .type = .{ .timestamp = .{ .utc = true } },
        .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "timestamp with time zone" }},
    },
    .{ .name = "_rb_unchanged", .type = .{ .list = &item }, .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "text[]" }} },
};

/// The columns of a table's history. No column of the table is there in every change, and what a row has in a column that
/// came later was not there when its entry was written.
pub fn schemaOf(arena: Allocator, table: *const arrow.Schema) !arrow.Schema {
    const fields = try std.mem.concat(arena, arrow.Field, &.{ &first, table.fields });
    for (fields[first.len..]) |*field| {
        field.nullable = true;
        var kept: std.ArrayList(arrow.KeyValue) = .empty;
        for (field.metadata) |entry| if (!changes_module.isOfRowsBefore(entry.key)) try kept.append(arena, entry);
        field.metadata = kept.items;
    }
    return .{ .fields = fields, .metadata = table.metadata };
}

/// A batch's columns as `schemaOf` has them; they live as long as the batch.
pub fn columnsOf(batch: *Batch, table: *const arrow.Schema) ![]ArrayView {
    const arena = batch.arena();
    const lsns: ArrayView = .{
        .type = .int64,
        .length = batch.rows,
        .null_count = 0,
        .validity = null,
        .offsets = &.{},
        .values = std.mem.sliceAsBytes(batch.lsns),
        .child = null,
    };
    var numbers = lsns;
    numbers.values = std.mem.sliceAsBytes(batch.numbers);
    return std.mem.concat(arena, ArrayView, &.{
        &.{ try names(arena, batch), lsns, numbers, batch.times.*, try unchanged(arena, batch, table) },
        batch.columns,
    });
}

pub fn names(arena: Allocator, batch: *const Batch) !ArrayView {
    const offsets = try arena.alloc(i32, batch.rows + 1);
    const longest = @tagName(changes_module.Op.truncate).len;
    const values = try arena.alloc(u8, batch.rows * longest + encode_slack);
    var used: usize = 0;
    offsets[0] = 0;
    for (batch.ops, offsets[1..]) |op, *end| {
        const name = op.name();
        @memcpy(values[used..][0..name.len], name);
        used += name.len;
        end.* = @intCast(used);
    }
    return texts(batch.rows, offsets, values[0..used]);
}

/// What is written of the batch, with its LSNs as text.
pub fn printable(arena: Allocator, batch: *const Batch, landing: *const Landing) !arrow.Batch {
    var told = batch.view(.landed);
    told.columns = try arena.dupe(ArrayView, told.columns);
    const offsets = try arena.alloc(i32, batch.rows + 1);
    var values: std.ArrayList(u8) = .empty;
    offsets[0] = 0;
    for (batch.lsns, offsets[1..]) |lsn, *end| {
        const bits: u64 = @bitCast(lsn);
        try values.print(arena, "{X}/{X}", .{ bits >> 32, @as(u32, @truncate(bits)) });
        end.* = @intCast(values.items.len);
    }
    for (landing.columns, told.columns) |column, *view| if (std.mem.eql(u8, column.name, "_rb_lsn")) {
        view.* = texts(batch.rows, offsets, values.items);
    };
    return told;
}

/// Bytes behind a batch's values that the encoder may read.
const encode_slack = @import("encode.zig").slack;

fn texts(count: usize, offsets: []const i32, values: []const u8) ArrayView {
    return .{ .type = .utf8, .length = count, .null_count = 0, .validity = null, .offsets = offsets, .values = values, .child = null };
}

/// Of each row, the names of the columns that it does not tell; NULL where it tells all.
fn unchanged(arena: Allocator, batch: *const Batch, table: *const arrow.Schema) !ArrayView {
    const bitmap = try arena.alloc(u8, (batch.rows + 7) / 8);
    @memset(bitmap, 0);
    const offsets = try arena.alloc(i32, batch.rows + 1);
    offsets[0] = 0;
    var ends: std.ArrayList(i32) = .empty;
    var values: std.ArrayList(u8) = .empty;
    try ends.append(arena, 0);
    var nulls = batch.rows;
    for (0..batch.rows, offsets[1..]) |row, *end| {
        if (batch.isPartial(row)) {
            nulls -= 1;
            bitmap[row / 8] |= @as(u8, 1) << @intCast(row % 8);
            for (table.fields, 0..) |*field, column| if (batch.isUnchanged(row, column)) {
                try values.appendSlice(arena, field.name);
                try ends.append(arena, @intCast(values.items.len));
            };
        }
        end.* = @intCast(ends.items.len - 1);
    }
    try values.ensureUnusedCapacity(arena, encode_slack);
    const child = try arena.create(ArrayView);
    child.* = texts(ends.items.len - 1, ends.items, values.items);
    return .{
        .type = .{ .list = &item },
        .length = batch.rows,
        .null_count = nulls,
        .validity = bitmap,
        .offsets = offsets,
        .values = "",
        .child = child,
    };
}

pub const History = struct {
    landing: *Landing,
    changes: *const Changes,
    load: Load,
    span: changes_module.Span = .all,
    filter: changes_module.Filter = .all,

    pub fn init(arena: Allocator, landing: *Landing, changes: *const Changes) !History {
        const columns = try arena.dupe(Column, landing.columns);
        // Which is a number, and needs nobody to read it.
        for (columns) |*column| if (std.mem.eql(u8, column.name, "_rb_lsn") and std.mem.eql(u8, column.type, "pg_lsn")) {
            column.codec = .{ .wire = .bits64 };
            column.sent_as = null;
            column.conversion = null;
        };
        landing.columns = columns;
        return .{ .landing = landing, .changes = changes, .load = try .init(arena, landing.session, .{
            .table = landing.target.quoted,
            .columns = columns,
            .way = .of(columns, false),
            .doing = landing.target.doing,
        }) };
    }

    pub fn build(self: *History, span: changes_module.Span, filter: changes_module.Filter) !void {
        self.span = span;
        self.filter = filter;
    }

    /// Each change is a row of its own.
    pub fn sameRow(_: *const History, a: changes_module.Ref, b: changes_module.Ref) bool {
        return a.batch == b.batch and a.row == b.row;
    }

    pub fn write(self: *History, _: Allocator) !void {
        var pouring: Pouring = .{ .load = &self.load, .changes = self.changes, .columns = .landed };
        var it = self.changes.within(self.span);
        while (it.next()) |ref| if (self.filter.passes(self, ref)) try pouring.add(ref);
        try pouring.finish();
    }

    pub fn abandon(self: *History) void {
        self.load.abandon();
    }

    pub fn undone(self: *History) void {
        self.load.forgetStaging();
    }

    pub fn committed(self: *History) void {
        self.load.forgetStaging();
    }

    pub fn bytes(self: *const History) u64 {
        return self.load.bytes;
    }
};
