//! A relation as pgoutput tells it: where each column of its rows goes in its stream, and which columns identify a row.

const std = @import("std");
const postgres = @import("postgres");
const Shape = @import("shape.zig").Shape;

const Allocator = std.mem.Allocator;
const pgoutput = postgres.pgoutput;

/// In the place of a column that the stream does not have.
pub const nowhere = std.math.maxInt(u16);

pub const PublishedRelation = struct {
    arena: std.heap.ArenaAllocator,
    oid: u32,
    /// `public.users`, for messages.
    name: []const u8,
    columns: []const pgoutput.Column,
    identity: pgoutput.ReplicaIdentity,
    /// Which message it came with, counted from the beginning of the stream of changes.
    arrival: u64,
    /// Null: no stream reads it.
    destination: ?Destination = null,

    /// What it is to the stream's table.
    pub const Standing = enum {
        table,
        /// One of its partitions, which a publication tells by their own names.
        partition,
        /// Another table, which had its name.
        former,
    };

    pub const Destination = struct {
        /// Place of the stream among those that are captured.
        stream: usize,
        standing: Standing,
        shape: *const Shape,
        /// Per column of the relation, its place among those of the shape.
        places: []const u16,
        /// Columns of the relation: an old row is told where one of them changed; null: every old row is told.
        key: ?[]const u16,
    };

    /// A copy of what `told` says, without a destination.
    pub fn create(gpa: Allocator, told: *const pgoutput.Relation, arrival: u64) (Allocator.Error || pgoutput.Error)!*PublishedRelation {
        var arena: std.heap.ArenaAllocator = .init(gpa);
        errdefer arena.deinit();
        const own = arena.allocator();
        const columns = try own.alloc(pgoutput.Column, told.columns);
        var iterator = told.iterate();
        for (columns) |*column| {
            column.* = (try iterator.next()).?;
            column.name = try own.dupe(u8, column.name);
        }
        if (try iterator.next() != null) unreachable;
        const name = try std.mem.concat(own, u8, &.{ told.schema, ".", told.name });
        const self = try gpa.create(PublishedRelation);
        self.* = .{
            .arena = arena,
            .oid = told.oid,
            .name = name,
            .columns = columns,
            .identity = told.identity,
            .arrival = arrival,
        };
        return self;
    }

    pub fn destroy(self: *PublishedRelation, gpa: Allocator) void {
        self.arena.deinit();
        gpa.destroy(self);
    }

    pub fn placeOf(self: *const PublishedRelation, name: []const u8) ?u16 {
        for (self.columns, 0..) |candidate, i| if (std.mem.eql(u8, candidate.name, name)) return @intCast(i);
        return null;
    }

    /// The columns that identify a row; null where that is the whole row, or nothing.
    pub fn identityColumns(self: *const PublishedRelation, arena: Allocator) Allocator.Error!?[]const u16 {
        if (self.identity == .full or self.identity == .nothing) return null;
        var columns: std.ArrayList(u16) = .empty;
        for (self.columns, 0..) |each, i| if (each.is_key) try columns.append(arena, @intCast(i));
        return if (columns.items.len == 0) null else columns.items;
    }
};

test "a relation keeps what was told of it" {
    const gpa = std.testing.allocator;
    const told = (try pgoutput.parse(pgoutput.samples.relation, false)).message.relation;
    const relation: *PublishedRelation = try .create(gpa, &told, 3);
    defer relation.destroy(gpa);
    try std.testing.expectEqualStrings("public.t", relation.name);
    try std.testing.expectEqual(1, relation.placeOf("note").?);
    try std.testing.expectEqual(null, relation.placeOf("Note"));
    const identity = (try relation.identityColumns(relation.arena.allocator())).?;
    try std.testing.expectEqualSlices(u16, &.{0}, identity);
    relation.identity = .full;
    try std.testing.expectEqual(null, try relation.identityColumns(relation.arena.allocator()));
}
