//! Rows that take the place of those with the same key, or are added: one transaction from barrier to barrier.
//!
//!     batch     keys looked at (NULL? seen before?) ─ COPY ─▶ temporary table, which numbers the rows as they come
//!     complete  of several rows with one key all but the last go, unless they are known to be all different;
//!               then one MERGE into the target: merge.zig
//!
//! A table that is not there yet is filled first and gets its key afterwards.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const distinct = @import("distinct.zig");
const merge = @import("merge.zig");
const ranges = @import("ranges.zig");
const rewrite = @import("rewrite.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Distinct = distinct.Distinct;
const Guard = @import("guard.zig").Guard;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;
const arrow = sdk.arrow;

const staging_name = "pg_temp._rapidbyte_upsert";

const table_columns_max = 1600;

pub const Upsert = struct {
    /// For what lives as long as the verb.
    arena: Allocator,
    session: *Session,
    target: *const Target,
    landing: *Landing,
    load: Load,
    key: []const []const u8,
    distinct: Distinct,
    rows: merge.Rows,
    created: bool,
    /// Null until the target is there as rows go into it: made here and given its key, or altered.
    merge: ?merge.Merge,
    /// Rows since the last commit.
    pending: u64 = 0,

    /// In an open transaction; it may be another one afterwards.
    pub fn init(arena: Allocator, landing: *Landing) !Upsert {
        const session = landing.session;
        const target = landing.target;
        const key = landing.key;
        const schema = &landing.schema;
        const columns = landing.columns;
        if (columns.len >= table_columns_max) return sdk.errors.failHinted(
            .unsupported,
            "leave a column out, or use another write mode",
            "an upsert into {s} takes a temporary table with one column more than the stream's {d}, and tables have at most {d}",
            .{ target.label, columns.len, table_columns_max },
        );
        const arbiter: ?Arbiter = if (landing.existing) |*found|
            try Arbiter.require(arena, session, target, found.oid, key, true)
        else
            null;
        try landing.rehearse(arena);
        if (landing.existing == null) {
            try target.create(arena, session, columns);
            try Arbiter.rehearse(arena, session, target, key);
        }

        const ordinal = try columns_module.ordinalName(arena, columns);
        const rows: merge.Rows = try .init(arena, schema, staging_name, columns, key, ordinal);
        try createStaging(arena, session, &rows, arbiter);
        return .{
            .arena = arena,
            .session = session,
            .target = target,
            .landing = landing,
            .key = key,
            .distinct = .{
                .gpa = session.gpa,
                .columns = if (areExact(schema, columns, rows.key, arbiter)) rows.key else &.{},
            },
            .rows = rows,
            .created = landing.existing == null,
            .merge = if (landing.existing == null or landing.changesTable())
                null
            else
                try .init(arena, landing, rows, &arbiter.?, &landing.existing.?),
            .load = try .init(arena, session, .{
                .table = staging_name,
                .columns = columns,
                .ordinal = ordinal,
                .way = .of(columns, true),
                .doing = target.doing,
            }),
        };
    }

    pub fn deinit(self: *Upsert) void {
        self.distinct.deinit();
    }

    /// `first_row` is the stream's number of the batch's first row, for errors.
    pub fn add(self: *Upsert, batch: *const arrow.Batch, first_row: u64) !void {
        try self.rows.refuseNullKeys(self.session, batch, 0, batch.rows, first_row, self.target.doing);
        self.distinct.add(batch);
        try self.load.add(batch, first_row);
        self.pending += batch.rows;
    }

    /// `add`, but for rows that fail on their data.
    pub fn sift(self: *Upsert, guard: *Guard, batch: *const arrow.Batch, first_row: u64) !void {
        // Rows that are left out only make it less sure of itself.
        self.distinct.add(batch);
        try ranges.sift(guard, self.landing, &self.load, &self.rows, batch, first_row);
        self.pending += batch.rows;
    }

    /// Before COMMIT. `arena` lives until then.
    pub fn complete(self: *Upsert, arena: Allocator) !void {
        try self.load.finish();
        const started = sdk.host.now();
        if (self.pending > 0) {
            try merge.prepare(arena, self.session);
            if (self.distinct.verdict == .maybe_not)
                try self.rows.removeSuperseded(arena, self.session, null, self.target.doing);
        }
        if (self.merge == null and self.landing.existing == null) {
            try self.fill(arena);
        } else {
            const altered = self.merge == null;
            if (altered) {
                // Its changes may be told of at a later barrier, when `arena` is gone.
                try self.landing.evolve(self.arena);
                try self.knowTarget(arena);
            }
            if (self.pending > 0) {
                if (!altered) try self.awaitTarget(arena);
                try self.mergeRows(arena);
            }
        }
        sdk.host.metric("upsert_seconds", @as(f64, @floatFromInt(sdk.host.now() - started)) / 1e6);
    }

    fn mergeRows(self: *Upsert, arena: Allocator) !void {
        const step = &self.merge.?;
        const guard = self.landing.guard orelse return step.run(arena);
        try step.analyze(arena);
        try self.siftWaiting(guard, step);
    }

    fn siftWaiting(self: *Upsert, guard: *Guard, write: anytype) !void {
        var rows: ranges.TableRows(@TypeOf(write)) = .{
            .landing = self.landing,
            .write = write,
            .table = self.rows.table,
            .ordinal = self.rows.order,
            .doing = self.target.doing,
            .scratch = .init(self.session.gpa),
        };
        try rows.sift(guard);
    }

    /// After COMMIT, which emptied the temporary table.
    pub fn committed(self: *Upsert) void {
        self.load.forgetStaging();
        self.distinct.reset();
        self.pending = 0;
    }

    /// The stream goes on with other columns; the rows so far are in the target.
    pub fn dropStaging(self: *Upsert) !void {
        try self.session.exec("DROP TABLE " ++ staging_name, "dropping a temporary table");
    }

    /// The rows of a target that was made in this transaction, and then its key.
    fn fill(self: *Upsert, arena: Allocator) !void {
        if (self.landing.guard) |guard| {
            // A row whose key no index takes is found when it comes.
            try self.target.addPrimaryKey(arena, self.session, self.key);
            try self.siftWaiting(guard, rewrite.Insert{ .landing = self.landing, .doing = self.target.doing });
            return self.knowTarget(arena);
        }
        const names = try columns_module.nameList(arena, self.rows.columns);
        try self.session.exec(try std.fmt.allocPrint(
            arena,
            "INSERT INTO {s} ({s}) SELECT {s} FROM {s}",
            .{ self.target.quoted, names, names, staging_name },
        ), self.target.doing);
        try self.target.addPrimaryKey(arena, self.session, self.key);
        try self.knowTarget(arena);
    }

    /// Who waits for its lock may wait for somebody who alters it.
    fn awaitTarget(self: *Upsert, arena: Allocator) !void {
        try self.session.seeCatalog();
        try self.target.awaitLock(arena, self.session);
        try self.landing.requireUnchanged(arena);
        try self.session.seeAsUser();
    }

    /// As it is now; for the commits to come, which is longer than `arena` lives.
    fn knowTarget(self: *Upsert, arena: Allocator) !void {
        try self.session.seeCatalog();
        const now = try self.target.find(arena, self.session) orelse
            return sdk.fail(.internal, "{s} is not there after it was made", .{self.target.label});
        const found = try Arbiter.find(self.arena, self.session, now.oid, self.key);
        const arbiter = if (found.usable) |*usable| usable else return self.target.altered();
        self.merge = try .init(self.arena, self.landing, self.rows, arbiter, &now);
        try self.session.seeAsUser();
    }
};

/// Types and equality of the target's, and the number of each row's arrival. Empty after each commit.
fn createStaging(
    arena: Allocator,
    session: *Session,
    rows: *const merge.Rows,
    arbiter: ?Arbiter,
) !void {
    const collated = try arena.dupe(Column, rows.columns);
    if (arbiter) |found| for (rows.key, found.columns) |index, column| {
        collated[index].type = try std.fmt.allocPrint(arena, "{s}\n{s}", .{ collated[index].type, column.collate });
    };
    const sql = try std.fmt.allocPrint(
        arena,
        "CREATE TEMPORARY TABLE {s} ({s}, {s} " ++ columns_module.ordinal_definition ++ ") ON COMMIT DELETE ROWS",
        .{ staging_name, try columns_module.definitionList(arena, collated, .beside), rows.order },
    );
    try session.exec(sql, "creating a temporary table for the rows");
}

/// Whether keys are equal exactly where the stream's bytes are. A stream that does not name PostgreSQL's types may bring
/// text whose last blanks the server cuts off.
fn areExact(schema: *const arrow.Schema, columns: []const Column, key_columns: []const usize, arbiter: ?Arbiter) bool {
    for (key_columns, 0..) |index, i| {
        const column = &columns[index];
        if (column.sent_as != null or !columns_module.isExact(column.type)) return false;
        const field = &schema.fields[index];
        if (field.get(arrow.keys.pg_type) == null or !distinct.canTell(field.type)) return false;
        if (arbiter) |found| if (!found.columns[i].exact) return false;
    }
    return true;
}
