//! Numbers as text for a cursor: each as a little-endian base-128 number (7 bits a byte, the top bit says that more
//! follow), all of them as base64 without padding.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;
const codec = std.base64.standard_no_pad;

pub const Writer = struct {
    gpa: Allocator,
    bytes: std.ArrayList(u8) = .empty,

    pub fn deinit(self: *Writer) void {
        self.bytes.deinit(self.gpa);
    }

    pub fn number(self: *Writer, value: u64) Allocator.Error!void {
        var rest = value;
        while (rest >= 0x80) : (rest >>= 7) try self.bytes.append(self.gpa, @as(u8, @truncate(rest)) | 0x80);
        try self.bytes.append(self.gpa, @truncate(rest));
    }

    pub fn text(self: *const Writer, arena: Allocator) Allocator.Error![]const u8 {
        const out = try arena.alloc(u8, codec.Encoder.calcSize(self.bytes.items.len));
        return codec.Encoder.encode(out, self.bytes.items);
    }
};

pub const Reader = struct {
    rest: []const u8,

    pub const Error = error{Malformed};

    pub fn of(arena: Allocator, encoded: []const u8) (Error || Allocator.Error)!Reader {
        const bytes = try arena.alloc(u8, codec.Decoder.calcSizeForSlice(encoded) catch return error.Malformed);
        codec.Decoder.decode(bytes, encoded) catch return error.Malformed;
        return .{ .rest = bytes };
    }

    pub fn done(self: *const Reader) bool {
        return self.rest.len == 0;
    }

    pub fn number(self: *Reader) Error!u64 {
        var value: u64 = 0;
        var shift: u32 = 0;
        while (self.rest.len > 0) : (shift += 7) {
            const byte = self.rest[0];
            self.rest = self.rest[1..];
            const bits: u64 = byte & 0x7f;
            if (shift > 63 or (shift == 63 and bits > 1)) return error.Malformed;
            value |= bits << @intCast(shift);
            if (byte < 0x80) return value;
        }
        return error.Malformed;
    }
};

/// Characters of the text that `bytes` bytes become.
pub fn textLength(bytes: usize) usize {
    return codec.Encoder.calcSize(bytes);
}

test "numbers come back as they went" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var writer: Writer = .{ .gpa = gpa };
    defer writer.deinit();
    const numbers = [_]u64{ 0, 1, 127, 128, 1 << 32, std.math.maxInt(u64) };
    for (numbers) |value| try writer.number(value);
    var reader: Reader = try .of(arena.allocator(), try writer.text(arena.allocator()));
    for (numbers) |value| try std.testing.expectEqual(value, try reader.number());
    try std.testing.expect(reader.done());
    try std.testing.expectError(error.Malformed, reader.number());
}

test "any text is numbers or an error" {
    try sdk.fuzz.bytes(fuzzReader, &.{ "AQIDBAUG", "gICAgICAgICAAQ", "////" });
}

fn fuzzReader(text: []const u8) anyerror!void {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var reader = Reader.of(arena.allocator(), text) catch |err| return if (err == error.Malformed) {} else err;
    while (!reader.done()) _ = reader.number() catch return;
}
