//! The loop with a handler that does all that one can do, on messages as the host hands them out.

const std = @import("std");
const sdk = @import("sdk");
const loop = @import("loop.zig");
const Rows = @import("rows.zig").Rows;
const Shape = @import("shape.zig").Shape;

const Allocator = std.mem.Allocator;
const Script = sdk.loopback.Script;
const arrow = sdk.arrow;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectEqualStrings = std.testing.expectEqualStrings;

/// Refuses negative numbers, and even ones once more; leaves zeros out; makes every other text longer where it is told to.
const Handler = struct {
    suffix: ?[]const u8 = null,
    place: usize = 0,

    pub fn turn(self: *Handler, arena: Allocator, shape: *const Shape) !arrow.Schema {
        self.place = try shape.place(arena, "column", "n");
        if (shape.schema.fields[self.place].type != .int32) return sdk.fail(.config, "column: n is no integer", .{});
        if (self.suffix == null) return shape.schema;
        const fields = try arena.dupe(arrow.Field, shape.schema.fields);
        for (fields) |*field| if (field.type == .utf8) {
            field.nullable = true;
        };
        return .{ .fields = fields, .metadata = shape.schema.metadata };
    }

    pub fn take(self: *Handler, scratch: Allocator, batch: *const arrow.Batch, rows: *Rows) !arrow.Batch {
        const numbers = batch.columns[self.place].fixed(i32);
        for (numbers, 0..) |number, row| {
            if (number < 0) try rows.refuse(row, .{ .message = "column n is below 0", .column = "n" });
            if (number == 0) rows.filter(row);
        }
        for (numbers, 0..) |number, row| if (number < 0 and @rem(number, 2) == 0)
            try rows.refuse(row, .{ .message = "column n is even", .column = if (number == -2) "n" else null });
        const suffix = self.suffix orelse return batch.*;
        const columns = try scratch.dupe(arrow.ArrayView, batch.columns);
        for (columns) |*column| if (column.type == .utf8) {
            var longer: arrow.ColumnBuilder = try .init(scratch, .utf8);
            for (0..batch.rows) |row| try longer.appendBytes(try std.mem.concat(scratch, u8, &.{ column.bytesAt(row), suffix }));
            column.* = try longer.view(scratch);
        };
        return .{ .rows = batch.rows, .columns = columns };
    }
};

const schema: arrow.Schema = .{
    .fields = &.{
        .{ .name = "n", .type = .int32, .nullable = false },
        .{ .name = "name", .type = .utf8, .nullable = false },
        .{ .name = "day", .type = .date32, .nullable = false },
    },
    .metadata = &.{.{ .key = arrow.keys.primary_key, .value = "[\"n\"]" }},
};

const barrier_7 = "{\"sequence\":7,\"cursor\":null,\"final\":false}";
const barrier_8 = "{\"sequence\":8,\"cursor\":null,\"final\":true}";

const Trial = struct {
    arena: std.heap.ArenaAllocator,
    script: Script,

    fn init(self: *Trial, batches: []const []const i32) !void {
        self.arena = .init(std.testing.allocator);
        const arena = self.arena.allocator();
        var items: std.ArrayList(Script.Item) = .empty;
        try items.append(arena, .{ .message = try arrow.writer.encodeSchema(arena, &schema) });
        for (batches) |numbers| try items.append(arena, .{ .message = try batchOf(arena, numbers) });
        try items.append(arena, .{ .barrier = barrier_7 });
        try items.append(arena, .{ .barrier = barrier_8 });
        self.script = .{ .arena = arena, .items = items.items };
        sdk.loopback.script = &self.script;
    }

    fn deinit(self: *Trial) void {
        sdk.loopback.script = null;
        sdk.errors.clear();
        self.arena.deinit();
    }

    fn batchOf(arena: Allocator, numbers: []const i32) ![]const u8 {
        var selection: arrow.Selection = try .init(arena, schema.fields);
        for (numbers) |number| {
            try selection.columns[0].appendFixed(i32, number);
            try selection.columns[1].appendBytes("secret");
            try selection.columns[2].appendFixed(i32, number);
        }
        selection.rows = numbers.len;
        return std.mem.concat(arena, u8, try slices(arena, try selection.encode(arena)));
    }

    fn slices(arena: Allocator, pieces: []const sdk.host.Piece) ![]const []const u8 {
        const result = try arena.alloc([]const u8, pieces.len);
        for (result, pieces) |*slice, piece| slice.* = piece.slice();
        return result;
    }

    fn run(self: *Trial, handler: Handler, comptime on_data_error: []const u8, max_batch_bytes: usize) !u64 {
        var copy = handler;
        const arena = self.arena.allocator();
        const text = try std.fmt.allocPrint(
            arena,
            "{{\"stream\":{{\"name\":\"users\",\"primary_key\":null,\"on_data_error\":\"{s}\"}},\"max_batch_bytes\":{d}}}",
            .{ on_data_error, max_batch_bytes },
        );
        return (try loop.run(arena, &copy, try sdk.json.parse(sdk.json.Value, arena, text))).rows;
    }

    /// What was said, without the schema: the numbers and the texts of a batch, and all else as it is.
    fn expectSaid(self: *Trial, expected: []const []const u8) !void {
        const arena = self.arena.allocator();
        var told: std.ArrayList([]const u8) = .empty;
        var fields: arrow.Schema = .{ .fields = &.{} };
        for (self.script.said.items) |said| switch (said) {
            .message => |message| if (try arrow.reader.messageKind(message) == .schema) {
                fields = try arrow.reader.decodeSchema(arena, message);
            } else {
                var reader: arrow.BatchReader = .init(arena);
                const batch = try reader.decode(&fields, message);
                try told.append(arena, try std.fmt.allocPrint(arena, "{any} {s}", .{
                    batch.columns[0].fixed(i32), batch.columns[1].bytesAt(0),
                }));
            },
            inline .barrier, .letters, .line => |text| try told.append(arena, text),
        };
        for (0..@max(expected.len, told.items.len)) |i| try expectEqualStrings(
            if (i < expected.len) expected[i] else "nothing",
            if (i < told.items.len) told.items[i] else "nothing",
        );
    }
};

const plenty = 1 << 20;
const none_at_7 = "{\"sequence\":7,\"rejected\":0,\"filtered\":0}";
const none_at_8 = "{\"sequence\":8,\"rejected\":0,\"filtered\":0}";

test "what the handler leaves alone goes on as it came" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ 1, 2 }, &.{3} });
    defer trial.deinit();
    try expectEqual(3, try trial.run(.{}, "fail", 1));
    for (trial.script.items[0..3], trial.script.said.items[0..3]) |came, said|
        try std.testing.expectEqualSlices(u8, came.message, said.message);
    try trial.expectSaid(&.{ "{ 1, 2 } secret", "{ 3 } secret", none_at_7, none_at_8 });
}

test "rows that are refused become letters before their barrier, and the others go on" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ 1, -1, 0, 2, -2 }, &.{ -4, 0 }, &.{} });
    defer trial.deinit();
    try expectEqual(2, try trial.run(.{}, "dlq", plenty));
    const types =
        \\"types":{"n":"integer","name":"text","day":"date"},
    ;
    try trial.expectSaid(&.{
        "{ 1, 2 } secret",
        \\{"letters":[{"record":{"n":-1,"name":"secret","day":"1969-12-31"},
        ++ types ++
            \\"message":"column n is below 0","category":"rule","sqlstate":null,"column":"n"},
        ++
            \\{"record":{"n":-2,"name":"secret","day":"1969-12-30"},
        ++ types ++
            \\"message":"column n is below 0; column n is even","category":"rule","sqlstate":null,"column":"n"},
        ++
            \\{"record":{"n":-4,"name":"secret","day":"1969-12-28"},
        ++ types ++
            \\"message":"column n is below 0; column n is even","category":"rule","sqlstate":null,"column":null}]}
        ,
        "{\"sequence\":7,\"rejected\":3,\"filtered\":2}",
        none_at_8,
    });
}

test "rows that are skipped are counted, and told of once" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ -1, 1 }, &.{-2} });
    defer trial.deinit();
    try expectEqual(1, try trial.run(.{}, "skip", plenty));
    try trial.expectSaid(&.{
        "{ 1 } secret",
        "{\"sequence\":7,\"rejected\":2,\"filtered\":0}",
        none_at_8,
        "2 rows of stream users were left out, and are not kept; the first because of: column n is below 0",
    });
}

test "the first row that is refused fails the run, by its number" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ 1, 0 }, &.{ 2, -6, -1 } });
    defer trial.deinit();
    try std.testing.expectError(error.Failed, trial.run(.{}, "fail", plenty));
    const failure = sdk.errors.current().?;
    try expectEqual(.data, failure.kind);
    try expectEqualStrings("row 4 of stream users: column n is below 0; column n is even", failure.message);
    try trial.expectSaid(&.{"{ 1 } secret"});
}

test "columns that are replaced go on with those that are not" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ 1, 2 }, &.{ 0, 3 } });
    defer trial.deinit();
    try expectEqual(3, try trial.run(.{ .suffix = "!" }, "fail", plenty));
    try trial.expectSaid(&.{ "{ 1, 2 } secret!", "{ 3 } secret!", "{\"sequence\":7,\"rejected\":0,\"filtered\":1}", none_at_8 });
    const said = try arrow.reader.decodeSchema(trial.arena.allocator(), trial.script.said.items[0].message);
    try expect(said.fields[1].nullable and !said.fields[2].nullable);
    try expectEqualStrings("[\"n\"]", said.get(arrow.keys.primary_key).?);
}

test "a batch that has become too large goes on in parts" {
    var trial: Trial = undefined;
    const numbers: [40]i32 = @splat(5);
    try trial.init(&.{ &numbers, &.{ 0, 6, 6 } });
    defer trial.deinit();
    const suffix: [1000]u8 = @splat('x');
    const limit = 12_000;
    try expectEqual(42, try trial.run(.{ .suffix = &suffix }, "fail", limit));
    var rows: usize = 0;
    var largest: usize = 0;
    for (trial.script.said.items) |said| if (said == .message and try arrow.reader.messageKind(said.message) == .record_batch) {
        try expect(said.message.len <= limit);
        largest = @max(largest, said.message.len);
        var reader: arrow.BatchReader = .init(std.testing.allocator);
        defer reader.deinit();
        rows += (try reader.decode(&schema, said.message)).rows;
    };
    try expectEqual(42, rows);
    try expect(largest > limit / 2);
    // One row is emitted, whatever its size.
    var small: Trial = undefined;
    try small.init(&.{&.{1}});
    defer small.deinit();
    try expectEqual(1, try small.run(.{ .suffix = &suffix }, "fail", 10));
}

test "another schema turns the handler, and rows are counted on" {
    var trial: Trial = undefined;
    try trial.init(&.{&.{ 1, 0 }});
    defer trial.deinit();
    const arena = trial.arena.allocator();
    // The same columns, the other way round.
    var fields = schema.fields[0..3].*;
    std.mem.reverse(arrow.Field, &fields);
    const turned: arrow.Schema = .{ .fields = &fields };
    var rows: arrow.Selection = try .init(arena, turned.fields);
    try rows.columns[0].appendFixed(i32, 0);
    try rows.columns[1].appendBytes("secret");
    try rows.columns[2].appendFixed(i32, -5);
    rows.rows = 1;
    const batch = try std.mem.concat(arena, u8, try Trial.slices(arena, try rows.encode(arena)));
    trial.script.items = try std.mem.concat(arena, Script.Item, &.{ trial.script.items[0..2], &.{
        .{ .message = try arrow.writer.encodeSchema(arena, &turned) },
        .{ .message = batch },
    } });
    try std.testing.expectError(error.Failed, trial.run(.{ .suffix = "!" }, "fail", plenty));
    try expectEqualStrings("row 3 of stream users: column n is below 0", sdk.errors.current().?.message);
    const said = try arrow.reader.decodeSchema(arena, trial.script.said.items[2].message);
    try expectEqualStrings("day", said.fields[0].name);
}

test "any message goes on or is an error" {
    var trial: Trial = undefined;
    try trial.init(&.{ &.{ 1, -1, 0, -2 }, &.{3} });
    defer trial.deinit();
    const items = trial.script.items;
    try sdk.fuzz.bytes(fuzzMessage, &.{ items[0].message, items[1].message, items[2].message });
}

fn fuzzMessage(bytes: []const u8) anyerror!void {
    for ([_]Handler{ .{}, .{ .suffix = "!" } }) |handler| {
        var trial: Trial = undefined;
        try trial.init(&.{&.{1}});
        defer trial.deinit();
        const items = try trial.arena.allocator().dupe(Script.Item, trial.script.items);
        items[1] = .{ .message = bytes };
        trial.script.items = items;
        _ = trial.run(handler, "dlq", 100) catch |err| if (err == error.OutOfMemory) return err;
    }
}

test "rows before their schema are the other stage's mistake" {
    var trial: Trial = undefined;
    try trial.init(&.{&.{1}});
    defer trial.deinit();
    trial.script.items = trial.script.items[1..];
    try std.testing.expectError(error.Failed, trial.run(.{}, "fail", plenty));
    try expectEqual(.protocol, sdk.errors.current().?.kind);
}

test "a letter without room for its row names it" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    const message = try arrow.writer.encodeSchema(arena.allocator(), &schema);
    const rows = try arena.allocator().alignedAlloc(u8, .@"8", (try Trial.batchOf(arena.allocator(), &.{ 1, -7 })).len);
    @memcpy(rows, try Trial.batchOf(arena.allocator(), &.{ 1, -7 }));
    var reader: arrow.BatchReader = .init(gpa);
    defer reader.deinit();
    const batch = try reader.decode(&schema, rows);
    for ([_]?[]const []const u8{ null, &.{ "name", "n" }, &.{} }, [_][]const u8{
        "too low (n -7)", "too low (name secret, n -7)", "too low (row 12 of the run)",
    }) |primary_key, expected| {
        const shape: Shape = try .read(arena.allocator(), &.{ .name = "users", .primary_key = primary_key }, message);
        var text: std.Io.Writer.Allocating = .init(arena.allocator());
        var stringify: sdk.json.Stringify = .{ .writer = &text.writer };
        try (@import("letters.zig").Letter{
            .gpa = gpa,
            .shape = &shape,
            .batch = &batch,
            .row = 1,
            .number = 12,
            .message = "too low",
            .reason = &.{ .message = "too low" },
            .holds_row = false,
        }).write(&stringify);
        const told = try sdk.json.parse(struct { record: sdk.json.Value, message: []const u8 }, arena.allocator(), text.written());
        try expect(told.record == .null);
        try expectEqualStrings(expected, told.message);
    }
}
