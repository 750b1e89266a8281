//! A connector that does what its argument says: {"steps": [STEP…]}. It is written against the bare ABI, without the
//! SDK, so that it can break every rule of it.
//!
//!   {"call": NAME, "args": [ARG…]}   calls the import NAME with raw numbers; its status goes into the result
//!       ARG: a number; a text (its address and length); {"buffer": N} (address and length of N new bytes)
//!       "repeat": N      calls it that often
//!       "strict": true   gives up on a negative status: {"err": {"kind": "host", "message": "calling NAME"}}
//!       "show": true     puts the last buffer's first STATUS bytes into the result's "shown"
//!   {"emit": [TEXT | [PTR, LEN]…]}   emits one message of these pieces
//!   {"take": true}                   one `next` and `read`: the kind goes into the statuses, the data into "shown"
//!   {"grow": BYTES, "piece": BYTES}  allocates and keeps that much, or fails with kind "resource"; "panic": true traps
//!   {"trap": "unreachable" | "bounds" | "stack"}
//!   {"loop": true}                   computes for ever
//!   {"answer": TEXT}                 returns TEXT as its whole result
//!   {"on_close": TEXT}               the script that `rb_close` runs, as JSON
//!   {"return": [PTR, LEN]}           returns these numbers
const std = @import("std");

const host = struct {
    extern "rapidbyte" fn emit(pieces: u32, count: u32) i32;
    extern "rapidbyte" fn barrier(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn next(out: u32) i32;
    extern "rapidbyte" fn read(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn prepare(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn committed(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn drift(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn emit_dlq_batch(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn tcp_connect(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn tcp_start_tls(handle: u32, ptr: u32, len: u32) i32;
    extern "rapidbyte" fn tcp_recv(handle: u32, ptr: u32, len: u32, timeout_ms: u32) i32;
    extern "rapidbyte" fn tcp_send(handle: u32, ptr: u32, len: u32, timeout_ms: u32) i32;
    extern "rapidbyte" fn tcp_close(handle: u32) i32;
    extern "rapidbyte" fn log(level: u32, ptr: u32, len: u32) i32;
    extern "rapidbyte" fn metric(ptr: u32, len: u32, value: f64) i32;
    extern "rapidbyte" fn now() i64;
    extern "rapidbyte" fn random(ptr: u32, len: u32) i32;
    extern "rapidbyte" fn is_cancelled() i32;
};

const gpa = std.heap.wasm_allocator;

export fn rb_abi_version() i32 {
    return 1;
}

export fn rb_alloc(len: u32) u32 {
    const memory = gpa.alignedAlloc(u8, .@"8", @max(len, 1)) catch return 0;
    return @intFromPtr(memory.ptr);
}

export fn rb_free(ptr: u32, len: u32) void {
    const memory: [*]align(8) u8 = @ptrFromInt(ptr);
    gpa.free(memory[0..@max(len, 1)]);
}

export fn rb_spec(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}
export fn rb_open(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}
export fn rb_check(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}
export fn rb_discover(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}
export fn rb_read(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}
export fn rb_write(ptr: u32, len: u32) u64 {
    return run(ptr, len);
}

/// What `{"on_close": STEP}` asked for; a text, because the memory of its script is gone by then.
var on_close: []const u8 = "{}";

/// Tells the test that it was called.
export fn rb_close(ptr: u32, len: u32) u64 {
    _ = .{ ptr, len };
    const text = "closing";
    _ = host.log(1, address(text), text.len);
    return run(address(on_close), on_close.len);
}

const Outcome = struct {
    statuses: std.ArrayList(i64) = .empty,
    shown: std.ArrayList([]const u8) = .empty,
    buffer: []u8 = &.{},
    /// The whole result, when a step decides it.
    answer: ?u64 = null,
};

fn run(ptr: u32, len: u32) u64 {
    var arena_state: std.heap.ArenaAllocator = .init(gpa);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const text: [*]const u8 = @ptrFromInt(ptr);
    const argument = std.json.parseFromSliceLeaky(std.json.Value, arena, text[0..len], .{}) catch
        return result("{\"err\": {\"kind\": \"internal\", \"message\": \"malformed script\"}}");
    var outcome: Outcome = .{};
    const steps = argument.object.get("steps") orelse return result("{\"ok\": null}");
    for (steps.array.items) |step| {
        perform(arena, step.object, &outcome) catch |reason| return switch (reason) {
            error.OutOfMemory => result("{\"err\": {\"kind\": \"resource\", \"message\": \"out of memory\"}}"),
            else => result("{\"err\": {\"kind\": \"internal\", \"message\": \"a step failed\"}}"),
        };
        if (outcome.answer) |answer| return answer;
    }
    const ok = std.json.Stringify.valueAlloc(arena, .{
        .ok = .{ .statuses = outcome.statuses.items, .shown = outcome.shown.items },
    }, .{}) catch return 0;
    return result(ok);
}

fn perform(arena: std.mem.Allocator, step: std.json.ObjectMap, outcome: *Outcome) !void {
    if (step.get("call")) |name| return call(arena, name.string, step, outcome);
    if (step.get("emit")) |pieces| return emit(arena, pieces.array.items, outcome);
    if (step.get("take") != null) return take(arena, outcome);
    if (step.get("grow")) |bytes| return grow(bytes.integer, step);
    if (step.get("trap")) |kind| return trap(kind.string);
    if (step.get("loop") != null) loop();
    if (step.get("on_close")) |script| {
        on_close = try gpa.dupe(u8, script.string);
        return;
    }
    if (step.get("answer")) |text| {
        outcome.answer = result(text.string);
        return;
    }
    if (step.get("return")) |numbers| {
        const pair = numbers.array.items;
        outcome.answer = @as(u64, word(pair[0])) << 32 | word(pair[1]);
        return;
    }
    return error.UnknownStep;
}

fn call(arena: std.mem.Allocator, name: []const u8, step: std.json.ObjectMap, outcome: *Outcome) !void {
    var words: [8]u32 = @splat(0);
    var value: f64 = 0;
    var count: usize = 0;
    if (step.get("args")) |args| for (args.array.items) |arg| switch (arg) {
        .integer => {
            words[count] = word(arg);
            count += 1;
        },
        .float => |float| value = float,
        .string => |text| {
            words[count] = address(text);
            words[count + 1] = text.len;
            count += 2;
        },
        .object => |object| {
            outcome.buffer = try arena.alloc(u8, word(object.get("buffer").?));
            @memset(outcome.buffer, 0);
            words[count] = address(outcome.buffer);
            words[count + 1] = outcome.buffer.len;
            count += 2;
        },
        else => return error.BadArgument,
    };
    const repeat = if (step.get("repeat")) |n| n.integer else 1;
    var status: i64 = 0;
    for (0..@intCast(repeat)) |_| status = dispatch(name, words, value) orelse return error.UnknownImport;
    try outcome.statuses.append(arena, status);
    if (step.get("show") != null and status >= 0) {
        try outcome.shown.append(arena, outcome.buffer[0..@intCast(status)]);
    }
    if (step.get("strict") != null and status < 0) {
        const message = try std.fmt.allocPrint(arena, "calling {s}", .{name});
        const err = .{ .err = .{ .kind = "host", .message = message } };
        outcome.answer = result(try std.json.Stringify.valueAlloc(arena, err, .{}));
    }
}

fn dispatch(name: []const u8, w: [8]u32, value: f64) ?i64 {
    const names = std.meta.stringToEnum(enum {
        emit,
        barrier,
        next,
        read,
        prepare,
        committed,
        drift,
        emit_dlq_batch,
        tcp_connect,
        tcp_start_tls,
        tcp_recv,
        tcp_send,
        tcp_close,
        log,
        metric,
        now,
        random,
        is_cancelled,
    }, name) orelse return null;
    return switch (names) {
        .emit => host.emit(w[0], w[1]),
        .barrier => host.barrier(w[0], w[1]),
        .next => host.next(w[0]),
        .read => host.read(w[0], w[1]),
        .prepare => host.prepare(w[0], w[1]),
        .committed => host.committed(w[0], w[1]),
        .drift => host.drift(w[0], w[1]),
        .emit_dlq_batch => host.emit_dlq_batch(w[0], w[1]),
        .tcp_connect => host.tcp_connect(w[0], w[1]),
        .tcp_start_tls => host.tcp_start_tls(w[0], w[1], w[2]),
        .tcp_recv => host.tcp_recv(w[0], w[1], w[2], w[3]),
        .tcp_send => host.tcp_send(w[0], w[1], w[2], w[3]),
        .tcp_close => host.tcp_close(w[0]),
        .log => host.log(w[0], w[1], w[2]),
        .metric => host.metric(w[0], w[1], value),
        .now => host.now(),
        .random => host.random(w[0], w[1]),
        .is_cancelled => host.is_cancelled(),
    };
}

fn emit(arena: std.mem.Allocator, pieces: []const std.json.Value, outcome: *Outcome) !void {
    const table = try arena.alloc([2]u32, pieces.len);
    for (pieces, table) |piece, *entry| entry.* = switch (piece) {
        .string => |text| .{ address(text), text.len },
        .array => |pair| .{ word(pair.items[0]), word(pair.items[1]) },
        else => return error.BadArgument,
    };
    try outcome.statuses.append(arena, host.emit(@intFromPtr(table.ptr), table.len));
}

fn take(arena: std.mem.Allocator, outcome: *Outcome) !void {
    var len: u32 = 0;
    const kind = host.next(@intFromPtr(&len));
    try outcome.statuses.append(arena, kind);
    if (kind != 1 and kind != 2) return;
    const data = try arena.alloc(u8, len);
    const status = host.read(address(data), data.len);
    if (status < 0) try outcome.statuses.append(arena, status);
    try outcome.shown.append(arena, data);
}

fn grow(bytes: i64, step: std.json.ObjectMap) !void {
    const piece: usize = if (step.get("piece")) |size| word(size) else 1024 * 1024;
    var left = bytes;
    while (left > 0) : (left -= @intCast(piece)) {
        const memory = gpa.alloc(u8, piece) catch |reason| {
            if (step.get("panic") != null) @trap();
            return reason;
        };
        memory[0] = 1;
        std.mem.doNotOptimizeAway(memory.ptr);
    }
}

fn trap(kind: []const u8) void {
    if (std.mem.eql(u8, kind, "unreachable")) @trap();
    if (std.mem.eql(u8, kind, "bounds")) {
        const far: *volatile u32 = @ptrFromInt(0xFFFF_FFF0);
        far.* = 1;
    }
    if (std.mem.eql(u8, kind, "stack")) std.mem.doNotOptimizeAway(descend(1));
}

fn descend(depth: u32) u32 {
    var seen = depth;
    const hidden: *volatile u32 = &seen;
    if (hidden.* == 0) return 0;
    return descend(hidden.* + 1) + hidden.*;
}

fn loop() noreturn {
    var spins: u32 = 0;
    const hidden: *volatile u32 = &spins;
    while (true) hidden.* +%= 1;
}

fn word(value: std.json.Value) u32 {
    return @truncate(@as(u64, @bitCast(value.integer)));
}

fn address(bytes: []const u8) u32 {
    return @intFromPtr(bytes.ptr);
}

fn result(text: []const u8) u64 {
    const memory = gpa.alignedAlloc(u8, .@"8", @max(text.len, 1)) catch return 0;
    @memcpy(memory[0..text.len], text);
    return @as(u64, @intFromPtr(memory.ptr)) << 32 | text.len;
}
