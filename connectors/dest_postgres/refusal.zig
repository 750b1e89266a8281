//! Why a row is not in the table: what the server said of it, or what was found out here before it came to that.

const std = @import("std");
const sdk = @import("sdk");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// As the ABI names them.
pub const Category = enum {
    not_null,
    check,
    unique,
    foreign_key,
    exclusion,
    out_of_range,
    too_long,
    invalid_text,
    null_key,
    cast,
    trigger,
    oversized,
    other,

    /// https://www.postgresql.org/docs/current/errcodes-appendix.html
    fn ofSqlstate(sqlstate: []const u8) Category {
        const known = .{
            .{ "23502", .not_null },     .{ "23514", .check },        .{ "44000", .check },
            .{ "23505", .unique },       .{ "23503", .foreign_key },  .{ "23001", .foreign_key },
            .{ "23P01", .exclusion },    .{ "22003", .out_of_range }, .{ "22008", .out_of_range },
            .{ "22015", .out_of_range }, .{ "22001", .too_long },     .{ "22026", .too_long },
            .{ "22P02", .invalid_text }, .{ "22P03", .invalid_text }, .{ "22P05", .invalid_text },
            .{ "22007", .invalid_text }, .{ "22021", .invalid_text }, .{ "22018", .invalid_text },
            .{ "22032", .invalid_text }, .{ "2200M", .invalid_text }, .{ "P0001", .trigger },
            .{ oversized, .oversized },
        };
        inline for (known) |entry| if (std.mem.eql(u8, sqlstate, entry[0])) return entry[1];
        return .other;
    }
};

/// A row that does not fit a page of the table or of an index. It is of a class that is about the server otherwise.
const oversized = "54000";

/// What is known of a failure that the server did not tell.
pub const Culprit = struct {
    category: Category,
    column: ?[]const u8 = null,
    /// Of the batch, where it is known which.
    row: ?usize = null,
};

pub const Refusal = struct {
    message: []const u8,
    category: Category,
    sqlstate: ?[]const u8 = null,
    constraint: ?[]const u8 = null,
    column: ?[]const u8 = null,
    /// What the server said besides; the row, mostly. A dead letter has that.
    detail: ?[]const u8 = null,

    /// As the failure of the whole stream.
    pub fn asFailure(self: Refusal, arena: Allocator, doing: []const u8) !sdk.errors.Failure {
        return .{
            .kind = .data,
            .message = try std.fmt.allocPrint(arena, "{s}: {s}", .{ doing, self.message }),
            .detail = self.detail,
            .sqlstate = self.sqlstate,
        };
    }

    pub fn dupe(self: Refusal, arena: Allocator) !Refusal {
        return .{
            .message = try arena.dupe(u8, self.message),
            .category = self.category,
            .sqlstate = if (self.sqlstate) |text| try arena.dupe(u8, text) else null,
            .constraint = if (self.constraint) |text| try arena.dupe(u8, text) else null,
            .column = if (self.column) |text| try arena.dupe(u8, text) else null,
            .detail = if (self.detail) |text| try arena.dupe(u8, text) else null,
        };
    }

    /// What the failure that is on record says of the rows that were written, as a copy in `arena`. Null where it is not
    /// their fault. `doing` begins the record's message.
    pub fn ofFailure(arena: Allocator, session: *const Session, doing: []const u8) !?Refusal {
        const failure = sdk.errors.current() orelse return null;
        const sqlstate = failure.sqlstate orelse {
            if (failure.kind != .data) return null;
            const culprit = session.culprit orelse Culprit{ .category = .other };
            return .{
                .message = try arena.dupe(u8, withoutPrefix(failure.message, doing)),
                .category = culprit.category,
                .column = if (culprit.column) |name| try arena.dupe(u8, name) else null,
            };
        };
        if (failure.kind != .data and !std.mem.eql(u8, sqlstate, oversized)) return null;
        const said = try (session.connection.last_error orelse return .{
            .message = try arena.dupe(u8, withoutPrefix(failure.message, doing)),
            .category = .ofSqlstate(sqlstate),
            .sqlstate = try arena.dupe(u8, sqlstate),
        }).dupe(arena);
        const category: Category = .ofSqlstate(said.sqlstate);
        // Where it is not the row once more.
        const telling: ?[]const u8 = switch (category) {
            .unique, .foreign_key, .exclusion => said.detail,
            else => null,
        };
        return .{
            .message = if (telling) |detail|
                try std.fmt.allocPrint(arena, "{s}: {s}", .{ said.message, detail })
            else
                said.message,
            .category = category,
            .sqlstate = said.sqlstate,
            .constraint = said.constraint,
            .column = said.column orelse columnOfCopy(said.where),
            .detail = if (telling == null) said.detail else null,
        };
    }
};

fn withoutPrefix(message: []const u8, doing: []const u8) []const u8 {
    if (!std.mem.startsWith(u8, message, doing)) return message;
    const rest = message[doing.len..];
    return if (std.mem.startsWith(u8, rest, ": ")) rest[2..] else message;
}

/// The row that COPY stopped at, from 0: of `COPY users, line 3, column age`. The word for "line" is in the server's
/// language. Null where it does not say.
pub fn rowOfCopy(where: ?[]const u8, table: []const u8) ?u64 {
    var lines = std.mem.splitScalar(u8, where orelse return null, '\n');
    while (lines.next()) |line| {
        const rest = afterTable(line, table) orelse continue;
        const first = std.mem.findAny(u8, rest, "0123456789") orelse return null;
        const end = std.mem.findNonePos(u8, rest, first, "0123456789") orelse rest.len;
        const number = std.fmt.parseInt(u64, rest[first..end], 10) catch return null;
        return if (number == 0) null else number - 1;
    }
    return null;
}

fn afterTable(line: []const u8, table: []const u8) ?[]const u8 {
    const start = "COPY ";
    if (!std.mem.startsWith(u8, line, start)) return null;
    const rest = line[start.len..];
    if (!std.mem.startsWith(u8, rest, table) or !std.mem.startsWith(u8, rest[table.len..], ", ")) return null;
    return rest[table.len + 2 ..];
}

/// The column that COPY stopped at, as far as the server speaks English.
pub fn columnOfCopy(where: ?[]const u8) ?[]const u8 {
    var lines = std.mem.splitScalar(u8, where orelse return null, '\n');
    const marker = ", column ";
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, "COPY ")) continue;
        const at = std.mem.find(u8, line, marker) orelse return null;
        const rest = line[at + marker.len ..];
        return rest[0 .. std.mem.find(u8, rest, ": ") orelse rest.len];
    }
    return null;
}

test "the row and the column that COPY stopped at" {
    const where = "PL/pgSQL function f() line 7 at RAISE\nCOPY users, line 12, column age: \"x\"";
    try std.testing.expectEqual(11, rowOfCopy(where, "users"));
    try std.testing.expectEqualStrings("age", columnOfCopy(where).?);
    try std.testing.expectEqual(null, rowOfCopy(where, "user"));
    try std.testing.expectEqual(2, rowOfCopy("COPY users, Zeile 3", "users"));
    try std.testing.expectEqual(null, columnOfCopy("COPY users, Zeile 3"));
    try std.testing.expectEqual(2, rowOfCopy("COPY a, line 9, line 3", "a, line 9"));
    try std.testing.expectEqual(null, rowOfCopy("SQL statement \"SELECT 1\"", "users"));
    try std.testing.expectEqual(null, rowOfCopy(null, "users"));
    try std.testing.expectEqual(null, rowOfCopy("COPY users, line 0", "users"));
}

test "states have the category that the ABI names" {
    try std.testing.expectEqual(Category.unique, Category.ofSqlstate("23505"));
    try std.testing.expectEqual(Category.oversized, Category.ofSqlstate("54000"));
    try std.testing.expectEqual(Category.other, Category.ofSqlstate("22012"));
}
