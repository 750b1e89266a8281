//! What a guard sifts: rows of a batch that go by COPY, or rows of a temporary table that go by a statement.

const std = @import("std");
const sdk = @import("sdk");
const guard = @import("guard.zig");
const letters = @import("letters.zig");
const merge = @import("merge.zig");
const refusal = @import("refusal.zig");
const screening = @import("screening.zig");
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Refused = guard.Refused;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// Writes a batch but for the rows that fail on their data. `keyed` are an upsert's; `first_row` is the stream's number of
/// the batch's first row.
pub fn sift(
    by: *guard.Guard,
    landing: *const Landing,
    load: *Load,
    keyed: ?*const merge.Rows,
    batch: *const arrow.Batch,
    first_row: u64,
) !void {
    // Not within what may be rolled back.
    try load.prepare();
    var rows: BatchRows = .{
        .landing = landing,
        .load = load,
        .keyed = keyed,
        .batch = batch,
        .first_row = first_row,
        .doing = landing.target.doing,
    };
    try by.sift(&rows, 0, batch.rows);
}

/// Bytes of rows that are told at once: what is told of them is several times as large.
const told_bytes_at_once = 4 * 1024 * 1024;

/// Many enough that the round trips between two COPYs do not count, few enough that one bad row does not cost much more than
/// itself.
const batch_range_rows = 16 * 1024;

const BatchRows = struct {
    landing: *const Landing,
    load: *Load,
    keyed: ?*const merge.Rows,
    batch: *const arrow.Batch,
    first_row: u64,
    doing: []const u8,
    range_rows: u64 = batch_range_rows,

    pub fn attempt(self: *BatchRows, begin: u64, end: u64) !void {
        const from: usize = @intCast(begin);
        const to: usize = @intCast(end);
        if (self.keyed) |rows|
            try rows.refuseNullKeys(self.landing.session, self.batch, from, to, self.first_row, self.doing);
        errdefer self.load.abandon();
        try self.load.addRange(self.batch, from, to, self.first_row);
        try self.load.finish();
    }

    pub fn offender(self: *const BatchRows, begin: u64, end: u64) ?u64 {
        const session = self.landing.session;
        const row = if (session.culprit) |culprit|
            @as(u64, culprit.row orelse return null)
        else
            begin + (refusal.rowOfCopy((session.connection.last_error orelse return null).where, self.load.tableName()) orelse return null);
        return if (begin <= row and row < end) row else null;
    }

    pub fn few(self: *const BatchRows, _: Allocator, refused: []const Refused) !usize {
        var bytes: usize = 0;
        const names = letters.nameBytes(self.landing);
        for (refused, 0..) |each, i| {
            bytes += names + letters.bytesOf(self.batch, @intCast(each.row));
            if (bytes > told_bytes_at_once) return @max(1, i);
        }
        return refused.len;
    }

    pub fn tell(self: *const BatchRows, arena: Allocator, refused: []const Refused) ![]const letters.Letter {
        return letters.ofBatch(arena, self.landing, self.batch, refused);
    }
};

/// `Write` has `write(arena, from)`, which takes a table, or some of its rows, as SQL.
pub fn TableRows(comptime Write: type) type {
    return struct {
        const Self = @This();

        landing: *const Landing,
        write: Write,
        table: []const u8,
        /// Its column that numbers the rows, as SQL.
        ordinal: []const u8,
        doing: []const u8,
        /// Those are left to others.
        except: ?screening.Suspects = null,
        range_rows: u64 = table_range_rows,
        /// Of one attempt.
        scratch: std.heap.ArenaAllocator,
        first: u64 = 0,
        last: u64 = 0,
        /// Of the rows that are being told, those that are not yet.
        sizes: []const usize = &.{},

        /// Writes them but for those that fail on their data.
        pub fn sift(self: *Self, by: *guard.Guard) !void {
            defer self.scratch.deinit();
            const session = self.landing.session;
            const found = try session.query(self.scratch.allocator(), try std.fmt.allocPrint(
                self.scratch.allocator(),
                "SELECT pg_catalog.min({s}), pg_catalog.max({s}) FROM {s}",
                .{ self.ordinal, self.ordinal, self.table },
            ), &.{}, self.doing);
            self.first = std.fmt.parseInt(u64, found.rows[0][0] orelse return, 10) catch unreachable;
            self.last = std.fmt.parseInt(u64, found.rows[0][1].?, 10) catch unreachable;
            if (try by.fits(self, self.first, self.last + 1)) return;
            _ = self.scratch.reset(.retain_capacity);
            var arena: std.heap.ArenaAllocator = .init(session.gpa);
            defer arena.deinit();
            self.except = try screening.find(arena.allocator(), self.landing, self.table, self.ordinal, self.doing);
            const suspects = self.except orelse return self.siftRanges(by);
            if (!try by.fits(self, self.first, self.last + 1)) try self.siftRanges(by);
            try self.siftSuspects(by, suspects.count);
            try screening.forget(self.landing, self.doing);
        }

        fn siftRanges(self: *Self, by: *guard.Guard) !void {
            const session = self.landing.session;
            // Each range would be looked for in the whole table otherwise.
            try session.exec(try std.fmt.allocPrint(
                self.scratch.allocator(),
                "CREATE UNIQUE INDEX _rapidbyte_ordinals ON {s} ({s})",
                .{ self.table, self.ordinal },
            ), self.doing);
            try by.sift(self, self.first, self.last + 1);
            try session.exec("DROP INDEX pg_temp._rapidbyte_ordinals", self.doing);
        }

        fn siftSuspects(self: *Self, by: *guard.Guard, count: u64) !void {
            var rows: Self = .{
                .landing = self.landing,
                .write = self.write,
                .table = screening.table,
                .ordinal = self.ordinal,
                .doing = self.doing,
                .range_rows = 1,
                .scratch = .init(self.landing.session.gpa),
                .first = 1,
                .last = count,
            };
            defer rows.scratch.deinit();
            try by.sift(&rows, 1, count + 1);
        }

        pub fn attempt(self: *Self, begin: u64, end: u64) !void {
            _ = self.scratch.reset(.retain_capacity);
            const arena = self.scratch.allocator();
            const whole = begin == self.first and end == self.last + 1;
            if (whole and self.except == null) return self.write.write(arena, self.table);
            const range = if (whole)
                ""
            else if (end - begin == 1)
                // Which the planner knows to be one row.
                try std.fmt.allocPrint(arena, "each.{s} = {d} AND", .{ self.ordinal, begin })
            else
                try std.fmt.allocPrint(arena, "each.{s} >= {d} AND each.{s} < {d} AND", .{ self.ordinal, begin, self.ordinal, end });
            return self.write.write(arena, if (self.except) |*suspects|
                try suspects.others(arena, self.table, self.ordinal, range)
            else
                try std.fmt.allocPrint(arena, "(SELECT * FROM {s} AS each WHERE {s} true)", .{ self.table, range }));
        }

        pub fn offender(_: *const Self, _: u64, _: u64) ?u64 {
            return null;
        }

        pub fn few(self: *Self, arena: Allocator, refused: []const Refused) !usize {
            if (self.sizes.len != refused.len)
                self.sizes = try letters.sizesInTable(arena, self.landing, self.table, self.ordinal, refused);
            const names = letters.nameBytes(self.landing);
            var bytes: usize = 0;
            const count = for (self.sizes, 0..) |size, i| {
                bytes += names + size;
                if (bytes > told_bytes_at_once) break @max(1, i);
            } else refused.len;
            self.sizes = self.sizes[count..];
            return count;
        }

        pub fn tell(self: *const Self, arena: Allocator, refused: []const Refused) ![]const letters.Letter {
            return letters.ofTable(arena, self.landing, self.table, self.ordinal, refused);
        }
    };
}

/// A statement that looks each of its rows up in the target has more to do once than COPY.
const table_range_rows = 64 * 1024;
