//! What tells rows of one cursor value apart.
//!
//! Rows that are appended are told apart by the relation's own key, else the tie-breaker, else by all that is read of them.
//! Only the first is sure to be unique: `Increment` looks whether the tie-breaker is. Rows that are upserted are told apart
//! by all that is read of them: one that changed has to be sent again.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Row = @import("row.zig").Row;
const Selection = @import("selection.zig").Selection;
const SelectionColumn = @import("selection.zig").Column;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const XxHash64 = std.hash.XxHash64;

pub const Identity = struct {
    names: []const []const u8,
    /// Where the columns stand in a row.
    places: []const usize,
    form: Form,
    /// Of the columns' types: values of another shape have other hashes.
    shape: u64,
    /// The columns are all that a row has, in its order.
    whole: bool,

    pub const Form = enum {
        /// One integer, whose values are kept as they are. No two rows of one cursor value have the same.
        ranges,
        hashes,
    };

    pub fn ofStream(arena: Allocator, stream: *const Stream, selection: *const Selection) Allocator.Error!Identity {
        if (stream.write_mode != .upsert) {
            const key = selection.relation.primary_key;
            if (key.len > 0 and selection.holds(key)) return keyed(arena, selection, key);
            if (stream.tie_breaker_field) |name| return keyed(arena, selection, try arena.dupe([]const u8, &.{name}));
        }
        const names = try arena.alloc([]const u8, selection.columns.len);
        for (names, selection.columns) |*name, column| name.* = column.of.name;
        return (try of(arena, selection, names, .hashes)).?;
    }

    fn keyed(arena: Allocator, selection: *const Selection, names: []const []const u8) Allocator.Error!Identity {
        const column = selection.columnNamed(names[0]).?;
        const form: Form = if (names.len == 1 and isInteger(column)) .ranges else .hashes;
        return (try of(arena, selection, names, form)).?;
    }

    /// Null: a column is not read, or is no integer any more.
    pub fn of(
        arena: Allocator,
        selection: *const Selection,
        names: []const []const u8,
        form: Form,
    ) Allocator.Error!?Identity {
        if (names.len == 0) return null;
        const places = try arena.alloc(usize, names.len);
        var shape: XxHash64 = .init(0);
        var whole = names.len == selection.columns.len;
        for (names, places, 0..) |name, *place, i| {
            place.* = selection.place(name) orelse return null;
            whole = whole and place.* == i;
            const column = &selection.columns[place.*];
            if (form == .ranges) {
                if (names.len != 1 or !isInteger(column)) return null;
                continue;
            }
            shape.update(if (column.as_text) "text" else "binary");
            shape.update(lasting(column.of.type_oid, column.of.type_name));
            shape.update(";");
        }
        return .{ .names = names, .places = places, .form = form, .shape = shape.final(), .whole = whole };
    }

    fn isInteger(column: *const SelectionColumn) bool {
        if (column.of.element != null) return false;
        return switch (column.of.native() orelse return false) {
            .int2, .int4, .int8 => true,
            else => false,
        };
    }

    /// The type's name without a limit that does not change its values' bytes.
    fn lasting(type_oid: u32, type_name: []const u8) []const u8 {
        return switch (type_oid) {
            postgres.types.oid.varchar,
            postgres.types.oid.time,
            postgres.types.oid.timestamp,
            postgres.types.oid.timestamptz,
            => type_name[0 .. std.mem.findScalar(u8, type_name, '(') orelse type_name.len],
            else => type_name,
        };
    }

    pub fn eql(a: *const Identity, b: *const Identity) bool {
        if (a.form != b.form or a.shape != b.shape or a.names.len != b.names.len) return false;
        for (a.names, b.names) |one, other| if (!std.mem.eql(u8, one, other)) return false;
        return true;
    }

    /// Whether it looks at the field that stands there.
    pub fn has(self: *const Identity, place: usize) bool {
        return !self.whole and std.mem.findScalar(usize, self.places, place) != null;
    }

    /// How many of a row's first fields `hash` and `integer` need.
    pub fn reach(self: *const Identity) usize {
        if (self.whole) return 0;
        var furthest: usize = 0;
        for (self.places) |place| furthest = @max(furthest, place + 1);
        return furthest;
    }

    /// The columns' fields with their lengths, in the identity's order.
    pub fn hash(self: *const Identity, row: Row, fields: []const ?[]const u8) u64 {
        if (self.whole) return row.hash();
        var state: XxHash64 = .init(0);
        for (self.places) |place| {
            var length: [4]u8 = undefined;
            const field = fields[place];
            std.mem.writeInt(u32, &length, if (field) |bytes| @intCast(bytes.len) else std.math.maxInt(u32), .big);
            state.update(&length);
            if (field) |bytes| state.update(bytes);
        }
        return state.final();
    }

    /// Of the form `ranges`; null for NULL.
    pub fn integer(self: *const Identity, fields: []const ?[]const u8) error{Malformed}!?i64 {
        return try postgres.canonical.integer(fields[self.places[0]] orelse return null);
    }
};

test "all of a row has one hash, whether its fields are looked at or not" {
    const bytes = "\x00\x03\x00\x00\x00\x02ab\xff\xff\xff\xff\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x01\x02";
    const row: Row = .{ .whole = bytes };
    var fields: [3]?[]const u8 = undefined;
    try row.split(&fields);
    var identity: Identity = .{
        .names = &.{ "a", "b", "c" },
        .places = &.{ 0, 1, 2 },
        .form = .hashes,
        .shape = 0,
        .whole = true,
    };
    try std.testing.expectEqual(0, identity.reach());
    const whole = identity.hash(row, &.{});
    identity.whole = false;
    try std.testing.expectEqual(3, identity.reach());
    try std.testing.expectEqual(whole, identity.hash(row, &fields));
    // Hashes are kept from one version of the connector to the next.
    try std.testing.expectEqual(XxHash64.hash(0, bytes[2..]), whole);
    identity.places = &.{ 1, 0, 2 };
    try std.testing.expect(identity.hash(row, &fields) != whole);
}
