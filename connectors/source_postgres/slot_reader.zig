//! What a capture reads from: one slot, by what one publication tells. Whoever reads a slot has it to himself.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Session = @import("session.zig").Session;
const Stream = @import("captured_tables.zig").Stream;

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;
const Replication = postgres.Replication;

/// The server's WAL writer needs three rounds at most, of 200 ms where nobody set that.
const written_patience_us = 1 * std.time.us_per_s;
/// A session that was just cut off holds its slot for a moment.
const slot_patience_us = 5 * std.time.us_per_s;

pub const another_snapshot = "`rapidbyte run FILE --full-refresh` takes a new snapshot (with --stream, of one stream)";

pub const SlotReader = struct {
    session: *Session,
    slot: []const u8,
    publication: []const u8,
    streams: []const Stream,
    /// For messages.
    doing: []const u8,
    /// The publication's, once it was found.
    publication_oid: ?u32 = null,

    /// How far the server's log is written. What was committed before we asked is in it: where commits are confirmed before
    /// they are written, that is waited for.
    pub fn written(self: *const SlotReader, arena: Allocator) !Lsn {
        const asked = sdk.host.now();
        var expected: ?Lsn = null;
        while (true) {
            const rows = try self.session.rows(2, arena, @embedFile("sql/capture_written.sql"), &.{}, self.doing);
            const flushed = Lsn.parse(if (rows.len == 1) rows[0].text(0) else "") orelse
                return sdk.fail(.protocol, "the server does not tell how far its log is written", .{});
            expected = expected orelse Lsn.parse(rows[0].text(1)) orelse return flushed;
            const is_late = sdk.host.now() - asked > written_patience_us;
            if (flushed.value >= expected.?.value or is_late) return flushed;
            try sdk.host.pause(20);
        }
    }

    /// Into the session. Nobody else can move the slot from then on.
    pub fn start(self: *const SlotReader, arena: Allocator, from: Lsn, is_binary: bool) !void {
        const connection = try self.session.openReplication();
        self.session.replication = .{ .connection = connection };
        if (!connection.knows_encoding)
            connection.exec("SET client_encoding TO 'SQL_ASCII'") catch |err| return self.failed(err);
        const asked = sdk.host.now();
        while (true) {
            self.session.replication = Replication.start(connection, self.session.gpa, .{
                .slot = self.slot,
                .publication = self.publication,
                .from = from,
                .binary = is_binary,
            }) catch |err| {
                const is_held = err == error.Server and std.mem.eql(u8, connection.last_error.?.sqlstate, "55006");
                if (!is_held or sdk.host.now() - asked > slot_patience_us) return self.refused(arena, err);
                try sdk.host.pause(100);
                continue;
            };
            break;
        }
        sdk.host.log(.debug, "slot {s}: changes from {f} on, values {s}", .{
            self.slot,
            from,
            if (is_binary) "in binary form" else "as text",
        });
    }

    /// Up to where the slot is confirmed. What was confirmed beyond a stream's position is lost to it, unless `is_own`: by
    /// this capture; and so is what happened without the publication.
    pub fn require(self: *SlotReader, arena: Allocator, is_own: bool) !Lsn {
        const parameters = [_]?[]const u8{ self.slot, self.publication };
        const rows = try self.session.rows(2, arena, @embedFile("sql/capture_slot.sql"), &parameters, self.doing);
        const oid = if (rows.len == 1) rows[0].number(u32, 1) else 0;
        if (oid == 0) return sdk.errors.failHinted(
            .config,
            "`rapidbyte cdc setup FILE` makes it; changes from before do not come: " ++ another_snapshot,
            "{s}: publication {s} does not exist",
            .{ self.doing, self.publication },
        );
        if (self.publication_oid != null and self.publication_oid.? != oid) return sdk.errors.failHinted(
            .config,
            another_snapshot,
            "{s}: publication {s} was made anew meanwhile, and changes from before are lost",
            .{ self.doing, self.publication },
        );
        self.publication_oid = oid;
        const confirmed = Lsn.parse(rows[0].text(0)) orelse Lsn.zero;
        for (self.streams) |stream| if (confirmed.value > stream.position.value and !is_own)
            return sdk.errors.failHinted(
                .config,
                another_snapshot,
                "stream {s} stands at {f}, and slot {s} was confirmed up to {f} already: the changes between are gone",
                .{ stream.name, stream.position, self.slot, confirmed },
            );
        return confirmed;
    }

    /// Whether the server has sent all that is written. The log may end amid a record, before the target that it was then:
    /// nothing more comes until somebody goes on writing.
    pub fn waitsForLog(self: *const SlotReader, scratch: Allocator) !bool {
        const sql =
            \\SELECT lower(a.wait_event) = 'walsenderwaitforwal'
            \\FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1::text
        ;
        const result = try self.session.query(scratch, sql, &.{self.slot}, self.doing);
        return std.mem.eql(u8, result.scalar() orelse "", "t");
    }

    /// A slot that the server does not give.
    fn refused(self: *const SlotReader, arena: Allocator, err: postgres.Connection.Error) anyerror {
        const connection = self.session.replication.?.connection;
        if (err != error.Server) return self.failed(err);
        const said = connection.last_error.?;
        // undefined_object: no such slot. object_not_in_prerequisite_state: its log is gone, or it is another plugin's.
        const is_gone = std.mem.eql(u8, said.sqlstate, "42704") or std.mem.eql(u8, said.sqlstate, "55000");
        const is_held = std.mem.eql(u8, said.sqlstate, "55006");
        if (!is_gone and !is_held) return self.failed(err);
        return sdk.errors.failWith(.{
            .kind = if (is_held) .transient_db else .config,
            .message = try std.fmt.allocPrint(arena, "{s}: {s}", .{ self.doing, said.message }),
            .detail = said.detail,
            .hint = if (is_held)
                "another consumer reads from it: end that one, or give this pipeline a replication_slot of its own"
            else
                "`rapidbyte cdc setup FILE` makes one; what changed meanwhile does not come: " ++ another_snapshot,
            .sqlstate = said.sqlstate,
        });
    }

    pub fn failed(self: *const SlotReader, err: postgres.Connection.Error) postgres.failure.Error {
        return postgres.failure.report(self.session.replication.?.connection, err, self.doing);
    }
};
