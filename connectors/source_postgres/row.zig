//! One row of binary COPY as the fields that lie in it.

const std = @import("std");

/// Fills `fields` with the row's first ones, NULL as null. Malformed: the row ends before them.
pub fn split(row: []const u8, fields: []?[]const u8) error{Malformed}!void {
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

/// What `split` splits, without the number of fields in front.
pub fn body(row: []const u8) []const u8 {
    return row[2..];
}

test "a row's fields are told from NULL, and from what is cut" {
    const row = "\x00\x03\x00\x00\x00\x02ab\xff\xff\xff\xff\x00\x00\x00\x00";
    var fields: [3]?[]const u8 = undefined;
    try split(row, &fields);
    try std.testing.expectEqualStrings("ab", fields[0].?);
    try std.testing.expectEqual(null, fields[1]);
    try std.testing.expectEqualStrings("", fields[2].?);
    for (0..row.len) |length| try std.testing.expectError(error.Malformed, split(row[0..length], &fields));
}
