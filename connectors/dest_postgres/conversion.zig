//! Text forms to values of their types, by the server that keeps them.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Column = @import("columns.zig").Column;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// SQL before and behind an expression that is the text.
pub const Conversion = struct {
    before: []const u8,
    after: []const u8,
    /// The type's definition may differ from the source's: what it prints must be what came.
    verified: bool,
    /// The text holds names that were made under a search path of pg_catalog, and are to be read under it.
    names: bool,
};

const conversions_sql = std.fmt.comptimePrint(@embedFile("sql/conversions.sql"), .{postgres.types.prints_names_sql});

pub fn anyNames(columns: []const Column) bool {
    for (columns) |column| if (column.conversion) |conversion| if (conversion.names) return true;
    return false;
}

/// Finds out for all columns in text form, which get their `conversion` here.
pub fn resolve(arena: Allocator, session: *Session, columns: []Column) !void {
    var names: std.ArrayList([]const u8) = .empty;
    for (columns) |column| if (column.text_form) try names.append(arena, column.type);
    if (names.items.len == 0) return;
    const doing = "looking for how text becomes a value of the columns' types";
    const found = try session.query(
        arena,
        conversions_sql,
        &.{try sdk.json.stringify(arena, names.items)},
        doing,
    );
    if (found.rows.len != names.items.len)
        return sdk.fail(.transient_db, "{s}: a type is gone that was there a moment ago", .{doing});
    var i: usize = 0;
    for (columns) |*column| {
        if (!column.text_form) continue;
        const row = found.rows[i];
        i += 1;
        column.conversion = .{ .before = row[0].?, .after = row[1].?, .verified = isTrue(row[2]), .names = isTrue(row[3]) };
    }
}

fn isTrue(text: ?[]const u8) bool {
    return std.mem.eql(u8, text orelse "", "t");
}

/// `"a", "b"::pg_catalog.inet AS "b"`: the values of a staging table's row.
pub fn list(arena: Allocator, columns: []const Column) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i| {
        if (i > 0) try out.appendSlice(arena, ", ");
        if (column.conversion) |conversion|
            try out.print(arena, "{s}{s}{s} AS {s}", .{ conversion.before, column.quoted, conversion.after, column.quoted })
        else
            try out.appendSlice(arena, column.quoted);
    }
    return out.items;
}

/// A query of one row: for each verified column, in order, whether a value in `staging` prints otherwise than it came.
/// Null when there is nothing to verify.
pub fn verification(arena: Allocator, columns: []const Column, staging: []const u8) !?[]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns) |column| {
        const conversion = column.conversion orelse continue;
        if (!conversion.verified) continue;
        try out.appendSlice(arena, if (out.items.len == 0) "SELECT " else ", ");
        try out.print(arena, verification_template, .{
            conversion.before, column.quoted, conversion.after, column.quoted,
        });
    }
    if (out.items.len == 0) return null;
    try out.print(arena, " FROM {s}", .{staging});
    return out.items;
}

const verification_template =
    "coalesce(pg_catalog.bool_or(pg_catalog.format('%s', {s}{s}{s}) OPERATOR(pg_catalog.<>) {s}), false)";

/// Runs `sql`, a `verification`; the first column whose values would change fails the stream.
pub fn verify(arena: Allocator, session: *Session, columns: []const Column, sql: []const u8, doing: []const u8) !void {
    const found = try session.query(arena, sql, &.{}, doing);
    const answers: []const ?[]const u8 = if (found.rows.len == 1) found.rows[0] else &.{};
    var i: usize = 0;
    for (columns) |column| {
        const conversion = column.conversion orelse continue;
        if (!conversion.verified) continue;
        defer i += 1;
        if (i < answers.len and std.mem.eql(u8, answers[i] orelse "", "f")) continue;
        return sdk.errors.failHinted(
            .data,
            "give the type the same definition on both sides, or leave the column out",
            "{s}: column {s} has a value that type {s} as it is defined here would change",
            .{ doing, column.name, column.type },
        );
    }
}

fn columnForTest(name: []const u8, conversion: ?Conversion) Column {
    return .{
        .name = name,
        .quoted = name,
        .type = "d",
        .nullable = true,
        .codec = .{ .wire = .bytes },
        .text_form = conversion != null,
        .conversion = conversion,
    };
}

test "text forms are converted, and verified where their type may differ" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const columns = [_]Column{
        columnForTest("a", null),
        columnForTest("b", .{ .before = "", .after = "::d", .verified = true, .names = false }),
        columnForTest("c", .{ .before = "regclassin(", .after = "::cstring)", .verified = false, .names = true }),
    };
    try std.testing.expectEqualStrings(
        "a, b::d AS b, regclassin(c::cstring) AS c",
        try list(arena.allocator(), &columns),
    );
    try std.testing.expectEqualStrings(
        "SELECT coalesce(pg_catalog.bool_or(pg_catalog.format('%s', b::d) OPERATOR(pg_catalog.<>) b), false) FROM s",
        (try verification(arena.allocator(), &columns, "s")).?,
    );
    try std.testing.expectEqual(null, try verification(arena.allocator(), columns[0..1], "s"));
    try std.testing.expect(anyNames(&columns));
    try std.testing.expect(!anyNames(columns[0..2]));
}
