//! rb_capture without a server: messages in, and what is said of them.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Argument = @import("capture.zig").Argument;
const Capture = @import("capture.zig").Capture;
const CapturedTables = @import("captured_tables.zig").CapturedTables;
const Column = @import("shape.zig").Column;
const PublishedRelation = @import("published_relation.zig").PublishedRelation;
const Session = @import("session.zig").Session;
const Shape = @import("shape.zig").Shape;
const Stream = @import("captured_tables.zig").Stream;
const Table = @import("captured_tables.zig").Table;
const columnOf = @import("shape.zig").columnOf;

const Allocator = std.mem.Allocator;
const pgoutput = postgres.pgoutput;
const samples = pgoutput.samples;

/// A capture of table `t` of `samples`, without a server: whatever it is asked, it is gone.
const Sample = struct {
    arena: std.heap.ArenaAllocator,
    script: postgres.transport.Script,
    playing: sdk.loopback.Script,
    session: Session,
    argument: Argument,
    capture: Capture,

    const relation = 0x4005;

    fn create(gpa: Allocator) !*Sample {
        const self = try gpa.create(Sample);
        self.arena = .init(gpa);
        const arena = self.arena.allocator();
        self.script = .{ .gpa = arena, .incoming = "" };
        self.playing = .{ .arena = arena, .items = &.{} };
        sdk.loopback.script = &self.playing;
        self.session = .{
            .gpa = arena,
            .connection = try .init(arena, self.script.transport()),
            .config = .{ .host = "", .user = "", .database = "" },
            .config_arena = .init(arena),
            .schema = "public",
            .pipeline = "shop",
            .replication_slot = null,
            .publication = null,
        };
        self.session.replication = .{ .connection = try .init(arena, self.script.transport()) };
        self.argument = .{
            .slot = "s",
            .publication = "s",
            .streams = try arena.dupe(Stream, &.{.{ .name = "t", .position = .zero }}),
            .target = "FF/0",
            .max_batch_bytes = 0,
        };
        try self.capture.init(arena, &self.session, &self.argument, try self.tables(arena));
        self.capture.target = .{ .value = 0xff_0000_0000 };
        return self;
    }

    fn tables(self: *Sample, arena: Allocator) !CapturedTables {
        var found: CapturedTables = .{
            .gpa = arena,
            .session = &self.session,
            .arena = .init(arena),
            .tables = try arena.dupe(Table, &.{.{
                .stream = self.argument.streams[0],
                .schema = "public",
                .oid = relation,
            }}),
        };
        const told = (try pgoutput.parse(samples.relation, false)).message.relation;
        const published: *PublishedRelation = try .create(arena, &told, 0);
        const oid = postgres.types.oid;
        const columns = [_]Column{ columnForTest("id", oid.int4), columnForTest("note", oid.text) };
        published.destination = .{
            .stream = 0,
            .standing = .table,
            .shape = try Shape.create(arena, .{
                .stream = "t",
                .primary_key = &.{"id"},
                .identity = .default,
                .identity_columns = &.{"id"},
            }, &columns),
            .places = try arena.dupe(u16, &.{ 0, 1 }),
            .key = try arena.dupe(u16, &.{0}),
        };
        try found.relations.put(arena, relation, published);
        return found;
    }

    fn columnForTest(name: []const u8, oid: u32) Column {
        return columnOf(.{
            .name = name,
            .type_name = "?",
            .type_oid = oid,
            .typmod = -1,
            .category = 'b',
            .nullable = true,
            .element = null,
            .cast_differs = false,
            .prints_names = false,
        }, .{ .oid = oid, .category = 'b' }, false, false, true);
    }

    fn destroy(self: *Sample, gpa: Allocator) void {
        sdk.loopback.script = null;
        self.arena.deinit();
        gpa.destroy(self);
    }

    /// The messages of `bytes`, each behind its length in one byte.
    fn play(self: *Sample, bytes: []const u8) !void {
        var rest = bytes;
        while (rest.len > 0) {
            const length = @min(rest[0], rest.len - 1);
            try self.capture.receive(rest[1..][0..length]);
            rest = rest[1 + length ..];
        }
        try self.capture.outgoing.emitAll();
        try self.capture.mark(false);
    }
};

fn sequence(comptime messages: []const []const u8) []const u8 {
    comptime {
        var bytes: []const u8 = "";
        for (messages) |message| bytes = bytes ++ [_]u8{@intCast(message.len)} ++ message;
        return bytes;
    }
}

fn streamed(comptime message: []const u8, comptime xid: []const u8) []const u8 {
    return message[0..1] ++ xid ++ message[1..];
}

const truncate_alone = "T\x00\x00\x00\x01\x00\x00\x00\x40\x05";
const at_once = sequence(&.{ samples.begin, samples.insert, samples.update, samples.delete, truncate_alone, samples.commit });
const in_parts = sequence(&.{
    "S\x00\x00\x02\xe5\x01",
    streamed(samples.insert, "\x00\x00\x02\xe5"),
    streamed(samples.update, "\x00\x00\x02\xe6"),
    "E",
    "A\x00\x00\x02\xe5\x00\x00\x02\xe6",
    "S\x00\x00\x02\xe5\x00",
    streamed(samples.delete, "\x00\x00\x02\xe5"),
    "E",
    samples.all[13],
});

test "a transaction is the same, sent at once or in parts of which one was undone" {
    const gpa = std.testing.allocator;
    for ([_][]const u8{ at_once, in_parts }, [_]u64{ 5, 2 }) |bytes, rows| {
        const sample: *Sample = try .create(gpa);
        defer sample.destroy(gpa);
        try sample.play(bytes);
        try std.testing.expectEqual(rows, sample.capture.outgoing.rows);
        try std.testing.expectEqual(1, sample.capture.transactions);
        try std.testing.expectEqual(0x16b3778, sample.capture.boundary.value);
        try std.testing.expectEqual(0, sample.playing.spools.count());
        const said = sample.playing.said.items;
        try std.testing.expectEqual(3, said.len);
        try std.testing.expect(std.mem.startsWith(u8, said[2].barrier, "{\"cursor\":{\"lsn\":\"0/16B3778\",\"commit_ts\":"));
    }
}

test "messages out of their order are a broken protocol" {
    const gpa = std.testing.allocator;
    const wrong = comptime [_][]const u8{
        sequence(&.{samples.commit}),
        sequence(&.{samples.insert}),
        sequence(&.{truncate_alone}),
        sequence(&.{ samples.begin, samples.begin }),
        sequence(&.{"E"}),
        sequence(&.{samples.all[13]}),
        sequence(&.{ samples.begin, "S\x00\x00\x02\xe5\x01" }),
        sequence(&.{ "S\x00\x00\x02\xe5\x01", samples.begin }),
        sequence(&.{ samples.begin, "I\x00\x00\x40\x06N\x00\x00" }),
    };
    for (wrong) |bytes| {
        defer sdk.errors.clear();
        const sample: *Sample = try .create(gpa);
        defer sample.destroy(gpa);
        try std.testing.expectError(error.Failed, sample.play(bytes));
        try std.testing.expectEqual(sdk.errors.Kind.protocol, sdk.errors.current().?.kind);
    }
}

test "whatever messages come, they are captured or an error" {
    try sdk.fuzz.bytes(fuzzMessages, &.{ at_once, in_parts, at_once ++ in_parts, comptime sequence(&samples.all) });
}

fn fuzzMessages(bytes: []const u8) anyerror!void {
    defer sdk.errors.clear();
    const gpa = std.testing.allocator;
    const sample: *Sample = try .create(gpa);
    defer sample.destroy(gpa);
    sample.play(bytes) catch |err| if (err == error.OutOfMemory) return err;
}
