//! What stands in the way of capturing a table, and what its user should know, each with what to do about it.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Captured = @import("captured.zig").Captured;
const ReplicaIdentity = @import("captured.zig").ReplicaIdentity;
const Stream = @import("stream.zig").Stream;
const generated_since = @import("captured.zig").generated_since;

const Allocator = std.mem.Allocator;

/// What comes first in a row that is kept as history, and last in one that outlives its deletion. No column of a table
/// that is captured may be called so.
const reserved = [_][]const u8{ "_rb_op", "_rb_lsn", "_rb_seq", "_rb_commit_ts", "_rb_unchanged", "_rb_deleted_at" };

/// The version from which partitioned tables can be published.
const partitions_since = 130_000;

pub const Level = enum { ok, warning, @"error" };

/// One thing that stands in the way of capturing a table, or that its user should know.
pub const Problem = struct {
    level: Level,
    check: []const u8,
    /// Of an error.
    kind: sdk.errors.Kind = .config,
    message: []const u8,
    hint: ?[]const u8 = null,
};

/// All that can be said before anything is captured.
pub fn of(arena: Allocator, captured: *const Captured, stream: *const Stream) ![]const Problem {
    var list: Problems = .{
        .arena = arena,
        .of = captured,
        .stream = stream,
        .table = try postgres.ident.qualified(arena, captured.relation.schema, captured.relation.name),
    };
    if (!try list.ofTable()) return list.found.items;
    try list.ofPublication();
    try list.ofColumns();
    try list.ofIdentity();
    return list.found.items;
}

const Problems = struct {
    arena: Allocator,
    of: *const Captured,
    stream: *const Stream,
    /// Quoted.
    table: []const u8,
    found: std.ArrayList(Problem) = .empty,

    fn add(
        self: *Problems,
        level: Level,
        check: []const u8,
        kind: sdk.errors.Kind,
        hint: ?[]const u8,
        comptime format: []const u8,
        args: anytype,
    ) Allocator.Error!void {
        try self.found.append(self.arena, .{
            .level = level,
            .check = check,
            .kind = kind,
            .message = try std.fmt.allocPrint(self.arena, format, args),
            .hint = hint,
        });
    }

    fn sql(self: *Problems, comptime format: []const u8, args: anytype) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(self.arena, format, args);
    }

    /// False: there is nothing that could be captured.
    fn ofTable(self: *Problems) Allocator.Error!bool {
        const captured = self.of;
        const relation = captured.relation;
        const what: []const u8 = switch (relation.kind) {
            .table, .partitioned_table => "",
            .view => "view",
            .materialized_view => "materialized view",
            .foreign_table => "foreign table",
        };
        if (what.len > 0) {
            try self.add(
                .@"error",
                "table",
                .unsupported,
                "use sync_mode full_refresh or incremental, or capture the tables that it is made of",
                "{s}.{s} is a {s}: only tables have changes to capture",
                .{ relation.schema, relation.name, what },
            );
            return false;
        }
        const before = self.found.items.len;
        if (captured.is_system) try self.add(
            .@"error",
            "table",
            .unsupported,
            "use sync_mode full_refresh",
            "{s}.{s} is a table of the system, whose changes the server does not tell",
            .{ relation.schema, relation.name },
        );
        switch (captured.persistence) {
            'u' => try self.add(
                .@"error",
                "table",
                .unsupported,
                try self.sql("ALTER TABLE {s} SET LOGGED, or use sync_mode full_refresh", .{self.table}),
                "{s}.{s} is unlogged: its changes are not in the WAL",
                .{ relation.schema, relation.name },
            ),
            't' => try self.add(
                .@"error",
                "table",
                .unsupported,
                "name a table that is there for every session",
                "{s}.{s} is a temporary table",
                .{ relation.schema, relation.name },
            ),
            else => {},
        }
        if (captured.has_heirs) try self.add(
            .@"error",
            "table",
            .unsupported,
            "capture the tables that hold the rows, one stream each, or partition the table instead",
            "other tables inherit from {s}.{s}: what is read of it holds their rows, and their changes come under other names",
            .{ relation.schema, relation.name },
        );
        if (relation.row_security) try self.add(
            .@"error",
            "row_security",
            .permission,
            "use the table's owner, or a role with BYPASSRLS",
            "policies hide rows of {s}.{s} from this user, and changes of all its rows are told: the two would not agree",
            .{ relation.schema, relation.name },
        );
        if (relation.kind == .partitioned_table and captured.server_version < partitions_since) try self.add(
            .@"error",
            "table",
            .unsupported,
            "make each partition a stream",
            "{s}.{s} is partitioned, which this server cannot publish (PostgreSQL 13 can)",
            .{ relation.schema, relation.name },
        );
        if (captured.odd) |odd| {
            if (odd.persistence != 'p') try self.add(
                .@"error",
                "table",
                .unsupported,
                try self.sql("ALTER TABLE {s} SET LOGGED", .{odd.name}),
                "partition {s} of {s}.{s} is not logged: its changes are not in the WAL",
                .{ odd.name, relation.schema, relation.name },
            ) else try self.add(
                .@"error",
                "replica_identity",
                .config,
                switch (captured.replica_identity) {
                    .index => try self.sql("ALTER TABLE {s} REPLICA IDENTITY USING INDEX its own index of the same columns", .{odd.name}),
                    else => |wanted| try self.sql("ALTER TABLE {s} REPLICA IDENTITY {s}", .{ odd.name, nameOf(wanted) }),
                },
                "partition {s} has replica identity {s}, its table {s}.{s} {s}: what tells their old rows apart is not the same",
                .{ odd.name, nameOf(odd.replica_identity), relation.schema, relation.name, nameOf(captured.replica_identity) },
            );
        }
        return self.found.items.len == before;
    }

    fn ofPublication(self: *Problems) Allocator.Error!void {
        const captured = self.of;
        const relation = captured.relation;
        const publication = captured.publication;
        switch (captured.membership) {
            .member => {},
            .absent => if (!publication.takesTables()) {
                try self.add(
                    .@"error",
                    "publication",
                    .config,
                    try publication.addSql(self.arena, &.{relation}),
                    "publication {s} was not made by this pipeline, and does not hold {s}.{s}",
                    .{ publication.name, relation.schema, relation.name },
                );
            } else if (!captured.owned) {
                try self.add(
                    .@"error",
                    "publication",
                    .permission,
                    if (publication.exists)
                        try self.sql("have its owner run: {s}", .{try publication.addSql(self.arena, &.{relation})})
                    else
                        try self.sql("have a superuser run, with the other streams' tables: {s}", .{
                            try publication.createSql(self.arena, &.{relation}),
                        }),
                    "{s}.{s} is to be added to publication {s}, which only its owner may do ({s})",
                    .{ relation.schema, relation.name, publication.name, captured.owner },
                );
            },
            .by_partitions => try self.add(
                .warning,
                "publication",
                .config,
                try publication.setSql(self.arena, "publish_via_partition_root = true"),
                "publication {s} tells the changes of {s}.{s} under the names of its partitions: a TRUNCATE of one of them " ++
                    "cannot be followed",
                .{ publication.name, relation.schema, relation.name },
            ),
            .by_root => |root| try self.add(
                .@"error",
                "publication",
                .config,
                try self.sql("make {s} the stream, or use a publication of its own for {s}.{s}", .{
                    root,
                    relation.schema,
                    relation.name,
                }),
                "publication {s} tells the changes of {s}.{s} as those of {s}, which it is a partition of",
                .{ publication.name, relation.schema, relation.name, root },
            ),
        }
        const level: Level = if (self.stream.write_mode == .append) .warning else .@"error";
        const whole = try publication.setSql(self.arena, "publish = 'insert, update, delete, truncate'");
        inline for (.{ "insert", "update", "delete" }) |operation| if (!@field(publication, operation)) try self.add(
            level,
            "publication",
            .config,
            whole,
            "publication {s} does not tell of any " ++ operation,
            .{publication.name},
        );
        if (!publication.truncate) try self.add(
            .warning,
            "publication",
            .config,
            whole,
            "publication {s} does not tell of TRUNCATE: rows that it removes stay at the destination",
            .{publication.name},
        );
        if (captured.row_filter) |filter| try self.add(
            .ok,
            "publication",
            .config,
            null,
            "publication {s} tells only rows of {s}.{s} WHERE {s}",
            .{ publication.name, relation.schema, relation.name, filter },
        );
    }

    fn ofColumns(self: *Problems) Allocator.Error!void {
        const captured = self.of;
        const relation = captured.relation;
        for (relation.columns) |*column| {
            for (reserved) |name| if (std.mem.eql(u8, name, column.name) and self.reads(name)) try self.add(
                .@"error",
                "columns",
                .unsupported,
                "rename the column, or leave it out of `columns`",
                "{s}.{s}: the name of column {s} is taken by what change capture adds to a row",
                .{ relation.schema, relation.name, name },
            );
            if (captured.publishes(column)) continue;
            const asked = self.stream.columns != null and self.reads(column.name);
            const is_key = isIn(column.name, captured.key(self.stream));
            if (column.generated == 0 and !asked and !is_key) continue;
            try self.add(
                if (asked or is_key) .@"error" else .warning,
                "columns",
                .config,
                switch (column.generated) {
                    0 => try self.sql(
                        "add it to the publication's column list of {s}, or leave it out of the stream",
                        .{self.table},
                    ),
                    's' => if (captured.server_version < generated_since)
                        "the server tells stored generated columns from PostgreSQL 18 on"
                    else
                        try captured.publication.setSql(self.arena, "publish_generated_columns = stored"),
                    else => "a virtual generated column is computed when it is read: compute it at the destination",
                },
                "column {s} of {s}.{s} is {s}told by publication {s}{s}",
                .{
                    column.name,
                    relation.schema,
                    relation.name,
                    if (column.generated == 0) "not " else "generated, and not ",
                    captured.publication.name,
                    if (asked) "" else if (is_key) ", and part of the key" else ": it is left out",
                },
            );
        }
    }

    fn ofIdentity(self: *Problems) Allocator.Error!void {
        const captured = self.of;
        const relation = captured.relation;
        const mirrors = self.stream.write_mode != .append;
        if (captured.replica_identity == .full) {
            if (mirrors and captured.key(self.stream).len == 0) try self.add(
                .warning,
                "replica_identity",
                .config,
                "add a primary key, or name columns that tell rows apart as the stream's primary_key",
                "{s}.{s} has no key: each update and delete looks for its row by all of its columns",
                .{ relation.schema, relation.name },
            );
            return;
        }
        if (captured.identity.len == 0) return self.ofNoIdentity(mirrors);
        for (captured.identity) |name| if (!self.reads(name)) try self.add(
            .@"error",
            "replica_identity",
            .config,
            try self.sql("add {s} to `columns`", .{name}),
            "column {s} tells the rows of {s}.{s} apart (its replica identity), and is not among the stream's `columns`",
            .{ name, relation.schema, relation.name },
        );
        const named = self.stream.primary_key orelse return;
        if (!mirrors or areSame(named, captured.identity)) return;
        const shown = try std.mem.join(self.arena, ", ", captured.identity);
        try self.add(
            .@"error",
            "replica_identity",
            .config,
            try self.sql("leave primary_key out, or ALTER TABLE {s} REPLICA IDENTITY FULL", .{self.table}),
            "primary_key ({s}) is not what the server tells of old rows of {s}.{s} ({s}): a deleted row could not be found",
            .{ try std.mem.join(self.arena, ", ", named), relation.schema, relation.name, shown },
        );
    }

    /// The server refuses to update and delete rows of a table that is published so.
    fn ofNoIdentity(self: *Problems, mirrors: bool) Allocator.Error!void {
        const captured = self.of;
        const relation = captured.relation;
        const publication = captured.publication;
        if (!mirrors and !publication.update and !publication.delete) return;
        const full = try self.sql("ALTER TABLE {s} REPLICA IDENTITY FULL", .{self.table});
        const hint = if (captured.replica_identity == .nothing and relation.primary_key.len > 0)
            try self.sql("ALTER TABLE {s} REPLICA IDENTITY DEFAULT, which is its primary key", .{self.table})
        else if (mirrors)
            try self.sql("add a primary key, or {s}; where rows are only inserted, write_mode append needs neither", .{full})
        else
            try self.sql("{s} unless rows are only ever inserted", .{full});
        try self.add(
            if (mirrors) .@"error" else .warning,
            "replica_identity",
            .schema,
            hint,
            "{s}.{s} has {s}: the server refuses every UPDATE and DELETE of its rows while the table is published",
            .{ relation.schema, relation.name, if (captured.replica_identity == .nothing)
                "replica identity NOTHING"
            else if (relation.primary_key.len > 0)
                "a deferrable primary key, which is no replica identity"
            else
                "no primary key and no other replica identity" },
        );
    }

    /// Whether a column of the table is among what the stream asks for.
    fn reads(self: *const Problems, name: []const u8) bool {
        return isIn(name, self.stream.columns orelse return true);
    }
};

fn nameOf(identity: ReplicaIdentity) []const u8 {
    return switch (identity) {
        .default => "DEFAULT",
        .index => "USING INDEX",
        .full => "FULL",
        .nothing => "NOTHING",
    };
}

fn isIn(name: []const u8, names: []const []const u8) bool {
    for (names) |candidate| if (std.mem.eql(u8, candidate, name)) return true;
    return false;
}

fn areSame(a: []const []const u8, b: []const []const u8) bool {
    if (a.len != b.len) return false;
    for (a, b) |one, other| if (!isIn(one, b) or !isIn(other, a)) return false;
    return true;
}

test "keys are the same in any order" {
    try std.testing.expect(areSame(&.{ "a", "b" }, &.{ "b", "a" }));
    try std.testing.expect(!areSame(&.{"a"}, &.{ "b", "a" }));
    try std.testing.expect(!areSame(&.{ "a", "a" }, &.{ "b", "a" }));
}
