//! assert_unique: no two rows of a run have the same values in the columns. A row with a NULL among them has none.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const transform = @import("transform");
const Domain = @import("domain.zig").Domain;
const Seen = @import("seen.zig").Seen;
const identity = @import("identity.zig");

const Allocator = std.mem.Allocator;
const SipHash = std.crypto.auth.siphash.SipHash128(1, 3);
const arrow = sdk.arrow;

pub const Unique = struct {
    path: []const u8,
    names: []const []const u8,
    key: [SipHash.key_length]u8,
    seen: Seen,
    /// Of the run's first schema: what the columns were then.
    first: ?struct { kinds: []const u8, types: []const u8 } = null,
    columns: []const Column = &.{},
    reason: transform.Reason = undefined,
    bytes: std.ArrayList(u8) = .empty,

    const Column = struct { place: usize, domain: Domain, is_padded: bool };

    pub fn init(path: []const u8, names: []const []const u8) !Unique {
        var self: Unique = .{ .path = path, .names = names, .key = undefined, .seen = .init(sdk.connector.gpa) };
        // Nobody can know values that have the same hash.
        try sdk.host.random(&self.key);
        return self;
    }

    pub fn deinit(self: *Unique) void {
        self.seen.deinit();
        self.bytes.deinit(sdk.connector.gpa);
    }

    /// Columns and reason live in `arena`, until the next schema; what has to last for the run, in `lasting`.
    pub fn turn(self: *Unique, arena: Allocator, lasting: Allocator, shape: *const transform.Shape) !void {
        const columns = try arena.alloc(Column, self.names.len);
        var types: std.ArrayList(u8) = .empty;
        // What has to be the same for values to be compared: an integer's text is a bigint's.
        var kinds: std.ArrayList(u8) = .empty;
        for (columns, self.names) |*column, name| {
            const place = try shape.place(arena, self.path, name);
            const field = &shape.schema.fields[place];
            const type_name = shape.types[place];
            column.* = .{
                .place = place,
                .domain = .of(field, type_name),
                .is_padded = transform.Texts.init(field, type_name).form == .padded,
            };
            try types.print(arena, "{s}{s} {s}", .{ if (types.items.len > 0) ", " else "", name, type_name });
            try types.print(arena, " as {f}", .{field.type});
            try kinds.print(arena, "{t} {} {f}\n", .{ column.domain, column.is_padded, field.type });
        }
        if (self.first) |first| {
            if (!std.mem.eql(u8, first.kinds, kinds.items)) return sdk.errors.failHinted(
                .schema,
                "run it again, which has one type from its first row on; of dead letters, replay those of one type at a time",
                "{s}: within the run the columns became others ({s}, before {s}), whose values are not compared",
                .{ self.path, types.items, first.types },
            );
        } else self.first = .{ .kinds = try lasting.dupe(u8, kinds.items), .types = try lasting.dupe(u8, types.items) };
        self.columns = columns;
        const list = try std.mem.join(arena, ", ", self.names);
        self.reason = .{
            .message = if (self.names.len == 1)
                try std.fmt.allocPrint(arena, "{s} was there before (assert_unique)", .{list})
            else
                try std.fmt.allocPrint(arena, "({s}) was there before (assert_unique)", .{list}),
            .column = if (self.names.len == 1) self.names[0] else null,
        };
    }

    /// Null where one of the values is NULL.
    pub fn hashOf(self: *Unique, batch: *const arrow.Batch, row: usize) Allocator.Error!?u128 {
        self.bytes.clearRetainingCapacity();
        for (self.columns) |*column| {
            const view = &batch.columns[column.place];
            if (view.isNull(row)) return null;
            try identity.append(&self.bytes, sdk.connector.gpa, column.domain, column.is_padded, view, row);
        }
        return SipHash.toInt(self.bytes.items, &self.key);
    }

    pub fn remember(self: *Unique, hash: u128) !void {
        self.seen.add(hash) catch return sdk.errors.failHinted(
            .resource,
            "raise `limits.max_memory`: a key takes 20 to 40 bytes",
            "{s}: there is no memory for more than the {d} keys of this run so far",
            .{ self.path, self.seen.count },
        );
    }
};
