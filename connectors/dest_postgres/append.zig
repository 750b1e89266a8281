//! Rows added to the target: one transaction from barrier to barrier.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const target_module = @import("target.zig");
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

    /// In an open transaction.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        schema: *const sdk.arrow.Schema,
        named_key: ?[]const []const u8,
    ) !Append {
        const existing = try target.find(arena, session);
        const columns = if (existing) |*found|
            try columns_module.forExistingTable(arena, session, schema, found, target.label, true)
        else
            try columns_module.forNewTable(arena, session, schema, target.label);
        const key: []const []const u8 = if (existing == null) try target_module.namedKey(schema, named_key) else &.{};
        if (existing == null) try target.create(arena, session, columns) else try target.awaitLock(arena, session);
        return .{
            .session = session,
            .target = target,
            .created = existing == null,
            .pending_key = key,
            .load = try .init(arena, session, .{
                .table = target.quoted,
                .columns = columns,
                .freeze = existing == null,
                .way = .of(columns, existing == null),
                .doing = target.doing,
            }),
        };
    }

    /// Before COMMIT.
    pub fn complete(self: *Append, arena: Allocator) !void {
        try self.load.finish();
        try self.target.addPrimaryKey(arena, self.session, self.pending_key);
        self.pending_key = &.{};
    }

    /// After COMMIT.
    pub fn committed(self: *Append, arena: Allocator) !void {
        self.load.forgetStaging();
        try self.load.thaw(arena);
    }
};
