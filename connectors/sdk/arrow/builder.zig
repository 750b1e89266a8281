//! Builds one column of a record batch, value by value, in the buffers that are then sent as they are.
//!
//! Made for hot loops: `ensureRows` reserves, the `…AssumeCapacity` functions write. What a value costs is one store
//! and one increment: a valid value touches no validity bit (see `validity`), `false` touches no value bit. Buffers
//! keep their capacity from batch to batch.

const std = @import("std");
const types = @import("types.zig");
const ArrayView = @import("reader.zig").ArrayView;

const Allocator = std.mem.Allocator;
const Type = types.Type;
const assert = std.debug.assert;

/// Bytes whose address suits every value type and every SIMD load.
pub const Bytes = std.array_list.Aligned(u8, .@"16");

/// The largest offset of a variable-width or list column: Arrow's `Utf8`, `Binary` and `List` have i32 offsets.
pub const max_offset: usize = std.math.maxInt(i32);

/// Of values from this size on a batch holds few: room for more of them is not worth what it takes of the memory, which
/// decides about how large a row can be.
const large_bytes = 1024 * 1024;

/// `ColumnTooLarge`: more than 2 GiB of text or list elements in one batch.
pub const Error = Allocator.Error || error{ColumnTooLarge};

pub const ColumnBuilder = struct {
    gpa: Allocator,
    type: Type,
    layout: Type.Layout,
    /// Values appended since the last `reset`, nulls included.
    length: usize = 0,
    null_count: usize = 0,
    /// Values that fit without growing `validity`, `offsets` and fixed-width `values`.
    row_capacity: usize = 0,
    /// One bit per value, least significant first, 1 = valid. Meaningful only while `null_count > 0`: the first null
    /// of a batch fills the whole capacity with ones, so that later valid values need not write their bit.
    validity: Bytes = .empty,
    /// Fixed width: `row_capacity` slots, `length` of them used. Bool: a bitmap, all zero behind `length`. Text and
    /// binary: the bytes (`items.len` of them). List: unused.
    values: Bytes = .empty,
    /// Text, binary and list: `row_capacity + 1` slots, `length + 1` of them used, the first one 0.
    offsets: std.ArrayList(i32) = .empty,
    /// List: the elements.
    child: ?*ColumnBuilder = null,

    pub fn init(gpa: Allocator, column_type: Type) Allocator.Error!ColumnBuilder {
        var self: ColumnBuilder = .{ .gpa = gpa, .type = column_type, .layout = column_type.layout() };
        if (column_type == .list) {
            const child = try gpa.create(ColumnBuilder);
            errdefer gpa.destroy(child);
            child.* = try .init(gpa, column_type.list.type);
            self.child = child;
        }
        return self;
    }

    pub fn deinit(self: *ColumnBuilder) void {
        self.validity.deinit(self.gpa);
        self.values.deinit(self.gpa);
        self.offsets.deinit(self.gpa);
        if (self.child) |child| {
            child.deinit();
            self.gpa.destroy(child);
        }
        self.* = undefined;
    }

    /// Empties the column and keeps its memory.
    pub fn reset(self: *ColumnBuilder) void {
        switch (self.layout) {
            .bits => @memset(self.values.items[0..bitmapBytes(self.length)], 0),
            .bytes => self.values.items.len = 0,
            .fixed => {},
            .list => self.child.?.reset(),
        }
        self.length = 0;
        self.null_count = 0;
    }

    /// Drops the values from `length` on, as if they had never come.
    pub fn truncate(self: *ColumnBuilder, length: usize) void {
        assert(length <= self.length);
        if (self.null_count > 0) for (length..self.length) |i| {
            const bit = @as(u8, 1) << @intCast(i % 8);
            if (self.validity.items[i / 8] & bit != 0) continue;
            self.validity.items[i / 8] |= bit;
            self.null_count -= 1;
        };
        if (self.row_capacity > 0) switch (self.layout) {
            .bits => for (length..self.length) |i| {
                self.values.items[i / 8] &= ~(@as(u8, 1) << @intCast(i % 8));
            },
            .bytes => self.values.items.len = @intCast(self.offsets.items[length]),
            .list => self.child.?.truncate(@intCast(self.offsets.items[length])),
            .fixed => {},
        };
        self.length = length;
    }

    /// Makes room for `additional` more values: slots, offsets and validity; the bytes of text and the elements of
    /// lists grow on their own.
    pub fn ensureRows(self: *ColumnBuilder, additional: usize) Error!void {
        if (additional <= self.row_capacity - self.length) return;
        try self.growRows(additional);
    }

    /// Makes room for `additional` more bytes of text or binary values.
    pub fn ensureBytes(self: *ColumnBuilder, additional: usize) Error!void {
        assert(self.layout == .bytes);
        if (additional > max_offset - self.values.items.len) return error.ColumnTooLarge;
        if (additional < large_bytes) return self.values.ensureUnusedCapacity(self.gpa, additional);
        try self.values.ensureTotalCapacityPrecise(self.gpa, self.values.items.len + additional);
    }

    fn growRows(self: *ColumnBuilder, additional: usize) Error!void {
        @branchHint(.cold);
        if (additional > max_offset - self.length) return error.ColumnTooLarge;
        const wanted = @max(self.length + additional, @min(self.row_capacity *| 2, max_offset), 64);
        const rows = std.mem.alignForward(usize, wanted, 64);

        const old_bitmap_bytes = self.validity.items.len;
        try resize(&self.validity, self.gpa, rows / 8);
        if (self.null_count > 0) @memset(self.validity.items[old_bitmap_bytes..], 0xff);
        switch (self.layout) {
            .bits => {
                const used = self.values.items.len;
                try resize(&self.values, self.gpa, rows / 8);
                @memset(self.values.items[used..], 0);
            },
            .fixed => |width| {
                const size = std.math.mul(usize, rows, width) catch return error.ColumnTooLarge;
                try resize(&self.values, self.gpa, size);
            },
            .bytes, .list => {
                try self.offsets.ensureTotalCapacityPrecise(self.gpa, rows + 1);
                self.offsets.items.len = rows + 1;
                self.offsets.items[0] = 0;
            },
        }
        self.row_capacity = rows;
    }

    fn resize(list: *Bytes, gpa: Allocator, size: usize) Allocator.Error!void {
        try list.ensureTotalCapacityPrecise(gpa, size);
        list.items.len = size;
    }

    pub fn appendNull(self: *ColumnBuilder) Error!void {
        try self.ensureRows(1);
        self.appendNullAssumeCapacity();
    }

    pub fn appendNullAssumeCapacity(self: *ColumnBuilder) void {
        assert(self.length < self.row_capacity);
        if (self.null_count == 0) @memset(self.validity.items, 0xff);
        self.null_count += 1;
        const i = self.length;
        self.validity.items[i / 8] &= ~(@as(u8, 1) << @intCast(i % 8));
        switch (self.layout) {
            .bits => {},
            // Zeroed, so that no byte of an earlier batch leaves with this one.
            .fixed => |width| @memset(self.values.items[i * width ..][0..width], 0),
            .bytes, .list => self.offsets.items[i + 1] = self.offsets.items[i],
        }
        self.length = i + 1;
    }

    pub fn appendBool(self: *ColumnBuilder, value: bool) Error!void {
        try self.ensureRows(1);
        self.appendBoolAssumeCapacity(value);
    }

    pub inline fn appendBoolAssumeCapacity(self: *ColumnBuilder, value: bool) void {
        assert(self.layout == .bits);
        assert(self.length < self.row_capacity);
        const i = self.length;
        self.values.items[i / 8] |= @as(u8, @intFromBool(value)) << @intCast(i % 8);
        self.length = i + 1;
    }

    /// `T` is as wide as the column's values: i16…i64, f32, f64, i128, i256, `MonthDayNano`, `[n]u8`.
    pub fn appendFixed(self: *ColumnBuilder, comptime T: type, value: T) Error!void {
        try self.ensureRows(1);
        self.appendFixedAssumeCapacity(T, value);
    }

    pub inline fn appendFixedAssumeCapacity(self: *ColumnBuilder, comptime T: type, value: T) void {
        assert(self.layout == .fixed and self.layout.fixed == @sizeOf(T));
        assert(self.length < self.row_capacity);
        const slots: [*]align(1) T = @ptrCast(self.values.items.ptr);
        slots[self.length] = value;
        self.length += 1;
    }

    /// Utf8, Binary (any length) and FixedSizeBinary (exactly its width).
    pub fn appendBytes(self: *ColumnBuilder, value: []const u8) Error!void {
        try self.ensureRows(1);
        if (self.layout == .bytes) {
            if (value.len > self.values.capacity - self.values.items.len or
                value.len > max_offset - self.values.items.len) try self.ensureBytes(value.len);
        }
        self.appendBytesAssumeCapacity(value);
    }

    pub inline fn appendBytesAssumeCapacity(self: *ColumnBuilder, value: []const u8) void {
        assert(self.length < self.row_capacity);
        const i = self.length;
        switch (self.layout) {
            .fixed => |width| @memcpy(self.values.items[i * width ..][0..width], value),
            .bytes => {
                const start = self.values.items.len;
                assert(value.len <= self.values.capacity - start);
                self.values.items.len = start + value.len;
                @memcpy(self.values.items[start..], value);
                self.offsets.items[i + 1] = @intCast(start + value.len);
            },
            .bits, .list => unreachable,
        }
        self.length = i + 1;
    }

    /// Starts a list value; append its elements to the builder that comes back, then call `endList`.
    pub fn beginList(self: *ColumnBuilder) Error!*ColumnBuilder {
        try self.ensureRows(1);
        return self.child.?;
    }

    pub fn endList(self: *ColumnBuilder) Error!void {
        assert(self.layout == .list);
        assert(self.length < self.row_capacity);
        const end = self.child.?.length;
        if (end > max_offset) return error.ColumnTooLarge;
        self.offsets.items[self.length + 1] = @intCast(end);
        self.length += 1;
    }

    /// The column as one that was read. It points into the buffers, which must not change as long as it is used; what it
    /// needs beside them lies in `arena`.
    pub fn view(self: *const ColumnBuilder, arena: Allocator) Allocator.Error!ArrayView {
        const has_offsets = self.layout == .bytes or self.layout == .list;
        var result: ArrayView = .{
            .type = self.type,
            .length = self.length,
            .null_count = self.null_count,
            .validity = if (self.null_count > 0) self.validity.items[0..bitmapBytes(self.length)] else null,
            .offsets = if (!has_offsets)
                &.{}
            else if (self.length == 0)
                &.{0}
            else
                self.offsets.items[0 .. self.length + 1],
            .values = switch (self.layout) {
                .bits => self.values.items[0..bitmapBytes(self.length)],
                .fixed => |width| self.values.items[0 .. self.length * width],
                .bytes => self.values.items,
                .list => "",
            },
            .child = null,
        };
        if (self.child) |child| {
            const elements = try arena.create(ArrayView);
            elements.* = try child.view(arena);
            result.child = elements;
        }
        return result;
    }

    /// Bytes that the column's buffers take in a message, paddings of under 8 bytes each left out.
    pub fn dataBytes(self: *const ColumnBuilder) usize {
        const bitmap = if (self.null_count > 0) bitmapBytes(self.length) else 0;
        return bitmap + switch (self.layout) {
            .bits => bitmapBytes(self.length),
            .fixed => |width| self.length * width,
            .bytes => (self.length + 1) * 4 + self.values.items.len,
            .list => (self.length + 1) * 4 + self.child.?.dataBytes(),
        };
    }
};

pub fn bitmapBytes(bits: usize) usize {
    return bits / 8 + @intFromBool(bits % 8 != 0);
}

test "values that are dropped leave nothing behind" {
    const gpa = std.testing.allocator;
    const item: types.Field = .{ .name = "item", .type = .bool };
    for ([_]Type{ .bool, .int64, .utf8, .{ .list = &item } }) |column_type| {
        var column: ColumnBuilder = try .init(gpa, column_type);
        defer column.deinit();
        column.truncate(0);
        for (0..2) |round| {
            // The first value stays: in the second round it is NULL.
            for (0..4) |i| {
                if (round == 1 and i % 2 == 0) try column.appendNull() else try appendOne(&column);
            }
            column.truncate(1);
            try std.testing.expectEqual(1, column.length);
            try std.testing.expectEqual(round, column.null_count);
            try appendOne(&column);
            if (round == 1) try std.testing.expectEqual(0b10, column.validity.items[0] & 0b11);
            switch (column.layout) {
                .bits => try std.testing.expectEqual(@as(usize, if (round == 1) 0b10 else 0b11), column.values.items[0]),
                .bytes => try std.testing.expectEqual(@as(usize, if (round == 1) 2 else 4), column.values.items.len),
                .list => {
                    const child = column.child.?;
                    try std.testing.expectEqual(@as(usize, if (round == 1) 2 else 4), child.length);
                    try std.testing.expectEqual(@as(usize, if (round == 1) 1 else 2), child.null_count);
                    try std.testing.expectEqual(@as(usize, if (round == 1) 0b01 else 0b0101), child.values.items[0]);
                },
                .fixed => {},
            }
            column.reset();
        }
    }
}

fn appendOne(column: *ColumnBuilder) Error!void {
    switch (column.layout) {
        .bits => try column.appendBool(true),
        .fixed => try column.appendFixed(i64, 7),
        .bytes => try column.appendBytes("ab"),
        .list => {
            const child = try column.beginList();
            try child.appendBool(true);
            try child.appendNull();
            try column.endList();
        },
    }
}
