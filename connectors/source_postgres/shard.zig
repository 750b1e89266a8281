//! One part of a relation, which other parts complete: as `rb_split` describes it and `rb_read` reads it.
//!
//!     blocks    rows by where they are stored; the last part has no end, whatever the table grew to
//!     range     rows by the value of a column; the first and the last part have one end each, NULLs are in the first
//!     hash      rows by a hash of a column's text; NULLs have the hash 0

const std = @import("std");
const sdk = @import("sdk");
const Family = @import("cursor_column.zig").Family;
const Selection = @import("selection.zig").Selection;

const Allocator = std.mem.Allocator;

pub const Shard = struct {
    /// Exported by the session that split the relation, which holds it.
    snapshot: []const u8,
    /// Arrays that cross as text in every part, because some row of the whole asks for it.
    as_text: []const []const u8,
    part: Part,

    pub const Part = union(enum) {
        blocks: Bounds(u64),
        range: Range,
        hash: Hash,
    };

    /// From `from` on, to before `before`.
    pub fn Bounds(comptime Value: type) type {
        return struct { from: ?Value, before: ?Value };
    }

    pub const Range = struct {
        column: []const u8,
        type: Family,
        bounds: Bounds([]const u8),
    };

    pub const Hash = struct { column: []const u8, of: u32, remainder: u32 };

    /// Has `selection` read this part alone.
    pub fn restrict(self: *const Shard, arena: Allocator, selection: *Selection) !void {
        try self.readArrays(selection);
        const condition = switch (self.part) {
            .blocks => |bounds| try ofBlocks(arena, selection, bounds),
            .range => |range| try ofRange(arena, selection, range),
            .hash => |hash| try ofHash(arena, selection, hash),
        };
        selection.conditions = try arena.dupe([]const u8, &.{condition});
    }

    /// As every other part does.
    pub fn readArrays(self: *const Shard, selection: *Selection) !void {
        for (self.as_text) |name| {
            const place = selection.place(name) orelse return selection.changed();
            selection.columns[place].as_text = true;
        }
    }

    pub fn ofBlocks(arena: Allocator, selection: *const Selection, bounds: Bounds(u64)) Allocator.Error![]const u8 {
        const place = try selection.columnSql(arena, "ctid");
        return between(arena, place, .{
            .from = try tid(arena, bounds.from),
            .before = try tid(arena, bounds.before),
        }, false);
    }

    /// Before the first row of a block.
    fn tid(arena: Allocator, block: ?u64) Allocator.Error!?[]const u8 {
        return try std.fmt.allocPrint(arena, "'({d},0)'::pg_catalog.tid", .{block orelse return null});
    }

    fn ofRange(arena: Allocator, selection: *const Selection, range: Range) Allocator.Error![]const u8 {
        return between(arena, try selection.columnSql(arena, range.column), .{
            .from = if (range.bounds.from) |value| try range.type.literal(arena, value) else null,
            .before = if (range.bounds.before) |value| try range.type.literal(arena, value) else null,
        }, range.bounds.from == null);
    }

    fn between(arena: Allocator, value: []const u8, bounds: Bounds([]const u8), with_nulls: bool) Allocator.Error![]const u8 {
        var sql: std.ArrayList(u8) = .empty;
        try sql.append(arena, '(');
        if (bounds.from) |from| try sql.print(arena, "{s} OPERATOR(pg_catalog.>=) {s}", .{ value, from });
        if (bounds.before) |before| try sql.print(
            arena,
            "{s}{s} OPERATOR(pg_catalog.<) {s}",
            .{ if (bounds.from == null) "" else " AND ", value, before },
        );
        if (bounds.from == null and bounds.before == null)
            try sql.appendSlice(arena, "true")
        else if (with_nulls) try sql.print(arena, " OR {s} IS NULL", .{value});
        try sql.append(arena, ')');
        return sql.items;
    }

    fn ofHash(arena: Allocator, selection: *const Selection, hash: Hash) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(
            arena,
            "pg_catalog.abs(pg_catalog.mod(COALESCE(pg_catalog.hashtextextended(" ++
                "{s}::pg_catalog.text COLLATE pg_catalog.\"C\", 0), 0), {d})) OPERATOR(pg_catalog.=) {d}",
            .{ try selection.columnSql(arena, hash.column), hash.of, hash.remainder },
        );
    }
};

/// Cuts of files of `sizes` blocks, all of them at the same `cuts.len` blocks, so that each of the `cuts.len + 1` parts
/// has as many blocks as another, all files together. Ascending.
pub fn cutBlocks(sizes: []const u64, cuts: []u64) void {
    var total: u64 = 0;
    var longest: u64 = 0;
    for (sizes) |size| {
        total += size;
        longest = @max(longest, size);
    }
    for (cuts, 1..) |*cut, part| {
        const wanted = total * part / (cuts.len + 1);
        // The least cut below which enough blocks lie.
        var low: u64 = 0;
        var high = longest;
        while (low < high) {
            const middle = low + (high - low) / 2;
            var below: u64 = 0;
            for (sizes) |size| below += @min(size, middle);
            if (below < wanted) low = middle + 1 else high = middle;
        }
        cut.* = low;
    }
}

/// Values that divide `first`…`last` into `cuts.len + 1` ranges of one length. Ascending, when there are as many values.
pub fn cutRange(first: i64, last: i64, cuts: []i64) void {
    const length = @as(i128, last) - first + 1;
    for (cuts, 1..) |*cut, part|
        cut.* = @intCast(first + @divFloor(length * @as(i128, @intCast(part)), @as(i128, @intCast(cuts.len + 1))));
}

test "blocks are divided evenly, over files of different sizes too" {
    var cuts: [3]u64 = undefined;
    cutBlocks(&.{1000}, &cuts);
    try std.testing.expectEqualSlices(u64, &.{ 250, 500, 750 }, &cuts);
    cutBlocks(&.{ 100, 100, 100, 100 }, &cuts);
    try std.testing.expectEqualSlices(u64, &.{ 25, 50, 75 }, &cuts);
    // 3 × 100 blocks below 100, and 700 of the long one alone above.
    cutBlocks(&.{ 100, 800, 100 }, &cuts);
    try std.testing.expectEqualSlices(u64, &.{ 84, 300, 550 }, &cuts);
    cutBlocks(&.{ 0, 4 }, &cuts);
    try std.testing.expectEqualSlices(u64, &.{ 1, 2, 3 }, &cuts);
}

test "a range is divided evenly, from one end of 64 bits to the other" {
    var cuts: [3]i64 = undefined;
    cutRange(1, 1000, &cuts);
    try std.testing.expectEqualSlices(i64, &.{ 251, 501, 751 }, &cuts);
    cutRange(-2, 1, &cuts);
    try std.testing.expectEqualSlices(i64, &.{ -1, 0, 1 }, &cuts);
    cutRange(std.math.minInt(i64), std.math.maxInt(i64), &cuts);
    try std.testing.expectEqualSlices(i64, &.{ -(1 << 62), 0, 1 << 62 }, &cuts);
}
