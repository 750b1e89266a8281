//! A new table takes the place, the name and all the belongings of the old one.
//!
//!     start     CREATE TABLE beside (LIKE target …)
//!     …         COPY beside … FREEZE
//!     complete  the target's indexes, built on the new table under names of their own
//!     exchange  LOCK target, look again, carry over what LIKE leaves out, DROP target, rename

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const relation = @import("relation.zig");
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

const obstacles_sql = @embedFile("sql/obstacles.sql");
const create_like_sql = @embedFile("sql/create_like.sql");
const indexes_sql = @embedFile("sql/indexes.sql");
const description_sql = @embedFile("sql/description.sql");
const carry_over_sql = @embedFile("sql/carry_over.sql");

/// How long readers may keep the swap waiting, while everybody who comes after them waits too; then the rows are
/// replaced in place, which waits for no reader.
const lock_patience = "3s";
const lock_patience_further = "2s";

/// Names of things that stand beside the target begin like this, then 16 hexadecimal digits.
const name_prefix = "_rapidbyte_new_";

/// What a message says of a long list.
const reasons_told_max = 3;

pub const Swap = struct {
    target: *const Target,
    /// The old table, as text for parameters.
    old: []const u8,
    /// The new table: its name, the name as SQL, its oid as text.
    name: []const u8,
    quoted: []const u8,
    new: []const u8,
    /// As they were when they were built again.
    indexes: []const Index = &.{},
    /// What the old table was like when the new one was made after it, where it could be altered since.
    was: ?[]const u8 = null,

    const Index = struct { oid: []const u8, name: []const u8, build: []const u8, rename: []const u8 };

    /// Null when the table can be swapped.
    pub fn obstacles(arena: Allocator, session: *Session, oid: u32) !?[]const u8 {
        const found = try session.query(
            arena,
            obstacles_sql,
            &.{try std.fmt.allocPrint(arena, "{d}", .{oid})},
            "looking for what depends on the target table",
        );
        if (found.rows.len == 0) return null;
        var out: std.ArrayList(u8) = .empty;
        for (found.rows, 0..) |row, i| {
            if (i == reasons_told_max) {
                try out.appendSlice(arena, ", …");
                break;
            }
            if (i > 0) try out.appendSlice(arena, ", ");
            try out.appendSlice(arena, row[0].?);
        }
        return out.items;
    }

    pub fn init(arena: Allocator, session: *Session, target: *const Target, oid: u32, name: []const u8) !Swap {
        const doing = "creating a table beside the target";
        const old = try std.fmt.allocPrint(arena, "{d}", .{oid});
        // Another pipeline's swap may have taken its place since it was looked at, or does so now.
        const statement = try session.query(arena, create_like_sql, &.{ old, name }, doing);
        const create = statement.scalar() orelse return target.altered();
        session.connection.exec(create) catch |err| {
            const failed = session.failed(err, doing);
            if (err != error.Server or !std.mem.eql(u8, session.connection.last_error.?.sqlstate, "42P01")) return failed;
            sdk.errors.clear();
            return target.altered();
        };
        const created = try relation.Relation.find(arena, session, target.schema, name);
        return .{
            .target = target,
            .old = old,
            .name = name,
            .quoted = try postgres.ident.qualified(arena, target.schema, name),
            .new = try std.fmt.allocPrint(arena, "{d}", .{created.?.oid}),
        };
    }

    /// A name for the table beside, which goes with its transaction.
    pub fn newName(arena: Allocator) ![]const u8 {
        var random: [8]u8 = undefined;
        try sdk.host.random(&random);
        return std.fmt.allocPrint(arena, name_prefix ++ "{x}", .{&random});
    }

    /// What `init` began in an earlier transaction.
    pub fn resumed(arena: Allocator, target: *const Target, old: u32, was: []const u8, name: []const u8, new: u32) !Swap {
        return .{
            .target = target,
            .old = try std.fmt.allocPrint(arena, "{d}", .{old}),
            .name = name,
            .quoted = try postgres.ident.qualified(arena, target.schema, name),
            .new = try std.fmt.allocPrint(arena, "{d}", .{new}),
            .was = was,
        };
    }

    fn readIndexes(self: *const Swap, arena: Allocator, session: *Session) ![]const Index {
        const doing = "reading the target table's indexes";
        const prefix = try std.fmt.allocPrint(arena, "{s}_", .{self.name});
        const found = try session.query(arena, indexes_sql, &.{ self.old, self.new, prefix }, doing);
        const indexes = try arena.alloc(Index, found.rows.len);
        for (indexes, found.rows) |*index, row| index.* = .{
            .oid = row[0].?,
            .name = row[1].?,
            .build = row[2] orelse "",
            .rename = row[3].?,
        };
        return indexes;
    }

    pub fn buildIndexes(self: *Swap, arena: Allocator, session: *Session) !void {
        try session.seeCatalog();
        self.indexes = try self.readIndexes(arena, session);
        // The definitions are fully qualified; the functions inside of them may not be.
        try session.seeAsUser();
        const started = sdk.host.now();
        for (self.indexes) |index| {
            if (index.build.len == 0) continue;
            // What a unique index finds is told with the name of the one that is being built: say which it stands for.
            const doing = try std.fmt.allocPrint(arena, "building index {s} of {s}", .{ index.name, self.target.label });
            try session.exec(index.build, doing);
        }
        sdk.host.metric("index_seconds", secondsSince(started));
    }

    /// Null when it is done; else why it cannot be, with nothing changed.
    pub fn exchange(self: *Swap, arena: Allocator, session: *Session) !?[]const u8 {
        const doing = try std.fmt.allocPrint(arena, "publishing {s}", .{self.target.label});
        try session.seeCatalog();
        try session.exec("SAVEPOINT rapidbyte_swap", doing);
        const reason = try self.lock(arena, session, doing) orelse blk: {
            break :blk try obstacles(arena, session, try std.fmt.parseInt(u32, self.old, 10)) orelse
                try self.changedColumns(arena, session) orelse
                try self.changedIndexes(arena, session);
        };
        if (reason) |told| {
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_swap", doing);
            return told;
        }
        const carried = try session.query(arena, carry_over_sql, &.{ self.old, self.new }, doing);
        for (carried.rows) |row| try session.exec(row[0].?, doing);
        try session.exec(try std.fmt.allocPrint(
            arena,
            "DROP TABLE {s}; ALTER TABLE {s} RENAME TO {s}",
            .{ self.target.quoted, self.quoted, try postgres.ident.quote(arena, self.target.table) },
        ), doing);
        for (self.indexes) |index| try session.exec(index.rename, doing);
        return null;
    }

    /// Null when the table is ours alone.
    fn lock(self: *Swap, arena: Allocator, session: *Session, doing: []const u8) !?[]const u8 {
        if (!try session.lockTable(arena, .{
            .table = self.target.quoted,
            .label = self.target.label,
            .mode = "ACCESS EXCLUSIVE",
            .patience = lock_patience_further,
            .doing = doing,
        })) return "other sessions have been using it for longer than " ++ lock_patience;
        const still = try session.query(
            arena,
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " ++
                "WHERE c.oid = $1::oid AND n.nspname = $2 AND c.relname = $3",
            &.{ self.old, self.target.schema, self.target.table },
            doing,
        );
        if (still.rows.len == 0) return "it was replaced by another session";
        return null;
    }

    /// What CREATE TABLE … (LIKE …) copies of a table, in few bytes.
    pub fn describe(arena: Allocator, session: *Session, oid: u32) ![]const u8 {
        const found = try session.query(
            arena,
            description_sql,
            &.{try std.fmt.allocPrint(arena, "{d}", .{oid})},
            "reading the target table's definition",
        );
        return found.scalar() orelse "";
    }

    fn changedColumns(self: *Swap, arena: Allocator, session: *Session) !?[]const u8 {
        const was = self.was orelse return null;
        const now = try describe(arena, session, try std.fmt.parseInt(u32, self.old, 10));
        return if (std.mem.eql(u8, was, now)) null else "it was altered while it was loaded";
    }

    fn changedIndexes(self: *Swap, arena: Allocator, session: *Session) !?[]const u8 {
        const now = try self.readIndexes(arena, session);
        const changed = "its indexes were changed while it was loaded";
        if (now.len != self.indexes.len) return changed;
        for (now, self.indexes) |a, b| {
            if (a.build.len == 0) return "an index cannot be built again as it is";
            if (!std.mem.eql(u8, a.oid, b.oid) or !std.mem.eql(u8, a.build, b.build)) return changed;
        }
        return null;
    }
};

fn secondsSince(micros: i64) f64 {
    return @as(f64, @floatFromInt(sdk.host.now() - micros)) / 1e6;
}
