//! What the changes of one table come to, row by row of the table: the last thing that is known of each key, whatever
//! happened to it in between.
//!
//!     insert 1 a · update 1 b · delete 2 · update 3→4 c      ⇒      1 b is new · 2 goes · 3 goes · 4 c is new
//!
//! A value that an update does not tell is the one that the row had before: in an earlier change, or in the table.

const std = @import("std");
const sdk = @import("sdk");
const cells = @import("cells.zig");
const changes_module = @import("changes.zig");
const Changes = changes_module.Changes;
const Ref = changes_module.Ref;
const Filter = changes_module.Filter;
const Span = changes_module.Span;

const Allocator = std.mem.Allocator;

/// What a row is after the changes.
pub const Image = union(enum) {
    /// There is none.
    gone,
    /// As the table has it.
    untouched,
    /// As one change told all of it.
    row: Ref,
    /// As one change told some of it, and the table has the rest.
    part: Ref,
    /// As several changes told it, and the table has the rest.
    pieced: *Pieced,
};

pub const Pieced = struct {
    /// Of each column, the change that told it; `Ref.none` where none did.
    cells: []Ref,
    /// The key under which the table has what was not told, of `Net.rows`.
    origin: u32,
    whole: bool,
};

pub const Row = struct {
    hash: u32,
    /// A change that tells the key.
    key: Ref,
    /// What the table has of this key before the changes.
    before: enum {
        nothing,
        present,
        /// A row whose key changes, and which is found under this one.
        moves,
    },
    image: Image,

    /// What is to be done about the row, which has this number.
    pub fn what(self: *const Row, at: usize) What {
        return switch (self.image) {
            .gone => if (self.before == .present) .delete else .nothing,
            .untouched => .nothing,
            .row => if (self.before == .nothing) .insert else .upsert,
            .part => .patch,
            .pieced => |pieced| if (pieced.whole)
                if (self.before == .nothing) .insert else .upsert
            else if (pieced.origin == at) .patch else .move,
        };
    }
};

pub const What = enum { insert, upsert, patch, move, delete, nothing };

/// How a table's deletes are applied.
pub const Deletes = enum {
    hard,
    /// A column says when: a delete changes that one alone. A key that changes is a row that goes, and one that comes.
    soft,
};

pub const Net = struct {
    gpa: Allocator,
    /// Of what is pieced together.
    arena: std.heap.ArenaAllocator,
    changes: *const Changes,
    /// The key's columns among the landing's.
    key: []const usize,
    /// Of each of the landing's columns, its number among the table's own; null for one that is always told.
    told: []const ?usize,
    deletes: Deletes,
    /// Whether the table keeps its rows when it is truncated.
    keeps: bool,
    /// Whether old rows are told whole.
    full: bool,
    rows: std.ArrayList(Row) = .empty,
    /// Numbers of rows, plus one; 0 is free. A power of two.
    slots: []u32 = &.{},
    /// The last TRUNCATE: nothing of the table is left before the changes behind it.
    truncated: ?Ref = null,
    /// The column and the change of the last `error.NullKey`.
    offender: struct { column: usize = 0, ref: Ref = .none } = .{},

    pub fn deinit(self: *Net) void {
        self.arena.deinit();
        self.rows.deinit(self.gpa);
        self.gpa.free(self.slots);
    }

    fn reset(self: *Net) void {
        self.rows.clearRetainingCapacity();
        @memset(self.slots, 0);
        self.truncated = null;
        _ = self.arena.reset(.retain_capacity);
    }

    /// Of all that waits within the span and passes the filter.
    pub fn build(self: *Net, span: Span, filter: Filter) !void {
        self.reset();
        var it = self.changes.within(span);
        var old: ?Ref = null;
        while (it.next()) |ref| {
            const op = self.changes.op(ref);
            if (op == .old) {
                old = ref;
                continue;
            }
            const passes = if (old) |before| filter.passesBoth(self, before, ref) else filter.passes(self, ref);
            if (passes) switch (op) {
                .old => unreachable,
                .insert => {
                    const at = try self.find(ref, .nothing);
                    try self.set(at, .{ .row = ref });
                },
                .update => if (old) |before| try self.move(before, ref) else {
                    const at = try self.find(ref, .present);
                    try self.set(at, try self.overlay(ref, at, at));
                },
                .delete => {
                    const at = try self.find(ref, .present);
                    if (!self.isAnother(at, ref)) try self.set(at, if (self.deletes == .soft) try self.overlay(ref, at, at) else .gone);
                },
                .truncate => if (!self.keeps) try self.truncate(ref),
            };
            old = null;
        }
    }

    /// An update that came with its old key.
    fn move(self: *Net, old: Ref, ref: Ref) !void {
        const from = try self.find(old, .present);
        const to = try self.find(ref, .nothing);
        const image = try self.overlay(ref, from, to);
        if (from == to) return self.set(to, image);
        // The row that the image is pieced with is not the old key's any more: whoever has it now says what becomes of it.
        if (!self.isAnother(from, old)) try self.set(from, if (self.deletes == .soft) try self.overlay(old, from, from) else .gone);
        try self.set(to, image);
    }

    /// Whether an old row is not the one that came under its key, but the table's own: until a deferred constraint is
    /// checked, two rows may have one key.
    fn isAnother(self: *Net, at: u32, old: Ref) bool {
        const row = &self.rows.items[at];
        if (!self.full or row.before != .nothing) return false;
        const now = self.changes.at(old).landed;
        for (self.told, now, 0..) |place, *view, column| {
            if (place == null) continue;
            if (row.image == .gone or row.image == .untouched) return false;
            const cell = self.cellOf(row.image, column);
            if (cell.isNone() or !cells.eql(&self.changes.at(cell).landed[column], cell.row, view, old.row)) break;
        } else return false;
        row.before = .present;
        return true;
    }

    fn truncate(self: *Net, ref: Ref) !void {
        self.truncated = ref;
        if (self.deletes == .hard) {
            self.rows.clearRetainingCapacity();
            @memset(self.slots, 0);
            return;
        }
        for (self.rows.items, 0..) |*row, i| if (row.image != .gone and !self.isMarked(row.image))
            try self.set(@intCast(i), try self.overlay(ref, @intCast(i), @intCast(i)));
    }

    /// Whether the row is there, and marked as deleted.
    fn isMarked(self: *const Net, image: Image) bool {
        const mark = for (self.told, 0..) |place, column| {
            if (place == null) break self.cellOf(image, column);
        } else return false;
        return !mark.isNone() and self.changes.op(mark).deletes();
    }

    /// The change that told the column's value; none where the table has it, or nobody.
    pub fn cellOf(self: *const Net, image: Image, column: usize) Ref {
        return switch (image) {
            .gone, .untouched => .none,
            .row => |ref| ref,
            .part => |ref| if (self.tells(ref, column)) ref else .none,
            .pieced => |pieced| pieced.cells[column],
        };
    }

    /// The row of the key that the change tells, which is as the table has it if nothing is known of it yet.
    fn find(self: *Net, ref: Ref, before: @FieldType(Row, "before")) !u32 {
        try self.makeRoom();
        const batch = self.changes.at(ref);
        var mixed: u64 = 0;
        for (self.key) |column| {
            if (batch.landed[column].isNull(ref.row)) {
                self.offender = .{ .column = column, .ref = ref };
                return error.NullKey;
            }
            mixed = cells.hash(&batch.landed[column], ref.row, mixed);
        }
        const hash: u32 = @truncate(mixed ^ mixed >> 32);
        const mask: u32 = @intCast(self.slots.len - 1);
        var at = hash & mask;
        while (self.slots[at] != 0) : (at = (at + 1) & mask) {
            const number = self.slots[at] - 1;
            if (self.rows.items[number].hash == hash and self.sameRow(self.rows.items[number].key, ref)) return number;
        }
        self.slots[at] = @intCast(self.rows.items.len + 1);
        self.rows.appendAssumeCapacity(.{
            .hash = hash,
            .key = ref,
            .before = before,
            .image = if (before == .nothing) .gone else .untouched,
        });
        return @intCast(self.rows.items.len - 1);
    }

    /// Whether two changes are of the same key. A truncation is of none.
    pub fn sameRow(self: *const Net, a: Ref, b: Ref) bool {
        const one = self.changes.at(a);
        const other = self.changes.at(b);
        for (self.key) |column| if (!cells.eql(&one.landed[column], a.row, &other.landed[column], b.row)) return false;
        return true;
    }

    const Ranked = struct {
        rank: u128,
        number: u32,

        fn isBefore(_: void, a: Ranked, b: Ranked) bool {
            return a.rank < b.rank;
        }
    };

    /// The numbers of the rows with which something of that is to be done, about in the order of their keys: the server
    /// finds them side by side.
    pub fn inOrder(self: *const Net, arena: Allocator, whats: std.EnumSet(What)) ![]const Ranked {
        var ranked: std.ArrayList(Ranked) = try .initCapacity(arena, self.rows.items.len);
        for (self.rows.items, 0..) |*row, at| {
            if (!whats.contains(row.what(at))) continue;
            const batch = self.changes.at(row.key);
            var rank: u128 = cells.rank(&batch.landed[self.key[0]], row.key.row);
            rank = rank << 64 | if (self.key.len > 1) cells.rank(&batch.landed[self.key[1]], row.key.row) else 0;
            ranked.appendAssumeCapacity(.{ .rank = rank, .number = @intCast(at) });
        }
        std.mem.sortUnstable(Ranked, ranked.items, {}, Ranked.isBefore);
        return ranked.items;
    }

    fn makeRoom(self: *Net) !void {
        try self.rows.ensureUnusedCapacity(self.gpa, 1);
        if ((self.rows.items.len + 1) * 4 <= self.slots.len * 3) return;
        const slots = try self.gpa.alloc(u32, @max(64, self.slots.len * 2));
        @memset(slots, 0);
        const mask: u32 = @intCast(slots.len - 1);
        for (self.rows.items, 1..) |row, number| {
            var at = row.hash & mask;
            while (slots[at] != 0) at = (at + 1) & mask;
            slots[at] = @intCast(number);
        }
        self.gpa.free(self.slots);
        self.slots = slots;
    }

    fn set(self: *Net, at: u32, image: Image) !void {
        const rows = self.rows.items;
        // A row that was to take its rest from elsewhere, and does not any more: it is to go from there.
        switch (rows[at].image) {
            .pieced => |pieced| if (!pieced.whole and pieced.origin != at and self.deletes == .hard) {
                rows[pieced.origin].before = .present;
            },
            else => {},
        }
        rows[at].image = image;
        switch (image) {
            .pieced => |pieced| if (!pieced.whole and pieced.origin != at and self.deletes == .hard) {
                rows[pieced.origin].before = .moves;
            },
            else => {},
        }
    }

    /// Row number `to` after a change to row number `from`.
    fn overlay(self: *Net, ref: Ref, from: u32, to: u32) !Image {
        const batch = self.changes.at(ref);
        if (!batch.ops[ref.row].deletes() and !batch.isPartial(ref.row)) return .{ .row = ref };
        const before = self.rows.items[from].image;
        if (from == to and (before == .gone or before == .untouched)) return for (0..self.told.len) |column| {
            if (!self.tells(ref, column)) break .{ .part = ref };
        } else .{ .row = ref };
        const pieced = try self.arena.allocator().create(Pieced);
        pieced.* = .{
            .cells = try self.arena.allocator().alloc(Ref, self.told.len),
            .origin = if (before == .pieced) before.pieced.origin else from,
            .whole = true,
        };
        for (pieced.cells, 0..) |*cell, column| {
            cell.* = if (self.tells(ref, column)) ref else self.cellOf(before, column);
            if (cell.isNone()) pieced.whole = false;
        }
        return .{ .pieced = pieced };
    }

    /// Whether the change tells that column: a delete those of the key.
    fn tells(self: *const Net, ref: Ref, column: usize) bool {
        const place = self.told[column] orelse return true;
        const batch = self.changes.at(ref);
        if (!batch.ops[ref.row].deletes()) return !batch.isUnchanged(ref.row, place);
        return batch.ops[ref.row] != .truncate and std.mem.findScalar(usize, self.key, column) != null;
    }
};
