//! The watermark of a stream: the sequence number and cursor of its last commit, in a table beside the data and written
//! in the data's own transaction. Whoever wonders whether a commit happened looks here.
//!
//!     _rapidbyte_watermarks(pipeline, stream) -> sequence, cursor, committed_at

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const table_name = "_rapidbyte_watermarks";

pub const Watermark = struct {
    sequence: u64,
    cursor: json.Value,
};

fn tableOf(arena: Allocator, session: *const Session) ![]const u8 {
    return postgres.ident.qualified(arena, session.schema, table_name);
}

pub fn exists(arena: Allocator, session: *Session) !bool {
    const found = try session.query(
        arena,
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
        &.{ session.schema, table_name },
        "looking for the watermarks",
    );
    return found.rows.len > 0;
}

/// Null when the stream never committed.
pub fn read(arena: Allocator, session: *Session) !?Watermark {
    if (!try exists(arena, session)) return null;
    const sql = try std.fmt.allocPrint(
        arena,
        "SELECT sequence, cursor FROM {s} WHERE pipeline = $1 AND stream = $2",
        .{try tableOf(arena, session)},
    );
    const found = try session.query(arena, sql, &.{ session.pipeline, session.stream.? }, "reading the watermark");
    if (found.rows.len == 0) return null;
    return .{
        .sequence = std.fmt.parseInt(u64, found.rows[0][0] orelse "", 10) catch
            return sdk.fail(.protocol, "the watermark's sequence is not a number", .{}),
        .cursor = try parseExactly(arena, found.rows[0][1] orelse "null"),
    };
}

/// Numbers stay text, so that a cursor comes back digit for digit.
pub fn parseExactly(arena: Allocator, text: []const u8) !json.Value {
    return std.json.parseFromSliceLeaky(json.Value, arena, text, .{ .parse_numbers = false, .allocate = .alloc_always }) catch |err|
        switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            else => sdk.fail(.protocol, "a cursor is not JSON", .{}),
        };
}

/// Creates the table where it is missing. Streams that start together take turns (`Session.ddl_lock`).
pub fn create(arena: Allocator, session: *Session) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\CREATE TABLE {s} (
        \\    pipeline text NOT NULL,
        \\    stream text NOT NULL,
        \\    sequence bigint NOT NULL,
        \\    cursor json,
        \\    committed_at timestamp with time zone NOT NULL,
        \\    PRIMARY KEY (pipeline, stream)
        \\)
    , .{try tableOf(arena, session)});
    try session.exec(sql, "creating the table of watermarks");
}

/// Inside the data's transaction.
pub fn write(arena: Allocator, session: *Session, watermark: Watermark) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\INSERT INTO {s} AS w (pipeline, stream, sequence, cursor, committed_at)
        \\VALUES ($1, $2, $3::bigint, $4::json, clock_timestamp())
        \\ON CONFLICT (pipeline, stream) DO UPDATE
        \\SET sequence = excluded.sequence, cursor = excluded.cursor, committed_at = excluded.committed_at
    , .{try tableOf(arena, session)});
    const sequence = try std.fmt.allocPrint(arena, "{d}", .{watermark.sequence});
    const cursor = try json.stringify(arena, watermark.cursor);
    _ = try session.query(
        arena,
        sql,
        &.{ session.pipeline, session.stream.?, sequence, cursor },
        "writing the watermark",
    );
}
