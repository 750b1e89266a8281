//! A table that is loaded piece by piece, so that a load that was interrupted goes on with the pieces that are missing. It
//! does so in a later snapshot, in which the pieces that are there have
//!
//!     kept rows      they are as they were loaded
//!     changed rows   all others: they came or moved since, or were written anew
//!
//! and what is there besides is gone. A row is kept if the transaction that wrote it had ended before the first snapshot was
//! taken: since it is still to be seen, it was to be seen then. Rows stay where they are as long as their file does, and
//! whoever changes one writes another, under a number of his own, which is no lower than the oldest that was going on then;
//! so are those of subtransactions. Of rows that are so old that their number was used again nobody knows: they count as
//! changed, which costs a second look at them and nothing else.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Shard = @import("shard.zig").Shard;
const Snapshot = @import("stream.zig").Snapshot;

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;
const json = sdk.json;

/// How far transactions' numbers reach before they come round: of one that is further away nobody can tell its side.
const numbers_max = 1 << 31;

/// What has to be known of a load to go on with it. The host keeps it with the rows.
pub const Note = struct {
    /// Of the snapshot that the pieces were read in.
    lsn: Lsn,
    /// Every transaction below had ended.
    xmin: u64,
    /// Of the database, and of what is read of the table: which columns, which rows, in what form.
    what: []const u8,
    files: []const File,
    /// The blocks that all pieces but the first begin with.
    cuts: []const u64,

    /// The oid of a table that holds rows, and the number of its file.
    const File = struct { table: u32, node: u32 };

    /// Null: it is nothing that this connector wrote.
    pub fn read(arena: Allocator, value: json.Value) Allocator.Error!?Note {
        return json.parseValue(Note, arena, value) catch |err| switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            else => null,
        };
    }

    /// Ready for what goes on: in a transaction that has locked the relation.
    pub fn take(
        arena: Allocator,
        session: *Session,
        selection: *const Selection,
        snapshot: *const Snapshot,
        cuts: []const u64,
    ) !Present {
        const state = try session.rows(4, arena, @embedFile("sql/state.sql"), &.{}, selection.doing);
        const found = try session.rows(
            2,
            arena,
            @embedFile("sql/heirs.sql") ++ @embedFile("sql/files.sql"),
            &.{selection.relation.oid},
            selection.doing,
        );
        if (state.len != 1) return selection.changed();
        const files = try arena.alloc(File, found.len);
        for (files, found) |*file, row| file.* = .{ .table = row.number(u32, 0), .node = row.number(u32, 1) };
        var what: std.crypto.hash.sha2.Sha256 = .init(.{});
        for ([_][]const u8{ snapshot.system.?, state[0].text(0), state[0].text(3), selection.relation.oid }) |part|
            update(&what, part);
        update(&what, selection.filter orelse "");
        for (selection.unique) |name| update(&what, name);
        for (selection.columns) |column| update(&what, try std.fmt.allocPrint(arena, "{d} {d} {d} {} {s}", .{
            column.of.number, column.of.type_oid, column.of.typmod, column.as_text, column.of.name,
        }));
        return .{
            .note = .{
                .lsn = Lsn.parse(snapshot.lsn) orelse return sdk.fail(.protocol, "{s} is no LSN", .{snapshot.lsn}),
                .xmin = state[0].number(u64, 1),
                .what = try std.fmt.allocPrint(arena, "{x}", .{what.finalResult()[0..16]}),
                .files = files,
                .cuts = cuts,
            },
            .xmax = state[0].number(u64, 2),
        };
    }

    fn update(hash: *std.crypto.hash.sha2.Sha256, part: []const u8) void {
        var length: [8]u8 = undefined;
        std.mem.writeInt(u64, &length, part.len, .little);
        hash.update(&length);
        hash.update(part);
    }
};

/// The note of a load that begins or goes on now.
pub const Present = struct {
    note: Note,
    /// No transaction from here on had begun.
    xmax: u64,

    pub const Step = union(enum) {
        /// Pieces of both are of one state of the database.
        same,
        since: Since,
        /// Why the load has to begin again.
        unfit: []const u8,
    };

    /// What leads from an earlier load to this one.
    pub fn follow(self: *const Present, arena: Allocator, earlier: *const Note) !Step {
        const note = &self.note;
        if (!std.mem.eql(u8, earlier.what, note.what))
            return .{ .unfit = "it was of another table, of other columns or rows of it, or of another database system" };
        if (note.lsn.value < earlier.lsn.value)
            return .{ .unfit = "the server is at an earlier state than it was then" };
        if (self.xmax < earlier.xmin or self.xmax - earlier.xmin >= numbers_max)
            return .{ .unfit = "there have been too many transactions since" };
        var tables: std.ArrayList(u32) = .empty;
        for (note.files) |file| for (earlier.files) |before| {
            if (file.table == before.table and file.node == before.node) try tables.append(arena, file.table);
        };
        if (tables.items.len == 0) return .{ .unfit = "the table was truncated or written anew" };
        if (note.lsn.value == earlier.lsn.value and tables.items.len == earlier.files.len and note.files.len == earlier.files.len)
            return .same;
        return .{ .since = .{ .xmin = earlier.xmin, .tables = tables.items } };
    }
};

/// Since when rows count as changed.
pub const Since = struct {
    xmin: u64,
    /// The oids of tables that hold rows of then; in others all are new.
    tables: []const u32,

    /// How many rows of the parts of these numbers are as they were.
    pub fn rowsKept(
        self: *const Since,
        arena: Allocator,
        session: *Session,
        selection: *const Selection,
        parts: []const Shard.Part,
        loaded: []const u32,
    ) !u64 {
        var there: std.ArrayList(Shard.Part) = .empty;
        for (loaded) |number| if (number < parts.len) try there.append(arena, parts[number]);
        if (there.items.len == 0) return 0;
        var counted = selection.*;
        counted.conditions = try std.mem.concat(arena, []const u8, &.{
            try conditionsOf(arena, selection, there.items),
            &.{try self.kept(arena, selection)},
        });
        var sql: std.ArrayList(u8) = .empty;
        try sql.appendSlice(arena, "SELECT pg_catalog.count(*)");
        try counted.appendFrom(&sql, arena);
        const found = try session.rows(1, arena, sql.items, &.{}, selection.doing);
        return if (found.len == 1) found[0].number(u64, 0) else 0;
    }

    fn kept(self: *const Since, arena: Allocator, selection: *const Selection) ![]const u8 {
        var sql: std.ArrayList(u8) = .empty;
        try sql.print(arena, "({s} OPERATOR(pg_catalog.=) ANY ('{{", .{try selection.columnSql(arena, "tableoid")});
        for (self.tables, 0..) |oid, i| try sql.print(arena, "{s}{d}", .{ if (i > 0) "," else "", oid });
        // Numbers have 32 bits, and come round: half of them are before a number.
        try sql.print(
            arena,
            "}}'::pg_catalog.oid[]) AND pg_catalog.int8and(pg_catalog.int8mi({s}::pg_catalog.text::pg_catalog.int8, {d}), 4294967295) OPERATOR(pg_catalog.>=) {d})",
            .{ try selection.columnSql(arena, "xmin"), @as(u32, @truncate(self.xmin)), numbers_max },
        );
        return sql.items;
    }
};

/// What is read of pieces that were loaded from an earlier snapshot.
pub const Amendment = struct {
    shards: []const Shard,
    since: Since,
    /// Of those that are kept only what tells them apart.
    rows: enum { kept, changed },

    pub fn restrict(self: *const Amendment, arena: Allocator, selection: *Selection) !void {
        if (selection.unique.len == 0) return selection.changed();
        try self.shards[0].readArrays(selection);
        const kept = try self.since.kept(arena, selection);
        if (self.rows == .kept) try selection.narrow(arena, selection.unique);
        const parts = try arena.alloc(Shard.Part, self.shards.len);
        for (parts, self.shards) |*part, shard| part.* = shard.part;
        selection.conditions = try std.mem.concat(arena, []const u8, &.{
            try conditionsOf(arena, selection, parts),
            &.{if (self.rows == .kept) kept else try std.mem.concat(arena, u8, &.{ "NOT ", kept })},
        });
    }
};

const Range = Shard.Bounds(u64);

/// SQL of where rows of these parts are.
fn conditionsOf(arena: Allocator, selection: *const Selection, parts: []const Shard.Part) ![]const []const u8 {
    const ranges = try rangesOf(arena, parts);
    var conditions: std.ArrayList([]const u8) = .empty;
    // The server reads from the first to the last of them, which lie close together.
    try conditions.append(arena, try Shard.ofBlocks(arena, selection, .{
        .from = ranges[0].from,
        .before = ranges[ranges.len - 1].before,
    }));
    if (ranges.len == 1) return conditions.items;
    var each: std.ArrayList(u8) = .empty;
    for (ranges, 0..) |range, i| {
        try each.appendSlice(arena, if (i == 0) "(" else " OR ");
        try each.appendSlice(arena, try Shard.ofBlocks(arena, selection, range));
    }
    try each.append(arena, ')');
    try conditions.append(arena, each.items);
    return conditions.items;
}

/// In ascending order, neighbours as one.
fn rangesOf(arena: Allocator, parts: []const Shard.Part) ![]const Range {
    const all = try arena.alloc(Range, parts.len);
    for (all, parts) |*range, part| range.* = switch (part) {
        .blocks => |blocks| blocks,
        else => return sdk.fail(.protocol, "only ranges of blocks are pieces", .{}),
    };
    std.mem.sort(Range, all, {}, isBefore);
    var joined: std.ArrayList(Range) = .empty;
    for (all) |range| {
        if (joined.items.len > 0) {
            const last = &joined.items[joined.items.len - 1];
            if (last.before != null and last.before == range.from) {
                last.before = range.before;
                continue;
            }
        }
        try joined.append(arena, range);
    }
    return joined.items;
}

fn isBefore(_: void, a: Range, b: Range) bool {
    // Empty ones come before what begins where they do.
    if ((a.from orelse 0) != (b.from orelse 0)) return (a.from orelse 0) < (b.from orelse 0);
    return (a.before orelse std.math.maxInt(u64)) < (b.before orelse std.math.maxInt(u64));
}

fn noteForTest(lsn: u64, xmin: u64, files: []const Note.File) Note {
    return .{ .lsn = .{ .value = lsn }, .xmin = xmin, .what = "a", .files = files, .cuts = &.{} };
}

test "a load is followed from tables whose files are the same, in a later state of the same server" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const a = arena.allocator();
    const earlier = noteForTest(100, 5_000_000_000, &.{ .{ .table = 1, .node = 10 }, .{ .table = 2, .node = 20 } });

    const later: Present = .{
        .note = noteForTest(101, 5_000_000_100, &.{ .{ .table = 1, .node = 10 }, .{ .table = 2, .node = 21 }, .{ .table = 3, .node = 30 } }),
        .xmax = 5_000_000_200,
    };
    const since = (try later.follow(a, &earlier)).since;
    try std.testing.expectEqual(5_000_000_000, since.xmin);
    try std.testing.expectEqualSlices(u32, &.{1}, since.tables);

    const same: Present = .{ .note = earlier, .xmax = 5_000_000_000 };
    try std.testing.expect(try same.follow(a, &earlier) == .same);

    var others = [_]Present{ later, later, later, later, later };
    others[0].note.what = "b";
    others[1].note.lsn.value = 99;
    others[2].xmax = 5_000_000_000 + numbers_max;
    others[3].xmax = 4_999_999_999;
    others[4].note.files = &.{ .{ .table = 1, .node = 11 }, .{ .table = 2, .node = 21 } };
    for (&others) |*other| try std.testing.expect(try other.follow(a, &earlier) == .unfit);
}

test "pieces that lie side by side are one range" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var parts: [5]Shard.Part = undefined;
    const bounds = [5]Range{
        .{ .from = 30, .before = null },
        .{ .from = 5, .before = 10 },
        .{ .from = null, .before = 5 },
        .{ .from = 10, .before = 10 },
        .{ .from = 10, .before = 20 },
    };
    for (&parts, bounds) |*part, blocks| part.* = .{ .blocks = blocks };
    try std.testing.expectEqualDeep(
        @as([]const Range, &.{ .{ .from = null, .before = 20 }, .{ .from = 30, .before = null } }),
        try rangesOf(arena.allocator(), &parts),
    );
}
