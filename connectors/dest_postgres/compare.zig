//! rb_compare: how a stream and its table differ, and what a run would do about it. It changes nothing.

const std = @import("std");
const sdk = @import("sdk");
const shape = @import("shape.zig");
const write = @import("write.zig");
const Landing = @import("landing.zig").Landing;
const Session = @import("session.zig").Session;
const Target = @import("target.zig").Target;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const Argument = struct { stream: write.Stream };

pub const Compared = struct {
    /// Whether there is a table to compare with.
    exists: bool,
};

/// What a policy refuses is told like everything else; what no policy can mend is an error.
pub fn compare(arena: Allocator, session: *Session, argument: json.Value) !Compared {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    try session.lookImpatiently();
    const target: Target = try .init(arena, parsed.stream.schema orelse session.schema, parsed.stream.table);
    const schema = try shape.receive(arena);
    try session.begin();
    defer session.rollback();
    const landing: *Landing = try .find(arena, session, &target, &parsed.stream, &schema);
    if (!landing.isRefused()) {
        try landing.insist(arena);
        try landing.rehearse(arena);
    }
    try landing.report(arena);
    return .{ .exists = landing.existing != null };
}
