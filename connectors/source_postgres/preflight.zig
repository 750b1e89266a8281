//! What change capture needs beside its tables: the server's settings, the user's privileges, slots and publications.

const std = @import("std");
const sdk = @import("sdk");
const Finding = @import("check.zig").Finding;
const Level = @import("problems.zig").Level;
const Publication = @import("publication.zig").Publication;
const ReplicationSlot = @import("replication_slot.zig").ReplicationSlot;
const ServerFacts = @import("server_facts.zig").ServerFacts;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;

pub const Preflight = struct {
    arena: Allocator,
    session: *Session,
    server: ServerFacts,
    findings: *std.ArrayList(Finding),

    /// Nothing where no stream captures changes.
    pub fn check(
        arena: Allocator,
        session: *Session,
        streams: []const Stream,
        findings: *std.ArrayList(Finding),
    ) !void {
        var slots: Names = .{};
        var publications: Names = .{};
        for (streams) |*stream| {
            if (stream.mode() catch continue != .cdc) continue;
            try slots.add(arena, try session.slotOf(arena, stream));
            try publications.add(arena, try session.publicationOf(arena, stream));
        }
        sdk.errors.clear();
        if (slots.items.items.len == 0) return;
        try session.begin();
        defer session.rollback();
        var self: Preflight = .{
            .arena = arena,
            .session = session,
            .server = try .find(arena, session),
            .findings = findings,
        };
        var missing: u32 = 0;
        for (slots.items.items) |name| {
            if (!try self.ofSlot(name)) missing += 1;
        }
        for (publications.items.items) |name| try self.ofPublication(name);
        try self.ofServer(missing);
    }

    /// `missing` slots are yet to be made, and for each a snapshot is taken through a slot that goes at once.
    fn ofServer(self: *Preflight, missing: u32) !void {
        const server = &self.server;
        try self.require("wal_level", server.requireLogical());
        try self.require("replication", server.requireReplication());
        try self.require("slots", server.requireSlots(missing + @intFromBool(missing > 0)));
        try self.require("senders", server.requireSenders(1));
        if (server.isLogical()) try self.add(.ok, "replication", null, "wal_level is {s}; {d} of {d} replication slots and {d} of {d} WAL senders are in use", .{
            server.wal_level,
            server.slots_used,
            server.slots_max,
            server.senders_used,
            server.senders_max,
        });
    }

    /// Whether the slot exists.
    fn ofSlot(self: *Preflight, name: []const u8) !bool {
        ReplicationSlot.requireName(name) catch |err| {
            try self.require("slot", err);
            return true;
        };
        const found = try ReplicationSlot.find(self.arena, self.session, name);
        const slot = &found.slot;
        if (!slot.exists) {
            try self.add(.ok, "slot", null, "replication slot {s} is made by the first run", .{name});
            return false;
        }
        ReplicationSlot.requireUsable(&found) catch |err| {
            try self.require("slot", err);
            return true;
        };
        if (slot.active) try self.add(
            .warning,
            "slot",
            "a slot has one reader: end this one, or wait until it has ended, before a run",
            "replication slot {s} is being read by process {d} of the server ({s})",
            .{ name, slot.active_pid orelse 0, if (slot.active_application) |text| text.bytes else "?" },
        );
        try self.add(.ok, "slot", null, "replication slot {s} is {d} bytes of WAL behind", .{ name, found.lag_bytes orelse 0 });
        return true;
    }

    fn ofPublication(self: *Preflight, name: []const u8) !void {
        const publication: Publication = try .find(self.arena, self.session, name);
        if (!publication.exists and self.server.is_standby) return self.add(
            .@"error",
            "publication",
            "make it at the primary server",
            "publication {s} does not exist, and the server is a standby, where none can be made",
            .{name},
        );
        if (!publication.exists and !self.server.may_create) return self.add(
            .@"error",
            "publication",
            try std.fmt.allocPrint(
                self.arena,
                "GRANT CREATE ON DATABASE \"{s}\" TO \"{s}\", or have the tables' owner make it (`rapidbyte cdc setup` shows the SQL)",
                .{ self.server.database, self.server.user },
            ),
            "publication {s} does not exist, and user {s} may not make one in this database",
            .{ name, self.server.user },
        );
        try self.add(.ok, "publication", null, "publication {s} {s}", .{
            name,
            if (!publication.exists)
                "is made by the first run"
            else if (publication.ours)
                "was made for this pipeline, and gets the tables that it lacks"
            else
                "is the user's own, and stays as it is",
        });
    }

    /// What `outcome` says, where it is a failure.
    fn require(self: *Preflight, check_name: []const u8, outcome: sdk.errors.Failed!void) !void {
        outcome catch {
            const failure = sdk.errors.current().?;
            try self.findings.append(self.arena, .{
                .level = .@"error",
                .check = check_name,
                .stream = null,
                .message = .{ .bytes = try self.arena.dupe(u8, failure.message) },
                .hint = if (failure.hint) |hint| .{ .bytes = try self.arena.dupe(u8, hint) } else null,
            });
            sdk.errors.clear();
        };
    }

    fn add(
        self: *Preflight,
        level: Level,
        check_name: []const u8,
        hint: ?[]const u8,
        comptime format: []const u8,
        args: anytype,
    ) !void {
        try self.findings.append(self.arena, .{
            .level = level,
            .check = check_name,
            .stream = null,
            .message = .{ .bytes = try std.fmt.allocPrint(self.arena, format, args) },
            .hint = if (hint) |text| .{ .bytes = text } else null,
        });
    }
};

/// Each once, in the order of the file.
const Names = struct {
    items: std.ArrayList([]const u8) = .empty,

    fn add(self: *Names, arena: Allocator, name: []const u8) Allocator.Error!void {
        for (self.items.items) |known| if (std.mem.eql(u8, known, name)) return;
        try self.items.append(arena, name);
    }
};
