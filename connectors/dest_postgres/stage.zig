//! rb_stage, and the tables that it makes: where the shards of a stream leave their rows, for one transaction to publish
//! them all.
//!
//!     coordinator   rb_stage   staging table and ledger are there, empty and committed
//!     each shard    rb_write   shard.zig: rows into the staging table, a line into the ledger, COMMIT
//!     coordinator   rb_write   publication.zig: staged rows published, staging table and ledger gone, COMMIT
//!
//! The staging table stands beside the target, under a name that belongs to the stream. What it is, decides how it
//! is published:
//!
//!     becomes the target   there is none yet
//!     replaces the target  it stands beside it already, as a swap wants it
//!     gives its rows       unlogged, of the stream's columns; everything else
//!
//! The ledger counts the rows of each shard: `ledger.zig`. Whoever finds either table at a later start drops it: a run did not
//! come to its end. Where the host has a note of what was read, which it can go on from, they stay for the next one, and
//! that goes on with them:
//!
//!     coordinator   rb_stage   what is there fits: a ledger of this attempt's own
//!     one shard     rb_write   retention.zig: rows that are gone at the source, or have changed, go
//!     one shard     rb_write   shard.zig: those that changed come, and with them the new note
//!     the missing shards, and the publication

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const home = @import("home.zig");
const ledger = @import("ledger.zig");
const shape = @import("shape.zig");
const write = @import("write.zig");
const target_module = @import("target.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Landing = @import("landing.zig").Landing;
const Policy = @import("policy.zig").Policy;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Swap = @import("swap.zig").Swap;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const host = sdk.host;
const json = sdk.json;

/// How long the sessions of an earlier run may keep its tables.
pub const leftover_patience = "9s";

pub const Role = enum { becomes_target, replaces_target, gives_rows };

/// What the host hands from rb_stage to each rb_write, as it is.
pub const Staged = struct {
    schema: []const u8,
    table: []const u8,
    oid: u32,
    ledger: []const u8,
    ledger_oid: u32,
    role: Role,
    /// The table that is to be replaced, and what it was like.
    old_oid: ?u32,
    old: ?[]const u8,
    /// `shape.fingerprint` of the stream.
    shape: []const u8,
    /// `columns.fingerprint` of what is written of it.
    columns: []const u8,
    /// What a copy of the target went through for them.
    altered: []const u8,
    /// What the host needs to go on with these rows in a later run; null: nobody will.
    note: json.Value = .null,

    pub fn quoted(self: *const Staged, arena: Allocator) ![]const u8 {
        return postgres.ident.qualified(arena, self.schema, self.table);
    }

    pub fn quotedLedger(self: *const Staged, arena: Allocator) ![]const u8 {
        return postgres.ident.qualified(arena, self.schema, self.ledger);
    }

    /// Locks the staging table, and makes sure that it is this run's, and was made for these columns.
    pub fn claim(
        self: *const Staged,
        arena: Allocator,
        session: *Session,
        schema: ?*const arrow.Schema,
        comptime mode: []const u8,
        label: []const u8,
        doing: []const u8,
    ) !void {
        if (schema) |known| if (!std.mem.eql(u8, self.shape, try shape.fingerprint(arena, known))) return shape.changed(label);
        if (try self.isThere(arena, session, doing)) {
            _ = try session.lockTable(arena, .{
                .table = try self.quoted(arena),
                .label = try std.fmt.allocPrint(arena, "the staged rows of {s}", .{label}),
                .mode = mode,
                .doing = doing,
            });
            if (try self.isThere(arena, session, doing)) return;
        }
        return sdk.errors.failHinted(
            .not_found,
            "run the stream again",
            "the staged rows of {s} are gone: their run is over",
            .{label},
        );
    }

    /// Whether both tables are those that were made, and not a later attempt's.
    fn isThere(self: *const Staged, arena: Allocator, session: *Session, doing: []const u8) !bool {
        const found = try session.query(
            arena,
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " ++
                "WHERE n.nspname = $1 AND (c.oid = $2::oid AND c.relname = $3 OR c.oid = $4::oid AND c.relname = $5)",
            &.{
                self.schema,
                try std.fmt.allocPrint(arena, "{d}", .{self.oid}),
                self.table,
                try std.fmt.allocPrint(arena, "{d}", .{self.ledger_oid}),
                self.ledger,
            },
            doing,
        );
        return found.rows.len == 2;
    }

    /// Where rows of `stream` go in the staging table.
    pub fn land(
        self: *const Staged,
        arena: Allocator,
        session: *Session,
        asked: *const write.Stream,
        stream: *const arrow.Schema,
    ) !*Landing {
        // As long as the landing.
        const place = try arena.create(Target);
        place.* = try .init(arena, self.schema, self.table);
        var into = asked.*;
        // The policy has decided already, about the target: what is missing here is left out, what is of another type is
        // cast, and nothing is to be altered.
        const policy: Policy = asked.schema_evolution orelse .{};
        into.schema_evolution = .{ .new_column = .ignore, .removed_column = .ignore, .type_change = policy.type_change };
        into.known_columns = null;
        return .find(arena, session, place, &into, stream);
    }

    fn same(self: *const Staged, other: *const Staged) bool {
        const old_oids = if (self.old_oid) |oid| other.old_oid == oid else other.old_oid == null;
        const olds = if (self.old) |text| other.old != null and std.mem.eql(u8, text, other.old.?) else other.old == null;
        return self.role == other.role and old_oids and olds and
            std.mem.eql(u8, self.schema, other.schema) and
            std.mem.eql(u8, self.shape, other.shape) and
            std.mem.eql(u8, self.columns, other.columns) and
            std.mem.eql(u8, self.altered, other.altered);
    }
};

const Argument = struct {
    stream: write.Stream,
    target: write.Existence = .any,
    /// Of the shards that are to come, for a later run to go on with.
    note: json.Value = .null,
    /// Whether they go on with those that an earlier run has left.
    resumes: bool = false,
};

pub const Answer = struct {
    into: Staged,
    /// The shards that are there already, and rows of them.
    loaded: []const u32 = &.{},
    rows: u64 = 0,
};

pub fn stage(arena: Allocator, session: *Session, argument: json.Value) !Answer {
    if (session.stream == null) return sdk.fail(.protocol, "rb_open named no stream to write", .{});
    if (session.shard != null) return sdk.fail(.protocol, "a shard cannot stage the stream that it is part of", .{});
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const target: Target = try .init(arena, parsed.stream.schema orelse session.schema, parsed.stream.table);
    try write.expect(arena, session, &target, &parsed.stream, parsed.target);
    const schema = try shape.receive(arena);
    try home.prepare(arena, session, target.schema);
    if (parsed.resumes) if (try leftBy(arena, session)) |left| {
        try session.begin();
        errdefer session.rollback();
        const landing: *Landing = try .find(arena, session, &target, &parsed.stream, &schema);
        try landing.insist(arena);
        var planned = try plan(arena, landing);
        planned.note = parsed.note;
        if (try takeUp(arena, session, &planned, &left, target.label)) |answer| {
            try session.commit(arena);
            return answer;
        }
        session.rollback();
    };
    try dropLeftovers(arena, session, session.stream.?, leftover_patience);
    try session.begin();
    errdefer session.rollback();
    const landing: *Landing = try .find(arena, session, &target, &parsed.stream, &schema);
    try landing.insist(arena);
    var staged = try plan(arena, landing);
    staged.note = parsed.note;
    try create(arena, landing, &staged);
    try session.commit(arena);
    session.staged = parsed.note == .null;
    return .{ .into = staged };
}

/// What an earlier run has left to go on with.
fn leftBy(arena: Allocator, session: *Session) !?Staged {
    return ledger.described(arena, session, (try namesOf(arena, session, session.stream.?)).ledger);
}

/// The same, as the host is told of it.
pub const Left = struct { note: json.Value, loaded: []const u32, rows: u64 };

pub fn lookForLeft(arena: Allocator, session: *Session) !?Left {
    const left = try leftBy(arena, session) orelse return null;
    return .{
        .note = left.note,
        .loaded = try ledger.loaded(arena, session, &left),
        .rows = (try ledger.sum(arena, session, &left)).rows,
    };
}

/// Null where what is there does not fit.
fn takeUp(arena: Allocator, session: *Session, planned: *const Staged, left: *const Staged, label: []const u8) !?Answer {
    const doing = "going on with what an earlier run left behind";
    if (!left.same(planned)) {
        host.log(.info, "the staged rows of {s} do not fit any more: the table, or the stream, is another one", .{label});
        return null;
    }
    // Waits for the sessions of the earlier run that are still at it, and lets no other begin.
    if (!try left.isThere(arena, session, doing)) return null;
    try lockLeftover(arena, session, try left.quoted(arena), leftover_patience, doing);
    if (!try left.isThere(arena, session, doing)) return null;
    const loaded = try ledger.loaded(arena, session, left);
    // A server that crashed has emptied tables that are not logged.
    if (loaded.len == 0) return null;
    var kept = left.*;
    kept.ledger_oid = try ledger.renew(arena, session, left);
    try ledger.describe(arena, session, &kept);
    var into = kept;
    into.note = planned.note;
    return .{ .into = into, .loaded = loaded, .rows = (try ledger.sum(arena, session, &into)).rows };
}

/// Where a table that gives its rows can stand: beside the target, or else beside the watermarks.
fn schemaFor(arena: Allocator, session: *Session, target: *const Target) ![]const u8 {
    for ([_][]const u8{ target.schema, session.schema }) |schema| {
        const found = try session.query(
            arena,
            "SELECT has_schema_privilege($1, 'CREATE')",
            &.{schema},
            "checking privileges",
        );
        if (std.mem.eql(u8, found.scalar() orelse "f", "t")) return schema;
    }
    return sdk.errors.failHinted(
        .permission,
        "grant CREATE on the schema, or set `shards: 1` for the stream",
        "{s} cannot be written in shards: no tables may be created in schema {s}",
        .{ target.label, target.schema },
    );
}

/// The key that a table which is made for the rows gets.
pub fn newKey(arena: Allocator, landing: *const Landing) ![]const []const u8 {
    return switch (landing.mode) {
        .append => target_module.namedKey(&landing.schema, landing.named_key),
        .replace => target_module.primaryKey(arena, &landing.schema, landing.named_key),
        .upsert => landing.key,
    };
}

/// What is made for the rows, before it is.
fn plan(arena: Allocator, landing: *Landing) !Staged {
    const session = landing.session;
    const target = landing.target;
    const names = try namesOf(arena, session, session.stream.?);
    const role: Role = if (landing.existing) |*existing|
        if (landing.mode == .replace and try Swap.obstacles(arena, session, existing.oid) == null) .replaces_target else .gives_rows
    else
        .becomes_target;
    const replaced = if (role == .replaces_target) landing.existing.?.oid else null;
    return .{
        .schema = if (role == .gives_rows) try schemaFor(arena, session, target) else target.schema,
        .table = names.table,
        .oid = 0,
        .ledger = names.ledger,
        .ledger_oid = 0,
        .role = role,
        .old_oid = replaced,
        .old = if (replaced) |oid| try Swap.describe(arena, session, oid) else null,
        .shape = try shape.fingerprint(arena, landing.stream),
        .columns = try columns_module.fingerprint(arena, landing.columns),
        .altered = try landing.alterations(arena),
    };
}

/// Fills in what the tables are.
fn create(arena: Allocator, landing: *Landing, staged: *Staged) !void {
    const doing = "creating a table for the shards' rows";
    const session = landing.session;
    const target = landing.target;
    const columns = landing.columns;
    // What is wrong with any key is to be known before the rows come.
    if (landing.existing) |*existing| {
        if (landing.mode == .upsert) _ = try Arbiter.require(arena, session, target, existing.oid, landing.key, true);
    } else {
        _ = try newKey(arena, landing);
    }
    try landing.rehearse(arena);
    const quoted = try staged.quoted(arena);
    switch (staged.role) {
        .becomes_target => {
            // Under its later name first, which the server makes the names of its constraints from.
            try target.create(arena, session, columns);
            if (landing.mode == .upsert) try Arbiter.rehearse(arena, session, target, landing.key);
            try session.exec(try std.fmt.allocPrint(
                arena,
                "ALTER TABLE {s} RENAME TO {s}",
                .{ target.quoted, try postgres.ident.quote(arena, staged.table) },
            ), doing);
        },
        .replaces_target => {
            const swap: Swap = try .init(arena, session, target, landing.existing.?.oid, staged.table);
            try landing.evolveCopy(arena, swap.quoted);
        },
        .gives_rows => {
            const sql = try std.fmt.allocPrint(arena, "CREATE UNLOGGED TABLE {s} ({s})", .{
                quoted,
                try columns_module.definitionList(arena, columns, .beside),
            });
            try session.exec(sql, doing);
        },
    }
    // Both are lost in a server's crash, or neither is.
    staged.ledger_oid = try ledger.create(arena, session, staged.schema, staged.ledger, staged.role != .gives_rows);
    // A vacuum would read rows that are about to be moved, and stand in the publication's way.
    try session.exec(try std.fmt.allocPrint(arena, "ALTER TABLE {s} SET (autovacuum_enabled = false)", .{quoted}), doing);
    const created = try Relation.find(arena, session, staged.schema, staged.table);
    staged.oid = created.?.oid;
    if (staged.note != .null) try ledger.describe(arena, session, staged);
}

const Names = struct { table: []const u8, ledger: []const u8 };

/// The same for every run of a stream, and of no other stream.
fn namesOf(arena: Allocator, session: *const Session, stream: []const u8) !Names {
    var hash: std.crypto.hash.sha2.Sha256 = .init(.{});
    // No name holds a NUL.
    for ([_][]const u8{ session.pipeline, "\x00", stream }) |part| hash.update(part);
    const digits = hash.finalResult()[0..16].*;
    return .{
        .table = try std.fmt.allocPrint(arena, "_rapidbyte_staged_{x}", .{&digits}),
        .ledger = try std.fmt.allocPrint(arena, "_rapidbyte_shards_{x}", .{&digits}),
    };
}

/// Drops what a run of this stream left behind that did not come to its end, in whatever schema the target was then.
/// Outside of transactions; under the stream's lock. What a role left that is not this user's, a pipeline of the same
/// name for instance, is for that role to drop.
pub fn dropLeftovers(arena: Allocator, session: *Session, stream: []const u8, patience: []const u8) !void {
    const doing = "dropping what an earlier run left behind";
    const names = try namesOf(arena, session, stream);
    const found = try session.query(
        arena,
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " ++
            "WHERE c.relname IN ($1, $2) AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE') " ++
            "AND has_schema_privilege(n.oid, 'USAGE')",
        &.{ names.table, names.ledger },
        "looking for what an earlier run left behind",
    );
    if (found.rows.len == 0) return;
    try session.begin();
    errdefer session.rollback();
    for (found.rows) |row| {
        try lockLeftover(arena, session, row[0].?, patience, doing);
        try session.exec(try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{row[0].?}), doing);
    }
    try session.commit(arena);
    host.log(.info, "dropped the staged rows of a run that did not come to its end", .{});
}

/// `table` is its name as SQL.
fn lockLeftover(arena: Allocator, session: *Session, table: []const u8, patience: []const u8, doing: []const u8) !void {
    if (!try session.lockTable(arena, .{
        .table = table,
        .label = table,
        .mode = "ACCESS EXCLUSIVE",
        .patience = patience,
        .doing = doing,
    })) return sdk.errors.failHinted(
        .resource,
        "wait until its sessions have ended, or end them: pg_stat_activity shows them by their application_name",
        "a shard of an earlier run is still writing into {s}",
        .{table},
    );
}

/// Where the changes of a table are followed, a load anew of it was given up. Whoever is still at it is left alone.
pub fn sweep(arena: Allocator, session: *Session, stream: []const u8) Allocator.Error!void {
    dropLeftovers(arena, session, stream, "1ms") catch |err| {
        if (err == error.OutOfMemory) return error.OutOfMemory;
        sdk.errors.clear();
    };
}

/// When the connection closes before the rows were published. The next run does it otherwise.
pub fn discard(arena: Allocator, session: *Session) void {
    if (!session.staged or session.connection.broken) return;
    session.rollback();
    dropLeftovers(arena, session, session.stream.?, "1ms") catch {};
}
