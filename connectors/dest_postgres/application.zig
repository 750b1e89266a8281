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
const claims = @import("claims.zig");
const columns_module = @import("columns.zig");
const history = @import("history.zig");
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

const applying = "applying changes";
const checking = "checking the constraints of all tables";

/// Fails where a constraint that waits is violated.
const check_sql = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// They are tried one by one.
const held_max = 10_000;

pub const Application = struct {
    session: *Session,
    /// Parents first.
    replicas: []*Replica,
    /// Of what is refused, until COMMIT.
    arena: Allocator = undefined,
    /// What one attempt needs.
    scratch: std.heap.ArenaAllocator,
    refused: std.ArrayList(RefusedChange) = .empty,
    /// What refers to nothing yet: to what a later change brings, perhaps. Later changes of these rows wait too.
    held: std.ArrayList(RefusedChange) = .empty,
    /// The one whose table is written, where it is one.
    writing: ?*Replica = null,
    /// Whether constraints are checked after each half, and not behind them all.
    strict: bool = false,

    const RefusedChange = struct { replica: *Replica, ref: Ref, position: Position, refusal: Refusal };

    pub fn init(session: *Session, replicas: []*Replica) Application {
        return .{ .session = session, .replicas = replicas, .scratch = .init(session.gpa) };
    }

    pub fn deinit(self: *Application) void {
        self.scratch.deinit();
    }

    /// Applies what waits for the replicas that go on; `arena` lives until COMMIT. `whole`: it ends with a transaction of
    /// the source, so that every constraint holds.
    pub fn run(self: *Application, arena: Allocator, whole: bool) !void {
        const session = self.session;
        self.arena = arena;
        self.refused = .empty;
        self.held = .empty;
        self.strict = false;
        for (self.replicas) |replica| replica.remember();
        while (true) {
            if (self.all(whole)) |_| break else |err| switch (err) {
                error.Stopped => try self.takeBack(),
                error.Late => {
                    self.strict = true;
                    try self.takeBack();
                    session.exec(check_sql, checking) catch |failed| return self.wasWrong(failed);
                },
                else => |other| return other,
            }
        }
        try self.settle();
        for (self.replicas) |replica| {
            if (replica.waits()) replica.applied = true;
            replica.changes.clear();
        }
    }

    /// None of the changes at hand is at fault: an earlier part of their transaction left it so.
    fn wasWrong(self: *Application, failed: anyerror) anyerror {
        if (failed != error.Failed or sdk.errors.current().?.kind != .data) return failed;
        const said = &self.session.connection.last_error.?;
        for (self.replicas) |replica| {
            if (!replica.applied or !replica.target.isNamed(said.schema, said.table)) continue;
            try replica.halt(sdk.errors.current().?);
        }
        return failed;
    }

    /// All of it; opens a savepoint, and releases it where all went well.
    fn all(self: *Application, whole: bool) anyerror!void {
        try self.session.exec("SAVEPOINT rapidbyte_apply", applying);
        try self.claimAll();
        try self.range(.all);
        try self.release();
        if (whole and !self.strict) self.session.exec(check_sql, checking) catch |failed| {
            if (failed != error.Failed or sdk.errors.current().?.kind != .data) return failed;
            sdk.errors.clear();
            return error.Late;
        };
        try self.session.exec("RELEASE SAVEPOINT rapidbyte_apply", applying);
    }

    fn takeBack(self: *Application) !void {
        try self.session.exec("ROLLBACK TO SAVEPOINT rapidbyte_apply; RELEASE SAVEPOINT rapidbyte_apply", applying);
        for (self.replicas) |replica| replica.recall();
        self.refused.clearRetainingCapacity();
        self.held.clearRetainingCapacity();
    }

    fn claimAll(self: *Application) !void {
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        const known = for (self.replicas) |replica| {
            if (replica.waits() and !replica.ready) break false;
        } else true;
        if (known and try claims.takeAll(arena, self.session, self.replicas)) return;
        try precedence.sort(arena, self.session, self.replicas);
        for (self.replicas) |replica| {
            if (!replica.waits() or replica.claimed) continue;
            replica.claim(arena) catch |failed| {
                if (!replica_module.isOwn(failed)) return failed;
                try replica.halt(sdk.errors.current().?);
                return error.Stopped;
            };
        }
    }

    fn range(self: *Application, span: Span) anyerror!void {
        const refusal = try self.attempt(self.replicas, span, null) orelse return;
        const places = try self.placesWithin(span);
        defer self.session.gpa.free(places);
        if (places.len == 0) return self.fail();
        if (places.len == 1) return self.hold(places[0], refusal);
        const middle = places[places.len / 2].position;
        try self.range(.{ .from = span.from, .to = middle });
        return self.range(.{ .from = middle, .to = span.to });
    }

    /// No change is at fault.
    fn fail(_: *Application) anyerror {
        return sdk.fail(.data, "{s}: a constraint is violated, and no change is at fault", .{applying});
    }

    /// The net of the changes within the span, or nothing: then why. `only`: of one row.
    fn attempt(self: *Application, replicas: []const *Replica, span: Span, only: ?Ref) anyerror!?Refusal {
        const session = self.session;
        try session.exec("SAVEPOINT rapidbyte_changes", applying);
        self.writing = null;
        session.culprit = null;
        self.write(replicas, span, only) catch |failed| {
            const refusal = try self.undo(failed);
            sdk.errors.clear();
            try session.exec("ROLLBACK TO SAVEPOINT rapidbyte_changes; RELEASE SAVEPOINT rapidbyte_changes", applying);
            return refusal;
        };
        try session.exec("RELEASE SAVEPOINT rapidbyte_changes", applying);
        return null;
    }

    fn write(self: *Application, replicas: []const *Replica, span: Span, only: ?Ref) !void {
        _ = self.scratch.reset(.retain_capacity);
        const arena = self.scratch.allocator();
        var going: std.ArrayList(*Replica) = .empty;
        var truncated: std.ArrayList(*Replica) = .empty;
        for (replicas) |replica| {
            if (!replica.waits()) continue;
            self.writing = replica;
            const way = &replica.way.?;
            try way.build(span, if (only) |ref| .{ .only = ref } else try self.exceptHeld(arena, replica));
            try going.append(arena, replica);
            if (way.truncated() != null) try truncated.append(arena, replica);
        }
        self.writing = null;
        if (truncated.items.len > 0) try truncation.run(arena, self.session, truncated.items);
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
        if (self.strict) try self.session.exec(check_sql, checking);
    }

    fn exceptHeld(self: *const Application, arena: Allocator, replica: *const Replica) !changes_module.Filter {
        if (self.held.items.len == 0) return .all;
        var refs: std.ArrayList(Ref) = .empty;
        for (self.held.items) |each| if (each.replica == replica) try refs.append(arena, each.ref);
        return .{ .except = refs.items };
    }

    /// A change that failed alone.
    fn hold(self: *Application, place: Place, refusal: Refusal) !void {
        if (refusal.category != .foreign_key or self.held.items.len == held_max) return self.refuse(place, refusal);
        try self.held.append(self.arena, .{
            .replica = place.replica,
            .ref = place.ref,
            .position = place.position,
            .refusal = refusal,
        });
    }

    /// Tries what is held again, as long as that helps any of it.
    fn release(self: *Application) !void {
        var before = self.held.items.len + 1;
        while (self.held.items.len > 0 and self.held.items.len < before) {
            before = self.held.items.len;
            var kept: usize = 0;
            for (self.held.items) |each| {
                const behind: Span = .{ .from = each.position, .to = Span.all.to };
                if (try self.attempt(&.{each.replica}, behind, each.ref) == null) continue;
                self.held.items[kept] = each;
                kept += 1;
            }
            self.held.shrinkRetainingCapacity(kept);
        }
        for (self.held.items) |each| {
            const places = try self.placesWithin(.{ .from = each.position, .to = Span.all.to });
            defer self.session.gpa.free(places);
            for (places) |place| {
                if (place.replica != each.replica or !each.replica.way.?.sameRow(each.ref, place.ref)) continue;
                const alone: Span = .{ .from = place.position, .to = place.replica.changes.positionOf(place.ref) + 1 };
                if (try self.attempt(&.{place.replica}, alone, place.ref)) |refusal| try self.refuse(place, refusal);
            }
        }
        self.held.clearRetainingCapacity();
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
        if (!replica_module.isOwn(failed)) return failed;
        for (self.replicas) |each| if (each.way) |*way| way.undone();
        try replica.halt(sdk.errors.current().?);
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
                const position = replica.changes.positionOf(ref);
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

    /// A change that is at fault.
    fn refuse(self: *Application, place: Place, refusal: Refusal) !void {
        const replica = place.replica;
        if (replica.asked.on_data_error == .fail) {
            try replica.halt(try refusal.asFailure(self.arena, replica.target.doing));
            return error.Stopped;
        }
        try self.refused.append(self.arena, .{
            .replica = replica,
            .ref = place.ref,
            .position = place.position,
            .refusal = refusal,
        });
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
            try letters.ofBatch(arena, replica.landing.?, &try history.printable(arena, batch, replica.landing.?), rows)
        else
            try letters.ofBatch(arena, try withOp(arena, replica.landing.?), &.{
                .rows = batch.rows,
                .columns = try std.mem.concat(arena, arrow.ArrayView, &.{ &.{try history.names(arena, batch)}, batch.landed }),
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
