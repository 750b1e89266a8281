//! Reads the Schema table of a schema message into `types.Schema`.

const std = @import("std");
const flatbuffer = @import("flatbuffer.zig");
const metadata = @import("metadata.zig");
const types = @import("types.zig");

const Allocator = std.mem.Allocator;
const Table = flatbuffer.Table;
const TypeTag = metadata.TypeTag;

/// FlatBuffers may refer to one thing many times, so a small message can unfold into a huge schema. These bound what
/// is built: PostgreSQL has 1,600 columns per table, with a few short entries each.
const max_fields = 16 * 1024;
const max_entries = 64 * 1024;
/// Bytes of all names, keys and values.
const max_text = 16 * 1024 * 1024;

pub const Error = Allocator.Error || error{ Malformed, Unsupported, UnsupportedType };

/// What an error was about.
pub const Problem = struct {
    /// The field's name where one is to blame, else empty. Lives in the arena that the schema was read into.
    field: []const u8 = "",
    /// What about it: a constant text such as "unsigned integers" or "dictionary encoding".
    what: []const u8 = "malformed metadata",
};

pub fn read(arena: Allocator, table: *const Table, problem: *Problem) Error!types.Schema {
    var reader: Reader = .{ .arena = arena, .problem = problem };
    if (try table.scalar(i16, metadata.schema.endianness, 0) != metadata.little_endian) {
        problem.what = "big-endian data";
        return error.Unsupported;
    }
    const fields = try table.vector(metadata.schema.fields, 4) orelse flatbuffer.Vector.empty;
    const result = try reader.allocate(types.Field, fields.count, &reader.fields_left);
    for (result, 0..) |*field, i| field.* = try reader.field(&try fields.table(i), 1);
    return .{ .fields = result, .metadata = try reader.keyValues(table, metadata.schema.custom_metadata) };
}

const Reader = struct {
    arena: Allocator,
    problem: *Problem,
    fields_left: usize = max_fields,
    entries_left: usize = max_entries,
    text_left: usize = max_text,

    fn allocate(self: *Reader, comptime T: type, count: usize, left: *usize) Error![]T {
        if (count > left.*) {
            self.problem.what = "too many fields or metadata entries";
            return error.Unsupported;
        }
        left.* -= count;
        return self.arena.alloc(T, count);
    }

    fn string(self: *Reader, bytes: []const u8) Error![]const u8 {
        if (bytes.len > self.text_left) {
            self.problem.what = "too much text in names and metadata";
            return error.Unsupported;
        }
        self.text_left -= bytes.len;
        return self.arena.dupe(u8, bytes);
    }

    fn keyValues(self: *Reader, table: *const Table, slot: usize) Error![]const types.KeyValue {
        const entries = try table.vector(slot, 4) orelse return &.{};
        const result = try self.allocate(types.KeyValue, entries.count, &self.entries_left);
        for (result, 0..) |*entry, i| {
            const pair = try entries.table(i);
            entry.* = .{
                .key = try self.string(try pair.string(0) orelse ""),
                .value = try self.string(try pair.string(1) orelse ""),
            };
        }
        return result;
    }

    fn field(self: *Reader, table: *const Table, depth: usize) Error!types.Field {
        const name = try self.string(try table.string(metadata.field.name) orelse "");
        // Elements of lists are named "item"; the user knows the column.
        if (depth == 1) self.problem.field = name;
        if (try table.has(metadata.field.dictionary)) return self.refuse("dictionary encoding");
        const result: types.Field = .{
            .name = name,
            .type = try self.fieldType(table, depth),
            .nullable = try table.boolean(metadata.field.nullable),
            .metadata = try self.keyValues(table, metadata.field.custom_metadata),
        };
        if (depth == 1) self.problem.field = "";
        return result;
    }

    fn refuse(self: *Reader, what: []const u8) error{UnsupportedType} {
        self.problem.what = what;
        return error.UnsupportedType;
    }

    fn fieldType(self: *Reader, table: *const Table, depth: usize) Error!types.Type {
        const tag: TypeTag = @fromBackingInt(@intCast(try table.scalar(u8, metadata.field.type_tag, 0)));
        const of = try table.table(metadata.field.type_value) orelse return error.Malformed;
        if (tag == .list) return .{ .list = try self.item(table, depth) };
        return self.leaf(tag, &of);
    }

    fn item(self: *Reader, table: *const Table, depth: usize) Error!*const types.Field {
        if (depth == types.max_depth) return self.refuse("lists nested this deep");
        const children = try table.vector(metadata.field.children, 4) orelse return error.Malformed;
        if (children.count != 1) return error.Malformed;
        const slot = try self.allocate(types.Field, 1, &self.fields_left);
        slot[0] = try self.field(&try children.table(0), depth + 1);
        return &slot[0];
    }

    fn leaf(self: *Reader, tag: TypeTag, of: *const Table) Error!types.Type {
        return switch (tag) {
            .bool => .bool,
            .utf8 => .utf8,
            .binary => .binary,
            .int => self.integer(of),
            .floating_point => switch (try of.scalar(i16, 0, 0)) {
                metadata.float_single => .float32,
                metadata.float_double => .float64,
                else => self.refuse("half floats"),
            },
            .decimal => self.decimal(of),
            .date => switch (try of.scalar(i16, 0, metadata.date_millisecond)) {
                metadata.date_day => .date32,
                else => self.refuse("dates in milliseconds"),
            },
            .time => if (try of.scalar(i16, 0, metadata.unit_millisecond) == metadata.unit_microsecond and
                try of.scalar(i32, 1, 32) == 64) .time64 else self.refuse("times in other units than microseconds"),
            .timestamp => self.timestamp(of),
            .interval => switch (try of.scalar(i16, 0, 0)) {
                metadata.interval_month_day_nano => .interval_month_day_nano,
                else => self.refuse("intervals other than month-day-nano"),
            },
            .fixed_size_binary => self.fixedSizeBinary(of),
            .none => error.Malformed,
            .list => unreachable,
            _ => self.refuse("an unknown Arrow type"),
            inline else => |other| self.refuse("the Arrow type " ++ @tagName(other)),
        };
    }

    fn integer(self: *Reader, of: *const Table) Error!types.Type {
        if (!try of.boolean(1)) return self.refuse("unsigned integers");
        return switch (try of.scalar(i32, 0, 0)) {
            16 => .int16,
            32 => .int32,
            64 => .int64,
            8 => self.refuse("integers of 8 bits"),
            else => error.Malformed,
        };
    }

    fn decimal(self: *Reader, of: *const Table) Error!types.Type {
        const precision = try of.scalar(i32, 0, 0);
        const scale = try of.scalar(i32, 1, 0);
        const bits = try of.scalar(i32, 2, 128);
        const most: i32 = switch (bits) {
            128 => 38,
            256 => 76,
            else => return self.refuse("decimals of other than 128 or 256 bits"),
        };
        if (precision < 1 or precision > most) return error.Malformed;
        // Scales beyond the precision, or below zero, exist in Arrow; these bounds only exclude nonsense.
        if (scale < -1000 or scale > 1000) return error.Malformed;
        const value: types.Decimal = .{ .precision = @intCast(precision), .scale = scale };
        return if (bits == 128) .{ .decimal128 = value } else .{ .decimal256 = value };
    }

    fn timestamp(self: *Reader, of: *const Table) Error!types.Type {
        if (try of.scalar(i16, 0, metadata.unit_second) != metadata.unit_microsecond) {
            return self.refuse("timestamps in other units than microseconds");
        }
        const zone = try of.string(1) orelse "";
        if (zone.len == 0) return .{ .timestamp = .{ .utc = false } };
        for ([_][]const u8{ "UTC", "+00:00", "Etc/UTC", "Z" }) |utc| {
            if (std.mem.eql(u8, zone, utc)) return .{ .timestamp = .{ .utc = true } };
        }
        return self.refuse("timestamps in a time zone other than UTC");
    }

    fn fixedSizeBinary(self: *Reader, of: *const Table) Error!types.Type {
        const width = try of.scalar(i32, 0, 0);
        if (width < 0) return error.Malformed;
        if (width == 0 or width > types.max_fixed_size) return self.refuse("fixed-size binary of this size");
        return .{ .fixed_size_binary = @intCast(width) };
    }
};
