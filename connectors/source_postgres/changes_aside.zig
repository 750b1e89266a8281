//! Changes that are left out because of what is in them, or because there is no memory for them: their stream fails, or they
//! are counted, or become dead letters, which look like those of the destination.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Column = @import("shape.zig").Column;
const Marks = @import("changes.zig").Marks;
const Reason = @import("aside.zig").Reason;
const Stream = @import("captured_tables.zig").Stream;

const Allocator = std.mem.Allocator;
const Field = postgres.pgoutput.Field;
const json = sdk.json;

/// Characters of one key's value that are shown.
const shown_max = 100;

/// One change that is left out.
pub const Change = struct {
    marks: Marks,
    columns: []const Column,
    /// Per column; null where the change itself is not there.
    fields: ?[]const Field,
    /// Which row it is of, as `id 7`; empty where that is not known.
    name: []const u8,
    reason: *const Reason,
};

/// Those of one stream.
pub const ChangesAside = struct {
    gpa: Allocator,
    stream: *const Stream,
    letters: sdk.Letters,
    /// In all.
    count: u64 = 0,
    /// Since the last barrier, told by no letter.
    unmarked: u64 = 0,
    /// Why the first was left out.
    first: ?[]const u8 = null,

    pub fn init(gpa: Allocator, stream: *const Stream) ChangesAside {
        return .{ .gpa = gpa, .stream = stream, .letters = .ofStream(gpa, stream.name) };
    }

    pub fn deinit(self: *ChangesAside) void {
        self.letters.deinit();
        if (self.first) |message| self.gpa.free(message);
    }

    /// Whether changes may be left out at all.
    pub fn takes(self: *const ChangesAside) bool {
        return self.stream.on_data_error != .fail;
    }

    pub fn take(self: *ChangesAside, change: *const Change) !void {
        if (self.stream.on_data_error == .dlq) {
            const letter: Letter = .{ .gpa = self.gpa, .stream = self.stream, .change = change, .fields = change.fields };
            var short = letter;
            short.fields = null;
            try self.letters.add(if (change.fields == null) @as(?Letter, null) else letter, short);
            if (self.letters.isFull()) try self.letters.flush();
        } else self.unmarked += 1;
        self.count += 1;
        if (self.first == null) self.first = try self.gpa.dupe(u8, change.reason.message);
    }

    pub fn warn(self: *const ChangesAside) void {
        if (self.stream.on_data_error != .skip) return;
        sdk.host.log(
            .warning,
            "{s}: {d} changes were left out because of what is in them, and are not kept; of the first, {s}",
            .{ self.stream.name, self.count, self.first orelse return },
        );
    }
};

const Letter = struct {
    gpa: Allocator,
    stream: *const Stream,
    change: *const Change,
    /// Null where the letter cannot hold them.
    fields: ?[]const Field,

    pub fn write(self: *const Letter, letter: *json.Stringify) !void {
        const change = self.change;
        try letter.beginObject();
        try letter.objectField("record");
        if (self.fields) |fields| try self.writeRecord(letter, fields) else try letter.write(null);
        try letter.objectField("types");
        try letter.beginObject();
        for (self.marks()) |mark| {
            try letter.objectField(mark[0]);
            try letter.write(mark[1]);
        }
        for (change.columns, 0..) |*column, i| {
            const is_bytes = if (self.fields) |fields| isBytes(fields[i]) else false;
            try letter.objectField(column.of.name);
            try letter.write(if (!is_bytes) column.of.type_name else if (column.of.element == null) "bytea" else "bytea[]");
        }
        try letter.endObject();
        try letter.objectField("message");
        const message = if (change.name.len == 0)
            try self.gpa.dupe(u8, change.reason.message)
        else
            try std.mem.concat(self.gpa, u8, &.{ change.reason.message, " (", change.name, ")" });
        defer self.gpa.free(message);
        try letter.write(json.Text{ .bytes = message });
        try letter.objectField("category");
        try letter.write(@tagName(change.reason.category));
        try letter.objectField("sqlstate");
        try letter.write(change.reason.sqlstate);
        try letter.objectField("column");
        try letter.write(if (change.reason.column) |place| change.columns[place].of.name else null);
        try letter.endObject();
    }

    /// Columns in front of the table's own, with their types.
    fn marks(self: *const Letter) []const [2][]const u8 {
        const all = [_][2][]const u8{
            .{ "_rb_op", "text" },
            .{ "_rb_lsn", "pg_lsn" },
            .{ "_rb_seq", "bigint" },
            .{ "_rb_commit_ts", "timestamp with time zone" },
            .{ "_rb_unchanged", "text[]" },
        };
        return if (self.stream.write_mode == .append) &all else all[0..1];
    }

    fn writeRecord(self: *const Letter, letter: *json.Stringify, fields: []const Field) !void {
        const change = self.change;
        var text: std.ArrayList(u8) = .empty;
        defer text.deinit(self.gpa);
        try letter.beginObject();
        try letter.objectField("_rb_op");
        try letter.write(@tagName(change.marks.op));
        if (self.stream.write_mode == .append) {
            try letter.objectField("_rb_lsn");
            try text.print(self.gpa, "{f}", .{postgres.Lsn{ .value = change.marks.lsn }});
            try letter.write(text.items);
            try letter.objectField("_rb_seq");
            try letter.write(change.marks.seq);
            try letter.objectField("_rb_commit_ts");
            text.clearRetainingCapacity();
            var micros: [8]u8 = undefined;
            std.mem.writeInt(i64, &micros, change.marks.commit_ts -% postgres.values.epoch_micros, .big);
            const timestamptz: postgres.decode.Column = .{ .name = "", .type_name = "", .kind = .timestamptz };
            try postgres.printed.append(&text, self.gpa, &timestamptz, &micros);
            try letter.write(text.items);
            try letter.objectField("_rb_unchanged");
            text.clearRetainingCapacity();
            for (change.columns, fields) |*column, field| if (field.form == .unchanged) {
                try text.append(self.gpa, if (text.items.len == 0) '{' else ',');
                const start = text.items.len;
                try text.appendSlice(self.gpa, column.of.name);
                try postgres.printed.quoteFrom(&text, self.gpa, start);
            };
            if (text.items.len == 0) try letter.write(null) else {
                try text.append(self.gpa, '}');
                try letter.write(text.items);
            }
        }
        for (change.columns, fields) |*column, field| {
            try letter.objectField(column.of.name);
            text.clearRetainingCapacity();
            try self.writeValue(letter, &text, column, field);
        }
        try letter.endObject();
    }

    fn writeValue(self: *const Letter, letter: *json.Stringify, text: *std.ArrayList(u8), column: *const Column, field: Field) !void {
        switch (field.form) {
            .null, .unchanged => return letter.write(null),
            .text => try text.appendSlice(self.gpa, field.bytes),
            .binary => try postgres.printed.append(text, self.gpa, &(column.printed orelse return error.Malformed), field.bytes),
        }
        if (isBytes(field)) {
            if (column.of.element == null) {
                try letter.beginWriteRaw();
                try letter.writer.print("\"\\\\x{x}\"", .{text.items});
                return letter.endWriteRaw();
            }
            var bytes: std.ArrayList(u8) = .empty;
            defer bytes.deinit(self.gpa);
            try appendAsBytes(&bytes, self.gpa, text.items);
            return letter.write(bytes.items);
        }
        if (column.of.element == null) switch (column.of.native() orelse .text) {
            .bool => return letter.write(std.mem.eql(u8, text.items, "t")),
            .int2, .int4, .int8 => return letter.write(std.fmt.parseInt(i64, text.items, 10) catch return error.Malformed),
            else => {},
        };
        try letter.write(text.items);
    }
};

/// Whether the value is text by its type and not by its bytes.
fn isBytes(field: Field) bool {
    return field.form == .text and !std.unicode.utf8ValidateSlice(field.bytes);
}

/// `{a,NULL,"b\"c"}` as the array of its elements' bytes, `{"\\x61",NULL,"\\x622263"}`, whatever its dimensions.
fn appendAsBytes(out: *std.ArrayList(u8), gpa: Allocator, array: []const u8) !void {
    var element: std.ArrayList(u8) = .empty;
    defer element.deinit(gpa);
    // `[2:3]={…}`
    var at = if (std.mem.startsWith(u8, array, "[")) (std.mem.findScalar(u8, array, '{') orelse array.len) else 0;
    try out.appendSlice(gpa, array[0..at]);
    while (at < array.len) {
        if (std.mem.findScalar(u8, "{},", array[at]) != null) {
            try out.append(gpa, array[at]);
            at += 1;
            continue;
        }
        element.clearRetainingCapacity();
        const is_quoted = array[at] == '"';
        if (is_quoted) at += 1;
        while (at < array.len and array[at] != '"' and (is_quoted or std.mem.findScalar(u8, "{},", array[at]) == null)) : (at += 1) {
            if (array[at] == '\\') at += 1;
            if (at < array.len) try element.append(gpa, array[at]);
        }
        if (is_quoted) at += 1;
        if (!is_quoted and std.mem.eql(u8, element.items, "NULL"))
            try out.appendSlice(gpa, "NULL")
        else
            try out.print(gpa, "\"\\\\x{x}\"", .{element.items});
    }
}

/// `id 7, part x`: the values of these columns, as far as they are there; empty where one is not.
pub fn nameOf(arena: Allocator, columns: []const Column, places: []const u16, fields: []const Field, key: []const u16) Allocator.Error![]const u8 {
    var name: std.ArrayList(u8) = .empty;
    for (key) |i| {
        if (i >= fields.len or !fields[i].form.isTold() or places[i] >= columns.len) return "";
        const column = &columns[places[i]];
        var value: std.ArrayList(u8) = .empty;
        const bytes = fields[i].bytes[0..@min(fields[i].bytes.len, std.math.maxInt(u16))];
        if (fields[i].form == .text) {
            try value.appendSlice(arena, bytes);
        } else postgres.printed.append(&value, arena, &(column.printed orelse return ""), bytes) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.Malformed => return "",
        };
        try name.print(arena, "{s}{s} {s}{s}", .{
            if (name.items.len > 0) ", " else "",
            column.of.name,
            value.items[0..@min(value.items.len, shown_max)],
            if (value.items.len > shown_max) "…" else "",
        });
    }
    return name.items;
}

test "elements of an array are told as their bytes" {
    const gpa = std.testing.allocator;
    for ([_][2][]const u8{
        .{ "{a,NULL,\"b\\\"c\",\"NULL\",\"\"}", "{\"\\\\x61\",NULL,\"\\\\x622263\",\"\\\\x4e554c4c\",\"\\\\x\"}" },
        .{ "[2:3]={\"\xff\",b}", "[2:3]={\"\\\\xff\",\"\\\\x62\"}" },
        .{ "{{a,b},{c,d}}", "{{\"\\\\x61\",\"\\\\x62\"},{\"\\\\x63\",\"\\\\x64\"}}" },
        .{ "{}", "{}" },
        .{ "{\"\\", "{\"\\\\x\"" },
    }) |sample| {
        var out: std.ArrayList(u8) = .empty;
        defer out.deinit(gpa);
        try appendAsBytes(&out, gpa, sample[0]);
        try std.testing.expectEqualStrings(sample[1], out.items);
    }
}
