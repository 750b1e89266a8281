//! Names and literals inside SQL. Everything that came from outside goes through here or through a parameter.

const std = @import("std");

/// What PostgreSQL keeps of a name (NAMEDATALEN - 1).
pub const name_bytes_max = 63;

/// `"na""me"`. Owned by `gpa` (an arena, as a rule).
pub fn quote(gpa: std.mem.Allocator, name: []const u8) error{OutOfMemory}![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    errdefer out.deinit(gpa);
    try append(&out, gpa, name);
    return out.toOwnedSlice(gpa);
}

/// `"schema"."name"`.
pub fn qualified(gpa: std.mem.Allocator, schema: []const u8, name: []const u8) error{OutOfMemory}![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    errdefer out.deinit(gpa);
    try append(&out, gpa, schema);
    try out.append(gpa, '.');
    try append(&out, gpa, name);
    return out.toOwnedSlice(gpa);
}

/// `"a", "b"`.
pub fn list(gpa: std.mem.Allocator, names: []const []const u8) error{OutOfMemory}![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    errdefer out.deinit(gpa);
    for (names, 0..) |name, i| {
        if (i > 0) try out.appendSlice(gpa, ", ");
        try append(&out, gpa, name);
    }
    return out.toOwnedSlice(gpa);
}

/// Appends the quoted name to SQL that is being built.
pub fn append(out: *std.ArrayList(u8), gpa: std.mem.Allocator, name: []const u8) error{OutOfMemory}!void {
    try out.append(gpa, '"');
    for (name) |byte| {
        if (byte == '"') try out.append(gpa, '"');
        try out.append(gpa, byte);
    }
    try out.append(gpa, '"');
}

/// `'it''s'`, or `E'…'` when there is a backslash: right whatever standard_conforming_strings says.
pub fn literal(gpa: std.mem.Allocator, text: []const u8) error{OutOfMemory}![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    errdefer out.deinit(gpa);
    if (std.mem.findScalar(u8, text, '\\') != null) try out.append(gpa, 'E');
    try out.append(gpa, '\'');
    for (text) |byte| {
        if (byte == '\'' or byte == '\\') try out.append(gpa, byte);
        try out.append(gpa, byte);
    }
    try out.append(gpa, '\'');
    return out.toOwnedSlice(gpa);
}

test "quotes are doubled in names and literals" {
    const gpa = std.testing.allocator;
    const cases = .{
        .{ quote, "users", "\"users\"" },
        .{ quote, "we\"ird", "\"we\"\"ird\"" },
        .{ quote, "", "\"\"" },
        .{ literal, "it's", "'it''s'" },
        .{ literal, "a\\b'c", "E'a\\\\b''c'" },
    };
    inline for (cases) |case| {
        const text = try case[0](gpa, case[1]);
        defer gpa.free(text);
        try std.testing.expectEqualStrings(case[2], text);
    }
    const both = try qualified(gpa, "a b", "c\"d");
    defer gpa.free(both);
    try std.testing.expectEqualStrings("\"a b\".\"c\"\"d\"", both);
}
