//! What rules say across batches and schemas; what they say of values is held against PostgreSQL by the integration tests.

const std = @import("std");
const sdk = @import("sdk");
const transform = @import("transform");
const Validate = @import("validate.zig").Validate;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

const Trial = struct {
    arena: std.heap.ArenaAllocator,
    validate: Validate,
    rows: transform.Rows,
    schema: arrow.Schema = .{ .fields = &.{} },
    stream: transform.Stream = .{ .name = "users" },

    fn init(self: *Trial, rules: []const u8) !void {
        self.* = .{ .arena = .init(std.testing.allocator), .validate = undefined, .rows = .init(std.testing.allocator) };
        const arena = self.arena.allocator();
        const config = try std.mem.concat(arena, u8, &.{ "{\"rules\": ", rules, "}" });
        self.validate = try .init(arena, try sdk.json.parse(sdk.json.Value, arena, config));
    }

    fn deinit(self: *Trial) void {
        sdk.errors.clear();
        self.rows.deinit();
        self.validate.deinit();
        self.arena.deinit();
    }

    fn turn(self: *Trial, of: []const arrow.Field) !void {
        const arena = self.arena.allocator();
        const shape = try arena.create(transform.Shape);
        shape.* = try .read(arena, &self.stream, try arrow.writer.encodeSchema(arena, &.{ .fields = of }));
        self.schema = try self.validate.turn(arena, shape);
    }

    /// Numbers of one column, and texts of another; null: NULL.
    fn expectRefused(self: *Trial, numbers: []const ?i64, texts: []const ?[]const u8, expected: []const ?[]const u8) !void {
        const arena = self.arena.allocator();
        const views = try arena.alloc(arrow.ArrayView, 2);
        var number: arrow.ColumnBuilder = try .init(arena, self.schema.fields[0].type);
        for (numbers) |value| if (value) |known| switch (number.type) {
            .int64 => try number.appendFixed(i64, known),
            .int32 => try number.appendFixed(i32, @intCast(known)),
            else => unreachable,
        } else try number.appendNull();
        var text: arrow.ColumnBuilder = try .init(arena, .utf8);
        for (texts) |value| if (value) |known| try text.appendBytes(known) else try text.appendNull();
        views[0] = try number.view(arena);
        views[1] = try text.view(arena);
        const batch: arrow.Batch = .{ .rows = numbers.len, .columns = views };
        try self.rows.begin(batch.rows);
        const result = try self.validate.take(arena, &batch, &self.rows);
        // What goes on is what came.
        try std.testing.expectEqual(batch.columns.ptr, result.columns.ptr);
        const told = try arena.alloc(std.ArrayList(u8), batch.rows);
        @memset(told, .empty);
        for (self.rows.sortedRefusals()) |refusal| {
            const message = &told[refusal.row];
            try message.print(arena, "{s}{s}", .{ if (message.items.len > 0) "; " else "", refusal.reason.message });
        }
        for (told, expected, 0..) |*message, wanted, row| {
            try std.testing.expectEqualStrings(wanted orelse "", message.items);
            try std.testing.expectEqual(wanted == null, self.rows.stays(row));
        }
    }
};

const fields = [_]arrow.Field{ .{ .name = "n", .type = .int64 }, .{ .name = "t", .type = .utf8 } };

test "a key counts once a row with it passes all rules" {
    var trial: Trial = undefined;
    try trial.init("[{\"assert_unique\": \"n\"}, {\"assert_regex\": {\"column\": \"t\", \"pattern\": \"^a\"}}, {\"assert_unique\": [\"t\"]}]");
    defer trial.deinit();
    try std.testing.expect(trial.validate.wholeRun());
    try trial.turn(&fields);
    const unlike = "t does not match ^a (assert_regex)";
    const twice = "n was there before (assert_unique)";
    try trial.expectRefused(&.{ 1, 1, 2, null, null }, &.{ "b", "a", "a", null, null }, &.{
        unlike, null, "t was there before (assert_unique)", null, null,
    });
    // Across batches, and across schemas that change nothing of the columns.
    try trial.turn(&fields);
    try trial.expectRefused(&.{ 2, 1, 2 }, &.{ "ab", "b", "ac" }, &.{ null, unlike ++ "; " ++ twice, twice });
}

test "columns that become others within a run are not compared" {
    var trial: Trial = undefined;
    try trial.init("[{\"assert_unique\": \"n\"}]");
    defer trial.deinit();
    try trial.turn(&fields);
    var other = fields;
    other[0].type = .int32;
    try std.testing.expectError(error.Failed, trial.turn(&other));
    const failure = sdk.errors.current().?;
    try std.testing.expectEqual(.schema, failure.kind);
    try std.testing.expectEqualStrings(
        "rules[0].assert_unique: within the run the columns became others (n integer as int32, before n bigint as int64), whose values are not compared",
        failure.message,
    );
}

test "texts of whole numbers are compared, whatever type they are of" {
    var trial: Trial = undefined;
    try trial.init("[{\"assert_unique\": \"t\"}]");
    defer trial.deinit();
    var other = fields;
    for ([_][]const u8{ "integer", "bigint" }, [_]?[]const u8{ null, "t was there before (assert_unique)" }) |type_name, expected| {
        other[1].metadata = &.{.{ .key = arrow.keys.pg_type, .value = type_name }};
        try trial.turn(&other);
        try trial.expectRefused(&.{1}, &.{"7"}, &.{expected});
    }
}

test "a rule follows a column whose type and place change" {
    var trial: Trial = undefined;
    try trial.init("[{\"assert_range\": {\"column\": \"n\", \"min\": 1.5, \"exclusive_max\": 4}}, {\"assert_not_null\": [\"n\", \"t\"]}]");
    defer trial.deinit();
    try std.testing.expect(!trial.validate.wholeRun());
    const outside = "n is not within min 1.5, exclusive_max 4 (assert_range)";
    const missing = "n is NULL (assert_not_null); t is NULL (assert_not_null)";
    var other = fields;
    for ([_]arrow.Type{ .int64, .int32 }) |of| {
        other[0].type = of;
        try trial.turn(&other);
        try trial.expectRefused(&.{ 1, 2, 3, 4, null }, &.{ "", "", "", "", null }, &.{ outside, null, null, outside, missing });
    }
}

test "rules of any form are taken or refused" {
    try sdk.fuzz.bytes(fuzzRules, &.{
        "[{\"assert_unique\": [\"n\", \"t\"]}, {\"assert_not_null\": \"n\"}]",
        "[{\"assert_range\": {\"column\": \"n\", \"min\": -1e3, \"exclusive_max\": \"12345678901234567890\"}}]",
        "[{\"assert_in\": {\"column\": \"n\", \"values\": [1, \"-2\", 1e2]}}, {\"assert_in\": {\"column\": \"t\", \"values\": [\"a\"]}}]",
        "[{\"assert_regex\": {\"column\": \"t\", \"pattern\": \"^[a-z]+(é|\\\\d{2,3})?$\"}}]",
    });
}

fn fuzzRules(bytes: []const u8) anyerror!void {
    var trial: Trial = undefined;
    trial.init(bytes) catch {
        sdk.errors.clear();
        trial.arena.deinit();
        return;
    };
    defer trial.deinit();
    trial.turn(&fields) catch |err| {
        try std.testing.expectEqual(error.Failed, err);
        try std.testing.expectEqual(.config, sdk.errors.current().?.kind);
        return;
    };
    const arena = trial.arena.allocator();
    var text: arrow.ColumnBuilder = try .init(arena, .utf8);
    try text.appendBytes(bytes);
    var number: arrow.ColumnBuilder = try .init(arena, .int64);
    try number.appendFixed(i64, @bitCast(std.hash.Wyhash.hash(0, bytes)));
    var views = [_]arrow.ArrayView{ try number.view(arena), try text.view(arena) };
    try trial.rows.begin(1);
    _ = try trial.validate.take(arena, &.{ .rows = 1, .columns = &views }, &trial.rows);
}

test "texts of moments and numbers are read or refused" {
    try sdk.fuzz.bytes(fuzzTexts, &.{ "2024-02-29", "2024-02-29T01:02:03.5+05:30", "0044-03-15 00:00 BC", "24:00", "-infinity", "-12.50e-3", "NaN" });
}

fn fuzzTexts(bytes: []const u8) anyerror!void {
    const Domain = @import("domain.zig").Domain;
    const decimal = @import("decimal.zig");
    for ([_]Domain{ .integer, .date, .time, .timestamp, .timestamptz }) |domain| _ = domain.ordinal(bytes);
    _ = decimal.Number.parse(bytes);
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const number = try decimal.Decimal.parseWritten(arena.allocator(), bytes) orelse return;
    // Up is the next after down, where they are not the same.
    for ([_]i32{ -3, 0, 7, 38 }) |scale| {
        const below = number.scaled(i256, scale, 76, .down);
        const above = number.scaled(i256, scale, 76, .up);
        try std.testing.expect(above == below or above == below + 1);
    }
}
