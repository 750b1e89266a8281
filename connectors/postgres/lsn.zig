//! A position in the write-ahead log, as PostgreSQL prints it: `16/B374D848`.

const std = @import("std");
const sdk = @import("sdk");

pub const Lsn = struct {
    value: u64,

    pub const zero: Lsn = .{ .value = 0 };

    /// Null: not such a text.
    pub fn parse(text: []const u8) ?Lsn {
        const slash = std.mem.findScalar(u8, text, '/') orelse return null;
        const high = half(text[0..slash]) orelse return null;
        const low = half(text[slash + 1 ..]) orelse return null;
        return .{ .value = @as(u64, high) << 32 | low };
    }

    fn half(digits: []const u8) ?u32 {
        if (digits.len == 0 or digits.len > 8) return null;
        for (digits) |digit| if (!std.ascii.isHex(digit)) return null;
        return std.fmt.parseInt(u32, digits, 16) catch null;
    }

    pub fn format(self: Lsn, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{X}/{X}", .{ self.value >> 32, @as(u32, @truncate(self.value)) });
    }

    pub fn jsonStringify(self: Lsn, writer: *sdk.json.Stringify) sdk.json.Stringify.Error!void {
        var buffer: [17]u8 = undefined;
        try writer.write(std.fmt.bufPrint(&buffer, "{f}", .{self}) catch unreachable);
    }

    pub fn jsonParseFromValue(
        _: std.mem.Allocator,
        source: std.json.Value,
        _: std.json.ParseOptions,
    ) std.json.ParseFromValueError!Lsn {
        if (source != .string) return error.UnexpectedToken;
        return parse(source.string) orelse error.InvalidCharacter;
    }
};

test "a position is written as it is read" {
    const gpa = std.testing.allocator;
    const cases = [_]struct { []const u8, u64 }{
        .{ "0/0", 0 },
        .{ "0/16B3748", 0x16B3748 },
        .{ "16/B374D848", 0x16_B374D848 },
        .{ "FFFFFFFF/FFFFFFFF", std.math.maxInt(u64) },
    };
    for (cases) |case| {
        const lsn = Lsn.parse(case[0]).?;
        try std.testing.expectEqual(case[1], lsn.value);
        const text = try sdk.json.stringify(gpa, lsn);
        defer gpa.free(text);
        try std.testing.expectEqualStrings(case[0], text[1 .. text.len - 1]);
        const parsed = try std.json.parseFromValue(Lsn, gpa, .{ .string = case[0] }, .{});
        defer parsed.deinit();
        try std.testing.expectEqual(lsn, parsed.value);
    }
}

test "what is no position is told" {
    for ([_][]const u8{ "", "0", "/", "0/", "/0", "0/123456789", "-1/0", "0/+1", "0/1 ", "g/0", "1_0/0" }) |text|
        try std.testing.expectEqual(null, Lsn.parse(text));
}
