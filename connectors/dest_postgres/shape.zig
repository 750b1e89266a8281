//! The stream's columns as its schema message tells them.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// Takes a schema message, which must come next. Everything lives in `arena`.
pub fn receive(arena: Allocator) !arrow.Schema {
    const item = try sdk.host.next();
    if (item.kind != .message) return sdk.fail(.protocol, "the stream's schema comes first", .{});
    const message = try arena.alignedAlloc(u8, .@"16", item.len);
    try sdk.host.read(message);
    if (try arrow.reader.messageKind(message) != .schema)
        return sdk.fail(.protocol, "rows came before their schema", .{});
    return read(arena, message);
}

/// Everything lives in `arena`.
pub fn read(arena: Allocator, message: []const u8) !arrow.Schema {
    var problem: arrow.reader.Problem = .{};
    const schema = arrow.reader.decodeSchemaExplained(arena, message, &problem) catch |err| switch (err) {
        error.UnsupportedType, error.Unsupported => return sdk.fail(
            .unsupported,
            "column {s} of the stream: {s}",
            .{ problem.field, problem.what },
        ),
        else => return err,
    };
    if (schema.fields.len == 0) return sdk.errors.failHinted(
        .schema,
        "give its table a column, or take the stream out of the pipeline",
        "the stream has no columns",
        .{},
    );
    return schema;
}

/// The failure of a stream whose columns are not what they were.
pub fn changed(table: []const u8) sdk.errors.Failed {
    return sdk.errors.failHinted(
        .schema,
        "run the stream again",
        "the stream's columns changed while {s} was written",
        .{table},
    );
}

/// Names, types and nullability in few bytes, for whoever has to bring the same ones.
pub fn fingerprint(arena: Allocator, schema: *const arrow.Schema) ![]const u8 {
    var hash: std.crypto.hash.sha2.Sha256 = .init(.{});
    for (schema.fields) |*field| {
        const text = try std.fmt.allocPrint(arena, "{d}:{s}{f}:{s}:{}\n", .{
            field.name.len,
            field.name,
            field.type,
            field.get(arrow.keys.pg_type) orelse "",
            field.nullable,
        });
        hash.update(text);
    }
    return std.fmt.allocPrint(arena, "{x}", .{hash.finalResult()[0..16]});
}

pub fn same(a: *const arrow.Schema, b: *const arrow.Schema) bool {
    if (a.fields.len != b.fields.len) return false;
    for (a.fields, b.fields) |*x, *y| {
        if (!std.mem.eql(u8, x.name, y.name) or !x.type.eql(y.type) or x.nullable != y.nullable) return false;
        const x_type = x.get(arrow.keys.pg_type) orelse "";
        const y_type = y.get(arrow.keys.pg_type) orelse "";
        if (!std.mem.eql(u8, x_type, y_type)) return false;
    }
    return true;
}

test "columns of another name, type or nullability are others" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const typed = [_]arrow.KeyValue{.{ .key = arrow.keys.pg_type, .value = "uuid" }};
    const shapes = [_]arrow.Schema{
        .{ .fields = &.{.{ .name = "a", .type = .int64 }} },
        .{ .fields = &.{.{ .name = "b", .type = .int64 }} },
        .{ .fields = &.{.{ .name = "a", .type = .int32 }} },
        .{ .fields = &.{.{ .name = "a", .type = .int64, .nullable = false }} },
        .{ .fields = &.{.{ .name = "a", .type = .int64, .metadata = &typed }} },
        .{ .fields = &.{ .{ .name = "a", .type = .int64 }, .{ .name = "a", .type = .int64 } } },
    };
    for (&shapes, 0..) |*a, i| for (&shapes, 0..) |*b, j| {
        try std.testing.expectEqual(i == j, same(a, b));
        const a_print = try fingerprint(arena.allocator(), a);
        const b_print = try fingerprint(arena.allocator(), b);
        try std.testing.expectEqual(i == j, std.mem.eql(u8, a_print, b_print));
    };
}
