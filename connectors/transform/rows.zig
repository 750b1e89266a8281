//! Which rows of a batch are left out, and why.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;

/// As the ABI names them: those that a transform may give.
pub const Category = enum { rule, cast, out_of_range, too_long, invalid_text, other };

/// What is wrong with a row. Its texts have to live as long as the batch.
pub const Reason = struct {
    /// Names column and rule, and shows no value: it is logged.
    message: []const u8,
    /// The one that is to blame.
    column: ?[]const u8 = null,
    category: Category = .rule,
    sqlstate: ?[]const u8 = null,
};

pub const Refusal = struct { row: usize, reason: Reason };

pub const Rows = struct {
    gpa: Allocator,
    count: usize = 0,
    /// One bit per row: left out. Whole words, the rest of the last one all ones.
    out: std.ArrayList(u64) = .empty,
    out_count: usize = 0,
    refusals: std.ArrayList(Refusal) = .empty,

    pub fn init(gpa: Allocator) Rows {
        return .{ .gpa = gpa };
    }

    pub fn deinit(self: *Rows) void {
        self.out.deinit(self.gpa);
        self.refusals.deinit(self.gpa);
    }

    /// Of the next batch: all of them stay.
    pub fn begin(self: *Rows, count: usize) Allocator.Error!void {
        self.count = count;
        self.out_count = 0;
        self.refusals.clearRetainingCapacity();
        try self.out.resize(self.gpa, count / 64 + 1);
        @memset(self.out.items, 0);
        self.out.items[count / 64] = @as(u64, std.math.maxInt(u64)) << @intCast(count % 64);
    }

    /// Leaves a row out because of what is in it. A row may be refused for several reasons.
    pub fn refuse(self: *Rows, row: usize, reason: Reason) Allocator.Error!void {
        try self.refusals.append(self.gpa, .{ .row = row, .reason = reason });
        self.leaveOut(row);
    }

    /// Leaves a row out that is not wanted. One that is refused too counts as refused.
    pub fn filter(self: *Rows, row: usize) void {
        self.leaveOut(row);
    }

    fn leaveOut(self: *Rows, row: usize) void {
        std.debug.assert(row < self.count);
        const bit = @as(u64, 1) << @intCast(row % 64);
        self.out_count += @intFromBool(self.out.items[row / 64] & bit == 0);
        self.out.items[row / 64] |= bit;
    }

    pub inline fn stays(self: *const Rows, row: usize) bool {
        return self.out.items[row / 64] >> @intCast(row % 64) & 1 == 0;
    }

    /// How many stay.
    pub fn staying(self: *const Rows) usize {
        return self.count - self.out_count;
    }

    pub const Run = struct { start: usize, end: usize };

    /// The first rows in a row that stay, of those from `start` up to before `end`.
    pub fn run(self: *const Rows, start: usize, end: usize) ?Run {
        const first = self.find(start, end, false);
        if (first == end) return null;
        return .{ .start = first, .end = self.find(first, end, true) };
    }

    /// The first row from `start` on that is left out, or that is not; `end` where there is none before it.
    fn find(self: *const Rows, start: usize, end: usize, out: bool) usize {
        var at = start;
        while (at < end) {
            const word = if (out) self.out.items[at / 64] else ~self.out.items[at / 64];
            const rest = word >> @intCast(at % 64);
            if (rest != 0) return @min(end, at + @ctz(rest));
            at = (at / 64 + 1) * 64;
        }
        return end;
    }

    /// The refusals by their rows; those of one row in the order in which they came.
    pub fn sortedRefusals(self: *Rows) []const Refusal {
        const items = self.refusals.items;
        const isBefore = struct {
            fn isBefore(_: void, a: Refusal, b: Refusal) bool {
                return a.row < b.row;
            }
        }.isBefore;
        if (!std.sort.isSorted(Refusal, items, {}, isBefore)) std.mem.sort(Refusal, items, {}, isBefore);
        return items;
    }
};

test "rows that stay come in runs" {
    const gpa = std.testing.allocator;
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    var rows: Rows = .init(gpa);
    defer rows.deinit();
    for ([_]usize{ 0, 1, 63, 64, 65, 300 }) |count| for ([_]u8{ 0, 1, 5, 10 }) |share| {
        try rows.begin(count);
        for (0..count) |row| if (generator.random().uintLessThan(u8, 10) < share) rows.filter(row);
        var left: usize = 0;
        var at: usize = 0;
        while (rows.run(at, count)) |run| {
            for (at..run.start) |row| try std.testing.expect(!rows.stays(row));
            for (run.start..run.end) |row| try std.testing.expect(rows.stays(row));
            try std.testing.expect(run.end == count or !rows.stays(run.end));
            left += run.end - run.start;
            at = run.end;
        }
        for (at..count) |row| try std.testing.expect(!rows.stays(row));
        try std.testing.expectEqual(rows.staying(), left);
    };
}

test "a row keeps its reasons in their order, and is left out once" {
    var rows: Rows = .init(std.testing.allocator);
    defer rows.deinit();
    try rows.begin(10);
    for ([_]usize{ 7, 2 }) |row| try rows.refuse(row, .{ .message = "first" });
    for ([_]usize{ 2, 3, 7 }) |row| try rows.refuse(row, .{ .message = "second" });
    try std.testing.expectEqual(7, rows.staying());
    const expected = [_]struct { usize, []const u8 }{
        .{ 2, "first" }, .{ 2, "second" }, .{ 3, "second" }, .{ 7, "first" }, .{ 7, "second" },
    };
    for (rows.sortedRefusals(), expected) |refusal, each| {
        try std.testing.expectEqual(each[0], refusal.row);
        try std.testing.expectEqualStrings(each[1], refusal.reason.message);
    }
}
