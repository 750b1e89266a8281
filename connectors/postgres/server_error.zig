//! What the server says in ErrorResponse and NoticeResponse.
//!
//!     ┌───────────┬───────────┬───┬───────────┬───────────┬───┬─────┐
//!     │ code (u8) │ text …    │ 0 │ code (u8) │ text …    │ 0 │ … 0 │
//!     └───────────┴───────────┴───┴───────────┴───────────┴───┴─────┘
//!
//! https://www.postgresql.org/docs/current/protocol-error-fields.html

const std = @import("std");
const sdk = @import("sdk");

pub const ServerError = struct {
    /// `ERROR`, `FATAL`, `PANIC`, or a notice's; never translated.
    severity: []const u8 = "ERROR",
    sqlstate: []const u8 = "XX000",
    message: []const u8 = "",
    detail: ?[]const u8 = null,
    hint: ?[]const u8 = null,
    /// The call stack of the server, COPY's line and column among it.
    where: ?[]const u8 = null,
    schema: ?[]const u8 = null,
    table: ?[]const u8 = null,
    column: ?[]const u8 = null,
    data_type: ?[]const u8 = null,
    constraint: ?[]const u8 = null,

    /// Slices of `body`. Null when it is not a list of fields as drawn above.
    pub fn parse(body: []const u8) ?ServerError {
        var self: ServerError = .{};
        var rest = body;
        while (rest.len > 0) {
            const code = rest[0];
            rest = rest[1..];
            if (code == 0) return if (rest.len == 0) self else null;
            const end = std.mem.findScalar(u8, rest, 0) orelse return null;
            const text = rest[0..end];
            rest = rest[end + 1 ..];
            switch (code) {
                'S' => {}, // the translated severity; 'V' follows since 9.6
                'V' => self.severity = text,
                'C' => self.sqlstate = text,
                'M' => self.message = text,
                'D' => self.detail = text,
                'H' => self.hint = text,
                'W' => self.where = text,
                's' => self.schema = text,
                't' => self.table = text,
                'c' => self.column = text,
                'd' => self.data_type = text,
                'n' => self.constraint = text,
                else => {}, // "frontends should silently ignore fields of unrecognized type"
            }
        }
        return null;
    }

    /// A copy that lives as long as `arena`.
    pub fn dupe(self: ServerError, arena: std.mem.Allocator) error{OutOfMemory}!ServerError {
        var copy = self;
        inline for (@typeInfo(ServerError).@"struct".field_names) |name| {
            const field = &@field(copy, name);
            if (@TypeOf(field.*) == []const u8) {
                field.* = try arena.dupe(u8, field.*);
            } else if (field.*) |text| {
                field.* = try arena.dupe(u8, text);
            }
        }
        return copy;
    }

    /// Whether the session is over with it.
    pub fn isFatal(self: ServerError) bool {
        return std.mem.eql(u8, self.severity, "FATAL") or std.mem.eql(u8, self.severity, "PANIC");
    }

    pub fn hasClass(self: ServerError, class: []const u8) bool {
        return std.mem.startsWith(u8, self.sqlstate, class);
    }
};

// SELECT 1/0
const golden = "SERROR\x00VERROR\x00C22012\x00Mdivision by zero\x00Fint.c\x00L875\x00Rint4div\x00\x00";

test "fields are found by their code" {
    const parsed = ServerError.parse(golden).?;
    try std.testing.expectEqualStrings("22012", parsed.sqlstate);
    try std.testing.expectEqualStrings("division by zero", parsed.message);
    try std.testing.expectEqual(null, parsed.detail);
    try std.testing.expect(!parsed.isFatal());
    try std.testing.expect(parsed.hasClass("22"));
}

test "an error cut short anywhere is not an error message" {
    for (0..golden.len) |length| try std.testing.expectEqual(null, ServerError.parse(golden[0..length]));
}

test "any bytes are fields or none" {
    try sdk.fuzz.bytes(fuzzFields, &.{golden});
}

fn fuzzFields(bytes: []const u8) anyerror!void {
    const parsed = ServerError.parse(bytes) orelse return;
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    try std.testing.expectEqualStrings(parsed.message, (try parsed.dupe(arena.allocator())).message);
}
