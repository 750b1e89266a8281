//! The MD5 answer of servers that still ask for it: "md5" + md5hex(md5hex(password + user) + salt).
//! https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP

const std = @import("std");
const Md5 = std.crypto.hash.Md5;

pub const answer_bytes = 3 + 2 * Md5.digest_length;

pub fn answer(user: []const u8, password: []const u8, salt: [4]u8) [answer_bytes]u8 {
    const inner = hexOfTwo(password, user);
    const outer = hexOfTwo(&inner, &salt);
    return "md5".* ++ outer;
}

fn hexOfTwo(first: []const u8, second: []const u8) [2 * Md5.digest_length]u8 {
    var hash: Md5 = .init(.{});
    hash.update(first);
    hash.update(second);
    var digest: [Md5.digest_length]u8 = undefined;
    hash.final(&digest);
    return std.fmt.bytesToHex(digest, .lower);
}

test "user, password and salt give the answer that the server computes" {
    // SELECT 'md5' || md5(md5('secret' || 'etl')::bytea || '\x01020304'::bytea)
    try std.testing.expectEqualStrings(
        "md59ecfd1bd67c9a7b6924a053cd1b5c3be",
        &answer("etl", "secret", .{ 1, 2, 3, 4 }),
    );
}
