//! Rows that a transform refuses as dead letters: as they came in, so that they can come in again.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Reason = @import("rows.zig").Reason;
const Shape = @import("shape.zig").Shape;

const Allocator = std.mem.Allocator;
const Cell = postgres.Cell;
const arrow = sdk.arrow;
const json = sdk.json;

/// Bytes of one key's value that are shown.
const shown_max = 100;

/// A letter of `sdk.Letters`.
pub const Letter = struct {
    gpa: Allocator,
    shape: *const Shape,
    batch: *const arrow.Batch,
    row: usize,
    /// Counted from 1 in the whole run.
    number: u64,
    /// Of all reasons.
    message: []const u8,
    /// The first, with the column that all have in common.
    reason: *const Reason,
    /// False: the letter has no room for the row, and names it.
    holds_row: bool,

    pub fn write(self: Letter, letter: *json.Stringify) !void {
        var arena_of_letter: std.heap.ArenaAllocator = .init(self.gpa);
        defer arena_of_letter.deinit();
        const arena = arena_of_letter.allocator();
        const fields = self.shape.schema.fields;
        const cells = try arena.alloc(Cell, fields.len);
        for (cells, 0..) |*cell, i| cell.* = if (self.holds_row) try self.cellOf(arena, i) else .null;
        try letter.beginObject();
        try letter.objectField("record");
        if (self.holds_row) {
            try letter.beginObject();
            for (fields, cells) |*field, cell| {
                try letter.objectField(field.name);
                try letter.write(cell);
            }
            try letter.endObject();
        } else try letter.write(null);
        try letter.objectField("types");
        try letter.beginObject();
        for (fields, cells, self.shape.types) |*field, cell, declared| {
            try letter.objectField(field.name);
            try letter.write(cell.typeName(declared));
        }
        try letter.endObject();
        try letter.objectField("message");
        const message = if (self.holds_row) self.message else try self.named(arena);
        try letter.write(json.Text{ .bytes = message });
        try letter.objectField("category");
        try letter.write(@tagName(self.reason.category));
        try letter.objectField("sqlstate");
        try letter.write(self.reason.sqlstate);
        try letter.objectField("column");
        try letter.write(self.reason.column);
        try letter.endObject();
    }

    fn cellOf(self: Letter, arena: Allocator, place: usize) Allocator.Error!Cell {
        const view = &self.batch.columns[place];
        const cell = try Cell.of(arena, view, self.row) orelse {
            var text: std.ArrayList(u8) = .empty;
            try postgres.arrow_text.append(&text, arena, &self.shape.schema.fields[place], view, self.row);
            return .{ .text = text.items };
        };
        // Text forms of what has a form of its own in JSON: of rows that come in again.
        return if (cell == .text and view.type == .utf8) .ofText(self.shape.types[place], cell.text) else cell;
    }

    /// The message, and which row it is about.
    fn named(self: Letter, arena: Allocator) Allocator.Error![]const u8 {
        var text: std.ArrayList(u8) = .empty;
        try text.print(arena, "{s} (", .{self.message});
        const key = self.shape.key();
        for (key, 0..) |name, i| {
            const place = self.shape.schema.indexOf(name) orelse break;
            const view = &self.batch.columns[place];
            if (i > 0) try text.appendSlice(arena, ", ");
            try text.print(arena, "{s} ", .{name});
            if (view.isNull(self.row)) {
                try text.appendSlice(arena, "NULL");
                continue;
            }
            const start = text.items.len;
            try postgres.arrow_text.append(&text, arena, &self.shape.schema.fields[place], view, self.row);
            if (text.items.len - start <= shown_max) continue;
            text.items.len = start + shown_max;
            try text.appendSlice(arena, "…");
        } else if (key.len > 0) {
            try text.append(arena, ')');
            return text.items;
        }
        text.items.len = self.message.len;
        try text.print(arena, " (row {d} of the run)", .{self.number});
        return text.items;
    }
};
