//! The watermark of a stream: the sequence number and cursor of its last commit, the run that made it, and whether it
//! was that run's last, in a table beside the data and written in the data's own transaction. Whoever wonders whether a
//! commit happened looks here.
//!
//!     _rapidbyte_watermarks(pipeline, stream) -> sequence, cursor, committed_at, run_id, final
//!
//! Tables of the first version have neither `run_id` nor `final`: they are read as they are, and get both before the
//! next commit.

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
    /// Null where it was written before run ids were kept.
    run_id: ?[]const u8 = null,
    final: bool = false,
};

pub const Table = enum { missing, first_version, current };

fn tableOf(arena: Allocator, session: *const Session) ![]const u8 {
    return postgres.ident.qualified(arena, session.schema, table_name);
}

pub fn find(arena: Allocator, session: *Session) !Table {
    const found = try session.query(arena,
        \\SELECT (SELECT count(*) FROM pg_attribute a
        \\        WHERE a.attrelid = c.oid AND a.attname IN ('run_id', 'final') AND NOT a.attisdropped) = 2
        \\FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        \\WHERE n.nspname = $1 AND c.relname = $2
    , &.{ session.schema, table_name }, "looking for the watermarks");
    if (found.rows.len == 0) return .missing;
    return if (isTrue(found.scalar())) .current else .first_version;
}

fn isTrue(text: ?[]const u8) bool {
    return std.mem.eql(u8, text orelse "", "t");
}

/// Of the session's stream; null when it never committed.
pub fn read(arena: Allocator, session: *Session) !?Watermark {
    return readOf(arena, session, session.stream.?);
}

pub fn readOf(arena: Allocator, session: *Session, stream: []const u8) !?Watermark {
    const columns = switch (try find(arena, session)) {
        .missing => return null,
        .first_version => "sequence, cursor, NULL, NULL",
        .current => "sequence, cursor, run_id, final",
    };
    const sql = try std.fmt.allocPrint(
        arena,
        "SELECT {s} FROM {s} WHERE pipeline = $1 AND stream = $2",
        .{ columns, try tableOf(arena, session) },
    );
    const found = try session.query(arena, sql, &.{ session.pipeline, stream }, "reading the watermark");
    if (found.rows.len == 0) return null;
    return .{
        .sequence = std.fmt.parseInt(u64, found.rows[0][0] orelse "", 10) catch
            return sdk.fail(.protocol, "the watermark's sequence is not a number", .{}),
        .cursor = try parseExactly(arena, found.rows[0][1] orelse "null"),
        .run_id = found.rows[0][2],
        .final = isTrue(found.rows[0][3]),
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

/// Where it is missing; inside `home.prepare`.
pub fn create(arena: Allocator, session: *Session) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\CREATE TABLE {s} (
        \\    pipeline text NOT NULL,
        \\    stream text NOT NULL,
        \\    sequence bigint NOT NULL,
        \\    cursor json,
        \\    committed_at timestamp with time zone NOT NULL,
        \\    run_id text,
        \\    final boolean NOT NULL DEFAULT false,
        \\    PRIMARY KEY (pipeline, stream)
        \\)
    , .{try tableOf(arena, session)});
    try session.exec(sql, "creating the table of watermarks");
}

/// Where it is of the first version; inside `home.prepare`.
pub fn upgrade(arena: Allocator, session: *Session) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\ALTER TABLE {s} ADD COLUMN IF NOT EXISTS run_id text,
        \\    ADD COLUMN IF NOT EXISTS final boolean NOT NULL DEFAULT false
    , .{try tableOf(arena, session)});
    try session.exec(sql, "adding columns to the table of watermarks");
}

/// Inside the data's transaction.
pub fn write(arena: Allocator, session: *Session, watermark: Watermark) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\INSERT INTO {s} AS w (pipeline, stream, sequence, cursor, committed_at, run_id, final)
        \\VALUES ($1, $2, $3::bigint, $4::json, clock_timestamp(), $5, $6::boolean)
        \\ON CONFLICT (pipeline, stream) DO UPDATE
        \\SET sequence = excluded.sequence, cursor = excluded.cursor, committed_at = excluded.committed_at,
        \\    run_id = excluded.run_id, final = excluded.final
    , .{try tableOf(arena, session)});
    const sequence = try std.fmt.allocPrint(arena, "{d}", .{watermark.sequence});
    const cursor = try json.stringify(arena, watermark.cursor);
    _ = try session.query(
        arena,
        sql,
        &.{
            session.pipeline,
            session.stream.?,
            sequence,
            cursor,
            watermark.run_id,
            if (watermark.final) "true" else "false",
        },
        "writing the watermark",
    );
}

/// Of several streams, in one statement.
pub fn writeAll(arena: Allocator, session: *Session, marks: []const Mark, final: bool) !void {
    const sql = try std.fmt.allocPrint(arena,
        \\INSERT INTO {s} AS w (pipeline, stream, sequence, cursor, committed_at, run_id, final)
        \\SELECT $1, m.stream, m.sequence, m.cursor, pg_catalog.clock_timestamp(), $2, $3::boolean
        \\FROM pg_catalog.json_to_recordset($4::json) AS m(stream text, sequence bigint, cursor json)
        \\ON CONFLICT (pipeline, stream) DO UPDATE
        \\SET sequence = excluded.sequence, cursor = excluded.cursor, committed_at = excluded.committed_at,
        \\    run_id = excluded.run_id, final = excluded.final
    , .{try tableOf(arena, session)});
    _ = try session.query(
        arena,
        sql,
        &.{ session.pipeline, session.run_id, if (final) "true" else "false", try json.stringify(arena, marks) },
        "writing the watermarks",
    );
}

pub const Mark = struct { stream: []const u8, sequence: u64, cursor: json.Value };
