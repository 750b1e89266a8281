//! Rows added to the target: one transaction from barrier to barrier. Where some may be left out, and rows of the target
//! point to each other, they wait in a table beside it, so that each finds the one it points to wherever that comes.

const std = @import("std");
const columns_module = @import("columns.zig");
const rewrite = @import("rewrite.zig");
const screening = @import("screening.zig");
const target_module = @import("target.zig");
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;

pub const Append = struct {
    session: *Session,
    target: *const Target,
    load: Load,
    created: bool,
    /// To be created with the first commit; empty afterwards.
    pending_key: []const []const u8,
    landing: *Landing,
    waits: bool,

    /// In an open transaction.
    pub fn init(arena: Allocator, landing: *Landing) !Append {
        const session = landing.session;
        const target = landing.target;
        const is_new = landing.existing == null;
        const guarded = landing.guard != null;
        const key: []const []const u8 = if (is_new) try target_module.namedKey(&landing.schema, landing.named_key) else &.{};
        if (is_new) {
            try target.create(arena, session, landing.columns);
            // A row that repeats a key is found when it comes.
            if (guarded) try target.addPrimaryKey(arena, session, key);
        } else if (landing.changesTable()) {
            try landing.evolve(arena);
        } else {
            try target.awaitLock(arena, session);
            try landing.requireUnchanged(arena);
        }
        const waits = guarded and try screening.pointsToItself(arena, landing);
        if (waits) _ = try rewrite.createBeside(arena, session, landing.columns, .{ .numbered = true, .stays = true });
        return .{
            .session = session,
            .target = target,
            .landing = landing,
            .waits = waits,
            .created = is_new,
            .pending_key = if (guarded) &.{} else key,
            .load = try .init(arena, session, .{
                .table = if (waits) rewrite.beside else target.quoted,
                .ordinal = if (waits) try columns_module.ordinalName(arena, landing.columns) else null,
                .columns = landing.columns,
                // FREEZE is for what is not rolled back in parts.
                .freeze = is_new and !guarded,
                .made_here = is_new,
                .way = .of(landing.columns, is_new or waits),
                .doing = target.doing,
            }),
        };
    }

    /// Before COMMIT.
    pub fn complete(self: *Append, arena: Allocator) !void {
        try self.load.finish();
        if (self.waits) try rewrite.siftInto(arena, self.landing, self.landing.guard.?, self.target.doing);
        try self.target.addPrimaryKey(arena, self.session, self.pending_key);
        self.pending_key = &.{};
    }

    /// After COMMIT.
    pub fn committed(self: *Append, arena: Allocator) !void {
        self.load.forgetStaging();
        try self.load.thaw(arena);
    }
};
