//! The unique index that says which rows of the target have the key of a new one ("arbiter index" is PostgreSQL's term).
//! Its operators and collations decide what is equal: those of the column need not be the same.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;

const arbiters_sql = @embedFile("sql/arbiters.sql");
const obstacles_sql = @embedFile("sql/arbiter_obstacles.sql");

pub const Arbiter = struct {
    /// The name of its constraint, as SQL; null for a mere index.
    constraint: ?[]const u8,
    /// In the order of the key.
    columns: []const Column,

    pub const Column = struct {
        /// The column's name, as SQL.
        quoted: []const u8,
        /// `OPERATOR(pg_catalog.=)`.
        operator: []const u8,
        /// `COLLATE pg_catalog."default"`; empty for types without collations.
        collate: []const u8,
        /// Types whose equal values are the same bytes have that here too.
        exact: bool,
    };

    /// What stands in the catalog about the key.
    pub const Found = struct {
        usable: ?Arbiter,
        /// There is a deferrable constraint on the key. ON CONFLICT trips over it unless it names another constraint.
        deferrable: bool,
    };

    pub fn find(arena: Allocator, session: *Session, oid: u32, key: []const []const u8) !Found {
        const found = try session.query(
            arena,
            arbiters_sql,
            &.{ try std.fmt.allocPrint(arena, "{d}", .{oid}), try sdk.json.stringify(arena, key) },
            "looking for a unique index on the key",
        );
        const rows = found.rows;
        var deferrable = false;
        for (rows) |row| if (!isTrue(row[1])) {
            deferrable = true;
        };
        var first: usize = 0;
        const usable = while (first + key.len <= rows.len) : (first += key.len) {
            if (isTrue(rows[first][1]) and (!deferrable or rows[first][2] != null)) break rows[first..][0..key.len];
        } else return .{ .usable = null, .deferrable = deferrable };
        const columns = try arena.alloc(Column, key.len);
        for (columns, key, usable) |*column, name, row| column.* = .{
            .quoted = try postgres.ident.quote(arena, name),
            .operator = row[3].?,
            .collate = row[4].?,
            .exact = isTrue(row[5]),
        };
        return .{
            .usable = .{
                .constraint = if (usable[0][2]) |name| try postgres.ident.quote(arena, name) else null,
                .columns = columns,
            },
            .deferrable = deferrable,
        };
    }

    /// The one that is there, or a new one. In an open transaction. Where that may be committed, another one is open
    /// afterwards: nobody should wait for the stream's rows because of the index's lock, and what is wrong with it is to
    /// be known before they come.
    pub fn require(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        oid: u32,
        key: []const []const u8,
        may_commit: bool,
    ) !Arbiter {
        const found = try requirePossible(arena, session, target, oid, key);
        if (found.usable) |usable| return usable;
        try create(arena, session, target, key, found.deferrable);
        if (may_commit) {
            try session.commit(arena);
            try session.begin();
        }
        return (try find(arena, session, oid, key)).usable orelse
            sdk.fail(.transient_db, "the unique index that was created on {s} is gone", .{target.label});
    }

    /// Fails where there is none, and none can be made, as far as that can be known without trying.
    pub fn requirePossible(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        oid: u32,
        key: []const []const u8,
    ) !Found {
        const found = try find(arena, session, oid, key);
        if (found.usable != null) return found;
        const reason = try obstacle(arena, session, oid, key) orelse return found;
        return sdk.errors.failHinted(
            reason.kind,
            reason.hint(),
            "an upsert into {s} needs a unique index on ({s}), and none can be created: {s}",
            .{ target.label, try std.mem.join(arena, ", ", key), reason.text },
        );
    }

    const Obstacle = struct {
        kind: sdk.errors.Kind,
        text: []const u8,

        pub fn hint(self: Obstacle) []const u8 {
            return if (self.kind == .permission)
                "have its owner create one, or become a member of the owner's role"
            else
                "name another `primary_key`";
        }
    };

    /// Why no index can be created, as far as that can be known without trying. Null when it can.
    pub fn obstacle(arena: Allocator, session: *Session, oid: u32, key: []const []const u8) !?Obstacle {
        const found = try session.query(
            arena,
            obstacles_sql,
            &.{ try std.fmt.allocPrint(arena, "{d}", .{oid}), try sdk.json.stringify(arena, key) },
            "looking for whether a unique index can be created",
        );
        if (found.rows.len == 0) return null;
        const kind = std.meta.stringToEnum(sdk.errors.Kind, found.rows[0][0].?).?;
        return .{ .kind = kind, .text = found.rows[0][1].? };
    }

    fn create(arena: Allocator, session: *Session, target: *const Target, key: []const []const u8, as_constraint: bool) !void {
        const names = try std.mem.join(arena, ", ", key);
        const quoted = try postgres.ident.list(arena, key);
        const doing = try std.fmt.allocPrint(arena, "creating a unique index on ({s}) of {s}", .{ names, target.label });
        const sql = if (as_constraint)
            try std.fmt.allocPrint(arena, "ALTER TABLE {s} ADD UNIQUE ({s})", .{ target.quoted, quoted })
        else
            // Readers go on meanwhile, which a constraint would not let them.
            try std.fmt.allocPrint(arena, "CREATE UNIQUE INDEX ON {s} ({s})", .{ target.quoted, quoted });
        // The lock that it takes, so that whoever waits is told what for.
        _ = try session.lockTable(arena, .{
            .table = target.quoted,
            .label = target.label,
            .mode = if (as_constraint) "ACCESS EXCLUSIVE" else "SHARE",
            .doing = doing,
        });
        try session.exec("SAVEPOINT rapidbyte_index", doing);
        session.connection.exec(sql) catch |err| {
            const failed = session.failed(err, doing);
            if (err != error.Server) return failed;
            const said = session.connection.last_error.?;
            if (std.mem.eql(u8, said.sqlstate, "23505")) return repeated(arena, session, target, key, doing);
            return unsuitable(&said, failed);
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_index", doing);
        sdk.host.log(.info, "created a unique index on ({s}) of {s}", .{ names, target.label });
    }

    /// Whether a table that was made in this transaction can have the key at all, which it gets when it is filled.
    pub fn rehearse(arena: Allocator, session: *Session, target: *const Target, key: []const []const u8) !void {
        const doing = try std.fmt.allocPrint(arena, "creating the primary key of {s}", .{target.label});
        try session.exec("SAVEPOINT rapidbyte_key", doing);
        const sql = try std.fmt.allocPrint(
            arena,
            "ALTER TABLE {s} ADD PRIMARY KEY ({s})",
            .{ target.quoted, try postgres.ident.list(arena, key) },
        );
        session.connection.exec(sql) catch |err| {
            const failed = session.failed(err, doing);
            return if (err == error.Server) unsuitable(&session.connection.last_error.?, failed) else failed;
        };
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_key", doing);
    }

    /// Types without an order, values that are too long for an index, …: what the server said, as an error of the key.
    fn unsuitable(said: *const postgres.ServerError, failed: postgres.failure.Error) postgres.failure.Error {
        if (std.mem.eql(u8, said.sqlstate, "42501")) return failed;
        if (!said.hasClass("0A") and !said.hasClass("42") and !said.hasClass("54")) return failed;
        var told = sdk.errors.current().?;
        told.kind = .schema;
        told.hint = said.hint orelse "name another `primary_key`";
        return sdk.errors.failWith(told);
    }

    fn repeated(arena: Allocator, session: *Session, target: *const Target, key: []const []const u8, doing: []const u8) !void {
        const quoted = try postgres.ident.list(arena, key);
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_index", doing);
        const counted = try session.query(arena, try std.fmt.allocPrint(
            arena,
            "SELECT count(*) FROM (SELECT FROM {s} WHERE num_nulls({s}) = 0 GROUP BY {s} HAVING count(*) > 1) AS repeated",
            .{ target.quoted, quoted, quoted },
        ), &.{}, doing);
        return sdk.errors.failHinted(
            .data,
            "remove the repetitions, or name another `primary_key`",
            "an upsert into {s} needs a unique index on ({s}), and none can be created: {s} values of the key are there more than once",
            .{ target.label, try std.mem.join(arena, ", ", key), counted.scalar() orelse "some" },
        );
    }

    /// `old."id" OPERATOR(pg_catalog.=) new."id" AND …`, usable by the index.
    pub fn sameKey(self: *const Arbiter, arena: Allocator) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        for (self.columns, 0..) |column, i| {
            if (i > 0) try out.appendSlice(arena, " AND ");
            try out.print(arena, "old.{s} {s} new.{s} {s}", .{ column.quoted, column.operator, column.quoted, column.collate });
        }
        return out.items;
    }

    /// What ON CONFLICT is about: `("id")` or `ON CONSTRAINT "users_pkey"`.
    pub fn conflictTarget(self: *const Arbiter, arena: Allocator) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        if (self.constraint) |name| {
            try out.print(arena, "ON CONSTRAINT {s}", .{name});
            return out.items;
        }
        for (self.columns, 0..) |column, i|
            try out.print(arena, "{s}{s}", .{ if (i == 0) "(" else ", ", column.quoted });
        try out.appendSlice(arena, ")");
        return out.items;
    }
};

fn isTrue(text: ?[]const u8) bool {
    return std.mem.eql(u8, text orelse "", "t");
}
