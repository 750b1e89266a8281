//! Rows as dead letters: what they hold, so that they can be written again exactly, and why they are not in the table.
//!
//! Texts, bytes, whole numbers and truth values are told as they come. How PostgreSQL prints the others is for the server
//! to say, which takes them in a table of types that refuse nothing.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const encode = @import("encode.zig");
const refusal_module = @import("refusal.zig");
const Column = columns_module.Column;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Refused = @import("guard.zig").Refused;

const Allocator = std.mem.Allocator;
const Cell = postgres.Cell;
const arrow = sdk.arrow;
const json = sdk.json;

/// As the ABI has it.
pub const Letter = struct {
    record: Record,
    types: Types,
    message: json.Text,
    category: refusal_module.Category,
    sqlstate: ?[]const u8,
    constraint: ?json.Text,
    column: ?json.Text,

    /// `fields` are null where the rows lie in a table of the columns' own types.
    fn init(columns: []const Column, fields: ?[]const arrow.Field, cells: []const Cell, refused: *const Refused) Letter {
        const refusal = &refused.refusal;
        return .{
            .record = .{ .columns = columns, .cells = cells },
            .types = .{ .columns = columns, .cells = cells, .fields = fields },
            .message = .{ .bytes = refusal.message },
            .category = refusal.category,
            .sqlstate = refusal.sqlstate,
            .constraint = if (refusal.constraint) |name| .{ .bytes = name } else null,
            .column = if (refusal.column) |name| .{ .bytes = name } else null,
        };
    }
};

const Record = struct {
    columns: []const Column,
    cells: []const Cell,

    pub fn jsonStringify(self: Record, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        for (self.columns, self.cells) |column, cell| {
            try writer.objectField(column.name);
            try writer.write(cell);
        }
        try writer.endObject();
    }
};

const Types = struct {
    columns: []const Column,
    cells: []const Cell,
    fields: ?[]const arrow.Field,

    pub fn jsonStringify(self: Types, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        for (self.columns, 0..) |column, i| {
            try writer.objectField(column.name);
            const told = if (self.fields) |fields| fields[i].get(arrow.keys.pg_type) else null;
            try writer.write(self.cells[i].typeName(told orelse column.type));
        }
        try writer.endObject();
    }
};

/// Of rows of a batch, `landing`'s columns.
pub fn ofBatch(arena: Allocator, landing: *const Landing, batch: *const arrow.Batch, refused: []const Refused) ![]const Letter {
    const columns = landing.columns;
    const cells = try arena.alloc(Cell, refused.len * columns.len);
    for (refused, 0..) |each, i| for (batch.columns, cells[i * columns.len ..][0..columns.len]) |*view, *cell| {
        cell.* = try Cell.of(arena, view, @intCast(each.row)) orelse .null;
    };
    // Text forms of what has a form of its own in JSON: of rows that are written again.
    for (landing.schema.fields, 0..) |*field, place| if (field.type == .utf8) for (0..refused.len) |i| {
        const cell = &cells[i * columns.len + place];
        if (cell.* == .text) cell.* = .ofText(field.get(arrow.keys.pg_type) orelse continue, cell.text);
    };
    var printed: Printed = .{ .arena = arena, .landing = landing, .batch = batch, .refused = refused, .cells = cells };
    try printed.fill();
    const letters = try arena.alloc(Letter, refused.len);
    for (letters, refused, 0..) |*letter, *each, i|
        letter.* = .init(columns, landing.schema.fields, cells[i * columns.len ..][0..columns.len], each);
    return letters;
}

/// Bytes of what each letter repeats.
pub fn nameBytes(landing: *const Landing) usize {
    var bytes: usize = 0;
    for (landing.columns) |column| bytes += 2 * column.name.len + column.type.len + 64;
    return bytes;
}

/// Bytes of a row, about.
pub fn bytesOf(batch: *const arrow.Batch, row: usize) usize {
    var bytes: usize = 0;
    for (batch.columns) |*view| bytes += switch (view.type) {
        .utf8, .binary => view.bytesAt(row).len,
        .list => blk: {
            const items: usize = @intCast(view.offsets[row + 1] - view.offsets[row]);
            const child = view.child.?;
            break :blk items * (child.values.len / @max(1, child.length) + 1);
        },
        else => 8,
    };
    return bytes;
}

/// Whether the server has to print values of the type.
fn isPrinted(field_type: arrow.Type) bool {
    return switch (field_type) {
        .bool, .int16, .int32, .int64, .utf8, .binary => false,
        .list => |item| item.type != .utf8,
        else => true,
    };
}

const printing_name = "_rapidbyte_refused";
const printing_table = "pg_temp." ++ printing_name;
const printing = "telling of rows that were set aside";

/// The cells that the server prints.
const Printed = struct {
    arena: Allocator,
    landing: *const Landing,
    batch: *const arrow.Batch,
    refused: []const Refused,
    cells: []Cell,

    fn fill(self: *Printed) !void {
        const arena = self.arena;
        const session = self.landing.session;
        var places: std.ArrayList(usize) = .empty;
        for (self.landing.schema.fields, 0..) |*field, place| if (isPrinted(field.type)) try places.append(arena, place);
        if (places.items.len == 0) return;
        const views = try arena.alloc(arrow.ArrayView, places.items.len);
        for (views, places.items) |*view, place| view.* = self.batch.columns[place];

        try session.seeCatalog();
        const columns = try self.plainColumns(places.items);
        const ordinal = try columns_module.ordinalName(arena, columns);
        try session.exec(try std.fmt.allocPrint(arena, "CREATE TEMPORARY TABLE {s} ({s}, {s} {s}) ON COMMIT DROP", .{
            printing_table,
            try columns_module.definitionList(arena, columns, .staging),
            ordinal,
            columns_module.ordinal_definition,
        }), printing);
        while (!try self.copied(columns, views, places.items)) {}
        const found = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT {s} FROM {s} ORDER BY {s}",
            .{ try columns_module.nameList(arena, columns), printing_table, ordinal },
        ), &.{}, printing);
        if (found.rows.len != self.refused.len)
            return sdk.fail(.internal, "{s}: {d} came back of {d}", .{ printing, found.rows.len, self.refused.len });
        const width = self.landing.columns.len;
        for (found.rows, 0..) |row, i| for (row, places.items) |value, place| {
            const text = value orelse continue;
            self.cells[i * width + place] = .{ .text = text };
        };
        try session.exec("DROP TABLE " ++ printing_table, printing);
        try session.seeAsUser();
    }

    /// Columns of the types that hold whatever comes.
    fn plainColumns(self: *const Printed, places: []const usize) ![]const Column {
        const arena = self.arena;
        const fields = try arena.alloc(arrow.Field, places.len);
        for (fields, places, 0..) |*field, place, i| {
            const told = &self.landing.schema.fields[place];
            field.* = .{ .name = try std.fmt.allocPrint(arena, "c{d}", .{i}), .type = told.type };
            // Which of them is a uuid.
            if (told.type == .fixed_size_binary) field.metadata = told.metadata;
        }
        return columns_module.forNewTable(arena, self.landing.session, &.{ .fields = fields }, printing_table);
    }

    /// False when there was a value that is none of PostgreSQL's: it is told by the number that came, and is NULL to the
    /// server from here on.
    fn copied(self: *Printed, columns: []const Column, views: []arrow.ArrayView, places: []const usize) !bool {
        const session = self.landing.session;
        var load: Load = try .init(self.arena, session, .{ .table = printing_table, .columns = columns, .doing = printing });
        const batch: arrow.Batch = .{ .rows = self.batch.rows, .columns = views };
        const room = try self.arena.alloc(u8, load.encoder.row_bytes_max + encode.slack);
        for (self.refused, 0..) |each, i| if (try unprintable(&load.encoder, room, &batch, @intCast(each.row))) |column| {
            try self.number(i, places[column], &views[column]);
            return false;
        };
        try session.exec("SAVEPOINT rapidbyte_printing", printing);
        for (self.refused) |each| try load.addRange(&batch, @intCast(each.row), @intCast(each.row + 1), 0);
        load.finish() catch |failed| {
            if (failed != error.Failed or sdk.errors.current().?.kind != .data) return failed;
            const where = (session.connection.last_error orelse return failed).where;
            const row = refusal_module.rowOfCopy(where, printing_name) orelse return failed;
            // Where the server's language is another one, or where it says no more, all that may be it.
            const name = refusal_module.columnOfCopy(where);
            var found = false;
            for (columns, places, views) |*column, place, *view| {
                if (if (name) |known| !std.mem.eql(u8, column.name, known) else !isOfTime(view.type) and view.type != .list) continue;
                if (view.isNull(@intCast(self.refused[@intCast(row)].row))) continue;
                found = true;
                try self.number(@intCast(row), place, view);
            }
            if (!found) return failed;
            sdk.errors.clear();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_printing", printing);
            return false;
        };
        return true;
    }

    fn number(self: *Printed, i: usize, place: usize, view: *arrow.ArrayView) !void {
        const row: usize = @intCast(self.refused[i].row);
        var text: std.ArrayList(u8) = .empty;
        try postgres.arrow_text.appendNumber(&text, self.arena, view, row);
        self.cells[i * self.landing.columns.len + place] = .{ .text = text.items };
        try hide(self.arena, view, row);
    }

    /// The column whose value the server cannot be told.
    fn unprintable(encoder: *encode.Encoder, room: []u8, batch: *const arrow.Batch, row: usize) !?usize {
        encoder.encodeRange(Discarding{ .room = room }, batch, row, row + 1) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return encoder.offender.column,
        };
        return null;
    }
};

const Discarding = struct {
    room: []u8,

    pub fn reserve(self: Discarding, count: usize) error{}![]u8 {
        std.debug.assert(count <= self.room.len);
        return self.room;
    }

    pub fn commit(_: Discarding, _: usize) void {}
};

fn isOfTime(field_type: arrow.Type) bool {
    return switch (field_type) {
        .date32, .timestamp, .time64, .interval_month_day_nano => true,
        else => false,
    };
}

fn hide(arena: Allocator, view: *arrow.ArrayView, row: usize) !void {
    const bitmap = try arena.alloc(u8, (view.length + 7) / 8);
    if (view.validity) |known| @memcpy(bitmap, known[0..bitmap.len]) else @memset(bitmap, 0xff);
    bitmap[row / 8] &= ~(@as(u8, 1) << @intCast(row % 8));
    view.validity = bitmap;
    view.null_count += 1;
}

/// Bytes of rows that lie in a table, about.
pub fn sizesInTable(
    arena: Allocator,
    landing: *const Landing,
    table: []const u8,
    ordinal: []const u8,
    refused: []const Refused,
) ![]const usize {
    const size = "pg_catalog.octet_length(each::pg_catalog.text)";
    const rows = try refusedRows(arena, landing, size, table, ordinal, refused);
    const sizes = try arena.alloc(usize, rows.len);
    for (sizes, rows) |*found, row| found.* = std.fmt.parseInt(usize, row[0] orelse "0", 10) catch 0;
    return sizes;
}

/// Of rows that lie in a table of the columns' own types, by their ordinals, which ascend.
pub fn ofTable(
    arena: Allocator,
    landing: *const Landing,
    table: []const u8,
    ordinal: []const u8,
    refused: []const Refused,
) ![]const Letter {
    const session = landing.session;
    const columns = landing.columns;
    // Names are printed as they came, under the search path of the source's session.
    try session.seeCatalog();
    const rows = try refusedRows(arena, landing, try columns_module.nameList(arena, columns), table, ordinal, refused);
    try session.seeAsUser();
    const letters = try arena.alloc(Letter, refused.len);
    for (letters, refused, rows) |*letter, *each, row| {
        const cells = try arena.alloc(Cell, columns.len);
        for (cells, columns, row) |*cell, *column, value| cell.* = if (value) |text| .ofText(column.type, text) else .null;
        letter.* = .init(columns, null, cells, each);
    }
    return letters;
}

/// `what` of each of them, in their order.
fn refusedRows(
    arena: Allocator,
    landing: *const Landing,
    what: []const u8,
    table: []const u8,
    ordinal: []const u8,
    refused: []const Refused,
) ![]const []const ?[]const u8 {
    var ordinals: std.ArrayList(u8) = .empty;
    for (refused, 0..) |each, i| try ordinals.print(arena, "{s}{d}", .{ if (i > 0) ", " else "", each.row });
    const found = try landing.session.query(arena, try std.fmt.allocPrint(
        arena,
        "SELECT {s} FROM {s} AS each WHERE {s} IN ({s}) ORDER BY {s}",
        .{ what, table, ordinal, ordinals.items, ordinal },
    ), &.{}, printing);
    if (found.rows.len != refused.len)
        return sdk.fail(.internal, "{s}: {d} were found of {d}", .{ printing, found.rows.len, refused.len });
    return found.rows;
}

test "a record is told without loss" {
    const gpa = std.testing.allocator;
    const column: Column = .{ .name = "é\x00", .quoted = "", .type = "text", .nullable = true, .codec = .{ .wire = .bytes } };
    const columns: [5]Column = @splat(column);
    const record: Record = .{ .columns = &columns, .cells = &.{
        .{ .text = "a\x00\"é" },
        .{ .text = "\xff" },
        .{ .hex = "\x00\xab" },
        .{ .integer = std.math.minInt(i64) },
        .null,
    } };
    const text = try json.stringify(gpa, record);
    defer gpa.free(text);
    try std.testing.expectEqualStrings(
        \\{"é\u0000":"a\u0000\"é","é\u0000":"\\xff","é\u0000":"\\x00ab","é\u0000":-9223372036854775808,"é\u0000":null}
    , text);
}
