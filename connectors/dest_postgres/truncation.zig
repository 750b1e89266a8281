//! Tables that were emptied at the source, emptied here: all in one statement, since those that refer to each other cannot
//! be emptied one by one.

const std = @import("std");
const sdk = @import("sdk");
const Ref = @import("changes.zig").Ref;
const Replica = @import("replica.zig").Replica;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

pub fn run(arena: Allocator, session: *Session, replicas: []const *Replica) !void {
    var tables: std.ArrayList(u8) = .empty;
    for (replicas) |replica| {
        const ref = replica.way.?.truncated() orelse continue;
        if (replica.asked.deletes == .soft) {
            try mark(arena, session, replica, ref);
            continue;
        }
        try tables.print(arena, "{s}{s}", .{ if (tables.items.len > 0) ", " else "", replica.target.quoted });
    }
    if (tables.items.len == 0) return;
    const doing = "emptying tables that were truncated at the source";
    try session.exec("SAVEPOINT rapidbyte_truncate", doing);
    session.connection.exec(try std.fmt.allocPrint(arena, "TRUNCATE {s}", .{tables.items})) catch |err| {
        const failed = session.failed(err, doing);
        // Tables that are no streams refer to them: their rows may not, and then a DELETE is as good.
        if (err != error.Server or !std.mem.eql(u8, session.connection.last_error.?.sqlstate, "0A000")) return failed;
        sdk.errors.clear();
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_truncate", doing);
        var last = replicas.len;
        while (last > 0) : (last -= 1) {
            const replica = replicas[last - 1];
            if (replica.way.?.truncated() == null or replica.asked.deletes == .soft) continue;
            try session.exec(try std.fmt.allocPrint(arena, "DELETE FROM {s}", .{replica.target.quoted}), doing);
        }
    };
    try session.exec("RELEASE SAVEPOINT rapidbyte_truncate", doing);
}

/// Rows that are kept, and told from those that the source has.
fn mark(arena: Allocator, session: *Session, replica: *const Replica, ref: Ref) !void {
    const batch = replica.changes.at(ref);
    try session.exec(try std.fmt.allocPrint(
        arena,
        "UPDATE {s} SET \"_rb_deleted_at\" = TIMESTAMPTZ 'epoch' + {d} * INTERVAL '1 microsecond' WHERE \"_rb_deleted_at\" IS NULL",
        .{ replica.target.quoted, batch.times.fixed(i64)[ref.row] },
    ), replica.target.doing);
}
