//! Batches into one table, by COPY.
//!
//!     direct    batch ─ encode ─▶ COPY table
//!     staged    batch ─ encode ─▶ COPY temporary table as sent ─ INSERT … SELECT text::type ─▶ table     in chunks
//!
//! Staged is for streams whose values only the server can turn into those of the table: text forms, and types that
//! changed. The functions behind triggers and checks want their user's search path then. The names that regclass and its
//! like hold want the one that they were made under, so that a table which was there before gets those by way of one more
//! temporary table.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const conversion = @import("conversion.zig");
const encode = @import("encode.zig");
const refusal = @import("refusal.zig");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;

/// Bytes of a chunk in the staging table: few enough to stay near the server's memory, many enough that the statements
/// between them do not count.
const chunk_bytes_max = 64 * 1024 * 1024;

const truncated_rows_min = 4096;

const staging_name = "pg_temp._rapidbyte_staging";
const converted_name = "pg_temp._rapidbyte_converted";

/// How the server gets the rows.
pub const Way = enum {
    direct,
    staged,
    staged_twice,

    /// `made_here`: the table was made in this transaction, and has no functions to run.
    pub fn of(columns: []const Column, made_here: bool) Way {
        if (!columns_module.anyConverted(columns)) return .direct;
        return if (made_here or !conversion.anyNames(columns)) .staged else .staged_twice;
    }
};

pub const Options = struct {
    /// The table, as SQL.
    table: []const u8,
    columns: []const Column,
    /// The table was made in this transaction: rows may be written as if they had always been there, which
    /// spares the first VACUUM, and lets transactions with an older snapshot see them.
    freeze: bool = false,
    /// Whether the table was made in this transaction.
    made_here: bool = false,
    way: Way = .direct,
    /// The column of the table that numbers the rows as they come, as SQL: `columns.ordinal_definition`.
    ordinal: ?[]const u8 = null,
    /// For errors: "writing raw.users".
    doing: []const u8,
};

pub const Load = struct {
    session: *Session,
    options: Options,
    copy_sql: []const u8,
    create_staging_sql: []const u8,
    verify_sql: ?[]const u8,
    convert_sql: []const u8,
    /// Rows that went into the staging table since it was last truncated.
    staged_rows: u64 = 0,
    /// From the table of converted rows, where there is one.
    insert_sql: []const u8,
    encoder: encode.Encoder,
    copy: ?postgres.CopyIn = null,
    staging_exists: bool = false,
    /// Bytes handed to the server, of all COPYs.
    bytes: u64 = 0,

    /// Everything lives in `arena`, as long as the verb.
    pub fn init(arena: Allocator, session: *Session, options: Options) !Load {
        const columns = options.columns;
        const names = try columns_module.nameList(arena, columns);
        const direct = options.way == .direct;
        // Through a staging table, that one's numbers are the order.
        const carried = if (options.ordinal) |ordinal| try std.fmt.allocPrint(arena, ", {s}", .{ordinal}) else "";
        return .{
            .session = session,
            .options = options,
            .copy_sql = try std.fmt.allocPrint(arena, "COPY {s} ({s}) FROM STDIN (FORMAT binary{s})", .{
                if (direct) options.table else staging_name,
                names,
                if (options.freeze and direct) ", FREEZE" else "",
            }),
            .create_staging_sql = try std.mem.concat(arena, u8, &.{
                try conversion.functions(arena, columns),
                try temporaryTable(arena, staging_name, columns, .staging, options.ordinal),
                if (options.way == .staged_twice) try temporaryTable(arena, converted_name, columns, .beside, null) else "",
            }),
            .verify_sql = try conversion.verification(arena, columns, staging_name),
            .convert_sql = try std.fmt.allocPrint(
                arena,
                "INSERT INTO {s} ({s}{s}) OVERRIDING SYSTEM VALUE SELECT {s}{s} FROM {s}",
                .{
                    if (options.way == .staged_twice) converted_name else options.table,
                    names,
                    carried,
                    try conversion.list(arena, columns),
                    carried,
                    staging_name,
                },
            ),
            .insert_sql = try std.fmt.allocPrint(
                arena,
                "INSERT INTO {s} ({s}) OVERRIDING SYSTEM VALUE SELECT {s} FROM {s}; TRUNCATE {s}",
                .{ options.table, names, names, converted_name, converted_name },
            ),
            .encoder = try .init(arena, try columns_module.codecsOf(arena, columns)),
        };
    }

    fn temporaryTable(
        arena: Allocator,
        name: []const u8,
        columns: []const Column,
        definitions: columns_module.Definitions,
        ordinal: ?[]const u8,
    ) ![]const u8 {
        return std.fmt.allocPrint(
            arena,
            "CREATE TEMPORARY TABLE {s} ({s}{s}{s}{s}) ON COMMIT DROP; ",
            .{
                name,
                try columns_module.definitionList(arena, columns, definitions),
                if (ordinal != null) ", " else "",
                ordinal orelse "",
                if (ordinal != null) " " ++ columns_module.ordinal_definition else "",
            },
        );
    }

    /// From the next transaction on.
    pub fn thaw(self: *Load, arena: Allocator) !void {
        if (!self.options.made_here) return;
        var options = self.options;
        options.made_here = false;
        options.freeze = false;
        options.way = .of(options.columns, false);
        const bytes = self.bytes;
        self.* = try .init(arena, self.session, options);
        self.bytes = bytes;
    }

    /// `first_row` is the stream's number of the batch's first row, for errors.
    pub fn add(self: *Load, batch: *const sdk.arrow.Batch, first_row: u64) !void {
        return self.addRange(batch, 0, batch.rows, first_row);
    }

    /// The batch's rows from the one number up to before the other.
    pub fn addRange(self: *Load, batch: *const sdk.arrow.Batch, from: usize, to: usize, first_row: u64) !void {
        if (from == to) return;
        if (self.copy == null) try self.start();
        self.staged_rows += to - from;
        const copy = &self.copy.?;
        self.encoder.encodeRange(Sink{ .copy = copy }, batch, from, to) catch |err| switch (err) {
            error.OutOfRange, error.SubMicrosecond, error.InfiniteInterval, error.TooLong, error.NotANumber => |value_error| {
                return self.refuse(value_error, first_row);
            },
            else => |other| {
                // The server ended this COPY, or nobody knows: there is nothing left to end.
                self.copy = null;
                return self.session.failed(other, self.options.doing);
            },
        };
        if (self.options.way != .direct and copy.bytes >= chunk_bytes_max) try self.finish();
    }

    /// Everything that was added is in the table.
    pub fn finish(self: *Load) !void {
        var copy = self.copy orelse return;
        self.copy = null;
        copy.write(postgres.copy.trailer) catch |err| return self.session.failed(err, self.options.doing);
        const kept = copy.finish() catch |err| return self.session.failed(err, self.options.doing);
        self.bytes += copy.bytes;
        sdk.host.log(.debug, "COPY took {d} rows, {d} bytes", .{ kept, copy.bytes });
        if (self.options.way != .direct) try self.convert();
    }

    fn convert(self: *Load) !void {
        const session = self.session;
        const doing = self.options.doing;
        const names = conversion.anyNames(self.options.columns);
        if (names) try session.seeCatalog();
        if (anyMayFail(self.options.columns)) try self.convertOrBlame() else try self.convertStaged();
        if (names) try session.seeAsUser();
        if (self.options.way == .staged_twice) try session.exec(self.insert_sql, doing);
    }

    fn convertStaged(self: *Load) !void {
        const doing = self.options.doing;
        if (self.verify_sql) |sql| {
            var scratch: std.heap.ArenaAllocator = .init(self.session.gpa);
            defer scratch.deinit();
            try conversion.verify(scratch.allocator(), self.session, self.options.columns, sql, doing);
        }
        try self.session.exec(self.convert_sql, doing);
        // A TRUNCATE makes a new file, which is worth it for many rows only.
        if (self.staged_rows < truncated_rows_min) return self.session.exec("DELETE FROM " ++ staging_name, doing);
        try self.session.exec("TRUNCATE " ++ staging_name, doing);
        self.staged_rows = 0;
    }

    /// The server says which value did not fit, but not whose.
    fn convertOrBlame(self: *Load) !void {
        const session = self.session;
        const doing = self.options.doing;
        try session.exec("SAVEPOINT rapidbyte_cast", doing);
        self.convertStaged() catch |failed| {
            if (failed != error.Failed) return failed;
            const said = session.connection.last_error orelse return failed;
            if (!said.hasClass("22") and !said.hasClass("23")) return failed;
            var scratch: std.heap.ArenaAllocator = .init(session.gpa);
            defer scratch.deinit();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_cast", doing);
            const blamed = try conversion.blame(scratch.allocator(), session, self.options.columns, staging_name, doing) orelse
                // What the server said is still on record.
                return failed;
            session.culprit = .{ .category = .cast, .column = blamed.name };
            return error.Failed;
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_cast", doing);
    }

    /// Ends an open COPY without its rows; the transaction is failed afterwards.
    pub fn abandon(self: *Load) void {
        var copy = self.copy orelse return;
        self.copy = null;
        if (!self.session.connection.broken) copy.fail("the stream was aborted") catch {};
    }

    /// The staging table went with the last transaction.
    pub fn forgetStaging(self: *Load) void {
        self.staging_exists = false;
    }

    /// The transaction goes on with tables of other columns.
    pub fn dropStaging(self: *Load) !void {
        if (!self.staging_exists) return;
        try self.session.exec(
            "DROP TABLE " ++ staging_name ++ "; DROP TABLE IF EXISTS " ++ converted_name,
            "dropping a staging table",
        );
        self.staging_exists = false;
    }

    /// Makes the staging table, where rows take their way through one.
    pub fn prepare(self: *Load) !void {
        if (self.options.way == .direct or self.staging_exists) return;
        try self.session.seeCatalog();
        try self.session.exec(self.create_staging_sql, "creating a staging table");
        try self.session.seeAsUser();
        self.staging_exists = true;
    }

    /// The table that COPY writes into, as the server names it in what it says of a failure.
    pub fn tableName(self: *const Load) []const u8 {
        const quoted = if (self.options.way == .direct) self.options.table else staging_name;
        const name = quoted[if (std.mem.findScalarLast(u8, quoted, '.')) |dot| dot + 1 else 0..];
        // Of a name with quotes or dots in it not the whole is found, which is that of no table then.
        return std.mem.trim(u8, name, "\"");
    }

    fn start(self: *Load) !void {
        try self.prepare();
        self.copy = self.session.connection.copyIn(self.copy_sql) catch |err|
            return self.session.failed(err, self.options.doing);
        self.copy.?.write(postgres.copy.header) catch |err| {
            self.copy = null;
            return self.session.failed(err, self.options.doing);
        };
    }

    fn refuse(self: *Load, err: encode.ValueError, first_row: u64) sdk.errors.Failed {
        const offender = self.encoder.offender;
        const what = switch (err) {
            error.OutOfRange => "is out of the range of its type",
            error.SubMicrosecond => "has a fraction of a microsecond, which PostgreSQL does not keep",
            error.InfiniteInterval => "is infinite, which intervals can be from PostgreSQL 17 on",
            error.TooLong => "is longer than 1 GiB",
            error.NotANumber => "is no number that numeric can hold",
        };
        const name = self.options.columns[offender.column].name;
        self.session.culprit = .{ .category = categoryOf(err), .column = name, .row = offender.row };
        return sdk.fail(.data, "{s}: column {s} of row {d} {s}", .{
            self.options.doing,
            name,
            first_row + offender.row + 1,
            what,
        });
    }
};

fn categoryOf(err: encode.ValueError) refusal.Category {
    return switch (err) {
        error.OutOfRange, error.SubMicrosecond, error.InfiniteInterval => .out_of_range,
        error.TooLong => .too_long,
        error.NotANumber => .invalid_text,
    };
}

fn anyMayFail(columns: []const Column) bool {
    for (columns) |column| if (column.misfit == .fails) return true;
    return false;
}

/// COPY's frame as the encoder wants it: all the room that is left in it.
const Sink = struct {
    copy: *postgres.CopyIn,

    pub inline fn reserve(self: Sink, count: usize) ![]u8 {
        _ = try self.copy.reserve(count);
        return self.copy.frame[self.copy.used..];
    }

    pub inline fn commit(self: Sink, count: usize) void {
        self.copy.commit(count);
    }
};
