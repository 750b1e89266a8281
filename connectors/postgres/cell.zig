//! One value of a row that is told and not loaded, as a dead letter holds it: what JSON has a form for in that, all else as
//! the text that PostgreSQL prints.

const std = @import("std");
const sdk = @import("sdk");
const printed = @import("printed.zig");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const json = sdk.json;

pub const Cell = union(enum) {
    null,
    bool: bool,
    integer: i64,
    /// A text that is not UTF-8 is told as the bytea that it is.
    text: []const u8,
    /// `\x…`
    hex: []const u8,
    /// Text of another type than the column's.
    typed: struct { text: []const u8, type: []const u8 },

    /// Of a value that needs no printing; null where it does. Points into the view, or lies in `arena`.
    pub fn of(arena: Allocator, view: *const arrow.ArrayView, row: usize) Allocator.Error!?Cell {
        if (view.isNull(row)) return .null;
        return switch (view.type) {
            .bool => .{ .bool = view.boolAt(row) },
            .int16 => .{ .integer = view.fixed(i16)[row] },
            .int32 => .{ .integer = view.fixed(i32)[row] },
            .int64 => .{ .integer = view.fixed(i64)[row] },
            .utf8 => .{ .text = view.bytesAt(row) },
            .binary => .{ .hex = view.bytesAt(row) },
            .list => if (view.child.?.type == .utf8) try arrayOfTexts(arena, view, row) else null,
            else => null,
        };
    }

    /// Of a text form, which is a value that JSON has a form for where the type says so.
    pub fn ofText(type_name: []const u8, text: []const u8) Cell {
        if (std.mem.eql(u8, type_name, "boolean")) {
            inline for (.{ "t", "true" }) |name| if (std.mem.eql(u8, text, name)) return .{ .bool = true };
            inline for (.{ "f", "false" }) |name| if (std.mem.eql(u8, text, name)) return .{ .bool = false };
        }
        inline for (.{ "smallint", "integer", "bigint" }) |integer| if (std.mem.eql(u8, type_name, integer))
            return .{ .integer = std.fmt.parseInt(i64, text, 10) catch return .{ .text = text } };
        return .{ .text = text };
    }

    /// What the letter calls the type of the value, in a column of type `declared`.
    pub fn typeName(self: Cell, declared: []const u8) []const u8 {
        return switch (self) {
            .typed => |typed| typed.type,
            .text => |text| if (std.unicode.utf8ValidateSlice(text)) declared else "bytea",
            else => declared,
        };
    }

    pub fn jsonStringify(self: Cell, writer: *json.Stringify) json.Stringify.Error!void {
        switch (self) {
            .null => try writer.write(null),
            .bool => |value| try writer.write(value),
            .integer => |value| try writer.write(value),
            .text => |text| if (std.unicode.utf8ValidateSlice(text)) try writer.write(text) else try writeHex(writer, text),
            .hex => |bytes| try writeHex(writer, bytes),
            .typed => |typed| try writer.write(typed.text),
        }
    }
};

fn writeHex(writer: *json.Stringify, bytes: []const u8) json.Stringify.Error!void {
    try writer.beginWriteRaw();
    try writer.writer.print("\"\\\\x{x}\"", .{bytes});
    writer.endWriteRaw();
}

fn arrayOfTexts(arena: Allocator, view: *const arrow.ArrayView, row: usize) Allocator.Error!Cell {
    const items = view.child.?;
    const from: usize = @intCast(view.offsets[row]);
    const to: usize = @intCast(view.offsets[row + 1]);
    const is_text = for (from..to) |i| {
        if (!items.isNull(i) and !std.unicode.utf8ValidateSlice(items.bytesAt(i))) break false;
    } else true;
    var out: std.ArrayList(u8) = .empty;
    try out.append(arena, '{');
    for (from..to) |i| {
        if (i > from) try out.append(arena, ',');
        if (items.isNull(i)) {
            try out.appendSlice(arena, "NULL");
            continue;
        }
        const start = out.items.len;
        if (is_text) try out.appendSlice(arena, items.bytesAt(i)) else try out.print(arena, "\\x{x}", .{items.bytesAt(i)});
        try printed.quoteFrom(&out, arena, start);
    }
    try out.append(arena, '}');
    return if (is_text) .{ .text = out.items } else .{ .typed = .{ .text = out.items, .type = "bytea[]" } };
}

test "a value is told without loss" {
    const gpa = std.testing.allocator;
    const text = try json.stringify(gpa, [_]Cell{
        .{ .text = "a\x00\"é" },
        .{ .text = "\xff" },
        .{ .hex = "\x00\xab" },
        .{ .integer = std.math.minInt(i64) },
        .null,
        .ofText("boolean", "t"),
        .ofText("integer", "07"),
        .ofText("integer", "x"),
    });
    defer gpa.free(text);
    try std.testing.expectEqualStrings(
        \\["a\u0000\"é","\\xff","\\x00ab",-9223372036854775808,null,true,7,"x"]
    , text);
    try std.testing.expectEqualStrings("bytea", (Cell{ .text = "\xff" }).typeName("text"));
}
