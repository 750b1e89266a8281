//! A command for the tests against another engine: whether patterns are found in texts.
//!
//!     request    u32 length | pattern   u32 count of texts, each  u32 length | text
//!     reply      u32 length | one of '0' and '1' for each text
//!                u32 length + 2^31 | position in characters, a blank, what is wrong with the pattern
//!
//! Little-endian; ends with the input.

const std = @import("std");
const regex = @import("root.zig");

const error_flag: u32 = 1 << 31;
const max_length = 1 << 30;

pub fn main(init: std.process.Init) !void {
    const gpa = init.gpa;
    var input_buffer: [64 * 1024]u8 = undefined;
    var output_buffer: [64 * 1024]u8 = undefined;
    var input_file: std.Io.File.Reader = .init(.stdin(), init.io, &input_buffer);
    var output_file: std.Io.File.Writer = .init(.stdout(), init.io, &output_buffer);
    const input = &input_file.interface;
    const output = &output_file.interface;
    while (true) {
        const length = input.takeInt(u32, .little) catch |err| switch (err) {
            error.EndOfStream => break,
            else => return err,
        };
        const pattern = try taken(gpa, input, length);
        defer gpa.free(pattern);
        const count = try input.takeInt(u32, .little);
        const found = try gpa.alloc(u8, count);
        defer gpa.free(found);

        var problem: regex.Problem = .{};
        var compiled: ?regex.Regex = regex.Regex.init(gpa, pattern, &problem) catch |err| switch (err) {
            error.Refused => null,
            else => return err,
        };
        defer if (compiled) |*each| each.deinit();
        for (found) |*answer| {
            const text = try taken(gpa, input, try input.takeInt(u32, .little));
            defer gpa.free(text);
            if (compiled) |*each| answer.* = if (each.isFound(text)) '1' else '0';
        }
        if (compiled != null) {
            try output.writeInt(u32, count, .little);
            try output.writeAll(found);
        } else {
            const text = try std.fmt.allocPrint(gpa, "{d} {s}", .{ problem.position(pattern), problem.message });
            defer gpa.free(text);
            try output.writeInt(u32, error_flag | @as(u32, @intCast(text.len)), .little);
            try output.writeAll(text);
        }
    }
    try output.flush();
}

fn taken(gpa: std.mem.Allocator, input: *std.Io.Reader, length: u32) ![]u8 {
    if (length > max_length) return error.TooLong;
    const bytes = try gpa.alloc(u8, length);
    errdefer gpa.free(bytes);
    try input.readSliceAll(bytes);
    return bytes;
}
