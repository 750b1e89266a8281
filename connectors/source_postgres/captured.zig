//! A table as change capture sees it: what its publication tells of it, and what tells its rows apart.

const std = @import("std");
const sdk = @import("sdk");
const problems_module = @import("problems.zig");
const Problem = problems_module.Problem;
const Publication = @import("publication.zig").Publication;
const Relation = @import("relation.zig").Relation;
const RelationColumn = @import("relation.zig").Column;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;

/// The version from which a publication tells which columns and rows.
const filters_since = 150_000;
/// … and generated columns.
pub const generated_since = 180_000;

/// `pg_class.relreplident`: what of an old row is written to the WAL.
pub const ReplicaIdentity = enum {
    default,
    index,
    full,
    nothing,

    fn ofLetter(letter: u8) ReplicaIdentity {
        return switch (letter) {
            'i' => .index,
            'f' => .full,
            'n' => .nothing,
            else => .default,
        };
    }
};

/// Whether a publication tells a table's changes.
pub const Membership = union(enum) {
    member,
    absent,
    /// Under the names of the table's partitions.
    by_partitions,
    /// Under the name of the table that it is a partition of.
    by_root: []const u8,
};

pub const Captured = struct {
    relation: *const Relation,
    publication: *const Publication,
    server_version: u32,
    membership: Membership,
    /// Numbers of the columns that are told; null: all that `publication` would tell of any table.
    attributes: ?[]const i16,
    /// SQL of the rows that are told; null: all.
    row_filter: ?[]const u8,
    replica_identity: ReplicaIdentity,
    /// The columns of the identity, in its index's order; none where it is the whole row, or nothing.
    identity: []const []const u8,
    /// `pg_class.relpersistence`.
    persistence: u8,
    is_system: bool,
    has_heirs: bool,
    /// This user owns it, and may publish it.
    owned: bool,
    owner: []const u8,
    /// A partition that differs where it must not.
    odd: ?Odd,

    const Odd = struct { name: []const u8, replica_identity: ReplicaIdentity, persistence: u8 };

    /// Inside a transaction, before the search path is the user's.
    pub fn find(
        arena: Allocator,
        session: *Session,
        relation: *const Relation,
        publication: *const Publication,
    ) !Captured {
        const doing = try std.fmt.allocPrint(arena, "looking into {s}.{s}", .{ relation.schema, relation.name });
        const facts = try session.rows(
            10,
            arena,
            @embedFile("sql/capture.sql"),
            &.{ relation.oid, publication.name },
            doing,
        );
        if (facts.len != 1) return sdk.fail(.transient_db, "{s}: the table was dropped meanwhile", .{doing});
        const row = facts[0];
        const named = try session.rows(1, arena, @embedFile("sql/replica_identity.sql"), &.{relation.oid}, doing);
        const identity = try arena.alloc([]const u8, named.len);
        for (identity, named) |*name, column| name.* = column.text(0);
        var self: Captured = .{
            .relation = relation,
            .publication = publication,
            .server_version = session.connection.server_version,
            .membership = .absent,
            .attributes = null,
            .row_filter = null,
            .persistence = row.letter(0),
            .replica_identity = .ofLetter(row.letter(1)),
            .identity = identity,
            .is_system = row.isTrue(2),
            .has_heirs = row.isTrue(3),
            .owned = row.isTrue(4),
            .owner = row.text(5),
            .odd = if (row.optional(7)) |name| .{
                .name = name,
                .replica_identity = .ofLetter(row.letter(8)),
                .persistence = row.letter(9),
            } else null,
        };
        if (publication.exists) try self.findMembership(arena, session, row.isTrue(6), doing);
        return self;
    }

    fn findMembership(self: *Captured, arena: Allocator, session: *Session, is_listed: bool, doing: []const u8) !void {
        const sql = if (self.server_version >= filters_since)
            @embedFile("sql/published.sql")
        else
            @embedFile("sql/published_14.sql");
        const told = try session.rows(4, arena, sql, &.{ self.publication.name, self.relation.oid }, doing);
        if (told.len == 0) {
            const is_partitioned = self.relation.kind == .partitioned_table;
            if (is_partitioned and !self.publication.via_root and (is_listed or self.publication.all_tables))
                self.membership = .by_partitions;
            return;
        }
        const row = told[0];
        if (!row.isTrue(0)) {
            self.membership = .{ .by_root = row.text(1) };
            return;
        }
        self.membership = .member;
        self.row_filter = row.optional(3);
        const numbers = row.optional(2) orelse return;
        var list: std.ArrayList(i16) = .empty;
        var words = std.mem.tokenizeScalar(u8, numbers, ' ');
        while (words.next()) |word| try list.append(arena, std.fmt.parseInt(i16, word, 10) catch continue);
        self.attributes = list.items;
    }

    pub fn publishes(self: *const Captured, column: *const RelationColumn) bool {
        const numbers = self.attributes orelse return switch (column.generated) {
            0 => true,
            's' => self.publication.generated and self.server_version >= generated_since,
            else => false,
        };
        return std.mem.findScalar(i16, numbers, column.number) != null;
    }

    /// What `stream` gets of the table, by name: what it asks for, of what is published.
    pub fn columns(self: *const Captured, arena: Allocator, stream: *const Stream) Allocator.Error![]const []const u8 {
        if (stream.columns) |names| return names;
        var names: std.ArrayList([]const u8) = .empty;
        for (self.relation.columns) |*column| if (self.publishes(column)) try names.append(arena, column.name);
        return names.items;
    }

    /// What a mirrored row is found by: the pipeline's key, else the identity, else the table's own key. Empty: all of it.
    pub fn key(self: *const Captured, stream: *const Stream) []const []const u8 {
        if (stream.primary_key) |names| return names;
        if (self.identity.len > 0) return self.identity;
        return self.relation.primary_key;
    }

    /// Fails with the first error among `problems`.
    pub fn require(self: *const Captured, arena: Allocator, stream: *const Stream) !void {
        for (try self.problems(arena, stream)) |problem| if (problem.level == .@"error")
            return sdk.errors.failHinted(problem.kind, problem.hint, "stream {s}: {s}", .{ stream.name, problem.message });
    }

    /// All that can be said before anything is captured. That the table is yet to be published is none where this
    /// connector will do it.
    pub fn problems(self: *const Captured, arena: Allocator, stream: *const Stream) ![]const Problem {
        return problems_module.of(arena, self, stream);
    }
};
