//! Golden bytes of the encoder. The SQL that made them stands beside each: `SELECT encode(TYPE_send(V), 'hex')`, or
//! `COPY (SELECT …) TO STDOUT (FORMAT binary)`. golden.sql makes them all again.

const std = @import("std");
const arrow = @import("sdk").arrow;
const values = @import("postgres").values;
const encode = @import("encode.zig");

const testing = std.testing;
const Codec = encode.Codec;

/// Collects what is written, in frames of a given size.
const Frames = struct {
    frame: []u8,
    used: usize = 0,
    out: std.ArrayList(u8) = .empty,

    fn init(bytes: usize) !Frames {
        return .{ .frame = try testing.allocator.alloc(u8, bytes) };
    }

    fn deinit(self: *Frames) void {
        testing.allocator.free(self.frame);
        self.out.deinit(testing.allocator);
    }

    pub fn reserve(self: *Frames, count: usize) ![]u8 {
        if (self.frame.len - self.used < count) try self.flush();
        try testing.expect(self.frame.len >= count);
        return self.frame[self.used..];
    }

    pub fn commit(self: *Frames, count: usize) void {
        self.used += count;
        std.debug.assert(self.used <= self.frame.len);
    }

    fn flush(self: *Frames) !void {
        try self.out.appendSlice(testing.allocator, self.frame[0..self.used]);
        @memset(self.frame, 0xaa);
        self.used = 0;
    }
};

/// A value's bytes with `slack` readable behind them.
fn padded(comptime bytes: []const u8) []const u8 {
    return (bytes ++ @as([encode.slack]u8, @splat(0)))[0..bytes.len];
}

fn column(column_type: arrow.Type, length: usize, data: []const u8) arrow.ArrayView {
    return .{
        .type = column_type,
        .length = length,
        .null_count = 0,
        .validity = null,
        .offsets = &.{},
        .values = data,
        .child = null,
    };
}

fn ints(comptime T: type, comptime items: []const T) []const u8 {
    return padded(std.mem.sliceAsBytes(items));
}

fn expectCell(expected_hex: []const u8, codec: Codec, view: arrow.ArrayView) !void {
    var frames: Frames = try .init(1024);
    defer frames.deinit();
    const codecs = [_]Codec{codec};
    var encoder: encode.Encoder = try .init(testing.allocator, &codecs);
    defer encoder.deinit();
    var columns = [_]arrow.ArrayView{view};
    try encoder.encode(&frames, &.{ .rows = 1, .columns = &columns });
    try frames.flush();
    var buffer: [256]u8 = undefined;
    const expected = try std.fmt.hexToBytes(&buffer, expected_hex);
    const out = frames.out.items;
    try testing.expectEqual(1, std.mem.readInt(u16, out[0..2], .big));
    try testing.expectEqual(expected.len, std.mem.readInt(u32, out[2..6], .big));
    try testing.expectEqualSlices(u8, expected, out[6..]);
}

test "dates and times become what the server sends" {
    const ts: arrow.Type = .{ .timestamp = .{ .utc = false } };
    // date_send('2024-02-29'), date_send('infinity')
    try expectCell("00002279", .{ .wire = .date }, column(.date32, 1, ints(i32, &.{19782})));
    try expectCell("7fffffff", .{ .wire = .date }, column(.date32, 1, ints(i32, &.{values.date_infinity})));
    // timestamp_send('2024-02-29 12:34:56.789012'), timestamp_send('-infinity')
    try expectCell("0002b58341728614", .{ .wire = .timestamp }, column(ts, 1, ints(i64, &.{1709210096789012})));
    try expectCell("8000000000000000", .{ .wire = .timestamp }, column(ts, 1, ints(i64, &.{std.math.minInt(i64)})));
    // timestamptz_send('294276-12-31 23:59:59.999999+00'): beyond i64 when counted from 1970, so it wrapped
    const last: i64 = 0x7fffff5bb3b29fff +% values.epoch_micros;
    try expectCell("7fffff5bb3b29fff", .{ .wire = .timestamp }, column(ts, 1, ints(i64, &.{last})));
    // time_send('24:00:00')
    try expectCell("000000141dd76000", .{ .wire = .bits64 }, column(.time64, 1, ints(i64, &.{86_400_000_000})));
}

test "intervals become what the server sends" {
    const Interval = arrow.MonthDayNano;
    const codec: Codec = .{ .wire = .interval };
    // interval_send('1 year 2 mons -3 days 04:05:06.000007')
    const some: Interval = .{ .months = 14, .days = -3, .nanos = 14_706_000_007_000 };
    try expectCell(
        "000000036c8bc087fffffffd0000000e",
        codec,
        column(.interval_month_day_nano, 1, ints(Interval, &.{some})),
    );
    // interval_send('infinity')
    const endless: Interval = .{
        .months = std.math.maxInt(i32),
        .days = std.math.maxInt(i32),
        .nanos = std.math.maxInt(i64),
    };
    const view = column(.interval_month_day_nano, 1, ints(Interval, &.{endless}));
    try expectCell("7fffffffffffffff7fffffff7fffffff", codec, view);
    const old_server: Codec = .{ .wire = .interval, .infinite_intervals = false };
    try testing.expectError(error.InfiniteInterval, expectCell("", old_server, view));
    const fine: Interval = .{ .months = 0, .days = 0, .nanos = 1 };
    try testing.expectError(
        error.SubMicrosecond,
        expectCell("", codec, column(.interval_month_day_nano, 1, ints(Interval, &.{fine}))),
    );
}

test "a finite date or timestamp that would read as infinity is refused" {
    const ts: arrow.Type = .{ .timestamp = .{ .utc = true } };
    const day = column(.date32, 1, ints(i32, &.{std.math.minInt(i32) + values.epoch_days}));
    try testing.expectError(error.OutOfRange, expectCell("", .{ .wire = .date }, day));
    const collision: i64 = values.timestamp_infinity +% values.epoch_micros;
    const instant = column(ts, 1, ints(i64, &.{collision}));
    try testing.expectError(error.OutOfRange, expectCell("", .{ .wire = .timestamp }, instant));
}

test "text and binary keep their bytes, jsonb gets its version" {
    var view = column(.utf8, 1, padded("xx[1]"));
    view.offsets = &.{ 2, 5 };
    try expectCell("5b315d", .{ .wire = .bytes }, view);
    // jsonb_send('[1]')
    try expectCell("015b315d", .{ .wire = .jsonb }, view);
    // uuid_send('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')
    const uuid = "\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11";
    const hex = "a0eebc999c0b4ef8bb6d6bb9bd380a11";
    try expectCell(hex, .{ .wire = .bytes16 }, column(.{ .fixed_size_binary = 16 }, 1, padded(uuid)));
    try expectCell("616263", .{ .wire = .bytes_fixed, .width = 3 }, column(.{ .fixed_size_binary = 3 }, 1, padded("abc")));
    try expectCell("", .{ .wire = .bytes_fixed, .width = 0 }, column(.{ .fixed_size_binary = 0 }, 1, padded("")));
}

const List = struct {
    field: arrow.Field,
    child: arrow.ArrayView,

    fn view(self: *List, offsets: []const i32) arrow.ArrayView {
        var result = column(.{ .list = &self.field }, offsets.len - 1, "");
        result.offsets = offsets;
        result.child = &self.child;
        return result;
    }
};

test "lists become one-dimensional arrays" {
    const int4: Codec = .{ .wire = .bits32 };
    const int4s: Codec = .{ .wire = .array, .element = &int4, .element_oid = 23 };
    var list: List = .{
        .field = .{ .name = "item", .type = .int32 },
        .child = column(.int32, 4, ints(i32, &.{ 99, 1, 0, -2 })),
    };
    list.child.null_count = 1;
    list.child.validity = &.{0b1011};
    // array_send('{1,NULL,-2}'::int4[]), array_send('{}'::int4[])
    try expectCell(
        "00000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffe",
        int4s,
        list.view(&.{ 1, 4 }),
    );
    try expectCell("000000000000000000000017", int4s, list.view(&.{ 1, 1 }));

    const text: Codec = .{ .wire = .bytes };
    var words: List = .{ .field = .{ .name = "item", .type = .utf8 }, .child = column(.utf8, 3, padded("a")) };
    words.child.offsets = &.{ 0, 1, 1, 1 };
    words.child.null_count = 1;
    words.child.validity = &.{0b101};
    // array_send('{a,NULL,""}'::text[])
    try expectCell(
        "00000001000000010000001900000003000000010000000161ffffffff00000000",
        .{ .wire = .array, .element = &text, .element_oid = 25 },
        words.view(&.{ 0, 3 }),
    );

    const decimal: Codec = .{ .wire = .numeric128, .scale = .init(4) };
    var amounts: List = .{
        .field = .{ .name = "item", .type = .{ .decimal128 = .{ .precision = 12, .scale = 4 } } },
        .child = column(.{ .decimal128 = .{ .precision = 12, .scale = 4 } }, 2, ints(i128, &.{ 15000, 0 })),
    };
    amounts.child.null_count = 1;
    amounts.child.validity = &.{0b01};
    // array_send('{1.50,NULL}'::numeric(12,4)[])
    try expectCell(
        "0000000100000001000006a400000002000000010000000c000200000000000400011388ffffffff",
        .{ .wire = .array, .element = &decimal, .element_oid = 1700 },
        amounts.view(&.{ 0, 2 }),
    );

    const flag: Codec = .{ .wire = .bool };
    var flags: List = .{ .field = .{ .name = "item", .type = .bool }, .child = column(.bool, 2, padded("\x01")) };
    // array_send('{t,f}'::bool[])
    try expectCell(
        "000000010000000000000010000000020000000100000001010000000100",
        .{ .wire = .array, .element = &flag, .element_oid = 16 },
        flags.view(&.{ 0, 2 }),
    );

    const document: Codec = .{ .wire = .jsonb };
    var documents: List = .{ .field = .{ .name = "item", .type = .utf8 }, .child = column(.utf8, 1, padded("{\"a\": 1}")) };
    documents.child.offsets = &.{ 0, 8 };
    // array_send(ARRAY['{"a": 1}'::jsonb])
    try expectCell(
        "000000010000000000000eda000000010000000100000009017b2261223a20317d",
        .{ .wire = .array, .element = &document, .element_oid = 3802 },
        documents.view(&.{ 0, 1 }),
    );
}

// COPY (SELECT true, (-2)::int2, 7::int8, 1.5::float8, 'abc'::text, NULL::int4, '{1,NULL,-2}'::int4[]) TO STDOUT (FORMAT binary)
const golden_row = "5047434f50590aff0d0a00" ++ "00000000" ++ "00000000" ++ "0007" ++ "0000000101" ++ "00000002fffe" ++
    "000000080000000000000007" ++ "000000083ff8000000000000" ++ "00000003616263" ++ "ffffffff" ++
    "0000002800000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffe" ++ "ffff";

test "a row is what COPY writes" {
    const int4: Codec = .{ .wire = .bits32 };
    const codecs = [_]Codec{
        .{ .wire = .bool },
        .{ .wire = .bits16 },
        .{ .wire = .bits64 },
        .{ .wire = .bits64 },
        .{ .wire = .bytes },
        .{ .wire = .bits32 },
        .{ .wire = .array, .element = &int4, .element_oid = 23 },
    };
    var list: List = .{
        .field = .{ .name = "item", .type = .int32 },
        .child = column(.int32, 3, ints(i32, &.{ 1, 0, -2 })),
    };
    list.child.null_count = 1;
    list.child.validity = &.{0b101};
    var columns = [_]arrow.ArrayView{
        column(.bool, 1, padded("\x01")),
        column(.int16, 1, ints(i16, &.{-2})),
        column(.int64, 1, ints(i64, &.{7})),
        column(.float64, 1, ints(f64, &.{1.5})),
        column(.utf8, 1, padded("abc")),
        column(.int32, 1, ints(i32, &.{0})),
        list.view(&.{ 0, 3 }),
    };
    columns[4].offsets = &.{ 0, 3 };
    columns[5].null_count = 1;
    columns[5].validity = &.{0};

    var frames: Frames = try .init(4096);
    defer frames.deinit();
    var encoder: encode.Encoder = try .init(testing.allocator, &codecs);
    defer encoder.deinit();
    try frames.out.appendSlice(testing.allocator, encode.header);
    try encoder.encode(&frames, &.{ .rows = 1, .columns = &columns });
    try frames.flush();
    try frames.out.appendSlice(testing.allocator, encode.trailer);
    var expected: [golden_row.len / 2]u8 = undefined;
    _ = try std.fmt.hexToBytes(&expected, golden_row);
    try testing.expectEqualSlices(u8, &expected, frames.out.items);
}

test "rows come out the same whatever the frame's size" {
    const gpa = testing.allocator;
    const rows = 200;
    var prng = std.Random.DefaultPrng.init(testing.random_seed);
    const random = prng.random();
    var bytes: std.ArrayList(u8) = .empty;
    defer bytes.deinit(gpa);
    var offsets: [rows + 1]i32 = undefined;
    offsets[0] = 0;
    var numbers: [rows]i64 = undefined;
    for (0..rows) |i| {
        const length = if (i % 50 == 49) 3000 else random.uintAtMost(usize, 300);
        for (0..length) |_| try bytes.append(gpa, random.int(u8));
        offsets[i + 1] = @intCast(bytes.items.len);
        numbers[i] = random.int(i64);
    }
    try bytes.appendNTimes(gpa, 0, encode.slack);
    var columns = [_]arrow.ArrayView{
        column(.int64, rows, std.mem.sliceAsBytes(&numbers)),
        column(.binary, rows, bytes.items),
        column(.int64, rows, std.mem.sliceAsBytes(&numbers)),
    };
    columns[1].offsets = &offsets;
    const codecs = [_]Codec{ .{ .wire = .bits64 }, .{ .wire = .jsonb }, .{ .wire = .bits64 } };

    var expected: std.ArrayList(u8) = .empty;
    defer expected.deinit(gpa);
    for (0..rows) |i| {
        const value = bytes.items[@intCast(offsets[i])..@intCast(offsets[i + 1])];
        const number: [8]u8 = @bitCast(@byteSwap(numbers[i]));
        try expected.appendSlice(gpa, "\x00\x03" ++ "\x00\x00\x00\x08");
        try expected.appendSlice(gpa, &number);
        try expected.appendSlice(gpa, &@as([4]u8, @bitCast(@byteSwap(@as(u32, @intCast(value.len + 1))))));
        try expected.append(gpa, 1);
        try expected.appendSlice(gpa, value);
        try expected.appendSlice(gpa, "\x00\x00\x00\x08");
        try expected.appendSlice(gpa, &number);
    }
    for ([_]usize{ 64, 65, 100, 333, 1024, 1 << 20 }) |frame_bytes| {
        var frames: Frames = try .init(frame_bytes);
        defer frames.deinit();
        var encoder: encode.Encoder = try .init(gpa, &codecs);
        defer encoder.deinit();
        try encoder.encode(&frames, &.{ .rows = rows, .columns = &columns });
        try frames.flush();
        try testing.expectEqualSlices(u8, expected.items, frames.out.items);
    }
}
