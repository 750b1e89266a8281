//! rb_digest: how many rows a table has, and a hash of what is in them, whatever their order.
//!
//! The destination's connector makes the same of its table.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Snapshot = @import("stream.zig").Snapshot;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const Argument = struct {
    stream: Stream,
    /// Null: all that the stream reads.
    columns: ?[]const []const u8 = null,
    snapshot: ?Snapshot = null,
};

pub const Digest = struct {
    rows: u64,
    /// 32 hexadecimal digits.
    hash: []const u8,
    /// Those that were looked at, by name.
    columns: []const json.Text,
};

pub fn digest(arena: Allocator, session: *Session, argument: json.Value) !Digest {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    var stream = parsed.stream;
    if (parsed.snapshot) |snapshot| stream.snapshot = snapshot;
    // The table's own rows, without what a history or a soft deletion adds to them.
    stream.deletes = null;
    if (stream.write_mode == .append) stream.write_mode = .replace;
    try session.beginAsked(arena, &stream);
    defer session.rollback();
    var selection: Selection = try .find(arena, session, stream);
    try selection.probe(arena, session);
    const names = parsed.columns orelse blk: {
        const all = try arena.alloc([]const u8, selection.columns.len);
        for (all, selection.columns) |*name, column| name.* = column.of.name;
        break :blk all;
    };
    for (names) |name| if (selection.place(name) == null)
        try selection.relation.missingColumns(arena, "the digest", name);
    const sorted = try arena.dupe([]const u8, names);
    std.mem.sort([]const u8, sorted, {}, isBefore);

    var sql: std.ArrayList(u8) = .empty;
    try postgres.digest.appendHead(&sql, arena, sorted);
    try selection.appendFrom(&sql, arena);
    try sql.appendSlice(arena, postgres.digest.tail);
    const found = try session.rows(2, arena, sql.items, &.{}, selection.doing);
    if (found.len != 1) return selection.changed();
    try session.commit();
    const columns = try arena.alloc(json.Text, sorted.len);
    for (columns, sorted) |*text, name| text.* = .{ .bytes = name };
    return .{ .rows = found[0].number(u64, 0), .hash = found[0].text(1), .columns = columns };
}

fn isBefore(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.lessThan(u8, a, b);
}
