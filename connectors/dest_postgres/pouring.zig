//! Waiting changes into a table, by COPY: rows that lie behind each other go together.

const std = @import("std");
const sdk = @import("sdk");
const changes_module = @import("changes.zig");
const columns_module = @import("columns.zig");
const Load = @import("load.zig").Load;
const Changes = changes_module.Changes;
const Ref = changes_module.Ref;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;

pub const Pouring = struct {
    load: *Load,
    changes: *const Changes,
    columns: changes_module.Columns,
    run: Ref = .none,
    end: u32 = 0,
    count: u64 = 0,

    pub fn add(self: *Pouring, ref: Ref) !void {
        self.count += 1;
        if (!self.run.isNone() and ref.batch == self.run.batch and ref.row == self.end) {
            self.end += 1;
            return;
        }
        try self.flush();
        self.run = ref;
        self.end = ref.row + 1;
    }

    /// A row that is not a change's own, as a column of one value each.
    pub fn addPieced(self: *Pouring, views: []sdk.arrow.ArrayView) !void {
        try self.flush();
        self.count += 1;
        try self.load.addRange(&.{ .rows = 1, .columns = views }, 0, 1, 0);
    }

    fn flush(self: *Pouring) !void {
        if (self.run.isNone()) return;
        const batch = self.changes.at(self.run).view(self.columns);
        const from = self.run.row;
        self.run = .none;
        try self.load.addRange(&batch, from, self.end, 0);
    }

    /// All of them are in the table.
    pub fn finish(self: *Pouring) !void {
        try self.flush();
        try self.load.finish();
        // Another table's rows may take the same way.
        try self.load.dropStaging();
    }
};

/// Rows above this many are dropped with their file; fewer are deleted, which needs no new one.
const deleted_rows_max = 4096;

/// A temporary table that is filled again and again.
pub const Basin = struct {
    session: *Session,
    /// As SQL.
    table: []const u8,
    create_sql: []const u8,
    load: Load,
    /// Rows that may be in it.
    rows: u64 = 0,

    pub fn init(arena: Allocator, session: *Session, table: []const u8, columns: []const Column, doing: []const u8) !Basin {
        return .{
            .session = session,
            .table = table,
            .create_sql = try std.fmt.allocPrint(
                arena,
                "CREATE TEMPORARY TABLE {s} ({s}) ON COMMIT DELETE ROWS",
                .{ table, try columns_module.definitionList(arena, columns, .beside) },
            ),
            .load = try .init(arena, session, .{
                .table = table,
                .columns = columns,
                .way = .of(columns, true),
                .doing = doing,
            }),
        };
    }

    pub fn create(self: *Basin) !void {
        try self.session.exec(self.create_sql, "creating a temporary table for changes");
    }

    pub fn drop(self: *Basin, arena: Allocator) !void {
        const sql = try std.fmt.allocPrint(arena, "DROP TABLE {s}", .{self.table});
        try self.session.exec(sql, "dropping a temporary table");
    }

    /// Empties it, for the rows that are to be poured.
    pub fn fill(self: *Basin, arena: Allocator, changes: *const Changes, columns: changes_module.Columns) !Pouring {
        if (self.rows > 0) {
            const verb = if (self.rows > deleted_rows_max) "TRUNCATE" else "DELETE FROM";
            try self.session.exec(
                try std.fmt.allocPrint(arena, "{s} {s}", .{ verb, self.table }),
                "emptying a temporary table",
            );
        }
        self.rows = 0;
        return .{ .load = &self.load, .changes = changes, .columns = columns };
    }

    pub fn finish(self: *Basin, pouring: *Pouring) !void {
        self.rows = @max(1, pouring.count);
        try pouring.finish();
    }

    /// After ROLLBACK TO SAVEPOINT.
    pub fn undone(self: *Basin) void {
        self.load.forgetStaging();
    }

    /// After COMMIT.
    pub fn committed(self: *Basin) void {
        self.load.forgetStaging();
        self.rows = 0;
    }
};
