//! What becomes of which column, as the pipeline says it.
//!
//!     salt: ${MASK_SALT}
//!     columns: {email: hash, name: redact, note: {truncate: 20}, card: {keep_last: 4}}

const std = @import("std");
const sdk = @import("sdk");
const characters = @import("characters.zig");

const Allocator = std.mem.Allocator;
const json = sdk.json;

/// Characters of a salt, at least: those of shorter ones can be tried out.
const salt_min = 16;

pub const Action = union(enum) {
    hash,
    /// What stands in the place of a text, where the pipeline says it.
    redact: ?[]const u8,
    /// Characters that are kept.
    truncate: usize,
    keep_last: usize,
};

pub const Masked = struct { name: []const u8, action: Action };

pub const Config = struct {
    /// Empty: no column is hashed.
    salt: []const u8,
    columns: []const Masked,

    /// Everything lives in `arena`.
    pub fn parse(arena: Allocator, value: json.Value) !Config {
        const Raw = struct { salt: []const u8 = "", columns: json.Value };
        const raw = json.parseValue(Raw, arena, value) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            else => return sdk.fail(.config, "the config is no mapping of salt and columns", .{}),
        };
        if (raw.columns != .object or raw.columns.object.count() == 0)
            return sdk.fail(.config, "columns: found none; allowed: a mapping of columns to what becomes of them", .{});
        var columns: std.ArrayList(Masked) = .empty;
        var hashes = false;
        var entries = raw.columns.object.iterator();
        while (entries.next()) |entry| {
            const name = try arena.dupe(u8, entry.key_ptr.*);
            const action = try actionOf(arena, name, entry.value_ptr.*);
            hashes = hashes or action == .hash;
            try columns.append(arena, .{ .name = name, .action = action });
        }
        const length = characters.count(raw.salt);
        if (hashes and length < salt_min) return sdk.errors.failHinted(
            .config,
            "whoever knows the salt can find out what was hashed: keep it in the environment, as a secret",
            "salt: found {d} characters; allowed: at least {d} where a column is hashed",
            .{ length, salt_min },
        );
        if (!hashes and length > 0) return sdk.errors.failHinted(
            .config,
            "leave it out, or hash a column",
            "salt: no column is hashed",
            .{},
        );
        return .{ .salt = raw.salt, .columns = columns.items };
    }
};

fn actionOf(arena: Allocator, name: []const u8, value: json.Value) !Action {
    switch (value) {
        .string => |word| {
            if (std.mem.eql(u8, word, "hash")) return .hash;
            if (std.mem.eql(u8, word, "redact")) return .{ .redact = null };
        },
        .object => |object| if (object.count() == 1) {
            const word = object.keys()[0];
            const of = object.values()[0];
            if (std.mem.eql(u8, word, "redact") and of == .string) return .{ .redact = try arena.dupe(u8, of.string) };
            if (of == .integer and of.integer > 0) if (std.math.cast(usize, of.integer)) |limit| {
                if (std.mem.eql(u8, word, "truncate")) return .{ .truncate = limit };
                if (std.mem.eql(u8, word, "keep_last")) return .{ .keep_last = limit };
            };
        },
        else => {},
    }
    return sdk.fail(
        .config,
        "columns.{s}: not known; allowed: hash, redact, {{redact: text}}, {{truncate: characters}}, {{keep_last: characters}}",
        .{name},
    );
}

fn expectConfig(text: []const u8) !Config {
    const Static = struct {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    };
    _ = Static.arena.reset(.retain_capacity);
    const arena = Static.arena.allocator();
    return Config.parse(arena, try json.parse(json.Value, arena, text));
}

test "each column has what becomes of it" {
    const config = try expectConfig(
        \\{"salt": "0123456789abcdef", "columns": {"a": "hash", "b": "redact", "c": {"redact": ""}, "d": {"truncate": 20},
        \\ "e": {"keep_last": 4}}}
    );
    try std.testing.expectEqualStrings("0123456789abcdef", config.salt);
    try std.testing.expectEqual(5, config.columns.len);
    try std.testing.expectEqualStrings("a", config.columns[0].name);
    try std.testing.expectEqual(Action.hash, config.columns[0].action);
    try std.testing.expectEqual(null, config.columns[1].action.redact);
    try std.testing.expectEqualStrings("", config.columns[2].action.redact.?);
    try std.testing.expectEqual(20, config.columns[3].action.truncate);
    try std.testing.expectEqual(4, config.columns[4].action.keep_last);
}

test "what is not allowed is told by its key, and no salt is shown" {
    defer sdk.errors.clear();
    const cases = [_][2][]const u8{
        .{ "[]", "the config is no mapping of salt and columns" },
        .{ "{\"columns\": {}}", "columns: found none; allowed: a mapping of columns to what becomes of them" },
        .{ "{\"columns\": {\"a\": \"hash\"}}", "salt: found 0 characters; allowed: at least 16 where a column is hashed" },
        .{
            "{\"salt\": \"secret\", \"columns\": {\"a\": \"hash\"}}",
            "salt: found 6 characters; allowed: at least 16 where a column is hashed",
        },
        .{ "{\"salt\": \"0123456789abcdef\", \"columns\": {\"a\": \"redact\"}}", "salt: no column is hashed" },
    };
    for (cases) |case| {
        try std.testing.expectError(error.Failed, expectConfig(case[0]));
        try std.testing.expectEqual(.config, sdk.errors.current().?.kind);
        try std.testing.expectEqualStrings(case[1], sdk.errors.current().?.message);
    }
    for ([_][]const u8{ "\"hsh\"", "{\"truncate\": 0}", "{\"truncate\": -1}", "{\"keep_last\": \"4\"}", "{}", "7", "null", "{\"hash\": 1}" }) |action| {
        var buffer: [64]u8 = undefined;
        try std.testing.expectError(error.Failed, expectConfig(try std.fmt.bufPrint(&buffer, "{{\"columns\": {{\"a\": {s}}}}}", .{action})));
        try std.testing.expect(std.mem.startsWith(u8, sdk.errors.current().?.message, "columns.a: not known; allowed: hash, "));
    }
}
