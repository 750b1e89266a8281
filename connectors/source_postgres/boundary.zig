//! The rows of one cursor value that were delivered: so that those which come later are told from them.

const std = @import("std");
const sdk = @import("sdk");
const Hashes = @import("hashes.zig").Hashes;
const Identity = @import("identity.zig").Identity;
const Ranges = @import("ranges.zig").Ranges;
const Row = @import("row.zig").Row;

const Allocator = std.mem.Allocator;

/// Characters of the text of one boundary at most: a cursor is written to the state store and the destination with
/// every commit. About 98,000 hashes, or any number of integers that lie close together.
pub const text_max = 1024 * 1024;

/// A boundary inside of a cursor.
pub const Seen = struct {
    /// The columns that tell its rows apart.
    by: []const []const u8,
    form: Identity.Form,
    /// Of those columns' types, as a hexadecimal number.
    shape: []const u8,
    rows: u64,
    /// Integers: how many rows have none.
    nulls: u64 = 0,
    set: []const u8,
};

pub const Boundary = struct {
    identity: Identity,
    set: union(Identity.Form) { ranges: Ranges, hashes: Hashes },
    nulls: u64 = 0,
    /// It was kept with such rows.
    had_nulls: bool = false,

    pub fn init(gpa: Allocator, identity: Identity) Boundary {
        return .{ .identity = identity, .set = switch (identity.form) {
            .ranges => .{ .ranges = .{ .gpa = gpa } },
            .hashes => .{ .hashes = .{ .gpa = gpa } },
        } };
    }

    pub fn deinit(self: *Boundary) void {
        switch (self.set) {
            inline else => |*set| set.deinit(),
        }
    }

    pub fn clear(self: *Boundary) void {
        self.nulls = 0;
        switch (self.set) {
            inline else => |*set| set.clear(),
        }
    }

    pub fn add(self: *Boundary, row: Row, fields: []const ?[]const u8) (Allocator.Error || error{Malformed})!void {
        switch (self.set) {
            .hashes => |*hashes| try hashes.add(self.identity.hash(row, fields)),
            .ranges => |*ranges| if (try self.identity.integer(fields)) |value|
                try ranges.add(value)
            else {
                self.nulls += 1;
            },
        }
    }

    /// Whether the row was delivered before. Rows that nothing tells apart are as many as there were.
    pub fn take(self: *Boundary, row: Row, fields: []const ?[]const u8) error{Malformed}!bool {
        switch (self.set) {
            .hashes => |*hashes| return hashes.take(self.identity.hash(row, fields)),
            .ranges => |*ranges| {
                if (try self.identity.integer(fields)) |value| return ranges.contains(value);
                if (self.nulls == 0) return false;
                self.nulls -= 1;
                return true;
            },
        }
    }

    /// Whether rows like this one were delivered before, all of which `take` has found again.
    pub fn isSpent(self: *const Boundary, row: Row, fields: []const ?[]const u8) bool {
        return switch (self.set) {
            .hashes => |*hashes| hashes.find(self.identity.hash(row, fields)) != null,
            .ranges => self.had_nulls and fields[self.identity.places[0]] == null,
        };
    }

    /// What a cursor keeps of it; null when that is more than fits.
    pub fn seen(self: *Boundary, arena: Allocator) Allocator.Error!?Seen {
        const text = switch (self.set) {
            inline else => |*set| try set.encode(arena, text_max) orelse return null,
        };
        return .{
            .by = self.identity.names,
            .form = self.identity.form,
            .shape = try std.fmt.allocPrint(arena, "{x:0>16}", .{self.identity.shape}),
            .rows = self.nulls + switch (self.set) {
                inline else => |*set| set.count(),
            },
            .nulls = self.nulls,
            .set = text,
        };
    }

    /// A boundary that was kept; `identity` is the one of its names, of today's columns. Null: their types changed.
    pub fn restore(
        gpa: Allocator,
        arena: Allocator,
        identity: Identity,
        kept: Seen,
    ) (Allocator.Error || error{Malformed})!?Boundary {
        const shape = std.fmt.parseInt(u64, kept.shape, 16) catch return error.Malformed;
        if (shape != identity.shape) return null;
        return .{ .identity = identity, .nulls = kept.nulls, .had_nulls = kept.nulls > 0, .set = switch (kept.form) {
            .ranges => .{ .ranges = try .decode(gpa, arena, kept.set) },
            .hashes => .{ .hashes = try .decode(gpa, arena, kept.set) },
        } };
    }
};
