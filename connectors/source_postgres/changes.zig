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
            .expansion = expansion,
            .checks_texts = checks_texts,
        };
    }

    pub fn deinit(self: *Changes) void {
        for (self.builders) |*builder| builder.deinit();
        self.gpa.free(self.builders);
        self.* = undefined;
    }

    /// What a row whose message has `length` bytes takes at most.
    pub inline fn bound(self: *const Changes, length: usize) usize {
        return self.row_bytes + length * self.expansion;
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
        var text: std.ArrayList(u8) = .empty;
        defer text.deinit(builder.gpa);
        try postgres.printed.append(&text, builder.gpa, &column.printed.?, bytes);
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
