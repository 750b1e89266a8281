//! source-postgres: reads tables, views and foreign tables of a PostgreSQL database.
//!
//!     root.zig        the verbs
//!     session.zig       one connection, how errors are told
//!     check.zig         rb_check
//!     discover.zig      rb_discover
//!     describe.zig      rb_describe: what a stream's rows look like, without any
//!     split.zig         rb_split: parts to be read side by side;  shard.zig
//!       pieces.zig        … or one after the other, and what has changed of those that were read before
//!     read.zig          rb_read: one snapshot, from catalog to the last batch
//!       relation.zig      the table as the catalog has it
//!       selection.zig     which columns, as what Arrow types, by which SQL
//!       stream.zig        the stream as the pipeline describes it
//!       aside.zig         rows that are left out because of what is in them;  letters.zig, passed.zig
//!     increment.zig     what an incremental stream reads of it: rows from its cursor on
//!       cursor.zig          where it stands, as the host keeps it
//!       cursor_column.zig   the column that it follows
//!       told.zig            the rows that it set aside and reads again
//!       boundary.zig        the rows of the last value that were delivered;  ranges.zig, hashes.zig, compact.zig
//!       identity.zig        what tells such rows apart;  row.zig
//!     capture.zig       rb_capture, rb_confirm: changes from a replication slot
//!       captured_tables.zig      the streams' tables, and the relations that the publication tells of them
//!         published_relation.zig   where a relation's columns go;  shape.zig: what a stream's rows look like
//!       slot_reader.zig          the slot that is read, by itself
//!       spooled.zig              transactions that come before they are committed
//!       outgoing.zig             what the host is told: changes.zig of each stream, barriers;  changes_aside.zig
//!       standby.zig              what the server is told;  settlement.zig: which barriers are committed
//!     slot.zig          rb_slot: a replication slot and its publication, made, looked at and dropped
//!       publication.zig     which tables' changes are told;  replication_slot.zig, server_facts.zig
//!       captured.zig        a table as change capture sees it, and what stands in its way;  preflight.zig
//!     snapshot.zig      rb_snapshot: a state of the database that is a position in its WAL;  snapshot_marks.zig
//!     digest.zig        rb_digest: what is in a table, as one hash
//!     sql/              queries of the catalog

const std = @import("std");
const sdk = @import("sdk");
const capture_verb = @import("capture.zig");
const check_verb = @import("check.zig");
const describe_verb = @import("describe.zig");
const digest_verb = @import("digest.zig");
const discover_verb = @import("discover.zig");
const read_verb = @import("read.zig");
const slot_verb = @import("slot.zig");
const snapshot_verb = @import("snapshot.zig");
const split_verb = @import("split.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const panic = sdk.connector.panic;
pub const std_options = sdk.connector.std_options;

comptime {
    sdk.connector.exports(@This());
}

pub const role: sdk.connector.Role = .source;
pub const manifest = @embedFile("manifest.json");

/// What `open` made and the other verbs use.
var current: ?*Session = null;

fn session() sdk.errors.Failed!*Session {
    return current orelse sdk.fail(.protocol, "rb_open comes first", .{});
}

const Opened = struct { server: []const u8 };

pub fn open(arena: Allocator, argument: json.Value) !Opened {
    if (current != null) return sdk.fail(.protocol, "rb_open was called before", .{});
    const opened = try Session.open(sdk.connector.gpa, arena, argument);
    current = opened;
    return .{ .server = try std.fmt.allocPrint(arena, "PostgreSQL {s}", .{opened.connection.server_version_text}) };
}

pub fn check(arena: Allocator, argument: json.Value) !check_verb.Report {
    return check_verb.check(arena, try session(), argument);
}

pub fn discover(arena: Allocator, argument: json.Value) !discover_verb.Found {
    return discover_verb.discover(arena, try session(), argument);
}

pub fn describe(arena: Allocator, argument: json.Value) !void {
    return describe_verb.describe(arena, try session(), argument);
}

pub fn split(arena: Allocator, argument: json.Value) !split_verb.Division {
    return split_verb.split(arena, try session(), argument);
}

pub fn read(arena: Allocator, argument: json.Value) !read_verb.Done {
    return read_verb.read(arena, try session(), argument);
}

pub fn capture(arena: Allocator, argument: json.Value) !capture_verb.Done {
    return capture_verb.capture(arena, try session(), argument);
}

pub fn confirm(arena: Allocator, argument: json.Value) !void {
    return capture_verb.confirm(arena, try session(), argument);
}

pub fn slot(arena: Allocator, argument: json.Value) !slot_verb.Answer {
    return slot_verb.slot(arena, try session(), argument);
}

pub fn snapshot(arena: Allocator, _: json.Value) !snapshot_verb.Taken {
    return snapshot_verb.take(arena, try session());
}

pub fn digest(arena: Allocator, argument: json.Value) !digest_verb.Digest {
    return digest_verb.digest(arena, try session(), argument);
}

pub fn close(_: Allocator, _: json.Value) !void {
    const opened = current orelse return;
    current = null;
    opened.close();
}

test {
    _ = @import("capture_test.zig");
    _ = @import("captured_tables.zig");
    _ = @import("changes.zig");
    _ = @import("changes_aside.zig");
    _ = @import("published_relation.zig");
    _ = @import("settlement.zig");
    _ = @import("slot_reader.zig");
    _ = @import("shape.zig");
    _ = @import("spooled.zig");
    _ = @import("aside.zig");
    _ = check_verb;
    _ = describe_verb;
    _ = discover_verb;
    _ = read_verb;
    _ = split_verb;
    _ = @import("boundary.zig");
    _ = @import("captured.zig");
    _ = @import("problems.zig");
    _ = digest_verb;
    _ = @import("publication.zig");
    _ = @import("replication_slot.zig");
    _ = slot_verb;
    _ = snapshot_verb;
    _ = @import("compact.zig");
    _ = @import("cursor.zig");
    _ = @import("cursor_column.zig");
    _ = @import("hashes.zig");
    _ = @import("identity.zig");
    _ = @import("increment.zig");
    _ = @import("letters.zig");
    _ = @import("passed.zig");
    _ = @import("pieces.zig");
    _ = @import("ranges.zig");
    _ = @import("row.zig");
    _ = @import("selection.zig");
    _ = @import("shard.zig");
    _ = @import("stream.zig");
    _ = @import("told.zig");
}
