//! rb_slot: a replication slot and its publication, made, looked at and dropped.
//!
//! Set-up makes the publication first and the slot second: a slot that is older than the publication would have to read
//! changes from a time in which the server knows no such publication, and fails there.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Captured = @import("captured.zig").Captured;
const Publication = @import("publication.zig").Publication;
const Relation = @import("relation.zig").Relation;
const ReplicationSlot = @import("replication_slot.zig").ReplicationSlot;
const ServerFacts = @import("server_facts.zig").ServerFacts;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const Argument = struct {
    action: enum { setup, status, teardown },
    slot: []const u8,
    publication: []const u8,
    streams: []const Stream = &.{},
    /// Of a set-up: those of them whose changes were read before. What they need cannot be made: it is there, or lost.
    began: []const []const u8 = &.{},
    /// Of a teardown.
    drop: ?Drop = null,

    const Drop = struct { slot: bool = false, publication: bool = false };
};

pub const Answer = union(enum) {
    setup: SetUp,
    status: Status,
    teardown: TornDown,

    pub fn jsonStringify(self: Answer, writer: *json.Stringify) json.Stringify.Error!void {
        switch (self) {
            inline else => |answer| try writer.write(answer),
        }
    }
};

pub fn slot(arena: Allocator, session: *Session, argument: json.Value) !Answer {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    try ReplicationSlot.requireName(parsed.slot);
    return switch (parsed.action) {
        .setup => .{ .setup = try setUp(arena, session, &parsed) },
        .status => .{ .status = try status(arena, session, &parsed) },
        .teardown => .{ .teardown = try tearDown(arena, session, &parsed) },
    };
}

// Set-up.

pub const SetUp = struct {
    created_slot: bool,
    created_publication: bool,
    /// Tables that the publication did not tell of before, as `schema.name`.
    added_tables: []const json.Text,
    /// The slot's: what was committed before is not told any more. Null: there is none, and every stream needs the one
    /// that was there.
    position: ?[]const u8,
    /// Where the log is written up to: nobody can stand beyond it.
    wal_position: []const u8,
    /// What each stream's table is, and its place in the publication: with another one changes have passed unseen.
    origins: Origins = .{},
    /// Streams that were read before, and that the publication does not tell of any more.
    unpublished: []const json.Text,
    warnings: []const json.Text,
    /// Streams that cannot be captured, and why; the others were set up.
    refused: Refused,
};

const Origins = struct {
    streams: []const Origin = &.{},

    const Origin = struct { stream: []const u8, text: []const u8 };

    /// By the stream's name.
    pub fn jsonStringify(self: Origins, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        for (self.streams) |origin| {
            try writer.objectField(origin.stream);
            try writer.write(origin.text);
        }
        try writer.endObject();
    }
};

const Refused = struct {
    streams: []const Refusal = &.{},

    const Refusal = struct { stream: []const u8, failure: sdk.Failure };

    /// By the stream's name.
    pub fn jsonStringify(self: Refused, writer: *json.Stringify) json.Stringify.Error!void {
        try writer.beginObject();
        for (self.streams) |refusal| {
            try writer.objectField(refusal.stream);
            const failure = refusal.failure;
            try writer.write(.{
                .kind = failure.kind,
                .message = json.Text{ .bytes = failure.message },
                .hint = if (failure.hint) |hint| json.Text{ .bytes = hint } else null,
                .sqlstate = failure.sqlstate,
            });
        }
        try writer.endObject();
    }
};

fn setUp(arena: Allocator, session: *Session, argument: *const Argument) !SetUp {
    const server: ServerFacts = try .find(arena, session);
    try server.requireLogical();
    const before = try ReplicationSlot.find(arena, session, argument.slot);
    try ReplicationSlot.requireUsable(&before);
    const is_needed = argument.began.len < argument.streams.len;
    if (!before.slot.exists and is_needed) {
        try server.requireReplication();
        try server.requireSlots(1);
    }
    const published = try publish(arena, session, argument, server.is_standby);
    var answer: SetUp = .{
        .created_slot = false,
        .created_publication = published.created,
        .added_tables = published.added,
        .position = null,
        .wal_position = before.position,
        .origins = .{ .streams = try origins(arena, session, argument) },
        .unpublished = published.unpublished,
        .warnings = published.warnings,
        .refused = .{ .streams = published.refused },
    };
    if (!before.slot.exists) {
        if (!is_needed) return answer;
        sdk.host.log(
            .info,
            "making replication slot {s}: the server waits for every transaction that is going on",
            .{argument.slot},
        );
        answer.created_slot = try ReplicationSlot.create(arena, session, argument.slot);
    }
    const after = try ReplicationSlot.find(arena, session, argument.slot);
    try ReplicationSlot.requireUsable(&after);
    answer.wal_position = after.position;
    answer.position = after.slot.confirmed_flush_lsn orelse return sdk.fail(
        .transient_db,
        "replication slot {s} was dropped while it was set up",
        .{argument.slot},
    );
    return answer;
}

fn origins(arena: Allocator, session: *Session, argument: *const Argument) ![]const Origins.Origin {
    const asked = try json.stringify(arena, try tablesOf(arena, session, argument));
    const doing = "looking for what is published";
    const found = try session.rows(1, arena, @embedFile("sql/origins.sql"), &.{ argument.publication, asked }, doing);
    if (found.len != argument.streams.len) return sdk.fail(.protocol, "{s}: the server answered with {d} rows", .{ doing, found.len });
    const told = try arena.alloc(Origins.Origin, found.len);
    for (told, found, argument.streams) |*origin, row, stream| origin.* = .{ .stream = stream.name, .text = row.text(0) };
    return told;
}

const Published = struct {
    created: bool,
    added: []const json.Text,
    unpublished: []const json.Text,
    warnings: []const json.Text,
    refused: []const Refused.Refusal,
};

/// In one transaction, so that of two that set up the same publication one finds what the other has made.
fn publish(arena: Allocator, session: *Session, argument: *const Argument, is_standby: bool) !Published {
    try session.beginChange(is_standby);
    defer session.rollback();
    try Publication.lock(session, arena, argument.publication);
    const publication: Publication = try .find(arena, session, argument.publication);
    var missing: std.ArrayList(*const Relation) = .empty;
    var warnings: std.ArrayList(json.Text) = .empty;
    var refused: std.ArrayList(Refused.Refusal) = .empty;
    var unpublished: std.ArrayList(json.Text) = .empty;
    for (argument.streams) |*stream| {
        const captured = findStream(arena, session, stream, &publication, isAmong(argument.began, stream.name)) catch |err| {
            const failure = if (err == error.Failed) sdk.errors.current() else null;
            if (failure == null or session.connection.broken or session.connection.transaction_status != 'T') return err;
            try refused.append(arena, .{ .stream = stream.name, .failure = try copied(arena, failure.?) });
            sdk.errors.clear();
            continue;
        };
        for (try captured.problems(arena, stream)) |problem| if (problem.level == .warning)
            try warnings.append(arena, .{ .bytes = problem.message });
        if (captured.membership != .absent) continue;
        // What it did not tell of in the meantime nobody can read any more.
        if (isAmong(argument.began, stream.name))
            try unpublished.append(arena, .{ .bytes = stream.name })
        else
            try missing.append(arena, captured.relation);
    }
    if (argument.streams.len > 0 and refused.items.len == argument.streams.len)
        return sdk.errors.failWith(refused.items[0].failure);
    if (missing.items.len > 0) {
        const doing = try std.fmt.allocPrint(arena, "publishing tables in {s}", .{publication.name});
        if (publication.exists) {
            try session.exec(try publication.addSql(arena, missing.items), doing);
        } else {
            const sql = try publication.createSql(arena, missing.items);
            session.connection.exec(sql) catch |err| return createFailed(arena, session, err, sql, doing);
            try session.exec(try publication.markSql(arena, session), doing);
        }
    }
    try session.commit();
    const added = try arena.alloc(json.Text, missing.items.len);
    for (added, missing.items) |*name, relation| name.* = .{
        .bytes = try std.mem.concat(arena, u8, &.{ relation.schema, ".", relation.name }),
    };
    return .{
        .created = missing.items.len > 0 and !publication.exists,
        .added = added,
        .unpublished = unpublished.items,
        .warnings = warnings.items,
        .refused = refused.items,
    };
}

fn isAmong(names: []const []const u8, name: []const u8) bool {
    for (names) |each| if (std.mem.eql(u8, each, name)) return true;
    return false;
}

fn findStream(
    arena: Allocator,
    session: *Session,
    stream: *const Stream,
    publication: *const Publication,
    began: bool,
) !Captured {
    if (try stream.mode() != .cdc)
        return sdk.fail(.protocol, "stream {s} does not capture changes", .{stream.name});
    const relation = try arena.create(Relation);
    relation.* = try .find(arena, session, stream.schema orelse session.schema, stream.name);
    const captured: Captured = try .find(arena, session, relation, publication);
    // Of a publication that lost it, more is to be said than that it is not there.
    if (captured.membership == .absent and began) return captured;
    try captured.require(arena, stream);
    return captured;
}

/// The SQL is worth more than the bare refusal: somebody else can run it.
fn createFailed(
    arena: Allocator,
    session: *Session,
    err: postgres.Connection.Error,
    sql: []const u8,
    doing: []const u8,
) anyerror {
    if (err != error.Server) return session.failed(err, doing);
    const said = session.connection.last_error.?;
    const denied = "42501";
    if (!std.mem.eql(u8, said.sqlstate, denied)) return session.failed(err, doing);
    return sdk.errors.failWith(.{
        .kind = .permission,
        .message = said.message,
        .detail = doing,
        .hint = try std.fmt.allocPrint(
            arena,
            "GRANT CREATE ON the database TO the user of the config, or have the tables' owner run: {s}",
            .{sql},
        ),
        .sqlstate = denied,
    });
}

fn copied(arena: Allocator, failure: sdk.Failure) Allocator.Error!sdk.Failure {
    return .{
        .kind = failure.kind,
        .message = try arena.dupe(u8, failure.message),
        .hint = if (failure.hint) |text| try arena.dupe(u8, text) else null,
        .sqlstate = if (failure.sqlstate) |text| try arena.dupe(u8, text) else null,
    };
}

// Status.

pub const Status = struct {
    slot: ReplicationSlot,
    publication: PublicationStatus,
    /// What the server is told by from any other; null where it does not say.
    server: ?[]const u8,
    /// Where WAL is flushed, or replayed on a standby.
    wal_position: []const u8,
    /// WAL between what was confirmed and `wal_position`, and WAL that is kept for the slot; null without it.
    lag_bytes: ?i64,
    retained_bytes: ?i64,
    /// Another text whenever the streams' tables may have changed.
    change_counter: []const u8,
    /// Why the slot is none that the pipeline can read, where that is so.
    fault: ?json.Text,
};

const PublicationStatus = struct {
    name: []const u8,
    exists: bool,
    ours: bool,
    /// Of the streams' tables, as `schema.name`: those that it tells of, and the others.
    tables: []const json.Text,
    missing: []const json.Text,
};

const Table = struct { schema: []const u8, name: []const u8 };

fn tablesOf(arena: Allocator, session: *const Session, argument: *const Argument) Allocator.Error![]const Table {
    const tables = try arena.alloc(Table, argument.streams.len);
    for (tables, argument.streams) |*table, stream| table.* = .{
        .schema = stream.schema orelse session.schema,
        .name = stream.name,
    };
    return tables;
}

fn status(arena: Allocator, session: *Session, argument: *const Argument) !Status {
    try session.lookImpatiently();
    const server = try serverIdentifier(arena, session);
    try session.begin();
    defer session.rollback();
    const found = try ReplicationSlot.find(arena, session, argument.slot);
    const publication: Publication = try .find(arena, session, argument.publication);
    const tables = try tablesOf(arena, session, argument);
    const asked = try json.stringify(arena, tables);
    const doing = "asking what has changed";
    const counted = try session.rows(1, arena, @embedFile("sql/change_counter.sql"), &.{asked}, doing);
    var told: std.ArrayList(json.Text) = .empty;
    var missing: std.ArrayList(json.Text) = .empty;
    const members: []const Row = if (publication.exists)
        try session.rows(1, arena, @embedFile("sql/members.sql"), &.{ publication.name, asked }, doing)
    else
        &.{};
    for (tables, 0..) |table, i| {
        const name: json.Text = .{ .bytes = try std.mem.concat(arena, u8, &.{ table.schema, ".", table.name }) };
        const is_member = i < members.len and members[i].isTrue(0);
        try (if (is_member) &told else &missing).append(arena, name);
    }
    try session.commit();
    return .{
        .slot = found.slot,
        .publication = .{
            .name = publication.name,
            .exists = publication.exists,
            .ours = publication.exists and publication.ours,
            .tables = told.items,
            .missing = missing.items,
        },
        .server = server,
        .wal_position = found.position,
        .lag_bytes = found.lag_bytes,
        .retained_bytes = found.retained_bytes,
        .change_counter = if (counted.len == 1) counted[0].text(0) else "",
        .fault = try faultOf(arena, &found),
    };
}

/// Made with the server's data, and shared by its standby servers.
fn serverIdentifier(arena: Allocator, session: *Session) !?[]const u8 {
    const sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    const result = session.connection.query(arena, sql, &.{}) catch |err| {
        // Anybody may ask, unless an administrator has forbidden it.
        if (err == error.Server and !session.connection.broken) return null;
        return session.failed(err, "asking which server it is");
    };
    return if (result.rows.len == 1 and result.columns.len == 1) result.rows[0][0] else null;
}

fn faultOf(arena: Allocator, found: *const ReplicationSlot.Found) Allocator.Error!?json.Text {
    ReplicationSlot.requireUsable(found) catch {
        defer sdk.errors.clear();
        return .{ .bytes = try arena.dupe(u8, sdk.errors.current().?.message) };
    };
    return null;
}

const Row = @import("session.zig").Row(1);

// Teardown.

pub const TornDown = struct { dropped_slot: bool, dropped_publication: bool };

fn tearDown(arena: Allocator, session: *Session, argument: *const Argument) !TornDown {
    var answer: TornDown = .{ .dropped_slot = false, .dropped_publication = false };
    const drop = argument.drop orelse return answer;
    if (drop.slot) {
        const found = try ReplicationSlot.find(arena, session, argument.slot);
        if (found.slot.exists and !found.is_of_this_database) try ReplicationSlot.requireUsable(&found);
        if (found.slot.exists) {
            try ReplicationSlot.drop(&found, arena, session);
            answer.dropped_slot = true;
        }
    }
    if (drop.publication) {
        const server: ServerFacts = try .find(arena, session);
        try session.beginChange(server.is_standby);
        defer session.rollback();
        try Publication.lock(session, arena, argument.publication);
        const publication: Publication = try .find(arena, session, argument.publication);
        if (publication.exists and publication.ours) {
            const doing = try std.fmt.allocPrint(arena, "dropping publication {s}", .{publication.name});
            try session.exec(try publication.dropSql(arena), doing);
            answer.dropped_publication = true;
        }
        try session.commit();
    }
    return answer;
}
