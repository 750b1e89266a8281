//! What is in rows, in few digits and whatever their order: the sums, each modulo 2^64, of two 64-bit hashes of every row's
//! text. The text is the columns' text forms, quoted and joined, so that no two rows that differ have the same.

const std = @import("std");
const ident = @import("ident.zig");

const Allocator = std.mem.Allocator;

/// `SELECT` of one row, the number of rows and 32 hexadecimal digits, up to the FROM of the rows; `tail` ends it. `columns`
/// are sorted by name, so that two tables agree.
pub fn appendHead(sql: *std.ArrayList(u8), arena: Allocator, columns: []const []const u8) Allocator.Error!void {
    try sql.appendSlice(arena, "SELECT pg_catalog.count(*), ");
    try appendSum(sql, arena, 0);
    try sql.appendSlice(arena, " OPERATOR(pg_catalog.||) ");
    try appendSum(sql, arena, 1);
    try sql.appendSlice(arena, "\nFROM (SELECT (");
    for (columns, 0..) |name, i| {
        if (i > 0) try sql.appendSlice(arena, " OPERATOR(pg_catalog.||) ',' OPERATOR(pg_catalog.||) ");
        try sql.print(
            arena,
            "COALESCE(pg_catalog.quote_literal({s}::pg_catalog.text), 'N')",
            .{try ident.quote(arena, name)},
        );
    }
    try sql.appendSlice(arena, if (columns.len == 0) "''" else "");
    try sql.appendSlice(arena, ") COLLATE pg_catalog.\"C\" AS row_text");
}

pub const tail = "\n) rows_of_it";

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
