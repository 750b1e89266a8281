//! Failures as the host understands them: a kind that decides about retries, a message, what to do about it.
//!
//! A guest is single-threaded and answers one verb at a time, so the record of what went wrong is one slot that
//! travels beside the Zig error: `return errors.fail(.auth, "…", .{…})`. The slot owns its text; failing allocates
//! nothing and therefore works when memory is what failed.

const std = @import("std");

/// Kinds of the connector ABI. Only the three of transience are tried again.
pub const Kind = enum {
    config,
    unsupported,
    schema,
    auth,
    permission,
    not_found,
    denied,
    tls,
    transient_network,
    transient_db,
    rate_limit,
    data,
    resource,
    timeout,
    cancelled,
    protocol,
    internal,
    /// A host function failed and the guest gives up because of it; the host knows the reason.
    host,
};

pub const Failure = struct {
    kind: Kind,
    message: []const u8,
    detail: ?[]const u8 = null,
    hint: ?[]const u8 = null,
    /// Five characters, when a server said so.
    sqlstate: ?[]const u8 = null,
    /// Whose fault it is, where several streams are written together and the others could go on.
    stream: ?[]const u8 = null,
};

/// Returned with a record in the slot; without one it is the host's status FAILED.
pub const Failed = error{Failed};

/// Bytes of all texts of one failure. A server's message, detail and hint are rarely beyond a few hundred bytes; what
/// does not fit is cut.
const text_limit = 16 * 1024;

var slot: ?Failure = null;
var text: [text_limit]u8 = undefined;
var text_used: usize = 0;

/// Records a failure with a formatted message.
pub fn fail(kind: Kind, comptime format: []const u8, args: anytype) Failed {
    return failHinted(kind, null, format, args);
}

/// `fail` with what the user should do.
pub fn failHinted(kind: Kind, hint: ?[]const u8, comptime format: []const u8, args: anytype) Failed {
    var writer: std.Io.Writer = .fixed(&format_buffer);
    // A message that is too long is cut: the writer holds what fitted.
    writer.print(format, args) catch {};
    return failWith(.{ .kind = kind, .message = writer.buffered(), .hint = hint });
}

/// Records a whole failure; all its texts are copied.
pub fn failWith(failure: Failure) Failed {
    // The texts may be slices of the slot's own: copied to the front one by one, in the order they are kept in.
    var copied: [text_limit]u8 = undefined;
    var used: usize = 0;
    const message = keep(&copied, &used, failure.message);
    const detail = if (failure.detail) |s| keep(&copied, &used, s) else null;
    const hint = if (failure.hint) |s| keep(&copied, &used, s) else null;
    const sqlstate = if (failure.sqlstate) |s| keep(&copied, &used, s) else null;
    const stream = if (failure.stream) |s| keep(&copied, &used, s) else null;
    @memcpy(text[0..used], copied[0..used]);
    text_used = used;
    slot = .{
        .kind = failure.kind,
        .message = text[message.start..message.end],
        .detail = if (detail) |s| text[s.start..s.end] else null,
        .hint = if (hint) |s| text[s.start..s.end] else null,
        .sqlstate = if (sqlstate) |s| text[s.start..s.end] else null,
        .stream = if (stream) |s| text[s.start..s.end] else null,
    };
    return error.Failed;
}

/// The failure that was just recorded is the fault of one stream: the others could go on.
pub fn ofStream(stream: []const u8, _: Failed) Failed {
    var failure = slot.?;
    failure.stream = stream;
    return failWith(failure);
}

/// The record of the last failure, null when there is none. Its texts live until the next one.
pub fn current() ?Failure {
    return slot;
}

/// Forgets a failure that was handled.
pub fn clear() void {
    slot = null;
}

var format_buffer: [text_limit / 2]u8 = undefined;

const Span = struct { start: usize, end: usize };

fn keep(into: *[text_limit]u8, used: *usize, value: []const u8) Span {
    const start = used.*;
    const length = @min(value.len, text_limit - start);
    @memcpy(into[start..][0..length], value[0..length]);
    used.* = start + length;
    return .{ .start = start, .end = used.* };
}

test "a failure keeps its texts" {
    defer clear();
    var hint = "look there".*;
    try std.testing.expectEqual(error.Failed, failHinted(.auth, &hint, "user {s}", .{"etl"}));
    @memset(&hint, 'x');
    try std.testing.expectEqualStrings("user etl", current().?.message);
    try std.testing.expectEqualStrings("look there", current().?.hint.?);
    try std.testing.expectEqual(null, current().?.detail);
}

test "a failure can be told to be one stream's" {
    defer clear();
    try std.testing.expectEqual(error.Failed, ofStream("orders", failHinted(.data, "mend it", "row {d}", .{7})));
    try std.testing.expectEqualStrings("orders", current().?.stream.?);
    try std.testing.expectEqualStrings("row 7", current().?.message);
    try std.testing.expectEqualStrings("mend it", current().?.hint.?);
}

test "a failure can be rewritten from its own texts" {
    defer clear();
    _ = &failHinted(.data, "hint", "first", .{});
    const first = current().?;
    _ = &failWith(.{ .kind = .schema, .message = first.hint.?, .hint = first.message });
    try std.testing.expectEqualStrings("hint", current().?.message);
    try std.testing.expectEqualStrings("first", current().?.hint.?);
}

test "a text that is too long is cut" {
    defer clear();
    const long: [text_limit + 1]u8 = @splat('a');
    _ = &failWith(.{ .kind = .data, .message = &long, .hint = "lost" });
    try std.testing.expectEqual(text_limit, current().?.message.len);
    try std.testing.expectEqual(0, current().?.hint.?.len);
    _ = &fail(.data, "{s}", .{&long});
    try std.testing.expectEqual(text_limit / 2, current().?.message.len);
}
