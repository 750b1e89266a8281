//! Values to values of the columns' types, by the server that keeps them: from their text forms, or from another type.
//!
//! From another type they go by way of their text, and fit where the column's type reads it: 1.5 is no integer, and a text
//! that is too long for its column is not cut. A type that rounds what it reads rounds here too: `numeric(10,2)`, `real`.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const Column = columns_module.Column;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

/// A value that the column's type does not have.
pub const Misfit = enum {
    /// There is none: the type is the stream's own.
    impossible,
    fails,
    becomes_null,
};

/// SQL around a column of a staging table.
pub const Conversion = struct {
    /// Makes text of it, where it is something else.
    as_text: []const u8 = "",
    /// Around the text.
    before: []const u8,
    after: []const u8,
    /// The type's definition may differ from the source's: what it prints must be what came.
    verified: bool,
    /// The text holds names that were made under a search path of pg_catalog, and are to be read under it.
    names: bool,
    /// Whether a value fits, around its text.
    fits: ?struct { before: []const u8, after: []const u8 } = null,
    /// … and what it becomes has to print as it came.
    fits_exactly: bool = false,
    /// A function that `fits` needs.
    function: ?[]const u8 = null,

    fn append(self: *const Conversion, out: *std.ArrayList(u8), arena: Allocator, quoted: []const u8) !void {
        try out.print(arena, "{s}{s}{s}{s}", .{ self.before, quoted, self.as_text, self.after });
    }

    fn appendFits(self: *const Conversion, out: *std.ArrayList(u8), arena: Allocator, quoted: []const u8) !void {
        const fits = self.fits.?;
        if (self.fits_exactly) try out.appendSlice(arena, "CASE WHEN ");
        try out.print(arena, "{s}{s}{s}{s}", .{ fits.before, quoted, self.as_text, fits.after });
        if (!self.fits_exactly) return;
        try out.appendSlice(arena, " THEN pg_catalog.format('%s', ");
        try self.append(out, arena, quoted);
        try out.print(arena, ") OPERATOR(pg_catalog.=) {s}{s} END", .{ quoted, self.as_text });
    }
};

/// pg_input_is_valid.
const validity_since = 160000;

const conversions_sql = std.fmt.comptimePrint(@embedFile("sql/conversions.sql"), .{postgres.types.prints_names_sql});

pub fn anyNames(columns: []const Column) bool {
    for (columns) |column| if (column.conversion) |conversion| if (conversion.names) return true;
    return false;
}

/// Finds out for all columns that the server converts, which get their `conversion` here.
pub fn resolve(arena: Allocator, session: *Session, columns: []Column) !void {
    var names: std.ArrayList([]const u8) = .empty;
    for (columns) |column| if (column.sent_as != null) try names.append(arena, column.type);
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
        const sent_as = column.sent_as orelse continue;
        const row = found.rows[i];
        i += 1;
        const is_cast = column.misfit != .impossible;
        var made: Conversion = .{
            .as_text = if (is_cast and !std.mem.eql(u8, sent_as, "text")) "::pg_catalog.text" else "",
            .before = row[0].?,
            .after = row[1].?,
            .verified = isTrue(row[2]),
            .names = isTrue(row[3]),
        };
        if (is_cast) {
            // A cast to a length cuts; an assignment refuses.
            const element = columns_module.elementName(column.type);
            const of = element orelse column.type;
            if (std.mem.startsWith(u8, of, "bit") or std.mem.eql(u8, of, "name")) {
                made.verified = true;
            } else if (postgres.types.isString(of)) {
                made.before = "";
                made.after = if (element == null) "" else "::pg_catalog.text[]";
            }
            if (column.in_key) made.verified = true;
            if (column.misfit == .becomes_null) {
                // Their input cuts without a word.
                made.fits_exactly = std.mem.eql(u8, of, "name") or std.mem.eql(u8, of, "\"char\"");
                made.verified = false;
            }
            try addFits(arena, session, &made, column.type, i);
        }
        column.conversion = made;
    }
}

fn addFits(arena: Allocator, session: *const Session, made: *Conversion, type_name: []const u8, number: usize) !void {
    // Bytes that they hold. What is longer they cut without a word.
    inline for (.{ .{ "name", "63" }, .{ "\"char\"", "1" } }) |cutting| if (std.mem.eql(u8, type_name, cutting[0])) {
        made.fits = .{ .before = "(pg_catalog.octet_length(", .after = ") <= " ++ cutting[1] ++ ")" };
        return;
    };
    if (session.connection.server_version >= validity_since) {
        made.fits = .{
            .before = "pg_catalog.pg_input_is_valid(",
            .after = try std.fmt.allocPrint(arena, ", {s})", .{try postgres.ident.literal(arena, type_name)}),
        };
        return;
    }
    // An assignment in PL/pgSQL is what an assignment to a column is. On a line of its own: the type's name may end in a
    // comment.
    const body = try std.fmt.allocPrint(arena,
        \\DECLARE
        \\    kept {s}
        \\;
        \\BEGIN
        \\    kept := value;
        \\    RETURN true;
        \\EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        \\    RETURN false;
        \\END
    , .{type_name});
    const name = try std.fmt.allocPrint(arena, "pg_temp._rapidbyte_fits_{d}", .{number});
    made.function = try std.fmt.allocPrint(
        arena,
        "CREATE OR REPLACE FUNCTION {s}(value pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS {s}; ",
        .{ name, try postgres.ident.literal(arena, body) },
    );
    made.fits = .{ .before = try std.fmt.allocPrint(arena, "{s}(", .{name}), .after = ")" };
}

/// The statements that make what the conversions need.
pub fn functions(arena: Allocator, columns: []const Column) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns) |column| if (column.conversion) |made| if (made.function) |function| try out.appendSlice(arena, function);
    return out.items;
}

fn isTrue(text: ?[]const u8) bool {
    return std.mem.eql(u8, text orelse "", "t");
}

/// `"a", "b"::pg_catalog.inet AS "b"`: the values of a staging table's row.
pub fn list(arena: Allocator, columns: []const Column) ![]const u8 {
    var out: std.ArrayList(u8) = .empty;
    for (columns, 0..) |column, i| {
        if (i > 0) try out.appendSlice(arena, ", ");
        if (column.conversion) |made| {
            if (column.misfit == .becomes_null) {
                try out.appendSlice(arena, "CASE WHEN ");
                try made.appendFits(&out, arena, column.quoted);
                try out.appendSlice(arena, " THEN ");
            }
            try made.append(&out, arena, column.quoted);
            try out.print(arena, "{s} AS {s}", .{ if (column.misfit == .becomes_null) " END" else "", column.quoted });
        } else {
            try out.appendSlice(arena, column.quoted);
        }
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
        try out.appendSlice(arena, "coalesce(pg_catalog.bool_or(pg_catalog.format('%s', ");
        try conversion.append(&out, arena, column.quoted);
        try out.print(arena, ") OPERATOR(pg_catalog.<>) {s}{s}), false)", .{ column.quoted, conversion.as_text });
    }
    if (out.items.len == 0) return null;
    try out.print(arena, " FROM {s}", .{staging});
    return out.items;
}

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
        if (column.misfit == .fails) return sdk.errors.failHinted(
            .data,
            misfit_hint,
            misfit_message ++ ", and some values would not stay the same" ++ misfit_policy,
            .{ doing, column.name, column.type, column.cast_from },
        );
        return sdk.errors.failHinted(
            .data,
            "give the type the same definition on both sides, or leave the column out",
            "{s}: column {s} has a value that type {s} as it is defined here would change",
            .{ doing, column.name, column.type },
        );
    }
}

const misfit_message = "{s}: column {s} is {s} in the table and {s} in the stream";
const misfit_policy = " (schema_evolution.type_change: coerce)";
const misfit_hint =
    "mend the rows at the source, or set `type_change: null` under `schema_evolution` to write NULL for such values";

/// Records which column's values did not fit, after a conversion that failed on its data. Null when none is to blame.
pub fn blame(arena: Allocator, session: *Session, columns: []const Column, staging: []const u8, doing: []const u8) !?*const Column {
    for (columns) |*column| {
        if (column.misfit != .fails) continue;
        const made = column.conversion.?;
        var sql: std.ArrayList(u8) = .empty;
        try sql.print(arena, "SELECT pg_catalog.count(*), pg_catalog.min({s}{s}) FROM {s} WHERE NOT ", .{
            column.quoted,
            if (std.mem.eql(u8, column.sent_as.?, "text")) "" else "::pg_catalog.text",
            staging,
        });
        try made.appendFits(&sql, arena, column.quoted);
        const found = try session.query(arena, sql.items, &.{}, doing);
        const example = found.rows[0][1] orelse continue;
        _ = &sdk.errors.failHinted(
            .data,
            misfit_hint,
            misfit_message ++ ", and {s} values do not fit, such as {s}" ++ misfit_policy,
            .{ doing, column.name, column.type, column.cast_from, found.rows[0][0].?, shortened(example) },
        );
        return column;
    }
    return null;
}

/// What a message quotes of a value.
const quoted_bytes_max = 60;

fn shortened(text: []const u8) []const u8 {
    if (text.len <= quoted_bytes_max) return text;
    var end: usize = quoted_bytes_max;
    // Not within a character.
    while (end > 0 and text[end] & 0xc0 == 0x80) end -= 1;
    return text[0..end];
}

fn columnForTest(name: []const u8, conversion: ?Conversion) Column {
    return .{
        .name = name,
        .quoted = name,
        .type = "d",
        .nullable = true,
        .codec = .{ .wire = .bytes },
        .sent_as = if (conversion != null) "text" else null,
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
