//! Where a stream lands: the table as it is, which of the stream's columns go into it, and what the table goes through for
//! them.

const std = @import("std");
const sdk = @import("sdk");
const columns_module = @import("columns.zig");
const drift = @import("drift.zig");
const evolution_module = @import("evolution.zig");
const target_module = @import("target.zig");
const write = @import("write.zig");
const Comparison = evolution_module.Comparison;
const Evolution = evolution_module.Evolution;
const Guard = @import("guard.zig").Guard;
const Relation = @import("relation.zig").Relation;
const Session = @import("session.zig").Session;
const Target = target_module.Target;

const Allocator = std.mem.Allocator;
const Column = columns_module.Column;
const arrow = sdk.arrow;

pub const Landing = struct {
    session: *Session,
    target: *const Target,
    mode: write.WriteMode,
    /// The key that the pipeline names.
    named_key: ?[]const []const u8,
    /// What rows are found by; empty where they are only added, or replaced as a whole.
    key: []const []const u8,
    /// The stream as it comes, and as much of it as is written.
    stream: *const arrow.Schema,
    schema: arrow.Schema,
    columns: []const Column,
    /// Null where there is no table yet: then nothing evolves.
    existing: ?Relation,
    evolution: ?Evolution,
    /// A batch's columns that are written.
    picked: []arrow.ArrayView,
    /// Where rows that fail on their data are left out.
    guard: ?*Guard = null,
    /// The stream's name, where several are written.
    told_as: ?[]const u8 = null,
    /// Changes of the same transaction, when the stream had another schema.
    earlier: []const drift.Change = &.{},
    reported: bool = false,

    /// Everything lives in `arena`. A policy that refuses is for `insist` to act on.
    pub fn find(
        arena: Allocator,
        session: *Session,
        target: *const Target,
        asked: *const write.Stream,
        stream: *const arrow.Schema,
    ) !*Landing {
        const self = try arena.create(Landing);
        const mode = try asked.mode();
        const existing = try target.find(arena, session);
        const known_key: []const []const u8 = if (existing) |*found| found.primary_key else &.{};
        const key: []const []const u8 = if (mode == .upsert)
            try target_module.requiredKey(arena, stream, asked.primary_key, known_key, target.label)
        else
            &.{};
        self.* = .{
            .session = session,
            .target = target,
            .mode = mode,
            .named_key = asked.primary_key,
            .key = key,
            .stream = stream,
            .schema = stream.*,
            .columns = undefined,
            .existing = existing,
            .evolution = null,
            .picked = &.{},
        };
        if (self.existing) |*found| {
            const comparison = try arena.create(Comparison);
            comparison.* = .{
                .session = session,
                .target = target,
                .relation = found,
                .schema = stream,
                .policy = asked.schema_evolution orelse .{},
                .known = asked.known_columns,
                .lags = session.streams.len > 0,
                .key = key,
                .source_key = if (asked.primary_key == null) try wholeSourceKey(arena, stream) else &.{},
            };
            self.evolution = try evolution_module.plan(arena, comparison);
            self.columns = self.evolution.?.columns;
            if (self.columns.len < stream.fields.len) try self.leaveOut(arena);
        } else {
            self.columns = try columns_module.forNewTable(arena, session, stream, target.label);
        }
        return self;
    }

    /// The source table's own key; empty where the stream leaves part of it out.
    fn wholeSourceKey(arena: Allocator, stream: *const arrow.Schema) ![]const []const u8 {
        const key = try target_module.sourceKey(arena, stream);
        for (key) |name| if (stream.indexOf(name) == null) return &.{};
        return key;
    }

    fn leaveOut(self: *Landing, arena: Allocator) !void {
        const places = self.evolution.?.fields;
        const fields = try arena.alloc(arrow.Field, places.len);
        for (fields, places) |*field, place| field.* = self.stream.fields[place];
        self.schema.fields = fields;
        self.picked = try arena.alloc(arrow.ArrayView, places.len);
    }

    /// What is written of a batch; until the next one.
    pub fn project(self: *Landing, batch: *const arrow.Batch) arrow.Batch {
        if (self.picked.len == 0) return batch.*;
        for (self.picked, self.evolution.?.fields) |*column, place| column.* = batch.columns[place];
        return .{ .rows = batch.rows, .columns = self.picked };
    }

    pub fn isRefused(self: *const Landing) bool {
        return if (self.evolution) |*evolution| drift.anyRefused(evolution.changes) else false;
    }

    /// Before a row moves: fails where the policy says so, or where what it says cannot be done.
    pub fn insist(self: *Landing, arena: Allocator) !void {
        const evolution = if (self.evolution) |*found| found else return;
        if (self.isRefused()) return drift.refuse(arena, self.told_as, evolution.changes, self.target.label);
        try evolution.require(arena);
    }

    /// Before a row moves, where the table itself is altered after them. In a transaction.
    pub fn rehearse(self: *Landing, arena: Allocator) !void {
        if (self.evolution) |*evolution| try evolution.rehearse(arena);
        try self.session.seeCatalog();
    }

    pub fn changesTable(self: *const Landing) bool {
        return if (self.evolution) |*evolution| evolution.changesTable() else false;
    }

    /// What the table, or a copy of it, goes through, in few bytes.
    pub fn alterations(self: *const Landing, arena: Allocator) ![]const u8 {
        const evolution = if (self.evolution) |*found| found else return "";
        var hash: std.crypto.hash.sha2.Sha256 = .init(.{});
        // No statement holds a NUL.
        for (evolution.changes) |change| for (change.ddl) |sql| for ([_][]const u8{ sql, "\x00" }) |part| hash.update(part);
        return std.fmt.allocPrint(arena, "{x}", .{hash.finalResult()[0..16]});
    }

    /// Alters the table, and keeps it locked until the transaction's end.
    pub fn evolve(self: *Landing, arena: Allocator) !void {
        if (!self.changesTable()) return;
        try self.alter(arena);
        try self.tighten(arena, self.target.quoted);
        try self.session.seeAsUser();
    }

    /// `evolve` without what rows stand in the way of that are about to go.
    pub fn alter(self: *Landing, arena: Allocator) !void {
        if (!self.changesTable()) return;
        _ = try self.session.lockTable(arena, .{
            .table = self.target.quoted,
            .label = self.target.label,
            .mode = "ACCESS EXCLUSIVE",
            .doing = self.target.doing,
        });
        const evolution = &self.evolution.?;
        try evolution.comparison.requireCurrent(arena);
        try evolution.apply(arena, self.target.quoted);
    }

    /// Alters a table that will take the target's place. It was made after the target a moment ago, in this transaction:
    /// whoever altered the target did it before that.
    pub fn evolveCopy(self: *Landing, arena: Allocator, copy: []const u8) !void {
        if (!self.changesTable()) return;
        const evolution = &self.evolution.?;
        try evolution.comparison.requireCurrent(arena);
        try evolution.apply(arena, copy);
        try self.tighten(arena, copy);
        try self.session.seeCatalog();
    }

    pub fn tighten(self: *Landing, arena: Allocator, table: []const u8) !void {
        if (self.evolution) |*evolution| try evolution.tighten(arena, table);
    }

    /// Takes over what the host has not been told of an earlier landing in the same transaction, which need not live on.
    pub fn follow(self: *Landing, arena: Allocator, earlier: *const Landing) !void {
        const before = earlier.evolution orelse return;
        if (earlier.reported) return;
        const changes = try std.mem.concat(arena, drift.Change, &.{ earlier.earlier, before.changes });
        for (changes) |*change| change.* = try change.dupe(arena);
        self.earlier = changes;
    }

    /// Tells the host of the changes, once, with what became of them.
    pub fn report(self: *Landing, arena: Allocator) !void {
        const evolution = if (self.evolution) |*found| found else return;
        var changes: std.ArrayList(drift.Change) = .empty;
        for (self.earlier) |*change| if (!isRepeated(change, evolution.changes)) try changes.append(arena, change.*);
        try changes.appendSlice(arena, evolution.changes);
        if (self.reported or changes.items.len == 0) return;
        try sdk.host.drift(arena, self.told_as, changes.items);
        self.reported = true;
    }

    /// What a table is left with is found in each of the stream's schemas.
    fn isRepeated(change: *const drift.Change, later: []const drift.Change) bool {
        if (change.ddl.len > 0) return false;
        return for (later) |*other| {
            if (other.action == change.action and std.mem.eql(u8, other.message, change.message)) break true;
        } else false;
    }

    /// The table's columns must still be what rows are written as: between two transactions nobody holds it, and who
    /// waits for its lock may wait for somebody who alters it. COPY would take the bytes of one type for another's.
    pub fn requireUnchanged(self: *const Landing, arena: Allocator) !void {
        const now = try self.target.find(arena, self.session) orelse return self.target.altered();
        for (self.columns) |column| {
            const found = now.column(column.name) orelse return self.target.altered();
            if (!std.mem.eql(u8, found.type, column.type) or found.generated) return self.target.altered();
        }
    }
};
