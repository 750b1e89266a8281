//! Rows that fail on their data are left out, and the others are written: in the same transaction, whatever is wrong with
//! how many of them.
//!
//!     a range of rows ─ SAVEPOINT ─ write it ─┬─ fine: the next range
//!                                             └─ ROLLBACK TO ─ the server said which row: those before it, and it is out
//!                                                              it did not: one half of the range, until one row is left
//!
//! After a bad row ranges are as long as the way to it was, and double from there: where every second row is bad nothing
//! long is written twice.

const std = @import("std");
const sdk = @import("sdk");
const screening = @import("screening.zig");
const Refusal = @import("refusal.zig").Refusal;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const host = sdk.host;

/// What becomes of a row that fails on its data.
pub const OnDataError = enum { fail, skip, dlq };

/// Refused rows that are remembered until they are told.
const refused_at_once = 1000;

pub const Refused = struct { row: u64, refusal: Refusal };

/// Rows whose foreign key finds nothing, where what it points to may come later.
const Postponed = struct {
    arena: std.heap.ArenaAllocator,
    refused: std.ArrayList(Refused) = .empty,
    applies: ?bool = null,

    fn take(self: *Postponed, rows: anytype, refused: Refused) !bool {
        if (refused.refusal.category != .foreign_key or self.refused.items.len == postponed_max) return false;
        const arena = self.arena.allocator();
        if (self.applies == null) self.applies = try screening.pointsToItself(arena, rows.landing);
        if (!self.applies.?) return false;
        try self.refused.append(arena, .{ .row = refused.row, .refusal = try refused.refusal.dupe(arena) });
        return true;
    }
};

/// They are tried one by one.
const postponed_max = 10_000;

pub const Guard = struct {
    session: *Session,
    policy: OnDataError,
    /// Of the rows that are about to be told, and of what is told of some of them.
    arena: std.heap.ArenaAllocator,
    telling: std.heap.ArenaAllocator,
    refused: std.ArrayList(Refused) = .empty,
    /// Rows since the last commit, and in all.
    rejected: u64 = 0,
    rejected_before: u64 = 0,
    /// Of all.
    first_message: [256]u8 = undefined,
    first_length: usize = 0,

    pub fn init(session: *Session, policy: OnDataError) Guard {
        return .{ .session = session, .policy = policy, .arena = .init(session.gpa), .telling = .init(session.gpa) };
    }

    pub fn deinit(self: *Guard) void {
        self.arena.deinit();
        self.telling.deinit();
        self.refused.deinit(self.session.gpa);
    }

    pub fn total(self: *const Guard) u64 {
        return self.rejected_before + self.rejected;
    }

    pub fn firstMessage(self: *const Guard) []const u8 {
        return self.first_message[0..self.first_length];
    }

    /// After COMMIT.
    pub fn committed(self: *Guard) void {
        self.rejected_before += self.rejected;
        self.rejected = 0;
    }

    /// Writes the rows from number `begin` up to before `end`. `rows`:
    ///
    ///     landing        of the table that they are written into
    ///     doing          for errors: "writing raw.users"
    ///     range_rows     how many to try at once
    ///     attempt        writes a range; when it fails the connection takes the next statement
    ///     offender       the row that a failed attempt stopped at, where that is known
    ///     few            how many of some rows can be told at once, at least one
    ///     tell           their dead letters
    pub fn sift(self: *Guard, rows: anytype, begin: u64, end: u64) !void {
        if (begin == end) return;
        var at = begin;
        // A row that is known to be bad once those before it are written.
        var bad: ?Refused = null;
        // The last range that failed ends here: there is a bad row before it.
        var suspect_end = begin;
        // What the server named was not the row: some failures come when it has read on.
        var misled = false;
        var since = begin;
        var range: u64 = rows.range_rows;
        var postponed: Postponed = .{ .arena = .init(self.session.gpa) };
        defer postponed.arena.deinit();
        try self.open(rows.doing);
        while (at < end) {
            if (bad) |refused| if (refused.row == at) {
                if (!try postponed.take(rows, refused)) try self.refuse(rows, refused);
                range = @min(2 * (at - since) + 1, rows.range_rows);
                at += 1;
                since = at;
                suspect_end = at;
                bad = null;
                misled = false;
                continue;
            };
            const to = if (bad) |refused|
                refused.row
            else if (at < suspect_end)
                at + @max(1, (suspect_end - at) / 2)
            else
                @min(end, at + range);
            self.session.culprit = null;
            rows.attempt(at, to) catch |failed| {
                misled = misled or bad != null;
                const offender = if (misled) null else rows.offender(at, to);
                const refusal = try self.undo(failed, rows.doing);
                if (offender) |row| {
                    bad = .{ .row = row, .refusal = refusal };
                } else {
                    bad = if (to - at == 1) .{ .row = at, .refusal = refusal } else null;
                    suspect_end = to;
                }
                continue;
            };
            at = to;
            if (at == end) break;
            try self.session.exec("RELEASE SAVEPOINT rapidbyte_rows; SAVEPOINT rapidbyte_rows", rows.doing);
            if (bad == null and at >= suspect_end) range = @min(2 * range, rows.range_rows);
        }
        try self.close(rows.doing);
        try self.tell(rows);
        try self.settle(rows, &postponed);
    }

    /// Tries those that point to others again, as long as that helps any of them.
    fn settle(self: *Guard, rows: anytype, postponed: *Postponed) !void {
        const waiting = &postponed.refused;
        var before = waiting.items.len + 1;
        while (waiting.items.len > 0 and waiting.items.len < before) {
            before = waiting.items.len;
            var kept: usize = 0;
            for (waiting.items) |refused| {
                if (try self.fits(rows, refused.row, refused.row + 1)) continue;
                waiting.items[kept] = refused;
                kept += 1;
            }
            waiting.shrinkRetainingCapacity(kept);
        }
        if (waiting.items.len == 0) return;
        try self.open(rows.doing);
        for (waiting.items) |refused| try self.refuse(rows, refused);
        try self.close(rows.doing);
        try self.tell(rows);
    }

    /// Writes them all, or none where one of them fails on its data.
    pub fn fits(self: *Guard, rows: anytype, begin: u64, end: u64) !bool {
        try self.open(rows.doing);
        self.session.culprit = null;
        rows.attempt(begin, end) catch |failed| {
            _ = try self.undo(failed, rows.doing);
            _ = self.arena.reset(.retain_capacity);
            try self.close(rows.doing);
            return false;
        };
        try self.close(rows.doing);
        return true;
    }

    /// Fails again where it is not the rows' fault.
    fn undo(self: *Guard, failed: anytype, doing: []const u8) !Refusal {
        if (failed != error.Failed) return failed;
        const refusal = try Refusal.ofFailure(self.arena.allocator(), self.session, doing) orelse return failed;
        sdk.errors.clear();
        try self.session.exec("ROLLBACK TO SAVEPOINT rapidbyte_rows", doing);
        return refusal;
    }

    fn open(self: *Guard, doing: []const u8) !void {
        try self.session.exec("SAVEPOINT rapidbyte_rows", doing);
    }

    fn close(self: *Guard, doing: []const u8) !void {
        try self.session.exec("RELEASE SAVEPOINT rapidbyte_rows", doing);
    }

    fn refuse(self: *Guard, rows: anytype, refused: Refused) !void {
        if (self.total() == 0) {
            const message = refused.refusal.message;
            // What a message quotes of the row is for the dead letter.
            const told = message[0..@min(message.len, self.first_message.len, std.mem.find(u8, message, ": ") orelse message.len)];
            @memcpy(self.first_message[0..told.len], told);
            self.first_length = told.len;
        }
        self.rejected += 1;
        if (self.policy != .dlq) {
            _ = self.arena.reset(.retain_capacity);
            return;
        }
        try self.refused.append(self.session.gpa, refused);
        if (self.refused.items.len < refused_at_once) return;
        // Nothing of this is to be rolled back with the next range.
        try self.close(rows.doing);
        try self.tell(rows);
        try self.open(rows.doing);
    }

    fn tell(self: *Guard, rows: anytype) !void {
        var rest: []const Refused = self.refused.items;
        while (rest.len > 0) {
            _ = self.telling.reset(.{ .retain_with_limit = telling_bytes_kept });
            rest = rest[self.tellSome(rows, rest) catch |err| return tooLarge(err) ..];
        }
        self.refused.clearRetainingCapacity();
        _ = self.arena.reset(.{ .retain_with_limit = telling_bytes_kept });
    }

    /// How many.
    fn tellSome(self: *Guard, rows: anytype, refused: []const Refused) !usize {
        const count = try rows.few(self.arena.allocator(), refused);
        const arena = self.telling.allocator();
        try host.emitDlqBatch(arena, try rows.tell(arena, refused[0..count]));
        return count;
    }

    fn tooLarge(err: anytype) @TypeOf(err) {
        if (err != error.OutOfMemory) return err;
        return sdk.errors.failHinted(
            .resource,
            "raise `limits.max_memory`, or leave the large column out",
            "a row that was refused does not fit into the connector's memory as a dead letter",
            .{},
        );
    }
};

/// What is kept of the memory for dead letters.
const telling_bytes_kept = 1024 * 1024;
