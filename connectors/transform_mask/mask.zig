//! The masked columns of a stream, in the place of those that came.

const std = @import("std");
const sdk = @import("sdk");
const transform = @import("transform");
const Column = @import("column.zig").Column;
const Config = @import("config.zig").Config;
const KeyedHash = @import("keyed_hash.zig").KeyedHash;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

pub const Mask = struct {
    config: Config,
    hash: KeyedHash,
    columns: []Column = &.{},

    pub fn init(arena: Allocator, config: sdk.json.Value) !Mask {
        const parsed: Config = try .parse(arena, config);
        return .{ .config = parsed, .hash = .init(parsed.salt) };
    }

    pub fn deinit(self: *Mask) void {
        self.forget();
    }

    fn forget(self: *Mask) void {
        for (self.columns) |*column| column.deinit();
        sdk.connector.gpa.free(self.columns);
        self.columns = &.{};
    }

    pub fn turn(self: *Mask, arena: Allocator, shape: *const transform.Shape) !arrow.Schema {
        self.forget();
        const gpa = sdk.connector.gpa;
        const columns = try gpa.alloc(Column, self.config.columns.len);
        var made: usize = 0;
        errdefer {
            for (columns[0..made]) |*column| column.deinit();
            gpa.free(columns);
        }
        const fields = try arena.dupe(arrow.Field, shape.schema.fields);
        for (columns, self.config.columns) |*column, *masked| {
            const path = try std.fmt.allocPrint(arena, "columns.{s}", .{masked.name});
            const place = try shape.place(arena, path, masked.name);
            column.* = try .init(arena, gpa, shape, place, masked.action, &self.hash);
            made += 1;
            fields[place] = column.masked;
        }
        self.columns = columns;
        return .{ .fields = fields, .metadata = shape.schema.metadata };
    }

    pub fn take(self: *Mask, scratch: Allocator, batch: *const arrow.Batch, _: *transform.Rows) !arrow.Batch {
        const views = try scratch.dupe(arrow.ArrayView, batch.columns);
        for (self.columns) |*column| views[column.place] = try column.take(scratch, &batch.columns[column.place]);
        return .{ .rows = batch.rows, .columns = views };
    }
};
