//! Messages of logical replication as the plugin pgoutput writes them, protocol versions 1 and 2.
//! https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
//!
//!     Begin           'B' final:u64 time:i64 xid:u32
//!     Commit          'C' flags:u8 commit:u64 end:u64 time:i64
//!     Origin          'O' lsn:u64 name\0
//!     Relation        'R' [xid:u32] oid:u32 schema\0 name\0 identity:u8 n:u16 (flags:u8 name\0 type:u32 typmod:i32)…
//!     Type            'Y' [xid:u32] oid:u32 schema\0 name\0
//!     Insert          'I' [xid:u32] relation:u32 'N' tuple
//!     Update          'U' [xid:u32] relation:u32 ['K' or 'O' tuple] 'N' tuple
//!     Delete          'D' [xid:u32] relation:u32 'K' or 'O' tuple
//!     Truncate        'T' [xid:u32] n:u32 options:u8 (relation:u32)…
//!     Message         'M' [xid:u32] flags:u8 lsn:u64 prefix\0 n:u32 bytes…
//!     Stream Start    'S' xid:u32 first:u8           Stream Stop  'E'
//!     Stream Commit   'c' xid:u32 flags:u8 commit:u64 end:u64 time:i64
//!     Stream Abort    'A' xid:u32 subxid:u32
//!
//!     tuple           n:u16 ('n' | 'u' | 't' length:u32 text… | 'b' length:u32 bytes…)…
//!
//! `[xid]` stands between Stream Start and Stream Stop only. Times are microseconds since 2000-01-01 UTC. Nothing is
//! copied: what is told points into the message. Whatever comes, the answer is a message or `error.Protocol`.

const std = @import("std");
const sdk = @import("sdk");
const message = @import("message.zig");

const Body = message.Body;

pub const Error = Body.Error;

/// MaxTupleAttributeNumber: no row has more columns.
pub const columns_max = 1664;

pub const Begin = struct {
    /// Where the commit record starts.
    commit: u64,
    time: i64,
    xid: u32,
};

pub const Commit = struct {
    /// Where the commit record starts.
    commit: u64,
    /// Where it ends, which is where the next transaction can be read from.
    end: u64,
    time: i64,
};

pub const ReplicaIdentity = enum(u8) {
    default = 'd',
    nothing = 'n',
    full = 'f',
    index = 'i',
};

pub const Relation = struct {
    oid: u32,
    schema: []const u8,
    name: []const u8,
    identity: ReplicaIdentity,
    columns: u16,
    /// Of `columns` columns, for `Columns`.
    rest: []const u8,

    pub fn iterate(self: *const Relation) Columns {
        return .{ .body = .{ .rest = self.rest }, .left = self.columns };
    }
};

pub const Column = struct {
    /// Of what identifies a row: of every column where that is the whole row.
    is_key: bool,
    name: []const u8,
    type_oid: u32,
    typmod: i32,
};

pub const Columns = struct {
    body: Body,
    left: u16,

    pub fn next(self: *Columns) Error!?Column {
        if (self.left == 0) {
            try self.body.finish();
            return null;
        }
        self.left -= 1;
        return .{
            .is_key = try self.body.int(u8) & 1 != 0,
            .name = try self.body.string(),
            .type_oid = try self.body.int(u32),
            .typmod = try self.body.int(i32),
        };
    }
};

pub const Type = struct {
    oid: u32,
    schema: []const u8,
    name: []const u8,
};

pub const Change = struct {
    kind: Kind,
    relation: u32,
    /// Its tuples, for `Tuples`.
    rest: []const u8,

    pub const Kind = enum { insert, update, delete };
};

pub const Truncate = struct {
    /// For `relation`.
    oids: []const u8,

    pub fn count(self: Truncate) usize {
        return self.oids.len / 4;
    }

    pub fn relation(self: Truncate, i: usize) u32 {
        return std.mem.readInt(u32, self.oids[4 * i ..][0..4], .big);
    }
};

pub const StreamCommit = struct { xid: u32, commit: Commit };

pub const StreamAbort = struct {
    xid: u32,
    /// Equal to `xid` where all of the transaction is undone.
    subxid: u32,
};

pub const Message = union(enum) {
    begin: Begin,
    commit: Commit,
    relation: Relation,
    type: Type,
    change: Change,
    truncate: Truncate,
    /// The transaction's.
    stream_start: u32,
    stream_stop,
    stream_commit: StreamCommit,
    stream_abort: StreamAbort,
    /// An origin, or a message that somebody wrote: nothing about rows.
    other,
};

pub const Parsed = struct {
    /// Of the transaction or subtransaction whose message it is; 0 outside of streams.
    xid: u32,
    message: Message,
};

/// One message, whole. `in_stream`: between Stream Start and Stream Stop.
pub fn parse(bytes: []const u8, in_stream: bool) Error!Parsed {
    var body: Body = .{ .rest = bytes };
    const tag = try body.int(u8);
    const xid = switch (tag) {
        'R', 'Y', 'I', 'U', 'D', 'T', 'M' => if (in_stream) try body.int(u32) else 0,
        else => 0,
    };
    return .{
        .xid = xid,
        .message = switch (tag) {
            'I' => .{ .change = try change(.insert, body) },
            'U' => .{ .change = try change(.update, body) },
            'D' => .{ .change = try change(.delete, body) },
            'B' => blk: {
                const begin: Begin = .{ .commit = try body.int(u64), .time = try body.int(i64), .xid = try body.int(u32) };
                try body.finish();
                break :blk .{ .begin = begin };
            },
            'C' => .{ .commit = try commitOf(&body) },
            'R' => blk: {
                const oid = try body.int(u32);
                const schema = try body.string();
                const name = try body.string();
                const identity = std.enums.fromInt(ReplicaIdentity, try body.int(u8)) orelse return error.Protocol;
                const columns = try body.int(u16);
                if (columns > columns_max) return error.Protocol;
                break :blk .{ .relation = .{
                    .oid = oid,
                    .schema = if (schema.len == 0) "pg_catalog" else schema,
                    .name = name,
                    .identity = identity,
                    .columns = columns,
                    .rest = body.rest,
                } };
            },
            'Y' => blk: {
                const oid = try body.int(u32);
                const schema = try body.string();
                const name = try body.string();
                try body.finish();
                break :blk .{ .type = .{ .oid = oid, .schema = if (schema.len == 0) "pg_catalog" else schema, .name = name } };
            },
            'T' => blk: {
                const count = try body.int(u32);
                _ = try body.int(u8); // CASCADE, RESTART IDENTITY
                if (count != body.rest.len / 4 or body.rest.len % 4 != 0) return error.Protocol;
                break :blk .{ .truncate = .{ .oids = body.rest } };
            },
            'S' => blk: {
                const started = try body.int(u32);
                _ = try body.int(u8); // whether it is the transaction's first
                try body.finish();
                break :blk .{ .stream_start = started };
            },
            'E' => blk: {
                try body.finish();
                break :blk .stream_stop;
            },
            'c' => blk: {
                const committed = try body.int(u32);
                break :blk .{ .stream_commit = .{ .xid = committed, .commit = try commitOf(&body) } };
            },
            'A' => blk: {
                const aborted: StreamAbort = .{ .xid = try body.int(u32), .subxid = try body.int(u32) };
                try body.finish();
                break :blk .{ .stream_abort = aborted };
            },
            'O', 'M' => .other,
            else => return error.Protocol,
        },
    };
}

inline fn change(kind: Change.Kind, begun: Body) Error!Change {
    var body = begun;
    return .{ .kind = kind, .relation = try body.int(u32), .rest = body.rest };
}

fn commitOf(body: *Body) Error!Commit {
    _ = try body.int(u8); // flags, none so far
    const commit: Commit = .{ .commit = try body.int(u64), .end = try body.int(u64), .time = try body.int(i64) };
    try body.finish();
    return commit;
}

pub const Field = struct {
    form: Form,
    /// Of a value that is told.
    bytes: []const u8 = "",

    pub const Form = enum(u8) {
        null = 'n',
        /// Stored out of line, not changed and not told.
        unchanged = 'u',
        text = 't',
        binary = 'b',

        pub fn isTold(form: Form) bool {
            return form == .text or form == .binary;
        }
    };
};

/// What a tuple is.
pub const Role = enum(u8) {
    /// The row as it is now.
    new = 'N',
    /// What identified it; NULL elsewhere.
    key = 'K',
    /// All of it as it was.
    old = 'O',
};

/// The tuples of one change, one after the other.
pub const Tuples = struct {
    rest: []const u8,

    /// Of a change of which there is only the beginning: the fields of its first tuple that are there.
    pub fn begun(self: *const Tuples, fields: []Field) []const Field {
        const bytes = self.rest;
        if (bytes.len < 3 or std.mem.readInt(u16, bytes[1..3], .big) != fields.len) return &.{};
        var at: usize = 3;
        for (fields, 0..) |*field, i| {
            if (at >= bytes.len) return fields[0..i];
            const form = std.enums.fromInt(Field.Form, bytes[at]) orelse return fields[0..i];
            at += 1;
            field.* = .{ .form = form };
            if (!form.isTold()) continue;
            if (bytes.len - at < 4) return fields[0..i];
            const length = std.mem.readInt(u32, bytes[at..][0..4], .big);
            at += 4;
            if (length > bytes.len - at) return fields[0..i];
            field.bytes = bytes[at..][0..length];
            at += length;
        }
        return fields;
    }

    /// Fills `fields`, one for each column of the relation.
    pub fn next(self: *Tuples, fields: []Field) Error!Role {
        const bytes = self.rest;
        if (bytes.len < 3) return error.Protocol;
        const role = std.enums.fromInt(Role, bytes[0]) orelse return error.Protocol;
        if (std.mem.readInt(u16, bytes[1..3], .big) != fields.len) return error.Protocol;
        var at: usize = 3;
        for (fields) |*field| {
            if (at >= bytes.len) return error.Protocol;
            const form = bytes[at];
            at += 1;
            switch (form) {
                'b', 't' => {
                    if (bytes.len - at < 4) return error.Protocol;
                    const length = std.mem.readInt(u32, bytes[at..][0..4], .big);
                    at += 4;
                    if (length > bytes.len - at) return error.Protocol;
                    field.* = .{ .form = if (form == 'b') .binary else .text, .bytes = bytes[at..][0..length] };
                    at += length;
                },
                'n' => field.* = .{ .form = .null },
                'u' => field.* = .{ .form = .unchanged },
                else => return error.Protocol,
            }
        }
        self.rest = bytes[at..];
        return role;
    }

    pub fn finish(self: *const Tuples) Error!void {
        if (self.rest.len != 0) return error.Protocol;
    }
};

// What PostgreSQL 18 sent, for the tests here and of those who read such messages.
pub const samples = struct {
    pub const begin = "B\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x02\xf0\x1c\x8a\x3c\x5d\x60\x00\x00\x02\xe5";
    pub const commit = "C\x00\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x00\x00\x00\x01\x6b\x37\x78\x00\x02\xf0\x1c\x8a\x3c\x5d\x60";
    pub const relation = "R\x00\x00\x40\x05public\x00t\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff" ++
        "\x00note\x00\x00\x00\x00\x19\xff\xff\xff\xff";
    pub const insert = "I\x00\x00\x40\x05N\x00\x02t\x00\x00\x00\x017n";
    pub const update = "U\x00\x00\x40\x05K\x00\x02b\x00\x00\x00\x04\x00\x00\x00\x07n" ++ "N\x00\x02b\x00\x00\x00\x04\x00\x00\x00\x08u";
    pub const delete = "D\x00\x00\x40\x05O\x00\x02t\x00\x00\x00\x018t\x00\x00\x00\x02ab";
    pub const truncate = "T\x00\x00\x00\x02\x01\x00\x00\x40\x05\x00\x00\x40\x0a";
    pub const all = [_][]const u8{
        begin,                                         commit,                          relation,                                                            insert,                  update, delete,                              truncate,
        "O\x00\x00\x00\x00\x00\x00\x00\x01origin\x00", "Y\x00\x00\x40\x02\x00mood\x00", "M\x01\x00\x00\x00\x00\x01\x6b\x37\x48prefix\x00\x00\x00\x00\x02hi", "S\x00\x00\x02\xe5\x01", "E",    "A\x00\x00\x02\xe5\x00\x00\x02\xe6", "c\x00\x00\x02\xe5\x00\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x00\x00\x00\x01\x6b\x37\x78\x00\x02\xf0\x1c\x8a\x3c\x5d\x60",
    };
};

test "a transaction's messages say what was committed where" {
    const expect = std.testing.expectEqual;
    const begin = (try parse(samples.begin, false)).message.begin;
    try expect(Begin{ .commit = 0x16b3748, .time = 826955322383712, .xid = 741 }, begin);
    const commit = (try parse(samples.commit, false)).message.commit;
    try expect(Commit{ .commit = 0x16b3748, .end = 0x16b3778, .time = begin.time }, commit);
    for (samples.all[7..]) |bytes| _ = try parse(bytes, false);
    const streamed = (try parse(samples.all[13], false)).message.stream_commit;
    try expect(StreamCommit{ .xid = 741, .commit = commit }, streamed);
    try expect(StreamAbort{ .xid = 741, .subxid = 742 }, (try parse(samples.all[12], false)).message.stream_abort);
}

test "a relation has its columns, and which of them identify a row" {
    const relation = (try parse(samples.relation, false)).message.relation;
    try std.testing.expectEqualStrings("public", relation.schema);
    try std.testing.expectEqualStrings("t", relation.name);
    try std.testing.expectEqual(ReplicaIdentity.default, relation.identity);
    var columns = relation.iterate();
    try std.testing.expectEqualDeep(Column{ .is_key = true, .name = "id", .type_oid = 23, .typmod = -1 }, (try columns.next()).?);
    try std.testing.expectEqualDeep(Column{ .is_key = false, .name = "note", .type_oid = 25, .typmod = -1 }, (try columns.next()).?);
    try std.testing.expectEqual(null, try columns.next());
}

test "a change has its rows before and after, each value in the form that it came in" {
    var fields: [2]Field = undefined;
    const update = (try parse(samples.update, false)).message.change;
    try std.testing.expectEqual(Change.Kind.update, update.kind);
    try std.testing.expectEqual(0x4005, update.relation);
    var tuples: Tuples = .{ .rest = update.rest };
    try std.testing.expectEqual(Role.key, try tuples.next(&fields));
    try std.testing.expectEqualDeep([2]Field{ .{ .form = .binary, .bytes = "\x00\x00\x00\x07" }, .{ .form = .null } }, fields);
    try std.testing.expectEqual(Role.new, try tuples.next(&fields));
    try std.testing.expectEqualDeep([2]Field{ .{ .form = .binary, .bytes = "\x00\x00\x00\x08" }, .{ .form = .unchanged } }, fields);
    try tuples.finish();

    const delete = (try parse(samples.delete, false)).message.change;
    tuples = .{ .rest = delete.rest };
    try std.testing.expectEqual(Role.old, try tuples.next(&fields));
    try std.testing.expectEqualDeep([2]Field{ .{ .form = .text, .bytes = "8" }, .{ .form = .text, .bytes = "ab" } }, fields);

    var one: [1]Field = undefined;
    tuples = .{ .rest = delete.rest };
    try std.testing.expectError(error.Protocol, tuples.next(&one));
}

test "inside a stream every message of a change names its transaction" {
    const streamed = "I\x00\x00\x02\xe6" ++ samples.insert[1..];
    const parsed = try parse(streamed, true);
    try std.testing.expectEqual(742, parsed.xid);
    try std.testing.expectEqual(0x4005, parsed.message.change.relation);
    const truncate = (try parse(samples.truncate, false)).message.truncate;
    try std.testing.expectEqual(2, truncate.count());
    try std.testing.expectEqual(0x400a, truncate.relation(1));
}

test "a message cut short anywhere is told" {
    for (samples.all) |bytes| {
        const whole = switch ((try parse(bytes, false)).message) {
            .other => continue, // not looked into
            else => bytes,
        };
        for (0..whole.len) |length| try std.testing.expectError(error.Protocol, readAll(whole[0..length], false));
        try readAll(whole, false);
    }
}

test "any bytes are a message or an error" {
    try sdk.fuzz.bytes(fuzzMessage, &samples.all);
}

fn fuzzMessage(bytes: []const u8) anyerror!void {
    for ([_]bool{ false, true }) |in_stream| readAll(bytes, in_stream) catch |err| try std.testing.expectEqual(error.Protocol, err);
}

fn readAll(bytes: []const u8, in_stream: bool) Error!void {
    switch ((try parse(bytes, in_stream)).message) {
        .relation => |relation| {
            var columns = relation.iterate();
            while (try columns.next()) |_| {}
        },
        .change => |each| {
            var fields: [2]Field = undefined;
            var tuples: Tuples = .{ .rest = each.rest };
            const first = try tuples.next(&fields);
            if (each.kind == .update and first != .new) _ = try tuples.next(&fields);
            try tuples.finish();
        },
        .truncate => |truncate| for (0..truncate.count()) |i| {
            _ = truncate.relation(i);
        },
        else => {},
    }
}
