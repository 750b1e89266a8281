//! rb_split: a relation in parts that others read side by side, all of them in the snapshot of this session.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const shards = @import("shard.zig");
const Family = @import("cursor_column.zig").Family;
const Note = @import("pieces.zig").Note;
const Present = @import("pieces.zig").Present;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Shard = shards.Shard;
const Since = @import("pieces.zig").Since;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const canonical = postgres.canonical;
const json = sdk.json;

/// What a part of a table is worth a session of its own, in bytes, where nobody named a number of parts.
const auto_shard_bytes = 256 * 1024 * 1024;
/// The version that reads a range of a table's blocks without reading the others.
const block_ranges_since = 140_000;

/// Pieces of one table at most, however large it is: what is known of each is written down.
const pieces_max = 1000;

pub const Division = struct {
    /// Empty: the relation is to be read in one piece.
    shards: []const Shard,
    /// Why it is.
    reason: ?json.Text = null,
    /// Of shards that a later run can take up: what it has to be told.
    note: ?Note = null,
    /// Whether they go on with the load that the host told of, which has some of them already.
    resumes: bool = false,
    /// What has changed of these since, where anything can have.
    since: ?Since = null,
    /// Whether all of their rows are as they were: if any came, they are others.
    complete: bool = false,
};

const Argument = struct {
    stream: Stream,
    max_shards: u32,
    /// Of a load that is to be taken up where it was interrupted; null: it is not.
    piece_bytes: ?u64 = null,
    /// What there is of one that was.
    resumes: ?Left = null,

    /// Its note, the shards that are loaded, by number, and how many rows they have.
    const Left = struct { note: json.Value, loaded: []const u32, rows: u64 };
};

/// What the relation is divided by.
const Plan = union(enum) {
    whole: []const u8,
    /// Of the files that hold it.
    blocks: []const u64,
    column: []const u8,
};

/// Leaves the transaction open: for the shards, which live in its snapshot, or for the read of the whole.
pub fn split(arena: Allocator, session: *Session, argument: json.Value) !Division {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const stream = &parsed.stream;
    if (try stream.mode() == .incremental) return whole("an incremental stream is read in its cursor's order");
    if (parsed.piece_bytes == null) if (reasonForOne(&parsed)) |reason| return reason;

    try session.beginAsked(arena, stream);
    errdefer session.rollback();
    var selection: Selection = try .find(arena, session, stream.*);
    const storage: Storage = try .find(arena, session, &selection);
    if (try inPieces(arena, session, &selection, &storage, &parsed)) |division| return division;
    if (reasonForOne(&parsed)) |reason| return reason;
    const wanted = @min(parsed.max_shards, stream.shards orelse blk: {
        if (storage.unsuitable) |reason| return whole(if (stream.partition_key == null)
            reason
        else
            "its size is not known: set the number of `shards`");
        if (stream.partition_key == null and session.connection.server_version < block_ranges_since)
            return whole("this server reads a range of blocks only by reading all of them (PostgreSQL 14 does not)");
        if (storage.bytes < 2 * auto_shard_bytes) return whole(try std.fmt.allocPrint(
            arena,
            "it has {d} MB, and parts of {d} MB are worth a session",
            .{ storage.bytes >> 20, auto_shard_bytes >> 20 },
        ));
        break :blk storage.bytes / auto_shard_bytes;
    });
    if (stream.partition_key == null) if (storage.unsuitable) |reason| return whole(reason);

    try selection.probe(arena, session);
    const parts = if (stream.partition_key) |name|
        try partsOfColumn(arena, session, &selection, name, wanted)
    else
        try partsOfBlocks(arena, try cutsOf(arena, storage.files, wanted));
    if (parts.len <= 1) return whole(try std.fmt.allocPrint(
        arena,
        "there is too little to divide: {s}",
        .{if (stream.partition_key == null) "a block of rows" else "a value of partition_key"},
    ));
    if (stream.partition_key == null and session.connection.server_version < block_ranges_since) sdk.host.log(
        .warning,
        "each part reads the whole table to find its rows: a server from PostgreSQL 14 on would not have to",
        .{},
    );
    try selection.checkArrays(arena, session);
    return .{ .shards = try share(arena, session, &selection, stream, parts) };
}

/// Null: more than one part may be read.
fn reasonForOne(argument: *const Argument) ?Division {
    if (argument.stream.shards == 1) return .{ .shards = &.{} };
    if (argument.max_shards <= 1) return whole("no more than one part can be read at once");
    return null;
}

/// Null: the table is small, or nobody could tell later which of its rows are still the same.
fn inPieces(
    arena: Allocator,
    session: *Session,
    selection: *Selection,
    storage: *const Storage,
    argument: *const Argument,
) !?Division {
    const stream = &argument.stream;
    const piece_bytes = argument.piece_bytes orelse return null;
    const snapshot = if (stream.snapshot) |*given| given else return null;
    if (snapshot.system == null or stream.write_mode != .upsert or stream.partition_key != null) return null;
    if (selection.unique.len == 0 or selection.printsNames() or storage.unsuitable != null) return null;
    if (session.connection.server_version < block_ranges_since) return null;
    const number = @min(pieces_max, std.math.divCeil(u64, storage.bytes_in_all, @max(1, piece_bytes)) catch unreachable);
    if (number <= 1) return null;
    const at_once = @min(argument.max_shards, stream.shards orelse storage.bytes / auto_shard_bytes);

    try selection.probe(arena, session);
    try selection.checkArrays(arena, session);
    var present = try Note.take(arena, session, selection, snapshot, try cutsOf(arena, storage.files, @max(number, at_once)));
    const note = &present.note;
    if (note.cuts.len == 0) return null;
    var division: Division = .{ .shards = &.{} };
    var parts = try partsOfBlocks(arena, note.cuts);
    if (argument.resumes) |left| {
        const earlier = try Note.read(arena, left.note);
        const step: Present.Step = if (earlier) |*found|
            try present.follow(arena, found)
        else
            .{ .unfit = "another version of this connector began it" };
        if (step == .unfit)
            sdk.host.log(.info, "{s}: the load that was interrupted is of no use: {s}", .{ selection.doing, step.unfit })
        else {
            division.resumes = true;
            note.cuts = earlier.?.cuts;
            parts = try partsOfBlocks(arena, note.cuts);
            if (step == .since) {
                division.since = step.since;
                division.complete = try step.since.rowsKept(arena, session, selection, parts, left.loaded) == left.rows;
            }
        }
    }
    division.note = note.*;
    division.shards = try share(arena, session, selection, stream, parts);
    return division;
}

fn whole(reason: []const u8) Division {
    return .{ .shards = &.{}, .reason = .{ .bytes = reason } };
}

/// Gives the snapshot to every part: this session's, unless it is another's already. Tells what rows of all look like.
fn share(
    arena: Allocator,
    session: *Session,
    selection: *const Selection,
    stream: *const Stream,
    parts: []const Shard.Part,
) ![]const Shard {
    selection.warnOfRowSecurity();
    const schema = try selection.schema(arena);
    try sdk.host.emitBytes(try sdk.arrow.writer.encodeSchema(arena, &schema));
    var as_text: std.ArrayList([]const u8) = .empty;
    for (selection.columns) |column| {
        if (column.of.element != null and column.as_text) try as_text.append(arena, column.of.name);
    }
    const snapshot = if (stream.snapshot) |given| given.id else own: {
        const exported = try session.rows(1, arena, "SELECT pg_catalog.pg_export_snapshot()", &.{}, selection.doing);
        if (exported.len != 1) return selection.changed();
        break :own exported[0].text(0);
    };
    const made = try arena.alloc(Shard, parts.len);
    for (made, parts) |*shard, part| shard.* = .{
        .snapshot = snapshot,
        .as_text = as_text.items,
        .part = part,
    };
    return made;
}

/// Where a relation's rows lie.
const Storage = struct {
    /// Blocks of each file.
    files: []const u64,
    bytes: u64,
    /// With what is stored out of line.
    bytes_in_all: u64,
    /// Why its rows cannot be told apart by where they lie.
    unsuitable: ?[]const u8,

    fn find(arena: Allocator, session: *Session, selection: *const Selection) !Storage {
        const found = try session.rows(
            5,
            arena,
            @embedFile("sql/heirs.sql") ++ @embedFile("sql/storage.sql"),
            &.{selection.relation.oid},
            selection.doing,
        );
        const files = try arena.alloc(u64, found.len);
        var self: Storage = .{ .files = files, .bytes = 0, .bytes_in_all = 0, .unsuitable = null };
        for (files, found) |*blocks, row| {
            blocks.* = row.number(u64, 2);
            self.bytes += blocks.* * row.number(u64, 3);
            self.bytes_in_all += row.number(u64, 4);
            switch (row.letter(0)) {
                'r', 'm' => if (!std.mem.eql(u8, row.text(1), "heap")) {
                    self.unsuitable = "its rows are not stored in a heap: name a partition_key";
                },
                'f' => self.unsuitable = "rows of a foreign table have no place here: name a partition_key",
                else => self.unsuitable = "rows of a view have no place of their own: name a partition_key",
            }
        }
        return self;
    }
};

/// Where all parts but the first begin.
fn cutsOf(arena: Allocator, files: []const u64, wanted: u64) ![]const u64 {
    var longest: u64 = 0;
    for (files) |blocks| longest = @max(longest, blocks);
    const count = @min(wanted, longest);
    if (count <= 1) return &.{};
    const cuts = try arena.alloc(u64, @intCast(count - 1));
    shards.cutBlocks(files, cuts);
    return cuts;
}

fn partsOfBlocks(arena: Allocator, cuts: []const u64) ![]const Shard.Part {
    const parts = try arena.alloc(Shard.Part, cuts.len + 1);
    for (parts, 0..) |*part, i| part.* = .{ .blocks = .{
        .from = if (i == 0) null else cuts[i - 1],
        .before = if (i == cuts.len) null else cuts[i],
    } };
    return parts;
}

fn partsOfColumn(
    arena: Allocator,
    session: *Session,
    selection: *const Selection,
    name: []const u8,
    wanted: u64,
) ![]const Shard.Part {
    const column = selection.relation.column(name).?;
    const family = Family.ofColumn(column);
    if (family) |ordered| switch (ordered) {
        .integer, .date, .timestamp, .timestamptz => return partsOfRange(arena, session, selection, name, ordered, wanted),
        else => {},
    };
    const parts = try arena.alloc(Shard.Part, @intCast(wanted));
    for (parts, 0..) |*part, i| part.* = .{ .hash = .{
        .column = name,
        .of = @intCast(parts.len),
        .remainder = @intCast(i),
    } };
    return parts;
}

fn partsOfRange(
    arena: Allocator,
    session: *Session,
    selection: *const Selection,
    name: []const u8,
    family: Family,
    wanted: u64,
) ![]const Shard.Part {
    const sql_name = try selection.columnSql(arena, name);
    var of_finite = selection.*;
    if (family != .integer)
        of_finite.conditions = &.{try std.fmt.allocPrint(arena, "pg_catalog.isfinite({s})", .{sql_name})};
    var sql: std.ArrayList(u8) = .empty;
    try sql.print(arena, "SELECT pg_catalog.min({s}), pg_catalog.max({s})", .{ sql_name, sql_name });
    try of_finite.appendFrom(&sql, arena);
    const found = try session.rows(2, arena, sql.items, &.{}, selection.doing);
    if (found.len == 0) return &.{};
    const first = instant(family, found[0].optional(0) orelse return &.{}) orelse return &.{};
    const last = instant(family, found[0].optional(1) orelse return &.{}) orelse return &.{};
    if (last <= first) return &.{};
    // As many values as there can be parts.
    const count: usize = @intCast(@min(wanted, @as(u128, @intCast(@as(i128, last) - first)) + 1));
    const cuts = try arena.alloc(i64, count - 1);
    shards.cutRange(first, last, cuts);
    const bounds = try arena.alloc([]const u8, cuts.len);
    for (bounds, cuts) |*bound, cut| {
        var text: std.ArrayList(u8) = .empty;
        switch (family) {
            .date => try canonical.appendDate(&text, arena, @intCast(cut)),
            .integer => try text.print(arena, "{d}", .{cut}),
            else => try canonical.appendTimestamp(&text, arena, cut, family.zone()),
        }
        bound.* = text.items;
    }
    const parts = try arena.alloc(Shard.Part, count);
    for (parts, 0..) |*part, i| part.* = .{ .range = .{ .column = name, .type = family, .bounds = .{
        .from = if (i == 0) null else bounds[i - 1],
        .before = if (i == bounds.len) null else bounds[i],
    } } };
    return parts;
}

/// A value as the server prints it, as a number.
fn instant(family: Family, text: []const u8) ?i64 {
    return switch (family) {
        .date => canonical.parseDate(text) orelse return null,
        .integer => std.fmt.parseInt(i64, text, 10) catch null,
        else => canonical.parseTimestamp(text, family.zone()),
    };
}
