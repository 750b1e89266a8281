//! The rows of one shard, into the staging table that all shards of the stream share: one transaction, which nobody sees
//! anything of before the publication.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const ledger = @import("ledger.zig");
const merge = @import("merge.zig");
const shape = @import("shape.zig");
const write = @import("write.zig");
const Landing = @import("landing.zig").Landing;
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
    /// In the staging table.
    landing: *Landing,
    /// Of an upsert.
    keyed: ?merge.Rows,
    /// Whether these rows complete what shards have loaded from an earlier snapshot: they are of this one then.
    amends: bool,

    /// In an open transaction.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        asked: *const write.Stream,
        stream: *const sdk.arrow.Schema,
        staged: *const Staged,
        amends: bool,
    ) !Shard {
        try staged.claim(arena, session, stream, "ROW EXCLUSIVE", target.label, target.doing);
        const landing = try staged.land(arena, session, asked, stream);
        if (!std.mem.eql(u8, staged.columns, try columns_module.fingerprint(arena, landing.columns)))
            return shape.changed(target.label);
        const table = try staged.quoted(arena);
        return .{
            .session = session,
            .target = target,
            .staged = staged,
            .landing = landing,
            .amends = amends,
            .keyed = if (landing.mode != .upsert) null else try .init(
                arena,
                &landing.schema,
                table,
                landing.columns,
                landing.key,
                merge.place,
            ),
            .load = try .init(arena, session, .{
                .table = table,
                .columns = landing.columns,
                // The functions behind a target's checks came along into its copy.
                .way = .of(landing.columns, staged.role != .replaces_target),
                .doing = target.doing,
            }),
        };
    }

    /// `first_row` is the shard's number of the batch's first row, for errors.
    pub fn add(self: *Shard, batch: *const sdk.arrow.Batch, first_row: u64) !void {
        if (self.keyed) |*rows| try rows.refuseNullKeys(self.session, batch, 0, batch.rows, first_row, self.target.doing);
        try self.load.add(batch, first_row);
    }

    /// Before COMMIT.
    pub fn complete(self: *Shard, arena: Allocator, rows: u64) !void {
        try self.load.finish();
        if (!self.amends) return ledger.add(arena, self.session, self.staged, rows, self.load.bytes);
        try ledger.correct(arena, self.session, self.staged, @intCast(rows), self.load.bytes);
        try ledger.describe(arena, self.session, self.staged);
    }
};
