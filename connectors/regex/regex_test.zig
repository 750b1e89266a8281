const std = @import("std");
const root = @import("root.zig");

const Regex = root.Regex;
const gpa = std.testing.allocator;

fn compile(pattern: []const u8) !Regex {
    var problem: root.Problem = .{};
    return Regex.init(gpa, pattern, &problem) catch |err| {
        std.debug.print("{s}: {s}\n", .{ pattern, problem.message });
        return err;
    };
}

fn expect(pattern: []const u8, found: []const []const u8, not_found: []const []const u8) !void {
    var regex = try compile(pattern);
    defer regex.deinit();
    for (found) |text| std.testing.expect(regex.isFound(text)) catch |err| {
        std.debug.print("{s} is not found in {s}\n", .{ pattern, text });
        return err;
    };
    for (not_found) |text| std.testing.expect(!regex.isFound(text)) catch |err| {
        std.debug.print("{s} is found in {s}\n", .{ pattern, text });
        return err;
    };
}

test "a pattern is looked for anywhere, unless it is anchored" {
    try expect("b+c", &.{ "bc", "abbcd" }, &.{ "", "b", "cb" });
    try expect("^b+c$", &.{ "bc", "bbbc" }, &.{ "abc", "bcd", "bc\n" });
    try expect("\\Ab\\z", &.{"b"}, &.{ "ab", "b\n" });
    try expect("", &.{ "", "a" }, &.{});
    try expect("^$", &.{""}, &.{"a"});
    try expect("a|^b|c$", &.{ "xa", "bx", "xc" }, &.{ "xb", "cx" });
    try expect("a^b|b$c", &.{}, &.{ "ab", "bc", "" });
}

test "literals are found as what they are" {
    try expect("naïve.com"[0..6], &.{"a naïve b"}, &.{"naive"});
    try expect("^é", &.{ "é", "éa" }, &.{ "aé", "" });
    try expect("é$", &.{ "é", "aé" }, &.{ "éa", "" });
    try expect("^a\\.b$", &.{"a.b"}, &.{ "a.bc", "aab" });
    try expect("a{b}|]}", &.{ "a{b}", "]}" }, &.{"ab"});
}

test "classes are of code points" {
    try expect("^.$", &.{ "a", "é", "€", "😀" }, &.{ "", "\n", "ab", "\xff", "\xe2\x82" });
    try expect("(?s)^.$", &.{"\n"}, &.{"\xed\xa0\x80"});
    try expect("^[^a]$", &.{ "b", "\n", "😀" }, &.{ "a", "bb" });
    try expect("^[à-ü😀-😂]+$", &.{ "éü", "😁" }, &.{ "e", "😃" });
    try expect("^[]a-]$", &.{ "]", "a", "-" }, &.{"b"});
    try expect("^[\\w.%+-]+@[\\w.-]+\\.[a-zA-Z]{2,}$", &.{"first.last+x@mail.example.org"}, &.{ "a@b", "@b.cc", "a@b.c" });
    try expect("^[\\D]$", &.{"a"}, &.{"5"});
    try expect("^[^\\s\\d]$", &.{"a"}, &.{ "5", " ", "\x0b" });
    try expect("^[[:alpha:][:^ascii:]]+$", &.{"aé"}, &.{"a1"});
    try expect("^\\x{1F600}\\u00e9\\x41\\t$", &.{"😀éA\t"}, &.{""});
    try expect("[^\\x00-\\x{10FFFF}]", &.{}, &.{ "", "a", "\xff" });
}

test "repetitions are counted" {
    try expect("^a{2,3}$", &.{ "aa", "aaa" }, &.{ "a", "aaaa" });
    try expect("^a{2}$", &.{"aa"}, &.{ "a", "aaa" });
    try expect("^a{2,}?$", &.{ "aa", "aaaaa" }, &.{"a"});
    try expect("^a{0}b$", &.{"b"}, &.{"ab"});
    try expect("^(ab?){2}$", &.{ "aa", "aba", "abab" }, &.{ "a", "ababa" });
    try expect("^(a*)*$", &.{ "", "aaa" }, &.{"b"});
    try expect("^(|a)+b$", &.{ "b", "aab" }, &.{"a"});
    const long: [1001][2]u8 = @splat("é".*);
    try expect("^.{0,1000}$", &.{std.mem.asBytes(long[1..])}, &.{std.mem.asBytes(&long)});
}

test "assertions see both sides" {
    try expect("\\bcat\\b", &.{ "cat", "a cat.", "écaté" }, &.{ "cats", "_cat" });
    try expect("\\Bat", &.{"cat"}, &.{ "at", " at" });
    // Within a character there is no place: each of the four places of "aéa" is between a word and something else.
    try expect("\\B", &.{ "", "aa", "é" }, &.{ "a", "aéa" });
    try expect("(?m)^b$", &.{ "a\nb\nc", "b", "b\n" }, &.{ "ab", "b\r\n" });
    try expect("(?m:^)b$", &.{"a\nb"}, &.{"b\n"});
    try expect("^\\b$|\\b\\B", &.{}, &.{ "", "a" });
}

test "case is what the flag says, for all of Unicode" {
    try expect("(?i)straße", &.{ "STRAßE", "STRAẞE", "ſtraße" }, &.{"strasse"});
    try expect("(?i)^[k-m]$", &.{ "K", "\u{212A}", "l" }, &.{"n"});
    try expect("(?i)^[^k]$", &.{"a"}, &.{ "k", "K", "\u{212A}" });
    try expect("a(?i)b|c", &.{ "aB", "C" }, &.{"AB"});
    try expect("a(?i:b)c", &.{"aBc"}, &.{ "ABc", "aBC" });
    try expect("(?i:a(?-i)b)c", &.{"Abc"}, &.{ "AbC", "ABc" });
    try expect("(?i)^\\w$", &.{"k"}, &.{"\u{212A}"});
}

test "a program that is too large is refused" {
    for ([_][]const u8{ "(((a{1000}){1000}){1000})", "(((){1000}){1000}){1000}", "([^a]{100}){100}" }) |pattern| {
        var problem: root.Problem = .{};
        try std.testing.expectError(error.Refused, Regex.init(gpa, pattern, &problem));
        try std.testing.expect(std.mem.find(u8, problem.message, "too large") != null);
    }
}

test "a pattern that explodes elsewhere takes linear time" {
    const text: [100_000]u8 = @splat('a');
    try expect("^(a+)+$", &.{&text}, &.{&text ++ "b"});
    try expect("(a|a|aa)*(a?){50}b", &.{}, &.{&text});
    // Its states are as many as there are texts of 21 letters: more than are remembered.
    var generator: std.Random.DefaultPrng = .init(7);
    const random = generator.random();
    var letters: [300_000]u8 = undefined;
    for (&letters) |*letter| letter.* = if (random.boolean()) 'a' else 'b';
    const end = letters.len - 21;
    letters[end] = 'a';
    var regex = try compile("a[ab]{20}$");
    defer regex.deinit();
    try std.testing.expect(regex.isFound(&letters));
    letters[end] = 'b';
    for (0..10) |_| try std.testing.expect(!regex.isFound(&letters));
    try std.testing.expect(regex.matcher.automaton.next_pause > 64 * 1024);
}

test "what is remembered, is forgotten when it is too much, and the answers stay" {
    // Few of its states are worth remembering, but their texts are long.
    var regex = try compile("x[ab]{14}$");
    defer regex.deinit();
    var generator: std.Random.DefaultPrng = .init(8);
    const random = generator.random();
    for (0..3000) |_| {
        var text: [200]u8 = @splat('c');
        for (text[180..]) |*letter| letter.* = "abx"[random.uintLessThan(usize, 3)];
        const expected = text[185] == 'x' and std.mem.findScalar(u8, text[186..], 'x') == null;
        try std.testing.expectEqual(expected, regex.isFound(&text));
    }
}

test "memory that runs out costs time and no answer" {
    var failing: std.testing.FailingAllocator = .init(gpa, .{});
    var problem: root.Problem = .{};
    var regex: Regex = try .init(failing.allocator(), "^(a|b)*c[a-f]{3}$", &problem);
    defer regex.deinit();
    for (0..12) |room| {
        failing.fail_index = failing.alloc_index + room;
        failing.resize_fail_index = failing.resize_index;
        regex.matcher.automaton.pause = 0;
        try std.testing.expect(regex.isFound("ababcdef"));
        try std.testing.expect(!regex.isFound("ababcdeg"));
    }
}

test "any pattern compiles or is refused, and any text is searched the same with and without remembering" {
    try @import("sdk").fuzz.bytes(fuzzPattern, &.{
        "\x08^a.*b|c$aaab",
        "\x0a(?i)[a-zé]+xyzÉ",
        "\x0d\\bcat\\b(?m)^x$cat\nx",
        "\x0f(a|ab){2,5}?\\W*$abab  ",
        "\x0b[[:^word:]]\\B\xff\xc3",
    });
}

/// A byte with the pattern's length, the pattern, the text.
fn fuzzPattern(bytes: []const u8) anyerror!void {
    if (bytes.len == 0) return;
    const length = @min(bytes[0], bytes.len - 1);
    var problem: root.Problem = .{};
    var regex = Regex.init(gpa, bytes[1..][0..length], &problem) catch |err| {
        if (err != error.Refused) return err;
        try std.testing.expect(problem.message.len > 0 and problem.offset <= length);
        return;
    };
    defer regex.deinit();
    const text = bytes[1 + length ..];
    const first = regex.isFound(text);
    try std.testing.expectEqual(first, regex.isFound(text));
    if (regex.matcher != .automaton) return;
    regex.matcher.automaton.pause = 1;
    try std.testing.expectEqual(first, regex.isFound(text));
}
