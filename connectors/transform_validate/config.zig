//! The rules, as the pipeline has them.
//!
//!     rules:
//!       - assert_not_null: [email, name]
//!       - assert_regex: {column: email, pattern: '^[^@\s]+@[^@\s]+$'}
//!       - assert_range: {column: age, min: 0, exclusive_max: 150}
//!       - assert_in: {column: state, values: [new, paid]}
//!       - assert_unique: [tenant, id]

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Rule = struct {
    /// `rules[2].assert_range`
    path: []const u8,
    assertion: Assertion,
};

pub const Assertion = union(enum) {
    not_null: []const []const u8,
    regex: struct { column: []const u8, pattern: []const u8 },
    range: Range,
    unique: []const []const u8,
    in: struct { column: []const u8, values: []const json.Value },
};

pub const Range = struct {
    column: []const u8,
    min: ?json.Value = null,
    max: ?json.Value = null,
    exclusive_min: ?json.Value = null,
    exclusive_max: ?json.Value = null,

    pub const bounds = .{ "min", "exclusive_min", "max", "exclusive_max" };
};

/// Everything lives in `arena`.
pub fn parse(arena: Allocator, config: json.Value) ![]const Rule {
    const Raw = struct { rules: []const json.Value };
    // Values are not copied when they are read from others, which live no longer than the verb.
    const raw = json.parse(Raw, arena, try json.stringify(arena, config)) catch |err| switch (err) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return sdk.fail(.config, "rules: found none; allowed: a list of rules", .{}),
    };
    if (raw.rules.len == 0) return sdk.fail(.config, "rules: found none; allowed: a list of rules", .{});
    const rules = try arena.alloc(Rule, raw.rules.len);
    for (rules, raw.rules, 0..) |*rule, value, i| rule.* = try parseRule(arena, i, value);
    return rules;
}

fn parseRule(arena: Allocator, i: usize, value: json.Value) !Rule {
    if (value != .object or value.object.count() != 1) return sdk.fail(
        .config,
        "rules[{d}]: not a rule; allowed: a mapping with one key of assert_not_null, assert_regex, assert_range, assert_unique, assert_in",
        .{i},
    );
    const name = value.object.keys()[0];
    const of = value.object.values()[0];
    const path = try std.fmt.allocPrint(arena, "rules[{d}].{s}", .{ i, name });
    if (std.mem.eql(u8, name, "assert_not_null"))
        return .{ .path = path, .assertion = .{ .not_null = try columnNames(arena, path, of) } };
    if (std.mem.eql(u8, name, "assert_unique"))
        return .{ .path = path, .assertion = .{ .unique = try columnNames(arena, path, of) } };
    if (std.mem.eql(u8, name, "assert_regex"))
        return .{ .path = path, .assertion = .{ .regex = try shaped(arena, path, of, "column and pattern", @FieldType(Assertion, "regex")) } };
    if (std.mem.eql(u8, name, "assert_in")) {
        const in = try shaped(arena, path, of, "column and values", @FieldType(Assertion, "in"));
        if (in.values.len == 0) return sdk.fail(.config, "{s}.values: found none; allowed: a list of at least one value", .{path});
        return .{ .path = path, .assertion = .{ .in = in } };
    }
    if (std.mem.eql(u8, name, "assert_range")) {
        const range = try shaped(arena, path, of, "column and bounds", Range);
        inline for (Range.bounds) |bound| {
            if (@field(range, bound) != null) return .{ .path = path, .assertion = .{ .range = range } };
        }
        return sdk.fail(.config, "{s}: found no bound; allowed: at least one of min, max, exclusive_min, exclusive_max", .{path});
    }
    return sdk.fail(
        .config,
        "{s}: no such rule; allowed: assert_not_null, assert_regex, assert_range, assert_unique, assert_in",
        .{path},
    );
}

fn shaped(arena: Allocator, path: []const u8, value: json.Value, comptime keys: []const u8, comptime T: type) !T {
    return json.parseValue(T, arena, value) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => sdk.fail(.config, "{s}: not of its form; allowed: a mapping of " ++ keys, .{path}),
    };
}

/// One name, or a list of them.
fn columnNames(arena: Allocator, path: []const u8, value: json.Value) ![]const []const u8 {
    switch (value) {
        .string => |name| {
            const names = try arena.alloc([]const u8, 1);
            names[0] = try arena.dupe(u8, name);
            return names;
        },
        .array => |items| if (items.items.len > 0) {
            const names = try arena.alloc([]const u8, items.items.len);
            for (names, items.items) |*name, item| {
                if (item != .string) break;
                name.* = try arena.dupe(u8, item.string);
            } else return names;
        },
        else => {},
    }
    return sdk.fail(.config, "{s}: not of its form; allowed: a column, or a list of columns", .{path});
}

test "rules are read in their order" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const rules = try parse(arena.allocator(), try json.parse(json.Value, arena.allocator(),
        \\{"rules": [{"assert_not_null": "a"}, {"assert_unique": ["a", "b"]}, {"assert_regex": {"column": "a", "pattern": "x"}},
        \\ {"assert_range": {"column": "n", "min": 0.1}}, {"assert_in": {"column": "a", "values": [1, "x", true]}}]}
    ));
    try std.testing.expectEqual(5, rules.len);
    try std.testing.expectEqualStrings("a", rules[0].assertion.not_null[0]);
    try std.testing.expectEqual(2, rules[1].assertion.unique.len);
    try std.testing.expectEqualStrings("rules[2].assert_regex", rules[2].path);
    try std.testing.expectEqual(0.1, rules[3].assertion.range.min.?.float);
    try std.testing.expectEqual(3, rules[4].assertion.in.values.len);
}

test "what is no rule is told by its place" {
    defer sdk.errors.clear();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const cases = [_][2][]const u8{
        .{ "{}", "rules: found none" },
        .{ "{\"rules\": []}", "rules: found none" },
        .{ "{\"rules\": [{}]}", "rules[0]: not a rule" },
        .{ "{\"rules\": [{\"assert_not_null\": []}]}", "rules[0].assert_not_null: not of its form" },
        .{ "{\"rules\": [{\"assert_not_null\": [1]}]}", "rules[0].assert_not_null: not of its form" },
        .{ "{\"rules\": [{\"assert_not\": \"a\"}]}", "rules[0].assert_not: no such rule" },
        .{ "{\"rules\": [{\"assert_range\": {\"column\": \"a\"}}]}", "rules[0].assert_range: found no bound" },
        .{ "{\"rules\": [{\"assert_in\": {\"column\": \"a\", \"values\": []}}]}", "rules[0].assert_in.values: found none" },
        .{ "{\"rules\": [{\"assert_regex\": {\"column\": \"a\"}}]}", "rules[0].assert_regex: not of its form" },
    };
    for (cases) |case| {
        const value = try json.parse(json.Value, arena.allocator(), case[0]);
        try std.testing.expectError(error.Failed, parse(arena.allocator(), value));
        const failure = sdk.errors.current().?;
        try std.testing.expectEqual(.config, failure.kind);
        std.testing.expect(std.mem.startsWith(u8, failure.message, case[1])) catch |err| {
            std.debug.print("{s}\n", .{failure.message});
            return err;
        };
    }
}
