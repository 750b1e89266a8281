//! Feeds decoders with malformed bytes, in every test run for a moment and in `zig build fuzz` for longer.
//!
//! `bytes` mutates a corpus with a seeded generator; a failing input is printed with what replays it. When the tests
//! are built with instrumentation (`zig build test --fuzz=1M`) the compiler's coverage-guided fuzzer chooses instead.

const builtin = @import("builtin");
const std = @import("std");

const Smith = std.testing.Smith;

/// Inputs per target, unless the environment names another number: about 10 ms for a small decoder.
const default_iterations = 2_000;
const iterations_variable = "RAPIDBYTE_FUZZ_ITERATIONS";

/// Bytes of one input, at most: what a fuzzer finds, it finds in small inputs.
const max_input = 4096;

/// `target` must return for any bytes: an error that it means to return is caught by it, a returned error fails the
/// test, a panic ends it. `corpus`: well-formed inputs to start from.
pub fn bytes(comptime target: fn (input: []const u8) anyerror!void, corpus: []const []const u8) !void {
    if (builtin.fuzz) return std.testing.fuzz({}, Guided(target).run, .{});

    for (corpus) |input| try target(input);
    const seed: u64 = std.testing.random_seed;
    var generator: std.Random.DefaultPrng = .init(seed);
    var buffer: [max_input]u8 = undefined;
    for (0..iterations()) |i| {
        const input = mutate(generator.random(), corpus, &buffer);
        target(input) catch |err| {
            std.debug.print("seed {d}, iteration {d}, input {x}\n", .{ seed, i, input });
            return err;
        };
    }
}

fn Guided(comptime target: fn (input: []const u8) anyerror!void) type {
    return struct {
        fn run(_: void, smith: *Smith) anyerror!void {
            var buffer: [max_input]u8 = undefined;
            return target(buffer[0..smith.slice(&buffer)]);
        }
    };
}

fn iterations() usize {
    const gpa = std.testing.allocator;
    const text = std.testing.environ.getAlloc(gpa, iterations_variable) catch return default_iterations;
    defer gpa.free(text);
    return std.fmt.parseInt(usize, text, 10) catch default_iterations;
}

const Mutation = enum { bit, byte, extreme, truncate, remove, repeat };

/// A member of the corpus with a few changes of the kinds that break parsers, or noise.
fn mutate(random: std.Random, corpus: []const []const u8, buffer: *[max_input]u8) []const u8 {
    if (corpus.len == 0 or random.uintLessThan(u8, 16) == 0) {
        const noise = buffer[0..random.uintAtMost(usize, 64)];
        random.bytes(noise);
        return noise;
    }
    const origin = corpus[random.uintLessThan(usize, corpus.len)];
    var length: usize = @min(origin.len, max_input);
    @memcpy(buffer[0..length], origin[0..length]);
    for (0..@as(usize, 1) << random.uintLessThan(u2, 3)) |_| {
        if (length == 0) break;
        const at = random.uintLessThan(usize, length);
        // What moves bytes mostly dies at the first length: rarer than what changes a number.
        const weights = [_]u8{ 8, 8, 8, 1, 1, 1 };
        switch (@as(Mutation, @fromBackingInt(@intCast(random.weightedIndex(u8, &weights))))) {
            .bit => buffer[at] ^= @as(u8, 1) << random.int(u3),
            .byte => buffer[at] = random.int(u8),
            .extreme => {
                const extremes = [_]u8{ 0x00, 0x01, 0x7f, 0x80, 0xff };
                const width = @min(random.intRangeAtMost(usize, 1, 8), length - at);
                @memset(buffer[at..][0..width], extremes[random.uintLessThan(usize, extremes.len)]);
            },
            .truncate => length = at,
            .remove => {
                const width = random.intRangeAtMost(usize, 1, @min(8, length - at));
                @memmove(buffer[at .. length - width], buffer[at + width .. length]);
                length -= width;
            },
            .repeat => {
                const width = @min(random.intRangeAtMost(usize, 1, 8), length - at, max_input - length);
                @memmove(buffer[at + width ..][0 .. length - at], buffer[at..length]);
                length += width;
            },
        }
    }
    return buffer[0..length];
}
