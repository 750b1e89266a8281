//! The guest side of the verbs: what a connector exports, made from an `Impl` with plain Zig functions.
//!
//!     const sdk = @import("sdk");
//!     pub const panic = sdk.connector.panic;
//!     pub const std_options = sdk.connector.std_options;
//!     comptime { sdk.connector.exports(@This()); }
//!
//!     pub const role: sdk.connector.Role = .source;
//!     pub const manifest = @embedFile("manifest.json");
//!     pub fn open(arena: Allocator, argument: json.Value) !Opened { … }      // any of: open check discover close
//!     pub fn read(arena: Allocator, argument: json.Value) !Read { … }        // a destination has `write` instead
//!
//! A source may have `describe` and `split` too, and `slot`, `snapshot`, `capture`, `confirm` and `digest` where it captures
//! changes; a destination `compare`, `stage` and `rewind`, and `apply` and `digest` where it applies them. A transform has
//! `open`, `check`, `transform` and `close`: `../transform/` makes them. A verb that must not change a digit of its argument
//! takes it as text (`argument: []const u8`).
//!
//! `arena` lives as long as the verb. Results are anything that `std.json` can write; `void` is `{}`. An error is
//! answered with the record of `errors.fail`, or with what `describe` makes of it.

const std = @import("std");
const builtin = @import("builtin");
const errors = @import("errors.zig");
const host = @import("host.zig");
const json = @import("json.zig");

const Allocator = std.mem.Allocator;

pub const abi_version: i32 = 1;

/// Everything that outlives a verb. One thread, memory that only grows; freed blocks are used again.
pub const gpa: Allocator = if (builtin.cpu.arch.isWasm()) std.heap.wasm_allocator else std.heap.smp_allocator;

pub const Role = enum { source, destination, transform };

pub const std_options: std.Options = .{ .logFn = logFn };

/// A panic is a bug of the guest: it reaches the log before the trap ends the instance.
pub const panic = std.debug.FullPanic(panicked);

fn panicked(message: []const u8, _: ?usize) noreturn {
    @branchHint(.cold);
    host.logText(.err, message);
    @trap();
}

fn logFn(
    comptime level: std.log.Level,
    comptime scope: @EnumLiteral(),
    comptime format: []const u8,
    args: anytype,
) void {
    const prefix = if (scope == .default) "" else @tagName(scope) ++ ": ";
    host.log(switch (level) {
        .err => .err,
        .warn => .warning,
        .info => .info,
        .debug => .debug,
    }, prefix ++ format, args);
}

/// Exports the ABI for `Impl`.
pub fn exports(comptime Impl: type) void {
    if (!builtin.cpu.arch.isWasm()) return;
    @export(&abiVersion, .{ .name = "rb_abi_version" });
    @export(&alloc, .{ .name = "rb_alloc" });
    @export(&free, .{ .name = "rb_free" });
    @export(&Verb(Spec(Impl).spec).call, .{ .name = "rb_spec" });
    @export(&Verb(Impl.open).call, .{ .name = "rb_open" });
    @export(&Verb(Impl.check).call, .{ .name = "rb_check" });
    @export(&Verb(Impl.close).call, .{ .name = "rb_close" });
    switch (Impl.role) {
        .source => {
            @export(&Verb(Impl.discover).call, .{ .name = "rb_discover" });
            @export(&Verb(Impl.read).call, .{ .name = "rb_read" });
            inline for (.{ "describe", "split", "slot", "snapshot", "capture", "confirm", "digest" }) |name|
                exportIfThere(Impl, name);
        },
        .destination => {
            @export(&Verb(Impl.write).call, .{ .name = "rb_write" });
            inline for (.{ "compare", "stage", "rewind", "apply", "digest" }) |name| exportIfThere(Impl, name);
        },
        .transform => @export(&Verb(Impl.transform).call, .{ .name = "rb_transform" }),
    }
}

fn exportIfThere(comptime Impl: type, comptime verb: []const u8) void {
    if (@hasDecl(Impl, verb)) @export(&Verb(@field(Impl, verb)).call, .{ .name = "rb_" ++ verb });
}

fn abiVersion() callconv(.c) i32 {
    return abi_version;
}

const block_alignment: std.mem.Alignment = .@"8";

fn alloc(len: u32) callconv(.c) ?[*]u8 {
    return gpa.rawAlloc(@max(len, 1), block_alignment, @returnAddress());
}

fn free(ptr: ?[*]u8, len: u32) callconv(.c) void {
    const address = ptr orelse return;
    gpa.rawFree(address[0..@max(len, 1)], block_alignment, @returnAddress());
}

fn Spec(comptime Impl: type) type {
    return struct {
        fn spec(arena: Allocator, _: json.Value) !json.Value {
            return json.parse(json.Value, arena, Impl.manifest);
        }
    };
}

fn Verb(comptime function: anytype) type {
    return struct {
        fn call(ptr: ?[*]const u8, len: u32) callconv(.c) u64 {
            errors.clear();
            host.last_failed_call = null;
            const argument = if (ptr) |address| address[0..len] else "";
            const result = answer(gpa, function, argument) catch return outOfMemory();
            return @as(u64, @intFromPtr(result.ptr)) << 32 | result.len;
        }
    };
}

/// When not even the answer fits: a constant, which `free` must not see. Its length is 0, so the host reads nothing
/// and reports a broken answer; in practice the small answer below always fits in what the verb's arena gave back.
fn outOfMemory() u64 {
    host.logText(.err, "out of memory");
    return 0;
}

/// The JSON text of what `function` returns; the block is exactly that long and 8-aligned, for `rb_free`.
fn answer(allocator: Allocator, comptime function: anytype, argument: []const u8) Allocator.Error![]align(8) u8 {
    const failure: errors.Failure = blk: {
        var arena: std.heap.ArenaAllocator = .init(allocator);
        defer arena.deinit();
        const text = run(arena.allocator(), function, argument) catch |err| break :blk describe(err);
        return exactly(allocator, text);
    };
    var arena: std.heap.ArenaAllocator = .init(allocator);
    defer arena.deinit();
    return exactly(allocator, try failureText(arena.allocator(), failure));
}

fn exactly(allocator: Allocator, text: []const u8) Allocator.Error![]align(8) u8 {
    const block = try allocator.alignedAlloc(u8, .@"8", text.len);
    @memcpy(block, text);
    return block;
}

fn run(arena: Allocator, comptime function: anytype, argument: []const u8) anyerror![]const u8 {
    const takes_text = @typeInfo(@TypeOf(function)).@"fn".param_types[1].? == []const u8;
    const result = try function(arena, if (takes_text) argument else try parsed(arena, argument));
    if (@TypeOf(result) == void) return json.stringify(arena, .{ .ok = Empty{} });
    return json.stringify(arena, .{ .ok = result });
}

fn parsed(arena: Allocator, argument: []const u8) (Allocator.Error || errors.Failed)!json.Value {
    if (argument.len == 0) return .null;
    return json.parse(json.Value, arena, argument) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => errors.fail(.protocol, "the verb's argument is not JSON", .{}),
    };
}

const Empty = struct {};

fn failureText(arena: Allocator, failure: errors.Failure) Allocator.Error![]const u8 {
    const told = .{
        .kind = failure.kind,
        .message = json.Text{ .bytes = failure.message },
        .detail = optionalText(failure.detail),
        .hint = optionalText(failure.hint),
        .sqlstate = optionalText(failure.sqlstate),
    };
    const stream = failure.stream orelse return json.stringify(arena, .{ .err = told });
    return json.stringify(arena, .{ .err = .{
        .kind = told.kind,
        .message = told.message,
        .detail = told.detail,
        .hint = told.hint,
        .sqlstate = told.sqlstate,
        .stream = stream,
    } });
}

fn optionalText(bytes: ?[]const u8) ?json.Text {
    return .{ .bytes = bytes orelse return null };
}

/// What the host is told when a verb ends with `err`.
pub fn describe(err: anyerror) errors.Failure {
    return switch (err) {
        error.Failed => errors.current() orelse hostFailure(),
        error.Invalid, error.Cancelled, error.Timeout, error.Denied, error.Closed, error.Aborted => hostFailure(),
        error.OutOfMemory => .{
            .kind = .resource,
            .message = "the connector is out of memory",
            .hint = "raise `limits.max_memory`, or lower `resources.max_batch_bytes`",
        },
        error.ColumnTooLarge, error.MessageTooLarge => .{
            .kind = .resource,
            .message = "a batch holds more than 2 GiB in one column",
            .hint = "lower `resources.max_batch_bytes`",
        },
        error.Malformed, error.SchemaMismatch => .{
            .kind = .protocol,
            .message = "malformed Arrow data came from the other stage",
        },
        error.Unsupported, error.UnsupportedType => .{
            .kind = .unsupported,
            .message = "the other stage sent Arrow data of a form that this connector does not take",
        },
        else => .{ .kind = .internal, .message = @errorName(err) },
    };
}

fn hostFailure() errors.Failure {
    const call = host.last_failed_call orelse return .{ .kind = .host, .message = "a host function failed" };
    return .{ .kind = .host, .message = call.describe() };
}

/// An argument as a `T`, for verbs; what does not fit is the host's mistake.
pub fn parse(comptime T: type, arena: Allocator, argument: json.Value) (Allocator.Error || errors.Failed)!T {
    return json.parseValue(T, arena, argument) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        else => errors.fail(.protocol, "the verb's argument does not have the expected shape: {t}", .{err}),
    };
}

fn expectAnswer(expected: []const u8, comptime function: anytype, argument: []const u8) !void {
    const allocator = std.testing.allocator;
    errors.clear();
    host.last_failed_call = null;
    const text = try answer(allocator, function, argument);
    defer allocator.free(text);
    try std.testing.expectEqualStrings(expected, text);
}

const Sample = struct {
    fn echo(_: Allocator, argument: json.Value) !json.Value {
        return argument;
    }
    fn text(_: Allocator, argument: []const u8) ![]const u8 {
        return argument;
    }
    fn nothing(_: Allocator, _: json.Value) !void {}
    fn refused(_: Allocator, _: json.Value) !void {
        return errors.failWith(.{ .kind = .auth, .message = "caf\xe9", .sqlstate = "28P01" });
    }
    fn leaky(arena: Allocator, _: json.Value) !void {
        _ = try arena.alloc(u8, 100);
        return error.OutOfMemory;
    }
    fn closed(_: Allocator, _: json.Value) !void {
        try host.emit(&.{});
    }
    fn odd(arena: Allocator, argument: json.Value) !void {
        _ = try parse(struct { rows: u32 }, arena, argument);
    }
};

test "a result is wrapped in ok" {
    try expectAnswer("{\"ok\":{\"a\":[1,null]}}", Sample.echo, "{\"a\": [1, null]}");
    try expectAnswer("{\"ok\":{}}", Sample.nothing, "");
    try expectAnswer("{\"ok\":\"[1.0, 1e400]\"}", Sample.text, "[1.0, 1e400]");
}

test "a failure is wrapped in err, with its bytes made UTF-8" {
    try expectAnswer(
        "{\"err\":{\"kind\":\"auth\",\"message\":\"caf\u{FFFD}\",\"detail\":null,\"hint\":null,\"sqlstate\":\"28P01\"}}",
        Sample.refused,
        "{}",
    );
}

test "memory that ran out is a resource failure" {
    const allocator = std.testing.allocator;
    const text = try answer(allocator, Sample.leaky, "{}");
    defer allocator.free(text);
    try std.testing.expect(std.mem.indexOf(u8, text, "\"kind\":\"resource\"") != null);
}

test "a status of the host is left to the host to explain" {
    try expectAnswer(
        "{\"err\":{\"kind\":\"host\",\"message\":\"handing over a batch\"," ++
            "\"detail\":null,\"hint\":null,\"sqlstate\":null}}",
        Sample.closed,
        "{}",
    );
}

test "an argument that is not JSON, or of another shape, is a protocol failure" {
    inline for (.{ "{", "{\"rows\": \"many\"}" }) |argument| {
        const text = try answer(std.testing.allocator, Sample.odd, argument);
        defer std.testing.allocator.free(text);
        try std.testing.expect(std.mem.indexOf(u8, text, "\"kind\":\"protocol\"") != null);
    }
}
