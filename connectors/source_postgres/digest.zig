//! rb_digest: how many rows a table has, and a hash of what is in them, whatever their order.
//!
//! The destination's connector makes the same of its table: the sums, each modulo 2^64, of two 64-bit hashes of every row's
//! text. The text is the columns' text forms in the order of their names, quoted and joined, so that no two rows that differ
//! have the same.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Snapshot = @import("stream.zig").Snapshot;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const ident = postgres.ident;
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
    try sql.appendSlice(arena, "SELECT pg_catalog.count(*), ");
    try appendSum(&sql, arena, 0);
    try sql.appendSlice(arena, " OPERATOR(pg_catalog.||) ");
    try appendSum(&sql, arena, 1);
    try sql.appendSlice(arena, "\nFROM (SELECT (");
    for (sorted, 0..) |name, i| {
        if (i > 0) try sql.appendSlice(arena, " OPERATOR(pg_catalog.||) ',' OPERATOR(pg_catalog.||) ");
        try sql.print(
            arena,
            "COALESCE(pg_catalog.quote_literal({s}::pg_catalog.text), 'N')",
            .{try ident.quote(arena, name)},
        );
    }
    try sql.appendSlice(arena, if (sorted.len == 0) "''" else "");
    try sql.appendSlice(arena, ") COLLATE pg_catalog.\"C\" AS row_text");
    try selection.appendFrom(&sql, arena);
    try sql.appendSlice(arena, "\n) rows_of_it");
    const found = try session.rows(2, arena, sql.items, &.{}, selection.doing);
    if (found.len != 1) return selection.changed();
    try session.commit();
    const columns = try arena.alloc(json.Text, sorted.len);
    for (columns, sorted) |*text, name| text.* = .{ .bytes = name };
    return .{ .rows = found[0].number(u64, 0), .hash = found[0].text(1), .columns = columns };
}

/// 16 digits: the sum of all hashes modulo 2^64, as the bigint of the same bits.
fn appendSum(sql: *std.ArrayList(u8), arena: Allocator, seed: u1) Allocator.Error!void {
    try sql.print(
        arena,
        "pg_catalog.lpad(pg_catalog.to_hex((pg_catalog.mod(pg_catalog.mod(COALESCE(pg_catalog.sum(" ++
            "pg_catalog.hashtextextended(row_text, {d})::pg_catalog.numeric), 0)" ++
            " OPERATOR(pg_catalog.+) 9223372036854775808, 18446744073709551616)" ++
            " OPERATOR(pg_catalog.+) 18446744073709551616, 18446744073709551616)" ++
            " OPERATOR(pg_catalog.-) 9223372036854775808)::pg_catalog.int8), 16, '0')",
        .{seed},
    );
}

fn isBefore(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.lessThan(u8, a, b);
}
