//! rb_check: what would stop a run, found before it. Nothing is read and nothing changed.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Captured = @import("captured.zig").Captured;
const CursorColumn = @import("cursor_column.zig").CursorColumn;
const Increment = @import("increment.zig").Increment;
const Preflight = @import("preflight.zig").Preflight;
const Publication = @import("publication.zig").Publication;
const Relation = @import("relation.zig").Relation;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const ident = postgres.ident;
const json = sdk.json;

pub const Level = @import("problems.zig").Level;

pub const Finding = struct {
    level: Level,
    check: []const u8,
    stream: ?[]const u8,
    message: json.Text,
    hint: ?json.Text = null,
};

pub const Report = struct { findings: []const Finding };

const Argument = struct { streams: []const Stream };

pub fn check(arena: Allocator, session: *Session, argument: json.Value) !Report {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    try session.lookImpatiently();
    var findings: std.ArrayList(Finding) = .empty;
    try findings.append(arena, .{
        .level = .ok,
        .check = "connection",
        .stream = null,
        .message = .{ .bytes = try std.fmt.allocPrint(arena, "connected to PostgreSQL {s}{s}", .{
            session.connection.server_version_text,
            if (session.connection.tls) " over TLS" else "",
        }) },
    });
    try Preflight.check(arena, session, parsed.streams, &findings);
    for (parsed.streams) |stream| {
        try session.begin();
        defer session.rollback();
        var step: Step = .sync_mode;
        checkStream(arena, session, stream, &findings, &step) catch |err| {
            const failure = if (err == error.Failed) sdk.errors.current() else null;
            // Without a session there is nothing to ask for the other streams.
            if (failure == null or session.connection.broken) return err;
            try findings.append(arena, try findingOf(arena, stream, step, failure.?));
            sdk.errors.clear();
        };
    }
    return .{ .findings = findings.items };
}

/// What is being looked at; the last one names the failure.
const Step = enum { sync_mode, table, columns, cursor, filter };

fn checkStream(
    arena: Allocator,
    session: *Session,
    stream: Stream,
    findings: *std.ArrayList(Finding),
    step: *Step,
) !void {
    const sync_mode = try stream.mode();
    step.* = .table;
    const found: Relation = try .find(arena, session, stream.schema orelse session.schema, stream.name);
    step.* = .columns;
    if (sync_mode == .cdc and !try checkCaptured(arena, session, stream, &found, findings)) return;
    var selection: Selection = if (sync_mode == .cdc)
        try .find(arena, session, stream)
    else
        try .of(arena, found, stream);
    var cursor: ?CursorColumn = null;
    if (sync_mode == .incremental) {
        step.* = .cursor;
        cursor = try .find(arena, session, &selection, &stream);
        try Increment.restrict(arena, &selection, &stream, &cursor.?, null);
    }
    step.* = if (stream.filter == null) .table else .filter;
    try selection.probe(arena, session);
    const relation = &selection.relation;
    var count: usize = 0;
    var as_text: usize = 0;
    for (selection.columns) |column| {
        if (column.sql != null) continue;
        count += 1;
        as_text += @intFromBool(column.as_text);
    }
    try findings.append(arena, .{
        .level = .ok,
        .check = "table",
        .stream = stream.name,
        .message = .{ .bytes = try std.fmt.allocPrint(
            arena,
            "{s}.{s} can be read: {d} columns, {d} of them in text form",
            .{ relation.schema, relation.name, count, as_text },
        ) },
    });
    if (relation.row_security) try findings.append(arena, .{
        .level = .warning,
        .check = "row_security",
        .stream = stream.name,
        .message = .{ .bytes = "policies of the table hide rows from this user" },
        .hint = .{ .bytes = "read as a role with BYPASSRLS, or as the table's owner, if all rows are wanted" },
    });
    if (cursor) |column| try warnOfCursor(arena, stream, &selection, &column, findings);
}

/// False: it cannot be captured, as its findings say.
fn checkCaptured(
    arena: Allocator,
    session: *Session,
    stream: Stream,
    relation: *const Relation,
    findings: *std.ArrayList(Finding),
) !bool {
    const publication: Publication = try .find(arena, session, try session.publicationOf(arena, &stream));
    const captured: Captured = try .find(arena, session, relation, &publication);
    var is_possible = true;
    for (try captured.problems(arena, &stream)) |problem| {
        if (problem.level == .@"error") is_possible = false;
        try findings.append(arena, .{
            .level = problem.level,
            .check = problem.check,
            .stream = stream.name,
            .message = .{ .bytes = problem.message },
            .hint = if (problem.hint) |hint| .{ .bytes = hint } else null,
        });
    }
    return is_possible;
}

fn warnOfCursor(
    arena: Allocator,
    stream: Stream,
    selection: *const Selection,
    column: *const CursorColumn,
    findings: *std.ArrayList(Finding),
) !void {
    const relation = &selection.relation;
    if (column.of.nullable) try findings.append(arena, .{
        .level = .warning,
        .check = "cursor",
        .stream = stream.name,
        .message = .{ .bytes = try std.fmt.allocPrint(
            arena,
            "column {s} may be NULL: rows without a cursor are never read",
            .{column.of.name},
        ) },
        .hint = .{ .bytes = "make it NOT NULL, or read a view that puts a value in its place" },
    });
    const can_have_index = switch (relation.kind) {
        .table, .partitioned_table, .materialized_view => true,
        .view, .foreign_table => false,
    };
    if (!can_have_index or column.indexed) return;
    const names = try std.mem.join(arena, ", ", if (stream.tie_breaker_field) |tie_breaker| &.{
        try ident.quote(arena, column.of.name),
        try ident.quote(arena, tie_breaker),
    } else &.{try ident.quote(arena, column.of.name)});
    try findings.append(arena, .{
        .level = .warning,
        .check = "index",
        .stream = stream.name,
        .message = .{ .bytes = try std.fmt.allocPrint(
            arena,
            "{s}.{s} has no index that begins with {s}: every run reads and sorts the whole table",
            .{ relation.schema, relation.name, column.of.name },
        ) },
        .hint = .{
            .bytes = try std.fmt.allocPrint(arena, "CREATE INDEX {s}ON {s} ({s})", .{
                // Not for partitioned tables.
                if (relation.kind == .partitioned_table) "" else "CONCURRENTLY ",
                try ident.qualified(arena, relation.schema, relation.name),
                names,
            }),
        },
    });
}

fn findingOf(arena: Allocator, stream: Stream, step: Step, failure: sdk.Failure) Allocator.Error!Finding {
    return .{
        .level = .@"error",
        .check = if (failure.kind == .permission) "privilege" else @tagName(step),
        .stream = stream.name,
        .message = .{ .bytes = try arena.dupe(u8, failure.message) },
        .hint = if (failure.hint) |hint| .{ .bytes = try arena.dupe(u8, hint) } else null,
    };
}
