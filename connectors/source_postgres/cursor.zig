//! Where an incremental stream stands. The host and the destination keep it as it is; only the source reads it.
//!
//!     {"field": "updated_at", "type": "timestamptz", "value": "2024-01-02 03:04:05.123456+00",
//!      "seen": {"by": ["id"], "form": "ranges", "shape": "…", "rows": 3, "nulls": 0, "set": "DgIB"}}
//!
//! `value` is the last one that was delivered, `seen` the rows of it that were; null: they are read again. With a lag
//! there is `aside` too, where rows that will be read again were set aside: see told.zig.

const std = @import("std");
const sdk = @import("sdk");
const CursorColumn = @import("cursor_column.zig").CursorColumn;
const Family = @import("cursor_column.zig").Family;
const Seen = @import("boundary.zig").Seen;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Cursor = struct {
    field: []const u8,
    type: Family,
    value: []const u8,
    /// Of text that is not ordered by the database's own.
    collation: ?[]const u8 = null,
    seen: ?Seen = null,
    aside: ?[]const u8 = null,

    /// Reads a cursor that the host kept for `stream`, which follows `column` now.
    pub fn parse(arena: Allocator, stored: json.Value, stream: *const Stream, column: *const CursorColumn) !Cursor {
        const cursor = json.parseValue(Cursor, arena, stored) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return refused(arena, stream, "the stored cursor is none of this connector's", .{}),
        };
        if (!std.mem.eql(u8, cursor.field, column.of.name)) return refused(
            arena,
            stream,
            "the stored cursor is one of column {s}, and cursor_field is {s} now",
            .{ cursor.field, column.of.name },
        );
        if (cursor.type != column.family) return refused(
            arena,
            stream,
            "the stored cursor is of type {t}, and column {s} is {s} now",
            .{ cursor.type, cursor.field, column.of.type_name },
        );
        const collation = column.collation orelse "";
        if (!std.mem.eql(u8, cursor.collation orelse "", collation)) return refused(
            arena,
            stream,
            "the stored cursor is in the order of collation {s}, and column {s} has {s} now",
            .{ cursor.collation orelse "\"default\"", cursor.field, column.collation orelse "\"default\"" },
        );
        if (!column.family.isValue(cursor.value))
            return refused(arena, stream, "the stored cursor's value is no {t}", .{cursor.type});
        return cursor;
    }

    /// A cursor that this stream cannot go on from.
    pub fn refused(arena: Allocator, stream: *const Stream, comptime format: []const u8, args: anytype) (Allocator.Error || sdk.errors.Failed) {
        const hint = try std.fmt.allocPrint(
            arena,
            "`rapidbyte state reset FILE --stream {s}` makes it begin again",
            .{stream.name},
        );
        return sdk.errors.failHinted(.schema, hint, "stream {s}: " ++ format, .{stream.name} ++ args);
    }

    pub fn jsonStringify(self: Cursor, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        inline for (.{ "field", "type", "value" }) |name| {
            try writer.objectField(name);
            try writer.write(@field(self, name));
        }
        if (self.collation) |collation| {
            try writer.objectField("collation");
            try writer.write(collation);
        }
        try writer.objectField("seen");
        try writer.write(self.seen);
        if (self.aside) |aside| {
            try writer.objectField("aside");
            try writer.write(aside);
        }
        try writer.endObject();
    }
};

test "a cursor comes back from its JSON as it was" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const cursor: Cursor = .{
        .field = "at \"é\"",
        .type = .timestamptz,
        .value = "2024-01-02 03:04:05.123456+00",
        .seen = .{ .by = &.{"id"}, .form = .ranges, .shape = "00000000000000ff", .rows = 2, .set = "AgE" },
        .aside = "AQE",
    };
    const text = try json.stringify(arena.allocator(), cursor);
    try std.testing.expectEqualStrings("{\"field\":\"at \\\"é\\\"\",\"type\":\"timestamptz\"," ++
        "\"value\":\"2024-01-02 03:04:05.123456+00\",\"seen\":{\"by\":[\"id\"],\"form\":\"ranges\"," ++
        "\"shape\":\"00000000000000ff\",\"rows\":2,\"nulls\":0,\"set\":\"AgE\"},\"aside\":\"AQE\"}", text);
    const back = try json.parse(Cursor, arena.allocator(), text);
    try std.testing.expectEqualDeep(cursor, back);
}
