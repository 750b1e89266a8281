//! Where the characters of a text begin. A byte that belongs to no well-formed character is one by itself.

const std = @import("std");

/// Bytes of the first character of a text that is not empty.
fn first(text: []const u8) usize {
    const length = std.unicode.utf8ByteSequenceLength(text[0]) catch return 1;
    if (length == 1) return 1;
    if (length > text.len) return 1;
    _ = std.unicode.utf8Decode(text[0..length]) catch return 1;
    return length;
}

pub fn count(text: []const u8) usize {
    var characters: usize = 0;
    var at: usize = 0;
    while (at < text.len) : (at += first(text[at..])) characters += 1;
    return characters;
}

/// Its first `limit` characters.
pub fn head(text: []const u8, limit: usize) []const u8 {
    // A character is a byte at least.
    if (text.len <= limit) return text;
    var at: usize = 0;
    for (0..limit) |_| {
        if (at == text.len) break;
        at += first(text[at..]);
    }
    return text[0..at];
}

test "characters are counted, not bytes" {
    try std.testing.expectEqual(5, count("naïve"));
    try std.testing.expectEqual(2, count("🐘é"));
    try std.testing.expectEqual(0, count(""));
    try std.testing.expectEqualStrings("naï", head("naïve", 3));
    try std.testing.expectEqualStrings("🐘", head("🐘é", 1));
    try std.testing.expectEqualStrings("🐘é", head("🐘é", 3));
    try std.testing.expectEqualStrings("", head("", 1));
}

test "bytes that are no text are characters of their own" {
    try std.testing.expectEqual(3, count("\xff\xe2\x82"));
    try std.testing.expectEqualStrings("\xff\xe2", head("\xff\xe2\x82a", 2));
    try @import("sdk").fuzz.bytes(fuzzCharacters, &.{ "", "naïve 🐘", "\xf0\x9f\x98", "\xed\xa0\x80" });
}

fn fuzzCharacters(bytes: []const u8) anyerror!void {
    const all = count(bytes);
    try std.testing.expect(all <= bytes.len);
    for (0..@min(all, 20) + 1) |limit| {
        const start = head(bytes, limit);
        try std.testing.expectEqual(@min(limit, all), count(start));
        try std.testing.expect(std.mem.startsWith(u8, bytes, start));
    }
}
