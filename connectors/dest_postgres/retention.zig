//! Of staged rows that were loaded from an earlier snapshot, those stay that a later one still has as they were: their keys
//! come, and all others are deleted. One transaction.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const ledger = @import("ledger.zig");
const merge = @import("merge.zig");
const relation = @import("relation.zig");
const write = @import("write.zig");
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Staged = @import("stage.zig").Staged;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

const kept_name = "pg_temp._rapidbyte_kept";

pub const Retention = struct {
    session: *Session,
    target: *const Target,
    staged: *const Staged,
    load: Load,
    /// In the staging table: the columns of the key.
    landing: *Landing,

    /// In an open transaction. `stream` has the key's columns alone.
    pub fn init(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        asked: *const write.Stream,
        stream: *const sdk.arrow.Schema,
        staged: *const Staged,
    ) !Retention {
        try staged.claim(arena, session, null, "ACCESS EXCLUSIVE", target.label, target.doing);
        const landing = try staged.land(arena, session, asked, stream);
        if (landing.columns.len != stream.fields.len) return target.altered();
        try session.exec(try std.fmt.allocPrint(arena, "CREATE TEMPORARY TABLE {s} ({s}) ON COMMIT DROP", .{
            kept_name,
            try columns_module.definitionList(arena, landing.columns, .beside),
        }), target.doing);
        return .{
            .session = session,
            .target = target,
            .staged = staged,
            .landing = landing,
            .load = try .init(arena, session, .{
                .table = kept_name,
                .columns = landing.columns,
                .way = .of(landing.columns, true),
                .doing = target.doing,
            }),
        };
    }

    /// Before COMMIT. `rows` keys came.
    pub fn complete(self: *Retention, arena: Allocator, rows: u64) !void {
        const session = self.session;
        const doing = try std.fmt.allocPrint(arena, "bringing the staged rows of {s} up to date", .{self.target.label});
        try self.load.finish();
        try merge.prepare(arena, session);
        try session.exec("ANALYZE " ++ kept_name, doing);
        const table = try self.staged.quoted(arena);
        // It has no key yet, without which nothing is deleted from a table that is published.
        try session.exec(try std.fmt.allocPrint(arena, "ALTER TABLE {s} REPLICA IDENTITY FULL", .{table}), doing);
        const deleted = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "DELETE FROM {s} AS staged WHERE NOT EXISTS (SELECT FROM {s} AS kept WHERE {s})",
            .{ table, kept_name, try self.sameKey(arena) },
        ), &.{}, doing);
        const gone = std.fmt.parseInt(i64, std.mem.trimStart(u8, deleted.command_tag, "DELETE "), 10) catch 0;
        try session.exec(try std.fmt.allocPrint(arena, "ALTER TABLE {s} REPLICA IDENTITY DEFAULT", .{table}), doing);
        const left = try session.query(
            arena,
            try std.fmt.allocPrint(arena, "SELECT pg_catalog.count(*) FROM {s}", .{table}),
            &.{},
            doing,
        );
        const found = relation.number(u64, left.scalar());
        if (found != rows) return self.refuse(arena, found, rows);
        try ledger.correct(arena, session, self.staged, -gone, 0);
        sdk.host.log(.info, "{s}: {d} rows stay, {d} are gone or have changed", .{ doing, rows, gone });
    }

    /// Byte for byte: what are equal keys here can be two at the source.
    fn sameKey(self: *const Retention, arena: Allocator) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        for (self.landing.columns, 0..) |column, i| {
            if (i > 0) try out.appendSlice(arena, " AND ");
            const bytewise = if (columns_module.isCollatable(column.type)) " COLLATE pg_catalog.\"C\"" else "";
            try out.print(arena, "staged.{s} = kept.{s}{s}", .{ column.quoted, column.quoted, bytewise });
            if (!columns_module.isExact(column.type)) try out.print(
                arena,
                " AND ROW(staged.{s})::record OPERATOR(pg_catalog.*=) ROW(kept.{s})::record",
                .{ column.quoted, column.quoted },
            );
        }
        return out.items;
    }

    /// The rows are not those that the source knows of: somebody else was at them. They are of no use to anybody.
    fn refuse(self: *const Retention, arena: Allocator, found: u64, rows: u64) !void {
        const session = self.session;
        session.rollback();
        try session.begin();
        errdefer session.rollback();
        try ledger.clear(arena, session, self.staged);
        try session.commit(arena);
        return sdk.fail(
            .transient_db,
            "of the staged rows of {s} {d} should have been kept and {d} were found: they are loaded again",
            .{ self.target.label, rows, found },
        );
    }
};
