//! SCRAM-SHA-256, the client's side. https://www.rfc-editor.org/rfc/rfc5802 and rfc7677
//!
//!     client-first   n,,n=,r=<client nonce>                                   (PostgreSQL takes the user from startup)
//!     server-first   r=<client nonce + server nonce>,s=<salt, base64>,i=<iterations>
//!     client-final   c=biws,r=<nonce>,p=<ClientProof, base64>
//!     server-final   v=<ServerSignature, base64>      or  e=<error>
//!
//! Channel binding is not offered ("n"): the host holds the TLS connection and its certificate, the guest cannot see
//! them. Passwords are used as they are; for ASCII that is what SASLprep makes of them. One with other characters
//! works when it was typed in composed form, as keyboards do.

const std = @import("std");
const sdk = @import("sdk");
const Sha256 = std.crypto.hash.sha2.Sha256;
const HmacSha256 = std.crypto.auth.hmac.sha2.HmacSha256;
const base64 = std.base64.standard;

pub const mechanism = "SCRAM-SHA-256";
/// Random bytes behind the client's nonce, as many as libpq uses.
pub const nonce_bytes = 18;
/// PostgreSQL's default is 4,096 (7 ms in the sandbox). A server that asks for far more would keep the guest busy.
pub const iterations_max = 10_000_000;
/// Longest message of the server's that makes sense, in bytes.
const message_bytes_max = 4096;

const gs2_header = "n,,";
const nonce_text_bytes = base64.Encoder.calcSize(nonce_bytes);

pub const Error = error{
    /// Not a message as drawn above.
    Malformed,
    /// The nonce does not begin with ours.
    WrongNonce,
    TooManyIterations,
    /// The server does not know the password either: it only pretends to be the server.
    WrongSignature,
    /// The server said `e=`.
    Refused,
};

pub const Client = struct {
    password: []const u8,
    /// Base64 of the random bytes, or what a test gives.
    nonce: []const u8,
    user: []const u8 = "",
    server_signature: [Sha256.digest_length]u8 = undefined,
    buffer: [2 * message_bytes_max]u8 = undefined,

    pub fn encodeNonce(random: *const [nonce_bytes]u8, out: *[nonce_text_bytes]u8) []const u8 {
        return base64.Encoder.encode(out, random);
    }
    pub const NonceText = [nonce_text_bytes]u8;

    /// Valid until the next call.
    pub fn first(self: *Client) []const u8 {
        return std.fmt.bufPrint(
            &self.buffer,
            gs2_header ++ "n={s},r={s}",
            .{ self.user, self.nonce },
        ) catch unreachable;
    }

    /// Valid until the next call.
    pub fn final(self: *Client, server_first: []const u8) Error![]const u8 {
        if (server_first.len > message_bytes_max) return error.Malformed;
        var attributes = std.mem.splitScalar(u8, server_first, ',');
        const nonce = try attribute(&attributes, 'r');
        const salt_text = try attribute(&attributes, 's');
        const iterations_text = try attribute(&attributes, 'i');
        if (!std.mem.startsWith(u8, nonce, self.nonce) or nonce.len == self.nonce.len) return error.WrongNonce;
        const iterations = std.fmt.parseInt(u32, iterations_text, 10) catch return error.Malformed;
        if (iterations == 0) return error.Malformed;
        if (iterations > iterations_max) return error.TooManyIterations;
        var salt_buffer: [message_bytes_max]u8 = undefined;
        const salt_bytes = base64.Decoder.calcSizeForSlice(salt_text) catch return error.Malformed;
        const salt = salt_buffer[0..salt_bytes];
        base64.Decoder.decode(salt, salt_text) catch return error.Malformed;

        var salted: [Sha256.digest_length]u8 = undefined;
        std.crypto.pwhash.pbkdf2(&salted, self.password, salt, iterations, HmacSha256) catch return error.Malformed;

        // AuthMessage = client-first-bare "," server-first "," client-final-without-proof
        const without_proof = std.fmt.bufPrint(&self.buffer, "c=biws,r={s}", .{nonce}) catch unreachable;
        const client_key = hmac(&salted, &.{"Client Key"});
        var stored_key: [Sha256.digest_length]u8 = undefined;
        Sha256.hash(&client_key, &stored_key, .{});
        const parts = [_][]const u8{ "n=", self.user, ",r=", self.nonce, ",", server_first, ",", without_proof };
        var proof = hmac(&stored_key, &parts);
        for (&proof, client_key) |*byte, key_byte| byte.* ^= key_byte;
        self.server_signature = hmac(&hmac(&salted, &.{"Server Key"}), &parts);

        var proof_text: [base64.Encoder.calcSize(proof.len)]u8 = undefined;
        _ = base64.Encoder.encode(&proof_text, &proof);
        const start = without_proof.len;
        const tail = std.fmt.bufPrint(self.buffer[start..], ",p={s}", .{proof_text}) catch unreachable;
        return self.buffer[0 .. start + tail.len];
    }

    /// Whether the server proved that it knows the password.
    pub fn verify(self: *const Client, server_final: []const u8) Error!void {
        var attributes = std.mem.splitScalar(u8, server_final, ',');
        if (std.mem.startsWith(u8, server_final, "e=")) return error.Refused;
        const text = try attribute(&attributes, 'v');
        var signature: [Sha256.digest_length]u8 = undefined;
        const size = base64.Decoder.calcSizeForSlice(text) catch return error.Malformed;
        if (size != signature.len) return error.WrongSignature;
        base64.Decoder.decode(&signature, text) catch return error.Malformed;
        if (!std.crypto.timing_safe.eql(
            [Sha256.digest_length]u8,
            signature,
            self.server_signature,
        )) return error.WrongSignature;
    }
};

fn attribute(attributes: *std.mem.SplitIterator(u8, .scalar), name: u8) Error![]const u8 {
    const part = attributes.next() orelse return error.Malformed;
    if (part.len < 2 or part[0] != name or part[1] != '=') return error.Malformed;
    return part[2..];
}

fn hmac(key: []const u8, parts: []const []const u8) [HmacSha256.mac_length]u8 {
    var state: HmacSha256 = .init(key);
    for (parts) |part| state.update(part);
    var out: [HmacSha256.mac_length]u8 = undefined;
    state.final(&out);
    return out;
}

// RFC 7677, section 3
const vector = struct {
    const server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const client_final = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," ++
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    fn client() Client {
        return .{ .user = "user", .password = "pencil", .nonce = "rOprNGfwEbeRWgbNEkqO" };
    }
};

test "the exchange of RFC 7677" {
    var client = vector.client();
    try std.testing.expectEqualStrings("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", client.first());
    try std.testing.expectEqualStrings(vector.client_final, try client.final(vector.server_first));
    try client.verify(vector.server_final);
}

test "a server that does not know the password is found out" {
    var client = vector.client();
    _ = try client.final(vector.server_first);
    try std.testing.expectError(error.WrongSignature, client.verify("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    try std.testing.expectError(error.WrongSignature, client.verify("v="));
    try std.testing.expectError(error.Refused, client.verify("e=other-error"));
    try std.testing.expectError(error.Malformed, client.verify(""));
}

test "a server-first message that is not one is refused" {
    const cases = [_]struct { Error, []const u8 }{
        .{ error.Malformed, "" },
        .{ error.Malformed, "r=rOprNGfwEbeRWgbNEkqOx" },
        .{ error.Malformed, "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=1" },
        .{ error.Malformed, "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=0" },
        .{ error.Malformed, "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=-5" },
        .{ error.WrongNonce, "r=somebody else's,s=AAAA,i=1" },
        .{ error.WrongNonce, "r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=1" },
        .{ error.TooManyIterations, "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4000000000" },
    };
    for (cases) |case| {
        var client = vector.client();
        try std.testing.expectError(case[0], client.final(case[1]));
    }
}

test "any message of a server ends in an answer or an error" {
    try sdk.fuzz.bytes(fuzzExchange, &.{ "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1", vector.server_final, "e=x" });
}

fn fuzzExchange(bytes: []const u8) anyerror!void {
    // The iteration count stays small, or a run would only hash.
    if (std.mem.find(u8, bytes, "i=")) |at| if (bytes.len - at > 4) return;
    var client = vector.client();
    _ = client.final(bytes) catch {};
    client.verify(bytes) catch {};
}
