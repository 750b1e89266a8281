//! What masked columns are, for every kind of column; their values are held against PostgreSQL's by the integration tests.

const std = @import("std");
const sdk = @import("sdk");
const transform = @import("transform");
const Mask = @import("mask.zig").Mask;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

const item: arrow.Field = .{ .name = "item", .type = .utf8 };

fn typed(name: []const u8, field_type: arrow.Type, comptime pg_type: []const u8, comptime pg_kind: []const u8) arrow.Field {
    return .{
        .name = name,
        .type = field_type,
        .nullable = false,
        .metadata = &.{
            .{ .key = arrow.keys.pg_type, .value = pg_type },
            .{ .key = arrow.keys.pg_kind, .value = pg_kind },
            .{ .key = "other", .value = "kept" },
        },
    };
}

const schema: arrow.Schema = .{
    .fields = &.{
        typed("id", .int64, "bigint", "base"),
        typed("note", .utf8, "text", "base"),
        typed("short", .utf8, "character varying(20)", "base"),
        typed("long", .utf8, "character varying(64)", "base"),
        typed("code", .utf8, "character(80)", "base"),
        typed("mood", .utf8, "public.mood", "enum"),
        typed("nick", .utf8, "public.nick", "domain"),
        typed("tags", .{ .list = &item }, "text[]", "base"),
        typed("born", .date32, "date", "base"),
        .{ .name = "bare", .type = .utf8 },
        .{
            .name = "doc",
            .type = .utf8,
            .metadata = &.{.{ .key = arrow.keys.extension_name, .value = "arrow.json" }},
        },
    },
    .metadata = &.{.{ .key = arrow.keys.primary_key, .value = "[\"id\"]" }},
};

const Trial = struct {
    arena: std.heap.ArenaAllocator,
    mask: Mask,
    stream: transform.Stream = .{ .name = "users" },

    fn init(self: *Trial, columns: []const u8) !void {
        const salt = if (std.mem.find(u8, columns, "\"hash\"") == null) "" else "\"salt\": \"0123456789abcdef\", ";
        self.* = .{ .arena = .init(std.testing.allocator), .mask = undefined };
        const arena = self.arena.allocator();
        const config = try std.mem.concat(arena, u8, &.{ "{", salt, "\"columns\": ", columns, "}" });
        self.mask = try .init(arena, try sdk.json.parse(sdk.json.Value, arena, config));
    }

    fn deinit(self: *Trial) void {
        sdk.errors.clear();
        self.mask.deinit();
        self.arena.deinit();
    }

    fn turn(self: *Trial) !arrow.Schema {
        const arena = self.arena.allocator();
        const shape: transform.Shape = try .read(arena, &self.stream, try arrow.writer.encodeSchema(arena, &schema));
        return self.mask.turn(arena, &shape);
    }

    fn expectRefused(self: *Trial, message: []const u8) !void {
        try std.testing.expectError(error.Failed, self.turn());
        try std.testing.expectEqual(.config, sdk.errors.current().?.kind);
        try std.testing.expectEqualStrings(message, sdk.errors.current().?.message);
    }
};

fn expectField(schema_after: *const arrow.Schema, name: []const u8, pg_type: ?[]const u8, nullable: bool) !void {
    const place = schema.indexOf(name).?;
    const before = &schema.fields[place];
    const after = &schema_after.fields[place];
    try std.testing.expectEqualStrings(name, after.name);
    try std.testing.expectEqual(nullable, after.nullable);
    const is_same = if (pg_type) |wanted| std.mem.eql(u8, wanted, before.get(arrow.keys.pg_type) orelse "") else true;
    if (is_same) {
        try std.testing.expect(before.type.eql(after.type));
        try std.testing.expectEqual(before.metadata.len, after.metadata.len);
    } else {
        try std.testing.expectEqual(arrow.Type.utf8, after.type);
        try std.testing.expectEqualStrings(pg_type.?, after.get(arrow.keys.pg_type).?);
        try std.testing.expectEqual(null, after.get(arrow.keys.pg_kind));
        try std.testing.expectEqual(null, after.get(arrow.keys.extension_name));
    }
    if (before.get("other")) |kept| try std.testing.expectEqualStrings(kept, after.get("other").?);
}

test "a hash is a text, and stays what it was where that holds it" {
    var trial: Trial = undefined;
    try trial.init(
        \\{"id": "hash", "note": "hash", "short": "hash", "long": "hash", "code": "hash", "mood": "hash", "tags": "hash",
        \\ "born": "hash", "bare": "hash", "doc": "hash"}
    );
    defer trial.deinit();
    const after = try trial.turn();
    for ([_][]const u8{ "id", "short", "code", "mood", "tags", "born" }) |name| try expectField(&after, name, "text", false);
    try expectField(&after, "doc", "text", true);
    try expectField(&after, "note", "text", false);
    try expectField(&after, "long", "character varying(64)", false);
    try expectField(&after, "bare", null, true);
    try expectField(&after, "nick", "public.nick", false);
    try std.testing.expectEqualStrings("[\"id\"]", after.get(arrow.keys.primary_key).?);
}

test "what is redacted is a text that fits, or NULL" {
    var trial: Trial = undefined;
    try trial.init(
        \\{"note": "redact", "short": "redact", "long": {"redact": "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789"},
        \\ "code": "redact", "mood": "redact", "nick": "redact", "tags": "redact", "born": "redact", "bare": {"redact": ""},
        \\ "doc": "redact"}
    );
    defer trial.deinit();
    const after = try trial.turn();
    try expectField(&after, "note", "text", false);
    try expectField(&after, "short", "character varying(20)", false);
    try expectField(&after, "long", "text", false);
    try expectField(&after, "code", "text", false);
    try expectField(&after, "mood", "public.mood", true);
    try expectField(&after, "nick", "public.nick", true);
    try expectField(&after, "tags", "text[]", true);
    try expectField(&after, "born", "date", true);
    try expectField(&after, "bare", null, true);
    try expectField(&after, "doc", null, true);
}

test "what is shortened stays a string, and is a text where it was none" {
    var trial: Trial = undefined;
    try trial.init(
        \\{"note": {"truncate": 3}, "short": {"keep_last": 3}, "code": {"keep_last": 3}, "mood": {"truncate": 3},
        \\ "nick": {"truncate": 3}, "tags": {"truncate": 3}, "born": {"keep_last": 3}, "doc": {"keep_last": 3}}
    );
    defer trial.deinit();
    const after = try trial.turn();
    try expectField(&after, "note", "text", false);
    try expectField(&after, "short", "character varying(20)", false);
    try expectField(&after, "code", "character(80)", false);
    for ([_][]const u8{ "mood", "nick", "tags", "born" }) |name| try expectField(&after, name, "text", false);
    try expectField(&after, "doc", "text", true);
}

test "a key is hashed and not destroyed" {
    inline for (.{ "\"redact\"", "{\"truncate\": 9}", "{\"keep_last\": 9}" }, .{ "redact", "truncate", "keep_last" }) |action, name| {
        const refusal = " is part of the key of stream users, and " ++ name ++ " would make different keys the same";
        var own: Trial = undefined;
        try own.init("{\"id\": " ++ action ++ "}");
        defer own.deinit();
        try own.expectRefused("columns.id: id" ++ refusal);
        // The source's own key is one too where the pipeline names another.
        own.stream.primary_key = &.{"note"};
        try own.expectRefused("columns.id: id" ++ refusal);
        var named: Trial = undefined;
        try named.init("{\"note\": " ++ action ++ "}");
        defer named.deinit();
        _ = try named.turn();
        named.stream.primary_key = &.{"note"};
        try named.expectRefused("columns.note: note" ++ refusal);
    }
}

test "a column that is not there, and a text for what is none, are refused" {
    var missing: Trial = undefined;
    try missing.init("{\"note\": \"redact\", \"emial\": \"hash\"}");
    defer missing.deinit();
    try missing.expectRefused("columns.emial: stream users has no column emial");
    try std.testing.expectEqualStrings(
        "its columns are id, note, short, long, code, mood, nick, tags, born, bare, doc",
        sdk.errors.current().?.hint.?,
    );
    var untold: Trial = undefined;
    try untold.init("{\"born\": {\"redact\": \"x\"}}");
    defer untold.deinit();
    try untold.expectRefused("columns.born: born is date, and a text can be redacted by a text only where there are texts");
    try std.testing.expectEqualStrings("write `born: redact`, which makes it NULL", sdk.errors.current().?.hint.?);
}
