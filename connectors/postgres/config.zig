//! How to reach a server, from the connector's `config` object.

const std = @import("std");
const sdk = @import("sdk");

pub const SslMode = enum {
    disable,
    prefer,
    require,
    @"verify-ca",
    @"verify-full",
};

pub const Config = struct {
    /// A name, an address, or (starting with `/`) the directory of a unix socket.
    host: []const u8,
    port: u16 = 5432,
    user: []const u8,
    password: ?[]const u8 = null,
    database: []const u8,
    /// Where tables are looked for unless a stream says otherwise.
    schema: []const u8 = "public",
    sslmode: SslMode = .prefer,
    sslrootcert: ?[]const u8 = null,
    sslcert: ?[]const u8 = null,
    sslkey: ?[]const u8 = null,
    /// What `pg_stat_activity` shows. PostgreSQL keeps 63 bytes of it.
    application_name: []const u8 = "rapidbyte",
    /// A connection of the server's WAL sender: it takes replication commands, and SQL as simple queries only. Not of the
    /// config: what the connection is for.
    replication: bool = false,

    /// Slices of `value`. The host has validated `value` against the manifest's schema; this checks again what the
    /// protocol depends on, as a module may be run by another host.
    pub fn fromJson(value: std.json.Value) sdk.errors.Failed!Config {
        if (value != .object) return sdk.errors.fail(.config, "config must be an object", .{});
        const object = value.object;
        var config: Config = .{
            .host = try text(object, "host") orelse return missing("host"),
            .user = try text(object, "user") orelse return missing("user"),
            .database = try text(object, "database") orelse return missing("database"),
            .password = try text(object, "password"),
            .sslrootcert = try text(object, "sslrootcert"),
            .sslcert = try text(object, "sslcert"),
            .sslkey = try text(object, "sslkey"),
        };
        if (try text(object, "schema")) |schema| config.schema = schema;
        if (object.get("port")) |port| config.port = try portFrom(port);
        if (try text(object, "sslmode")) |mode| {
            config.sslmode = std.meta.stringToEnum(SslMode, mode) orelse
                return sdk.errors.fail(.config, "sslmode is disable, prefer, require, verify-ca or verify-full", .{});
        }
        if (config.sslmode == .@"verify-ca" or config.sslmode == .@"verify-full") {
            if (config.isUnixSocket()) return sdk.errors.failHinted(
                .config,
                "set sslmode to disable or prefer: a unix socket has no TLS",
                "sslmode {t} needs a TCP host",
                .{config.sslmode},
            );
        }
        return config;
    }

    /// The same with texts of its own, in `arena`.
    pub fn dupe(self: Config, arena: std.mem.Allocator) std.mem.Allocator.Error!Config {
        var copy = self;
        inline for (@typeInfo(Config).@"struct".field_names) |name| switch (@TypeOf(@field(self, name))) {
            []const u8 => @field(copy, name) = try arena.dupe(u8, @field(self, name)),
            ?[]const u8 => if (@field(self, name)) |present| {
                @field(copy, name) = try arena.dupe(u8, present);
            },
            else => {},
        };
        return copy;
    }

    pub fn isUnixSocket(self: Config) bool {
        return std.mem.startsWith(u8, self.host, "/");
    }

    /// Null and absent are the same. A NUL would end the value early in the startup packet.
    fn text(object: std.json.ObjectMap, comptime key: []const u8) sdk.errors.Failed!?[]const u8 {
        const value = object.get(key) orelse return null;
        switch (value) {
            .null => return null,
            .string => |string| {
                if (string.len == 0 and !std.mem.eql(u8, key, "password"))
                    return sdk.errors.fail(.config, "{s} is empty", .{key});
                if (std.mem.findScalar(u8, string, 0) != null)
                    return sdk.errors.fail(.config, "{s} holds a NUL character", .{key});
                return string;
            },
            else => return sdk.errors.fail(.config, "{s} must be text", .{key}),
        }
    }

    /// A number, or its digits: what an environment variable expands to is text.
    fn portFrom(value: std.json.Value) sdk.errors.Failed!u16 {
        const port: ?u16 = switch (value) {
            .null => return 5432,
            .integer => |number| std.math.cast(u16, number),
            .string => |digits| std.fmt.parseInt(u16, digits, 10) catch null,
            else => null,
        };
        if (port == null or port.? == 0) return sdk.errors.fail(.config, "port must be between 1 and 65535", .{});
        return port.?;
    }

    fn missing(comptime key: []const u8) sdk.errors.Failed {
        return sdk.errors.fail(.config, "config lacks {s}", .{key});
    }
};

fn parseForTest(json: []const u8, parsed: *?std.json.Parsed(std.json.Value)) !Config {
    parsed.* = try std.json.parseFromSlice(std.json.Value, std.testing.allocator, json, .{});
    return Config.fromJson(parsed.*.?.value);
}

test "a config has defaults, and a port may come as digits from the environment" {
    var parsed: ?std.json.Parsed(std.json.Value) = null;
    defer if (parsed) |p| p.deinit();
    const config = try parseForTest(
        \\{"host": "db", "port": "5433", "user": "etl", "database": "shop", "sslmode": "verify-full"}
    , &parsed);
    try std.testing.expectEqual(5433, config.port);
    try std.testing.expectEqual(SslMode.@"verify-full", config.sslmode);
    try std.testing.expectEqualStrings("public", config.schema);
    try std.testing.expectEqual(null, config.password);
}

test "what the protocol cannot carry is refused by name" {
    const cases = [_]struct { []const u8, []const u8 }{
        .{ "{\"user\": \"a\", \"database\": \"b\"}", "config lacks host" },
        .{ "{\"host\": \"h\", \"user\": \"a\\u0000b\", \"database\": \"b\"}", "user holds a NUL character" },
        .{ "{\"host\": \"h\", \"user\": \"a\", \"database\": \"b\", \"port\": 0}", "port must be between 1 and 65535" },
        .{
            "{\"host\": \"/run\", \"user\": \"a\", \"database\": \"b\", \"sslmode\": \"verify-ca\"}",
            "sslmode verify-ca needs a TCP host",
        },
    };
    for (cases) |case| {
        defer sdk.errors.clear();
        var parsed: ?std.json.Parsed(std.json.Value) = null;
        defer if (parsed) |p| p.deinit();
        try std.testing.expectError(error.Failed, parseForTest(case[0], &parsed));
        try std.testing.expectEqualStrings(case[1], sdk.errors.current().?.message);
    }
}
