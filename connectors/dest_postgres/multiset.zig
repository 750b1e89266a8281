//! The net of changes into a table without a key, whose rows are found by all that they hold: how many of each there are
//! to be more, or fewer. Of equal rows one is as good as another.
//!
//!     fewer     rows and how many ─ COPY ─▶ temporary table ─ DELETE of so many of each
//!     more      rows ─ COPY ─▶ the table

const std = @import("std");
const sdk = @import("sdk");
const cells = @import("cells.zig");
const changes_module = @import("changes.zig");
const columns_module = @import("columns.zig");
const Basin = @import("pouring.zig").Basin;
const Changes = changes_module.Changes;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Pouring = @import("pouring.zig").Pouring;
const Ref = changes_module.Ref;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;

const Row = struct { hash: u64, ref: Ref, change: i64 };

pub const Multiset = struct {
    session: *Session,
    landing: *Landing,
    changes: *const Changes,
    rows: std.ArrayList(Row) = .empty,
    /// Rows by their hash; several may have one.
    known: std.AutoHashMapUnmanaged(u64, u32) = .empty,
    truncated: ?Ref = null,
    /// Whether the table keeps its rows when it is truncated.
    keeps: bool,
    goners: Basin,
    inserts: Load,
    delete_sql: []const u8,

    pub fn init(arena: Allocator, landing: *Landing, changes: *const Changes, keeps: bool, number: usize) !Multiset {
        const session = landing.session;
        const target = landing.target;
        const columns = landing.columns;
        const table = try std.fmt.allocPrint(arena, "pg_temp._rapidbyte_rows_{d}", .{number});
        // Some types have no equality, and all have a text.
        const names = try columns_module.prefixedList(arena, columns, "each");
        const text = "ROW({s})::pg_catalog.text COLLATE pg_catalog.\"C\" AS content";
        return .{
            .session = session,
            .landing = landing,
            .changes = changes,
            .keeps = keeps,
            .goners = try .init(arena, session, table, columns, target.doing),
            .inserts = try .init(arena, session, .{
                .table = target.quoted,
                .columns = columns,
                .way = .of(columns, false),
                .doing = target.doing,
            }),
            .delete_sql = try std.fmt.allocPrint(arena,
                \\WITH goners AS (
                \\    SELECT content, pg_catalog.row_number() OVER (PARTITION BY content) AS number
                \\    FROM (SELECT
            ++ " " ++ text ++ " FROM {s} AS each) AS texts\n" ++
                \\), candidates AS (
                \\    SELECT part, place, content, pg_catalog.row_number() OVER (PARTITION BY content) AS number
                \\    FROM (SELECT each.tableoid AS part, each.ctid AS place,
            ++ " " ++ text ++ " FROM {s} AS each) AS texts\n" ++
                \\    WHERE content IN (SELECT content FROM goners)
                \\)
                \\DELETE FROM {s} AS old USING candidates JOIN goners USING (content, number)
                \\WHERE old.tableoid = candidates.part AND old.ctid = candidates.place
            , .{ names, table, names, target.quoted, target.quoted }),
        };
    }

    pub fn deinit(self: *Multiset) void {
        self.rows.deinit(self.session.gpa);
        self.known.deinit(self.session.gpa);
    }

    /// Outside of savepoints.
    pub fn create(self: *Multiset) !void {
        try self.goners.create();
    }

    pub fn drop(self: *Multiset, arena: Allocator) !void {
        try self.goners.drop(arena);
    }

    pub fn build(self: *Multiset, span: changes_module.Span, filter: changes_module.Filter) !void {
        self.clear();
        self.truncated = null;
        var it = self.changes.within(span);
        while (it.next()) |ref| if (filter.passes(self, ref)) switch (self.changes.op(ref)) {
            .insert, .update => try self.count(ref, 1),
            .delete, .old => try self.count(ref, -1),
            .truncate => if (!self.keeps) {
                self.clear();
                self.truncated = ref;
            },
        };
    }

    fn clear(self: *Multiset) void {
        self.rows.clearRetainingCapacity();
        self.known.clearRetainingCapacity();
    }

    fn count(self: *Multiset, ref: Ref, change: i64) !void {
        const views = self.changes.at(ref).landed;
        var hash: u64 = 0;
        for (views) |*view| hash = cells.hash(view, ref.row, hash);
        while (true) : (hash +%= 1) {
            const found = try self.known.getOrPut(self.session.gpa, hash);
            if (!found.found_existing) {
                found.value_ptr.* = @intCast(self.rows.items.len);
                return self.rows.append(self.session.gpa, .{ .hash = hash, .ref = ref, .change = change });
            }
            const row = &self.rows.items[found.value_ptr.*];
            if (!self.sameRow(row.ref, ref)) continue;
            row.change += change;
            return;
        }
    }

    pub fn sameRow(self: *const Multiset, a: Ref, b: Ref) bool {
        for (self.changes.at(a).landed, self.changes.at(b).landed) |*one, *other|
            if (!cells.eql(one, a.row, other, b.row)) return false;
        return true;
    }

    pub fn remove(self: *Multiset, arena: Allocator) !void {
        var pouring: ?Pouring = null;
        for (self.rows.items) |row| if (row.change < 0) {
            if (pouring == null) pouring = try self.goners.fill(arena, self.changes, .landed);
            for (0..@intCast(-row.change)) |_| try pouring.?.add(row.ref);
        };
        if (pouring == null) return;
        try self.goners.finish(&pouring.?);
        const target = self.landing.target;
        // Here there is no index.
        try self.session.exec("SET LOCAL enable_hashjoin = on", target.doing);
        const done = try self.session.query(arena, self.delete_sql, &.{}, target.doing);
        try self.session.exec("SET LOCAL enable_hashjoin = off", target.doing);
        if (done.affected() >= pouring.?.count) return;
        // Passed over, the table would not be its source's any more: nothing else tells which row is meant.
        self.session.culprit = .{ .category = .other };
        return sdk.fail(
            .data,
            "{s}: {d} of the rows that were deleted or changed at the source are not there: somebody has changed or deleted " ++
                "them here, or they were set aside before; --full-refresh loads the stream anew",
            .{ target.doing, pouring.?.count - done.affected() },
        );
    }

    pub fn write(self: *Multiset, _: Allocator) !void {
        var pouring: Pouring = .{ .load = &self.inserts, .changes = self.changes, .columns = .landed };
        for (self.rows.items) |row| if (row.change > 0) for (0..@intCast(row.change)) |_| try pouring.add(row.ref);
        try pouring.finish();
    }

    pub fn abandon(self: *Multiset) void {
        self.goners.load.abandon();
        self.inserts.abandon();
    }

    /// After ROLLBACK TO SAVEPOINT.
    pub fn undone(self: *Multiset) void {
        self.goners.undone();
        self.inserts.forgetStaging();
    }

    /// After COMMIT.
    pub fn committed(self: *Multiset) void {
        self.goners.committed();
        self.inserts.forgetStaging();
    }

    pub fn bytes(self: *const Multiset) u64 {
        return self.goners.load.bytes + self.inserts.bytes;
    }
};
