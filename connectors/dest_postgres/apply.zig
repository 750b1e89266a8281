//! rb_apply: takes the changes of several tables, and commits what they come to, together with the position of each.
//!
//!     schema    which stream the next batches are of; another shape of it is a landing of its own
//!     batch     waits in memory
//!     barrier   what waits is applied · prepare (host) · watermarks · COMMIT · committed (host)
//!     end       nothing may wait
//!
//! Where memory is full before a barrier comes, what waits is applied and stays uncommitted: a transaction of the source
//! may be larger than that.

const std = @import("std");
const sdk = @import("sdk");
const home = @import("home.zig");
const merge = @import("merge.zig");
const replica_module = @import("replica.zig");
const stage = @import("stage.zig");
const watermark = @import("watermark.zig");
const write = @import("write.zig");
const Application = @import("application.zig").Application;
const Counts = replica_module.Counts;
const Relation = @import("relation.zig").Relation;
const Replica = replica_module.Replica;
const Session = @import("session.zig").Session;
const Shape = @import("changes.zig").Shape;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const host = sdk.host;
const json = sdk.json;

/// Bytes of messages that wait: few enough that they are applied while the next ones come.
const waiting_bytes_max = 8 * 1024 * 1024;
/// Changes that wait; what is found out about each takes about a hundred bytes.
const waiting_rows_max = 256 * 1024;
/// Values of changes that do not tell all of their rows: what was told last of each is eight bytes.
const waiting_cells_max = 4 * 1024 * 1024;

const Argument = struct { streams: []const write.Stream };

pub const Applied = struct {
    streams: json.ArrayHashMap(Stream),

    const Stream = struct {
        rows: u64,
        schema: []const u8,
        table: []const u8,
        created: bool,
        columns: []const Column,
        primary_key: []const []const u8,
        inserted: u64,
        updated: u64,
        deleted: u64,
        truncated: u64,
    };

    const Column = struct { name: []const u8, type: []const u8, nullable: bool };
};

pub fn apply(arena: Allocator, session: *Session, argument: json.Value) !Applied {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    for (parsed.streams) |*stream| if (!isNamed(session.streams, stream.name))
        return sdk.fail(.protocol, "rb_open did not name stream {s}", .{stream.name});
    session.checks = .late;
    const replicas = try arena.alloc(Replica, parsed.streams.len);
    for (replicas, parsed.streams, 0..) |*replica, *stream, number| replica.* = try .init(arena, session, stream, number);
    const ordered = try arena.alloc(*Replica, replicas.len);
    for (ordered, replicas) |*one, *replica| one.* = replica;
    var applier: Applier = .{
        .arena = arena,
        .scratch = .init(session.gpa),
        .session = session,
        .replicas = replicas,
        .application = .init(session, ordered),
    };
    defer applier.deinit();
    errdefer applier.abandon();
    for (replicas) |*replica| try home.prepare(arena, session, replica.target.schema);
    for (parsed.streams) |*stream| try stage.sweep(arena, session, stream.name);
    try settings(arena, session);
    try applier.run();
    return applier.result();
}

/// A batch changes few rows of a large table, again and again: they and its index are in memory.
fn settings(arena: Allocator, session: *Session) !void {
    _ = try session.query(arena,
        \\SELECT CASE WHEN pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) < pg_catalog.pg_size_bytes($1)
        \\            THEN pg_catalog.set_config('work_mem', $1, false) END,
        \\       CASE WHEN pg_catalog.current_setting('random_page_cost')::float8 > 1.1
        \\            THEN pg_catalog.set_config('random_page_cost', '1.1', false) END
    , &.{merge.work_mem}, "setting up the session");
}

fn isNamed(names: []const []const u8, wanted: []const u8) bool {
    return for (names) |name| {
        if (std.mem.eql(u8, name, wanted)) break true;
    } else false;
}

const Applier = struct {
    /// For what lives as long as the verb.
    arena: Allocator,
    /// For what one commit needs.
    scratch: std.heap.ArenaAllocator,
    session: *Session,
    replicas: []Replica,
    application: Application,
    /// Whose batches come.
    current: ?*Replica = null,
    final: bool = false,
    bytes_committed: u64 = 0,

    fn deinit(self: *Applier) void {
        self.application.deinit();
        for (self.replicas) |*replica| replica.deinit();
        self.scratch.deinit();
    }

    fn run(self: *Applier) !void {
        while (true) {
            const item = try host.next();
            switch (item.kind) {
                .message => if (item.len > waiting_bytes_max)
                    try self.takeLarge(item.len)
                else
                    try self.take(try self.read(item.len)),
                .barrier => {
                    const text = try self.read(item.len);
                    defer self.session.gpa.free(text);
                    try self.commit(text);
                },
                .end => break,
            }
        }
        for (self.replicas) |*replica| if (replica.rows_pending > 0)
            return sdk.fail(.protocol, "the changes ended without a barrier behind them", .{});
        if (self.session.in_transaction) return sdk.fail(.protocol, "the changes ended without a barrier behind them", .{});
    }

    /// The encoder reads a little further than the message.
    fn read(self: *Applier, len: usize) ![]align(16) u8 {
        const slack = @import("encode.zig").slack;
        const buffer = try self.session.gpa.alignedAlloc(u8, .@"16", len + slack);
        errdefer self.session.gpa.free(buffer);
        try host.read(buffer[0..len]);
        @memset(buffer[len..], 0);
        return buffer;
    }

    fn take(self: *Applier, message: []align(16) u8) !void {
        if (self.final) return sdk.fail(.protocol, "changes came after the final barrier", .{});
        if (try arrow.reader.messageKind(message) == .schema) {
            defer self.session.gpa.free(message);
            return self.takeSchema(message);
        }
        const replica = self.current orelse {
            defer self.session.gpa.free(message);
            return sdk.fail(.protocol, "changes came before their schema", .{});
        };
        try replica.take(message);
        var bytes: usize = 0;
        var rows: u64 = 0;
        var cells: usize = 0;
        for (self.replicas) |*each| {
            bytes += each.changes.bytes;
            rows += each.changes.rows;
            cells += each.changes.cells;
        }
        if (bytes > waiting_bytes_max or rows > waiting_rows_max or cells > waiting_cells_max) try self.flush(false);
    }

    /// A change that may be too large for the memory, and must have it to itself to be blamed for that.
    fn takeLarge(self: *Applier, len: usize) !void {
        try self.flush(false);
        return self.takeAlone(len) catch |err| {
            const replica = self.current orelse return err;
            if (err != error.OutOfMemory) return err;
            return sdk.errors.ofStream(replica.asked.name, sdk.errors.failHinted(
                .resource,
                "raise `limits.max_memory`, or leave large columns out with `columns`",
                "stream {s}: a change for {s} takes {d} bytes, which is too large for the connector's memory",
                .{ replica.asked.name, replica.target.label, len },
            ));
        };
    }

    fn takeAlone(self: *Applier, len: usize) !void {
        try self.take(try self.read(len));
        try self.flush(false);
    }

    fn takeSchema(self: *Applier, message: []const u8) !void {
        for (self.replicas) |*replica| if (replica.landing != null and !replica.isNews(message)) {
            self.current = replica;
            return;
        };
        var arena: std.heap.ArenaAllocator = .init(self.session.gpa);
        defer arena.deinit();
        const name = try Shape.streamOf(arena.allocator(), message);
        const replica = for (self.replicas) |*replica| {
            if (std.mem.eql(u8, replica.asked.name, name)) break replica;
        } else return sdk.fail(.protocol, "changes of stream {s} came, which is not asked for", .{name});
        self.current = replica;
        if (replica.stop == null) try self.turn(replica, arena.allocator(), message);
    }

    /// The stream goes on with another shape, or begins with its first.
    fn turn(self: *Applier, replica: *Replica, scratch: Allocator, message: []const u8) !void {
        const session = self.session;
        const doing = replica.target.doing;
        if (!session.in_transaction and !replica.waits()) {
            try session.begin();
            replica.turn(scratch, message, true) catch |failed| {
                if (!replica_module.isOwn(failed)) return failed;
                session.rollback();
                return replica.halt(sdk.errors.current().?);
            };
            return session.commit(scratch);
        }
        // A shape that is refused stops the stream before its last changes are written.
        try self.open();
        try session.exec("SAVEPOINT rapidbyte_turn", doing);
        try session.seeCatalog();
        replica.foresee(scratch, message) catch |failed| {
            if (!replica_module.isOwn(failed)) return failed;
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_turn; RELEASE SAVEPOINT rapidbyte_turn", doing);
            return replica.halt(sdk.errors.current().?);
        };
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_turn; RELEASE SAVEPOINT rapidbyte_turn", doing);
        if (replica.waits()) try self.flush(false);
        if (replica.stop != null) return;
        try session.exec("SAVEPOINT rapidbyte_turn", doing);
        try session.seeCatalog();
        replica.turn(scratch, message, false) catch |failed| {
            if (!replica_module.isOwn(failed)) return failed;
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_turn; RELEASE SAVEPOINT rapidbyte_turn", doing);
            return replica.halt(sdk.errors.current().?);
        };
        try session.seeAsUser();
        try session.exec("RELEASE SAVEPOINT rapidbyte_turn", doing);
    }

    fn open(self: *Applier) !void {
        if (!self.session.in_transaction) try self.session.begin();
    }

    /// Everything that waits is in the tables, and not committed. `whole`: a transaction of the source ends here.
    fn flush(self: *Applier, whole: bool) !void {
        const anything = for (self.replicas) |*replica| {
            // What earlier parts of a transaction left is held against the constraints at its end.
            if (replica.waits() or (whole and replica.applied)) break true;
        } else false;
        if (!anything) return;
        const started = host.now();
        try self.open();
        try self.application.run(self.scratch.allocator(), whole);
        host.metric("apply_seconds", @as(f64, @floatFromInt(host.now() - started)) / 1e6);
    }

    const Barrier = struct {
        sequence: u64,
        final: bool,
        streams: json.Value,
    };

    fn commit(self: *Applier, padded: []const u8) !void {
        if (self.final) return sdk.fail(.protocol, "a barrier came after the final one", .{});
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        const value = try watermark.parseExactly(arena, std.mem.trimEnd(u8, padded, "\x00"));
        const barrier = try sdk.connector.parse(Barrier, arena, value);
        if (barrier.streams != .object) return sdk.fail(.protocol, "a barrier's streams are not an object", .{});
        try self.flush(true);
        try self.open();
        for (self.replicas) |*replica| if (replica.stop == null) if (replica.landing) |landing| if (replica.ready) try landing.report(arena);
        const bytes = self.bytesSent();
        try host.prepareStreams(arena, Prepared{
            .sequence = barrier.sequence,
            .bytes = bytes -| self.bytes_committed,
            .replicas = self.replicas,
        });
        const started = host.now();
        var marks: std.ArrayList(watermark.Mark) = .empty;
        for (self.replicas) |*replica| {
            if (replica.stop != null) continue;
            const told = barrier.streams.object.get(replica.asked.name) orelse continue;
            const mark = try sdk.connector.parse(struct { sequence: u64 }, arena, told);
            try marks.append(arena, .{
                .stream = replica.asked.name,
                .sequence = mark.sequence,
                .cursor = told.object.get("cursor") orelse .null,
            });
        }
        if (marks.items.len > 0) try watermark.writeAll(arena, self.session, marks.items, barrier.final);
        try self.session.commit(arena);
        host.metric("commit_seconds", @as(f64, @floatFromInt(host.now() - started)) / 1e6);
        self.final = barrier.final;
        self.bytes_committed = bytes;
        for (self.replicas) |*replica| replica.committed();
        try host.committed(barrier.sequence);
    }

    fn bytesSent(self: *const Applier) u64 {
        var sum: u64 = 0;
        for (self.replicas) |*replica| if (replica.way) |*way| {
            sum += way.bytes();
        };
        return sum;
    }

    fn abandon(self: *Applier) void {
        for (self.replicas) |*replica| if (replica.way) |*way| way.abandon();
        self.session.rollback();
    }

    fn result(self: *Applier) !Applied {
        const arena = self.arena;
        var applied: Applied = .{ .streams = .{} };
        for (self.replicas) |*replica| {
            if (replica.asked.on_data_error == .skip and replica.rejected_before > 0) host.log(
                .warning,
                "{d} changes were not written into {s}, and are not kept; the first because of: {s}",
                .{ replica.rejected_before, replica.target.label, replica.first_refusal orelse "" },
            );
            const relation: ?Relation = try Relation.find(arena, self.session, replica.target.schema, replica.target.table);
            const found: []const @import("relation.zig").Column = if (relation) |*one| one.columns else &.{};
            const columns = try arena.alloc(Applied.Column, found.len);
            for (columns, found) |*column, *one| column.* = .{ .name = one.name, .type = one.type, .nullable = one.nullable };
            const counts = replica.counts;
            try applied.streams.map.put(arena, replica.asked.name, .{
                .rows = replica.rows,
                .schema = replica.target.schema,
                .table = replica.target.table,
                .created = false,
                .columns = columns,
                .primary_key = if (relation) |*one| one.primary_key else &.{},
                .inserted = counts.inserted,
                .updated = counts.updated,
                .deleted = counts.deleted,
                .truncated = counts.truncated,
            });
        }
        return applied;
    }
};

/// As the ABI has it.
const Prepared = struct {
    sequence: u64,
    bytes: u64,
    replicas: []const Replica,

    pub fn jsonStringify(self: Prepared, writer: *json.Stringify) json.Stringify.Error!void {
        var rows: u64 = 0;
        for (self.replicas) |*replica| rows += replica.rows_pending;
        try writer.beginObject();
        try writer.objectField("sequence");
        try writer.write(self.sequence);
        try writer.objectField("rows");
        try writer.write(rows);
        try writer.objectField("bytes");
        try writer.write(self.bytes);
        try writer.objectField("streams");
        try writer.beginObject();
        for (self.replicas) |*replica| {
            try writer.objectField(replica.asked.name);
            try writer.write(.{ .rows = replica.rows_pending, .rejected = replica.rejected });
        }
        try writer.endObject();
        try writer.objectField("stopped");
        try writer.beginObject();
        for (self.replicas) |*replica| if (replica.stop) |stop| {
            try writer.objectField(replica.asked.name);
            try writer.write(stop);
        };
        try writer.endObject();
        try writer.endObject();
    }
};
