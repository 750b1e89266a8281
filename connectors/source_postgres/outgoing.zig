//! What a capture tells the host: changes wait, by stream, until they are worth a message, and a barrier stands behind them.
//!
//!     row ─▶ Changes of its stream ─▶ schema message, batch … ─▶ barrier
//!         └▶ ChangesAside, where it cannot be told

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const CapturedTables = @import("captured_tables.zig").CapturedTables;
const Changes = @import("changes.zig").Changes;
const ChangesAside = @import("changes_aside.zig").ChangesAside;
const Marks = @import("changes.zig").Marks;
const PublishedRelation = @import("published_relation.zig").PublishedRelation;
const Reason = @import("aside.zig").Reason;
const Session = @import("session.zig").Session;
const Shape = @import("shape.zig").Shape;
const Standby = @import("standby.zig").Standby;
const Stream = @import("captured_tables.zig").Stream;
const changes_aside = @import("changes_aside.zig");

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;
const pgoutput = postgres.pgoutput;

/// Bytes of a batch at least, as in a read.
const batch_bytes_min = 64 * 1024;
/// Where the rows of all streams together are emitted: larger batches only fall out of the processor's caches.
const waiting_bytes_max = postgres.decode.batch_bytes_target;
/// A change of fewer bytes is not what the memory is too small for.
const large_bytes = 1024 * 1024;
/// Memory of rows that are gone is kept for the next ones, up to this for all streams together.
const kept_bytes = 4 * waiting_bytes_max;

pub const Row = struct { marks: Marks, fields: []const pgoutput.Field };

pub const Outgoing = struct {
    session: *Session,
    tables: *CapturedTables,
    /// Hears from us also while the host has no room.
    standby: *Standby,
    /// Per stream, once it had any.
    changes: []?Changes,
    /// Per stream, what is left out of it.
    asides: []ChangesAside,
    /// Bytes of all changes together, at most, and when the first of them came.
    waiting: usize = 0,
    waiting_since: i64 = 0,
    limit: usize,
    /// Where the last barrier stands, and when it was set.
    marked: Lsn = .zero,
    marked_at: i64,
    /// Rows were emitted, or left out, since.
    is_unmarked: bool = false,
    /// Emitted so far.
    rows: u64 = 0,
    /// Of one batch, barrier or error.
    scratch: std.heap.ArenaAllocator,

    /// `arena` lives as long.
    pub fn init(
        arena: Allocator,
        session: *Session,
        tables: *CapturedTables,
        standby: *Standby,
        streams: []const Stream,
        max_batch_bytes: u64,
    ) Allocator.Error!Outgoing {
        const changes = try arena.alloc(?Changes, streams.len);
        @memset(changes, null);
        const asides = try arena.alloc(ChangesAside, streams.len);
        for (asides, streams) |*aside, *stream| aside.* = .init(session.gpa, stream);
        return .{
            .session = session,
            .tables = tables,
            .standby = standby,
            .changes = changes,
            .asides = asides,
            .limit = @intCast(std.math.clamp(max_batch_bytes, batch_bytes_min, waiting_bytes_max)),
            .marked_at = sdk.host.now(),
            .scratch = .init(session.gpa),
        };
    }

    pub fn deinit(self: *Outgoing) void {
        for (self.changes) |*changes| if (changes.*) |*some| some.deinit();
        for (self.asides) |*aside| aside.deinit();
        self.scratch.deinit();
    }

    /// Whether so much waits that it should go at the end of a transaction, lest the buffers be full in the midst of the next.
    pub fn isHalfFull(self: *const Outgoing) bool {
        return self.waiting >= self.limit / 2;
    }

    /// The rows of one change, which came in `length` bytes. They stay together: nobody could tell later what an old row
    /// belongs to.
    pub fn take(self: *Outgoing, relation: *const PublishedRelation, rows: []const Row, length: usize) !void {
        again: while (true) {
            const destination = &relation.destination.?;
            const changes = try self.changesOf(destination.stream, destination.shape);
            const bound = rows.len * changes.bound(length);
            if (self.waiting > 0 and self.waiting + bound > self.limit) try self.emitAll();
            if (self.waiting == 0) self.waiting_since = sdk.host.now();
            const before = changes.extent();
            for (rows) |row| changes.append(row.marks, destination.places, row.fields, length) catch |err| switch (err) {
                error.OutOfRange => {
                    changes.shrink(before);
                    try self.tables.readAsText(destination.stream, destination.shape, changes.fault.column);
                    continue :again;
                },
                error.OutOfMemory => {
                    if (length < large_bytes) return err;
                    changes.shrink(before);
                    return self.tooLarge(relation, rows[rows.len - 1], length);
                },
                error.NotUtf8 => {
                    changes.shrink(before);
                    return self.notText(relation, rows[rows.len - 1], changes);
                },
                else => return rowFailed(relation, rows[0], changes, err),
            };
            self.waiting += changes.bytes - before.bytes;
            return;
        }
    }

    /// The changes of a stream, with this shape.
    inline fn changesOf(self: *Outgoing, stream: usize, shape: *const Shape) !*Changes {
        if (self.changes[stream]) |*changes| if (changes.shape == shape) return changes;
        return self.reshape(stream, shape);
    }

    fn reshape(self: *Outgoing, stream: usize, shape: *const Shape) !*Changes {
        @branchHint(.cold);
        const checks_texts = !self.session.connection.knows_encoding;
        const fresh: Changes = try .init(self.session.gpa, shape, checks_texts);
        if (self.changes[stream]) |*changes| {
            if (changes.rows > 0) try self.emit(changes);
            changes.deinit();
        }
        self.changes[stream] = fresh;
        return &self.changes[stream].?;
    }

    pub fn emitAll(self: *Outgoing) !void {
        for (self.changes) |*changes| if (changes.*) |*some| {
            if (some.rows > 0) try self.emit(some);
        };
        self.waiting = 0;
    }

    fn emit(self: *Outgoing, changes: *Changes) !void {
        try self.awaitRoom();
        try sdk.host.emitBytes(changes.shape.message);
        _ = self.scratch.reset(.retain_capacity);
        const pieces = try changes.batch(self.scratch.allocator());
        try self.awaitRoom();
        try sdk.host.emit(pieces);
        self.rows += changes.rows;
        self.is_unmarked = true;
        self.waiting -= @min(self.waiting, changes.bytes);
        try changes.reset(kept_bytes / self.changes.len);
    }

    /// The server hears from us also while the destination is busy.
    fn awaitRoom(self: *Outgoing) !void {
        while (!try sdk.host.room(1000)) try self.standby.report(sdk.host.now());
    }

    /// Everything that was committed before `lsn` is emitted, the newest of it at `commit_ts`.
    pub fn mark(self: *Outgoing, lsn: Lsn, commit_ts: ?i64, is_final: bool) !void {
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        var rejected: sdk.json.ArrayHashMap(u64) = .{};
        for (self.asides) |*aside| {
            try aside.letters.flush();
            if (aside.unmarked > 0) try rejected.map.put(arena, aside.stream.name, aside.unmarked);
            aside.unmarked = 0;
        }
        try sdk.host.barrierOfStreams(arena, .{ .lsn = lsn, .commit_ts = commit_ts }, is_final, rejected);
        try self.standby.settlement.mark(lsn);
        self.marked = lsn;
        self.marked_at = sdk.host.now();
        self.is_unmarked = false;
    }

    // What cannot be told.

    /// A change of `length` bytes.
    pub fn tooLarge(self: *Outgoing, relation: *const PublishedRelation, row: Row, length: usize) !void {
        _ = self.scratch.reset(.retain_capacity);
        return self.leaveOut(relation, row, false, &.{
            .category = .oversized,
            .message = try std.fmt.allocPrint(
                self.scratch.allocator(),
                "a change of {s} has {d} bytes, which is too large for the connector's memory",
                .{ relation.name, length },
            ),
            .hint = "raise `limits.max_memory`, or leave large columns out with `columns`",
        });
    }

    fn notText(self: *Outgoing, relation: *const PublishedRelation, row: Row, changes: *const Changes) !void {
        _ = self.scratch.reset(.retain_capacity);
        const column = &changes.shape.columns[changes.fault.column].of;
        const wrong = changes.fault.wrong.?;
        return self.leaveOut(relation, row, true, &.{
            .category = .invalid_text,
            .column = changes.fault.column,
            .sqlstate = "22021",
            .message = try std.fmt.allocPrint(
                self.scratch.allocator(),
                "column {s} ({s}) of {s} holds bytes that are not UTF-8: 0x{x:0>2} at byte {d}",
                .{ column.name, column.type_name, relation.name, wrong.byte, wrong.place + 1 },
            ),
            .hint = "leave the column out with `columns`",
        });
    }

    /// A change that cannot be emitted. `reason` lies in `scratch`. `is_there`: all of the row is.
    fn leaveOut(self: *Outgoing, relation: *const PublishedRelation, row: Row, is_there: bool, reason: *const Reason) !void {
        const arena = self.scratch.allocator();
        const destination = &relation.destination.?;
        const aside = &self.asides[destination.stream];
        const columns = destination.shape.columns;
        if (!aside.takes()) return sdk.errors.ofStream(aside.stream.name, sdk.errors.failWith(.{
            .kind = if (reason.category == .oversized) .resource else .data,
            .message = try std.fmt.allocPrint(arena, "stream {s}: {s}, in the transaction at {f}", .{
                aside.stream.name,
                reason.message,
                Lsn{ .value = row.marks.lsn },
            }),
            .hint = reason.hint,
            .sqlstate = reason.sqlstate,
        }));
        const fields = try arena.alloc(pgoutput.Field, columns.len);
        @memset(fields, .{ .form = .null });
        for (row.fields, destination.places[0..row.fields.len]) |field, place| {
            if (place < fields.len) fields[place] = field;
        }
        try aside.take(&.{
            .marks = row.marks,
            .columns = columns,
            .fields = if (is_there) fields else null,
            .name = try changes_aside.nameOf(arena, columns, destination.places, row.fields, destination.key orelse &.{}),
            .reason = reason,
        });
        self.is_unmarked = true;
    }

    fn rowFailed(relation: *const PublishedRelation, row: Row, changes: *const Changes, err: anyerror) anyerror {
        if (err != error.Malformed) return err;
        const column = &changes.shape.columns[changes.fault.column].of;
        return sdk.errors.ofStream(changes.shape.facts.stream, sdk.fail(
            .protocol,
            "column {s} ({s}) of {s} has a value that is not of its type, in the transaction at {f}",
            .{ column.name, column.type_name, relation.name, Lsn{ .value = row.marks.lsn } },
        ));
    }
};
