//! HMAC-SHA-256 with one key for many values: what depends on the key alone is hashed once, and a short value costs two
//! blocks instead of four.
//!
//! https://www.rfc-editor.org/rfc/rfc2104

const std = @import("std");

const Sha256 = std.crypto.hash.sha2.Sha256;

pub const KeyedHash = struct {
    /// Behind the block of the key, padded for the value and for its hash.
    inner: Sha256,
    outer: Sha256,

    pub const digest_length = Sha256.digest_length;

    pub fn init(key: []const u8) KeyedHash {
        var block: [Sha256.block_length]u8 = @splat(0);
        if (key.len > block.len) Sha256.hash(key, block[0..Sha256.digest_length], .{}) else @memcpy(block[0..key.len], key);
        return .{ .inner = begun(block, 0x36), .outer = begun(block, 0x5c) };
    }

    fn begun(block: [Sha256.block_length]u8, pad: u8) Sha256 {
        var padded: [Sha256.block_length]u8 = undefined;
        for (&padded, block) |*byte, of_key| byte.* = of_key ^ pad;
        var hash: Sha256 = .init(.{});
        hash.update(&padded);
        return hash;
    }

    pub fn of(self: *const KeyedHash, value: []const u8) [digest_length]u8 {
        var inner = self.inner;
        inner.update(value);
        var outer = self.outer;
        outer.update(&inner.finalResult());
        return outer.finalResult();
    }
};

test "it is HMAC-SHA-256, whatever the lengths" {
    const Hmac = std.crypto.auth.hmac.sha2.HmacSha256;
    var generator: std.Random.DefaultPrng = .init(std.testing.random_seed);
    var noise: [300]u8 = undefined;
    generator.random().bytes(&noise);
    for ([_]usize{ 0, 1, 16, 63, 64, 65, 150 }) |key_length| {
        const hash: KeyedHash = .init(noise[0..key_length]);
        for ([_]usize{ 0, 1, 55, 56, 64, 300 }) |length| {
            var expected: [Hmac.mac_length]u8 = undefined;
            Hmac.create(&expected, noise[0..length], noise[0..key_length]);
            try std.testing.expectEqual(expected, hash.of(noise[0..length]));
        }
    }
}
