//! rb_describe: the schema message that rb_read begins with, and no rows.
//!
//! Nothing looks at what the rows hold, however large the table: an array column is told as a list, where rb_read lets it
//! cross as text if it finds arrays that no list can hold. Their type in the database is the same.

const std = @import("std");
const sdk = @import("sdk");
const Increment = @import("increment.zig").Increment;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const json = sdk.json;

const Argument = struct { stream: Stream };

pub fn describe(arena: Allocator, session: *Session, argument: json.Value) !void {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const stream = &parsed.stream;
    try session.lookImpatiently();
    try session.beginAsked(arena, stream);
    defer session.rollback();
    var selection: Selection = try .find(arena, session, parsed.stream);
    if (try stream.mode() == .incremental) {
        // It has a say in what crosses as text.
        var increment: Increment = try .begin(session.gpa, arena, session, &selection, stream, .null);
        increment.deinit();
    }
    try selection.probe(arena, session);
    const schema = try selection.schema(arena);
    try sdk.host.emitBytes(try sdk.arrow.writer.encodeSchema(arena, &schema));
}
