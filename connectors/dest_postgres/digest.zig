//! rb_digest: how many rows a table has, and a hash of what is in them, to be held against the source's. Rows that are kept
//! though they were deleted do not count, and neither do the columns that say such things.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const write = @import("write.zig");
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const Argument = struct {
    stream: write.Stream,
    /// Null: all that the table has.
    columns: ?[]const []const u8 = null,
};

pub const Digest = struct {
    rows: u64,
    /// 32 hexadecimal digits.
    hash: []const u8,
    /// Those that were looked at, by name.
    columns: []const []const u8,
};

pub fn digest(arena: Allocator, session: *Session, argument: json.Value) !Digest {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const stream = &parsed.stream;
    const target: Target = try .init(arena, stream.schema orelse session.schema, stream.table);
    if (stream.deletes == null and try stream.mode() == .append) return sdk.errors.failHinted(
        .unsupported,
        "compare a stream with `write_mode: upsert`",
        "{s} is a history: it has a row for each change, and its source for each row",
        .{target.label},
    );
    const relation = try target.find(arena, session) orelse
        return sdk.fail(.not_found, "{s} is not there", .{target.label});
    const names = parsed.columns orelse blk: {
        var all: std.ArrayList([]const u8) = .empty;
        for (relation.columns) |column| if (!std.mem.startsWith(u8, column.name, "_rb_")) try all.append(arena, column.name);
        break :blk all.items;
    };
    for (names) |name| if (relation.column(name) == null)
        return sdk.fail(.schema, "{s} has no column {s}", .{ target.label, name });
    const sorted = try arena.dupe([]const u8, names);
    std.mem.sort([]const u8, sorted, {}, isBefore);

    var sql: std.ArrayList(u8) = .empty;
    try postgres.digest.appendHead(&sql, arena, sorted);
    const living = if (relation.column("_rb_deleted_at") != null and stream.deletes == .soft) " WHERE \"_rb_deleted_at\" IS NULL" else "";
    try sql.print(arena, " FROM {s}{s}{s}", .{ target.quoted, living, postgres.digest.tail });
    const found = try session.query(arena, sql.items, &.{}, "reading what is in the table");
    if (found.rows.len != 1) return sdk.fail(.internal, "a digest of {s} has no row", .{target.label});
    return .{
        .rows = std.fmt.parseInt(u64, found.rows[0][0] orelse "0", 10) catch 0,
        .hash = found.rows[0][1] orelse "",
        .columns = sorted,
    };
}

fn isBefore(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.lessThan(u8, a, b);
}
