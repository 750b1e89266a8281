//! One row of binary COPY as the fields that lie in it.

const std = @import("std");
const Passed = @import("passed.zig").Passed;

const XxHash64 = std.hash.XxHash64;

pub const Row = union(enum) {
    /// As it came.
    whole: []const u8,
    /// It was too large to be kept: what was remembered of it as it went by.
    passed: *const Passed,

    /// Fills `fields` with the row's first ones, NULL as null. Malformed: the row ends before them. Of a row that went by
    /// only those are told that were to be remembered.
    pub inline fn split(self: Row, fields: []?[]const u8) error{Malformed}!void {
        return switch (self) {
            .whole => |bytes| splitBytes(bytes, fields),
            .passed => |passed| @memcpy(fields, passed.fields[0..fields.len]),
        };
    }

    /// Of all that `split` splits, without the number of fields in front.
    pub fn hash(self: Row) u64 {
        return switch (self) {
            .whole => |bytes| XxHash64.hash(0, bytes[2..]),
            .passed => |passed| passed.hash,
        };
    }

    pub fn length(self: Row) usize {
        return switch (self) {
            .whole => |bytes| bytes.len,
            .passed => |passed| passed.length,
        };
    }
};

fn splitBytes(row: []const u8, fields: []?[]const u8) error{Malformed}!void {
    if (row.len < 2) return error.Malformed;
    var at: usize = 2;
    for (fields) |*field| {
        if (row.len - at < 4) return error.Malformed;
        const length: usize = std.mem.readInt(u32, row[at..][0..4], .big);
        at += 4;
        if (length == std.math.maxInt(u32)) {
            field.* = null;
            continue;
        }
        if (length > row.len - at) return error.Malformed;
        field.* = row[at..][0..length];
        at += length;
    }
}

test "a row's fields are told from NULL, and from what is cut" {
    const bytes = "\x00\x03\x00\x00\x00\x02ab\xff\xff\xff\xff\x00\x00\x00\x00";
    const row: Row = .{ .whole = bytes };
    var fields: [3]?[]const u8 = undefined;
    try row.split(&fields);
    try std.testing.expectEqualStrings("ab", fields[0].?);
    try std.testing.expectEqual(null, fields[1]);
    try std.testing.expectEqualStrings("", fields[2].?);
    for (0..bytes.len) |length|
        try std.testing.expectError(error.Malformed, (Row{ .whole = bytes[0..length] }).split(&fields));
}
