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
