//! What an incremental stream reads: rows from its cursor on, in the cursor's order, without those that it delivered.
//!
//!     stored cursor     2024-01-02, seen {7, 9}
//!     rows read         2024-01-02 id 7 ─ known, dropped
//!                       2024-01-02 id 8 ─ delivered; a barrier here: 2024-01-02, seen {7, 8, 9}
//!                       2024-01-03 id 1 ─ delivered; a barrier here: 2024-01-03, seen {1}

const std = @import("std");
const sdk = @import("sdk");
const Row = @import("row.zig").Row;
const Boundary = @import("boundary.zig").Boundary;
const Cursor = @import("cursor.zig").Cursor;
const CursorColumn = @import("cursor_column.zig").CursorColumn;
const Identity = @import("identity.zig").Identity;
const Seen = @import("boundary.zig").Seen;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;
const Told = @import("told.zig").Told;

const Allocator = std.mem.Allocator;
const json = sdk.json;

/// Characters of a cursor's value at most: a barrier has to pass through the host.
const value_max = 1024 * 1024;

pub const Increment = struct {
    gpa: Allocator,
    stream: *const Stream,
    column: CursorColumn,
    /// As the host gave it; null: from the beginning.
    stored: ?Stored,
    /// A row's first fields, as far as they are looked at.
    fields: []?[]const u8,
    /// Rows of the stored value that were delivered, while more of that value may come.
    known: ?Boundary,
    /// What a later run will know; of the value of `last`.
    boundary: Boundary,
    /// The boundary does not go on from the known rows, but is made of those that are still there: it tells rows apart by
    /// something else, or they may have changed since.
    rebuilds: bool = false,
    /// The known rows are told apart by less than what is read of them, and no longer by what would keep them unique: two
    /// that are alike in it leave open which of them was sent.
    doubts: bool = false,
    /// Of the form `ranges`, what was taken of the known ones while `doubts`.
    taken: std.AutoHashMapUnmanaged(i64, void) = .empty,
    /// The cursor field of rows of the stored value, once one came.
    stored_field: std.ArrayList(u8) = .empty,
    /// The cursor field of the last row delivered.
    last: ?std.ArrayList(u8) = null,
    /// The tie-breaker's place, where nothing but it tells rows apart, and what the row before had there.
    tie: ?usize = null,
    before: ?Before = null,
    /// With a lag: rows that were set aside and come again.
    told: ?Told = null,
    /// The row at hand is of the stored value; so is the last one delivered.
    at_stored: bool = false,
    last_at_stored: bool = false,

    const Stored = struct { json: json.Value, cursor: Cursor };

    const Before = struct {
        cursor: std.ArrayList(u8) = .empty,
        tie: std.ArrayList(u8) = .empty,
        tie_is_null: bool = false,
    };

    /// `NotApart`: two rows of one cursor value have the same tie-breaker. `InDoubt`: one of two rows was sent, and what was
    /// remembered of it holds for both.
    pub const Error = Allocator.Error || error{ Malformed, NotApart, InDoubt };

    /// Restricts `selection` to the rows that are new. Inside a transaction, before its SQL runs.
    pub fn begin(
        gpa: Allocator,
        arena: Allocator,
        session: *Session,
        selection: *Selection,
        stream: *const Stream,
        cursor: json.Value,
    ) !Increment {
        const column: CursorColumn = try .find(arena, session, selection, stream);
        const stored: ?Stored = if (cursor == .null)
            null
        else
            .{ .json = cursor, .cursor = try .parse(arena, cursor, stream, &column) };
        // An array can cross as text for the sake of other rows; what tells rows apart must not depend on them.
        if (stream.write_mode != .upsert) {
            if (stored) |found| if (found.cursor.seen) |seen| selection.readArraysAsText(seen.by);
            selection.readArraysAsText((try Identity.ofStream(arena, stream, selection)).names);
        }
        try restrict(arena, selection, stream, &column, if (stored) |found| found.cursor.value else null);
        const identity: Identity = try .ofStream(arena, stream, selection);

        var self: Increment = .{
            .gpa = gpa,
            .stream = stream,
            .column = column,
            .stored = stored,
            .fields = &.{},
            .known = null,
            .boundary = .init(gpa, identity),
        };
        errdefer self.deinit();
        var reach = @max(column.place + 1, identity.reach());
        if (stored) |found| try self.recall(arena, selection, found.cursor.seen);
        if (stream.cursor_lag != null) self.told = Told.restore(
            gpa,
            arena,
            if (stored) |found| found.cursor.aside else null,
        ) catch |err| switch (err) {
            error.Malformed => return Cursor.refused(arena, stream, "the stored cursor is damaged", .{}),
            else => |other| return other,
        };
        if (self.known) |known| reach = @max(reach, known.identity.reach());
        if (stream.write_mode != .upsert) if (stream.tie_breaker_field) |name| {
            const only = identity.names.len == 1 and std.mem.eql(u8, identity.names[0], name);
            if (only and !selection.relation.hasKey(identity.names)) {
                self.tie = identity.places[0];
                reach = @max(reach, identity.places[0] + 1);
            }
        };
        self.fields = try arena.alloc(?[]const u8, reach);
        return self;
    }

    pub fn deinit(self: *Increment) void {
        if (self.known) |*known| known.deinit();
        if (self.told) |*told| told.deinit();
        self.boundary.deinit();
        self.taken.deinit(self.gpa);
        self.stored_field.deinit(self.gpa);
        if (self.last) |*last| last.deinit(self.gpa);
        if (self.before) |*before| {
            before.cursor.deinit(self.gpa);
            before.tie.deinit(self.gpa);
        }
    }

    /// Rows from `value` on, in order; null: from the beginning.
    pub fn restrict(
        arena: Allocator,
        selection: *Selection,
        stream: *const Stream,
        column: *const CursorColumn,
        value: ?[]const u8,
    ) Allocator.Error!void {
        const from = if (value != null and stream.cursor_lag != null)
            try column.before(arena, value.?, stream.cursor_lag.?)
        else
            value;
        selection.conditions = try column.conditions(arena, from);
        var order: std.ArrayList([]const u8) = .empty;
        try order.append(arena, column.sql);
        const identity: Identity = try .ofStream(arena, stream, selection);
        // In the order of integers a boundary is made of few ranges at any time.
        const second = stream.tie_breaker_field orelse if (identity.form == .ranges) identity.names[0] else null;
        if (second) |name| {
            if (!std.mem.eql(u8, name, column.of.name)) try order.append(arena, try selection.columnSql(arena, name));
        }
        selection.order = order.items;
    }

    /// Takes up which rows of the stored value were delivered.
    fn recall(self: *Increment, arena: Allocator, selection: *const Selection, kept: ?Seen) !void {
        if (self.stream.cursor_lag != null) return;
        // What is upserted may come again; what is appended may not.
        const repeats = self.stream.write_mode == .upsert;
        const seen = kept orelse return if (repeats) {} else Cursor.refused(
            arena,
            self.stream,
            "the stored cursor does not tell which rows of its value were sent, and write_mode {t} must not send them again",
            .{self.stream.write_mode},
        );
        const identity = try Identity.of(arena, selection, seen.by, seen.form);
        // A row that changed is another row to an upsert, and the same one to a key that was remembered for an append.
        if (repeats and (identity == null or !identity.?.eql(&self.boundary.identity))) return;
        const known = if (identity) |found| self.restore(arena, found, seen) catch |err| switch (err) {
            error.Malformed => return Cursor.refused(arena, self.stream, "the stored cursor is damaged", .{}),
            else => |other| return other,
        } else null;
        if (known == null) return if (repeats) {} else Cursor.refused(
            arena,
            self.stream,
            "rows of the stored cursor's value were remembered by {s}, which the stream no longer reads, or as another type",
            .{try std.mem.join(arena, ", ", seen.by)},
        );
        self.known = known;
        // A row may be upserted as it is now and then change back: only what is still there counts as delivered.
        if (!repeats and identity.?.eql(&self.boundary.identity)) {
            const again = try self.restore(arena, identity.?, seen);
            self.boundary.deinit();
            self.boundary = again.?;
        } else {
            self.rebuilds = true;
            self.doubts = identity.?.names.len < selection.columns.len;
        }
    }

    fn restore(self: *Increment, arena: Allocator, identity: Identity, seen: Seen) Error!?Boundary {
        return Boundary.restore(self.gpa, arena, identity, seen);
    }

    /// Whether a row is to be delivered. If so, `delivered` comes next, once it is.
    pub inline fn admit(self: *Increment, row: Row) Error!bool {
        try row.split(self.fields);
        if (self.tie) |place| try self.requireApart(place);
        if (self.known == null) {
            if (self.fields[self.column.place] == null) return error.Malformed;
            return true;
        }
        return self.admitAtStored(row);
    }

    /// Rows come in the order of cursor and tie-breaker: those that have both in common come one after the other.
    fn requireApart(self: *Increment, place: usize) Error!void {
        const cursor = self.fields[self.column.place] orelse return error.Malformed;
        const tie = self.fields[place];
        if (self.before) |*before| {
            const same_tie = if (tie) |bytes|
                !before.tie_is_null and std.mem.eql(u8, before.tie.items, bytes)
            else
                before.tie_is_null;
            if (same_tie and self.column.same(before.cursor.items, cursor)) return error.NotApart;
        } else self.before = .{};
        const before = &self.before.?;
        before.cursor.clearRetainingCapacity();
        try before.cursor.appendSlice(self.gpa, cursor);
        before.tie.clearRetainingCapacity();
        try before.tie.appendSlice(self.gpa, tie orelse "");
        before.tie_is_null = tie == null;
    }

    /// The error behind `NotApart`.
    pub fn notApart(self: *const Increment) sdk.errors.Failed {
        return sdk.errors.failHinted(
            .data,
            "name a column that is unique, or leave tie_breaker_field out: whole rows are compared then",
            "stream {s}: rows with the same {s} have the same {s} too: it cannot tell them from rows that come later",
            .{ self.stream.name, self.column.of.name, self.stream.tie_breaker_field.? },
        );
    }

    /// The error behind `InDoubt`.
    pub fn inDoubt(self: *const Increment) sdk.errors.Failed {
        const known = self.known.?.identity.names;
        return sdk.errors.failHinted(
            .data,
            "`rapidbyte run FILE --full-refresh` replaces what was written, and goes on from there",
            "stream {s}: rows that have the stored cursor's {s} have the same {s}{s} too, by which those that were sent were " ++
                "remembered: it cannot tell which of them were",
            .{ self.stream.name, self.column.of.name, known[0], if (known.len > 1) ", …" else "" },
        );
    }

    fn admitAtStored(self: *Increment, row: Row) Error!bool {
        const field = self.fields[self.column.place] orelse return error.Malformed;
        self.at_stored = try self.isStored(field);
        const known = &self.known.?;
        if (!self.at_stored) {
            known.deinit();
            self.known = null;
            return true;
        }
        if (!try known.take(row, self.fields)) {
            if (self.doubts and known.isSpent(row, self.fields)) return error.InDoubt;
            return true;
        }
        if (self.doubts and known.identity.form == .ranges) if (try known.identity.integer(self.fields)) |value| {
            if ((try self.taken.getOrPut(self.gpa, value)).found_existing) return error.InDoubt;
        };
        if (self.rebuilds) try self.boundary.add(row, self.fields);
        return false;
    }

    fn isStored(self: *Increment, field: []const u8) Error!bool {
        if (self.stored_field.items.len > 0 and self.column.same(self.stored_field.items, field)) return true;
        // The first row, an empty text, or the first row behind.
        var text: std.ArrayList(u8) = .empty;
        defer text.deinit(self.gpa);
        try self.column.appendText(&text, self.gpa, field);
        if (!std.mem.eql(u8, text.items, self.stored.?.cursor.value)) return false;
        self.stored_field.clearRetainingCapacity();
        try self.stored_field.appendSlice(self.gpa, field);
        return true;
    }

    /// The row that was admitted is in the batch, or set aside for good: no later run has to read it.
    pub inline fn delivered(self: *Increment, row: Row) Error!void {
        const field = self.fields[self.column.place].?;
        if (self.last) |*last| {
            if (!self.column.same(last.items, field)) {
                self.boundary.clear();
                last.clearRetainingCapacity();
                try last.appendSlice(self.gpa, field);
                self.last_at_stored = false;
            }
        } else try self.firstDelivered(field);
        if (self.stream.cursor_lag == null) try self.boundary.add(row, self.fields);
    }

    /// Whether the row that was admitted, and is set aside, was set aside by an earlier run already.
    pub fn wasSetAside(self: *Increment, row: Row) Error!bool {
        const told = if (self.told) |*of_lag| of_lag else return false;
        return told.take(try self.column.instant(self.fields[self.column.place].?), row.hash());
    }

    /// A row that is set aside can be the last one, whose cursor has to be kept.
    pub fn requireCursorText(self: *const Increment) sdk.errors.Failed!void {
        switch (self.column.family) {
            .text, .char => {},
            else => return,
        }
        const field = self.fields[self.column.place] orelse return;
        if (std.unicode.utf8ValidateSlice(field)) return;
        return sdk.errors.failHinted(
            .data,
            "choose another cursor_field, mend the row, or leave it out with a filter",
            "stream {s}: cursor_field {s} holds bytes that are not UTF-8: its value cannot be kept, and the row would be " ++
                "read again by every run",
            .{ self.stream.name, self.column.of.name },
        );
    }

    /// Whether the field of a column is needed to tell its row from others, or where it stands.
    pub fn looksAt(self: *const Increment, place: usize) bool {
        if (place >= self.fields.len) return false;
        if (place == self.column.place or self.tie == place or self.boundary.identity.has(place)) return true;
        return if (self.known) |known| known.identity.has(place) else false;
    }

    fn firstDelivered(self: *Increment, field: []const u8) Error!void {
        @branchHint(.cold);
        if (!self.at_stored) self.boundary.clear();
        self.last_at_stored = self.at_stored;
        self.last = .empty;
        try self.last.?.appendSlice(self.gpa, field);
    }

    /// Says that everything up to the last row delivered can be committed, with `rejected` rows that were left out since
    /// the last barrier. False: it cannot be said here.
    pub fn barrier(self: *Increment, arena: Allocator, final: bool, rejected: u64) !bool {
        const last = self.last orelse return self.stand(arena, self.standing(), final, rejected);
        if (self.isInWindow(last.items)) return self.barrierInWindow(arena, final, rejected);
        if (!final and self.rebuilds and self.last_at_stored) return false;
        var value: std.ArrayList(u8) = .empty;
        try self.column.appendText(&value, arena, last.items);
        if (value.items.len > value_max) return sdk.errors.failHinted(
            .data,
            "choose a cursor_field of short values",
            "stream {s}: column {s} has a value of {d} bytes: too long for a cursor",
            .{ self.stream.name, self.column.of.name, value.items.len },
        );
        var seen: ?Seen = null;
        if (self.stream.cursor_lag == null) {
            seen = try self.boundary.seen(arena);
            if (seen == null and self.stream.write_mode != .upsert)
                return if (final) self.crowded(value.items) else false;
        }
        try sdk.host.barrier(arena, Cursor{
            .field = self.column.of.name,
            .type = self.column.family,
            .value = value.items,
            .collation = self.column.collation,
            .seen = seen,
            .aside = try self.asideFrom(arena, last.items, false),
        }, final, rejected);
        return true;
    }

    /// What is set aside of the rows that the next run reads again, the last of which has `field` or one before.
    fn asideFrom(self: *Increment, arena: Allocator, field: []const u8, with_before: bool) Error!?[]const u8 {
        const told = if (self.told) |*of_lag| of_lag else return null;
        var last = try self.column.instant(field);
        if (self.stored) |stored| last = @max(last, self.column.instantOf(stored.cursor.value));
        return told.encode(arena, last -| self.column.stepOf(self.stream.cursor_lag.?), with_before);
    }

    /// The cursor does not move, but rows can have been set aside.
    fn barrierInWindow(self: *Increment, arena: Allocator, final: bool, rejected: u64) !bool {
        const stored = &self.stored.?;
        var cursor = stored.cursor;
        cursor.aside = try self.asideFrom(arena, self.last.?.items, !final);
        const is_same = if (cursor.aside) |aside|
            stored.cursor.aside != null and std.mem.eql(u8, aside, stored.cursor.aside.?)
        else
            stored.cursor.aside == null;
        if (is_same) return self.stand(arena, self.standing(), final, rejected);
        return self.stand(arena, cursor, final, rejected);
    }

    fn stand(_: *const Increment, arena: Allocator, cursor: anytype, final: bool, rejected: u64) !bool {
        try sdk.host.barrier(arena, cursor, final, rejected);
        return true;
    }

    /// What was stored, byte for byte.
    fn standing(self: *const Increment) json.Value {
        return if (self.stored) |stored| stored.json else .null;
    }

    /// Rows that the lag reads again do not move the cursor.
    fn isInWindow(self: *const Increment, field: []const u8) bool {
        if (self.stream.cursor_lag == null) return false;
        const stored = self.stored orelse return false;
        const at = self.column.instant(field) catch return false;
        return at <= self.column.instantOf(stored.cursor.value);
    }

    fn crowded(self: *const Increment, value: []const u8) sdk.errors.Failed {
        return sdk.errors.failHinted(
            .data,
            "name a tie_breaker_field of type integer, or use a finer cursor, or write_mode upsert",
            "stream {s}: more rows share the value {s} of cursor {s} than can be remembered ({d} bytes): " ++
                "they could not be told from later ones",
            .{ self.stream.name, value[0..@min(value.len, 100)], self.column.of.name, @import("boundary.zig").text_max },
        );
    }

    /// Tells of rows that no incremental read brings, in the snapshot that is read.
    pub fn warnOfExcluded(self: *const Increment, arena: Allocator, session: *Session, selection: *const Selection) !void {
        var of_excluded = selection.*;
        of_excluded.conditions = &.{try self.column.excludedCondition(arena) orelse return};
        var sql: std.ArrayList(u8) = .empty;
        try sql.print(
            arena,
            "SELECT pg_catalog.count(*) FILTER (WHERE {s} IS NULL), pg_catalog.count({s})",
            .{ self.column.sql, self.column.sql },
        );
        try of_excluded.appendFrom(&sql, arena);
        const counts = try session.rows(2, arena, sql.items, &.{}, selection.doing);
        if (counts.len == 0) return;
        const nulls = counts[0].number(u64, 0);
        const beyond = counts[0].number(u64, 1);
        if (nulls + beyond == 0) return;
        sdk.host.log(
            .warning,
            "{s}: {d} rows are not read: their {s} is {s}, which has no place in the cursor's order",
            .{ selection.doing, nulls + beyond, self.column.of.name, if (beyond == 0)
                "NULL"
            else if (nulls == 0)
                self.endless()
            else
                try std.fmt.allocPrint(arena, "NULL or {s}", .{self.endless()}) },
        );
    }

    fn endless(self: *const Increment) []const u8 {
        return if (self.column.family == .numeric) "NaN or infinity" else "infinity";
    }
};
