//! One table that is kept in step with its source: what waits for it, and how it is written.
//!
//!     upsert, with a key      mirror.zig      the rows of the source, found by their key
//!     upsert, without one     multiset.zig    … by all that they hold
//!     append                  history.zig     a row for every change
//!
//! A replica stops for good where its stream cannot go on: its rows since the last commit are taken back, its watermark
//! stays, and the others go on.

const std = @import("std");
const sdk = @import("sdk");
const arrow = sdk.arrow;
const changes_module = @import("changes.zig");
const claims = @import("claims.zig");
const history = @import("history.zig");
const target_module = @import("target.zig");
const write = @import("write.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Changes = changes_module.Changes;
const Landing = @import("landing.zig").Landing;
const Mirror = @import("mirror.zig").Mirror;
const Multiset = @import("multiset.zig").Multiset;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;

/// Says when a row was deleted, where deleted rows are kept.
const deleted_at: arrow.Field = .{
    .name = "_rb_deleted_at",
    .type = .{ .timestamp = .{ .utc = true } },
    .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "timestamp with time zone" }},
};

pub const Way = union(enum) {
    mirror: Mirror,
    multiset: Multiset,
    history: history.History,

    pub fn build(self: *Way, span: changes_module.Span, filter: changes_module.Filter) !void {
        switch (self.*) {
            inline else => |*way| try way.build(span, filter),
        }
    }

    /// Whether two changes are of the same row of the table.
    pub fn sameRow(self: *const Way, a: changes_module.Ref, b: changes_module.Ref) bool {
        return switch (self.*) {
            inline else => |*way| way.sameRow(a, b),
        };
    }

    /// The change that emptied the table, within what was built.
    pub fn truncated(self: *const Way) ?changes_module.Ref {
        return switch (self.*) {
            .mirror => |*mirror| mirror.net.truncated,
            .multiset => |*multiset| multiset.truncated,
            .history => null,
        };
    }

    pub fn remove(self: *Way, arena: Allocator) !void {
        switch (self.*) {
            .history => {},
            inline else => |*way| try way.remove(arena),
        }
    }

    pub fn write(self: *Way, arena: Allocator) !void {
        switch (self.*) {
            inline else => |*way| try way.write(arena),
        }
    }

    pub fn abandon(self: *Way) void {
        switch (self.*) {
            inline else => |*way| way.abandon(),
        }
    }

    pub fn undone(self: *Way) void {
        switch (self.*) {
            inline else => |*way| way.undone(),
        }
    }

    pub fn committed(self: *Way) void {
        switch (self.*) {
            inline else => |*way| way.committed(),
        }
    }

    pub fn bytes(self: *const Way) u64 {
        return switch (self.*) {
            inline else => |*way| way.bytes(),
        };
    }

    fn drop(self: *Way, arena: Allocator) !void {
        switch (self.*) {
            .history => {},
            inline else => |*way| try way.drop(arena),
        }
    }

    fn deinit(self: *Way) void {
        switch (self.*) {
            .history => {},
            inline else => |*way| way.deinit(),
        }
    }
};

/// Why a stream cannot go on, as the host is told.
pub const Stop = struct {
    kind: sdk.errors.Kind,
    message: sdk.json.Text,
    detail: ?sdk.json.Text,
    hint: ?sdk.json.Text,
    sqlstate: ?[]const u8,
};

pub const Counts = struct {
    inserted: u64 = 0,
    updated: u64 = 0,
    deleted: u64 = 0,
    truncated: u64 = 0,

    fn add(self: *Counts, other: Counts) void {
        inline for (@typeInfo(Counts).@"struct".field_names) |name| @field(self, name) += @field(other, name);
    }
};

pub const Replica = struct {
    session: *Session,
    asked: *const write.Stream,
    target: Target,
    number: usize,
    changes: Changes,
    /// Of everything that belongs to the landing.
    arena: *std.heap.ArenaAllocator,
    /// The schema message in force.
    message: []const u8 = "",
    shape: ?changes_module.Shape = null,
    landing: ?*Landing = null,
    way: ?Way = null,
    stop: ?Stop = null,
    /// The table is altered as the landing wants it.
    ready: bool = false,
    /// Locked in this transaction, and as it was.
    claimed: bool = false,
    /// What both were before what may be taken back.
    before: struct { ready: bool = false, claimed: bool = false } = .{},
    /// The table's columns as they were when it was claimed first: `claims.descriptions`.
    description: ?[]const u8 = null,
    /// Changes that wait no more are in this transaction.
    applied: bool = false,
    /// Since the last commit.
    rows_pending: u64 = 0,
    rejected: u64 = 0,
    pending: Counts = .{},
    /// Up to the last commit.
    rows: u64 = 0,
    rejected_before: u64 = 0,
    counts: Counts = .{},
    first_refusal: ?[]const u8 = null,

    pub fn init(arena: Allocator, session: *Session, asked: *const write.Stream, number: usize) !Replica {
        return .{
            .session = session,
            .asked = asked,
            .target = try .init(arena, asked.schema orelse session.schema, asked.table),
            .number = number,
            .changes = .{ .gpa = session.gpa },
            .arena = try arenaOf(session.gpa),
        };
    }

    fn arenaOf(gpa: Allocator) !*std.heap.ArenaAllocator {
        const arena = try gpa.create(std.heap.ArenaAllocator);
        arena.* = .init(gpa);
        return arena;
    }

    fn free(gpa: Allocator, arena: *std.heap.ArenaAllocator) void {
        arena.deinit();
        gpa.destroy(arena);
    }

    pub fn deinit(self: *Replica) void {
        if (self.way) |*way| way.deinit();
        self.changes.deinit();
        free(self.session.gpa, self.arena);
    }

    pub fn oid(self: *const Replica) ?u32 {
        const landing = self.landing orelse return null;
        return landing.existing.?.oid;
    }

    /// Whether there is something to apply.
    pub fn waits(self: *const Replica) bool {
        return self.stop == null and self.changes.rows > 0;
    }

    /// A batch of its changes; `message` is taken over.
    pub fn take(self: *Replica, message: []align(16) u8) !void {
        if (self.stop != null) {
            defer self.session.gpa.free(message);
            self.rows_pending += try arrow.reader.rowsOf(message);
            return;
        }
        const known = if (self.shape) |*shape| shape else {
            defer self.session.gpa.free(message);
            return sdk.fail(.protocol, "changes came before their schema", .{});
        };
        const batch = try self.changes.add(&known.wire, message);
        self.rows_pending += batch.rows;
        for (batch.ops) |op| switch (op) {
            .insert => self.pending.inserted += 1,
            .update => self.pending.updated += 1,
            .delete => self.pending.deleted += 1,
            .truncate => self.pending.truncated += 1,
            .old => {},
        };
        for (batch.ops, 0..) |op, row| if (batch.isPartial(row) or self.asked.deletes == .soft and op.deletes()) {
            self.changes.cells += batch.columns.len;
        };
        try self.land(batch);
        if (self.asked.truncate != .fail) return;
        for (batch.ops) |op| if (op == .truncate) {
            _ = &sdk.errors.failHinted(
                .data,
                "set `truncate: apply` or `ignore` for the stream, or run it again with full_refresh",
                "{s} was truncated at the source (truncate: fail)",
                .{self.target.label},
            );
            return self.halt(sdk.errors.current().?);
        };
    }

    /// Arranges the batch's columns as they are written.
    fn land(self: *Replica, batch: *changes_module.Batch) !void {
        const landing = self.landing orelse return;
        const arena = batch.arena();
        const all = switch (self.way.?) {
            .history => try history.columnsOf(batch, &self.shape.?.table),
            else => if (self.asked.deletes == .soft)
                try std.mem.concat(arena, arrow.ArrayView, &.{ batch.columns, &.{try deletions(arena, batch)} })
            else
                batch.columns,
        };
        const fields = landing.evolution.?.fields;
        batch.landed = try arena.alloc(arrow.ArrayView, fields.len);
        for (batch.landed, fields) |*view, place| view.* = all[place];
        if (self.way.? != .mirror) return;
        const key = self.way.?.mirror.key;
        batch.keyed = try arena.alloc(arrow.ArrayView, key.len);
        for (batch.keyed, key) |*view, place| view.* = batch.landed[place];
    }

    /// When each row was deleted; NULL for those that are there.
    fn deletions(arena: Allocator, batch: *const changes_module.Batch) !arrow.ArrayView {
        var view = batch.times.*;
        const bitmap = try arena.alloc(u8, (batch.rows + 7) / 8);
        @memset(bitmap, 0);
        view.null_count = batch.rows;
        for (batch.ops, 0..) |op, row| if (op.deletes()) {
            bitmap[row / 8] |= @as(u8, 1) << @intCast(row % 8);
            view.null_count -= 1;
        };
        view.validity = bitmap;
        return view;
    }

    /// Whether the message changes anything about what comes.
    pub fn isNews(self: *const Replica, message: []const u8) bool {
        return !std.mem.eql(u8, self.message, message);
    }

    /// Looks at what the schema message would do, and changes nothing. In a transaction. Fails where it is refused.
    pub fn foresee(self: *Replica, arena: Allocator, message: []const u8) !void {
        const shape: *changes_module.Shape = try arena.create(changes_module.Shape);
        shape.* = try .read(arena, message);
        const planned = try self.plan(arena, shape);
        const landing = planned.landing;
        if (planned.way == .mirror)
            _ = try Arbiter.requirePossible(arena, self.session, &self.target, landing.existing.?.oid, landing.key);
    }

    const Plan = struct { landing: *Landing, way: std.meta.Tag(Way) };

    fn plan(self: *Replica, arena: Allocator, shape: *const changes_module.Shape) !Plan {
        const mode = try self.asked.mode();
        const asked = try arena.create(write.Stream);
        asked.* = self.asked.*;
        const schema = try arena.create(arrow.Schema);
        schema.* = shape.table;
        var way: std.meta.Tag(Way) = .history;
        switch (mode) {
            .append => {
                schema.* = try history.schemaOf(arena, &shape.table);
                asked.primary_key = null;
            },
            .upsert => {
                const soft = self.asked.deletes == .soft;
                if (soft) schema.fields = try std.mem.concat(arena, arrow.Field, &.{ shape.table.fields, &.{deleted_at} });
                if (try self.keyOf(arena, shape)) |key| {
                    way = .mirror;
                    asked.primary_key = key;
                } else {
                    way = .multiset;
                    asked.write_mode = "append";
                    asked.primary_key = null;
                    if (soft) return sdk.errors.failHinted(
                        .schema,
                        "name a `primary_key`, or set `deletes: hard`",
                        "{s} has no key, and of equal rows nobody can say which was deleted: soft deletes need one",
                        .{self.target.label},
                    );
                }
            },
            .replace => return sdk.fail(.unsupported, "changes are written by upsert or append", .{}),
        }
        try write.expect(arena, self.session, &self.target, self.asked, .must_exist);
        const landing: *Landing = try .find(arena, self.session, &self.target, asked, schema);
        landing.told_as = self.asked.name;
        try landing.insist(arena);
        if (self.asked.deletes == .soft) try self.requireColumn(landing, deleted_at.name);
        if (way == .history) for ([_][]const u8{ "_rb_op", "_rb_lsn", "_rb_seq", "_rb_commit_ts", "_rb_unchanged" }) |name|
            try self.requireColumn(landing, name);
        return .{ .landing = landing, .way = way };
    }

    fn requireColumn(self: *const Replica, landing: *const Landing, name: []const u8) !void {
        for (landing.columns) |column| if (std.mem.eql(u8, column.name, name)) return;
        return sdk.errors.failHinted(
            .schema,
            "add it to the table, set `new_column: add` under `schema_evolution`, or run the stream with full_refresh",
            "{s} lacks the column {s}",
            .{ self.target.label, name },
        );
    }

    /// What rows are found by; null where it is all that they hold.
    fn keyOf(self: *const Replica, arena: Allocator, shape: *const changes_module.Shape) !?[]const []const u8 {
        if (self.asked.primary_key) |named| {
            const identity = shape.identity orelse return named;
            const same = named.len == identity.len and for (named) |name| {
                if (!contains(identity, name)) break false;
            } else true;
            if (same) return named;
            return sdk.errors.failHinted(
                .config,
                "leave `primary_key` out, or let the source tell whole rows: ALTER TABLE … REPLICA IDENTITY FULL",
                "{s}: the source tells changed rows by ({s}), and `primary_key` is ({s})",
                .{ self.target.label, try std.mem.join(arena, ", ", identity), try std.mem.join(arena, ", ", named) },
            );
        }
        if (shape.identity) |identity| return identity;
        const key = try target_module.sourceKey(arena, &shape.table);
        if (key.len > 0) return key;
        if (shape.replica_identity == .full) return null;
        return sdk.errors.failHinted(
            .schema,
            "give the source table a primary key, set its REPLICA IDENTITY FULL, or set `write_mode: append`",
            "{s}: the source table has nothing to tell its rows apart by",
            .{self.target.label},
        );
    }

    fn contains(names: []const []const u8, wanted: []const u8) bool {
        return for (names) |name| {
            if (std.mem.eql(u8, name, wanted)) break true;
        } else false;
    }

    /// Makes the message's schema the one in force. Nothing waits any more. In a transaction; where `may_commit`, another
    /// one may be open afterwards.
    pub fn turn(self: *Replica, scratch: Allocator, message: []const u8, may_commit: bool) !void {
        std.debug.assert(self.changes.rows == 0);
        const arena = try arenaOf(self.session.gpa);
        errdefer free(self.session.gpa, arena);
        const kept = arena.allocator();
        const known = try kept.dupe(u8, message);
        const shape = try kept.create(changes_module.Shape);
        shape.* = try .read(kept, known);
        const planned = try self.plan(kept, shape);
        const landing = planned.landing;
        if (self.landing) |earlier| try landing.follow(kept, earlier);
        if (self.way) |*way| {
            try way.drop(scratch);
            way.deinit();
            self.way = null;
        }
        const fields = landing.evolution.?.fields;
        const told = try kept.alloc(?usize, fields.len);
        for (told, fields) |*number, place| number.* = if (place < shape.table.fields.len) place else null;
        const keeps = self.asked.truncate == .ignore;
        const way: Way = switch (planned.way) {
            .mirror => blk: {
                const relation = landing.existing.?.oid;
                const arbiter: Arbiter = try .require(kept, self.session, &self.target, relation, landing.key, may_commit);
                const deletes = self.asked.deletes orelse .hard;
                break :blk .{ .mirror = try .init(kept, landing, &self.changes, arbiter, told, deletes, keeps, shape.replica_identity == .full, self.number) };
            },
            .multiset => .{ .multiset = try .init(kept, landing, &self.changes, keeps, self.number) },
            .history => .{ .history = try .init(kept, landing, &self.changes) },
        };
        free(self.session.gpa, self.arena);
        self.arena = arena;
        self.message = known;
        self.shape = shape.*;
        self.landing = landing;
        self.way = way;
        self.ready = false;
        self.claimed = false;
        self.description = null;
        switch (self.way.?) {
            .history => {},
            inline else => |*made| try made.create(),
        }
    }

    /// The table is locked, and as the landing wants it. In the transaction of the rows.
    pub fn claim(self: *Replica, scratch: Allocator) !void {
        const landing = self.landing.?;
        if (self.claimed) return;
        if (!self.ready and landing.changesTable()) {
            try landing.evolve(self.arena.allocator());
        } else {
            try self.session.seeCatalog();
            try self.target.awaitLock(scratch, self.session);
            try landing.requireUnchanged(scratch);
        }
        if (!self.ready and self.way.? == .mirror) {
            try self.session.seeCatalog();
            const relation = try self.arena.allocator().create(Relation);
            relation.* = try self.target.find(self.arena.allocator(), self.session) orelse return self.target.altered();
            try self.way.?.mirror.know(relation);
        }
        const found = try claims.descriptions(scratch, self.session, &.{self});
        self.description = if (found[0]) |text| try self.arena.allocator().dupe(u8, text) else null;
        try self.session.seeAsUser();
        self.ready = true;
        self.claimed = true;
    }

    /// From here on its claim may be taken back.
    pub fn remember(self: *Replica) void {
        self.before = .{ .ready = self.ready, .claimed = self.claimed };
    }

    /// After ROLLBACK TO SAVEPOINT.
    pub fn recall(self: *Replica) void {
        self.ready = self.before.ready;
        self.claimed = self.before.claimed;
    }

    /// Whether the table's columns are those that it was claimed with.
    pub fn isAsItWas(self: *const Replica, description: ?[]const u8) bool {
        return std.mem.eql(u8, self.description orelse return false, description orelse return false);
    }

    /// The stream cannot go on. Whatever is written of it in this transaction has been taken back.
    pub fn halt(self: *Replica, failure: sdk.errors.Failure) !void {
        if (self.applied) {
            // What earlier changes of this transaction did cannot be taken back alone: the host begins again without it.
            var named = failure;
            named.stream = self.asked.name;
            return sdk.errors.failWith(named);
        }
        const gpa = self.session.arena.allocator();
        self.stop = .{
            .kind = failure.kind,
            .message = .{ .bytes = try gpa.dupe(u8, failure.message) },
            .detail = if (failure.detail) |text| .{ .bytes = try gpa.dupe(u8, text) } else null,
            .hint = if (failure.hint) |text| .{ .bytes = try gpa.dupe(u8, text) } else null,
            .sqlstate = if (failure.sqlstate) |text| try gpa.dupe(u8, text) else null,
        };
        sdk.errors.clear();
        self.changes.clear();
    }

    /// After COMMIT.
    pub fn committed(self: *Replica) void {
        self.claimed = false;
        self.applied = false;
        if (self.stop == null) {
            self.rows += self.rows_pending;
            self.counts.add(self.pending);
        }
        self.rejected_before += self.rejected;
        self.rows_pending = 0;
        self.rejected = 0;
        self.pending = .{};
        if (self.way) |*way| way.committed();
    }
};

/// Whether a failure is about one table, so that the others can go on without it.
pub fn isOwn(failed: anyerror) bool {
    if (failed != error.Failed) return false;
    const failure = sdk.errors.current() orelse return false;
    return switch (failure.kind) {
        .config, .unsupported, .schema, .permission, .not_found, .data => true,
        else => false,
    };
}
