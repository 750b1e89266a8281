//! assert_regex: the pattern is found in the value's text.

const std = @import("std");
const sdk = @import("sdk");
const regex = @import("regex");
const transform = @import("transform");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// As long as the transform is open: what it remembers of the texts is not lost with a schema.
pub fn compile(path: []const u8, pattern: []const u8) !regex.Regex {
    var problem: regex.Problem = .{};
    return regex.Regex.init(sdk.connector.gpa, pattern, &problem) catch |err| switch (err) {
        error.OutOfMemory => error.OutOfMemory,
        error.Refused => sdk.fail(
            .config,
            "{s}.pattern: {s}, at character {d} of {s}",
            .{ path, problem.message, problem.position(pattern), pattern },
        ),
    };
}

pub fn judge(
    compiled: *regex.Regex,
    texts: *transform.Texts,
    view: *const arrow.ArrayView,
    rows: *transform.Rows,
    reason: transform.Reason,
) !void {
    for (0..view.length) |row| {
        if (view.isNull(row)) continue;
        const text = if (texts.form == .as_it_is) view.bytesAt(row) else try texts.at(sdk.connector.gpa, view, row);
        if (!compiled.isFound(text)) try rows.refuse(row, reason);
    }
}

test "a pattern that is refused is told with its place" {
    defer sdk.errors.clear();
    try std.testing.expectError(error.Failed, compile("rules[0].assert_regex", "a(?=b)"));
    const failure = sdk.errors.current().?;
    try std.testing.expectEqual(.config, failure.kind);
    try std.testing.expectEqualStrings(
        "rules[0].assert_regex.pattern: look-ahead and look-behind are not supported, at character 2 of a(?=b)",
        failure.message,
    );
}
