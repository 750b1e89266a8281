//! The part of FlatBuffers that Arrow's metadata needs: tables, vectors, strings. Both directions.
//!
//!     buffer   u32 → root table
//!     vtable   u16 bytes of the vtable | u16 bytes of the table | u16 per slot: offset in the table, 0 = default
//!     table    i32 ← vtable (subtracted) | scalars and references, each aligned to its size
//!     string   u32 bytes | the bytes | 0
//!     vector   u32 count | the elements
//!     a reference is a u32, counted from its own place, and always points forward
//!
//! Specification: https://flatbuffers.dev/internals/
//!
//! The writer puts parents before children and patches their references, so that everything is written once, front
//! to back. The reader checks each access and trusts nothing.

const std = @import("std");

const Allocator = std.mem.Allocator;
const assert = std.debug.assert;

/// The largest buffer, in bytes, that is written: positions are kept in 32 bits.
const max_bytes = std.math.maxInt(i32);

/// One slot of a table that is written.
pub const Slot = union(enum) {
    /// Left at its default.
    absent,
    byte: u8,
    short: i16,
    int: i32,
    long: i64,
    /// Its target comes later, by `tableAt`, `string`, `vector` or `references`.
    reference,

    fn size(self: Slot) u16 {
        return switch (self) {
            .absent => 0,
            .byte => 1,
            .short => 2,
            .int, .reference => 4,
            .long => 8,
        };
    }
};

pub const Writer = struct {
    gpa: Allocator,
    bytes: std.ArrayList(u8) = .empty,

    pub const Error = Allocator.Error || error{MessageTooLarge};

    /// Starts a buffer behind `prefix` bytes (a multiple of 8) that the caller fills in; the reference to the root is
    /// at position `prefix`.
    pub fn init(gpa: Allocator, prefix: usize) Error!Writer {
        assert(prefix % 8 == 0);
        var self: Writer = .{ .gpa = gpa };
        errdefer self.deinit();
        try self.bytes.appendNTimes(gpa, 0, prefix + 4);
        return self;
    }

    pub fn deinit(self: *Writer) void {
        self.bytes.deinit(self.gpa);
    }

    fn table(self: *Writer, comptime n: usize, slots: [n]Slot) Error![n]u32 {
        const vtable_bytes = 4 + 2 * n;
        try self.pad(2, 0);
        const vtable = self.bytes.items.len;
        const start = std.mem.alignForward(usize, vtable + vtable_bytes, 8);

        var offsets: [n]u16 = undefined;
        var end: u16 = 4;
        for (slots, &offsets) |slot, *offset| {
            const size = slot.size();
            if (size == 0) {
                offset.* = 0;
                continue;
            }
            end = std.mem.alignForward(u16, end, size);
            offset.* = end;
            end += size;
        }

        const area = try self.extend(start - vtable + end);
        @memset(area, 0);
        store(u16, area[0..], vtable_bytes);
        store(u16, area[2..], end);
        for (offsets, 0..) |offset, i| store(u16, area[4 + 2 * i ..], offset);
        const body = area[start - vtable ..];
        store(i32, body, @intCast(start - vtable));

        var positions: [n]u32 = undefined;
        for (slots, offsets, &positions) |slot, offset, *position| {
            position.* = @intCast(start + offset);
            switch (slot) {
                .absent, .reference => {},
                .byte => |value| body[offset] = value,
                .short => |value| store(i16, body[offset..], value),
                .int => |value| store(i32, body[offset..], value),
                .long => |value| store(i64, body[offset..], value),
            }
        }
        return positions;
    }

    /// Writes a table, makes the reference at `position` point at it, and returns the positions of its slots, for
    /// their references to be patched in turn.
    pub fn tableAt(self: *Writer, position: usize, comptime n: usize, slots: [n]Slot) Error![n]u32 {
        try self.pad(2, 0);
        const start = std.mem.alignForward(usize, self.bytes.items.len + 4 + 2 * n, 8);
        self.point(position, start);
        return self.table(n, slots);
    }

    pub fn string(self: *Writer, position: usize, text: []const u8) Error!void {
        const area = try self.vector(position, text.len, 1, 1);
        @memcpy(area, text);
        const terminator = try self.extend(1);
        terminator[0] = 0;
    }

    /// Writes a vector and returns its elements, to be filled before anything else is written.
    pub fn vector(self: *Writer, position: usize, count: usize, size: usize, alignment: usize) Error![]u8 {
        try self.pad(@max(alignment, 4), 4);
        self.point(position, self.bytes.items.len);
        store(u32, try self.extend(4), std.math.cast(u32, count) orelse return error.MessageTooLarge);
        return self.extend(std.math.mul(usize, count, size) catch return error.MessageTooLarge);
    }

    /// A vector of references; returns the position of the first, the others follow at 4 bytes each.
    pub fn references(self: *Writer, position: usize, count: usize) Error!usize {
        @memset(try self.vector(position, count, 4, 4), 0);
        return self.bytes.items.len - 4 * count;
    }

    /// Pads so that `alignment` holds after `skip` further bytes.
    pub fn pad(self: *Writer, alignment: usize, skip: usize) Error!void {
        const after = self.bytes.items.len + skip;
        @memset(try self.extend(std.mem.alignForward(usize, after, alignment) - after), 0);
    }

    fn point(self: *Writer, position: usize, target: usize) void {
        assert(target > position);
        store(u32, self.bytes.items[position..], @intCast(target - position));
    }

    fn extend(self: *Writer, count: usize) Error![]u8 {
        if (count > max_bytes - self.bytes.items.len) return error.MessageTooLarge;
        return self.bytes.addManyAsSlice(self.gpa, count);
    }
};

fn store(comptime T: type, area: []u8, value: T) void {
    std.mem.writeInt(T, area[0..@sizeOf(T)], value, .little);
}

pub const ReadError = error{Malformed};

/// A table in a buffer that is not trusted.
pub const Table = struct {
    bytes: []const u8,
    start: usize,
    length: usize,
    vtable: usize,
    slots: usize,

    pub fn root(bytes: []const u8) ReadError!Table {
        return at(bytes, try follow(bytes, 0));
    }

    fn at(bytes: []const u8, start: usize) ReadError!Table {
        const back = try load(i32, bytes, start);
        const vtable = std.math.cast(usize, @as(i64, @intCast(start)) - back) orelse return error.Malformed;
        const vtable_bytes = try load(u16, bytes, vtable);
        const length = try load(u16, bytes, vtable + 2);
        if (vtable_bytes < 4 or vtable_bytes % 2 != 0 or vtable_bytes > bytes.len - vtable) return error.Malformed;
        if (length < 4 or length > bytes.len - start) return error.Malformed;
        return .{
            .bytes = bytes,
            .start = start,
            .length = length,
            .vtable = vtable,
            .slots = (vtable_bytes - 4) / 2,
        };
    }

    /// Where the slot's value lies; null when it is left at its default.
    fn position(self: *const Table, slot: usize, size: usize) ReadError!?usize {
        if (slot >= self.slots) return null;
        const offset = try load(u16, self.bytes, self.vtable + 4 + 2 * slot);
        if (offset == 0) return null;
        if (offset < 4 or offset > self.length or size > self.length - offset) return error.Malformed;
        return self.start + offset;
    }

    pub fn scalar(self: *const Table, comptime T: type, slot: usize, default: T) ReadError!T {
        return load(T, self.bytes, try self.position(slot, @sizeOf(T)) orelse return default);
    }

    pub fn boolean(self: *const Table, slot: usize) ReadError!bool {
        return try self.scalar(u8, slot, 0) != 0;
    }

    pub fn has(self: *const Table, slot: usize) ReadError!bool {
        return try self.position(slot, 1) != null;
    }

    pub fn table(self: *const Table, slot: usize) ReadError!?Table {
        const place = try self.position(slot, 4) orelse return null;
        return try at(self.bytes, try follow(self.bytes, place));
    }

    pub fn string(self: *const Table, slot: usize) ReadError!?[]const u8 {
        const found = try self.vector(slot, 1) orelse return null;
        return self.bytes[found.start..][0..found.count];
    }

    pub fn vector(self: *const Table, slot: usize, size: usize) ReadError!?Vector {
        const place = try self.position(slot, 4) orelse return null;
        const start = try follow(self.bytes, place);
        const count: usize = try load(u32, self.bytes, start);
        const room = self.bytes.len - start - 4;
        if (count > room / size) return error.Malformed;
        return .{ .bytes = self.bytes, .start = start + 4, .count = count, .size = size };
    }
};

/// Elements that all lie within the buffer.
pub const Vector = struct {
    bytes: []const u8,
    start: usize,
    count: usize,
    size: usize,

    pub const empty: Vector = .{ .bytes = "", .start = 0, .count = 0, .size = 1 };

    /// Element `i`, a reference to a table.
    pub fn table(self: *const Vector, i: usize) ReadError!Table {
        assert(i < self.count and self.size == 4);
        return Table.at(self.bytes, try follow(self.bytes, self.start + 4 * i));
    }

    /// The i64 at `offset` in element `i`, a struct.
    pub fn long(self: *const Vector, i: usize, offset: usize) i64 {
        assert(i < self.count and offset + 8 <= self.size);
        return std.mem.readInt(i64, self.bytes[self.start + i * self.size + offset ..][0..8], .little);
    }
};

fn follow(bytes: []const u8, place: usize) ReadError!usize {
    const distance = try load(u32, bytes, place);
    if (distance == 0 or distance >= bytes.len - place) return error.Malformed;
    return place + distance;
}

fn load(comptime T: type, bytes: []const u8, place: usize) ReadError!T {
    if (place > bytes.len or @sizeOf(T) > bytes.len - place) return error.Malformed;
    return std.mem.readInt(T, bytes[place..][0..@sizeOf(T)], .little);
}

test "what is written is read" {
    var writer: Writer = try .init(std.testing.allocator, 0);
    defer writer.deinit();
    const root = try writer.tableAt(0, 5, .{ .{ .byte = 7 }, .absent, .{ .long = -2 }, .reference, .reference });
    try writer.string(root[3], "name");
    const first = try writer.references(root[4], 2);
    for (0..2) |i| _ = try writer.tableAt(first + 4 * i, 1, .{.{ .int = @intCast(i) }});

    const table = try Table.root(writer.bytes.items);
    try std.testing.expectEqual(7, try table.scalar(u8, 0, 0));
    try std.testing.expectEqual(42, try table.scalar(i32, 1, 42));
    try std.testing.expectEqual(-2, try table.scalar(i64, 2, 0));
    try std.testing.expectEqualStrings("name", (try table.string(3)).?);
    const children = (try table.vector(4, 4)).?;
    try std.testing.expectEqual(2, children.count);
    for (0..2) |i| try std.testing.expectEqual(@as(i32, @intCast(i)), try (try children.table(i)).scalar(i32, 0, 9));
    try std.testing.expectEqual(null, try table.string(9));
}

test "a table in arbitrary bytes is an error or is within them" {
    var writer: Writer = try .init(std.testing.allocator, 0);
    defer writer.deinit();
    const root = try writer.tableAt(0, 3, .{ .{ .long = -2 }, .reference, .reference });
    try writer.string(root[1], "name");
    const first = try writer.references(root[2], 2);
    for (0..2) |i| _ = try writer.tableAt(first + 4 * i, 1, .{.{ .int = 3 }});
    try @import("../fuzz.zig").bytes(fuzzTable, &.{writer.bytes.items});
}

fn fuzzTable(bytes: []const u8) anyerror!void {
    const table = Table.root(bytes) catch return;
    for (0..8) |slot| {
        _ = table.scalar(i64, slot, 0) catch continue;
        _ = table.string(slot) catch continue;
        const vector = table.vector(slot, 4) catch continue orelse continue;
        for (0..vector.count) |i| _ = vector.table(i) catch continue;
    }
}
