//! What change capture needs of a server and of the user who is logged in.

const std = @import("std");
const sdk = @import("sdk");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;

pub const ServerFacts = struct {
    wal_level: []const u8,
    may_replicate: bool,
    user: []const u8,
    slots_max: u32,
    slots_used: u32,
    senders_max: u32,
    senders_used: u32,
    is_standby: bool,
    may_create: bool,
    database: []const u8,
    server_version: u32,

    /// The version from which a standby server can be read from.
    const standby_since = 160_000;

    pub fn find(arena: Allocator, session: *Session) !ServerFacts {
        const doing = "asking what the server can replicate";
        const found = try session.rows(10, arena, @embedFile("sql/server.sql"), &.{}, doing);
        if (found.len != 1) return sdk.fail(.protocol, "{s}: no answer", .{doing});
        const row = found[0];
        return .{
            .wal_level = row.text(0),
            .may_replicate = row.isTrue(1),
            .user = row.text(2),
            .slots_max = row.number(u32, 3),
            .slots_used = row.number(u32, 4),
            .senders_max = row.number(u32, 5),
            .senders_used = row.number(u32, 6),
            .is_standby = row.isTrue(7),
            .may_create = row.isTrue(8),
            .database = row.text(9),
            .server_version = session.connection.server_version,
        };
    }

    pub fn isLogical(self: *const ServerFacts) bool {
        return std.mem.eql(u8, self.wal_level, "logical");
    }

    pub fn requireLogical(self: *const ServerFacts) sdk.errors.Failed!void {
        if (!self.isLogical()) return sdk.errors.failHinted(
            .config,
            "set wal_level = logical at the source and restart it; on RDS, rds.logical_replication = 1; on Cloud SQL, " ++
                "cloudsql.logical_decoding = on",
            "the server's wal_level is {s}: changes can be read from its WAL with wal_level logical alone",
            .{self.wal_level},
        );
        if (self.is_standby and self.server_version < standby_since) return sdk.errors.failHinted(
            .unsupported,
            "connect to the primary server",
            "the server is a standby, whose WAL can be read from PostgreSQL 16 on",
            .{},
        );
    }

    pub fn requireReplication(self: *const ServerFacts) sdk.errors.Failed!void {
        if (self.may_replicate) return;
        var hint: [256]u8 = undefined;
        return sdk.errors.failHinted(
            .permission,
            std.fmt.bufPrint(
                &hint,
                "have an administrator run: ALTER ROLE \"{s}\" REPLICATION (on RDS: GRANT rds_replication TO \"{s}\")",
                .{ self.user, self.user },
            ) catch "have an administrator run ALTER ROLE … REPLICATION",
            "user {s} may not use replication slots",
            .{self.user},
        );
    }

    /// Slots of its own that are needed beside those that there are.
    pub fn requireSlots(self: *const ServerFacts, needed: u32) sdk.errors.Failed!void {
        if (self.slots_used + needed <= self.slots_max) return;
        return sdk.errors.failHinted(
            .resource,
            "raise max_replication_slots, or drop slots that nobody reads (pg_replication_slots)",
            "{d} of the server's {d} replication slots are in use, and {d} more are needed",
            .{ self.slots_used, self.slots_max, needed },
        );
    }

    pub fn requireSenders(self: *const ServerFacts, needed: u32) sdk.errors.Failed!void {
        if (self.senders_used + needed <= self.senders_max) return;
        return sdk.errors.failHinted(
            .resource,
            "raise max_wal_senders, or end what else replicates (pg_stat_replication)",
            "{d} of the server's {d} WAL senders are in use, and {d} more are needed",
            .{ self.senders_used, self.senders_max, needed },
        );
    }
};
