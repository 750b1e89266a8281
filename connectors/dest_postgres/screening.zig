//! Rows of a temporary table that the target's own constraints would refuse, found by one query where they can be: then
//! all others go by one statement again, and only these are tried one by one. What a query cannot tell (unique indexes,
//! triggers), is found by halving.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const Landing = @import("landing.zig").Landing;

const Allocator = std.mem.Allocator;

const conditions_sql = @embedFile("sql/screening.sql");

/// The suspects, numbered from 1 in their column `ordinal`.
pub const table = "pg_temp._rapidbyte_suspects";

pub const Suspects = struct {
    count: u64,
    /// The column with the number that a suspect has in the table that it comes from, as SQL.
    place: []const u8,

    /// `from`'s rows but for the suspects, as SQL.
    pub fn others(self: *const Suspects, arena: Allocator, from: []const u8, ordinal: []const u8, range: []const u8) ![]const u8 {
        return std.fmt.allocPrint(
            arena,
            "(SELECT * FROM {s} AS each WHERE {s} NOT EXISTS (SELECT FROM {s} AS suspect WHERE suspect.{s} = each.{s}))",
            .{ from, range, table, self.place, ordinal },
        );
    }
};

/// Copies the suspects among the rows of `from` into `table`. Null where none is found, or nothing can be said.
pub fn find(arena: Allocator, landing: *const Landing, from: []const u8, ordinal: []const u8, doing: []const u8) !?Suspects {
    const session = landing.session;
    try session.seeCatalog();
    const conditions = try session.query(
        arena,
        conditions_sql,
        &.{ landing.target.schema, landing.target.table, try sdk.json.stringify(arena, try namesOf(arena, landing)), from },
        doing,
    );
    const condition = conditions.scalar() orelse {
        try session.seeAsUser();
        return null;
    };
    const names = try columns_module.nameList(arena, landing.columns);
    const place = try std.fmt.allocPrint(arena, "\"_{s}", .{ordinal[1..]});
    const sql = try std.fmt.allocPrint(
        arena,
        "SAVEPOINT rapidbyte_screening; CREATE TEMPORARY TABLE {s} ON COMMIT DROP AS " ++
            "SELECT {s}, pg_catalog.row_number() OVER (ORDER BY {s}) AS {s}, {s} AS {s} FROM {s} AS each WHERE {s}; " ++
            // Each suspect is looked for by its number.
            "CREATE UNIQUE INDEX ON {s} ({s}); ANALYZE {s} ({s}); RELEASE SAVEPOINT rapidbyte_screening",
        .{ table, names, ordinal, ordinal, ordinal, place, from, condition, table, ordinal, table, ordinal },
    );
    session.connection.exec(sql) catch |err| {
        const failed = session.failed(err, doing);
        if (err != error.Server) return failed;
        // A condition that cannot be asked like this, of these rows or at all: they are found without it.
        sdk.errors.clear();
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_screening; RELEASE SAVEPOINT rapidbyte_screening", doing);
        try session.seeAsUser();
        return null;
    };
    try session.seeAsUser();
    const counted = try session.query(arena, "SELECT pg_catalog.count(*) FROM " ++ table, &.{}, doing);
    const count = std.fmt.parseInt(u64, counted.scalar() orelse "0", 10) catch 0;
    if (count > 0) return .{ .count = count, .place = place };
    try forget(landing, doing);
    return null;
}

pub fn forget(landing: *const Landing, doing: []const u8) !void {
    try landing.session.exec("DROP TABLE " ++ table, doing);
}

/// Whether rows of the target point to others of its rows by a foreign key: then one may be good once another is there.
pub fn pointsToItself(arena: Allocator, landing: *const Landing) !bool {
    const found = try landing.session.query(
        arena,
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid " ++
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace " ++
            "WHERE k.contype = 'f' AND k.confrelid = k.conrelid AND n.nspname = $1 AND c.relname = $2)",
        &.{ landing.target.schema, landing.target.table },
        landing.target.doing,
    );
    return std.mem.eql(u8, found.scalar() orelse "", "t");
}

fn namesOf(arena: Allocator, landing: *const Landing) ![]const []const u8 {
    const names = try arena.alloc([]const u8, landing.columns.len);
    for (names, landing.columns) |*name, column| name.* = column.name;
    return names;
}
