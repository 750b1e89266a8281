//! Staged rows published: the target changes once, in one transaction, whatever number of shards the rows came from.
//!
//!     the staging table becomes the target     renamed, and given its key
//!     … replaces the target                    swap.zig
//!     … gives its rows                         INSERT … SELECT; rewrite.zig when they replace others, merge.zig by keys
//!
//! A snapshot that is older than a shard's COMMIT would find that shard's rows missing in the table that the shards
//! filled. Where one is still held, the rows are written again, by this transaction: then it finds none of them, or in
//! place of them the old ones.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const ledger = @import("ledger.zig");
const merge = @import("merge.zig");
const rewrite = @import("rewrite.zig");
const newKey = @import("stage.zig").newKey;
const Arbiter = @import("arbiter.zig").Arbiter;
const Landing = @import("landing.zig").Landing;
const Session = @import("session.zig").Session;
const Staged = @import("stage.zig").Staged;
const Swap = @import("swap.zig").Swap;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

const old_snapshots_sql = @embedFile("sql/old_snapshots.sql");

/// How often older snapshots are looked for, and how long in between.
const looks = 30;
const pause = "0.1";

pub const Publication = struct {
    session: *Session,
    target: *const Target,
    landing: *Landing,
    columns: []const columns_module.Column,
    /// As SQL.
    from: []const u8,
    way: Way,
    /// Of all shards.
    rows: u64,
    bytes: u64,

    const Way = union(enum) {
        become: Become,
        swap: Swap,
        insert,
        merge: struct { arbiter: Arbiter, step: merge.Merge },
        /// Why it is not a swap.
        rewrite: []const u8,
    };

    const Become = struct {
        key: []const []const u8,
        /// Of an upsert: the rows in the table that they become.
        keyed: ?merge.Rows,
    };

    /// In an open transaction; it may be another one afterwards.
    pub fn init(arena: Allocator, landing: *Landing, staged: *const Staged) !Publication {
        const session = landing.session;
        const target = landing.target;
        const mode = landing.mode;
        const columns = landing.columns;
        const doing = try std.fmt.allocPrint(arena, "publishing {s}", .{target.label});
        const from = try staged.quoted(arena);
        // Before anything else: there may be another transaction afterwards.
        var arbiter: ?Arbiter = if (mode == .upsert and landing.existing != null)
            try Arbiter.require(arena, session, target, landing.existing.?.oid, landing.key, true)
        else
            null;
        try staged.claim(arena, session, landing.stream, "ACCESS EXCLUSIVE", target.label, doing);
        if ((landing.existing == null) != (staged.role == .becomes_target)) return sdk.errors.failHinted(
            .schema,
            "run the stream again",
            "{s} was {s} by somebody else while its rows were loaded",
            .{ target.label, if (landing.existing == null) "dropped" else "created" },
        );
        if (!std.mem.eql(u8, staged.columns, try columns_module.fingerprint(arena, columns))) return landing.target.altered();
        var existing = landing.existing;
        if (staged.role == .gives_rows and mode != .replace and landing.changesTable()) {
            try landing.evolve(arena);
            try session.seeCatalog();
            existing = try target.find(arena, session);
            if (mode == .upsert) arbiter = (try Arbiter.find(arena, session, existing.?.oid, landing.key)).usable orelse
                return target.altered();
        }
        const counted = try ledger.sum(arena, session, staged);
        try session.exec(try std.fmt.allocPrint(
            arena,
            "DROP TABLE {s}; ALTER TABLE {s} RESET (autovacuum_enabled)",
            .{ try staged.quotedLedger(arena), from },
        ), doing);
        return .{
            .session = session,
            .target = target,
            .landing = landing,
            .columns = columns,
            .from = from,
            .way = switch (staged.role) {
                .becomes_target => .{ .become = .{
                    .key = try newKey(arena, landing),
                    .keyed = if (mode != .upsert)
                        null
                    else
                        try .init(arena, &landing.schema, target.quoted, columns, landing.key, merge.place),
                } },
                .replaces_target => .{ .swap = try .resumed(
                    arena,
                    target,
                    staged.old_oid.?,
                    staged.old.?,
                    staged.table,
                    staged.oid,
                ) },
                .gives_rows => switch (mode) {
                    .append => .insert,
                    .upsert => .{ .merge = .{
                        .arbiter = arbiter.?,
                        .step = try .init(
                            arena,
                            landing,
                            try .init(arena, &landing.schema, from, columns, landing.key, merge.place),
                            &arbiter.?,
                            &existing.?,
                        ),
                    } },
                    .replace => .{
                        .rewrite = try Swap.obstacles(arena, session, existing.?.oid) orelse
                            "it could not be exchanged when the run started",
                    },
                },
            },
            .rows = counted.rows,
            .bytes = counted.bytes,
        };
    }

    pub fn created(self: *const Publication) bool {
        return self.way == .become;
    }

    /// Everything that takes long and disturbs nobody.
    pub fn complete(self: *Publication, arena: Allocator) !void {
        const session = self.session;
        switch (self.way) {
            .become => |*become| {
                if (try self.someoneHasAnOlderSnapshot(arena)) {
                    try self.target.create(arena, session, self.columns);
                    try session.seeAsUser();
                    try self.insert(arena);
                } else {
                    try session.exec(try std.fmt.allocPrint(arena, "ALTER TABLE {s} RENAME TO {s}", .{
                        self.from,
                        try postgres.ident.quote(arena, self.target.table),
                    }), self.target.doing);
                    sdk.host.log(.info, "created table {s}", .{self.target.label});
                    try session.seeAsUser();
                }
                try self.addKey(arena, become);
            },
            .swap => |*swap| {
                try swap.buildIndexes(arena, session);
                if (try self.someoneHasAnOlderSnapshot(arena))
                    self.way = .{ .rewrite = "a snapshot is held that is older than the new rows" };
            },
            .insert => {
                try self.target.awaitLock(arena, session);
                try self.insert(arena);
            },
            .merge => |*by_key| {
                try self.target.awaitLock(arena, session);
                const rows = &by_key.step.rows;
                try merge.prepare(arena, session);
                try rows.removeSuperseded(arena, session, &by_key.arbiter, self.target.doing);
                if (self.rows > 0) try by_key.step.run(arena);
                try session.exec(try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{self.from}), self.target.doing);
            },
            .rewrite => {},
        }
    }

    /// Keys of an upsert may repeat, which the index finds out for less than a look beforehand.
    fn addKey(self: *Publication, arena: Allocator, become: *const Become) !void {
        const session = self.session;
        const rows = if (become.keyed) |*rows| rows else return self.target.addPrimaryKey(arena, session, become.key);
        const doing = self.target.doing;
        try session.exec("SAVEPOINT rapidbyte_key", doing);
        if (self.target.addPrimaryKey(arena, session, become.key)) |_| {
            return session.exec("RELEASE SAVEPOINT rapidbyte_key", doing);
        } else |err| {
            const said = session.connection.last_error orelse return err;
            if (err != error.Failed or !std.mem.eql(u8, said.sqlstate, "23505")) return err;
        }
        sdk.errors.clear();
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_key", doing);
        try merge.prepare(arena, session);
        try rows.removeSuperseded(arena, session, null, doing);
        return self.target.addPrimaryKey(arena, session, become.key);
    }

    /// Right before COMMIT.
    pub fn publish(self: *Publication, arena: Allocator) !void {
        switch (self.way) {
            .become, .insert, .merge => {},
            .swap => |*swap| {
                const obstacle = try swap.exchange(arena, self.session) orelse {
                    sdk.host.log(.info, "{s} is replaced by a new table", .{self.target.label});
                    return;
                };
                try self.rewriteRows(arena, obstacle);
            },
            .rewrite => |reason| try self.rewriteRows(arena, reason),
        }
    }

    fn insert(self: *Publication, arena: Allocator) !void {
        const names = try columns_module.nameList(arena, self.columns);
        try self.session.exec(try std.fmt.allocPrint(
            arena,
            "INSERT INTO {s} ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM {s}; DROP TABLE {s}",
            .{ self.target.quoted, names, names, self.from, self.from },
        ), self.target.doing);
    }

    fn rewriteRows(self: *Publication, arena: Allocator, reason: []const u8) !void {
        sdk.host.log(.info, "the rows of {s} are replaced in place: {s}", .{ self.target.label, reason });
        try rewrite.publish(arena, self.landing, self.from);
        try self.session.exec(try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{self.from}), self.target.doing);
    }

    /// Whether somebody still has one after a while. No new ones can come up.
    fn someoneHasAnOlderSnapshot(self: *Publication, arena: Allocator) !bool {
        const doing = "looking for old snapshots";
        try self.session.seeCatalog();
        for (0..looks) |look| {
            const found = try self.session.query(arena, old_snapshots_sql, &.{}, doing);
            if (found.rows.len == 0) return false;
            if (look == 0) sdk.host.log(.info, "waiting for snapshots older than the new rows of {s} to end, such as the one of process {s}", .{
                self.target.label, found.rows[0][0].?,
            });
            try self.session.exec("SELECT pg_sleep(" ++ pause ++ "), pg_stat_clear_snapshot()", doing);
        }
        return true;
    }
};
