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

/// Bytes of letters that wait to be handed over: from here on a call's price does not matter.
const waiting_bytes_max = 1024 * 1024;
/// Bytes of one letter at most; the host takes 256 MB at once. A longer one is told without its row.
const letter_bytes_max = 200 * 1024 * 1024;

const opening = "{\"letters\":[";
const closing = "]}";

pub const Letters = struct {
    gpa: Allocator,
    columns: []const Column,
    /// Of the letters that wait: what is handed over, but for its end.
    text: std.Io.Writer.Allocating,
    waiting: usize = 0,

    pub fn init(gpa: Allocator, columns: []const Column) Letters {
        return .{ .gpa = gpa, .columns = columns, .text = .init(gpa) };
    }

    pub fn deinit(self: *Letters) void {
        self.text.deinit();
    }

    pub fn isFull(self: *const Letters) bool {
        return self.text.writer.end >= waiting_bytes_max;
    }

    /// `name` tells which row it is, where the letter cannot hold the row itself.
    pub fn add(self: *Letters, row: Row, reason: *const Reason, name: []const u8) !void {
        if (try self.fits(row, reason, "")) return;
        // There may be room for it alone.
        try self.flush();
        self.text.deinit();
        self.text = .init(self.gpa);
        if (try self.fits(row, reason, "")) return;
        if (!try self.fits(null, reason, name)) return error.OutOfMemory;
    }

    /// Whether there was room for the letter. Without a row it is a letter that tells of none.
    fn fits(self: *Letters, row: ?Row, reason: *const Reason, name: []const u8) error{}!bool {
        const bytes: ?[]const u8 = if (row) |known| switch (known) {
            .whole => |whole| whole,
            .passed => return false,
        } else null;
        const before = self.text.writer.end;
        self.write(bytes, reason, name) catch {
            self.text.writer.end = before;
            return false;
        };
        if (self.text.writer.end - before > letter_bytes_max) {
            self.text.writer.end = before;
            return false;
        }
        self.waiting += 1;
        return true;
    }

    fn write(self: *Letters, row: ?[]const u8, reason: *const Reason, name: []const u8) !void {
        const writer = &self.text.writer;
        try writer.writeAll(if (self.waiting == 0) opening else ",");
        const fields = try self.gpa.alloc(?[]const u8, self.columns.len);
        defer self.gpa.free(fields);
        if (row) |bytes| try (Row{ .whole = bytes }).split(fields);
        var letter: json.Stringify = .{ .writer = writer };
        try letter.beginObject();
        try letter.objectField("record");
        if (row != null) try self.writeRecord(&letter, fields) else try letter.write(null);
        try letter.objectField("types");
        try letter.beginObject();
        for (self.columns, fields) |*column, field| {
            try letter.objectField(column.name);
            if (row != null and isBytes(column, field))
                try letter.write(if (column.element_oid == null) "bytea" else "bytea[]")
            else
                try letter.write(column.type_name);
        }
        try letter.endObject();
        try letter.objectField("message");
        const message = try std.mem.concat(self.gpa, u8, &.{ reason.message, name });
        defer self.gpa.free(message);
        try letter.write(json.Text{ .bytes = message });
        try letter.objectField("category");
        try letter.write(@tagName(reason.category));
        try letter.objectField("sqlstate");
        try letter.write(reason.sqlstate);
        try letter.objectField("column");
        try letter.write(if (reason.column) |place| self.columns[place].name else null);
        try letter.endObject();
    }

    fn writeRecord(self: *Letters, letter: *json.Stringify, fields: []const ?[]const u8) !void {
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

    /// Hands over what waits.
    pub fn flush(self: *Letters) !void {
        if (self.waiting == 0) return;
        // Room for two bytes more is found: where it is not, the memory of a batch is not either.
        try self.text.ensureUnusedCapacity(closing.len);
        self.text.writer.writeAll(closing) catch return error.OutOfMemory;
        try sdk.host.emitDlqText(self.text.written());
        self.waiting = 0;
        if (self.text.writer.buffer.len > 2 * waiting_bytes_max) {
            self.text.deinit();
            self.text = .init(self.gpa);
        } else self.text.clearRetainingCapacity();
    }
};

/// Whether the field is text by its type and not by its bytes.
fn isBytes(column: *const Column, field: ?[]const u8) bool {
    if (!column.kind.isText()) return false;
    const bytes = field orelse return false;
    return postgres.decode.wrongText(column, bytes) != null;
}

fn expectLetters(expected: []const u8, columns: []const Column, row: Row, name: []const u8) !void {
    var letters: Letters = .init(std.testing.allocator, columns);
    defer letters.deinit();
    const reason: Reason = .{
        .category = .invalid_text,
        .column = 1,
        .sqlstate = "22021",
        .message = "no text",
        .hint = "",
    };
    try letters.add(row, &reason, name);
    try std.testing.expectEqualStrings(expected, letters.text.written());
}

const sample_columns = [_]Column{
    .{ .name = "id", .type_name = "integer", .kind = .int4 },
    .{ .name = "a\"b", .type_name = "character varying(9)", .kind = .text },
    .{ .name = "tags", .type_name = "text[]", .kind = .text, .element_oid = 25 },
    .{ .name = "done", .type_name = "boolean", .kind = .bool },
};

test "a row is told with every value, and texts that are none as their bytes" {
    const array = "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x01\x00\x00\x00\x01";
    try expectLetters(
        \\{"letters":[{"record":{"id":7,"a\"b":"\\x61e9","tags":"{\"\\\\xff\"}","done":null},
    ++
        \\"types":{"id":"integer","a\"b":"bytea","tags":"bytea[]","done":"boolean"},
    ++
        \\"message":"no text","category":"invalid_text","sqlstate":"22021","column":"a\"b"}
    , &sample_columns, .{ .whole = "\x00\x04" ++ "\x00\x00\x00\x04\x00\x00\x00\x07" ++ "\x00\x00\x00\x02a\xe9" ++
        "\x00\x00\x00\x19" ++ array ++ "\x00\x00\x00\x01\xff" ++ "\xff\xff\xff\xff" }, " (id 7)");
}

test "a row that went by is told by its name" {
    const passed: @import("passed.zig").Passed = .{ .length = 0, .fields = &.{}, .hash = 0, .too_large = null };
    try expectLetters(
        \\{"letters":[{"record":null,
    ++
        \\"types":{"id":"integer","a\"b":"character varying(9)","tags":"text[]","done":"boolean"},
    ++
        \\"message":"no text (id 7)","category":"invalid_text","sqlstate":"22021","column":"a\"b"}
    , &sample_columns, .{ .passed = &passed }, " (id 7)");
}
