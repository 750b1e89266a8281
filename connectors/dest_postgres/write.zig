//! rb_write: takes what the host brings, and commits at barriers.
//!
//!     schema    the target is found, and evolves, or is made; a transaction is open from here on
//!     batch     COPY
//!     barrier   COPY's end · prepare (host) · watermark · COMMIT · committed (host)
//!     end       nothing may be uncommitted
//!
//! A replacing write commits at the final barrier only, and so do a shard, whose rows go where nobody looks, and the
//! publication of all shards, which brings no rows of its own. Whatever fails, whoever aborts: ROLLBACK.

const std = @import("std");
const sdk = @import("sdk");
const guard_module = @import("guard.zig");
const home = @import("home.zig");
const ranges = @import("ranges.zig");
const shape = @import("shape.zig");
const stage = @import("stage.zig");
const watermark = @import("watermark.zig");
const Deletes = @import("net.zig").Deletes;
const Append = @import("append.zig").Append;
const Arbiter = @import("arbiter.zig").Arbiter;
const Guard = guard_module.Guard;
const KnownColumn = @import("policy.zig").KnownColumn;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Policy = @import("policy.zig").Policy;
const Relation = @import("relation.zig").Relation;
const Replace = @import("replace.zig").Replace;
const Publication = @import("publication.zig").Publication;
const Session = @import("session.zig").Session;
const Retention = @import("retention.zig").Retention;
const Shard = @import("shard.zig").Shard;
const Target = @import("target.zig").Target;
const Upsert = @import("upsert.zig").Upsert;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const host = sdk.host;
const json = sdk.json;

pub const WriteMode = enum { append, replace, upsert };

/// As the host describes it in `rb_write` and `rb_check`.
pub const Stream = struct {
    name: []const u8,
    schema: ?[]const u8 = null,
    table: []const u8,
    write_mode: []const u8,
    primary_key: ?[]const []const u8 = null,
    schema_evolution: ?Policy = null,
    known_columns: ?[]const KnownColumn = null,
    on_data_error: guard_module.OnDataError = .fail,
    /// Of a stream of changes.
    deletes: ?Deletes = null,
    truncate: Truncate = .apply,

    pub const Truncate = enum { apply, ignore, fail };

    pub fn mode(self: *const Stream) sdk.errors.Failed!WriteMode {
        return std.meta.stringToEnum(WriteMode, self.write_mode) orelse sdk.fail(
            .unsupported,
            "write mode {s} is not supported: append, replace and upsert are",
            .{self.write_mode},
        );
    }
};

/// Whether the target has to be there already.
pub const Existence = enum { any, must_exist, must_not_exist };

const Argument = struct {
    stream: Stream,
    target: Existence = .any,
    /// A shard: where its rows go.
    into: ?stage.Staged = null,
    /// What becomes of rows there that are of an earlier snapshot: those stay whose keys come; or those come that are missing
    /// then.
    amends: ?enum { kept, changed } = null,
    /// Where all shards' rows are, to be published.
    staged: ?stage.Staged = null,
};

pub const Written = struct {
    rows: u64,
    bytes: u64,
    schema: []const u8,
    table: []const u8,
    created: bool,
    columns: []const Column,
    primary_key: []const []const u8,

    const Column = struct { name: []const u8, type: []const u8, nullable: bool };
};

pub fn write(arena: Allocator, session: *Session, argument: json.Value) !Written {
    if (session.stream == null) return sdk.fail(.protocol, "rb_open named no stream to write", .{});
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const target: Target = try .init(arena, parsed.stream.schema orelse session.schema, parsed.stream.table);
    if ((parsed.into != null) != (session.shard != null))
        return sdk.fail(.protocol, "a shard is written into staged tables, and nothing else is", .{});
    const guarded = parsed.stream.on_data_error != .fail;
    if (guarded and (session.shard != null or parsed.staged != null))
        return sdk.fail(.protocol, "a stream that leaves rows out is written in one piece", .{});
    session.checks = if (guarded) .at_once else .as_declared;
    if (session.shard == null) {
        if (parsed.staged == null) try stage.dropLeftovers(arena, session, session.stream.?, stage.leftover_patience);
        try expect(arena, session, &target, &parsed.stream, parsed.target);
        try home.prepare(arena, session, target.schema);
    }
    var writer: Writer = .{
        .arena = arena,
        .session = session,
        .target = &target,
        .stream = &parsed.stream,
        .into = if (parsed.into) |*into| into else null,
        .retains = parsed.amends == .kept,
        .completes = parsed.amends == .changed,
        .staged = if (parsed.staged) |*staged| staged else null,
        .reader = .init(session.gpa),
        .scratch = .init(session.gpa),
        .guard = if (guarded) .init(session, parsed.stream.on_data_error) else null,
    };
    defer writer.deinit();
    errdefer writer.abandon();
    try writer.run();
    return writer.result();
}

/// What the host knows of earlier runs has to agree with what is here: otherwise rows would be missing, or there twice.
pub fn expect(
    arena: Allocator,
    session: *Session,
    target: *const Target,
    stream: *const Stream,
    expected: Existence,
) !void {
    if (expected == .any) return;
    const exists = try Relation.find(arena, session, target.schema, target.table) != null;
    switch (expected) {
        .any => unreachable,
        .must_exist => if (!exists) return sdk.errors.failHinted(
            .schema,
            try std.fmt.allocPrint(
                arena,
                "restore the table, or forget what was written (`rapidbyte state reset FILE --stream {s}`), " ++
                    "or run with full_refresh",
                .{stream.name},
            ),
            "{s} is gone, but its watermark says that rows were written: going on from there would leave them out",
            .{target.label},
        ),
        .must_not_exist => if (exists) return sdk.errors.failHinted(
            .schema,
            try std.fmt.allocPrint(
                arena,
                "restore the watermark in {s}.{s}, or drop the table and forget what was written " ++
                    "(`rapidbyte state reset FILE --stream {s}`), or run with full_refresh",
                .{ session.schema, watermark.table_name, stream.name },
            ),
            "{s} is there, but its watermark is gone, and the state store knows of an earlier commit: " ++
                "writing from the beginning would repeat its rows",
            .{target.label},
        ),
    }
}

const Writing = union(enum) {
    append: Append,
    replace: Replace,
    upsert: Upsert,
    shard: Shard,
    retention: Retention,
    publication: Publication,

    /// Null where no rows come.
    fn load(self: *Writing) ?*Load {
        return switch (self.*) {
            .publication => null,
            inline else => |*way| &way.load,
        };
    }

    /// Otherwise at the final one alone.
    fn commitsAtEachBarrier(self: *const Writing) bool {
        return self.* == .append or self.* == .upsert;
    }

    fn created(self: *const Writing) bool {
        return switch (self.*) {
            inline .append, .upsert => |*way| way.created,
            inline .replace, .publication => |*way| way.created(),
            .shard, .retention => false,
        };
    }
};

const Writer = struct {
    /// For what lives as long as the verb.
    arena: Allocator,
    /// For what one commit needs: there may be millions.
    scratch: std.heap.ArenaAllocator,
    session: *Session,
    target: *const Target,
    stream: *const Stream,
    into: ?*const stage.Staged,
    retains: bool,
    completes: bool,
    staged: ?*const stage.Staged,
    reader: arrow.BatchReader,
    message: std.array_list.Aligned(u8, .@"16") = .empty,
    schema: ?arrow.Schema = null,
    /// Null until rows are written into the target.
    landing: ?*Landing = null,
    writing: ?Writing = null,
    /// Null where a row that fails fails them all.
    guard: ?Guard,
    /// Rows in all, and since the last commit; bytes up to the last commit.
    rows: u64 = 0,
    rows_pending: u64 = 0,
    bytes_committed: u64 = 0,
    final: bool = false,
    created: bool = false,

    fn deinit(self: *Writer) void {
        if (self.writing) |*writing| if (writing.* == .upsert) writing.upsert.deinit();
        if (self.guard) |*guard| guard.deinit();
        self.reader.deinit();
        self.scratch.deinit();
        self.message.deinit(self.session.gpa);
    }

    fn run(self: *Writer) !void {
        while (true) {
            const item = try host.next();
            switch (item.kind) {
                .message => try self.take(try self.read(item.len)),
                .barrier => try self.commit(try self.readBarrier(item.len)),
                .end => break,
            }
        }
        if (self.rows_pending > 0 or self.session.in_transaction or self.staged != null and !self.final)
            return sdk.fail(.protocol, "the stream ended without a barrier behind its last rows", .{});
    }

    /// `encode.slack` bytes follow the message in memory.
    fn read(self: *Writer, len: usize) ![]align(16) const u8 {
        self.message.clearRetainingCapacity();
        try self.message.ensureTotalCapacity(self.session.gpa, len + @import("encode.zig").slack);
        self.message.items.len = len;
        try host.read(self.message.items);
        return self.message.items;
    }

    const Barrier = struct { sequence: u64, cursor: json.Value, final: bool };

    fn readBarrier(self: *Writer, len: usize) !Barrier {
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        const value = try watermark.parseExactly(arena, try self.read(len));
        const rest = try sdk.connector.parse(struct { sequence: u64, final: bool }, arena, value);
        return .{ .sequence = rest.sequence, .cursor = value.object.get("cursor") orelse .null, .final = rest.final };
    }

    fn take(self: *Writer, message: []align(16) const u8) !void {
        if (self.final) return sdk.fail(.protocol, "data came after the final barrier", .{});
        if (try arrow.reader.messageKind(message) == .schema) return self.takeSchema(message);
        const schema = if (self.schema) |*known| known else return sdk.fail(.protocol, "rows came before their schema", .{});
        if (self.staged != null) return sdk.fail(.protocol, "rows came where they are published", .{});
        const decoded = try self.reader.decode(schema, message);
        if (!self.session.in_transaction) try self.reopen();
        const batch = self.place().project(&decoded);
        if (self.guard) |*guard| try self.sift(guard, &batch) else switch (self.writing.?) {
            .publication => unreachable,
            inline .upsert, .shard => |*way| try way.add(&batch, self.rows),
            inline else => |*way| try way.load.add(&batch, self.rows),
        }
        self.rows += batch.rows;
        self.rows_pending += batch.rows;
    }

    fn sift(self: *Writer, guard: *Guard, batch: *const arrow.Batch) !void {
        switch (self.writing.?) {
            .publication, .shard, .retention => unreachable,
            .upsert => |*upsert| try upsert.sift(guard, batch, self.rows),
            inline else => |*way| try ranges.sift(guard, self.landing.?, &way.load, null, batch, self.rows),
        }
    }

    fn takeSchema(self: *Writer, message: []const u8) !void {
        if (self.schema) |*known| {
            if (shape.same(known, &try shape.read(self.scratch.allocator(), message))) return;
            return self.turn(message);
        }
        self.schema = try shape.read(self.arena, message);
        // The shards may be writing for a long time yet.
        if (self.staged == null) try self.start();
    }

    fn start(self: *Writer) !void {
        try self.session.begin();
        const stream = &self.schema.?;
        if (self.into) |into| {
            self.writing = if (self.retains)
                .{ .retention = try .init(self.arena, self.session, self.target, self.stream, stream, into) }
            else
                .{ .shard = try .init(self.arena, self.session, self.target, self.stream, stream, into, self.completes) };
        } else {
            const landing: *Landing = try .find(self.arena, self.session, self.target, self.stream, stream);
            try landing.insist(self.arena);
            landing.guard = if (self.guard) |*guard| guard else null;
            self.landing = landing;
            self.writing = if (self.staged) |staged|
                .{ .publication = try .init(self.arena, landing, staged) }
            else switch (landing.mode) {
                .append => .{ .append = try .init(self.arena, landing) },
                .replace => .{ .replace = try .init(self.arena, landing) },
                .upsert => .{ .upsert = try .init(self.arena, landing) },
            };
        }
        self.created = self.writing.?.created();
        try self.session.seeAsUser();
    }

    /// Another schema, in the middle of the stream: the rows so far go into the table as it is, the others into what it
    /// becomes. What commits once is not to be changed half-way.
    fn turn(self: *Writer, message: []const u8) !void {
        const writing = &self.writing.?;
        if (!writing.commitsAtEachBarrier()) return shape.changed(self.target.label);
        const session = self.session;
        if (session.in_transaction) switch (writing.*) {
            inline .append, .upsert => |*way| try way.complete(self.scratch.allocator()),
            else => unreachable,
        } else try session.begin();
        try session.seeCatalog();
        const bytes = writing.load().?.bytes;
        try writing.load().?.dropStaging();
        self.schema = try shape.read(self.arena, message);
        const landing: *Landing = try .find(self.arena, session, self.target, self.stream, &self.schema.?);
        try landing.insist(self.arena);
        try landing.follow(self.arena, self.landing.?);
        landing.guard = self.landing.?.guard;
        self.landing = landing;
        switch (writing.*) {
            .append => |*append| append.* = try .init(self.arena, landing),
            .upsert => |*upsert| {
                // Making one would commit what no barrier covers yet.
                const found = try Arbiter.find(self.arena, session, landing.existing.?.oid, landing.key);
                if (found.usable == null) return shape.changed(self.target.label);
                try upsert.dropStaging();
                const next: Upsert = try .init(self.arena, landing);
                upsert.deinit();
                upsert.* = next;
            },
            else => unreachable,
        }
        writing.load().?.bytes = bytes;
        try session.seeAsUser();
    }

    /// Where rows are written to.
    fn place(self: *Writer) *Landing {
        return self.landing orelse switch (self.writing.?) {
            inline .shard, .retention => |*way| way.landing,
            else => unreachable,
        };
    }

    /// The next transaction of a write that commits at every barrier.
    fn reopen(self: *Writer) !void {
        try self.session.begin();
        try self.session.seeCatalog();
        const arena = self.scratch.allocator();
        // An upsert's rows wait beside the table, which nobody should wait for because of them.
        if (self.writing.? == .append) try self.target.awaitLock(arena, self.session);
        try self.landing.?.requireUnchanged(arena);
        try self.session.seeAsUser();
    }

    /// `barrier` lies in `scratch`.
    fn commit(self: *Writer, barrier: Barrier) !void {
        if (self.final) return sdk.fail(.protocol, "a barrier came after the final one", .{});
        if (self.schema == null) return sdk.fail(.protocol, "a barrier came before the schema", .{});
        if (self.staged != null and barrier.final) try self.start();
        const writing = if (self.writing) |*writing| writing else return;
        if (!barrier.final and !writing.commitsAtEachBarrier()) return;
        if (!self.session.in_transaction) try self.reopen();
        const arena = self.scratch.allocator();
        switch (writing.*) {
            inline .shard, .retention => |*way| try way.complete(arena, self.rows),
            inline else => |*way| try way.complete(arena),
        }
        if (writing.* == .publication) {
            self.rows = writing.publication.rows;
            self.rows_pending = self.rows;
        }
        if (self.landing) |landing| try landing.report(arena);
        const bytes = if (writing.load()) |load| load.bytes else writing.publication.bytes;
        try host.prepare(barrier.sequence, self.rows_pending, bytes - self.bytes_committed, if (self.guard) |*guard| guard.rejected else 0);
        const started = host.now();
        switch (writing.*) {
            .append, .upsert, .shard, .retention => {},
            inline else => |*way| try way.publish(arena),
        }
        if (self.into == null) try watermark.write(arena, self.session, .{
            .sequence = barrier.sequence,
            .cursor = barrier.cursor,
            .run_id = self.session.run_id,
            .final = barrier.final,
        });
        try self.session.commit(arena);
        if (writing.* == .publication) self.session.staged = false;
        host.metric("commit_seconds", @as(f64, @floatFromInt(host.now() - started)) / 1e6);
        self.final = barrier.final;
        self.rows_pending = 0;
        self.bytes_committed = bytes;
        if (self.guard) |*guard| guard.committed();
        try host.committed(barrier.sequence);
        switch (writing.*) {
            .append => |*append| try append.committed(self.arena),
            .upsert => |*upsert| upsert.committed(),
            .replace, .shard, .retention, .publication => {},
        }
    }

    fn abandon(self: *Writer) void {
        if (self.writing) |*writing| if (writing.load()) |load| load.abandon();
        // Rows that the table refuses will be refused again.
        if (self.staged != null) if (self.session.connection.last_error) |said| {
            if (said.hasClass("22") or said.hasClass("23")) self.session.staged = true;
        };
        self.session.rollback();
    }

    fn result(self: *Writer) !Written {
        const arena = self.arena;
        // Of dead letters the host tells.
        if (self.guard) |*guard| if (guard.policy == .skip and guard.total() > 0) host.log(
            .warning,
            "{d} rows were not written into {s}, and are not kept; the first because of: {s}",
            .{ guard.total(), self.target.label, guard.firstMessage() },
        );
        // The target does not have a shard's rows yet, and may not even be there.
        const relation: Relation = if (self.into != null) .{
            .oid = 0,
            .kind = 'r',
            .columns = if (self.writing != null) self.place().existing.?.columns else &.{},
            .primary_key = &.{},
        } else try Relation.find(arena, self.session, self.target.schema, self.target.table) orelse
            return sdk.fail(.not_found, "{s} is gone after it was written", .{self.target.label});
        const columns = try arena.alloc(Written.Column, relation.columns.len);
        for (columns, relation.columns) |*column, found|
            column.* = .{ .name = found.name, .type = found.type, .nullable = found.nullable };
        return .{
            .rows = self.rows,
            .bytes = self.bytes_committed,
            .schema = self.target.schema,
            .table = self.target.table,
            .created = self.created,
            .columns = columns,
            .primary_key = relation.primary_key,
        };
    }
};
