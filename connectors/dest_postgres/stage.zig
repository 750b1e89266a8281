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
//! The ledger counts the rows of each shard, in the shard's own transaction: nobody has to read the rows to count them,
//! and no shard is written twice. Whoever finds either table at a later start drops it: a run did not come to its end.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const home = @import("home.zig");
const shape = @import("shape.zig");
const write = @import("write.zig");
const target_module = @import("target.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Landing = @import("landing.zig").Landing;
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
    role: Role,
    /// The table that is to be replaced, and what it was like.
    old_oid: ?u32,
    old: ?[]const u8,
    /// `shape.fingerprint` of the stream.
    shape: []const u8,
    /// `columns.fingerprint` of what is written of it.
    columns: []const u8,

    pub fn quoted(self: *const Staged, arena: Allocator) ![]const u8 {
        return postgres.ident.qualified(arena, self.schema, self.table);
    }

    pub fn quotedLedger(self: *const Staged, arena: Allocator) ![]const u8 {
        return postgres.ident.qualified(arena, self.schema, self.ledger);
    }

    /// Locks the staging table, and makes sure that it is the one that was made for this run, and for these columns.
    pub fn claim(
        self: *const Staged,
        arena: Allocator,
        session: *Session,
        schema: *const arrow.Schema,
        comptime mode: []const u8,
        label: []const u8,
        doing: []const u8,
    ) !void {
        if (!std.mem.eql(u8, self.shape, try shape.fingerprint(arena, schema))) return shape.changed(label);
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

    fn isThere(self: *const Staged, arena: Allocator, session: *Session, doing: []const u8) !bool {
        const found = try session.query(
            arena,
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " ++
                "WHERE c.oid = $1::oid AND n.nspname = $2 AND c.relname = $3",
            &.{ try std.fmt.allocPrint(arena, "{d}", .{self.oid}), self.schema, self.table },
            doing,
        );
        return found.rows.len > 0;
    }
};

const Argument = struct { stream: write.Stream, target: write.Existence = .any };

pub const Answer = struct { into: Staged };

pub fn stage(arena: Allocator, session: *Session, argument: json.Value) !Answer {
    if (session.stream == null) return sdk.fail(.protocol, "rb_open named no stream to write", .{});
    if (session.shard != null) return sdk.fail(.protocol, "a shard cannot stage the stream that it is part of", .{});
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const target: Target = try .init(arena, parsed.stream.schema orelse session.schema, parsed.stream.table);
    try write.expect(arena, session, &target, &parsed.stream, parsed.target);
    const schema = try shape.receive(arena);
    try home.prepare(arena, session, target.schema);
    try dropLeftovers(arena, session, leftover_patience);
    try session.begin();
    errdefer session.rollback();
    const landing: *Landing = try .find(arena, session, &target, &parsed.stream, &schema);
    try landing.insist(arena);
    const staged = try create(arena, landing);
    try session.commit(arena);
    session.staged = true;
    return .{ .into = staged };
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

fn create(arena: Allocator, landing: *Landing) !Staged {
    const doing = "creating a table for the shards' rows";
    const session = landing.session;
    const target = landing.target;
    const columns = landing.columns;
    const names = try namesOf(arena, session);
    // What is wrong with any key is to be known before the rows come.
    if (landing.existing) |*existing| {
        if (landing.mode == .upsert) _ = try Arbiter.require(arena, session, target, existing.oid, landing.key, true);
    } else {
        _ = try newKey(arena, landing);
    }
    try landing.rehearse(arena);
    const role: Role = if (landing.existing) |*existing|
        if (landing.mode == .replace and try Swap.obstacles(arena, session, existing.oid) == null) .replaces_target else .gives_rows
    else
        .becomes_target;
    const at = if (role == .gives_rows) try schemaFor(arena, session, target) else target.schema;
    const quoted = try postgres.ident.qualified(arena, at, names.table);
    switch (role) {
        .becomes_target => {
            // Under its later name first, which the server makes the names of its constraints from.
            try target.create(arena, session, columns);
            if (landing.mode == .upsert) try Arbiter.rehearse(arena, session, target, landing.key);
            try session.exec(try std.fmt.allocPrint(
                arena,
                "ALTER TABLE {s} RENAME TO {s}",
                .{ target.quoted, try postgres.ident.quote(arena, names.table) },
            ), doing);
        },
        .replaces_target => {
            const swap: Swap = try .init(arena, session, target, landing.existing.?.oid, names.table);
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
    // Both are lost in a server's crash, or neither is. A vacuum would read rows that are about to be moved, and stand
    // in the publication's way.
    const sql = try std.fmt.allocPrint(
        arena,
        "CREATE{s} TABLE {s} (shard integer PRIMARY KEY, rows bigint NOT NULL, bytes bigint NOT NULL); " ++
            "ALTER TABLE {s} SET (autovacuum_enabled = false)",
        .{
            if (role == .gives_rows) " UNLOGGED" else "",
            try postgres.ident.qualified(arena, at, names.ledger),
            quoted,
        },
    );
    try session.exec(sql, doing);
    const created = try Relation.find(arena, session, at, names.table);
    return .{
        .schema = at,
        .table = names.table,
        .oid = created.?.oid,
        .ledger = names.ledger,
        .role = role,
        .old_oid = if (role == .replaces_target) landing.existing.?.oid else null,
        .old = if (role == .replaces_target) try Swap.describe(arena, session, landing.existing.?.oid) else null,
        .shape = try shape.fingerprint(arena, landing.stream),
        .columns = try columns_module.fingerprint(arena, columns),
    };
}

const Names = struct { table: []const u8, ledger: []const u8 };

/// The same for every run of this stream, and of no other stream.
fn namesOf(arena: Allocator, session: *const Session) !Names {
    var hash: std.crypto.hash.sha2.Sha256 = .init(.{});
    // No name holds a NUL.
    for ([_][]const u8{ session.pipeline, "\x00", session.stream.? }) |part| hash.update(part);
    const digits = hash.finalResult()[0..16].*;
    return .{
        .table = try std.fmt.allocPrint(arena, "_rapidbyte_staged_{x}", .{&digits}),
        .ledger = try std.fmt.allocPrint(arena, "_rapidbyte_shards_{x}", .{&digits}),
    };
}

/// Drops what a run of this stream left behind that did not come to its end, in whatever schema the target was then.
/// Outside of transactions; under the stream's lock. What a role left that is not this user's, a pipeline of the same
/// name for instance, is for that role to drop.
pub fn dropLeftovers(arena: Allocator, session: *Session, patience: []const u8) !void {
    const doing = "dropping what an earlier run left behind";
    const names = try namesOf(arena, session);
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
        if (!try session.lockTable(arena, .{
            .table = row[0].?,
            .label = row[0].?,
            .mode = "ACCESS EXCLUSIVE",
            .patience = patience,
            .doing = doing,
        })) return sdk.errors.failHinted(
            .resource,
            "wait until its sessions have ended, or end them: pg_stat_activity shows them by their application_name",
            "a shard of an earlier run is still writing into {s}",
            .{row[0].?},
        );
        try session.exec(try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{row[0].?}), doing);
    }
    try session.commit(arena);
    host.log(.info, "dropped the staged rows of a run that did not come to its end", .{});
}

/// When the connection closes before the rows were published. The next run does it otherwise.
pub fn discard(arena: Allocator, session: *Session) void {
    if (!session.staged or session.connection.broken) return;
    session.rollback();
    dropLeftovers(arena, session, "1ms") catch {};
}
