//! The stream that a transform is in: its columns, as the last schema message told them, and its key.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// What becomes of a row that is refused.
pub const OnDataError = enum { fail, skip, dlq };

/// As the host describes it in `rb_transform`.
pub const Stream = struct {
    name: []const u8,
    /// As the pipeline names it; null: the source's own.
    primary_key: ?[]const []const u8 = null,
    write_mode: []const u8 = "append",
    on_data_error: OnDataError = .fail,
};

pub const Shape = struct {
    stream: *const Stream,
    schema: arrow.Schema,
    /// The pipeline's key, and that of the source's table. Either may be empty.
    named_key: []const []const u8,
    own_key: []const []const u8,
    /// PostgreSQL's type of each column.
    types: []const []const u8,

    /// Everything lives in `arena`, but for `stream`.
    pub fn read(arena: Allocator, stream: *const Stream, message: []const u8) !Shape {
        var problem: arrow.reader.Problem = .{};
        const schema = arrow.reader.decodeSchemaExplained(arena, message, &problem) catch |err| switch (err) {
            error.UnsupportedType, error.Unsupported => return sdk.fail(
                .unsupported,
                "column {s} of the stream: {s}",
                .{ problem.field, problem.what },
            ),
            else => return err,
        };
        const types = try arena.alloc([]const u8, schema.fields.len);
        for (types, schema.fields) |*name, *field|
            name.* = field.get(arrow.keys.pg_type) orelse try postgres.types.defaultName(arena, field) orelse "text";
        return .{
            .stream = stream,
            .schema = schema,
            .named_key = stream.primary_key orelse &.{},
            .own_key = if (schema.get(arrow.keys.primary_key)) |text|
                sdk.json.parse([]const []const u8, arena, text) catch |err| switch (err) {
                    error.OutOfMemory => return error.OutOfMemory,
                    else => return sdk.fail(.protocol, "{s} of the schema is no list of names", .{arrow.keys.primary_key}),
                }
            else
                &.{},
            .types = types,
        };
    }

    /// The place of the column that the config names at `path` (`columns.email`, `rules[2].assert_not_null`).
    pub fn place(self: *const Shape, arena: Allocator, path: []const u8, name: []const u8) (Allocator.Error || sdk.errors.Failed)!usize {
        if (self.schema.indexOf(name)) |found| return found;
        const names = try arena.alloc([]const u8, self.schema.fields.len);
        for (names, self.schema.fields) |*each, *field| each.* = field.name;
        return sdk.errors.failHinted(
            .config,
            try std.fmt.allocPrint(arena, "its columns are {s}", .{try std.mem.join(arena, ", ", names)}),
            "{s}: stream {s} has no column {s}",
            .{ path, self.stream.name, name },
        );
    }

    /// Whether rows are found by the column, in the pipeline or in the source's table.
    pub fn isKey(self: *const Shape, name: []const u8) bool {
        for ([_][]const []const u8{ self.named_key, self.own_key }) |names| {
            for (names) |each| if (std.mem.eql(u8, each, name)) return true;
        }
        return false;
    }

    /// The key that tells rows apart; empty where there is none.
    pub fn key(self: *const Shape) []const []const u8 {
        return if (self.stream.primary_key != null) self.named_key else self.own_key;
    }
};

test "a column that is not there is an error that lists those that are" {
    defer sdk.errors.clear();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const message = try arrow.writer.encodeSchema(arena.allocator(), &.{
        .fields = &.{
            .{ .name = "id", .type = .int64 },
            .{ .name = "at", .type = .{ .timestamp = .{ .utc = true } } },
        },
        .metadata = &.{.{ .key = arrow.keys.primary_key, .value = "[\"id\"]" }},
    });
    const stream: Stream = .{ .name = "users" };
    const shape: Shape = try .read(arena.allocator(), &stream, message);
    try std.testing.expectEqual(1, try shape.place(arena.allocator(), "columns.at", "at"));
    try std.testing.expectError(error.Failed, shape.place(arena.allocator(), "columns.emial", "emial"));
    const failure = sdk.errors.current().?;
    try std.testing.expectEqual(.config, failure.kind);
    try std.testing.expectEqualStrings("columns.emial: stream users has no column emial", failure.message);
    try std.testing.expectEqualStrings("its columns are id, at", failure.hint.?);
    try std.testing.expect(shape.isKey("id") and !shape.isKey("at"));
    try std.testing.expectEqualStrings("timestamp with time zone", shape.types[1]);
}

test "a key that is no list of names is the source's mistake" {
    defer sdk.errors.clear();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const message = try arrow.writer.encodeSchema(arena.allocator(), &.{
        .fields = &.{.{ .name = "id", .type = .int64 }},
        .metadata = &.{.{ .key = arrow.keys.primary_key, .value = "id" }},
    });
    try std.testing.expectError(error.Failed, Shape.read(arena.allocator(), &.{ .name = "users" }, message));
    try std.testing.expectEqual(.protocol, sdk.errors.current().?.kind);
}
