//! A replication slot as the server has it, and how one is made and dropped.

const std = @import("std");
const sdk = @import("sdk");
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const json = sdk.json;

/// What decodes the WAL: it is part of every server.
pub const plugin = "pgoutput";
/// What PostgreSQL lets a slot's name be made of.
const name_bytes_max = 63;

pub const ReplicationSlot = struct {
    name: []const u8,
    exists: bool,
    plugin: ?json.Text,
    database: ?json.Text,
    active: bool,
    active_pid: ?i64,
    /// The application that reads it, as it calls itself.
    active_application: ?json.Text,
    restart_lsn: ?[]const u8,
    confirmed_flush_lsn: ?[]const u8,
    /// reserved, extended, unreserved or lost; null before PostgreSQL 13.
    wal_status: ?[]const u8,
    /// Bytes of WAL that can be written before the slot is lost; null: any number.
    safe_wal_size: ?i64,
    temporary: bool,
    two_phase: bool,
    /// PostgreSQL 17 and later: why the server gave it up.
    invalidation_reason: ?[]const u8,

    /// A slot, and where the server's WAL is.
    pub const Found = struct {
        slot: ReplicationSlot,
        is_physical: bool,
        is_of_this_database: bool,
        /// Where WAL is flushed, or replayed on a standby.
        position: []const u8,
        /// WAL between what was confirmed and `position`, and WAL that is kept for the slot; null without it.
        lag_bytes: ?i64,
        retained_bytes: ?i64,
    };

    pub fn find(arena: Allocator, session: *Session, name: []const u8) !Found {
        const doing = try std.fmt.allocPrint(arena, "looking for replication slot {s}", .{name});
        const found = try session.rows(18, arena, @embedFile("sql/replication_slot.sql"), &.{name}, doing);
        if (found.len != 1) return sdk.fail(.protocol, "{s}: the server answered with {d} rows", .{ doing, found.len });
        const row = found[0];
        return .{
            .slot = .{
                .name = name,
                .exists = row.isTrue(1),
                .plugin = textOf(row.optional(3)),
                .database = textOf(row.optional(4)),
                .temporary = row.isTrue(6),
                .active = row.isTrue(7),
                .active_pid = row.optionalNumber(i64, 8),
                .active_application = textOf(row.optional(9)),
                .restart_lsn = row.optional(10),
                .confirmed_flush_lsn = row.optional(11),
                .wal_status = row.optional(12),
                .safe_wal_size = row.optionalNumber(i64, 13),
                .two_phase = row.isTrue(14),
                .invalidation_reason = row.optional(15),
            },
            .is_physical = std.mem.eql(u8, row.text(2), "physical"),
            .is_of_this_database = row.isTrue(5),
            .position = row.text(0),
            .lag_bytes = row.optionalNumber(i64, 16),
            .retained_bytes = row.optionalNumber(i64, 17),
        };
    }

    pub fn isLost(self: *const ReplicationSlot) bool {
        if (self.invalidation_reason != null) return true;
        return std.mem.eql(u8, self.wal_status orelse return false, "lost");
    }

    /// Fails where a slot of that name is none that changes of this database can be read from.
    pub fn requireUsable(found: *const Found) sdk.errors.Failed!void {
        const slot = &found.slot;
        if (!slot.exists) return;
        const other = "give this pipeline a `replication_slot` of another name";
        if (found.is_physical) return sdk.errors.failHinted(
            .config,
            other,
            "replication slot {s} is a physical one, for a standby server",
            .{slot.name},
        );
        if (!found.is_of_this_database) return sdk.errors.failHinted(
            .config,
            other,
            "replication slot {s} is of another database, {s}",
            .{ slot.name, if (slot.database) |database| database.bytes else "?" },
        );
        if (slot.temporary) return sdk.errors.failHinted(
            .config,
            other,
            "replication slot {s} is a temporary one, which goes with the session that made it",
            .{slot.name},
        );
        const found_plugin = if (slot.plugin) |text| text.bytes else "?";
        if (!std.mem.eql(u8, found_plugin, plugin)) return sdk.errors.failHinted(
            .config,
            other,
            "replication slot {s} decodes with {s}, not with " ++ plugin,
            .{ slot.name, found_plugin },
        );
        // What a transaction changes would come before its COMMIT PREPARED, and with it the question whether it will.
        if (slot.two_phase) return sdk.errors.failHinted(
            .config,
            "drop it, and make it without `twophase`; or " ++ other,
            "replication slot {s} tells of prepared transactions before they are committed (two_phase)",
            .{slot.name},
        );
        if (slot.isLost()) return sdk.errors.failHinted(
            .config,
            "drop it (`rapidbyte cdc teardown`, or SELECT pg_drop_replication_slot), and run each of its streams with " ++
                "`--full-refresh`; a larger max_slot_wal_keep_size at the source keeps it from happening again",
            "replication slot {s} is lost ({s}): the server has removed WAL that was not read yet, and changes with it",
            .{ slot.name, slot.invalidation_reason orelse "wal_status lost" },
        );
    }

    /// A name that PostgreSQL would refuse.
    pub fn requireName(name: []const u8) sdk.errors.Failed!void {
        const is_valid = name.len > 0 and name.len <= name_bytes_max and for (name) |byte| switch (byte) {
            'a'...'z', '0'...'9', '_' => {},
            else => break false,
        } else true;
        if (!is_valid) return sdk.errors.failHinted(
            .config,
            "a replication slot's name has 1 to 63 lower-case letters, digits and underscores",
            "\"{s}\" cannot be the name of a replication slot",
            .{name},
        );
    }

    /// Outside of any transaction. Waits for every transaction that is going on. False: somebody else was first.
    pub fn create(arena: Allocator, session: *Session, name: []const u8) !bool {
        const doing = try std.fmt.allocPrint(arena, "making replication slot {s}", .{name});
        const connection = session.connection;
        _ = connection.query(
            arena,
            "SELECT pg_catalog.pg_create_logical_replication_slot($1, '" ++ plugin ++ "')",
            &.{name},
        ) catch |err| {
            if (err != error.Server or connection.broken) return session.failed(err, doing);
            const said = connection.last_error.?;
            if (std.mem.eql(u8, said.sqlstate, "42710")) return false;
            // Of the class that is worth another try, which this is not.
            if (std.mem.eql(u8, said.sqlstate, "55000")) return sdk.errors.failWith(.{
                .kind = .config,
                .message = try std.fmt.allocPrint(arena, "{s}: {s}", .{ doing, said.message }),
                .hint = said.hint,
                .sqlstate = said.sqlstate,
            });
            return session.failed(err, doing);
        };
        return true;
    }

    /// Fails where somebody reads it.
    pub fn drop(found: *const Found, arena: Allocator, session: *Session) !void {
        const slot = &found.slot;
        if (slot.active) return sdk.errors.failHinted(
            .resource,
            "end what reads it first",
            "replication slot {s} is being read by process {d} of the server ({s})",
            .{ slot.name, slot.active_pid orelse 0, if (slot.active_application) |name| name.bytes else "?" },
        );
        const doing = try std.fmt.allocPrint(arena, "dropping replication slot {s}", .{slot.name});
        _ = try session.query(arena, "SELECT pg_catalog.pg_drop_replication_slot($1)", &.{slot.name}, doing);
    }
};

fn textOf(bytes: ?[]const u8) ?json.Text {
    return .{ .bytes = bytes orelse return null };
}

test "names that PostgreSQL would refuse are told" {
    defer sdk.errors.clear();
    try ReplicationSlot.requireName("rapidbyte_shop_2");
    for ([_][]const u8{ "", "Shop", "a-b", &@as([64]u8, @splat('a')) }) |name|
        try std.testing.expectError(error.Failed, ReplicationSlot.requireName(name));
}
