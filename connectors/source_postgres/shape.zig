//! What the changes of one stream look like: the schema message that goes before them, and how each column's values are
//! read.
//!
//!     _rb_op int16   1 insert, 2 update, 3 delete, 4 truncate, 5 the row before the update that follows
//!     _rb_lsn int64   _rb_seq int64   _rb_commit_ts timestamp[us, UTC]
//!     _rb_unchanged binary   bitmap of the stream's columns whose value was not told; null: all were
//!     then the stream's columns, every one of them nullable

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const RelationColumn = @import("relation.zig").Column;

const Allocator = std.mem.Allocator;
const Kind = postgres.types.Kind;
const arrow = sdk.arrow;
const decode = postgres.decode;
const json = sdk.json;

/// Fields before the stream's columns.
pub const marks = [_]arrow.Field{
    .{ .name = "_rb_op", .type = .int16, .nullable = false },
    .{ .name = "_rb_lsn", .type = .int64, .nullable = false },
    .{ .name = "_rb_seq", .type = .int64, .nullable = false },
    .{ .name = "_rb_commit_ts", .type = .{ .timestamp = .{ .utc = true } }, .nullable = false },
    .{ .name = "_rb_unchanged", .type = .binary },
};

pub const Op = enum(i16) {
    insert = 1,
    update = 2,
    delete = 3,
    truncate = 4,
    /// The row before the update that follows, or what identified it.
    before = 5,
};

/// What rows have in a column that was added to their table when they were there.
pub const Before = union(enum) {
    null,
    /// The DEFAULT of then, as the type's text form.
    value: []const u8,
    /// Something else, perhaps, which no change tells.
    untold,
};

pub const Column = struct {
    of: RelationColumn,
    is_not_null: bool,
    before: Before = .null,
    /// Whether values of it cross as the type's text form.
    as_text: bool,
    /// What is printed of the type's binary form where it crosses as text; null: this connector does not know how.
    printed: ?decode.Column,
    /// How else values are stored.
    plan: decode.Plan,

    /// Whether a server may send the column in binary form.
    pub fn isBinary(self: *const Column) bool {
        return self.printed != null;
    }

    /// Whether its values, or their elements, are text in the database's encoding.
    pub fn isText(self: *const Column) bool {
        return self.as_text or self.plan.kind.isText();
    }
};

/// What a type is at the bottom, behind all domains, which is what its binary form is of.
pub const Base = struct {
    oid: u32,
    category: u8,
    element: ?struct { oid: u32, category: u8 } = null,

    /// How its binary form, or that of its elements, is printed.
    fn kind(self: *const Base) ?Kind {
        const oid = if (self.element) |element| element.oid else self.oid;
        return RelationColumn.kindOf(oid, if (self.element) |element| element.category else self.category);
    }
};

pub fn columnOf(
    of: RelationColumn,
    base: ?Base,
    is_not_null: bool,
    is_forced_text: bool,
    infinite_intervals: bool,
) Column {
    const native = of.native();
    const printed_kind = if (base) |known| known.kind() else null;
    return .{
        .of = of,
        .is_not_null = is_not_null,
        .as_text = is_forced_text or native == null,
        .printed = if (printed_kind) |kind| .{
            .name = of.name,
            .type_name = of.type_name,
            .kind = kind,
            .typmod = of.typmod,
            .element_oid = if (base.?.element) |element| element.oid else null,
            .infinite_intervals = infinite_intervals,
        } else null,
        .plan = .init(.{
            .name = of.name,
            .type_name = of.type_name,
            .kind = native orelse .text,
            .typmod = of.typmod,
            .element_oid = if (native != null and of.element != null) of.element.?.oid else null,
            .infinite_intervals = infinite_intervals,
        }),
    };
}

pub const Shape = struct {
    arena: std.heap.ArenaAllocator,
    facts: Facts,
    columns: []const Column,
    /// Of the marks and the columns.
    types: []const arrow.Type,
    /// The schema message. Shapes with one message are one, but for types that were made again.
    message: []const u8,

    pub const Facts = struct {
        stream: []const u8,
        /// As the table's catalog has it now.
        primary_key: []const []const u8,
        identity: postgres.pgoutput.ReplicaIdentity,
        /// Null: the whole row, or nothing.
        identity_columns: ?[]const []const u8,
    };

    /// What `facts` and `columns` point to is copied.
    pub fn create(gpa: Allocator, facts: Facts, columns: []const Column) !*Shape {
        const self = try gpa.create(Shape);
        errdefer gpa.destroy(self);
        self.arena = .init(gpa);
        errdefer self.arena.deinit();
        const arena = self.arena.allocator();
        const own = try arena.alloc(Column, columns.len);
        const fields = try arena.alloc(arrow.Field, marks.len + columns.len);
        const types = try arena.alloc(arrow.Type, fields.len);
        @memcpy(fields[0..marks.len], &marks);
        for (own, fields[marks.len..], columns) |*copy, *field, column| {
            copy.* = column;
            copy.of.name = try arena.dupe(u8, column.of.name);
            copy.of.type_name = try arena.dupe(u8, column.of.type_name);
            if (copy.of.element) |*element| element.type_name = try arena.dupe(u8, element.type_name);
            if (copy.printed) |*printed| {
                printed.name = copy.of.name;
                printed.type_name = copy.of.type_name;
            }
            field.* = try copy.of.field(arena, try copy.of.arrowType(arena, copy.as_text));
            field.nullable = true;
            var told: std.ArrayList(arrow.KeyValue) = .fromOwnedSlice(try arena.dupe(arrow.KeyValue, field.metadata));
            if (copy.is_not_null) try told.append(arena, .{ .key = keys.not_null, .value = "true" });
            switch (column.before) {
                .null => {},
                .value => |text| {
                    copy.before = .{ .value = try arena.dupe(u8, text) };
                    try told.append(arena, .{ .key = keys.missing, .value = copy.before.value });
                },
                .untold => try told.append(arena, .{ .key = keys.untold, .value = "true" }),
            }
            field.metadata = told.items;
        }
        for (types, fields) |*each, field| each.* = field.type;
        const schema: arrow.Schema = .{ .fields = fields, .metadata = try metadata(arena, facts, own) };
        self.facts = .{
            .stream = try arena.dupe(u8, facts.stream),
            .primary_key = try dupeNames(arena, facts.primary_key),
            .identity = facts.identity,
            .identity_columns = if (facts.identity_columns) |names| try dupeNames(arena, names) else null,
        };
        self.columns = own;
        self.types = types;
        self.message = try sdk.arrow.writer.encodeSchema(arena, &schema);
        return self;
    }

    pub fn destroy(self: *Shape, gpa: Allocator) void {
        self.arena.deinit();
        gpa.destroy(self);
    }

    /// This shape, but with one column as text.
    pub fn withText(self: *const Shape, gpa: Allocator, place: usize) !*Shape {
        const columns = try gpa.dupe(Column, self.columns);
        defer gpa.free(columns);
        columns[place].as_text = true;
        return create(gpa, self.facts, columns);
    }

    fn dupeNames(arena: Allocator, names: []const []const u8) Allocator.Error![]const []const u8 {
        const own = try arena.alloc([]const u8, names.len);
        for (own, names) |*copy, name| copy.* = try arena.dupe(u8, name);
        return own;
    }

    pub fn eql(self: *const Shape, other: *const Shape) bool {
        if (!std.mem.eql(u8, self.message, other.message)) return false;
        for (self.columns, other.columns) |one, another| if (one.of.type_oid != another.of.type_oid) return false;
        return true;
    }

    fn metadata(arena: Allocator, facts: Facts, columns: []const Column) Allocator.Error![]const arrow.KeyValue {
        var entries: std.ArrayList(arrow.KeyValue) = .empty;
        try entries.append(arena, .{ .key = keys.stream, .value = facts.stream });
        if (facts.primary_key.len > 0 and hasAll(columns, facts.primary_key))
            try entries.append(arena, .{ .key = arrow.keys.primary_key, .value = try json.stringify(arena, facts.primary_key) });
        try entries.append(arena, .{ .key = keys.replica_identity, .value = @tagName(facts.identity) });
        const identity = if (facts.identity_columns) |names| (if (hasAll(columns, names)) names else null) else null;
        try entries.append(arena, .{ .key = keys.identity, .value = try json.stringify(arena, identity) });
        return entries.items;
    }

    fn hasAll(columns: []const Column, names: []const []const u8) bool {
        for (names) |name| {
            for (columns) |column| {
                if (std.mem.eql(u8, column.of.name, name)) break;
            } else return false;
        }
        return true;
    }
};

const keys = struct {
    const stream = "rapidbyte:stream";
    const replica_identity = "rapidbyte:replica_identity";
    const identity = "rapidbyte:identity";
    const not_null = "rapidbyte:not_null";
    const missing = "rapidbyte:missing";
    const untold = "rapidbyte:untold";
};
