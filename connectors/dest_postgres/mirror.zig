//! The net of changes into a table that has the same rows as its source, found by their key.
//!
//!     gone                    keys ─ COPY ─▶ temporary table ─ DELETE … USING
//!     another key, not whole  rows ─ COPY ─▶ temporary table ─ UPDATE of the key in its place; a copy, where it is kept
//!     not whole               rows ─ COPY ─▶ temporary table ─ UPDATE of what is told
//!     whole, there before     rows ─ COPY ─▶ temporary table ─ MERGE
//!     whole, new              rows ─ COPY ─▶ the table; where they are few, or one is there all the same, as those above
//!
//! In this order: what goes makes room in unique indexes for what comes.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const cells = @import("cells.zig");
const changes_module = @import("changes.zig");
const columns_module = @import("columns.zig");
const merge = @import("merge.zig");
const net_module = @import("net.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Basin = @import("pouring.zig").Basin;
const Changes = changes_module.Changes;
const Landing = @import("landing.zig").Landing;
const Load = @import("load.zig").Load;
const Net = net_module.Net;
const Pouring = @import("pouring.zig").Pouring;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const ArrayView = sdk.arrow.ArrayView;
const Column = columns_module.Column;

const Whats = std.EnumSet(net_module.What);

/// So few new rows go with those that are there before: it takes fewer round trips.
const merged_inserts_max = 256;

pub const Mirror = struct {
    /// For what lives as long as the landing.
    arena: Allocator,
    session: *Session,
    landing: *Landing,
    net: Net,
    arbiter: Arbiter,
    /// Of the landing's columns.
    key: []const usize,
    rows: Basin,
    keys: Basin,
    inserts: Load,
    delete_sql: []const u8,
    same_key: []const u8,
    /// Null until the table is as rows go into it.
    merge: ?merge.Merge = null,
    relation: *const Relation,
    /// One row that is pieced together.
    piece: []ArrayView,
    number: usize,

    /// In an open transaction. `told` says where a column of the landing is among the table's own.
    pub fn init(
        arena: Allocator,
        landing: *Landing,
        changes: *const Changes,
        arbiter: Arbiter,
        told: []const ?usize,
        deletes: net_module.Deletes,
        keeps: bool,
        full: bool,
        number: usize,
    ) !Mirror {
        const session = landing.session;
        const target = landing.target;
        const columns = landing.columns;
        const key = try arena.alloc(usize, landing.key.len);
        for (key, landing.key) |*place, name| place.* = for (columns, 0..) |column, i| {
            if (std.mem.eql(u8, column.name, name)) break i;
        } else return sdk.fail(.schema, "the key's column {s} is not in {s}", .{ name, target.label });
        // Keys are compared as the table's index does it.
        const collated = try arena.dupe(Column, columns);
        for (key, arbiter.columns) |place, found|
            collated[place].type = try std.fmt.allocPrint(arena, "{s}\n{s}", .{ collated[place].type, found.collate });
        const key_columns = try arena.alloc(Column, key.len);
        for (key_columns, key) |*column, place| column.* = collated[place];
        const rows_table = try std.fmt.allocPrint(arena, "pg_temp._rapidbyte_rows_{d}", .{number});
        const keys_table = try std.fmt.allocPrint(arena, "pg_temp._rapidbyte_keys_{d}", .{number});
        const same_key = try arbiter.sameKey(arena);
        return .{
            .arena = arena,
            .session = session,
            .landing = landing,
            .net = .{
                .gpa = session.gpa,
                .arena = .init(session.gpa),
                .changes = changes,
                .key = key,
                .told = told,
                .deletes = deletes,
                .keeps = keeps,
                .full = full,
            },
            .arbiter = arbiter,
            .key = key,
            .rows = try .init(arena, session, rows_table, collated, target.doing),
            .keys = try .init(arena, session, keys_table, key_columns, target.doing),
            .inserts = try .init(arena, session, .{
                .table = target.quoted,
                .columns = columns,
                .way = .of(columns, false),
                .doing = target.doing,
            }),
            .same_key = same_key,
            .delete_sql = try std.fmt.allocPrint(
                arena,
                "DELETE FROM {s} AS old USING {s} AS new WHERE {s}",
                .{ target.quoted, keys_table, same_key },
            ),
            .relation = &landing.existing.?,
            .piece = try arena.alloc(ArrayView, columns.len),
            .number = number,
        };
    }

    pub fn deinit(self: *Mirror) void {
        self.net.deinit();
    }

    /// Outside of savepoints.
    pub fn create(self: *Mirror) !void {
        try self.rows.create();
        try self.keys.create();
    }

    pub fn drop(self: *Mirror, arena: Allocator) !void {
        try self.rows.drop(arena);
        try self.keys.drop(arena);
    }

    /// The table is as the landing wants it.
    pub fn know(self: *Mirror, relation: *const Relation) !void {
        const schema_rows: merge.Rows = .{
            .table = self.rows.table,
            .columns = self.landing.columns,
            .key = self.key,
            .order = merge.place,
        };
        self.relation = relation;
        self.merge = try .init(self.arena, self.landing, schema_rows, &self.arbiter, relation);
    }

    pub fn build(self: *Mirror, span: changes_module.Span, filter: changes_module.Filter) !void {
        self.net.build(span, filter) catch |err| switch (err) {
            error.NullKey => {
                const name = self.landing.columns[self.net.offender.column].name;
                self.session.culprit = .{ .category = .null_key, .column = name };
                return sdk.fail(.data, "{s}: column {s} of a change is NULL, and it is part of the key", .{
                    self.landing.target.doing, name,
                });
            },
            else => |other| return other,
        };
    }

    pub fn sameRow(self: *const Mirror, a: changes_module.Ref, b: changes_module.Ref) bool {
        return self.net.sameRow(a, b);
    }

    pub fn remove(self: *Mirror, arena: Allocator) !void {
        const rows = try self.net.inOrder(arena, .initOne(.delete));
        if (rows.len == 0) return;
        var pouring = try self.keys.fill(arena, self.net.changes, .keyed);
        for (rows) |row| try pouring.add(self.net.rows.items[row.number].key);
        try self.keys.finish(&pouring);
        try self.session.exec(self.delete_sql, self.landing.target.doing);
    }

    pub fn write(self: *Mirror, arena: Allocator) !void {
        var counts: std.enums.EnumArray(net_module.What, usize) = .initFill(0);
        for (self.net.rows.items, 0..) |*row, at| counts.getPtr(row.what(at)).* += 1;
        if (counts.get(.move) > 0) try self.update(arena, .move);
        if (counts.get(.patch) > 0) try self.update(arena, .patch);
        const few = counts.get(.insert) <= merged_inserts_max;
        if (counts.get(.upsert) > 0 or few and counts.get(.insert) > 0)
            try self.mergeRows(arena, if (few) .initMany(&.{ .upsert, .insert }) else .initOne(.upsert));
        if (!few) try self.insert(arena);
    }

    fn insert(self: *Mirror, arena: Allocator) !void {
        const doing = self.landing.target.doing;
        try self.session.exec("SAVEPOINT rapidbyte_insert", doing);
        self.insertDirectly() catch |failed| {
            if (failed != error.Failed) return failed;
            const said = self.session.connection.last_error orelse return failed;
            if (!std.mem.eql(u8, said.sqlstate, "23505")) return failed;
            sdk.errors.clear();
            try self.session.exec("ROLLBACK TO SAVEPOINT rapidbyte_insert", doing);
            self.inserts.forgetStaging();
            try self.mergeRows(arena, .initOne(.insert));
        };
        try self.session.exec("RELEASE SAVEPOINT rapidbyte_insert", doing);
    }

    fn insertDirectly(self: *Mirror) !void {
        var pouring: Pouring = .{ .load = &self.inserts, .changes = self.net.changes, .columns = .landed };
        for (self.net.rows.items, 0..) |*row, at| if (row.what(at) == .insert) try self.pour(&pouring, row);
        try pouring.finish();
    }

    fn mergeRows(self: *Mirror, arena: Allocator, what: Whats) !void {
        var pouring = try self.rows.fill(arena, self.net.changes, .landed);
        for (try self.net.inOrder(arena, what)) |row| try self.pour(&pouring, &self.net.rows.items[row.number]);
        try self.rows.finish(&pouring);
        try self.merge.?.write(arena, self.rows.table);
    }

    fn pour(self: *Mirror, pouring: *Pouring, row: *const net_module.Row) !void {
        switch (row.image) {
            .row => |ref| try pouring.add(ref),
            .pieced => try pouring.addPieced(self.pieceOf(row)),
            .gone, .untouched, .part => unreachable,
        }
    }

    /// The row's values, where they lie; NULL where one is not known.
    fn pieceOf(self: *Mirror, row: *const net_module.Row) []ArrayView {
        const changes = self.net.changes;
        for (self.piece, 0..) |*view, column| {
            const ref = if (std.mem.findScalar(usize, self.key, column) != null) row.key else self.net.cellOf(row.image, column);
            view.* = if (ref.isNone())
                cells.nothing(&changes.at(row.key).landed[column])
            else
                cells.one(&changes.at(ref).landed[column], ref.row);
        }
        return self.piece;
    }

    /// Rows of which the table has a part, all that tell the same columns at once.
    fn update(self: *Mirror, arena: Allocator, what: net_module.What) !void {
        var groups: std.StringArrayHashMapUnmanaged(std.ArrayList(u32)) = .empty;
        const told_now = try arena.alloc(u8, self.piece.len);
        for (self.net.rows.items, 0..) |*row, at| if (row.what(at) == what) {
            for (told_now, 0..) |*one, column| one.* = @intFromBool(!self.net.cellOf(row.image, column).isNone());
            const group = try groups.getOrPut(arena, told_now);
            if (!group.found_existing) {
                group.key_ptr.* = try arena.dupe(u8, told_now);
                group.value_ptr.* = .empty;
            }
            try group.value_ptr.append(arena, @intCast(at));
        };
        for (groups.keys(), groups.values()) |told, rows| try if (what == .patch)
            self.patch(arena, told, rows.items)
        else
            self.move(arena, told, rows.items);
    }

    fn patch(self: *Mirror, arena: Allocator, told: []const u8, rows: []const u32) !void {
        const sets = try self.assignments(arena, told, false);
        if (sets.len == 0) return;
        var pouring = try self.rows.fill(arena, self.net.changes, .landed);
        for (rows) |at| try pouring.addPieced(self.pieceOf(&self.net.rows.items[at]));
        try self.rows.finish(&pouring);
        try self.updateFrom(arena, self.rows.table, sets, self.same_key, rows.len);
    }

    /// The old key beside the new row.
    fn move(self: *Mirror, arena: Allocator, told: []const u8, rows: []const u32) !void {
        const columns = self.rows.load.options.columns;
        const all = try arena.alloc(Column, columns.len + self.key.len);
        @memcpy(all[0..columns.len], columns);
        const same = try arena.alloc(Arbiter.Column, self.key.len);
        for (all[columns.len..], same, self.key, self.arbiter.columns, 0..) |*column, *compared, place, found, i| {
            column.* = columns[place];
            column.quoted = try self.freeName(arena, i);
            compared.* = found;
        }
        const table = try std.fmt.allocPrint(arena, "pg_temp._rapidbyte_moves_{d}", .{self.number});
        var basin: Basin = try .init(arena, self.session, table, all, self.landing.target.doing);
        // The user's types may have names of the system's.
        try self.session.seeCatalog();
        try basin.create();
        try self.session.seeAsUser();
        errdefer basin.load.abandon();
        var pouring = try basin.fill(arena, self.net.changes, .landed);
        const views = try arena.alloc(ArrayView, all.len);
        for (rows) |at| {
            const row = &self.net.rows.items[at];
            @memcpy(views[0..columns.len], self.pieceOf(row));
            const origin = self.net.rows.items[row.image.pieced.origin].key;
            for (views[columns.len..], self.key) |*view, place|
                view.* = cells.one(&self.net.changes.at(origin).landed[place], origin.row);
            try pouring.addPieced(views);
        }
        try basin.finish(&pouring);
        var condition: std.ArrayList(u8) = .empty;
        for (same, all[columns.len..], 0..) |compared, column, i| try condition.print(
            arena,
            "{s}old.{s} {s} new.{s} {s}",
            .{ if (i > 0) " AND " else "", compared.quoted, compared.operator, column.quoted, compared.collate },
        );
        if (self.net.deletes == .soft)
            try self.merge.?.write(arena, try self.completed(arena, told, table, condition.items))
        else
            try self.updateFrom(arena, table, try self.assignments(arena, told, true), condition.items, rows.len);
        try basin.drop(arena);
    }

    /// The rows with what the old ones have of them, as SQL.
    fn completed(self: *const Mirror, arena: Allocator, told: []const u8, table: []const u8, condition: []const u8) ![]const u8 {
        var values: std.ArrayList(u8) = .empty;
        for (self.landing.columns, told, 0..) |column, one, i| try values.print(arena, "{s}{s}.{s}", .{
            if (i > 0) ", " else "", if (one == 1) "new" else "old", column.quoted,
        });
        return std.fmt.allocPrint(arena, "(SELECT {s} FROM {s} AS new JOIN {s} AS old ON {s})", .{
            values.items, table, self.landing.target.quoted, condition,
        });
    }

    /// A column's name that the table does not have, as SQL.
    fn freeName(self: *const Mirror, arena: Allocator, i: usize) ![]const u8 {
        var name = try std.fmt.allocPrint(arena, "_rapidbyte_old_{d}", .{i});
        while (for (self.landing.columns) |column| {
            if (std.mem.eql(u8, column.name, name)) break true;
        } else false) name = try std.fmt.allocPrint(arena, "_{s}", .{name});
        return postgres.ident.quote(arena, name);
    }

    fn assignments(self: *const Mirror, arena: Allocator, told: []const u8, with_key: bool) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        for (self.landing.columns, told, 0..) |column, one, i| {
            if (one == 0) continue;
            if (std.mem.findScalar(usize, self.key, i) != null) {
                if (!with_key) continue;
            } else if (self.relation.column(column.name)) |found| if (found.always_identity) continue;
            try out.print(arena, "{s}{s} = new.{s}", .{ if (out.items.len > 0) ", " else "", column.quoted, column.quoted });
        }
        const cleared: []const []const u8 = if (self.landing.evolution) |evolution| evolution.cleared else &.{};
        for (cleared) |quoted| try out.print(arena, "{s}{s} = DEFAULT", .{ if (out.items.len > 0) ", " else "", quoted });
        return out.items;
    }

    fn updateFrom(
        self: *Mirror,
        arena: Allocator,
        from: []const u8,
        sets: []const u8,
        condition: []const u8,
        expected: usize,
    ) !void {
        const target = self.landing.target;
        const done = try self.session.query(arena, try std.fmt.allocPrint(
            arena,
            "UPDATE {s} AS old SET {s} FROM {s} AS new WHERE {s}",
            .{ target.quoted, sets, from, condition },
        ), &.{}, target.doing);
        if (done.affected() >= expected) return;
        // Passed over, the row would be missing for good: this one does not tell the values that it keeps.
        self.session.culprit = .{ .category = .other };
        return sdk.fail(
            .data,
            "{s}: {d} of the updates find no row to change, and do not tell all of it: somebody has deleted it here, or it " ++
                "was set aside before; --full-refresh loads the stream anew",
            .{ target.doing, expected - done.affected() },
        );
    }

    /// After an error: nothing is being copied any more.
    pub fn abandon(self: *Mirror) void {
        for ([_]*Load{ &self.rows.load, &self.keys.load, &self.inserts }) |load| load.abandon();
    }

    /// After ROLLBACK TO SAVEPOINT.
    pub fn undone(self: *Mirror) void {
        for ([_]*Load{ &self.rows.load, &self.keys.load, &self.inserts }) |load| load.forgetStaging();
    }

    /// After COMMIT.
    pub fn committed(self: *Mirror) void {
        self.rows.committed();
        self.keys.committed();
        self.inserts.forgetStaging();
    }

    pub fn bytes(self: *const Mirror) u64 {
        return self.rows.load.bytes + self.keys.load.bytes + self.inserts.bytes;
    }
};
