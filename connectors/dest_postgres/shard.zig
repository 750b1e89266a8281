//! The rows of one shard, into the staging table that all shards of the stream share: one transaction, which nobody sees
//! anything of before the publication.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const merge = @import("merge.zig");
const relation = @import("relation.zig");
const target_module = @import("target.zig");
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Staged = @import("stage.zig").Staged;
const Target = target_module.Target;
const WriteMode = @import("write.zig").WriteMode;

const Allocator = std.mem.Allocator;

pub const Shard = struct {
    session: *Session,
    target: *const Target,
    staged: *const Staged,
    load: Load,
    /// The staging table's.
    columns: []const relation.Column,
    /// Of an upsert.
    keyed: ?merge.Rows,

    /// In an open transaction.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        schema: *const sdk.arrow.Schema,
        named_key: ?[]const []const u8,
        mode: WriteMode,
        staged: *const Staged,
    ) !Shard {
        try staged.claim(arena, session, schema, "ROW EXCLUSIVE", target.label, target.doing);
        const found = (try relation.Relation.find(arena, session, staged.schema, staged.table)).?;
        const columns = try columns_module.forExistingTable(arena, session, schema, &found, target.label, true);
        const table = try staged.quoted(arena);
        return .{
            .session = session,
            .target = target,
            .staged = staged,
            .columns = found.columns,
            .keyed = if (mode != .upsert) null else try .init(
                arena,
                schema,
                table,
                columns,
                try target_module.requiredKey(arena, schema, named_key, target.label),
                merge.place,
            ),
            .load = try .init(arena, session, .{
                .table = table,
                .columns = columns,
                // The functions behind a target's checks came along into its copy.
                .way = .of(columns, staged.role != .replaces_target),
                .doing = target.doing,
            }),
        };
    }

    /// `first_row` is the shard's number of the batch's first row, for errors.
    pub fn add(self: *Shard, batch: *const sdk.arrow.Batch, first_row: u64) !void {
        if (self.keyed) |*rows| try rows.refuseNullKeys(batch, first_row, self.target.doing);
        try self.load.add(batch, first_row);
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
