//! The Arrow types that cross between connectors, and the shape of a stream: fields, schema, custom metadata.
//!
//! Physical layouts: https://arrow.apache.org/docs/format/Columnar.html

const std = @import("std");

/// How deep lists may nest, the list's own level included. Bounds the recursion of every encoder and decoder.
pub const max_depth = 8;

/// The widest fixed-size value that is accepted, in bytes: a row of one such value still fits every batch limit.
pub const max_fixed_size = 64 * 1024;

pub const KeyValue = struct {
    key: []const u8,
    value: []const u8,
};

pub const Decimal = struct {
    /// Digits in all: 1 to 38 in 128 bits, 1 to 76 in 256 bits.
    precision: u8,
    /// Digits behind the point; the stored integer is the value times 10^scale.
    scale: i32,
};

pub const Timestamp = struct {
    /// True: an instant in UTC. False: a wall clock reading without zone. Always microseconds since 1970-01-01.
    utc: bool,
};

pub const Type = union(enum) {
    bool,
    int16,
    int32,
    int64,
    float32,
    float64,
    decimal128: Decimal,
    decimal256: Decimal,
    utf8,
    binary,
    /// Days since 1970-01-01 as i32.
    date32,
    timestamp: Timestamp,
    /// Microseconds since midnight as i64.
    time64,
    /// `MonthDayNano`, 16 bytes.
    interval_month_day_nano,
    /// Bytes per value.
    fixed_size_binary: u32,
    /// The field of the elements, by custom named "item".
    list: *const Field,

    /// How values lie in buffers, for those who only move bytes.
    pub const Layout = union(enum) {
        /// One bit per value.
        bits,
        /// That many bytes per value.
        fixed: u32,
        /// i32 offsets into bytes.
        bytes,
        /// i32 offsets into a child array.
        list,
    };

    pub fn layout(self: Type) Layout {
        return switch (self) {
            .bool => .bits,
            .int16 => .{ .fixed = 2 },
            .int32, .float32, .date32 => .{ .fixed = 4 },
            .int64, .float64, .timestamp, .time64 => .{ .fixed = 8 },
            .decimal128, .interval_month_day_nano => .{ .fixed = 16 },
            .decimal256 => .{ .fixed = 32 },
            .fixed_size_binary => |width| .{ .fixed = width },
            .utf8, .binary => .bytes,
            .list => .list,
        };
    }

    /// Structural equality; the names of list elements do not count.
    pub fn eql(a: Type, b: Type) bool {
        if (std.meta.activeTag(a) != std.meta.activeTag(b)) return false;
        return switch (a) {
            .decimal128 => |x| std.meta.eql(x, b.decimal128),
            .decimal256 => |x| std.meta.eql(x, b.decimal256),
            .timestamp => |x| x.utc == b.timestamp.utc,
            .fixed_size_binary => |x| x == b.fixed_size_binary,
            .list => |x| x.type.eql(b.list.type),
            else => true,
        };
    }

    /// As pyarrow prints it: `decimal128(12, 4)`, `timestamp[us, tz=UTC]`, `list<item: int64>`.
    pub fn format(self: Type, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (self) {
            .bool => try writer.writeAll("bool"),
            .int16 => try writer.writeAll("int16"),
            .int32 => try writer.writeAll("int32"),
            .int64 => try writer.writeAll("int64"),
            .float32 => try writer.writeAll("float"),
            .float64 => try writer.writeAll("double"),
            .decimal128 => |d| try writer.print("decimal128({d}, {d})", .{ d.precision, d.scale }),
            .decimal256 => |d| try writer.print("decimal256({d}, {d})", .{ d.precision, d.scale }),
            .utf8 => try writer.writeAll("string"),
            .binary => try writer.writeAll("binary"),
            .date32 => try writer.writeAll("date32[day]"),
            .timestamp => |t| try writer.writeAll(if (t.utc) "timestamp[us, tz=UTC]" else "timestamp[us]"),
            .time64 => try writer.writeAll("time64[us]"),
            .interval_month_day_nano => try writer.writeAll("month_day_nano_interval"),
            .fixed_size_binary => |width| try writer.print("fixed_size_binary[{d}]", .{width}),
            .list => |item| {
                try writer.print("list<{s}: ", .{item.name});
                try item.type.format(writer);
                try writer.writeAll(">");
            },
        }
    }
};

/// The 16 bytes of one interval value, in memory order.
pub const MonthDayNano = extern struct {
    months: i32,
    days: i32,
    nanos: i64,
};

pub const Field = struct {
    name: []const u8,
    type: Type,
    nullable: bool = true,
    metadata: []const KeyValue = &.{},

    pub fn get(self: *const Field, name: []const u8) ?[]const u8 {
        return find(self.metadata, name);
    }
};

pub const Schema = struct {
    fields: []const Field,
    metadata: []const KeyValue = &.{},

    pub fn get(self: *const Schema, name: []const u8) ?[]const u8 {
        return find(self.metadata, name);
    }

    pub fn indexOf(self: *const Schema, name: []const u8) ?usize {
        for (self.fields, 0..) |*field, i| {
            if (std.mem.eql(u8, field.name, name)) return i;
        }
        return null;
    }
};

/// Metadata keys of the connector ABI.
pub const keys = struct {
    pub const pg_type = "rapidbyte:pg_type";
    pub const pg_kind = "rapidbyte:pg_kind";
    pub const primary_key = "rapidbyte:primary_key";
    pub const extension_name = "ARROW:extension:name";
};

fn find(metadata: []const KeyValue, wanted: []const u8) ?[]const u8 {
    for (metadata) |entry| {
        if (std.mem.eql(u8, entry.key, wanted)) return entry.value;
    }
    return null;
}

test "types print as pyarrow prints them" {
    const item: Field = .{ .name = "item", .type = .{ .decimal128 = .{ .precision = 12, .scale = 4 } } };
    var buffer: [64]u8 = undefined;
    try std.testing.expectEqualStrings(
        "list<item: decimal128(12, 4)>",
        try std.fmt.bufPrint(&buffer, "{f}", .{Type{ .list = &item }}),
    );
}
