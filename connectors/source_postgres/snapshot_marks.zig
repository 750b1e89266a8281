//! What a row of a captured table's first snapshot has beside its columns, so that it is like the changes that follow.
//!
//!     kept as history   _rb_op text = insert, _rb_lsn pg_lsn, _rb_seq bigint = 0, _rb_commit_ts timestamptz,
//!                       _rb_unchanged text[] = NULL, then the columns
//!     deleted softly    the columns, then _rb_deleted_at timestamptz = NULL
//!
//! LSN and time are the snapshot's. Columns of a history may be NULL whatever the table says: of a deleted row only the
//! identity is told.

const std = @import("std");
const postgres = @import("postgres");
const Column = @import("selection.zig").Column;
const RelationColumn = @import("relation.zig").Column;
const Selection = @import("selection.zig").Selection;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const ident = postgres.ident;
const oid = postgres.types.oid;

/// Built-in like those of `postgres.types.oid`, but crossing as text or as a list.
const pg_lsn_oid = 3220;
const text_array_oid = 1009;

pub fn surround(arena: Allocator, selection: *Selection, stream: *const Stream) Allocator.Error!void {
    var columns: std.ArrayList(Column) = .empty;
    if (stream.write_mode == .append) {
        const lsn = if (stream.snapshot) |snapshot| snapshot.lsn else "0/0";
        const taken_at: ?[]const u8 = if (stream.snapshot) |snapshot| snapshot.taken_at else null;
        try columns.appendSlice(arena, &.{
            try mark(arena, "_rb_op", "text", oid.text, false, "'insert'::pg_catalog.text"),
            try mark(arena, "_rb_lsn", "pg_lsn", pg_lsn_oid, false, try std.fmt.allocPrint(
                arena,
                "({s}::pg_catalog.pg_lsn)::pg_catalog.text",
                .{try ident.literal(arena, lsn)},
            )),
            try mark(arena, "_rb_seq", "bigint", oid.int8, false, "0::pg_catalog.int8"),
            try mark(arena, "_rb_commit_ts", "timestamp with time zone", oid.timestamptz, false, if (taken_at) |text|
                try std.fmt.allocPrint(arena, "{s}::pg_catalog.timestamptz", .{try ident.literal(arena, text)})
            else
                "pg_catalog.now()"),
            try mark(arena, "_rb_unchanged", "text[]", text_array_oid, true, "NULL::pg_catalog.text[]"),
        });
        for (selection.columns) |*column| {
            const relaxed = try arena.create(RelationColumn);
            relaxed.* = column.of.*;
            relaxed.nullable = true;
            column.of = relaxed;
        }
    }
    try columns.appendSlice(arena, selection.columns);
    if (stream.write_mode != .append and stream.deletes == .soft) try columns.append(arena, try mark(
        arena,
        "_rb_deleted_at",
        "timestamp with time zone",
        oid.timestamptz,
        true,
        "NULL::pg_catalog.timestamptz",
    ));
    selection.columns = columns.items;
}

fn mark(
    arena: Allocator,
    name: []const u8,
    type_name: []const u8,
    type_oid: u32,
    nullable: bool,
    sql: []const u8,
) Allocator.Error!Column {
    const of = try arena.create(RelationColumn);
    of.* = .{
        .name = name,
        .type_name = type_name,
        .type_oid = type_oid,
        .typmod = -1,
        .category = 'b',
        .nullable = nullable,
        .element = if (type_oid == text_array_oid)
            .{ .oid = oid.text, .category = 'b', .type_name = "text" }
        else
            null,
        .cast_differs = false,
        .prints_names = false,
    };
    return .{ .of = of, .as_text = of.native() == null, .sql = sql };
}
