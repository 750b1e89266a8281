//! The rows of one shard, into the staging table that all shards of the stream share: one transaction, which nobody sees
//! anything of before the publication.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const merge = @import("merge.zig");
const shape = @import("shape.zig");
const write = @import("write.zig");
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Policy = @import("policy.zig").Policy;
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

    /// In an open transaction.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        asked: *const write.Stream,
        stream: *const sdk.arrow.Schema,
        staged: *const Staged,
    ) !Shard {
        try staged.claim(arena, session, stream, "ROW EXCLUSIVE", target.label, target.doing);
        // As long as the landing.
        const place = try arena.create(Target);
        place.* = try .init(arena, staged.schema, staged.table);
        var into = asked.*;
        // The policy has decided already, about the target: what is missing here is left out, what is of another type is
        // cast, and nothing is to be altered.
        const policy: Policy = asked.schema_evolution orelse .{};
        into.schema_evolution = .{ .new_column = .ignore, .removed_column = .ignore, .type_change = policy.type_change };
        into.known_columns = null;
        const landing: *Landing = try .find(arena, session, place, &into, stream);
        if (!std.mem.eql(u8, staged.columns, try columns_module.fingerprint(arena, landing.columns)))
            return shape.changed(target.label);
        const table = try staged.quoted(arena);
        return .{
            .session = session,
            .target = target,
            .staged = staged,
            .landing = landing,
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
        const sql = try std.fmt.allocPrint(arena, "INSERT INTO {s} (shard, rows, bytes) VALUES ({d}, {d}, {d})", .{
            try self.staged.quotedLedger(arena),
            self.session.shard.?,
            rows,
            self.load.bytes,
        });
        try self.session.exec(sql, "counting the shard's rows");
    }
};
