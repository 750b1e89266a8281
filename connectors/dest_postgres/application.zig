//! All that waits, into the tables: the net of it at once, and where that fails, halves of it, down to the change that is
//! at fault.
//!
//!     SAVEPOINT ─ truncations · deletes, children first · what comes, parents first ─┬─ fine
//!                                                                                    └─ ROLLBACK TO ─ one half · the other
//!
//! What fails only because of the order in which rows are written, succeeds in halves: single changes go in the order in
//! which they were made. A change that fails alone is left out, or its stream stops: then all of it begins anew without
//! that stream.

const std = @import("std");
const sdk = @import("sdk");
const changes_module = @import("changes.zig");
const columns_module = @import("columns.zig");
const letters = @import("letters.zig");
const precedence = @import("precedence.zig");
const replica_module = @import("replica.zig");
const truncation = @import("truncation.zig");
const Landing = @import("landing.zig").Landing;
const Refusal = @import("refusal.zig").Refusal;
const Refused = @import("guard.zig").Refused;
const Replica = replica_module.Replica;
const Session = @import("session.zig").Session;

const Allocator = std.mem.Allocator;
const Position = changes_module.Position;
const Ref = changes_module.Ref;
const Span = changes_module.Span;
const arrow = sdk.arrow;

const checking = "checking the constraints of all tables";

pub const Application = struct {
    session: *Session,
    /// Of what is refused.
    arena: Allocator,
    /// Parents first.
    replicas: []*Replica,
    /// What one attempt needs.
    scratch: std.heap.ArenaAllocator,
    refused: std.ArrayList(RefusedChange) = .empty,
    /// The one whose table is written, where it is one.
    writing: ?*Replica = null,
    /// Whether constraints are checked after each half, and not behind them all.
    strict: bool = false,

    const RefusedChange = struct { replica: *Replica, ref: Ref, refusal: Refusal };

    /// Applies what waits for the replicas that go on; `arena` lives until COMMIT. `whole`: it ends with a transaction of
    /// the source, so that every constraint holds.
    pub fn run(arena: Allocator, session: *Session, replicas: []*Replica, whole: bool) !void {
        var self: Application = .{
            .session = session,
            .arena = arena,
            .replicas = replicas,
            .scratch = .init(session.gpa),
        };
        defer self.scratch.deinit();
        try precedence.sort(arena, session, replicas);
        for (replicas) |replica| if (replica.waits()) try self.claim(replica);
        const doing = "applying changes";
        while (true) {
            try session.exec("SAVEPOINT rapidbyte_apply", doing);
            if (self.all(whole)) |_| break else |err| switch (err) {
                error.Stopped => {},
                error.Late => {
                    self.strict = true;
                    // What was wrong before is no change's fault.
                    try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_apply", doing);
                    try session.exec("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED", checking);
                },
                else => |other| return other,
            }
            self.refused.clearRetainingCapacity();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_apply; RELEASE SAVEPOINT rapidbyte_apply", doing);
        }
        try session.exec("RELEASE SAVEPOINT rapidbyte_apply", doing);
        try self.settle();
        for (replicas) |replica| {
            if (replica.waits()) replica.applied = true;
            replica.changes.clear();
        }
    }

    fn claim(self: *Application, replica: *Replica) !void {
        if (replica.claimed) return;
        const session = self.session;
        const doing = replica.target.doing;
        try session.exec("SAVEPOINT rapidbyte_claim", doing);
        replica.claim(self.scratch.allocator()) catch |failed| {
            if (!isOwn(failed)) return failed;
            try replica.halt();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_claim", doing);
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_claim", doing);
    }

    fn all(self: *Application, whole: bool) anyerror!void {
        try self.range(.all);
        if (!whole or self.strict) return;
        self.session.exec("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED", checking) catch |failed| {
            if (failed != error.Failed or sdk.errors.current().?.kind != .data) return failed;
            sdk.errors.clear();
            return error.Late;
        };
    }

    fn range(self: *Application, span: Span) anyerror!void {
        const session = self.session;
        const doing = "applying changes";
        try session.exec("SAVEPOINT rapidbyte_changes", doing);
        self.writing = null;
        session.culprit = null;
        self.attempt(span) catch |failed| {
            const refusal = try self.undo(failed);
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_changes; RELEASE SAVEPOINT rapidbyte_changes", doing);
            const places = try self.placesWithin(span);
            defer session.gpa.free(places);
            if (places.len == 0) return failed;
            if (places.len == 1) return self.refuse(places[0], refusal);
            sdk.errors.clear();
            const middle = places[places.len / 2].position;
            try self.range(.{ .from = span.from, .to = middle });
            return self.range(.{ .from = middle, .to = span.to });
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_changes", doing);
    }

    /// The net of the changes within the span.
    fn attempt(self: *Application, span: Span) !void {
        const session = self.session;
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        var going: std.ArrayList(*Replica) = .empty;
        var truncates = false;
        for (self.replicas) |replica| {
            if (!replica.waits()) continue;
            self.writing = replica;
            try replica.way.?.build(span);
            if (replica.way.?.truncated() != null) truncates = true;
            try going.append(arena, replica);
        }
        self.writing = null;
        if (truncates) try truncation.run(arena, session, try self.truncated(arena, going.items));
        var last = going.items.len;
        while (last > 0) : (last -= 1) {
            self.writing = going.items[last - 1];
            try self.writing.?.way.?.remove(arena);
        }
        for (going.items) |replica| {
            self.writing = replica;
            try replica.way.?.write(arena);
        }
        self.writing = null;
        if (self.strict) try session.exec("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED", checking);
    }

    fn truncated(_: *Application, arena: Allocator, going: []const *Replica) ![]const *Replica {
        var found: std.ArrayList(*Replica) = .empty;
        for (going) |replica| if (replica.way.?.truncated() != null) try found.append(arena, replica);
        return found.items;
    }

    /// Fails again where it is not the changes' fault.
    fn undo(self: *Application, failed: anyerror) !Refusal {
        for (self.replicas) |replica| if (replica.way) |*way| way.abandon();
        if (failed != error.Failed) return failed;
        const doing = if (self.writing) |replica| replica.target.doing else "";
        if (try Refusal.ofFailure(self.arena, self.session, doing)) |refusal| {
            for (self.replicas) |replica| if (replica.way) |*way| way.undone();
            return refusal;
        }
        const replica = self.writing orelse return failed;
        if (!isOwn(failed)) return failed;
        for (self.replicas) |each| if (each.way) |*way| way.undone();
        try replica.halt();
        return error.Stopped;
    }

    const Place = struct {
        position: Position,
        replica: *Replica,
        ref: Ref,

        fn isBefore(_: void, a: Place, b: Place) bool {
            return a.position < b.position;
        }
    };

    /// Where changes begin: an update with its old row is one.
    fn placesWithin(self: *Application, span: Span) ![]Place {
        const gpa = self.session.gpa;
        var places: std.ArrayList(Place) = .empty;
        errdefer places.deinit(gpa);
        for (self.replicas) |replica| {
            if (!replica.waits()) continue;
            var it = replica.changes.within(span);
            var old: ?Position = null;
            while (it.next()) |ref| {
                const position = replica.changes.at(ref).position(ref.row);
                if (replica.changes.op(ref) == .old) {
                    old = position;
                    continue;
                }
                try places.append(gpa, .{ .position = old orelse position, .replica = replica, .ref = ref });
                old = null;
            }
        }
        std.mem.sort(Place, places.items, {}, Place.isBefore);
        return places.toOwnedSlice(gpa);
    }

    /// A change that failed alone.
    fn refuse(self: *Application, place: Place, refusal: Refusal) !void {
        const replica = place.replica;
        if (replica.asked.on_data_error == .fail) {
            try replica.halt();
            return error.Stopped;
        }
        sdk.errors.clear();
        try self.refused.append(self.arena, .{ .replica = replica, .ref = place.ref, .refusal = refusal });
    }

    /// Counts and tells what was left out, once it is known for good.
    fn settle(self: *Application) !void {
        for (self.refused.items) |*each| {
            const replica = each.replica;
            replica.rejected += 1;
            if (replica.first_refusal != null) continue;
            // What a message quotes of the row is for the dead letter.
            const message = each.refusal.message;
            replica.first_refusal = try self.session.arena.allocator().dupe(u8, message[0 .. std.mem.find(u8, message, ": ") orelse message.len]);
        }
        var first: usize = 0;
        const all_refused = self.refused.items;
        while (first < all_refused.len) {
            const replica = all_refused[first].replica;
            const batch = all_refused[first].ref.batch;
            var end = first + 1;
            while (end < all_refused.len and all_refused[end].replica == replica and all_refused[end].ref.batch == batch and end - first < told_at_once) end += 1;
            if (replica.asked.on_data_error == .dlq) try self.tell(replica, batch, all_refused[first..end]);
            first = end;
        }
    }

    fn tell(self: *Application, replica: *Replica, number: u32, refused: []const RefusedChange) !void {
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        const batch = &replica.changes.batches.items[number];
        const rows = try arena.alloc(Refused, refused.len);
        for (rows, refused) |*row, each| row.* = .{ .row = each.ref.row, .refusal = each.refusal };
        // A history's rows say what happened by themselves.
        const told = if (replica.way.? == .history)
            try letters.ofBatch(arena, replica.landing.?, &batch.view(.landed), rows)
        else
            try letters.ofBatch(arena, try withOp(arena, replica.landing.?), &.{
                .rows = batch.rows,
                .columns = try std.mem.concat(arena, arrow.ArrayView, &.{ &.{try @import("history.zig").names(arena, batch)}, batch.landed }),
            }, rows);
        try sdk.host.emitDlqBatchOf(arena, replica.asked.name, told);
    }

    /// The landing with one column more in front.
    fn withOp(arena: Allocator, landing: *const Landing) !*const Landing {
        const widened = try arena.create(Landing);
        widened.* = landing.*;
        const field: arrow.Field = .{
            .name = "_rb_op",
            .type = .utf8,
            .metadata = &.{.{ .key = arrow.keys.pg_type, .value = "text" }},
        };
        const column: columns_module.Column = .{
            .name = field.name,
            .quoted = "\"_rb_op\"",
            .type = "text",
            .nullable = true,
            .codec = .{ .wire = .bytes },
        };
        widened.columns = try std.mem.concat(arena, columns_module.Column, &.{ &.{column}, landing.columns });
        widened.schema.fields = try std.mem.concat(arena, arrow.Field, &.{ &.{field}, landing.schema.fields });
        return widened;
    }
};

/// Letters of so many rows are a few megabytes, mostly.
const told_at_once = 1000;

fn isOwn(failed: anyerror) bool {
    if (failed != error.Failed) return false;
    const failure = sdk.errors.current() orelse return false;
    return replica_module.isItsOwn(failure.kind);
}
