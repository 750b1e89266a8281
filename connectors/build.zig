//! Builds the connectors: Zig to wasm32-freestanding modules that import nothing but the host functions of the ABI.
//!
//!     zig build                  zig-out/bin/source-postgres.wasm and the others, with debug information, which hatch_build.py leaves
//!                                out of what it installs
//!     zig build test             the unit tests of the SDK, the protocol and the connectors, natively
//!     zig build fuzz             the same tests with 100,000 inputs for each fuzz target: -Dfuzz-iterations=N, --seed N
//!     zig build arrow-roundtrip  zig-out/bin/arrow-roundtrip, for the tests against pyarrow
//!     zig build regex-driver     zig-out/bin/regex-driver, for the tests against Python's engine

const std = @import("std");

const Connector = struct { name: []const u8, root: []const u8 };

const connectors = [_]Connector{
    .{ .name = "source-postgres", .root = "source_postgres/root.zig" },
    .{ .name = "dest-postgres", .root = "dest_postgres/root.zig" },
    .{ .name = "transform-mask", .root = "transform_mask/root.zig" },
    .{ .name = "transform-validate", .root = "transform_validate/root.zig" },
};

/// What is tested: the connectors, and what they are made of.
const roots = blk: {
    const shared = [_][]const u8{ "sdk/root.zig", "regex/root.zig", "postgres/root.zig", "transform/root.zig" };
    var all: [shared.len + connectors.len][]const u8 = undefined;
    for (shared, all[0..shared.len]) |root, *each| each.* = root;
    for (connectors, all[shared.len..]) |connector, *each| each.* = connector.root;
    break :blk all;
};

pub fn build(b: *std.Build) void {
    // Safety checks stay on: a connector that meets a bug of its own must trap, not go on.
    const optimize = b.option(std.builtin.Optimize, "optimize", "of the modules (default: safe)") orelse .safe;
    const strip = b.option(bool, "strip", "leave out debug information and function names") orelse false;

    for (connectors) |connector| {
        const executable = b.addExecutable(.{
            .name = connector.name,
            .root_module = module(b, connector.root, .{
                .target = wasmTarget(b),
                .optimize = optimize,
                .strip = strip,
                .single_threaded = true,
                .error_tracing = false,
            }),
        });
        executable.entry = .disabled;
        executable.rdynamic = true;
        b.installArtifact(executable);
    }

    addTests(b);

    const roundtrip = b.addExecutable(.{
        .name = "arrow-roundtrip",
        .root_module = module(b, "sdk/arrow_roundtrip.zig", .{ .target = b.graph.host, .optimize = .debug }),
    });
    b.step("arrow-roundtrip", "Build the command that the tests against pyarrow talk to").dependOn(
        &b.addInstallArtifact(roundtrip, .{}).step,
    );

    const regex_driver = b.addExecutable(.{
        .name = "regex-driver",
        .root_module = module(b, "regex/driver.zig", .{ .target = b.graph.host, .optimize = .safe }),
    });
    b.step("regex-driver", "Build the command that the tests against Python's engine talk to").dependOn(
        &b.addInstallArtifact(regex_driver, .{}).step,
    );
}

fn addTests(b: *std.Build) void {
    const iterations = b.option(u64, "fuzz-iterations", "inputs for each target of `zig build fuzz`") orelse 100_000;
    const test_step = b.step("test", "Run the unit tests natively");
    const fuzz_step = b.step("fuzz", "Run the unit tests with more inputs for each fuzz target");
    for (roots) |root| {
        const quick = b.addTest(.{ .root_module = module(b, root, .{ .target = b.graph.host, .optimize = .debug }) });
        const quick_run = b.addRunArtifact(quick);
        // Each run has a seed of its own for the fuzz targets: it is worth repeating when nothing changed.
        quick_run.has_side_effects = true;
        test_step.dependOn(&quick_run.step);

        const fast = b.addTest(.{ .root_module = module(b, root, .{ .target = b.graph.host, .optimize = .safe }) });
        const run = b.addRunArtifact(fast);
        run.has_side_effects = true;
        run.setEnvironmentVariable("RAPIDBYTE_FUZZ_ITERATIONS", b.fmt("{d}", .{iterations}));
        fuzz_step.dependOn(&run.step);
    }
}

/// The module of one root file, with everything that it may import.
fn module(b: *std.Build, root: []const u8, options: std.Build.Module.CreateOptions) *std.Build.Module {
    const result = alone(b, root, options);
    if (std.mem.startsWith(u8, root, "sdk/")) return result;
    const sdk = alone(b, "sdk/root.zig", options);
    result.addImport("sdk", sdk);
    if (std.mem.startsWith(u8, root, "regex/") or std.mem.startsWith(u8, root, "postgres/")) return result;
    const postgres = alone(b, "postgres/root.zig", options);
    postgres.addImport("sdk", sdk);
    result.addImport("postgres", postgres);
    if (std.mem.startsWith(u8, root, "transform/")) return result;
    const transform = alone(b, "transform/root.zig", options);
    transform.addImport("sdk", sdk);
    transform.addImport("postgres", postgres);
    result.addImport("transform", transform);
    const regex = alone(b, "regex/root.zig", options);
    regex.addImport("sdk", sdk);
    result.addImport("regex", regex);
    return result;
}

fn alone(b: *std.Build, root: []const u8, options: std.Build.Module.CreateOptions) *std.Build.Module {
    var own = options;
    own.root_source_file = b.path(root);
    return b.createModule(own);
}

fn wasmTarget(b: *std.Build) std.Build.ResolvedTarget {
    return b.resolveTargetQuery(.{
        .cpu_arch = .wasm32,
        .os_tag = .freestanding,
        .cpu_model = .{ .explicit = &std.Target.wasm.cpu.generic },
        .cpu_features_add = std.Target.wasm.featureSet(&.{ .simd128, .bulk_memory }),
    });
}
