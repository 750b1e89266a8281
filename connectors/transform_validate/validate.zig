//! The rules of a stream's columns, and each batch.

const std = @import("std");
const sdk = @import("sdk");
const regex = @import("regex");
const transform = @import("transform");
const config = @import("config.zig");
const pattern = @import("pattern.zig");
const Choice = @import("choice.zig").Choice;
const Range = @import("range.zig").Range;
const Unique = @import("unique.zig").Unique;

const Allocator = std.mem.Allocator;
const Reason = transform.Reason;
const Rows = transform.Rows;
const Shape = transform.Shape;
const Texts = transform.Texts;
const arrow = sdk.arrow;

pub const Validate = struct {
    /// Of the whole run.
    arena: Allocator,
    rules: []const config.Rule,
    /// As many as there are rules; those of assert_regex.
    patterns: []?regex.Regex,
    uniques: []Unique,
    /// What the rules are for the columns that there are. They outlive these: their texts are given back then.
    checks: std.ArrayList(Check) = .empty,
    hashes: []?u128,

    pub fn init(arena: Allocator, value: sdk.json.Value) !Validate {
        const rules = try config.parse(arena, value);
        var self: Validate = .{
            .arena = arena,
            .rules = rules,
            .patterns = try arena.alloc(?regex.Regex, rules.len),
            .uniques = &.{},
            .hashes = &.{},
        };
        @memset(self.patterns, null);
        errdefer self.deinit();
        var uniques: std.ArrayList(Unique) = .empty;
        for (rules, self.patterns) |*rule, *compiled| switch (rule.assertion) {
            .regex => |each| compiled.* = try pattern.compile(rule.path, each.pattern),
            .unique => |names| try uniques.append(arena, try .init(rule.path, names)),
            else => {},
        };
        self.uniques = uniques.items;
        self.hashes = try arena.alloc(?u128, uniques.items.len);
        return self;
    }

    pub fn deinit(self: *Validate) void {
        self.forget();
        self.checks.deinit(sdk.connector.gpa);
        for (self.patterns) |*compiled| if (compiled.*) |*each| each.deinit();
        for (self.uniques) |*unique| unique.deinit();
    }

    fn forget(self: *Validate) void {
        for (self.checks.items) |*check| check.texts.deinit(sdk.connector.gpa);
        self.checks.clearRetainingCapacity();
    }

    /// A value can only be known for one that was there before by who has seen all rows.
    pub fn wholeRun(self: *const Validate) bool {
        return self.uniques.len > 0;
    }

    pub fn turn(self: *Validate, arena: Allocator, shape: *const Shape) !arrow.Schema {
        self.forget();
        const gpa = sdk.connector.gpa;
        const checks = &self.checks;
        for (self.rules, self.patterns) |*rule, *compiled| switch (rule.assertion) {
            .not_null => |names| for (names) |name| {
                const message = try std.fmt.allocPrint(arena, "{s} is NULL (assert_not_null)", .{name});
                try checks.append(gpa, try .init(arena, shape, rule.path, name, .{
                    .not_null = .{ .message = message, .column = name },
                }));
            },
            .regex => |each| {
                const message = try std.fmt.allocPrint(arena, "{s} does not match {s} (assert_regex)", .{ each.column, each.pattern });
                try checks.append(gpa, try .init(arena, shape, rule.path, each.column, .{
                    .regex = .{ .compiled = &compiled.*.?, .reason = .{ .message = message, .column = each.column } },
                }));
            },
            .range => |*each| {
                const place = try shape.place(arena, rule.path, each.column);
                try checks.append(gpa, try .init(arena, shape, rule.path, each.column, .{
                    .range = try .init(arena, rule.path, each, &shape.schema.fields[place], shape.types[place]),
                }));
            },
            .in => |each| {
                const place = try shape.place(arena, rule.path, each.column);
                try checks.append(gpa, try .init(arena, shape, rule.path, each.column, .{
                    .in = try .init(arena, rule.path, each.values, &shape.schema.fields[place], shape.types[place]),
                }));
            },
            .unique => {},
        };
        for (self.uniques) |*unique| try unique.turn(arena, self.arena, shape);
        return shape.schema;
    }

    pub fn take(self: *Validate, _: Allocator, batch: *const arrow.Batch, rows: *Rows) !arrow.Batch {
        for (self.checks.items) |*check| try check.judge(&batch.columns[check.place], rows);
        if (self.uniques.len > 0) for (0..batch.rows) |row| try self.judgeUniques(batch, row, rows);
        return batch.*;
    }

    /// Only a row that passes all rules counts as one that was there.
    fn judgeUniques(self: *Validate, batch: *const arrow.Batch, row: usize, rows: *Rows) !void {
        for (self.uniques, self.hashes) |*unique, *hash| {
            hash.* = try unique.hashOf(batch, row);
            if (hash.*) |known| if (unique.seen.contains(known)) try rows.refuse(row, unique.reason);
        }
        if (!rows.stays(row)) return;
        for (self.uniques, self.hashes) |*unique, hash| {
            try unique.remember(hash orelse continue);
        }
    }
};

/// A rule, for one column.
const Check = struct {
    place: usize,
    texts: Texts,
    assertion: Assertion,

    const Assertion = union(enum) {
        not_null: Reason,
        regex: struct { compiled: *regex.Regex, reason: Reason },
        range: Range,
        in: Choice,
    };

    fn init(arena: Allocator, shape: *const Shape, path: []const u8, name: []const u8, assertion: Assertion) !Check {
        const place = try shape.place(arena, path, name);
        const field = &shape.schema.fields[place];
        return .{ .place = place, .texts = .init(field, shape.types[place]), .assertion = assertion };
    }

    fn judge(self: *Check, view: *const arrow.ArrayView, rows: *Rows) !void {
        switch (self.assertion) {
            .not_null => |reason| if (view.null_count > 0) for (0..view.length) |row| {
                if (view.isNull(row)) try rows.refuse(row, reason);
            },
            .regex => |*each| try pattern.judge(each.compiled, &self.texts, view, rows, each.reason),
            .range => |*range| try range.judge(view, rows),
            .in => |*choice| try choice.judge(&self.texts, view, rows),
        }
    }
};

test "a rule lets go of columns that are gone" {
    const gpa = std.testing.allocator;
    var arena_of_run: std.heap.ArenaAllocator = .init(gpa);
    defer arena_of_run.deinit();
    const text = "{\"rules\": [{\"assert_regex\": {\"column\": \"n\", \"pattern\": \"[0-9]\"}}]}";
    var validate: Validate = try .init(arena_of_run.allocator(), try sdk.json.parse(sdk.json.Value, arena_of_run.allocator(), text));
    defer validate.deinit();
    var rows: Rows = .init(gpa);
    defer rows.deinit();
    const stream: transform.Stream = .{ .name = "users" };
    for (0..2) |_| {
        // Of one schema, as the loop has it: nothing in it is there when the next one comes, or at the end.
        var arena_of_shape: std.heap.ArenaAllocator = .init(gpa);
        defer arena_of_shape.deinit();
        const arena = arena_of_shape.allocator();
        const message = try arrow.writer.encodeSchema(arena, &.{ .fields = &.{.{ .name = "n", .type = .int64 }} });
        const shape: Shape = try .read(arena, &stream, message);
        _ = try validate.turn(arena, &shape);
        var column: arrow.ColumnBuilder = try .init(arena, .int64);
        try column.appendFixed(i64, 7);
        var columns = [_]arrow.ArrayView{try column.view(arena)};
        try rows.begin(1);
        _ = try validate.take(arena, &.{ .rows = 1, .columns = &columns }, &rows);
        try std.testing.expect(rows.stays(0));
    }
}
