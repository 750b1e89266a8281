//! dest-postgres: writes streams into tables of a PostgreSQL database.
//!
//!     root.zig        the verbs
//!     session.zig       one connection, the stream's lock, how errors are told
//!     watermark.zig     what was committed last, beside the data
//!     check.zig         rb_check
//!     rewind.zig        rb_rewind
//!     digest.zig        rb_digest: what is in a table, in few digits
//!     compare.zig       rb_compare: how a stream and its table differ
//!     stage.zig         rb_stage: where the shards of a stream leave their rows
//!       ledger.zig        which of them are there, and what a later run has to know
//!     write.zig         rb_write: what comes next, and what is committed when
//!       shape.zig         the stream's columns
//!       landing.zig       the table, and which of the stream's columns go into it
//!         relation.zig      the target table as the catalog has it
//!         columns.zig       which column of the stream goes where, as what type
//!         evolution.zig     what the policy makes of the differences; policy.zig
//!         widening.zig      which types hold every value of another
//!         drift.zig         … and what the host is told
//!       append.zig        rows added to the target
//!       replace.zig       rows in the target's place
//!         swap.zig          … by exchanging the tables
//!         rewrite.zig       … by deleting and inserting
//!       upsert.zig        rows by their keys
//!         merge.zig         … from a table of new ones into the target
//!         arbiter.zig       the unique index that says which keys are the same
//!         distinct.zig      whether keys are surely all different
//!       shard.zig         rows of one shard, staged
//!       retention.zig     which of them are still there in a later snapshot
//!       publication.zig   staged rows of all shards, into the target or in its place
//!       guard.zig         … but for the rows that fail on their data, where they are to be left out
//!         ranges.zig        what it sifts: batches, or tables of rows that wait
//!         screening.zig     which rows the target's constraints would refuse
//!         refusal.zig       why a row is refused
//!         letters.zig       … and what it holds, as a dead letter
//!     apply.zig         rb_apply: the changes of several tables, kept in step with their sources in one transaction
//!       changes.zig       what their messages say, and where they wait
//!         cells.zig         single values of them
//!       replica.zig       one table that is kept in step
//!         net.zig           what its changes come to
//!         mirror.zig        … written by key
//!         multiset.zig      … by whole rows, where there is no key
//!         history.zig       or every change as a row of its own
//!         pouring.zig       rows of them -> COPY
//!       application.zig   all that waits, in the order that constraints ask for; halved until it is known what fails
//!         claims.zig        the tables locked, and as they were
//!         precedence.zig    which tables refer to which
//!         truncation.zig    tables that are emptied
//!       load.zig          batches -> COPY
//!         encode.zig        Arrow -> COPY's binary format; numeric.zig
//!         conversion.zig    text forms -> values, by the server
//!     sql/              queries of the catalog that are too long for a line

const std = @import("std");
const sdk = @import("sdk");
const apply_verb = @import("apply.zig");
const check_verb = @import("check.zig");
const digest_verb = @import("digest.zig");
const compare_verb = @import("compare.zig");
const rewind_verb = @import("rewind.zig");
const stage_verb = @import("stage.zig");
const watermark = @import("watermark.zig");
const write_verb = @import("write.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const panic = sdk.connector.panic;
pub const std_options = sdk.connector.std_options;

comptime {
    sdk.connector.exports(@This());
}

pub const role: sdk.connector.Role = .destination;
pub const manifest = @embedFile("manifest.json");

/// What `open` made and the other verbs use.
var current: ?*Session = null;

fn session() sdk.errors.Failed!*Session {
    return current orelse sdk.fail(.protocol, "rb_open comes first", .{});
}

const Opened = struct {
    server: []const u8,
    watermark: ?watermark.Watermark = null,
    /// Shards that an interrupted run has left.
    staged: ?stage_verb.Left = null,
    watermarks: ?Watermarks = null,
};

/// Of each stream, in the order of the argument.
const Watermarks = struct {
    streams: []const []const u8,
    found: []const ?watermark.Watermark,

    pub fn jsonStringify(self: Watermarks, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        for (self.streams, self.found) |stream, found| {
            try writer.objectField(stream);
            try writer.write(found);
        }
        try writer.endObject();
    }
};

pub fn open(arena: Allocator, argument: json.Value) !Opened {
    if (current != null) return sdk.fail(.protocol, "rb_open was called before", .{});
    const opened = try Session.open(sdk.connector.gpa, argument);
    errdefer opened.close();
    // A shard's rows are published by the session that holds the stream's lock.
    var last: ?watermark.Watermark = null;
    var left: ?stage_verb.Left = null;
    if (opened.stream != null and opened.shard == null) {
        try opened.lockStream(arena, opened.stream.?);
        last = try watermark.read(arena, opened);
        left = try stage_verb.lookForLeft(arena, opened);
    }
    const all: ?Watermarks = if (opened.streams.len > 0) try lockAll(arena, opened) else null;
    current = opened;
    return .{
        .server = try std.fmt.allocPrint(arena, "PostgreSQL {s}", .{opened.connection.server_version_text}),
        .watermark = last,
        .staged = left,
        .watermarks = all,
    };
}

fn lockAll(arena: Allocator, opened: *Session) !Watermarks {
    if (opened.stream != null) return sdk.fail(.protocol, "rb_open names one stream, or several, and not both", .{});
    // Always in one order, so that two runs do not wait for each other.
    const sorted = try arena.dupe([]const u8, opened.streams);
    std.mem.sort([]const u8, sorted, {}, isBefore);
    for (sorted) |stream| try opened.lockStream(arena, stream);
    const found = try arena.alloc(?watermark.Watermark, opened.streams.len);
    for (found, opened.streams) |*one, stream| one.* = try watermark.readOf(arena, opened, stream);
    return .{ .streams = opened.streams, .found = found };
}

fn isBefore(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.lessThan(u8, a, b);
}

pub fn check(arena: Allocator, argument: json.Value) !check_verb.Report {
    return check_verb.check(arena, try session(), argument);
}

pub fn compare(arena: Allocator, argument: json.Value) !compare_verb.Compared {
    return compare_verb.compare(arena, try session(), argument);
}

pub fn write(arena: Allocator, argument: json.Value) !write_verb.Written {
    return write_verb.write(arena, try session(), argument);
}

pub fn apply(arena: Allocator, argument: json.Value) !apply_verb.Applied {
    return apply_verb.apply(arena, try session(), argument);
}

pub fn digest(arena: Allocator, argument: json.Value) !digest_verb.Digest {
    return digest_verb.digest(arena, try session(), argument);
}

pub fn stage(arena: Allocator, argument: json.Value) !stage_verb.Answer {
    return stage_verb.stage(arena, try session(), argument);
}

pub fn rewind(arena: Allocator, argument: []const u8) !void {
    return rewind_verb.rewind(arena, try session(), argument);
}

pub fn close(arena: Allocator, _: json.Value) !void {
    const opened = current orelse return;
    current = null;
    defer opened.close();
    stage_verb.discard(arena, opened);
}

test {
    _ = @import("cells.zig");
    _ = @import("columns.zig");
    _ = @import("conversion.zig");
    _ = @import("distinct.zig");
    _ = @import("encode.zig");
    _ = @import("letters.zig");
    _ = @import("numeric.zig");
    _ = @import("refusal.zig");
    _ = @import("shape.zig");
    _ = @import("widening.zig");
}
