//! rb_check: what would stop a run, found before it. Nothing is read and nothing changed.

const std = @import("std");
const sdk = @import("sdk");
const selections = @import("selection.zig");
const Relation = @import("relation.zig").Relation;
const Selection = selections.Selection;
const Session = @import("session.zig").Session;
const Stream = selections.Stream;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Level = enum { ok, warning, @"error" };

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
const Step = enum { sync_mode, table, columns, filter };

fn checkStream(
    arena: Allocator,
    session: *Session,
    stream: Stream,
    findings: *std.ArrayList(Finding),
    step: *Step,
) !void {
    try selections.requireSupported(stream);
    step.* = .table;
    const found: Relation = try .find(arena, session, stream.schema orelse session.schema, stream.name);
    step.* = .columns;
    const selection: Selection = try .of(arena, found, stream);
    step.* = if (stream.filter == null) .table else .filter;
    try selection.probe(arena, session);
    const relation = &selection.relation;
    var as_text: usize = 0;
    for (selection.columns) |column| as_text += @intFromBool(column.as_text);
    try findings.append(arena, .{
        .level = .ok,
        .check = "table",
        .stream = stream.name,
        .message = .{ .bytes = try std.fmt.allocPrint(
            arena,
            "{s}.{s} can be read: {d} columns, {d} of them in text form",
            .{ relation.schema, relation.name, selection.columns.len, as_text },
        ) },
    });
    if (relation.row_security) try findings.append(arena, .{
        .level = .warning,
        .check = "row_security",
        .stream = stream.name,
        .message = .{ .bytes = "policies of the table hide rows from this user" },
        .hint = .{ .bytes = "read as a role with BYPASSRLS, or as the table's owner, if all rows are wanted" },
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
