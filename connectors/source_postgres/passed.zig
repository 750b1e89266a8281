//! A row that there is no memory for, as it goes by: what tells it from others is kept of it, and it is gone.

const std = @import("std");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const RowDecoder = postgres.decode.RowDecoder;
const XxHash64 = std.hash.XxHash64;

/// Bytes of a field that is kept, at most: keys and cursors are short.
const field_bytes_max = 64 * 1024;

pub const Passed = struct {
    /// Bytes of the row.
    length: usize,
    /// The wanted ones; null for NULL, for those that nobody wanted, and for one that is too large.
    fields: []const ?[]const u8,
    /// As `Row.hash` has it.
    hash: u64,
    /// A field that was wanted and is too large to be kept.
    too_large: ?usize,

    /// `Malformed`: no row as the decoder knows them; its `fault` tells.
    pub const Error = postgres.Connection.Error || error{Malformed};

    /// Reads all of `large`. `wanted` has a place for each of the row's fields.
    pub fn read(arena: Allocator, large: postgres.copy.Large, decoder: *RowDecoder, wanted: []const bool) Error!Passed {
        var reader: Reader = .{ .large = large };
        if (!decoder.started) {
            var header: [postgres.copy.header.len]u8 = undefined;
            try reader.take(decoder, &header);
            decoder.start(&header) catch return error.Malformed;
        }
        const length = reader.large.left;
        if (try reader.int(u16, decoder) != wanted.len) return malformed(decoder, length);
        reader.state = .init(0);
        const fields = try arena.alloc(?[]const u8, wanted.len);
        @memset(fields, null);
        var too_large: ?usize = null;
        for (fields, wanted, 0..) |*field, is_wanted, i| {
            const field_length = try reader.int(u32, decoder);
            if (field_length == std.math.maxInt(u32)) continue;
            if (field_length > reader.large.left) return malformed(decoder, length);
            if (is_wanted and field_length <= field_bytes_max) {
                const kept = try arena.alloc(u8, field_length);
                try reader.take(decoder, kept);
                field.* = kept;
                continue;
            }
            if (is_wanted and too_large == null) too_large = i;
            try reader.skip(field_length);
        }
        if (reader.large.left > 0) return malformed(decoder, length);
        return .{ .length = length, .fields = fields, .hash = reader.state.final(), .too_large = too_large };
    }

    fn malformed(decoder: *RowDecoder, length: usize) error{Malformed} {
        decoder.fault = .{ .length = length, .reason = "a large row is not one" };
        return error.Malformed;
    }
};

const Reader = struct {
    large: postgres.copy.Large,
    state: XxHash64 = .init(0),

    fn int(self: *Reader, comptime T: type, decoder: *RowDecoder) Passed.Error!T {
        var bytes: [@sizeOf(T)]u8 = undefined;
        try self.take(decoder, &bytes);
        return std.mem.readInt(T, &bytes, .big);
    }

    fn take(self: *Reader, decoder: *RowDecoder, into: []u8) Passed.Error!void {
        if (into.len > self.large.left) return Passed.malformed(decoder, self.large.left);
        var filled: usize = 0;
        while (filled < into.len) {
            const piece = try self.next(into.len - filled);
            @memcpy(into[filled..][0..piece.len], piece);
            filled += piece.len;
        }
    }

    fn skip(self: *Reader, count: usize) Passed.Error!void {
        var left = count;
        while (left > 0) left -= (try self.next(left)).len;
    }

    fn next(self: *Reader, max: usize) Passed.Error![]const u8 {
        const piece = try self.large.next(max);
        self.state.update(piece);
        return piece;
    }
};
