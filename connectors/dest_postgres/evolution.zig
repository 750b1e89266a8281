//! What the policy makes of the differences between a stream and its table: which columns are written, and how; what the
//! table goes through before them; and what the host is told of it.
//!
//!     plan      schema + table as it is now + policy → columns, changes, statements
//!     require   the owner's rights, and nothing in the way of the statements
//!     apply     the statements, in the transaction of the rows
//!     tighten   NOT NULL, where the rows that are there permit it
//!
//! A column that the stream never had, and that the table fills by itself, is the table's own: no difference.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const columns_module = @import("columns.zig");
const conversion = @import("conversion.zig");
const drift = @import("drift.zig");
const keys = @import("changes.zig").keys;
const relation_module = @import("relation.zig");
const widening = @import("widening.zig");
const KnownColumn = @import("policy.zig").KnownColumn;
const Policy = @import("policy.zig").Policy;
const Relation = relation_module.Relation;
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const Change = drift.Change;
const Column = columns_module.Column;
const arrow = sdk.arrow;

const obstacles_sql = @embedFile("sql/alter_obstacles.sql");

/// Which side of the comparison brings what.
pub const Comparison = struct {
    session: *Session,
    target: *const Target,
    /// The target when it was looked at.
    relation: *const Relation,
    schema: *const arrow.Schema,
    policy: Policy,
    /// Null when the stream never ran.
    known: ?[]const KnownColumn,
    /// Whether what comes may be older than the table as it is: changes from before their source was altered, which the
    /// table was already.
    lags: bool = false,
    /// What rows are found by; empty where they are not.
    key: []const []const u8,
    /// The source table's own key, where that is what the table's should be; empty otherwise.
    source_key: []const []const u8,

    fn inKey(self: *const Comparison, name: []const u8) bool {
        for (self.key) |part| if (std.mem.eql(u8, part, name)) return true;
        return false;
    }

    /// Fails where somebody altered the target since. Under a lock of the target, that is the last word.
    pub fn requireCurrent(self: *const Comparison, arena: Allocator) !void {
        try self.session.seeCatalog();
        const now = try self.target.find(arena, self.session);
        if (now == null or !now.?.eql(self.relation)) return self.target.altered();
    }
};

pub const Evolution = struct {
    /// What it was planned for.
    comparison: *const Comparison,
    /// In the stream's order, without those that are left out.
    columns: []const Column,
    /// Of each of `columns`, its place in the stream.
    fields: []const usize,
    changes: []Change,
    steps: []const Step,
    tightenings: []const Tightening,
    /// Of `changes`: new columns in which rows that are there may have a value that nobody tells.
    unfilled: []const usize,
    /// The table's columns that the stream does not have, as SQL; `cleared` of them it had in an earlier run.
    removed: []const []const u8,
    cleared: []const []const u8,

    /// One clause of an ALTER TABLE.
    pub const Step = struct {
        /// Of `changes`.
        change: usize,
        kind: enum { add, retype, relax, settle },
        clause: []const u8,
    };

    const Tightening = struct {
        change: usize,
        quoted: []const u8,
        /// Whether the column is new, and may hold NULL without anybody's surprise.
        is_new: bool,
    };

    pub fn changesTable(self: *const Evolution) bool {
        return self.steps.len > 0 or self.tightenings.len > 0;
    }

    fn retypes(self: *const Evolution) bool {
        for (self.steps) |step| if (step.kind == .retype) return true;
        return false;
    }

    /// Whether the table can be altered at all, and what would stand in the way. Changes nothing.
    pub fn require(self: *const Evolution, arena: Allocator) !void {
        if (!self.changesTable()) return;
        const comparison = self.comparison;
        const session = comparison.session;
        const doing = "looking for what depends on the target's columns";
        const oid = try std.fmt.allocPrint(arena, "{d}", .{comparison.relation.oid});
        const owned = try session.query(
            arena,
            "SELECT pg_has_role(relowner, 'USAGE'), pg_get_userbyid(relowner) FROM pg_class WHERE oid = $1::oid",
            &.{oid},
            doing,
        );
        if (owned.rows.len == 1 and std.mem.eql(u8, owned.rows[0][0] orelse "", "f")) {
            var statements: std.ArrayList(u8) = .empty;
            for (self.changes) |change| for (change.ddl) |sql| {
                if (statements.items.len > 0) try statements.appendSlice(arena, "; ");
                try statements.appendSlice(arena, sql);
            };
            return sdk.errors.failHinted(
                .permission,
                try std.fmt.allocPrint(arena, "have its owner run: {s}", .{statements.items}),
                "{s} belongs to {s}, and only its owner can alter it: {s}",
                .{ comparison.target.label, owned.rows[0][1] orelse "somebody else", try self.describe(arena) },
            );
        }
        var retyped: std.ArrayList([]const u8) = .empty;
        for (self.steps) |step| if (step.kind == .retype) try retyped.append(arena, self.changes[step.change].column.?);
        const found = try session.query(
            arena,
            obstacles_sql,
            &.{ oid, try sdk.json.stringify(arena, retyped.items) },
            doing,
        );
        for (found.rows) |row| {
            const name = row[0] orelse {
                if (self.addsOrRetypes()) return sdk.errors.failHinted(
                    .schema,
                    "change it by hand, or set the policy of the change to something else",
                    "{s} cannot be altered: {s}: {s}",
                    .{ comparison.target.label, row[1].?, try self.describe(arena) },
                );
                continue;
            };
            for (self.changes) |*change| if (change.action == .widened and std.mem.eql(u8, change.column.?, name))
                return obstructed(comparison.target.label, change, row[1].?);
        }
    }

    fn addsOrRetypes(self: *const Evolution) bool {
        for (self.steps) |step| if (step.kind != .relax) return true;
        return false;
    }

    fn describe(self: *const Evolution, arena: Allocator) ![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        for (self.changes) |change| {
            if (change.ddl.len == 0) continue;
            if (out.items.len > 0) try out.appendSlice(arena, "; ");
            try out.appendSlice(arena, change.message);
            if (change.policy) |value| try out.print(arena, " (schema_evolution.{t}: {s})", .{ change.kind, value });
        }
        return out.items;
    }

    /// Tries what only trying tells, on an empty copy of the table that is gone again afterwards. In a transaction.
    pub fn rehearse(self: *const Evolution, arena: Allocator) !void {
        if (!self.retypes()) return;
        const comparison = self.comparison;
        const session = comparison.session;
        const copy = "pg_temp._rapidbyte_rehearsal";
        const doing = "trying the changes on a copy of the target";
        try session.exec("SAVEPOINT rapidbyte_rehearsal", doing);
        const create = try std.fmt.allocPrint(arena, "CREATE TEMPORARY TABLE _rapidbyte_rehearsal (LIKE {s} INCLUDING ALL)", .{comparison.target.quoted});
        if (session.connection.exec(create)) |_| {
            // Whoever holds the target lets go of it only now.
            try comparison.requireCurrent(arena);
            try self.apply(arena, copy);
        } else |err| {
            // Whoever cannot have a copy learns it from the table itself.
            if (err != error.Server) return session.failed(err, doing);
        }
        try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_rehearsal; RELEASE SAVEPOINT rapidbyte_rehearsal", doing);
    }

    /// `table` is the target, or stands for it until it takes its place. As SQL.
    pub fn apply(self: *const Evolution, arena: Allocator, table: []const u8) !void {
        if (self.steps.len == 0) return;
        const session = self.comparison.session;
        var retyping: std.ArrayList(Step) = .empty;
        var settling: std.ArrayList(Step) = .empty;
        var others: std.ArrayList(Step) = .empty;
        for (self.steps) |step| try switch (step.kind) {
            .add, .relax => &others,
            .retype => &retyping,
            .settle => &settling,
        }.append(arena, step);
        try session.seeCatalog();
        try self.alter(arena, table, others.items);
        try self.alter(arena, table, settling.items);
        // The functions in the table's indexes and checks run for that.
        try session.seeAsUser();
        try self.alter(arena, table, retyping.items);
        try self.warn(arena, table);
    }

    /// Where there are rows that lack a value.
    fn warn(self: *const Evolution, arena: Allocator, table: []const u8) !void {
        if (self.unfilled.len == 0) return;
        const sql = try std.fmt.allocPrint(arena, "SELECT EXISTS (SELECT FROM {s})", .{table});
        const found = try self.comparison.session.query(arena, sql, &.{}, self.comparison.target.doing);
        if (!std.mem.eql(u8, found.scalar() orelse "", "t")) return;
        for (self.unfilled) |at| {
            const change = &self.changes[at];
            const ddl = change.ddl;
            try change.become(
                arena,
                .unfilled,
                "it is added, and is NULL in rows that are there, which may have a value at the source that no change " ++
                    "tells; --full-refresh loads the stream anew",
                .{},
            );
            change.ddl = ddl;
        }
    }

    /// All at once, so that rows are written again once at most. Where that fails, one by one, to learn which it is.
    fn alter(self: *const Evolution, arena: Allocator, table: []const u8, steps: []const Step) !void {
        if (steps.len == 0) return;
        const session = self.comparison.session;
        const label = self.comparison.target.label;
        const doing = try std.fmt.allocPrint(arena, "altering {s}", .{label});
        var all: std.ArrayList(u8) = .empty;
        // Each on a line of its own: the name of a type may end in a comment.
        for (steps, 0..) |step, i| try all.print(arena, "{s}{s}", .{ if (i > 0) "\n, " else "", step.clause });
        try session.exec("SAVEPOINT rapidbyte_alter", doing);
        session.connection.exec(try std.fmt.allocPrint(arena, "ALTER TABLE {s} {s}", .{ table, all.items })) catch |err| {
            const failed = session.failed(err, doing);
            if (err != error.Server or !isAboutSchema(session)) return failed;
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_alter", doing);
            for (steps) |step| {
                const sql = try std.fmt.allocPrint(arena, "ALTER TABLE {s} {s}", .{ table, step.clause });
                session.connection.exec(sql) catch |again| {
                    const failed_again = session.failed(again, doing);
                    if (again != error.Server or !isAboutSchema(session)) return failed_again;
                    const said = session.connection.last_error.?;
                    return obstructed(label, &self.changes[step.change], said.message);
                };
            }
            return sdk.fail(.transient_db, "{s}: it failed once, and no more when it was tried step by step", .{doing});
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_alter", doing);
    }

    /// Needs the table's lock, or a table that nobody else knows.
    pub fn tighten(self: *Evolution, arena: Allocator, table: []const u8) !void {
        const session = self.comparison.session;
        const doing = try std.fmt.allocPrint(arena, "altering {s}", .{self.comparison.target.label});
        for (self.tightenings) |tightening| {
            const change = &self.changes[tightening.change];
            try session.exec("SAVEPOINT rapidbyte_tighten", doing);
            // Looking for NULLs first would be one more scan, and a policy of rows may hide them from a query.
            const sql = try std.fmt.allocPrint(arena, "ALTER TABLE {s} ALTER COLUMN {s} SET NOT NULL", .{ table, tightening.quoted });
            if (session.connection.exec(sql)) |_| {
                try session.exec("RELEASE SAVEPOINT rapidbyte_tighten", doing);
                continue;
            } else |err| {
                const failed = session.failed(err, doing);
                if (err != error.Server or !std.mem.eql(u8, session.connection.last_error.?.sqlstate, "23502")) return failed;
                sdk.errors.clear();
                try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_tighten", doing);
            }
            if (tightening.is_new) {
                change.ddl = change.ddl[0 .. change.ddl.len - 1];
            } else {
                try change.become(arena, .left, "rows without a value keep it from getting NOT NULL", .{});
            }
        }
    }
};

/// Not a lost connection, a lock or a full disk: those are told as they are.
fn isAboutSchema(session: *const Session) bool {
    const said = session.connection.last_error.?;
    inline for (.{ "0A", "22", "23", "2B", "42", "54" }) |class| if (said.hasClass(class))
        return !std.mem.eql(u8, said.sqlstate, "42501");
    return false;
}

fn obstructed(label: []const u8, change: *const Change, reason: []const u8) sdk.errors.Failed {
    return sdk.errors.failHinted(
        .schema,
        "change the table by hand, or set the policy of this change to something else",
        "{s}: {s} (schema_evolution.{t}: {s}), which is not possible: {s}",
        .{ label, change.message, change.kind, change.policy orelse "", reason },
    );
}

/// Everything lives in `arena`. A policy that refuses is found in the changes; what no policy can mend is an error.
pub fn plan(arena: Allocator, comparison: *const Comparison) !Evolution {
    var planner: Planner = .{ .arena = arena, .comparison = comparison };
    const wanted = try columns_module.resolve(arena, comparison.session, comparison.schema);
    for (comparison.schema.fields, wanted, 0..) |*field, *want, i| try planner.field(field, want, i);
    for (comparison.relation.columns) |*found| try planner.absent(found, wanted);
    try planner.primaryKey();
    if (planner.columns.items.len == 0 and !drift.anyRefused(planner.changes.items)) return sdk.errors.failHinted(
        .schema,
        "name another `table`, or set `new_column: add` under `schema_evolution`",
        "{s} has none of the stream's columns",
        .{comparison.target.label},
    );
    try conversion.resolve(arena, comparison.session, planner.columns.items);
    return .{
        .comparison = comparison,
        .columns = planner.columns.items,
        .fields = planner.fields.items,
        .changes = planner.changes.items,
        .steps = planner.steps.items,
        .tightenings = planner.tightenings.items,
        .unfilled = planner.unfilled.items,
        .removed = planner.removed.items,
        .cleared = planner.cleared.items,
    };
}

const Planner = struct {
    arena: Allocator,
    comparison: *const Comparison,
    columns: std.ArrayList(Column) = .empty,
    fields: std.ArrayList(usize) = .empty,
    changes: std.ArrayList(Change) = .empty,
    steps: std.ArrayList(Evolution.Step) = .empty,
    tightenings: std.ArrayList(Evolution.Tightening) = .empty,
    unfilled: std.ArrayList(usize) = .empty,
    removed: std.ArrayList([]const u8) = .empty,
    cleared: std.ArrayList([]const u8) = .empty,

    /// One column of the stream.
    fn field(self: *Planner, one: *const arrow.Field, want: *const columns_module.Wanted, place: usize) !void {
        const comparison = self.comparison;
        const found = comparison.relation.column(one.name) orelse return self.newColumn(one, want, place);
        if (found.generated) return sdk.errors.failHinted(
            .schema,
            "leave it out of the stream's `columns`",
            "{s}: column {s} is generated by the table and cannot be written",
            .{ comparison.target.label, one.name },
        );
        if (try columns_module.existing(self.arena, comparison.session, one, want, found)) |column| {
            try self.write(column, place);
        } else {
            try self.retype(one, want, found, place);
        }
        try self.nullability(one, found);
    }

    fn write(self: *Planner, column: Column, place: usize) !void {
        try self.columns.append(self.arena, column);
        try self.fields.append(self.arena, place);
    }

    /// A statement that the change takes, with the clause that does it.
    fn step(self: *Planner, kind: @FieldType(Evolution.Step, "kind"), change: usize, comptime format: []const u8, args: anytype) !void {
        const clause = try std.fmt.allocPrint(self.arena, format, args);
        try self.steps.append(self.arena, .{ .change = change, .kind = kind, .clause = clause });
        try self.addDdl(change, clause);
    }

    fn addDdl(self: *Planner, change: usize, clause: []const u8) !void {
        const sql = try std.fmt.allocPrint(self.arena, "ALTER TABLE {s} {s}", .{ self.comparison.target.quoted, clause });
        try self.changes.items[change].addDdl(self.arena, sql);
    }

    fn tightenLater(self: *Planner, change: usize, quoted: []const u8, is_new: bool) !void {
        try self.tightenings.append(self.arena, .{ .change = change, .quoted = quoted, .is_new = is_new });
        try self.addDdl(change, try std.fmt.allocPrint(self.arena, "ALTER COLUMN {s} SET NOT NULL", .{quoted}));
    }

    fn note(self: *Planner, change: Change, comptime format: []const u8, args: anytype) !usize {
        var noted = change;
        noted.message = try std.fmt.allocPrint(self.arena, format, args);
        try self.changes.append(self.arena, noted);
        return self.changes.items.len - 1;
    }

    fn newColumn(self: *Planner, one: *const arrow.Field, want: *const columns_module.Wanted, place: usize) !void {
        const comparison = self.comparison;
        const policy = comparison.policy.new_column;
        if (policy != .fail and comparison.inKey(one.name)) return sdk.errors.failHinted(
            .schema,
            "add the column to the table and fill it, or name another `primary_key`",
            "{s}: column {s} ({s}) is part of the key, and the table does not have it (schema_evolution.new_column: {t})",
            .{ comparison.target.label, one.name, want.type, policy },
        );
        const change: Change = .{
            .kind = .new_column,
            .column = one.name,
            .stream = want.type,
            .policy = @tagName(policy),
            .action = switch (policy) {
                .add => .added,
                .ignore => .ignored,
                .fail => .refused,
            },
            .message = "",
        };
        switch (policy) {
            .add => {
                const column = try columns_module.new(
                    self.arena,
                    comparison.session,
                    one,
                    want,
                    comparison.target.label,
                    ", and schema_evolution.new_column: add would add it",
                );
                const at = if (std.mem.eql(u8, column.type, want.type))
                    try self.note(change, "column {s} ({s}) is new: it is added", .{ one.name, want.type })
                else
                    try self.note(change, "column {s} ({s}) is new: it is added as {s}", .{ one.name, want.type, column.type });
                if (one.get(keys.missing)) |value| {
                    // A constant, for which no row is written again, here as at the source.
                    const literal = try postgres.ident.literal(self.arena, value);
                    try self.step(.add, at, "ADD COLUMN {s} {s} DEFAULT {s}", .{ column.quoted, column.type, literal });
                    try self.step(.settle, at, "ALTER COLUMN {s} DROP DEFAULT", .{column.quoted});
                } else try self.step(.add, at, "ADD COLUMN {s} {s}", .{ column.quoted, column.type });
                if (one.get(keys.untold) != null) try self.unfilled.append(self.arena, at);
                if (!one.nullable) try self.tightenLater(at, column.quoted, true);
                try self.write(column, place);
            },
            .ignore => _ = try self.note(change, "column {s} ({s}) is new: it is left out", .{ one.name, want.type }),
            .fail => _ = try self.note(change, "column {s} ({s}) is new", .{ one.name, want.type }),
        }
    }

    fn retype(
        self: *Planner,
        one: *const arrow.Field,
        want: *const columns_module.Wanted,
        found: *const relation_module.Column,
        place: usize,
    ) !void {
        const comparison = self.comparison;
        const policy = comparison.policy.type_change;
        var change: Change = .{
            .kind = .type_change,
            .column = one.name,
            .stream = want.type,
            .table = found.type,
            .policy = @tagName(policy),
            .action = .refused,
            .message = "",
        };
        const differs = "column {s} is {s} in the table and {s} in the stream";
        const types = .{ one.name, found.type, want.type };
        if (comparison.lags and widening.holds(found.type, want.type)) {
            if (try columns_module.cast(self.arena, comparison.session, one, want, found, .fails)) |ahead| {
                var column = ahead;
                column.in_key = comparison.inKey(one.name);
                change.action = .cast;
                _ = try self.note(change, differs ++ ": values are cast to {s}, which holds them all", types ++ .{found.type});
                return self.write(column, place);
            }
        }
        if (policy == .fail) {
            _ = try self.note(change, differs, types);
            return;
        }
        if (policy == .coerce and want.info != null and widening.holds(want.type, found.type)) {
            const column = try columns_module.new(self.arena, comparison.session, one, want, comparison.target.label, "");
            change.action = .widened;
            const at = try self.note(change, differs ++ ": it becomes {s}", types ++ .{want.type});
            try self.step(.retype, at, "ALTER COLUMN {s} TYPE {s}", .{ column.quoted, want.type });
            return self.write(column, place);
        }
        const misfit: conversion.Misfit = if (policy == .null) .becomes_null else .fails;
        var column = try columns_module.cast(self.arena, comparison.session, one, want, found, misfit) orelse
            return sdk.errors.failHinted(
                .schema,
                "change the table or the stream's `columns` so that they agree",
                "{s}: " ++ differs ++ " (schema_evolution.type_change: {t}), and its values cannot be cast",
                .{comparison.target.label} ++ types ++ .{policy},
            );
        column.in_key = comparison.inKey(one.name);
        if (misfit == .fails) {
            change.action = .cast;
            _ = try self.note(change, differs ++ ": values are cast to {s}", types ++ .{found.type});
            return self.write(column, place);
        }
        if (column.in_key or comparison.relation.inPrimaryKey(one.name) or found.identity) return sdk.errors.failHinted(
            .schema,
            "set `type_change: coerce` under `schema_evolution`, or change the table",
            "{s}: " ++ differs ++ " (schema_evolution.type_change: null), and it is part of the key, where NULL stands for nothing",
            .{comparison.target.label} ++ types,
        );
        change.action = .nulled;
        const at = try self.note(
            change,
            differs ++ ": values are cast to {s}, and NULL is written for those that do not fit",
            types ++ .{found.type},
        );
        if (!found.nullable) try self.step(.relax, at, "ALTER COLUMN {s} DROP NOT NULL", .{column.quoted});
        try self.write(column, place);
    }

    fn nullability(self: *Planner, one: *const arrow.Field, found: *const relation_module.Column) !void {
        // Where values become NULL, the column holds NULL whatever the stream says.
        if (one.nullable == found.nullable or self.isNulled(one.name)) return;
        const comparison = self.comparison;
        const policy = comparison.policy.nullability_change;
        var change: Change = .{
            .kind = .nullability_change,
            .column = one.name,
            .stream = if (one.nullable) "nullable" else "not null",
            .table = if (found.nullable) "nullable" else "not null",
            .policy = @tagName(policy),
            .action = .refused,
            .message = "",
        };
        const quoted = try postgres.ident.quote(self.arena, one.name);
        if (one.nullable) {
            // What has to be there in every row is so whatever the source says: a NULL is a row's fault.
            if (comparison.inKey(one.name) or comparison.relation.inPrimaryKey(one.name) or found.identity) return;
            const differs = "column {s} is NOT NULL in the table and may be NULL in the stream";
            if (policy == .fail) {
                _ = try self.note(change, differs, .{one.name});
                return;
            }
            change.action = .relaxed;
            const at = try self.note(change, differs ++ ": it loses its NOT NULL", .{one.name});
            return self.step(.relax, at, "ALTER COLUMN {s} DROP NOT NULL", .{quoted});
        }
        // A table that was made otherwise, or a column that was new to rows that are there, stays as it is.
        const known = for (comparison.known orelse return) |*column| {
            if (std.mem.eql(u8, column.name, one.name)) break column;
        } else return;
        if (known.isSettled()) return;
        const differs = "column {s} may be NULL in the table and is NOT NULL in the stream";
        if (policy == .fail) {
            _ = try self.note(change, differs, .{one.name});
            return;
        }
        change.action = .tightened;
        const at = try self.note(change, differs ++ ": it gets NOT NULL", .{one.name});
        try self.tightenLater(at, quoted, false);
    }

    fn isNulled(self: *const Planner, name: []const u8) bool {
        for (self.changes.items) |change|
            if (change.action == .nulled and std.mem.eql(u8, change.column.?, name)) return true;
        return false;
    }

    /// One column of the table, if the stream does not have it.
    fn absent(self: *Planner, found: *const relation_module.Column, wanted: []const columns_module.Wanted) !void {
        const comparison = self.comparison;
        if (comparison.schema.indexOf(found.name) != null or found.generated or found.identity) return;
        // What the table fills by itself is its own, unless the stream has brought it.
        if (found.has_default and !self.isKnown(found.name)) return;
        const policy = comparison.policy.removed_column;
        const in_key = comparison.inKey(found.name) or comparison.relation.inPrimaryKey(found.name);
        if (in_key and policy != .fail and !found.has_default) return sdk.errors.failHinted(
            .schema,
            "change the table's primary key, or bring the column back",
            "{s}: column {s} ({s}) is not in the stream, and it is part of the table's primary key, where nothing but a " ++
                "value can stand (schema_evolution.removed_column: {t})",
            .{ comparison.target.label, found.name, found.type, policy },
        );
        const change: Change = .{
            .kind = .removed_column,
            .column = found.name,
            .table = found.type,
            .policy = @tagName(policy),
            .action = switch (policy) {
                .ignore => .ignored,
                .add => .kept,
                .fail => .refused,
            },
            .message = "",
        };
        const note_of_rename = try self.renamed(found, wanted);
        if (policy == .fail) {
            _ = try self.note(change, "column {s} ({s}) is not in the stream{s}", .{ found.name, found.type, note_of_rename });
            return;
        }
        const quoted = try postgres.ident.quote(self.arena, found.name);
        try self.removed.append(self.arena, quoted);
        if (self.isKnown(found.name)) try self.cleared.append(self.arena, quoted);
        const relaxes = !found.nullable and !found.has_default;
        const at = try self.note(change, "column {s} ({s}) is not in the stream{s}: it stays, {s}and {s} is written", .{
            found.name,
            found.type,
            note_of_rename,
            if (relaxes) "loses its NOT NULL, " else "",
            if (found.has_default) "its default" else "NULL",
        });
        if (relaxes) try self.step(.relax, at, "ALTER COLUMN {s} DROP NOT NULL", .{quoted});
    }

    fn isKnown(self: *const Planner, name: []const u8) bool {
        for (self.comparison.known orelse return false) |column| if (std.mem.eql(u8, column.name, name)) return true;
        return false;
    }

    /// A renamed column looks like one that is gone and one that is new.
    fn renamed(self: *const Planner, found: *const relation_module.Column, wanted: []const columns_module.Wanted) ![]const u8 {
        for (self.comparison.schema.fields, wanted) |*one, *want| {
            if (self.comparison.relation.column(one.name) != null or !std.mem.eql(u8, want.type, found.type)) continue;
            return std.fmt.allocPrint(
                self.arena,
                " (if it was renamed to {s}, which is new: a rename is a removed and a new column)",
                .{one.name},
            );
        }
        return "";
    }

    fn primaryKey(self: *Planner) !void {
        const ours = self.comparison.relation.primary_key;
        const theirs = self.comparison.source_key;
        if (ours.len == 0 or theirs.len == 0) return;
        const same = ours.len == theirs.len and for (theirs) |name| {
            if (!self.comparison.relation.inPrimaryKey(name)) break false;
        } else true;
        if (same) return;
        const stream = try std.mem.join(self.arena, ", ", theirs);
        const table = try std.mem.join(self.arena, ", ", ours);
        _ = try self.note(
            .{ .kind = .primary_key, .column = null, .stream = stream, .table = table, .action = .left, .message = "" },
            "the source's primary key is ({s}) and the table's is ({s}): the table keeps its own",
            .{ stream, table },
        );
    }
};
