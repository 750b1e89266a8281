//! rb_rewind: the stream's watermark is set by hand, and its next run goes on from there.

const std = @import("std");
const sdk = @import("sdk");
const home = @import("home.zig");
const stage = @import("stage.zig");
const watermark = @import("watermark.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// `argument` is the verb's JSON as text: the cursor in it is kept digit for digit.
pub fn rewind(arena: Allocator, session: *Session, argument: []const u8) !void {
    if (session.stream == null) return sdk.fail(.protocol, "rb_open named no stream to rewind", .{});
    if (session.shard != null) return sdk.fail(.protocol, "a shard has no watermark", .{});
    const value = try watermark.parseExactly(arena, argument);
    const wanted = try sdk.connector.parse(struct { watermark: struct { sequence: u64 } }, arena, value);
    const cursor = value.object.get("watermark").?.object.get("cursor") orelse .null;
    try home.prepare(arena, session, session.schema);
    try stage.dropLeftovers(arena, session, session.stream.?, stage.leftover_patience);
    try session.begin();
    errdefer session.rollback();
    try watermark.write(arena, session, .{
        .sequence = wanted.watermark.sequence,
        .cursor = cursor,
        .run_id = session.run_id,
    });
    try session.commit(arena);
}
