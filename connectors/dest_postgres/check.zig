//! rb_check: what would stop a run. It reads the catalog and changes nothing.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const home = @import("home.zig");
const rewrite = @import("rewrite.zig");
const watermark = @import("watermark.zig");
const write = @import("write.zig");
const Arbiter = @import("arbiter.zig").Arbiter;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Swap = @import("swap.zig").Swap;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Level = enum { ok, warning, @"error" };

pub const Finding = struct {
    level: Level,
    check: []const u8,
    stream: ?[]const u8 = null,
    message: []const u8,
    hint: ?[]const u8 = null,
};

pub const Report = struct { findings: []const Finding };

const Argument = struct { streams: []const write.Stream };

pub fn check(arena: Allocator, session: *Session, argument: json.Value) !Report {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    try session.lookImpatiently();
    var checker: Checker = .{ .arena = arena, .session = session };
    try checker.add(.ok, "connection", null, null, "connected to PostgreSQL {s}{s}", .{
        session.connection.server_version_text,
        if (session.connection.tls) " over TLS" else "",
    });
    try checker.checkWritable();
    try checker.checkWatermarks();
    for (parsed.streams) |*stream| try checker.checkStream(stream);
    return .{ .findings = checker.findings.items };
}

const Checker = struct {
    arena: Allocator,
    session: *Session,
    findings: std.ArrayList(Finding) = .empty,
    stream: ?[]const u8 = null,

    fn add(
        self: *Checker,
        level: Level,
        name: []const u8,
        stream: ?[]const u8,
        hint: ?[]const u8,
        comptime format: []const u8,
        args: anytype,
    ) !void {
        try self.findings.append(self.arena, .{
            .level = level,
            .check = name,
            .stream = stream,
            .message = try std.fmt.allocPrint(self.arena, format, args),
            .hint = hint,
        });
    }

    fn yes(self: *Checker, sql: []const u8, parameters: []const ?[]const u8) !bool {
        const found = try self.session.query(self.arena, sql, parameters, "checking privileges");
        return std.mem.eql(u8, found.scalar() orelse "f", "t");
    }

    fn checkWritable(self: *Checker) !void {
        if (!try self.yes("SELECT pg_is_in_recovery()", &.{})) return;
        try self.add(.@"error", "connection", null, "connect to the primary server", "the server is a standby: nothing can be written", .{});
    }

    /// Whether tables can be made in the schema, or the schema itself. False after an error.
    fn checkSchema(self: *Checker, schema: []const u8, stream: ?[]const u8, needs_create: bool) !bool {
        if (!try home.schemaExists(self.arena, self.session, schema)) {
            const may_create = try self.yes("SELECT has_database_privilege(current_database(), 'CREATE')", &.{});
            if (may_create)
                try self.add(.ok, "schema", stream, null, "schema {s} will be created", .{schema})
            else
                try self.add(
                    .@"error",
                    "privilege",
                    stream,
                    "create the schema, or grant CREATE on the database",
                    "schema {s} does not exist, and the user may not create it",
                    .{schema},
                );
            return may_create;
        }
        if (!try self.yes("SELECT has_schema_privilege($1, 'USAGE')", &.{schema})) {
            try self.add(.@"error", "privilege", stream, "grant USAGE on the schema", "no USAGE on schema {s}", .{schema});
            return false;
        }
        if (!needs_create or try self.yes("SELECT has_schema_privilege($1, 'CREATE')", &.{schema})) return true;
        try self.add(
            .@"error",
            "privilege",
            stream,
            "grant CREATE on the schema, or create the table yourself",
            "no tables may be created in schema {s}",
            .{schema},
        );
        return false;
    }

    fn checkWatermarks(self: *Checker) !void {
        const schema = self.session.schema;
        const there = try home.schemaExists(self.arena, self.session, schema) and
            try watermark.find(self.arena, self.session) != .missing;
        if (!there) {
            _ = try self.checkSchema(schema, null, true);
            return;
        }
        const table = try postgres.ident.qualified(self.arena, schema, watermark.table_name);
        for ([_][]const u8{ "SELECT", "INSERT", "UPDATE" }) |privilege| {
            if (try self.yes("SELECT has_table_privilege($1, $2)", &.{ table, privilege })) continue;
            try self.add(.@"error", "privilege", null, "grant it", "no {s} on {s}", .{ privilege, table });
        }
    }

    fn checkStream(self: *Checker, stream: *const write.Stream) !void {
        const mode = stream.mode() catch {
            const message = sdk.errors.current().?.message;
            return self.add(.@"error", "write_mode", stream.name, null, "{s}", .{message});
        };
        const target = Target.init(self.arena, stream.schema orelse self.session.schema, stream.table) catch |err| {
            if (err == error.OutOfMemory) return error.OutOfMemory;
            return self.add(.@"error", "table", stream.name, null, "{s}", .{sdk.errors.current().?.message});
        };
        if (mode == .upsert)
            try self.checkTemporary(stream, "an upsert")
        else if (stream.on_data_error == .dlq or stream.on_data_error == .skip and mode == .replace)
            try self.checkTemporary(stream, "leaving rows out");
        const relation = try Relation.find(self.arena, self.session, target.schema, target.table) orelse {
            if (!try self.checkSchema(target.schema, stream.name, true)) return;
            return self.add(.ok, "table", stream.name, null, "table {s} will be created", .{target.label});
        };
        if (!relation.isTable()) return self.add(
            .@"error",
            "table",
            stream.name,
            "name another `table` for this stream",
            "{s} is a {s}: only tables can be written",
            .{ target.label, relation.describeKind() },
        );
        _ = try self.checkSchema(target.schema, stream.name, false);
        try self.checkKey(stream, &relation, &target);
        switch (mode) {
            .append => try self.checkPrivileges(stream, &target, &.{"INSERT"}, "rows will be added to {s}", .{target.label}),
            .replace => if (stream.on_data_error != .fail)
                try self.checkInPlace(stream, &relation, &target)
            else if (try Swap.obstacles(self.arena, self.session, relation.oid)) |reasons|
                try self.checkPrivileges(
                    stream,
                    &target,
                    &.{ "INSERT", "DELETE" },
                    "the rows of {s} will be replaced in place: {s}",
                    .{ target.label, reasons },
                )
            else
                try self.add(.ok, "table", stream.name, null, "{s} will be replaced by a new table", .{target.label}),
            .upsert => {
                try self.checkPrivileges(
                    stream,
                    &target,
                    &.{ "SELECT", "INSERT", "UPDATE" },
                    "rows will be added to {s}, or take the place of those with the same key",
                    .{target.label},
                );
                try self.checkArbiter(stream, &relation, &target);
            },
        }
    }

    /// A replacement of which rows may be left out.
    fn checkInPlace(self: *Checker, stream: *const write.Stream, relation: *const Relation, target: *const Target) !void {
        if (try rewrite.isReferenced(self.arena, self.session, relation.oid)) return self.add(
            .@"error",
            "table",
            stream.name,
            rewrite.referenced_hint,
            rewrite.referenced_message,
            .{target.label},
        );
        try self.checkPrivileges(
            stream,
            target,
            &.{ "INSERT", "DELETE" },
            "the rows of {s} will be replaced in place: those that fail are left out",
            .{target.label},
        );
    }

    fn checkTemporary(self: *Checker, stream: *const write.Stream, needed_for: []const u8) !void {
        if (try self.yes("SELECT has_database_privilege(current_database(), 'TEMPORARY')", &.{})) return;
        try self.add(
            .@"error",
            "privilege",
            stream.name,
            "grant TEMPORARY on the database",
            "the user may not create temporary tables, which {s} needs",
            .{needed_for},
        );
    }

    fn checkKey(self: *Checker, stream: *const write.Stream, relation: *const Relation, target: *const Target) !void {
        for (stream.primary_key orelse return) |name| {
            if (relation.column(name) != null) continue;
            try self.add(
                .@"error",
                "primary_key",
                stream.name,
                "correct `primary_key`",
                "{s} has no column {s}",
                .{ target.label, name },
            );
        }
    }

    /// Only of a key that the pipeline names: the source's own comes with the stream.
    fn checkArbiter(self: *Checker, stream: *const write.Stream, relation: *const Relation, target: *const Target) !void {
        const key = stream.primary_key orelse return;
        for (key) |name| if (relation.column(name) == null) return;
        if ((try Arbiter.find(self.arena, self.session, relation.oid, key)).usable != null) return;
        const names = try std.mem.join(self.arena, ", ", key);
        if (try Arbiter.obstacle(self.arena, self.session, relation.oid, key)) |obstacle| return self.add(
            .@"error",
            "primary_key",
            stream.name,
            obstacle.hint(),
            "{s} has no unique index on ({s}), and none can be created: {s}",
            .{ target.label, names, obstacle.text },
        );
        try self.add(
            .warning,
            "primary_key",
            stream.name,
            null,
            "{s} has no unique index on ({s}): the first run will create one",
            .{ target.label, names },
        );
    }

    /// The message is for the case that none is missing.
    fn checkPrivileges(
        self: *Checker,
        stream: *const write.Stream,
        target: *const Target,
        privileges: []const []const u8,
        comptime format: []const u8,
        args: anytype,
    ) !void {
        var missing = false;
        for (privileges) |privilege| {
            // Without the privilege on the table as a whole, columns may still have it; only a run can tell.
            if (try self.yes("SELECT has_table_privilege($1, $2) OR $2 <> 'DELETE' AND has_any_column_privilege($1, $2)", &.{
                target.quoted,
                privilege,
            })) continue;
            missing = true;
            try self.add(
                .@"error",
                "privilege",
                stream.name,
                "grant it to the user of the config",
                "no {s} on {s}",
                .{ privilege, target.label },
            );
        }
        if (!missing) try self.add(.ok, "table", stream.name, null, format, args);
    }
};
