//! rb_capture: the changes of several tables, in the order of their commits, from one replication slot.
//!
//!     replication ──▶ Begin … change … Commit ──────────────────┐
//!                 ──▶ Stream Start … change … Stream Stop       ├─▶ Outgoing ──▶ emit … barrier
//!                       ▼                                       │
//!                     Spooled ── Stream Commit: read again ─────┘
//!                 ◀── Standby: what the host has settled
//!
//! A barrier stands between two transactions, never in one, and nothing that came before it waits behind it. A transaction
//! that is larger than the buffers is emitted in parts, without a barrier between them.
//!
//! Of a stream those transactions are emitted whose commit record starts at its position or behind it. The slot is confirmed up
//! to barriers that are committed where they belong, so that a run that is cut off anywhere finds all changes again.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const CapturedTables = @import("captured_tables.zig").CapturedTables;
const Marks = @import("changes.zig").Marks;
const Op = @import("shape.zig").Op;
const Outgoing = @import("outgoing.zig").Outgoing;
const PublishedRelation = @import("published_relation.zig").PublishedRelation;
const Row = @import("outgoing.zig").Row;
const Session = @import("session.zig").Session;
const SlotReader = @import("slot_reader.zig").SlotReader;
const Spooled = @import("spooled.zig").Spooled;
const Standby = @import("standby.zig").Standby;
const Stream = @import("captured_tables.zig").Stream;
const another_snapshot = @import("slot_reader.zig").another_snapshot;

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;
const Replication = postgres.Replication;
const pgoutput = postgres.pgoutput;

pub const Done = struct {
    /// Emitted; a row before an update is one too.
    rows: u64,
    /// That had a change of one of the streams.
    transactions: u64,
    /// Received from the server.
    bytes: u64,
    /// The final barrier's.
    lsn: Lsn,
};

pub const Argument = struct {
    slot: []const u8,
    publication: []const u8,
    streams: []const Stream,
    /// The slot must not be confirmed beyond it.
    hold: ?Lsn = null,
    /// A position, or `now`: transactions before it are captured, and no others.
    target: ?[]const u8 = null,
    /// How long to go on, where there is no target.
    seconds: ?f64 = null,
    max_batch_bytes: u64,
    /// How long a change may wait for others.
    flush_ms: u32 = 20,
};

/// How long rows may wait for others in a capture that has a target: nobody waits for them.
const patience_us = 500 * std.time.us_per_ms;
/// Where nothing of the streams changes, the slot is moved on as often.
const idle_barrier_us = 10 * std.time.us_per_s;
/// Where a target is waited for in silence, the server is asked as often how far it is.
const question_us = 100 * std.time.us_per_ms;
/// After so long without a change it is asked what it waits for.
const doubt_us = 300 * std.time.us_per_ms;
/// What comes so soon after the last is not alone.
const flowing_us = 6 * std.time.us_per_ms;
/// How long messages are let gather: a server that finds the socket's buffers full has to wait.
const gather_ms = 1;
/// Messages between two looks at the clock while they keep coming.
const messages_per_look = 1024;

pub fn capture(arena: Allocator, session: *Session, argument: sdk.json.Value) !Done {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    if (parsed.streams.len == 0) return sdk.fail(.protocol, "no stream is to be captured", .{});
    if ((parsed.target == null) == (parsed.seconds == null))
        return sdk.fail(.protocol, "either a target or a time is where a capture ends", .{});
    if (session.replication != null) return sdk.fail(.protocol, "rb_capture was called before", .{});
    var self: Capture = undefined;
    try self.init(arena, session, &parsed, try .find(session.gpa, session, parsed.streams));
    defer self.deinit();
    return self.run(arena);
}

/// Confirms what was committed after the capture had ended, and lets go of the slot.
pub fn confirm(arena: Allocator, session: *Session, argument: sdk.json.Value) !void {
    const parsed = try sdk.connector.parse(struct { lsn: Lsn }, arena, argument);
    const replication = if (session.replication) |*captured| captured else return sdk.fail(.protocol, "rb_capture comes first", .{});
    const doing = "confirming what was captured";
    replication.confirm(parsed.lsn, sdk.host.now(), false) catch |err|
        return postgres.failure.report(replication.connection, err, doing);
    replication.finish() catch |err| return postgres.failure.report(replication.connection, err, doing);
    session.endReplication();
}

/// The transaction whose changes are at hand.
const Transaction = struct {
    is_open: bool = false,
    /// Where its commit record starts.
    commit: u64 = 0,
    /// Microseconds since 1970.
    time: i64 = 0,
    /// Changes so far.
    seq: u64 = 0,
    /// It had a change of one of the streams.
    counts: bool = false,
};

pub const Capture = struct {
    session: *Session,
    argument: *const Argument,
    slot: SlotReader,
    tables: CapturedTables,
    spooled: Spooled,
    standby: Standby,
    outgoing: Outgoing,
    /// Of one question to the server.
    scratch: std.heap.ArenaAllocator,
    target: ?Lsn = null,
    is_binary: bool = false,

    transaction: Transaction = .{},
    /// Messages so far.
    arrivals: u64 = 0,
    /// Everything that was committed before it is emitted or waits in `changes`.
    boundary: Lsn = .zero,
    /// When the newest transaction before it was committed.
    commit_ts: ?i64 = null,
    /// There is nothing more before the target.
    is_done: bool = false,
    /// The server waited for its log to grow when it was asked last, and sent nothing since.
    is_waiting: bool = false,
    /// … as it did when it was asked before: nothing that it sent is still on its way.
    is_at_end: bool = false,
    /// Changes up to this one came already, in a stream that was broken off; their transaction comes again.
    seen: struct { commit: u64 = 0, seq: u64 = 0 } = .{},

    begun: i64,
    latest_question: i64 = 0,
    latest_wait: i64 = 0,
    latest_data: i64 = 0,
    arrivals_seen: u64 = 0,
    is_flowing: bool = false,
    fields: [2][pgoutput.columns_max]pgoutput.Field = undefined,

    transactions: u64 = 0,
    bytes: u64 = 0,

    /// It is not to be moved from then on. Takes `tables`; the rest lives as long.
    pub fn init(self: *Capture, arena: Allocator, session: *Session, argument: *const Argument, tables: CapturedTables) !void {
        self.* = .{
            .session = session,
            .argument = argument,
            .slot = .{
                .session = session,
                .slot = argument.slot,
                .publication = argument.publication,
                .streams = argument.streams,
                .doing = try std.fmt.allocPrint(arena, "capturing changes from slot {s}", .{argument.slot}),
            },
            .tables = tables,
            .spooled = .{ .gpa = session.gpa },
            .standby = .{ .slot = &self.slot, .settlement = .{ .gpa = session.gpa, .hold = argument.hold } },
            .outgoing = try .init(arena, session, &self.tables, &self.standby, argument.streams, argument.max_batch_bytes),
            .scratch = .init(session.gpa),
            .begun = sdk.host.now(),
        };
    }

    fn deinit(self: *Capture) void {
        self.tables.deinit();
        self.spooled.deinit();
        self.standby.deinit();
        self.outgoing.deinit();
        self.scratch.deinit();
    }

    fn run(self: *Capture, arena: Allocator) !Done {
        if (self.argument.target) |text| self.target = if (std.mem.eql(u8, text, "now"))
            try self.slot.written(arena)
        else
            Lsn.parse(text) orelse return sdk.fail(.protocol, "target {s} is no position", .{text});
        self.boundary = self.tables.position();
        self.outgoing.marked = self.boundary;
        // That is committed. A server that is shut down waits until it hears so of all that it sent.
        self.standby.settlement.lsn = self.boundary;
        self.latest_data = self.begun;
        self.is_binary = self.session.connection.knows_encoding and
            self.session.connection.server_version >= postgres.replication.version_2_since and try self.tables.areBinary();
        try self.start(arena);
        while (true) {
            self.follow() catch |err| switch (err) {
                // A column whose binary form is a riddle came up: everything as text, from the same transaction on.
                error.NeedsText => {
                    try self.startAgain(arena);
                    continue;
                },
                else => |other| return other,
            };
            break;
        }
        try self.outgoing.emitAll();
        try self.requireSlot(arena);
        // A target amid the last commit's record lies before that one's end, which may be marked already.
        if (!self.is_at_end) if (self.target) |target| {
            self.boundary.value = @max(target.value, self.outgoing.marked.value);
        };
        try self.mark(true);
        for (self.outgoing.asides) |*aside| aside.warn();
        self.bytes += self.session.replication.?.connection.bytesReceived();
        return .{ .rows = self.outgoing.rows, .transactions = self.transactions, .bytes = self.bytes, .lsn = self.boundary };
    }

    // The slot.

    fn start(self: *Capture, arena: Allocator) !void {
        try self.slot.start(arena, self.boundary, self.is_binary);
        try self.requireSlot(arena);
    }

    fn requireSlot(self: *Capture, arena: Allocator) !void {
        const confirmed = try self.slot.require(arena, self.standby.settlement.marked > 0);
        self.standby.settlement.floor.value = @max(self.standby.settlement.floor.value, confirmed.value);
    }

    fn startAgain(self: *Capture, arena: Allocator) !void {
        std.debug.assert(self.is_binary);
        self.bytes += self.session.replication.?.connection.bytesReceived();
        self.session.endReplication();
        self.is_binary = false;
        if (self.transaction.is_open) self.seen = .{ .commit = self.transaction.commit, .seq = self.transaction.seq };
        self.transaction = .{};
        self.tables.forget();
        try self.spooled.clear();
        try self.start(arena);
    }

    fn failed(self: *const Capture, err: postgres.Connection.Error) postgres.failure.Error {
        return self.slot.failed(err);
    }

    // The stream of messages.

    fn follow(self: *Capture) !void {
        const replication = &self.session.replication.?;
        var messages: u64 = 0;
        while (!self.is_done) {
            var timeout_ms: i32 = 1;
            if (!replication.isReady()) {
                timeout_ms = try self.beforeWaiting() orelse return;
                // A server sends its messages one by one, and every call of the host's costs more than reading one: while they
                // keep coming, some are waited for.
                if (self.is_flowing) try sdk.host.pause(gather_ms);
            } else if (messages % messages_per_look == messages_per_look - 1) {
                const now = sdk.host.now();
                try self.standby.report(now);
                if (self.isOver(now)) return;
            }
            messages += 1;
            const event = replication.next(timeout_ms) catch |err| return self.failed(err);
            switch (event) {
                .data => |bytes| {
                    self.is_at_end = false;
                    self.is_waiting = false;
                    try self.receive(bytes);
                },
                .large => |large| {
                    self.is_at_end = false;
                    self.is_waiting = false;
                    try self.receiveLarge(large);
                },
                .keepalive => |keepalive| try self.stayAlive(keepalive),
                .quiet => {},
            }
        }
    }

    /// Everything before `boundary` was emitted.
    pub fn mark(self: *Capture, is_final: bool) !void {
        try self.outgoing.mark(self.boundary, self.commit_ts, is_final);
    }

    /// What is due while nothing comes; how long to wait for what comes next, in milliseconds. Null: it is time to end.
    fn beforeWaiting(self: *Capture) !?i32 {
        const now = sdk.host.now();
        if (self.isOver(now)) return null;
        if (self.arrivals != self.arrivals_seen) self.latest_data = now;
        self.arrivals_seen = self.arrivals;
        var until = now + Standby.patience_us;
        if (!self.transaction.is_open) {
            if (self.outgoing.waiting > 0) {
                const patience = if (self.target == null) @as(i64, self.argument.flush_ms) * std.time.us_per_ms else patience_us;
                if (now - self.outgoing.waiting_since >= patience) {
                    try self.outgoing.emitAll();
                    try self.mark(false);
                } else until = @min(until, self.outgoing.waiting_since + patience);
            }
            if (self.target != null) {
                if (now - self.latest_question >= question_us) {
                    // Not at once: the server tells of its own accord when it has no more.
                    if (self.latest_question != 0) {
                        if (now - self.latest_data >= doubt_us) {
                            // What it sent before it began to wait is read until it is asked again; a keepalive may be
                            // among that, and changes behind it.
                            _ = self.scratch.reset(.retain_capacity);
                            const waits = try self.slot.waitsForLog(self.scratch.allocator());
                            self.is_at_end = waits and self.is_waiting;
                            self.is_waiting = waits;
                        }
                        try self.standby.tell(now, true);
                    }
                    self.latest_question = now;
                }
                until = @min(until, self.latest_question + question_us);
            }
        }
        if (self.argument.seconds != null) until = @min(until, self.end());
        self.is_flowing = now - self.latest_wait < flowing_us;
        self.latest_wait = now;
        try self.standby.report(now);
        return @intCast(std.math.clamp(@divFloor(until - now, std.time.us_per_ms), 1, 1000));
    }

    fn end(self: *const Capture) i64 {
        const seconds = std.math.clamp(self.argument.seconds.?, 0, 1e9);
        return self.begun + @as(i64, @trunc(seconds * std.time.us_per_s));
    }

    /// Whether the time is over, between two transactions.
    fn isOver(self: *const Capture, now: i64) bool {
        return self.argument.seconds != null and !self.transaction.is_open and now >= self.end();
    }

    fn stayAlive(self: *Capture, keepalive: Replication.Keepalive) !void {
        const now = sdk.host.now();
        if (!self.transaction.is_open) {
            self.advance(keepalive.end);
            // It has sent all that was written, the target too: what begins there is not whole yet.
            if (self.is_at_end) self.is_done = true;
            const since = now - self.outgoing.marked_at;
            const is_due = since >= idle_barrier_us or (keepalive.reply and since >= Standby.patience_us);
            if (is_due and !self.is_done and self.outgoing.waiting == 0 and self.boundary.value > self.outgoing.marked.value) try self.mark(false);
        }
        if (keepalive.reply) try self.standby.tell(now, false);
    }

    fn advance(self: *Capture, lsn: Lsn) void {
        self.boundary.value = @max(self.boundary.value, lsn.value);
        if (self.target) |target| self.is_done = self.boundary.value >= target.value;
    }

    /// One message of the plugin.
    pub fn receive(self: *Capture, bytes: []const u8) !void {
        self.arrivals += 1;
        const in_stream = self.spooled.current != null;
        const parsed = pgoutput.parse(bytes, in_stream) catch return self.malformed(bytes);
        if (in_stream) return self.spool(bytes, &parsed.message);
        switch (parsed.message) {
            .change => |change| try self.takeChange(change),
            .begin => |told| try self.open(told.commit, told.time),
            .commit => |commit| try self.finish(commit),
            .relation => |relation| try self.takeRelation(&relation, self.arrivals, false),
            .type => |told| try self.tables.tellType(told),
            .truncate => |truncate| try self.takeTruncate(truncate),
            .stream_start => |xid| {
                if (self.transaction.is_open) return self.malformed(bytes);
                self.spooled.start(xid) catch |err| return if (err == error.Protocol) self.malformed(bytes) else err;
            },
            .stream_stop => return self.malformed(bytes),
            .stream_commit => |streamed| try self.readAgain(streamed),
            .stream_abort => |abort| try self.spooled.undo(abort.xid, abort.subxid),
            .other => {},
        }
    }

    /// One message of which there is only the beginning.
    fn receiveLarge(self: *Capture, large: Replication.Large) !void {
        self.arrivals += 1;
        const in_stream = self.spooled.current != null;
        const parsed = pgoutput.parse(large.beginning, in_stream) catch return self.malformed(large.beginning);
        switch (parsed.message) {
            // Of a transaction that is not committed yet nobody knows whether it counts.
            .change => |change| if (in_stream)
                try self.spooled.append(large.beginning, large.length, self.arrivals)
            else
                try self.takeLarge(change, large.length),
            .other => {},
            else => return self.malformed(large.beginning),
        }
    }

    fn spool(self: *Capture, bytes: []const u8, message: *const pgoutput.Message) !void {
        switch (message.*) {
            .change, .relation, .type, .truncate => try self.spooled.append(bytes, bytes.len, self.arrivals),
            .stream_stop => try self.spooled.stop(),
            .other => {},
            else => return self.malformed(bytes),
        }
    }

    /// A transaction that was sent before its commit: its messages again, as if they came now.
    fn readAgain(self: *Capture, streamed: pgoutput.StreamCommit) !void {
        const commit = streamed.commit;
        try self.open(commit.commit, commit.time);
        if (self.is_done) return;
        if (commit.commit >= self.tables.position().value) {
            var reader = self.spooled.read(streamed.xid) orelse return self.malformed("c");
            defer reader.deinit();
            var messages: u64 = 0;
            while (reader.next() catch |err| return if (err == error.Protocol) self.malformed("c") else err) |record| {
                messages += 1;
                if (messages % messages_per_look == 0) try self.standby.report(sdk.host.now());
                const parsed = pgoutput.parse(record.message, true) catch return self.malformed(record.message);
                // What an undone subtransaction said of relations holds for what follows: the server does not repeat it.
                const is_undone = reader.transaction.undone.contains(parsed.xid);
                switch (parsed.message) {
                    .change => |change| if (!is_undone)
                        try if (record.isCut()) self.takeLarge(change, record.length) else self.takeChange(change),
                    .truncate => |truncate| if (!is_undone) try self.takeTruncate(truncate),
                    .relation => |relation| try self.takeRelation(&relation, record.arrival, true),
                    .type => |told| try self.tables.tellType(told),
                    else => return self.malformed(record.message),
                }
            }
            try self.tables.merge();
        }
        try self.spooled.drop(streamed.xid);
        try self.finish(commit);
    }

    fn open(self: *Capture, commit: u64, time: i64) !void {
        if (self.transaction.is_open) return self.malformed("B");
        if (self.target) |target| if (commit >= target.value) {
            self.is_done = true;
            return;
        };
        self.transaction = .{ .is_open = true, .commit = commit, .time = time +% postgres.values.epoch_micros };
    }

    fn finish(self: *Capture, commit: pgoutput.Commit) !void {
        if (!self.transaction.is_open or commit.commit != self.transaction.commit) return self.malformed("C");
        self.transaction.is_open = false;
        if (self.transaction.counts) {
            self.transactions += 1;
            self.commit_ts = self.transaction.time;
        }
        self.advance(.{ .value = commit.end });
        // Not later, lest the buffers be full in the midst of a transaction; and a large one is to be committed at its end.
        if (self.outgoing.isHalfFull() or self.outgoing.is_unmarked) {
            try self.outgoing.emitAll();
            try self.mark(false);
        }
    }

    fn takeRelation(self: *Capture, told: *const pgoutput.Relation, arrival: u64, is_own: bool) !void {
        const relation = self.tables.tell(told, arrival, is_own) catch |err| return if (err == error.Protocol) self.malformed("R") else err;
        const destination = relation.destination orelse return;
        if (self.is_binary) for (destination.shape.columns) |*column| if (!column.isBinary()) return error.NeedsText;
    }

    fn takeChange(self: *Capture, change: pgoutput.Change) !void {
        const transaction = &self.transaction;
        if (!transaction.is_open) return self.malformed("I");
        transaction.seq += 1;
        const relation = self.tables.relationOf(change.relation) orelse return self.malformed("I");
        const destination = &(relation.destination orelse return);
        if (!self.wants(destination.stream)) return;
        if (destination.standing == .former) return self.formerTable(relation);
        var tuples: pgoutput.Tuples = .{ .rest = change.rest };
        const length = change.rest.len;
        const first = self.fields[0][0..relation.columns.len];
        const role = tuples.next(first) catch return self.malformedRow(relation);
        switch (change.kind) {
            .insert => {
                if (role != .new) return self.malformedRow(relation);
                try self.take(relation, &.{.{ .marks = self.marks(.insert, transaction.seq), .fields = first }}, length);
            },
            .delete => {
                if (role == .new) return self.malformedRow(relation);
                try self.take(relation, &.{.{ .marks = self.marks(.delete, transaction.seq), .fields = first }}, length);
            },
            .update => if (role == .new) {
                try self.take(relation, &.{.{ .marks = self.marks(.update, transaction.seq), .fields = first }}, length);
            } else {
                const second = self.fields[1][0..relation.columns.len];
                if ((tuples.next(second) catch return self.malformedRow(relation)) != .new) return self.malformedRow(relation);
                for (second, first) |*now, before| if (now.form == .unchanged and before.form.isTold()) {
                    now.* = before;
                };
                if (tellsBefore(destination.key, first, second)) {
                    transaction.seq += 1;
                    try self.take(relation, &.{
                        .{ .marks = self.marks(.before, transaction.seq - 1), .fields = first },
                        .{ .marks = self.marks(.update, transaction.seq), .fields = second },
                    }, length);
                } else try self.take(relation, &.{.{ .marks = self.marks(.update, transaction.seq), .fields = second }}, length);
            },
        }
        tuples.finish() catch return self.malformedRow(relation);
    }

    /// A change that is not there as a whole. Where no stream wants it, it is passed over.
    fn takeLarge(self: *Capture, change: pgoutput.Change, length: usize) !void {
        if (!self.transaction.is_open) return self.malformed("I");
        self.transaction.seq += 1;
        const relation = self.tables.relationOf(change.relation) orelse return self.malformed("I");
        const destination = &(relation.destination orelse return);
        if (!self.wants(destination.stream) or self.isSeen(self.transaction.seq)) return;
        self.transaction.counts = true;
        const tuples: pgoutput.Tuples = .{ .rest = change.rest };
        const op: Op = switch (change.kind) {
            inline else => |kind| @field(Op, @tagName(kind)),
        };
        const fields = tuples.begun(self.fields[0][0..relation.columns.len]);
        return self.outgoing.tooLarge(relation, .{ .marks = self.marks(op, self.transaction.seq), .fields = fields }, length);
    }

    fn tellsBefore(key: ?[]const u16, before: []const pgoutput.Field, now: []const pgoutput.Field) bool {
        for (key orelse return true) |i| {
            if (now[i].form == .unchanged) continue;
            if (before[i].form != now[i].form or !std.mem.eql(u8, before[i].bytes, now[i].bytes)) return true;
        }
        return false;
    }

    fn takeTruncate(self: *Capture, truncate: pgoutput.Truncate) !void {
        if (!self.transaction.is_open) return self.malformed("T");
        for (0..truncate.count()) |i| {
            const relation = self.tables.relationOf(truncate.relation(i)) orelse return self.malformed("T");
            self.transaction.seq += 1;
            const destination = &(relation.destination orelse continue);
            if (!self.wants(destination.stream)) continue;
            if (destination.standing == .former) return self.formerTable(relation);
            // A partition among others: the table is empty when all of them are, and told once.
            if (destination.standing == .partition and !try self.isWhole(truncate, i, destination.stream)) continue;
            const fields = self.fields[0][0..relation.columns.len];
            @memset(fields, .{ .form = .null });
            try self.take(relation, &.{.{ .marks = self.marks(.truncate, self.transaction.seq), .fields = fields }}, 0);
        }
    }

    /// Whether the partition at `i` is the last one of its table in `truncate`, which has all of them.
    fn isWhole(self: *Capture, truncate: pgoutput.Truncate, i: usize, stream: usize) !bool {
        for (i + 1..truncate.count()) |later| {
            const relation = self.tables.relationOf(truncate.relation(later)) orelse continue;
            if (relation.destination) |destination| if (destination.stream == stream) return false;
        }
        _ = self.scratch.reset(.retain_capacity);
        for (try self.tables.leavesOf(self.scratch.allocator(), stream)) |leaf| {
            for (0..truncate.count()) |other| {
                if (truncate.relation(other) == leaf) break;
            } else {
                if (self.tables.tables[stream].stream.truncate == .ignore) return false;
                const name = self.nameOf(stream);
                const hint = try std.fmt.allocPrint(
                    self.scratch.allocator(),
                    "take a new snapshot: `rapidbyte run FILE --stream {s} --full-refresh`",
                    .{name},
                );
                return sdk.errors.ofStream(name, sdk.errors.failHinted(
                    .data,
                    hint,
                    "stream {s}: a partition was truncated alone, and the table's other rows are to stay",
                    .{name},
                ));
            }
        }
        return true;
    }

    inline fn wants(self: *const Capture, stream: usize) bool {
        return self.transaction.commit >= self.argument.streams[stream].position.value;
    }

    /// Of a change of the transaction at hand.
    inline fn marks(self: *const Capture, op: Op, seq: u64) Marks {
        return .{ .op = op, .lsn = self.transaction.commit, .seq = seq, .commit_ts = self.transaction.time };
    }

    /// The rows of one change, which came in `length` bytes.
    fn take(self: *Capture, relation: *const PublishedRelation, rows: []const Row, length: usize) !void {
        self.transaction.counts = true;
        if (self.isSeen(rows[rows.len - 1].marks.seq)) return;
        return self.outgoing.take(relation, rows, length);
    }

    fn isSeen(self: *const Capture, seq: u64) bool {
        return self.transaction.commit == self.seen.commit and seq <= self.seen.seq;
    }

    // What must not be.

    fn malformed(self: *const Capture, bytes: []const u8) postgres.failure.Error {
        const connection = self.session.replication.?.connection;
        const letter = if (bytes.len == 0) '?' else bytes[0];
        return self.failed(connection.protocolError("a message of pgoutput ('{c}') is malformed or out of order", .{letter}));
    }

    fn malformedRow(self: *const Capture, relation: *const PublishedRelation) postgres.failure.Error {
        const connection = self.session.replication.?.connection;
        return self.failed(connection.protocolError("a row of {s} is malformed", .{relation.name}));
    }

    /// No change tells that a table was dropped, and the rows that it had are at the destination.
    fn formerTable(self: *const Capture, relation: *const PublishedRelation) sdk.errors.Failed {
        const name = self.nameOf(relation.destination.?.stream);
        return sdk.errors.ofStream(name, sdk.errors.failHinted(
            .config,
            another_snapshot,
            "stream {s}: {s} is another table than it was at {f}, and what became of that one's rows is not known",
            .{ name, relation.name, Lsn{ .value = self.transaction.commit } },
        ));
    }

    fn nameOf(self: *const Capture, stream: usize) []const u8 {
        return self.tables.tables[stream].stream.name;
    }
};
