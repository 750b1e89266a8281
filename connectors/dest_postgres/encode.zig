//! Arrow record batches -> rows in COPY's binary format.
//!
//!     ┌───────────────────────────────────────────────┐
//!     │ "PGCOPY\n\xff\r\n\0" │ u32 flags 0 │ u32 ext 0 │   once
//!     ├─────────────┬─────────────────────────────────┤
//!     │ u16 columns │ i32 length │ bytes │ i32 length …│   per row; length -1 is NULL and has no bytes
//!     ├─────────────┴─────────────────────────────────┤
//!     │ i16 -1                                        │   once
//!     └───────────────────────────────────────────────┘
//!
//! All integers are big-endian. https://www.postgresql.org/docs/current/sql-copy.html ("Binary Format")
//!
//! This is the hot path of a destination: one pass, row by row, straight into the connection's CopyData frame. A frame
//! holds many rows and may end anywhere, in the middle of a value too. Before each row there is room for all that has a
//! bounded size (`Encoder.row_bytes_max`); only text and binary values ask for room themselves. Every cell is written
//! with one 16-byte store where it can be: what lies behind its end is overwritten by the next one, which is why all
//! bounds below carry `slack`.

const std = @import("std");
const arrow = @import("sdk").arrow;
const numeric = @import("numeric.zig");
const values = @import("postgres").values;

const Allocator = std.mem.Allocator;
const assert = std.debug.assert;

pub const header = "PGCOPY\n\xff\r\n\x00" ++ "\x00\x00\x00\x00" ++ "\x00\x00\x00\x00";
pub const max_scale = numeric.max_scale;
pub const trailer = "\xff\xff";

/// Bytes that a cell may write behind its end, and read behind its value: one SIMD register.
pub const slack = 16;

/// Text up to this many bytes is copied in 16-byte steps; for longer ones the call of a bulk copy pays off.
const inline_copy_max = 256;

/// Fixed-size values up to this many bytes count as bounded; longer ones are written like text.
const bounded_width_max = 64;

/// How the values of a column are written.
pub const Wire = enum(u8) {
    bool,
    /// int2, int4, int8, and the floats as the integers of their bits.
    bits16,
    bits32,
    bits64,
    date,
    timestamp,
    interval,
    numeric128,
    numeric256,
    /// Text that is a number.
    numeric_text,
    /// FixedSizeBinary(16): uuid.
    bytes16,
    /// FixedSizeBinary of any other width.
    bytes_fixed,
    /// Text and binary.
    bytes,
    /// Text with jsonb's version byte in front.
    jsonb,
    array,

    /// Bytes of the longest value, `null` when it has no bound.
    fn bound(wire: Wire) ?usize {
        return switch (wire) {
            .bool => 1,
            .bits16 => 2,
            .bits32, .date => 4,
            .bits64, .timestamp => 8,
            .interval, .bytes16 => 16,
            .numeric128 => numeric.maxBytes(128),
            .numeric256 => numeric.maxBytes(256),
            .numeric_text, .bytes_fixed, .bytes, .jsonb, .array => null,
        };
    }
};

/// How one column is encoded; decided once per schema.
pub const Codec = struct {
    wire: Wire,
    /// Of decimals.
    scale: numeric.Scale = .init(0),
    /// Of FixedSizeBinary, in bytes.
    width: u32 = 0,
    /// Of lists.
    element: ?*const Codec = null,
    /// Of lists: the element's type at the server.
    element_oid: u32 = 0,
    /// Whether the server knows infinite intervals (PostgreSQL 17).
    infinite_intervals: bool = true,
};

/// Values that no PostgreSQL value of the type stands for. The offending column and row are in `Encoder.offender`.
pub const ValueError = error{
    /// A date or timestamp that would read as infinity, or leaves the type's range.
    OutOfRange,
    /// An interval whose nanoseconds are not whole microseconds.
    SubMicrosecond,
    /// An infinite interval for a server before PostgreSQL 17.
    InfiniteInterval,
    /// A value of 1 GiB or more: PostgreSQL has none.
    TooLong,
    /// Text that is no number, or one beyond the limits of numeric.
    NotANumber,
};

/// PostgreSQL's limit of one value, in bytes (MaxAllocSize).
const value_bytes_max = 0x3fffffff;

/// Little-endian view of a column for the hot loop, without bounds.
const Cells = struct {
    values: [*]const u8,
    offsets: [*]const i32,
    validity: ?[*]const u8,
    codec: *const Codec,
    view: *const arrow.ArrayView,

    fn init(view: *const arrow.ArrayView, codec: *const Codec) Cells {
        return .{
            .values = view.values.ptr,
            .offsets = view.offsets.ptr,
            .validity = if (view.null_count == 0) null else if (view.validity) |bitmap| bitmap.ptr else null,
            .codec = codec,
            .view = view,
        };
    }

    inline fn isNull(self: *const Cells, row: usize) bool {
        @setRuntimeSafety(false); // Hot: the reader checked that the bitmap covers the rows.
        const bitmap = self.validity orelse return false;
        return bitmap[row / 8] >> @intCast(row % 8) & 1 == 0;
    }

    inline fn load(self: *const Cells, comptime T: type, row: usize) T {
        @setRuntimeSafety(false); // Hot: the reader checked that the buffer holds a value per row.
        return @as([*]align(1) const T, @ptrCast(self.values))[row];
    }
};

const Lanes = @Vector(16, u8);

/// One store of `length` and then the `size` bytes of `value`, both big-endian.
inline fn putSwapped(out: [*]u8, comptime size: comptime_int, value: @Int(.unsigned, size * 8)) usize {
    @setRuntimeSafety(false); // Hot: the caller reserved the cell and `slack`.
    const lanes: Lanes = @bitCast(@Vector(2, u64){ value, 0 });
    const length: Lanes = [4]u8{ 0, 0, 0, size } ++ @as([12]u8, @splat(0));
    const order = comptime blk: {
        var mask: [16]i32 = @splat(15);
        for (0..4) |i| mask[i] = ~@as(i32, i);
        for (0..size) |i| mask[4 + i] = size - 1 - i;
        break :blk mask;
    };
    out[0..16].* = @as([16]u8, @shuffle(u8, lanes, length, order));
    return 4 + size;
}

inline fn putLength(out: [*]u8, length: u32) void {
    @setRuntimeSafety(false); // Hot: the caller reserved the cell.
    out[0..4].* = @bitCast(@byteSwap(length));
}

inline fn putNull(out: [*]u8) usize {
    putLength(out, std.math.maxInt(u32));
    return 4;
}

inline fn copy(out: [*]u8, in: [*]const u8, count: usize) void {
    @setRuntimeSafety(false); // Hot: the caller reserved `count + slack`, and `in` is followed by `slack` bytes.
    if (count > inline_copy_max) {
        @memcpy(out[0..count], in[0..count]);
        return;
    }
    var i: usize = 0;
    while (i < count) : (i += 16) out[i..][0..16].* = in[i..][0..16].*;
}

fn putInterval(out: [*]u8, in: arrow.MonthDayNano, codec: *const Codec) ValueError!usize {
    const to: values.Interval = if (std.meta.eql(in, values.interval_infinity))
        .infinity
    else if (std.meta.eql(in, values.interval_minus_infinity))
        .minus_infinity
    else blk: {
        const micros = @divTrunc(in.nanos, 1000);
        if (micros * 1000 != in.nanos) return error.SubMicrosecond;
        break :blk .{ .months = in.months, .days = in.days, .micros = micros };
    };
    if (!codec.infinite_intervals and (to.eql(.infinity) or to.eql(.minus_infinity))) return error.InfiniteInterval;
    std.mem.writeInt(u32, out[0..4], 16, .big);
    std.mem.writeInt(i64, out[4..12], to.micros, .big);
    std.mem.writeInt(i32, out[12..16], to.days, .big);
    std.mem.writeInt(i32, out[16..20], to.months, .big);
    return 20;
}

/// Writes one bounded, non-null cell with its length; returns the bytes written.
inline fn putBounded(out: [*]u8, cells: *const Cells, wire: Wire, row: usize) ValueError!usize {
    @setRuntimeSafety(false); // Hot: the caller reserved `4 + bound + slack`.
    switch (wire) {
        .bool => return putSwapped(out, 1, cells.values[row / 8] >> @intCast(row % 8) & 1),
        .bits16 => return putSwapped(out, 2, cells.load(u16, row)),
        .bits32 => return putSwapped(out, 4, cells.load(u32, row)),
        .bits64 => return putSwapped(out, 8, cells.load(u64, row)),
        .date => {
            const days = values.dateFromArrow(cells.load(i32, row)) orelse return error.OutOfRange;
            return putSwapped(out, 4, @bitCast(days));
        },
        .timestamp => {
            const micros = values.timestampFromArrow(cells.load(i64, row)) orelse return error.OutOfRange;
            return putSwapped(out, 8, @bitCast(micros));
        },
        .interval => return putInterval(out, cells.load(arrow.MonthDayNano, row), cells.codec),
        .bytes16 => {
            putLength(out, 16);
            out[4..20].* = cells.values[row * 16 ..][0..16].*;
            return 20;
        },
        inline .numeric128, .numeric256 => |tag| {
            const bits = if (tag == .numeric128) 128 else 256;
            const in: *const [bits / 8]u8 = cells.values[row * (bits / 8) ..][0 .. bits / 8];
            const length = numeric.put(bits, out + 4, in, cells.codec.scale);
            putLength(out, @intCast(length));
            return 4 + length;
        },
        .numeric_text, .bytes_fixed, .bytes, .jsonb, .array => unreachable,
    }
}

/// The bytes of an unbounded cell, and what goes in front of them.
const Span = struct { prefix: []const u8 = "", bytes: []const u8 };

inline fn spanOf(cells: *const Cells, wire: Wire, row: usize) Span {
    @setRuntimeSafety(false); // Hot: the reader checked that the offsets are monotone and inside the values.
    if (wire == .bytes_fixed) {
        const width = cells.codec.width;
        return .{ .bytes = cells.values[row * width ..][0..width] };
    }
    const start: usize = @intCast(cells.offsets[row]);
    const end: usize = @intCast(cells.offsets[row + 1]);
    return .{ .prefix = if (wire == .jsonb) &.{values.jsonb_version} else "", .bytes = cells.values[start..end] };
}

/// Encodes batches of one schema into a sink:
///
///     fn reserve(sink, count: usize) ![]u8    room for at least `count` bytes; sends the frame first when it is full
///     fn commit(sink, count: usize) void      the first `count` bytes of that room are written
///
/// A batch's values must be followed by `slack` readable bytes.
pub const Encoder = struct {
    gpa: Allocator,
    codecs: []const Codec,
    /// Room for a row without what text and the like take, in bytes; `slack` included.
    row_bytes_max: usize,
    /// One array or numeric value at a time.
    scratch: std.ArrayList(u8) = .empty,
    cells: []Cells,
    /// Where the last `ValueError` was.
    offender: struct { column: usize = 0, row: usize = 0 } = .{},

    pub fn init(gpa: Allocator, codecs: []const Codec) Allocator.Error!Encoder {
        var row_bytes_max: usize = 2 + slack;
        for (codecs) |codec| row_bytes_max += 4 + (codec.wire.bound() orelse 0);
        return .{
            .gpa = gpa,
            .codecs = codecs,
            .row_bytes_max = row_bytes_max,
            .cells = try gpa.alloc(Cells, codecs.len),
        };
    }

    pub fn deinit(self: *Encoder) void {
        self.scratch.deinit(self.gpa);
        self.gpa.free(self.cells);
        self.* = undefined;
    }

    /// Writes every row of the batch. The batch has the schema that the codecs were made for.
    pub fn encode(self: *Encoder, sink: anytype, batch: *const arrow.Batch) !void {
        return self.encodeRange(sink, batch, 0, batch.rows);
    }

    /// Writes the batch's rows from the one number up to before the other.
    pub fn encodeRange(self: *Encoder, sink: anytype, batch: *const arrow.Batch, from: usize, to: usize) !void {
        assert(batch.columns.len == self.codecs.len and from <= to and to <= batch.rows);
        for (self.cells, batch.columns, self.codecs) |*cells, *view, *codec| {
            assert(view.length == batch.rows);
            cells.* = .init(view, codec);
        }
        var window: Window(@TypeOf(sink)) = try .open(sink, self.row_bytes_max);
        for (from..to) |row| {
            if (window.free() < self.row_bytes_max) try window.renew();
            try self.encodeRow(&window, row);
        }
        window.close();
    }

    inline fn encodeRow(self: *Encoder, window: anytype, row: usize) !void {
        @setRuntimeSafety(false); // Hot: `window` holds `row_bytes_max`, restored after each unbounded cell.
        window.at[0..2].* = @bitCast(@byteSwap(@as(u16, @intCast(self.cells.len))));
        window.at += 2;
        for (self.cells, 0..) |*cells, column| {
            if (cells.isNull(row)) {
                window.at += putNull(window.at);
                continue;
            }
            switch (cells.codec.wire) {
                inline .bytes_fixed, .bytes, .jsonb => |wire| try window.put(spanOf(cells, wire, row)),
                .array => {
                    self.encodeArray(cells, row) catch |err| return self.blame(err, column, row);
                    try window.put(.{ .bytes = self.scratch.items });
                },
                .numeric_text => {
                    self.encodeNumber(cells, row) catch |err| return self.blame(err, column, row);
                    try window.put(.{ .bytes = self.scratch.items });
                },
                inline else => |wire| {
                    window.at += putBounded(window.at, cells, wire, row) catch |err|
                        return self.blame(err, column, row);
                },
            }
        }
    }

    fn blame(self: *Encoder, err: anytype, column: usize, row: usize) @TypeOf(err) {
        @branchHint(.cold);
        self.offender = .{ .column = column, .row = row };
        return err;
    }

    fn encodeNumber(self: *Encoder, cells: *const Cells, row: usize) (ValueError || Allocator.Error)!void {
        self.scratch.clearRetainingCapacity();
        try numeric.appendText(&self.scratch, self.gpa, spanOf(cells, .bytes, row).bytes) orelse return error.NotANumber;
        try self.scratch.ensureUnusedCapacity(self.gpa, slack);
    }

    /// One list as PostgreSQL's binary array, in `self.scratch`, followed by `slack` bytes of capacity:
    ///
    ///     i32 dimensions (0 when empty, else 1) | i32 has nulls | u32 element type | i32 count | i32 lower bound 1
    ///     then per element: i32 length | bytes        (src/backend/utils/adt/arrayfuncs.c, `array_send`)
    fn encodeArray(self: *Encoder, cells: *const Cells, row: usize) (ValueError || Allocator.Error)!void {
        const codec = cells.codec;
        const element = codec.element.?;
        const items: Cells = .init(cells.view.child.?, element);
        const start: usize = @intCast(cells.offsets[row]);
        const end: usize = @intCast(cells.offsets[row + 1]);
        const out = &self.scratch;
        out.clearRetainingCapacity();
        try out.ensureTotalCapacity(self.gpa, 20 + (end - start) * 4 + slack);

        var has_nulls = false;
        for (start..end) |i| has_nulls = has_nulls or items.isNull(i);
        const words = [5]u32{ @intFromBool(end > start), @intFromBool(has_nulls), codec.element_oid, @intCast(end - start), 1 };
        for (words[0..if (end > start) 5 else 3]) |word| {
            out.appendSliceAssumeCapacity(&@as([4]u8, @bitCast(@byteSwap(word))));
        }
        for (start..end) |i| {
            if (items.isNull(i)) {
                try out.appendSlice(self.gpa, "\xff\xff\xff\xff");
                continue;
            }
            switch (element.wire) {
                .array, .numeric_text => unreachable, // `Codec`s of such elements are never made.
                inline .bytes_fixed, .bytes, .jsonb => |wire| {
                    const span = spanOf(&items, wire, i);
                    const length = span.prefix.len + span.bytes.len;
                    try out.ensureUnusedCapacity(self.gpa, 4 + length);
                    out.appendSliceAssumeCapacity(&@as([4]u8, @bitCast(@byteSwap(@as(u32, @intCast(length))))));
                    out.appendSliceAssumeCapacity(span.prefix);
                    out.appendSliceAssumeCapacity(span.bytes);
                },
                inline else => |wire| {
                    try out.ensureUnusedCapacity(self.gpa, 4 + wire.bound().? + slack);
                    out.items.len += try putBounded(out.items.ptr + out.items.len, &items, wire, i);
                },
            }
        }
        if (out.items.len > value_bytes_max) return error.TooLong;
        try out.ensureUnusedCapacity(self.gpa, slack);
    }
};

/// The part of the frame that is being filled.
fn Window(comptime Sink: type) type {
    return struct {
        const Self = @This();

        sink: Sink,
        row_bytes_max: usize,
        begin: [*]u8,
        at: [*]u8,
        end: [*]u8,

        fn open(sink: Sink, row_bytes_max: usize) !Self {
            const room = try sink.reserve(row_bytes_max);
            return .{
                .sink = sink,
                .row_bytes_max = row_bytes_max,
                .begin = room.ptr,
                .at = room.ptr,
                .end = room.ptr + room.len,
            };
        }

        fn close(self: *Self) void {
            self.sink.commit(self.at - self.begin);
            self.begin = self.at;
        }

        inline fn free(self: *const Self) usize {
            return self.end - self.at;
        }

        noinline fn renew(self: *Self) !void {
            self.close();
            self.* = try open(self.sink, self.row_bytes_max);
        }

        /// An unbounded cell. Afterwards there is room for the rest of the row again.
        inline fn put(self: *Self, span: Span) !void {
            @setRuntimeSafety(false); // Hot: the branch below is the bounds check.
            const length = span.prefix.len + span.bytes.len;
            putLength(self.at, @intCast(length));
            self.at += 4;
            if (self.free() < length + self.row_bytes_max) return self.putAcrossFrames(span);
            if (span.prefix.len == 1) self.at[0] = span.prefix[0];
            copy(self.at + span.prefix.len, span.bytes.ptr, span.bytes.len);
            self.at += length;
        }

        noinline fn putAcrossFrames(self: *Self, span: Span) !void {
            for ([2][]const u8{ span.prefix, span.bytes }) |part| {
                var rest = part;
                while (rest.len > 0) {
                    if (self.free() == 0) try self.renew();
                    const piece = rest[0..@min(rest.len, self.free())];
                    @memcpy(self.at[0..piece.len], piece);
                    self.at += piece.len;
                    rest = rest[piece.len..];
                }
            }
            if (self.free() < self.row_bytes_max) try self.renew();
        }
    };
}

test {
    _ = @import("encode_test.zig");
}
