//! Rows in the target's place: one transaction, published at its COMMIT. No reader ever finds the table empty or partly
//! filled.
//!
//!     there is no target                   create it, fill it
//!     nothing hangs on the target that     swap.zig: fill a new table beside it, exchange the two at the end; readers
//!     a swap would lose                    wait for a moment, and the rows come at COPY's speed
//!     otherwise, with text forms or a      rewrite.zig: fill a temporary table, then DELETE and INSERT; readers never
//!     guard, or when readers stay          wait, and everything that hangs on the table stays
//!
//! A swapped-in table is filled with COPY FREEZE: a transaction whose snapshot is older than the swap, and which comes
//! to the table after it, sees the new rows instead of none.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const rewrite = @import("rewrite.zig");
const target_module = @import("target.zig");
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Swap = @import("swap.zig").Swap;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;

pub const Replace = struct {
    session: *Session,
    target: *const Target,
    landing: *Landing,
    load: Load,
    way: Way,

    const Way = union(enum) {
        create: []const []const u8,
        swap: Swap,
        /// Why it is not a swap.
        rewrite: []const u8,
    };

    pub fn init(arena: Allocator, landing: *Landing) !Replace {
        const session = landing.session;
        const target = landing.target;
        const columns = landing.columns;
        const guarded = landing.guard != null;
        const way: Way = if (landing.existing) |*existing|
            if (guarded)
                // What is rolled back in parts cannot be frozen.
                .{ .rewrite = "rows that fail are left out" }
            else if (columns_module.anyConverted(columns))
                .{ .rewrite = "a column's values have to be converted by the server" }
            else if (try Swap.obstacles(arena, session, existing.oid)) |reasons|
                .{ .rewrite = reasons }
            else
                .{ .swap = try .init(arena, session, target, existing.oid, try Swap.newName(arena)) }
        else
            .{ .create = try target_module.primaryKey(arena, &landing.schema, landing.named_key) };
        try landing.rehearse(arena);
        if (guarded and way == .rewrite) try rewrite.requireNoReferences(arena, landing);
        const table = switch (way) {
            .create => blk: {
                try target.create(arena, session, columns);
                // A row that repeats a key is found when it comes.
                if (guarded) try target.addPrimaryKey(arena, session, way.create);
                break :blk target.quoted;
            },
            .swap => |swap| blk: {
                try landing.evolveCopy(arena, swap.quoted);
                break :blk swap.quoted;
            },
            .rewrite => try rewrite.createBeside(arena, session, columns, .{ .numbered = guarded }),
        };
        return .{
            .session = session,
            .target = target,
            .landing = landing,
            .way = way,
            .load = try .init(arena, session, .{
                .table = table,
                .columns = columns,
                .freeze = way != .rewrite and !guarded,
                .way = .of(columns, true),
                .ordinal = if (guarded and way == .rewrite) try columns_module.ordinalName(arena, columns) else null,
                .doing = target.doing,
            }),
        };
    }

    pub fn created(self: *const Replace) bool {
        return self.way == .create;
    }

    /// Everything that takes long and disturbs nobody.
    pub fn complete(self: *Replace, arena: Allocator) !void {
        try self.load.finish();
        if (self.landing.guard) |guard| {
            if (self.way != .rewrite) return;
            self.tellInPlace(self.way.rewrite);
            return rewrite.sift(arena, self.landing, guard);
        }
        switch (self.way) {
            .create => |key| try self.target.addPrimaryKey(arena, self.session, key),
            .swap => |*swap| try swap.buildIndexes(arena, self.session),
            .rewrite => {},
        }
    }

    /// Right before COMMIT.
    pub fn publish(self: *Replace, arena: Allocator) !void {
        switch (self.way) {
            .create => {},
            .swap => |*swap| {
                const obstacle = try swap.exchange(arena, self.session) orelse {
                    sdk.host.log(.info, "{s} is replaced by a new table", .{self.target.label});
                    return;
                };
                try self.rewriteFrom(arena, swap.quoted, obstacle);
                try self.session.exec(
                    try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{swap.quoted}),
                    self.target.doing,
                );
            },
            // Under a guard it is done.
            .rewrite => |reason| if (self.landing.guard == null) try self.rewriteFrom(arena, rewrite.beside, reason),
        }
    }

    fn rewriteFrom(self: *Replace, arena: Allocator, beside: []const u8, reason: []const u8) !void {
        self.tellInPlace(reason);
        try rewrite.publish(arena, self.landing, beside);
    }

    fn tellInPlace(self: *const Replace, reason: []const u8) void {
        sdk.host.log(.info, "the rows of {s} are replaced in place: {s}", .{ self.target.label, reason });
    }
};
