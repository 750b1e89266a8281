//! What must be there before a stream is written: the schemas, and the table of watermarks as it is now.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const watermark = @import("watermark.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

pub fn schemaExists(arena: Allocator, session: *Session, name: []const u8) !bool {
    const found = try session.query(
        arena,
        "SELECT 1 FROM pg_namespace WHERE nspname = $1",
        &.{name},
        "looking for the schema",
    );
    return found.rows.len > 0;
}

/// Creates what is missing, in a transaction of its own. Streams that start together, of this pipeline or another, take
/// turns under one lock: without it, one of them would see the other's half-made schema as a violated unique index.
pub fn prepare(arena: Allocator, session: *Session, target_schema: []const u8) !void {
    if (try isReady(arena, session, target_schema)) return;
    try session.begin();
    errdefer session.rollback();
    const doing = "creating schemas and the table of watermarks";
    _ = try session.query(
        arena,
        "SELECT pg_advisory_xact_lock(hashtextextended('rapidbyte: creating schemas', 0))",
        &.{},
        doing,
    );
    for ([_][]const u8{ session.schema, target_schema }) |schema| {
        if (try schemaExists(arena, session, schema)) continue;
        const quoted = try postgres.ident.quote(arena, schema);
        try session.exec(try std.fmt.allocPrint(arena, "CREATE SCHEMA {s}", .{quoted}), doing);
        sdk.host.log(.info, "created schema {s}", .{quoted});
    }
    switch (try watermark.find(arena, session)) {
        .missing => try watermark.create(arena, session),
        .first_version => try watermark.upgrade(arena, session),
        .current => {},
    }
    try session.commit(arena);
}

fn isReady(arena: Allocator, session: *Session, target_schema: []const u8) !bool {
    return try schemaExists(arena, session, target_schema) and try watermark.find(arena, session) == .current;
}
