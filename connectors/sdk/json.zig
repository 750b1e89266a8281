//! JSON of the control plane: arguments in, results out.

const std = @import("std");

const Allocator = std.mem.Allocator;

pub const Value = std.json.Value;
pub const Stringify = std.json.Stringify;
pub const ArrayHashMap = std.json.ArrayHashMap;

/// Reads `text` as a `T`; unknown keys are ignored, so that a newer host can say more. Everything lives in `arena`.
pub fn parse(comptime T: type, arena: Allocator, text: []const u8) std.json.ParseError(std.json.Scanner)!T {
    return std.json.parseFromSliceLeaky(T, arena, text, .{ .ignore_unknown_fields = true, .allocate = .alloc_always });
}

/// `parse` of what has been read already.
pub fn parseValue(comptime T: type, arena: Allocator, value: Value) std.json.ParseFromValueError!T {
    return std.json.parseFromValueLeaky(T, arena, value, .{ .ignore_unknown_fields = true, .allocate = .alloc_always });
}

pub fn stringify(gpa: Allocator, value: anytype) Allocator.Error![]u8 {
    return Stringify.valueAlloc(gpa, value, .{});
}

/// Text from outside (a server's message) that goes into JSON. `std.json` writes bytes that are not UTF-8 as a list
/// of numbers; this writes each of them as U+FFFD.
pub const Text = struct {
    bytes: []const u8,

    pub fn jsonStringify(self: Text, writer: *Stringify) Stringify.Error!void {
        try writer.beginWriteRaw();
        try writer.writer.writeByte('"');
        var rest = self.bytes;
        while (rest.len > 0) {
            const valid = validPrefix(rest);
            try Stringify.encodeJsonStringChars(rest[0..valid], .{}, writer.writer);
            rest = rest[valid..];
            if (rest.len > 0) {
                try writer.writer.writeAll("\u{FFFD}");
                rest = rest[1..];
            }
        }
        try writer.writer.writeByte('"');
        writer.endWriteRaw();
    }
};

/// Bytes at the start of `bytes` that are whole UTF-8 sequences.
pub fn validPrefix(bytes: []const u8) usize {
    var i: usize = 0;
    while (i < bytes.len) {
        const length = std.unicode.utf8ByteSequenceLength(bytes[i]) catch return i;
        if (length > bytes.len - i) return i;
        _ = std.unicode.utf8Decode(bytes[i..][0..length]) catch return i;
        i += length;
    }
    return i;
}

test "text that is not UTF-8 becomes valid JSON" {
    const gpa = std.testing.allocator;
    const text = try stringify(gpa, .{ .message = Text{ .bytes = "a\"\xff\xe4\xf6é\xe2\x82" } });
    defer gpa.free(text);
    try std.testing.expectEqualStrings("{\"message\":\"a\\\"\u{FFFD}\u{FFFD}\u{FFFD}é\u{FFFD}\u{FFFD}\"}", text);
}

test "an argument may say more than is asked" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const Argument = struct { name: []const u8, limit: ?u32 = null };
    const argument = try parse(Argument, arena.allocator(), "{\"name\":\"a\",\"new\":[1]}");
    try std.testing.expectEqualStrings("a", argument.name);
    try std.testing.expectEqual(null, argument.limit);
}

test "text survives the way into JSON and back" {
    try @import("fuzz.zig").bytes(fuzzText, &.{ "", "plain", "\xff\xfe", "\xf0\x9f\x98", "\"é\x00\n" });
}

fn fuzzText(bytes: []const u8) anyerror!void {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const text = try stringify(arena.allocator(), Text{ .bytes = bytes });
    const back = try parse([]const u8, arena.allocator(), text);
    try std.testing.expect(std.unicode.utf8ValidateSlice(back));
    if (std.unicode.utf8ValidateSlice(bytes)) try std.testing.expectEqualStrings(bytes, back);
}
