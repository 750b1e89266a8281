//! Rows as dead letters, in the JSON that the host takes them in.
//!
//! A text that is not UTF-8 cannot be told as text: it is told as what it is, bytes, and its column's type is `bytea`
//! in this letter.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Reason = @import("aside.zig").Reason;
const Row = @import("row.zig").Row;

const Allocator = std.mem.Allocator;
const Column = postgres.decode.Column;
const json = sdk.json;

/// A row that the source left out, as a letter of `sdk.Letters`.
pub const Letter = struct {
    gpa: Allocator,
    columns: []const Column,
    /// Null where the letter cannot hold it.
    row: ?[]const u8,
    reason: *const Reason,
    /// Tells which row it is, where it is not held.
    name: []const u8,

    pub fn init(gpa: Allocator, columns: []const Column, row: []const u8, reason: *const Reason) Letter {
        return .{ .gpa = gpa, .columns = columns, .row = row, .reason = reason, .name = "" };
    }

    /// Of a row that cannot be held.
    pub fn named(gpa: Allocator, columns: []const Column, name: []const u8, reason: *const Reason) Letter {
        return .{ .gpa = gpa, .columns = columns, .row = null, .reason = reason, .name = name };
    }

    pub fn write(self: *const Letter, letter: *json.Stringify) !void {
        const fields = try self.gpa.alloc(?[]const u8, self.columns.len);
        defer self.gpa.free(fields);
        if (self.row) |bytes| try (Row{ .whole = bytes }).split(fields);
        try letter.beginObject();
        try letter.objectField("record");
        if (self.row != null) try self.writeRecord(letter, fields) else try letter.write(null);
        try letter.objectField("types");
        try letter.beginObject();
        for (self.columns, fields) |*column, field| {
            try letter.objectField(column.name);
            if (self.row != null and isBytes(column, field))
                try letter.write(if (column.element_oid == null) "bytea" else "bytea[]")
            else
                try letter.write(column.type_name);
        }
        try letter.endObject();
        try letter.objectField("message");
        const message = try std.mem.concat(self.gpa, u8, &.{ self.reason.message, self.name });
        defer self.gpa.free(message);
        try letter.write(json.Text{ .bytes = message });
        try letter.objectField("category");
        try letter.write(@tagName(self.reason.category));
        try letter.objectField("sqlstate");
        try letter.write(self.reason.sqlstate);
        try letter.objectField("column");
        try letter.write(if (self.reason.column) |place| self.columns[place].name else null);
        try letter.endObject();
    }

    fn writeRecord(self: *const Letter, letter: *json.Stringify, fields: []const ?[]const u8) !void {
        var text: std.ArrayList(u8) = .empty;
        defer text.deinit(self.gpa);
        try letter.beginObject();
        for (self.columns, fields) |*column, field| {
            try letter.objectField(column.name);
            const bytes = field orelse {
                try letter.write(null);
                continue;
            };
            text.clearRetainingCapacity();
            if (column.element_oid == null) switch (column.kind) {
                .bool => {
                    try letter.write(bytes.len == 1 and bytes[0] == 1);
                    continue;
                },
                .int2, .int4, .int8 => {
                    try letter.write(try postgres.canonical.integer(bytes));
                    continue;
                },
                .bytea => {
                    try writeHex(letter, bytes);
                    continue;
                },
                .text, .json => {
                    if (isBytes(column, field)) try writeHex(letter, bytes) else try letter.write(bytes);
                    continue;
                },
                .jsonb => if (isBytes(column, field)) {
                    try writeHex(letter, bytes[@min(1, bytes.len)..]);
                    continue;
                },
                else => {},
            };
            if (column.element_oid != null and isBytes(column, field))
                try postgres.printed.appendAsBytes(&text, self.gpa, column, bytes)
            else
                try postgres.printed.append(&text, self.gpa, column, bytes);
            try letter.write(text.items);
        }
        try letter.endObject();
    }

    fn writeHex(letter: *json.Stringify, bytes: []const u8) json.Stringify.Error!void {
        try letter.beginWriteRaw();
        try letter.writer.print("\"\\\\x{x}\"", .{bytes});
        letter.endWriteRaw();
    }
};

/// Whether the field is text by its type and not by its bytes.
fn isBytes(column: *const Column, field: ?[]const u8) bool {
    if (!column.kind.isText()) return false;
    const bytes = field orelse return false;
    return postgres.decode.wrongText(column, bytes) != null;
}

fn expectLetter(expected: []const u8, row: ?[]const u8, name: []const u8) !void {
    const gpa = std.testing.allocator;
    const reason: Reason = .{
        .category = .invalid_text,
        .column = 1,
        .sqlstate = "22021",
        .message = "no text",
        .hint = "",
    };
    const letter: Letter = if (row) |bytes| .init(gpa, &sample_columns, bytes, &reason) else .named(gpa, &sample_columns, name, &reason);
    var text: std.Io.Writer.Allocating = .init(gpa);
    defer text.deinit();
    var stringify: json.Stringify = .{ .writer = &text.writer };
    try letter.write(&stringify);
    try std.testing.expectEqualStrings(expected, text.written());
}

const sample_columns = [_]Column{
    .{ .name = "id", .type_name = "integer", .kind = .int4 },
    .{ .name = "a\"b", .type_name = "character varying(9)", .kind = .text },
    .{ .name = "tags", .type_name = "text[]", .kind = .text, .element_oid = 25 },
    .{ .name = "done", .type_name = "boolean", .kind = .bool },
};

test "a row is told with every value, and texts that are none as their bytes" {
    const array = "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x01\x00\x00\x00\x01";
    try expectLetter(
        \\{"record":{"id":7,"a\"b":"\\x61e9","tags":"{\"\\\\xff\"}","done":null},
    ++
        \\"types":{"id":"integer","a\"b":"bytea","tags":"bytea[]","done":"boolean"},
    ++
        \\"message":"no text","category":"invalid_text","sqlstate":"22021","column":"a\"b"}
    , "\x00\x04" ++ "\x00\x00\x00\x04\x00\x00\x00\x07" ++ "\x00\x00\x00\x02a\xe9" ++
        "\x00\x00\x00\x19" ++ array ++ "\x00\x00\x00\x01\xff" ++ "\xff\xff\xff\xff", "");
}

test "a row that went by is told by its name" {
    try expectLetter(
        \\{"record":null,
    ++
        \\"types":{"id":"integer","a\"b":"character varying(9)","tags":"text[]","done":"boolean"},
    ++
        \\"message":"no text (id 7)","category":"invalid_text","sqlstate":"22021","column":"a\"b"}
    , null, " (id 7)");
}
