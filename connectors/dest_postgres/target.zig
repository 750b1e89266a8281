//! The table that a stream goes into, and how it comes into being.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const Column = columns_module.Column;

pub const Target = struct {
    schema: []const u8,
    table: []const u8,
    /// As SQL.
    quoted: []const u8,
    /// For messages: `raw.users`.
    label: []const u8,
    /// "writing raw.users".
    doing: []const u8,

    pub fn init(arena: Allocator, schema: []const u8, table: []const u8) !Target {
        for ([_][]const u8{ schema, table }) |name| {
            if (name.len == 0 or name.len > postgres.ident.name_bytes_max or std.mem.findScalar(u8, name, 0) != null)
                return sdk.fail(.config, "\"{s}\" cannot be a name in PostgreSQL: it is not of 1 to 63 bytes", .{name});
        }
        const label = try std.fmt.allocPrint(arena, "{s}.{s}", .{ schema, table });
        return .{
            .schema = schema,
            .table = table,
            .quoted = try postgres.ident.qualified(arena, schema, table),
            .label = label,
            .doing = try std.fmt.allocPrint(arena, "writing {s}", .{label}),
        };
    }

    /// Whether the server calls it so.
    pub fn isNamed(self: *const Target, schema: ?[]const u8, table: ?[]const u8) bool {
        return std.mem.eql(u8, self.schema, schema orelse return false) and std.mem.eql(u8, self.table, table orelse return false);
    }

    /// Null when there is no such table. What is not a table is refused.
    pub fn find(self: *const Target, arena: Allocator, session: *Session) !?Relation {
        const found = try Relation.find(arena, session, self.schema, self.table) orelse return null;
        if (!found.isTable()) return sdk.errors.failHinted(
            .schema,
            "name another `table` for this stream",
            "{s} is a {s}: only tables can be written",
            .{ self.label, found.describeKind() },
        );
        return found;
    }

    /// The failure of what was planned for the table as it was.
    pub fn altered(self: *const Target) sdk.errors.Failed {
        return sdk.errors.failHinted(
            .transient_db,
            "run the stream again once nobody alters the table any more",
            "{s} was altered by somebody else while it was written",
            .{self.label},
        );
    }

    pub fn create(self: *const Target, arena: Allocator, session: *Session, columns: []const Column) !void {
        const sql = try std.fmt.allocPrint(arena, "CREATE TABLE {s} ({s})", .{
            self.quoted,
            try columns_module.definitionList(arena, columns, .target),
        });
        session.connection.exec(sql) catch |err| {
            const failed = session.failed(err, try std.fmt.allocPrint(arena, "creating {s}", .{self.label}));
            if (err != error.Server) return failed;
            // The catalog's own unique indexes, where the other transaction was still open, or the name.
            const said = session.connection.last_error.?.sqlstate;
            if (!std.mem.eql(u8, said, "23505") and !std.mem.eql(u8, said, "42P07")) return failed;
            sdk.errors.clear();
            return sdk.fail(.transient_db, "{s} was created by somebody else at the same time", .{self.label});
        };
        sdk.host.log(.info, "created table {s}", .{self.label});
    }

    /// Writing rows takes this lock anyway, but nobody would know what it waits for. Who may only insert into some of the
    /// columns cannot ask for it by itself.
    pub fn awaitLock(self: *const Target, arena: Allocator, session: *Session) !void {
        const allowed = try session.query(
            arena,
            "SELECT has_table_privilege($1, 'INSERT')",
            &.{self.quoted},
            self.doing,
        );
        if (!std.mem.eql(u8, allowed.scalar() orelse "f", "t")) return;
        _ = try session.lockTable(arena, .{
            .table = try std.fmt.allocPrint(arena, "ONLY {s}", .{self.quoted}),
            .label = self.label,
            .mode = "ROW EXCLUSIVE",
            .doing = self.doing,
        });
    }

    /// After the rows: an index is built faster than it grows.
    pub fn addPrimaryKey(self: *const Target, arena: Allocator, session: *Session, key: []const []const u8) !void {
        if (key.len == 0) return;
        const names = try postgres.ident.list(arena, key);
        const sql = try std.fmt.allocPrint(arena, "ALTER TABLE {s} ADD PRIMARY KEY ({s})", .{ self.quoted, names });
        try session.exec(sql, try std.fmt.allocPrint(arena, "adding the primary key of {s}", .{self.label}));
    }
};

/// The key that a new table gets for rows that are added to it: what the pipeline names. The source table's own would
/// refuse a row that comes again, changed or by the next full refresh.
pub fn namedKey(schema: *const arrow.Schema, named: ?[]const []const u8) ![]const []const u8 {
    const key = named orelse return &.{};
    for (key) |name| if (schema.indexOf(name) == null) return sdk.errors.failHinted(
        .schema,
        "correct `primary_key`, or add the column to the stream's `columns`",
        "the primary key's column {s} is not in the stream",
        .{name},
    );
    return key;
}

/// The key that a new table gets for rows that take the place of others: what the pipeline names, or else the source
/// table's own, as far as the stream has its columns.
pub fn primaryKey(arena: Allocator, schema: *const arrow.Schema, named: ?[]const []const u8) ![]const []const u8 {
    if (named != null) return namedKey(schema, named);
    const key = try sourceKey(arena, schema);
    for (key) |name| if (schema.indexOf(name) == null) {
        sdk.host.log(.info, "no primary key is created: the stream leaves out its column {s}", .{name});
        return &.{};
    };
    return key;
}

/// The source table's own key; empty when it has none.
pub fn sourceKey(arena: Allocator, schema: *const arrow.Schema) ![]const []const u8 {
    const told = schema.get(arrow.keys.primary_key) orelse return &.{};
    return sdk.json.parse([]const []const u8, arena, told) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => sdk.fail(.protocol, "the schema's primary key is not a list of names", .{}),
    };
}

/// The key that an upsert goes by: what the pipeline names, or else the source table's own. `known` is the table's, empty
/// when it has none.
pub fn requiredKey(
    arena: Allocator,
    schema: *const arrow.Schema,
    named: ?[]const []const u8,
    known: []const []const u8,
    label: []const u8,
) ![]const []const u8 {
    const key = named orelse try sourceKey(arena, schema);
    if (key.len == 0) {
        const still = if (known.len == 0) "" else try std.fmt.allocPrint(
            arena,
            " (that of {s} is ({s}): if the source's was dropped, no policy of `schema_evolution` stands in for it)",
            .{ label, try std.mem.join(arena, ", ", known) },
        );
        return sdk.errors.failHinted(
            .config,
            "name the columns that tell its rows apart as `primary_key`",
            "an upsert into {s} without a key: the source has no primary key, and none is named{s}",
            .{ label, still },
        );
    }
    for (key) |name| if (schema.indexOf(name) == null) {
        const names = try arena.alloc([]const u8, schema.fields.len);
        for (names, schema.fields) |*each, *field| each.* = field.name;
        return sdk.errors.failHinted(
            .schema,
            "correct `primary_key`, or add the column to the stream's `columns`",
            "the key's column {s} is not in the stream, whose columns are {s}",
            .{ name, try std.mem.join(arena, ", ", names) },
        );
    };
    return key;
}
