//! One connection to the source, for one stream, for a check or for a slot; and how to make another.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const Connection = postgres.Connection;
const json = sdk.json;

/// One state of the database for everything that a read asks and copies.
const begin_sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How long `rb_check` and `rb_discover` wait for a lock; a read waits as long as it takes.
const look_patience = "5s";
/// How long a change of a publication waits for one.
const change_patience = "30s";

pub const Session = struct {
    gpa: Allocator,
    connection: *Connection,
    /// Kept for connections beside this one; its texts lie in `config_arena`.
    config: postgres.Config,
    config_arena: std.heap.ArenaAllocator,
    /// The config's schema: where streams that name none are looked for.
    schema: []const u8,
    pipeline: []const u8,
    /// The config's own names; null: it has none.
    replication_slot: ?[]const u8,
    publication: ?[]const u8,
    /// Holds what `rb_snapshot` made.
    snapshot: ?*Connection = null,
    /// What `rb_capture` reads from, until its end is confirmed.
    replication: ?postgres.Replication = null,
    in_transaction: bool = false,

    const Argument = struct {
        config: json.Value,
        pipeline: []const u8,
        stream: ?[]const u8 = null,
    };

    /// Keys of the config that no connection needs.
    const Names = struct {
        replication_slot: ?[]const u8 = null,
        publication: ?[]const u8 = null,
    };

    pub fn open(gpa: Allocator, arena: Allocator, argument: json.Value) !*Session {
        const parsed = try sdk.connector.parse(Argument, arena, argument);
        var config = try postgres.Config.fromJson(parsed.config);
        config.application_name = if (parsed.stream) |stream|
            try std.fmt.allocPrint(arena, "rapidbyte/{s}/{s}", .{ parsed.pipeline, stream })
        else
            try std.fmt.allocPrint(arena, "rapidbyte/{s}", .{parsed.pipeline});
        const self = try gpa.create(Session);
        errdefer gpa.destroy(self);
        var config_arena: std.heap.ArenaAllocator = .init(gpa);
        errdefer config_arena.deinit();
        config = try config.dupe(config_arena.allocator());
        const pipeline = try config_arena.allocator().dupe(u8, parsed.pipeline);
        const names = try sdk.connector.parse(Names, config_arena.allocator(), parsed.config);
        self.* = .{
            .gpa = gpa,
            .connection = try Connection.open(gpa, config),
            .config = config,
            .config_arena = config_arena,
            .schema = config.schema,
            .pipeline = pipeline,
            .replication_slot = names.replication_slot,
            .publication = names.publication,
        };
        return self;
    }

    /// The slot that a stream's changes are read from.
    pub fn slotOf(self: *const Session, arena: Allocator, stream: *const Stream) Allocator.Error![]const u8 {
        return stream.replication_slot orelse self.replication_slot orelse self.ownName(arena);
    }

    /// The publication that tells them. A stream with a slot of its own has one of the same name.
    pub fn publicationOf(self: *const Session, arena: Allocator, stream: *const Stream) Allocator.Error![]const u8 {
        return stream.publication orelse self.publication orelse stream.replication_slot orelse self.ownName(arena);
    }

    fn ownName(self: *const Session, arena: Allocator) Allocator.Error![]const u8 {
        return std.mem.concat(arena, u8, &.{ "rapidbyte_", self.pipeline });
    }

    /// A second connection of the same user, to the database's WAL sender. The caller closes it.
    pub fn openReplication(self: *const Session) !*Connection {
        var config = self.config;
        config.replication = true;
        return Connection.open(self.gpa, config);
    }

    /// Lets go of the slot.
    pub fn endReplication(self: *Session) void {
        const replication = self.replication orelse return;
        self.replication = null;
        replication.connection.close();
    }

    pub fn close(self: *Session) void {
        self.endReplication();
        if (self.snapshot) |holder| holder.close();
        self.connection.close();
        if (self.config.password) |password| std.crypto.secureZero(u8, @constCast(password));
        self.config_arena.deinit();
        self.gpa.destroy(self);
    }

    /// `doing` says what failed when it fails: "reading public.users".
    pub fn exec(self: *Session, sql: []const u8, doing: []const u8) !void {
        self.connection.exec(sql) catch |err| return self.failed(err, doing);
    }

    pub fn query(
        self: *Session,
        arena: Allocator,
        sql: []const u8,
        parameters: []const ?[]const u8,
        doing: []const u8,
    ) !postgres.Result {
        return self.connection.query(arena, sql, parameters) catch |err| self.failed(err, doing);
    }

    /// The rows of a query whose number of columns is known; a server that answers otherwise is none.
    pub fn rows(
        self: *Session,
        comptime columns: usize,
        arena: Allocator,
        sql: []const u8,
        parameters: []const ?[]const u8,
        doing: []const u8,
    ) ![]const Row(columns) {
        const result = try self.query(arena, sql, parameters, doing);
        if (result.columns.len != columns) return self.failed(self.connection.protocolError(
            "a query of {d} columns was answered with {d}",
            .{ columns, result.columns.len },
        ), doing);
        const typed = try arena.alloc(Row(columns), result.rows.len);
        for (typed, result.rows) |*row, values| row.* = .{ .values = values[0..columns].* };
        return typed;
    }

    pub fn failed(self: *Session, err: Connection.Error, doing: []const u8) postgres.failure.Error {
        return postgres.failure.report(self.connection, err, doing);
    }

    pub fn begin(self: *Session) !void {
        std.debug.assert(!self.in_transaction);
        try self.exec(begin_sql, "starting a transaction");
        self.in_transaction = true;
    }

    /// As `begin`, or on in the transaction that `rb_split` left open, where the catalog is to be asked again.
    pub fn beginOrGoOn(self: *Session) !void {
        if (!self.in_transaction) return self.begin();
        try self.exec("SET LOCAL search_path TO pg_catalog", "setting the search path");
    }

    /// `begin`, where something may have to be changed, without waiting for long for a table that somebody else changes.
    /// A standby server changes nothing, and says so when it is asked to.
    pub fn beginChange(self: *Session, is_standby: bool) !void {
        std.debug.assert(!self.in_transaction);
        try self.exec(if (is_standby)
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
        else
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "starting a transaction");
        self.in_transaction = true;
        errdefer self.rollback();
        try self.exec("SET LOCAL lock_timeout = '" ++ change_patience ++ "'", "setting the lock timeout");
    }

    /// `begin`, in a state of the database that another session holds.
    pub fn beginIn(self: *Session, arena: Allocator, snapshot: []const u8) !void {
        try self.begin();
        errdefer self.rollback();
        const literal = try postgres.ident.literal(arena, snapshot);
        const sql = try std.mem.concat(arena, u8, &.{ "SET TRANSACTION SNAPSHOT ", literal });
        self.connection.exec(sql) catch |err| {
            if (err != error.Server or self.connection.broken) return self.failed(err, "joining a snapshot");
            return sdk.fail(
                .transient_db,
                "the session that holds the snapshot of all parts is gone: {s}",
                .{self.connection.last_error.?.message},
            );
        };
    }

    /// The state that `stream` is to be read in: the snapshot that it names, or one of its own, on in the transaction that
    /// `rb_split` left open where there is one.
    pub fn beginAsked(self: *Session, arena: Allocator, stream: *const Stream) !void {
        const snapshot = stream.snapshot orelse return self.beginOrGoOn();
        if (self.in_transaction) return self.beginOrGoOn();
        return self.beginIn(arena, snapshot.id);
    }

    /// Before the user's own SQL runs: a filter, and the functions in views and policies, find what they find in any
    /// other session of this user. The catalog's queries come before it. Ends with the transaction.
    pub fn seeAsUser(self: *Session) !void {
        try self.exec("SET LOCAL search_path TO DEFAULT", "setting the search path");
    }

    /// For verbs that only look: somebody who asks what there is should not wait for a table that is being altered.
    pub fn lookImpatiently(self: *Session) !void {
        try self.exec("SET lock_timeout = '" ++ look_patience ++ "'", "setting the lock timeout");
    }

    pub fn commit(self: *Session) !void {
        std.debug.assert(self.in_transaction);
        self.in_transaction = false;
        try self.exec("COMMIT", "ending the transaction");
    }

    /// Ends the transaction after a failure. Never fails: a broken connection has no transaction any more.
    pub fn rollback(self: *Session) void {
        if (!self.in_transaction) return;
        self.in_transaction = false;
        if (self.connection.broken) return;
        self.connection.exec("ROLLBACK") catch {};
    }
};

/// One row of a query of the catalog. A value that cannot be what the query asked for reads as empty, 0 or false:
/// nothing that a server sends makes the guest trap.
pub fn Row(comptime columns: usize) type {
    return struct {
        values: [columns]?[]const u8,

        const Self = @This();

        pub fn optional(self: Self, comptime i: usize) ?[]const u8 {
            return self.values[i];
        }

        pub fn text(self: Self, comptime i: usize) []const u8 {
            return self.values[i] orelse "";
        }

        pub fn number(self: Self, comptime T: type, comptime i: usize) T {
            return std.fmt.parseInt(T, self.text(i), 10) catch 0;
        }

        pub fn optionalNumber(self: Self, comptime T: type, comptime i: usize) ?T {
            return std.fmt.parseInt(T, self.values[i] orelse return null, 10) catch null;
        }

        pub fn isTrue(self: Self, comptime i: usize) bool {
            return std.mem.eql(u8, self.text(i), "t");
        }

        /// A value of type "char".
        pub fn letter(self: Self, comptime i: usize) u8 {
            return if (self.text(i).len == 1) self.text(i)[0] else 0;
        }
    };
}
