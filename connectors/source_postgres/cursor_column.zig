//! The column that an incremental stream follows: which types can be one, and how its values look as text and in SQL.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const RelationColumn = @import("relation.zig").Column;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const canonical = postgres.canonical;
const ident = postgres.ident;
const oid = postgres.types.oid;
const values = postgres.values;

/// Types whose values compare with each other: a cursor of one can be compared with a column of the same.
pub const Family = enum {
    integer,
    numeric,
    text,
    char,
    uuid,
    date,
    timestamp,
    timestamptz,

    pub const allowed = "smallint, integer, bigint, numeric, text, varchar(n), char(n), uuid, date, timestamp and timestamptz";

    pub fn ofColumn(column: *const RelationColumn) ?Family {
        if (column.category != 'b') return null;
        return switch (column.type_oid) {
            oid.int2, oid.int4, oid.int8 => .integer,
            oid.numeric => .numeric,
            oid.text, oid.varchar => .text,
            oid.bpchar => .char,
            oid.uuid => .uuid,
            oid.date => .date,
            oid.timestamp => .timestamp,
            oid.timestamptz => .timestamptz,
            else => null,
        };
    }

    fn sqlType(self: Family) []const u8 {
        return switch (self) {
            .integer => "int8",
            .char => "bpchar",
            else => @tagName(self),
        };
    }

    pub fn zone(self: Family) []const u8 {
        return if (self == .timestamptz) "+00" else "";
    }

    /// Whether `value` is text as `CursorColumn.appendText` writes it for this family.
    pub fn isValue(self: Family, value: []const u8) bool {
        return switch (self) {
            .integer => if (std.fmt.parseInt(i64, value, 10)) |_| true else |_| false,
            .numeric => canonical.isNumeric(value),
            .text, .char => std.mem.findScalar(u8, value, 0) == null,
            .uuid => canonical.isUuid(value),
            .date => if (canonical.parseDate(value)) |days| days != values.date_infinity else false,
            .timestamp, .timestamptz => if (canonical.parseTimestamp(value, self.zone())) |micros|
                micros != values.timestamp_infinity
            else
                false,
        };
    }

    pub fn literal(self: Family, arena: Allocator, value: []const u8) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(arena, "{s}::pg_catalog.{s}", .{ try ident.literal(arena, value), self.sqlType() });
    }

    pub fn isTime(self: Family) bool {
        return switch (self) {
            .date, .timestamp, .timestamptz => true,
            else => false,
        };
    }
};

pub const CursorColumn = struct {
    of: *const RelationColumn,
    /// In a row.
    place: usize,
    as_text: bool,
    family: Family,
    /// `"schema"."name"` of a collation that is not the database's; the order of text depends on it.
    collation: ?[]const u8,
    /// Whether an index brings its values in order.
    indexed: bool,
    /// `"schema"."table"."column"`: never the name of what is selected, which may be its text form.
    sql: []const u8,
    /// SQL of the first value that has no place in the order: infinity, NaN.
    end: ?[]const u8,

    /// Looks it up in `selection`, whose `stream.requireColumns` holds.
    pub fn find(arena: Allocator, session: *Session, selection: *const Selection, stream: *const Stream) !CursorColumn {
        const name = stream.cursor_field.?;
        const place = selection.place(name).?;
        const column = selection.columns[place];
        const family = Family.ofColumn(column.of) orelse return unusable(stream, column.of, column.of.type_name);
        const found = try session.rows(
            3,
            arena,
            @embedFile("sql/cursor_column.sql"),
            &.{ selection.relation.oid, name },
            selection.doing,
        );
        if (found.len == 0) return selection.changed();
        if (!found[0].isTrue(0))
            return unusable(stream, column.of, "text of a collation that is not deterministic");
        if (stream.cursor_lag != null and !family.isTime()) return sdk.errors.failHinted(
            .config,
            "leave cursor_lag out",
            "stream {s}: cursor_lag is a time, and column {s} is {s}: only date, timestamp and timestamptz can lag",
            .{ stream.name, name, column.of.type_name },
        );
        return .{
            .of = column.of,
            .place = place,
            .as_text = column.as_text,
            .family = family,
            .collation = found[0].optional(1),
            .indexed = found[0].isTrue(2),
            .sql = try selection.columnSql(arena, name),
            .end = switch (family) {
                .date, .timestamp, .timestamptz => try family.literal(arena, "infinity"),
                // Numerics are infinite since PostgreSQL 14.
                .numeric => try family.literal(
                    arena,
                    if (session.connection.server_version >= 140_000) "Infinity" else "NaN",
                ),
                else => null,
            },
        };
    }

    fn unusable(stream: *const Stream, column: *const RelationColumn, what: []const u8) sdk.errors.Failed {
        return sdk.errors.failHinted(
            .config,
            "a cursor can be " ++ Family.allowed,
            "stream {s}: column {s} cannot be a cursor: it is {s}",
            .{ stream.name, column.name, what },
        );
    }

    /// Rows at `value` and after it; null: from the beginning. Never those that have no place in the order.
    pub fn conditions(self: *const CursorColumn, arena: Allocator, value: ?[]const u8) Allocator.Error![]const []const u8 {
        var sql: std.ArrayList([]const u8) = .empty;
        if (value) |from|
            try sql.append(arena, try self.comparison(arena, ">=", try self.family.literal(arena, from)));
        if (self.end) |end|
            try sql.append(arena, try self.comparison(arena, "<", end))
        else if (value == null and self.of.nullable)
            try sql.append(arena, try std.fmt.allocPrint(arena, "{s} IS NOT NULL", .{self.sql}));
        return sql.items;
    }

    fn comparison(self: *const CursorColumn, arena: Allocator, operator: []const u8, other: []const u8) Allocator.Error![]const u8 {
        return std.fmt.allocPrint(arena, "{s} OPERATOR(pg_catalog.{s}) {s}", .{ self.sql, operator, other });
    }

    /// The rows that are never read; null: there can be none.
    pub fn excludedCondition(self: *const CursorColumn, arena: Allocator) Allocator.Error!?[]const u8 {
        const end = self.end orelse return if (self.of.nullable)
            try std.fmt.allocPrint(arena, "{s} IS NULL", .{self.sql})
        else
            null;
        const beyond = try self.comparison(arena, ">=", end);
        if (!self.of.nullable) return beyond;
        return try std.fmt.allocPrint(arena, "({s} IS NULL OR {s})", .{ self.sql, beyond });
    }

    /// What stands for the value of `field` in a cursor.
    pub fn appendText(self: *const CursorColumn, text: *std.ArrayList(u8), gpa: Allocator, field: []const u8) canonical.Error!void {
        switch (self.family) {
            .integer => try canonical.appendInteger(text, gpa, field),
            .numeric => if (self.as_text)
                try text.appendSlice(gpa, canonical.trimNumeric(field))
            else
                try canonical.appendNumeric(text, gpa, field),
            .text => try text.appendSlice(gpa, field),
            .char => try text.appendSlice(gpa, trimChar(field)),
            .uuid => try canonical.appendUuid(text, gpa, field),
            .date => try canonical.appendDate(text, gpa, try canonical.dateDays(field)),
            .timestamp, .timestamptz => try canonical.appendTimestamp(
                text,
                gpa,
                try canonical.timestampMicros(field),
                self.family.zone(),
            ),
        }
    }

    /// Whether two fields hold the same value.
    pub inline fn same(self: *const CursorColumn, a: []const u8, b: []const u8) bool {
        if (std.mem.eql(u8, a, b)) return true;
        return switch (self.family) {
            .numeric, .char => self.alike(a, b),
            else => false,
        };
    }

    fn alike(self: *const CursorColumn, a: []const u8, b: []const u8) bool {
        if (self.family == .char) return std.mem.eql(u8, trimChar(a), trimChar(b));
        if (self.as_text) return std.mem.eql(u8, canonical.trimNumeric(a), canonical.trimNumeric(b));
        // All but how many digits behind the point are shown.
        return a.len == b.len and a.len >= 8 and std.mem.eql(u8, a[0..6], b[0..6]) and std.mem.eql(u8, a[8..], b[8..]);
    }

    /// The place of a date, timestamp or timestamptz in the order.
    pub fn instant(self: *const CursorColumn, field: []const u8) error{Malformed}!i64 {
        return if (self.family == .date) try canonical.dateDays(field) else try canonical.timestampMicros(field);
    }

    /// `instant` of a cursor's value, for which `isValue` holds.
    pub fn instantOf(self: *const CursorColumn, value: []const u8) i64 {
        return if (self.family == .date)
            canonical.parseDate(value).?
        else
            canonical.parseTimestamp(value, self.family.zone()).?;
    }

    /// As many instants as `seconds` are, or whole days of them for a date.
    pub fn stepOf(self: *const CursorColumn, seconds: u64) i64 {
        const step = if (self.family == .date) seconds / seconds_per_day else seconds *| 1_000_000;
        return std.math.cast(i64, step) orelse std.math.maxInt(i64);
    }

    /// The value that lies `seconds` before `value`, or whole days of them for a date.
    pub fn before(self: *const CursorColumn, arena: Allocator, value: []const u8, seconds: u64) Allocator.Error![]const u8 {
        var text: std.ArrayList(u8) = .empty;
        const at = self.instantOf(value);
        const step = self.stepOf(seconds);
        // The first day that PostgreSQL has.
        const first: i64 = if (self.family == .date) values.first_day else values.first_day * seconds_per_day * 1_000_000;
        if (at -| step < first) return "-infinity";
        if (self.family == .date)
            try canonical.appendDate(&text, arena, @intCast(at - step))
        else
            try canonical.appendTimestamp(&text, arena, at - step, self.family.zone());
        return text.items;
    }
};

const seconds_per_day = 24 * 60 * 60;

fn trimChar(field: []const u8) []const u8 {
    return std.mem.trimEnd(u8, field, " ");
}

fn columnForTest(family: Family, as_text: bool) CursorColumn {
    return .{
        .of = undefined,
        .place = 0,
        .as_text = as_text,
        .family = family,
        .collation = null,
        .indexed = true,
        .sql = "c",
        .end = null,
    };
}

test "values are the same when they compare equal, not when their bytes do" {
    const padded = columnForTest(.char, false);
    try std.testing.expect(padded.same("ab  ", "ab"));
    try std.testing.expect(!padded.same(" ab", "ab"));
    const text = columnForTest(.text, false);
    try std.testing.expect(!text.same("ab ", "ab"));
    const printed = columnForTest(.numeric, true);
    try std.testing.expect(printed.same("1.00", "1.0") and printed.same("1", "1.0") and !printed.same("10", "1"));
    const number = columnForTest(.numeric, false);
    // SELECT numeric_send(1.0), numeric_send(1.00), numeric_send(2.00)
    const one = "\x00\x01\x00\x00\x00\x00\x00\x01\x00\x01";
    try std.testing.expect(number.same(one, "\x00\x01\x00\x00\x00\x00\x00\x02\x00\x01"));
    try std.testing.expect(!number.same(one, "\x00\x01\x00\x00\x00\x00\x00\x02\x00\x02"));
}

test "a lag ends where time begins" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const cases = .{
        .{ Family.timestamptz, "2024-03-01 00:00:00.5+00", 90_000, "2024-02-28 23:00:00.5+00" },
        .{ Family.timestamp, "0001-01-01 00:00:00", 1, "0001-12-31 23:59:59 BC" },
        .{ Family.date, "2024-03-01", 100_000, "2024-02-29" },
        .{ Family.date, "2024-03-01", 10, "2024-03-01" },
        .{ Family.date, "5874897-12-31", seconds_per_day, "5874897-12-30" },
        .{ Family.date, "4714-11-25 BC", 2 * seconds_per_day, "-infinity" },
        .{ Family.timestamp, "4714-11-24 00:00:00 BC", 1, "-infinity" },
        .{ Family.timestamp, "-infinity", 1, "-infinity" },
        .{ Family.timestamptz, "2024-03-01 00:00:00+00", std.math.maxInt(u64), "-infinity" },
    };
    inline for (cases) |case| {
        const column = columnForTest(case[0], false);
        try std.testing.expectEqualStrings(case[3], try column.before(arena.allocator(), case[1], case[2]));
    }
}
