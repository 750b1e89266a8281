//! The protocol's messages, to the server and from it.
//! https://www.postgresql.org/docs/current/protocol-message-formats.html
//!
//!     to the server
//!       Query        'Q' sql\0
//!       Parse        'P' name\0 sql\0 n:i16 (oid:i32)…
//!       Bind         'B' portal\0 statement\0 f:i16 (i16)… n:i16 (length:i32 bytes)… r:i16 (i16)…
//!       Describe     'D' 'P' portal\0
//!       Execute      'E' portal\0 rows:i32
//!       Sync         'S'        Terminate 'X'
//!       CopyData     'd' bytes  CopyDone  'c'  CopyFail 'f' reason\0
//!
//!     from the server
//!       RowDescription   'T' n:i16 (name\0 table:i32 column:i16 type:i32 size:i16 typmod:i32 format:i16)…
//!       DataRow          'D' n:i16 (length:i32 bytes)…             length -1 = NULL
//!       CommandComplete  'C' tag\0
//!       ReadyForQuery    'Z' status:u8                             I idle, T in a transaction, E in a failed one
//!       CopyOutResponse  'H' format:u8 n:i16 (format:i16)…         CopyInResponse 'G', CopyBothResponse 'W' the same
//!       ErrorResponse    'E', NoticeResponse 'N'                   server_error.zig
//!       ParameterStatus  'S' name\0 value\0

const std = @import("std");

const Allocator = std.mem.Allocator;

/// Tags of messages from the server.
pub const tag = struct {
    pub const authentication = 'R';
    pub const backend_key_data = 'K';
    pub const bind_complete = '2';
    pub const command_complete = 'C';
    pub const copy_both_response = 'W';
    pub const copy_data = 'd';
    pub const copy_done = 'c';
    pub const copy_in_response = 'G';
    pub const copy_out_response = 'H';
    pub const data_row = 'D';
    pub const empty_query = 'I';
    pub const error_response = 'E';
    pub const negotiate_version = 'v';
    pub const no_data = 'n';
    pub const notice = 'N';
    pub const notification = 'A';
    pub const parameter_status = 'S';
    pub const parse_complete = '1';
    pub const ready_for_query = 'Z';
    pub const row_description = 'T';
};

pub const protocol_version: u32 = 3 << 16;
/// In place of a version: "may I speak TLS?". The server answers with one byte, 'S' or 'N'.
pub const ssl_request = "\x00\x00\x00\x08\x04\xd2\x16\x2f";

/// Builds messages one behind the other, to be sent at once.
pub const Writer = struct {
    gpa: Allocator,
    bytes: *std.ArrayList(u8),
    /// Where the open message's length goes.
    length_at: usize = 0,

    pub fn begin(self: *Writer, message_tag: ?u8) Allocator.Error!void {
        if (message_tag) |byte| try self.bytes.append(self.gpa, byte);
        self.length_at = self.bytes.items.len;
        try self.bytes.appendNTimes(self.gpa, 0, 4);
    }

    pub fn end(self: *Writer) void {
        const length: u32 = @intCast(self.bytes.items.len - self.length_at);
        std.mem.writeInt(u32, self.bytes.items[self.length_at..][0..4], length, .big);
    }

    pub fn raw(self: *Writer, text: []const u8) Allocator.Error!void {
        try self.bytes.appendSlice(self.gpa, text);
    }

    /// Text with its final zero; the caller has made sure that there is none inside.
    pub fn string(self: *Writer, text: []const u8) Allocator.Error!void {
        std.debug.assert(std.mem.findScalar(u8, text, 0) == null);
        try self.bytes.appendSlice(self.gpa, text);
        try self.bytes.append(self.gpa, 0);
    }

    pub fn int(self: *Writer, comptime T: type, value: T) Allocator.Error!void {
        var buffer: [@sizeOf(T)]u8 = undefined;
        std.mem.writeInt(T, &buffer, value, .big);
        try self.bytes.appendSlice(self.gpa, &buffer);
    }

    /// Whole messages of the simple and the extended query.
    pub fn query(self: *Writer, sql: []const u8) Allocator.Error!void {
        try self.begin('Q');
        try self.string(sql);
        self.end();
    }

    /// Parse, Bind, Describe, Execute and Sync of the unnamed statement: parameters and results as text.
    pub fn extendedQuery(self: *Writer, sql: []const u8, parameters: []const ?[]const u8) Allocator.Error!void {
        try self.begin('P');
        try self.raw("\x00");
        try self.string(sql);
        try self.int(i16, 0);
        self.end();

        try self.begin('B');
        try self.raw("\x00\x00");
        try self.int(i16, 0);
        try self.int(i16, @intCast(parameters.len));
        for (parameters) |parameter| {
            if (parameter) |text| {
                try self.int(i32, @intCast(text.len));
                try self.raw(text);
            } else try self.int(i32, -1);
        }
        try self.int(i16, 0);
        self.end();

        try self.begin('D');
        try self.raw("P\x00");
        self.end();

        try self.begin('E');
        try self.raw("\x00");
        try self.int(i32, 0);
        self.end();

        try self.begin('S');
        self.end();
    }
};

/// Takes a message's body apart. Running past its end is `error.Protocol`, never a panic.
pub const Body = struct {
    rest: []const u8,

    pub const Error = error{Protocol};

    pub fn int(self: *Body, comptime T: type) Error!T {
        const size = @sizeOf(T);
        if (self.rest.len < size) return error.Protocol;
        defer self.rest = self.rest[size..];
        return std.mem.readInt(T, self.rest[0..size], .big);
    }

    pub fn bytes(self: *Body, count: usize) Error![]const u8 {
        if (self.rest.len < count) return error.Protocol;
        defer self.rest = self.rest[count..];
        return self.rest[0..count];
    }

    pub fn string(self: *Body) Error![]const u8 {
        const length = std.mem.findScalar(u8, self.rest, 0) orelse return error.Protocol;
        defer self.rest = self.rest[length + 1 ..];
        return self.rest[0..length];
    }

    /// A DataRow's or Bind's value: a length and that many bytes, or -1 for NULL.
    pub fn value(self: *Body) Error!?[]const u8 {
        const length = try self.int(i32);
        if (length == -1) return null;
        if (length < 0) return error.Protocol;
        return try self.bytes(@intCast(length));
    }

    pub fn finish(self: *Body) Error!void {
        if (self.rest.len != 0) return error.Protocol;
    }
};

/// The number at the end of a command tag: `COPY 12`, `INSERT 0 12`. Null when there is none.
pub fn rowsOf(command_tag: []const u8) ?u64 {
    const space = std.mem.findScalarLast(u8, command_tag, ' ') orelse return null;
    return std.fmt.parseInt(u64, command_tag[space + 1 ..], 10) catch null;
}

test "an extended query is five messages" {
    const gpa = std.testing.allocator;
    var bytes: std.ArrayList(u8) = .empty;
    defer bytes.deinit(gpa);
    var writer: Writer = .{ .gpa = gpa, .bytes = &bytes };
    try writer.extendedQuery("select $1", &.{ "ab", null });
    try std.testing.expectEqualSlices(u8, "P\x00\x00\x00\x11\x00select $1\x00\x00\x00" ++
        "B\x00\x00\x00\x16\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02ab\xff\xff\xff\xff\x00\x00" ++
        "D\x00\x00\x00\x06P\x00" ++ "E\x00\x00\x00\x09\x00\x00\x00\x00\x00" ++ "S\x00\x00\x00\x04", bytes.items);
}

test "a body that ends early is a protocol error" {
    var body: Body = .{ .rest = "\x00\x00\x00\x03ab" };
    try std.testing.expectError(error.Protocol, body.value());
    body = .{ .rest = "\xff\xff\xff\xfe" };
    try std.testing.expectError(error.Protocol, body.value());
    body = .{ .rest = "no end" };
    try std.testing.expectError(error.Protocol, body.string());
    body = .{ .rest = "\x00" };
    try std.testing.expectError(error.Protocol, body.int(i16));
}

test "a command tag tells how many rows" {
    try std.testing.expectEqual(12, rowsOf("COPY 12").?);
    try std.testing.expectEqual(3, rowsOf("INSERT 0 3").?);
    try std.testing.expectEqual(null, rowsOf("BEGIN"));
}
