//! The rows of one shard, into the staging table that all shards of the stream share: one transaction, which nobody sees
//! anything of before the publication.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const relation = @import("relation.zig");
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Staged = @import("stage.zig").Staged;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

pub const Shard = struct {
    session: *Session,
    target: *const Target,
    staged: *const Staged,
    load: Load,
    /// The staging table's.
    columns: []const relation.Column,

    /// In an open transaction.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        schema: *const sdk.arrow.Schema,
        staged: *const Staged,
    ) !Shard {
        try staged.claim(arena, session, schema, "ROW EXCLUSIVE", target.label, target.doing);
        const found = (try relation.Relation.find(arena, session, staged.schema, staged.table)).?;
        const columns = try columns_module.forExistingTable(arena, session, schema, &found, target.label, true);
        return .{
            .session = session,
            .target = target,
            .staged = staged,
            .columns = found.columns,
            .load = try .init(arena, session, .{
                .table = try staged.quoted(arena),
                .columns = columns,
                // The functions behind a target's checks came along into its copy.
                .way = .of(columns, staged.role != .replaces_target),
                .doing = target.doing,
            }),
        };
    }

    /// Before COMMIT.
    pub fn complete(self: *Shard, arena: Allocator, rows: u64) !void {
        try self.load.finish();
        const sql = try std.fmt.allocPrint(arena, "INSERT INTO {s} (shard, rows, bytes) VALUES ({d}, {d}, {d})", .{
            try self.staged.quotedLedger(arena),
            self.session.shard.?,
            rows,
            self.load.bytes,
        });
        try self.session.exec(sql, "counting the shard's rows");
    }
};
