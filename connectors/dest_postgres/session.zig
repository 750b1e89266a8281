//! One connection to the destination, for one stream or for a check.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const Connection = postgres.Connection;
const Culprit = @import("refusal.zig").Culprit;
const json = sdk.json;

/// How long a run waits for another one of the same stream to end: the server needs a moment to see that a killed
/// run's connection is gone. Whoever waits longer than the first moment is told what for.
const first_patience = "1s";
const further_patience = "4s";

/// How long verbs that only look wait for a lock.
const look_patience = "5s";

/// Transactions read what is committed when each statement starts: a replacing write must see what the locks that it
/// waited for protected.
const begin_sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// Where the rows at fault are set aside: a constraint that waits for COMMIT could not say which they are.
const at_once_sql = "; SET CONSTRAINTS ALL IMMEDIATE";

/// Where rows come in another order than the one in which they were written. They are few beside their table and come in
/// the order of their keys: each is looked up by the index, whatever the planner knows about it.
const late_sql = "; SET CONSTRAINTS ALL DEFERRED; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

pub const Session = struct {
    /// Everything below lives here.
    arena: std.heap.ArenaAllocator,
    gpa: Allocator,
    connection: *Connection,
    pipeline: []const u8,
    /// Null for a check, and where several are written.
    stream: ?[]const u8,
    /// Those that are written together; empty otherwise.
    streams: []const []const u8 = &.{},
    run_id: ?[]const u8,
    /// The number of the shard of the stream's rows that comes here; null where all of them do.
    shard: ?u32,
    /// The config's schema: where tables go by default, and where the watermarks are.
    schema: []const u8,
    in_transaction: bool = false,
    /// When constraints are checked that can be deferred.
    checks: Checks = .as_declared,
    /// What is known of a failure on data that the server did not tell.
    culprit: ?Culprit = null,
    /// Whether tables for shards' rows were made here, and not published yet.
    staged: bool = false,

    pub const Checks = enum {
        as_declared,
        /// By the statement that writes a row.
        at_once,
        late,
    };

    const Argument = struct {
        config: json.Value,
        pipeline: []const u8,
        stream: ?[]const u8 = null,
        streams: ?[]const []const u8 = null,
        run_id: ?[]const u8 = null,
        shard: ?u32 = null,
    };

    pub fn open(gpa: Allocator, argument: json.Value) !*Session {
        const self = try gpa.create(Session);
        errdefer gpa.destroy(self);
        self.arena = .init(gpa);
        errdefer self.arena.deinit();
        const arena = self.arena.allocator();
        const parsed = try sdk.connector.parse(Argument, arena, argument);
        var config = try postgres.Config.fromJson(parsed.config);
        if (parsed.config.object.get("load_method")) |method| {
            if (method != .null and !(method == .string and std.mem.eql(u8, method.string, "copy")))
                return sdk.fail(.config, "load_method is copy", .{});
        }
        config.application_name = if (parsed.stream) |stream|
            if (parsed.shard) |shard|
                try std.fmt.allocPrint(arena, "rapidbyte/{s}/{s}/{d}", .{ parsed.pipeline, stream, shard })
            else
                try std.fmt.allocPrint(arena, "rapidbyte/{s}/{s}", .{ parsed.pipeline, stream })
        else
            try std.fmt.allocPrint(arena, "rapidbyte/{s}", .{parsed.pipeline});
        // The argument goes with its verb; what is kept of it lives in the session's arena.
        const pipeline = try arena.dupe(u8, parsed.pipeline);
        const stream = if (parsed.stream) |name| try arena.dupe(u8, name) else null;
        const run_id = if (parsed.run_id) |id| try arena.dupe(u8, id) else null;
        const schema = try arena.dupe(u8, config.schema);
        self.* = .{
            .arena = self.arena,
            .gpa = gpa,
            .connection = undefined,
            .pipeline = pipeline,
            .stream = stream,
            .streams = parsed.streams orelse &.{},
            .run_id = run_id,
            .shard = parsed.shard,
            .schema = schema,
        };
        self.connection = try Connection.open(gpa, config);
        errdefer self.connection.close();
        // The catalog's queries take a millisecond, and some look expensive enough to be compiled for a hundred.
        try self.exec("SET jit = off", "setting up the session");
        return self;
    }

    pub fn close(self: *Session) void {
        self.connection.close();
        self.arena.deinit();
        self.gpa.destroy(self);
    }

    /// Takes the lock of this pipeline and a stream, which the server holds as long as the connection lives: two runs
    /// of one stream at once would number their commits over each other.
    pub fn lockStream(self: *Session, arena: Allocator, stream: []const u8) !void {
        const doing = "taking the stream's lock";
        const name = try std.fmt.allocPrint(arena, "rapidbyte {s}/{s}", .{ self.pipeline, stream });
        if (!try self.tryLock(arena, name, first_patience, doing)) {
            sdk.host.log(.info, "waiting for another run of stream {s} of pipeline {s} to end", .{
                stream,
                self.pipeline,
            });
            if (!try self.tryLock(arena, name, further_patience, doing)) return sdk.errors.failHinted(
                .resource,
                "wait until the other run has ended, or end it: pg_stat_activity shows it by its application_name",
                "another run is writing stream {s} of pipeline {s} right now",
                .{ stream, self.pipeline },
            );
        }
        try self.exec("RESET lock_timeout", doing);
    }

    /// False when somebody else kept it for longer than `patience`.
    fn tryLock(self: *Session, arena: Allocator, name: []const u8, comptime patience: []const u8, doing: []const u8) !bool {
        try self.exec("SET lock_timeout = '" ++ patience ++ "'", doing);
        _ = self.connection.query(arena, "SELECT pg_advisory_lock(hashtextextended($1, 0))", &.{name}) catch |err| {
            if (self.lockTimedOut(err)) return false;
            return self.failed(err, doing);
        };
        return true;
    }

    /// For verbs that only look: a table that is being altered should not hold up who only wants to know.
    pub fn lookImpatiently(self: *Session) !void {
        try self.exec("SET lock_timeout = '" ++ look_patience ++ "'", "setting the lock timeout");
    }

    /// Whether `err` says that a lock did not come within `lock_timeout`.
    pub fn lockTimedOut(self: *const Session, err: Connection.Error) bool {
        return err == error.Server and std.mem.eql(u8, self.connection.last_error.?.sqlstate, "55P03");
    }

    pub const TableLock = struct {
        /// As SQL; `label` is its name for the log.
        table: []const u8,
        label: []const u8,
        /// As in LOCK TABLE.
        mode: []const u8,
        /// How long others may keep it, beyond the first second; "0": as long as they like.
        patience: []const u8 = "0",
        doing: []const u8,
    };

    /// Locks a table inside the open transaction. False when others kept it for too long; the transaction goes on.
    pub fn lockTable(self: *Session, arena: Allocator, lock: TableLock) !bool {
        if (try self.tryLockTable(arena, lock, first_patience)) return true;
        sdk.host.log(.info, "waiting for other sessions to let go of {s}", .{lock.label});
        return self.tryLockTable(arena, lock, lock.patience);
    }

    fn tryLockTable(self: *Session, arena: Allocator, lock: TableLock, patience: []const u8) !bool {
        const sql = try std.fmt.allocPrint(
            arena,
            "SAVEPOINT rapidbyte_lock; SET LOCAL lock_timeout = '{s}'; LOCK TABLE {s} IN {s} MODE; " ++
                "SET LOCAL lock_timeout TO DEFAULT; RELEASE SAVEPOINT rapidbyte_lock",
            .{ patience, lock.table, lock.mode },
        );
        self.connection.exec(sql) catch |err| {
            if (!self.lockTimedOut(err)) return self.failed(err, lock.doing);
            try self.exec("ROLLBACK TO SAVEPOINT rapidbyte_lock; RELEASE SAVEPOINT rapidbyte_lock", lock.doing);
            return false;
        };
        return true;
    }

    /// `doing` says what failed when it fails: "writing raw.users".
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

    pub fn failed(self: *Session, err: Connection.Error, doing: []const u8) postgres.failure.Error {
        return postgres.failure.report(self.connection, err, doing);
    }

    pub fn begin(self: *Session) !void {
        std.debug.assert(!self.in_transaction);
        const sql = switch (self.checks) {
            .as_declared => begin_sql,
            .at_once => begin_sql ++ at_once_sql,
            .late => begin_sql ++ late_sql,
        };
        self.connection.exec(sql) catch |err| {
            // A standby does not know READ WRITE: "feature not supported".
            if (err == error.Server and std.mem.eql(u8, self.connection.last_error.?.sqlstate, "0A000"))
                return sdk.errors.failHinted(
                    .permission,
                    "connect to the primary server",
                    "the server is a standby: nothing can be written",
                    .{},
                );
            return self.failed(err, "starting a transaction");
        };
        self.in_transaction = true;
    }

    pub fn commit(self: *Session, arena: Allocator) !void {
        std.debug.assert(self.in_transaction);
        self.in_transaction = false;
        const done = try self.query(arena, "COMMIT", &.{}, "committing");
        // COMMIT of a failed transaction is a ROLLBACK that succeeds.
        if (!std.mem.eql(u8, done.command_tag, "COMMIT"))
            return sdk.fail(.internal, "the server answered COMMIT with {s}", .{done.command_tag});
    }

    /// Undoes the open transaction, if there is one. Never fails: a connection that cannot say so any more has the
    /// server roll back by itself.
    pub fn rollback(self: *Session) void {
        if (!self.in_transaction) return;
        self.in_transaction = false;
        if (self.connection.broken) return;
        self.connection.exec("ROLLBACK") catch {};
    }

    /// What the catalog's queries are written for. Ends with the transaction.
    pub fn seeCatalog(self: *Session) !void {
        try self.exec("SET LOCAL search_path = pg_catalog", "setting the search path");
    }

    /// Before rows are written: triggers and the functions in checks and indexes find what they find in any other
    /// session of this user.
    pub fn seeAsUser(self: *Session) !void {
        try self.exec("SET LOCAL search_path TO DEFAULT", "setting the search path");
    }
};
