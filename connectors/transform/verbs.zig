//! The verbs of a transform, of a handler (root.zig shows one).
//!
//! A handler may have more:
//!
//!     pub fn deinit(self: *Handler) void
//!     pub fn wholeRun(self: *const Handler) bool                     // its verdicts depend on all rows of a run
//!     pub fn check(self: *Handler, arena: Allocator, streams: []const []const u8) ![]const Finding

const std = @import("std");
const sdk = @import("sdk");
const loop = @import("loop.zig");

const Allocator = std.mem.Allocator;
const json = sdk.json;

pub const Opened = struct { whole_run: bool };

/// As the ABI has it.
pub const Finding = struct {
    level: enum { ok, warning, @"error" },
    check: []const u8,
    stream: ?[]const u8 = null,
    message: []const u8,
    hint: ?[]const u8 = null,
};

pub const Report = struct { findings: []const Finding };

pub fn Verbs(comptime Handler: type) type {
    return struct {
        /// What `open` made and the other verbs use.
        var current: ?*State = null;

        const State = struct { arena: std.heap.ArenaAllocator, handler: Handler };

        pub fn open(arena: Allocator, argument: json.Value) !Opened {
            if (current != null) return sdk.fail(.protocol, "rb_open was called before", .{});
            const opened = try sdk.connector.parse(struct { config: json.Value }, arena, argument);
            const gpa = sdk.connector.gpa;
            const state = try gpa.create(State);
            errdefer gpa.destroy(state);
            state.arena = .init(gpa);
            errdefer state.arena.deinit();
            state.handler = try Handler.init(state.arena.allocator(), opened.config);
            current = state;
            return .{ .whole_run = if (@hasDecl(Handler, "wholeRun")) state.handler.wholeRun() else false };
        }

        pub fn check(arena: Allocator, argument: json.Value) !Report {
            const handler = try openedHandler();
            if (!@hasDecl(Handler, "check")) return .{ .findings = &.{} };
            const asked = try sdk.connector.parse(struct { streams: []const struct { name: []const u8 } }, arena, argument);
            const names = try arena.alloc([]const u8, asked.streams.len);
            for (names, asked.streams) |*name, stream| name.* = stream.name;
            return .{ .findings = try handler.check(arena, names) };
        }

        pub fn transform(arena: Allocator, argument: json.Value) !loop.Transformed {
            return loop.run(arena, try openedHandler(), argument);
        }

        pub fn close(_: Allocator, _: json.Value) !void {
            const state = current orelse return;
            current = null;
            if (@hasDecl(Handler, "deinit")) state.handler.deinit();
            state.arena.deinit();
            sdk.connector.gpa.destroy(state);
        }

        fn openedHandler() sdk.errors.Failed!*Handler {
            const state = current orelse return sdk.fail(.protocol, "rb_open comes first", .{});
            return &state.handler;
        }
    };
}

const Sample = struct {
    limit: u32,

    pub fn init(arena: Allocator, config: json.Value) !Sample {
        const known = json.parseValue(struct { limit: u32 }, arena, config) catch return sdk.fail(.config, "limit: missing", .{});
        return .{ .limit = known.limit };
    }

    pub fn wholeRun(self: *const Sample) bool {
        return self.limit > 1;
    }

    pub fn check(self: *Sample, arena: Allocator, streams: []const []const u8) ![]const Finding {
        const findings = try arena.alloc(Finding, streams.len);
        for (findings, streams) |*finding, name| finding.* = .{
            .level = if (self.limit > 1) .ok else .warning,
            .check = "limit",
            .stream = name,
            .message = "low",
        };
        return findings;
    }

    pub fn turn(_: *Sample, _: Allocator, shape: *const @import("shape.zig").Shape) !sdk.arrow.Schema {
        return shape.schema;
    }

    pub fn take(_: *Sample, _: Allocator, batch: *const sdk.arrow.Batch, _: *@import("rows.zig").Rows) !sdk.arrow.Batch {
        return batch.*;
    }
};

fn parsed(arena: Allocator, text: []const u8) !json.Value {
    return json.parse(json.Value, arena, text);
}

test "a handler lives from rb_open to rb_close" {
    defer sdk.errors.clear();
    var arena_of_test: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena_of_test.deinit();
    const arena = arena_of_test.allocator();
    const verbs = Verbs(Sample);
    // Its stream is empty.
    var script: sdk.loopback.Script = .{ .arena = arena, .items = &.{} };
    sdk.loopback.script = &script;
    defer sdk.loopback.script = null;
    const streams = try parsed(arena, "{\"streams\": [{\"name\": \"users\"}]}");
    try std.testing.expectError(error.Failed, verbs.check(arena, streams));
    try std.testing.expectEqual(.protocol, sdk.errors.current().?.kind);
    try std.testing.expectError(error.Failed, verbs.open(arena, try parsed(arena, "{\"config\": {}}")));
    try std.testing.expectEqual(.config, sdk.errors.current().?.kind);
    // What is not open, can be closed and opened.
    try verbs.close(arena, .null);
    for ([_][]const u8{ "1", "2" }, [_]bool{ false, true }) |limit, whole_run| {
        const config = try std.mem.concat(arena, u8, &.{ "{\"config\": {\"limit\": ", limit, "}}" });
        try std.testing.expectEqual(whole_run, (try verbs.open(arena, try parsed(arena, config))).whole_run);
        try std.testing.expectError(error.Failed, verbs.open(arena, try parsed(arena, config)));
        const report = try verbs.check(arena, streams);
        const told = try json.stringify(arena, report);
        try std.testing.expect(std.mem.find(u8, told, if (whole_run) "\"level\":\"ok\"" else "\"level\":\"warning\"") != null);
        const argument = try parsed(arena, "{\"stream\": {\"name\": \"users\"}, \"max_batch_bytes\": 1}");
        try std.testing.expectEqual(0, (try verbs.transform(arena, argument)).rows);
        try verbs.close(arena, .null);
    }
}
