//! Tables in the order of their foreign keys: those that others refer to come first.

const std = @import("std");
const Relation = @import("relation.zig");
const Replica = @import("replica.zig").Replica;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// Sorts them. Tables that refer to each other in a circle stay as they are.
pub fn sort(arena: Allocator, session: *Session, replicas: []*Replica) !void {
    var oids: std.ArrayList(u8) = .empty;
    for (replicas) |replica| if (replica.oid()) |oid|
        try oids.print(arena, "{s}{d}", .{ if (oids.items.len > 0) "," else "", oid });
    const found = try session.query(arena,
        \\SELECT k.conrelid, k.confrelid FROM pg_catalog.pg_constraint k
        \\WHERE k.contype = 'f' AND k.conrelid <> k.confrelid
        \\  AND k.conrelid = ANY (pg_catalog.string_to_array($1, ',')::oid[])
        \\  AND k.confrelid = ANY (pg_catalog.string_to_array($1, ',')::oid[])
    , &.{oids.items}, "looking for foreign keys between the tables");
    // As often as the longest chain is long.
    for (0..replicas.len) |_| {
        var moved = false;
        for (found.rows) |row| {
            const child = place(replicas, Relation.number(u32, row[0])) orelse continue;
            const parent = place(replicas, Relation.number(u32, row[1])) orelse continue;
            if (parent < child) continue;
            const first = replicas[parent];
            std.mem.copyBackwards(*Replica, replicas[child + 1 .. parent + 1], replicas[child..parent]);
            replicas[child] = first;
            moved = true;
        }
        if (!moved) return;
    }
}

fn place(replicas: []*Replica, oid: u32) ?usize {
    return for (replicas, 0..) |replica, i| {
        if (replica.oid() == oid) break i;
    } else null;
}
