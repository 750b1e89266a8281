//! The tables behind the streams of a capture, and the relations that its publication tells of them.
//!
//!     Relation message ──▶ which stream, by table, by name, or as a partition of one
//!                      ──▶ the catalog: names of types, NOT NULL, the primary key
//!                      ──▶ PublishedRelation: where each of its columns goes;  Shape: what the stream's rows look like

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Base = @import("shape.zig").Base;
const Before = @import("shape.zig").Before;
const Column = @import("shape.zig").Column;
const OnDataError = @import("stream.zig").OnDataError;
const PublishedRelation = @import("published_relation.zig").PublishedRelation;
const RelationColumn = @import("relation.zig").Column;
const Session = @import("session.zig").Session;
const Shape = @import("shape.zig").Shape;
const WriteMode = @import("stream.zig").WriteMode;
const nowhere = @import("published_relation.zig").nowhere;
const columnOf = @import("shape.zig").columnOf;

const Allocator = std.mem.Allocator;
const Lsn = postgres.Lsn;
const pgoutput = postgres.pgoutput;

const doing = "looking into a table whose changes are captured";

/// A stream as the host describes it; what else it says of it is about other verbs.
pub const Stream = struct {
    name: []const u8,
    schema: ?[]const u8 = null,
    columns: ?[]const []const u8 = null,
    primary_key: ?[]const []const u8 = null,
    truncate: enum { apply, ignore, fail } = .apply,
    write_mode: WriteMode = .upsert,
    on_data_error: OnDataError = .fail,
    /// Transactions that were committed before it are in the destination.
    position: Lsn,
};

/// One stream's table.
pub const Table = struct {
    stream: Stream,
    schema: []const u8,
    /// Null until it is found.
    oid: ?u32 = null,
    /// As the catalog has them now, in their order.
    columns: []const TableColumn = &.{},
    /// All that its changes had so far.
    shapes: std.ArrayList(*Shape) = .empty,
    /// Columns of which a value had no place in Arrow's type for it: they cross as text from then on.
    texts: std.StringHashMapUnmanaged(void) = .empty,

    const TableColumn = struct { name: []const u8, type: Modified };

    /// What rows from before it have in a column that was told as one of that type.
    fn before(self: *const Table, known: *const CatalogColumn, told: Modified) Before {
        // Whoever lists columns lists what is there: one that is new to the stream may be older than its rows.
        if (self.stream.columns != null) return .untold;
        return if (known.before == .value and known.type_oid != told.oid) .untold else known.before;
    }

    fn wants(self: *const Table, name: []const u8) bool {
        const wanted = self.stream.columns orelse return true;
        for (wanted) |each| if (std.mem.eql(u8, each, name)) return true;
        return false;
    }
};

/// A column as the catalog has it now.
const CatalogColumn = struct {
    name: []const u8,
    is_not_null: bool,
    type_oid: u32,
    before: Before,
};

/// A type as a column has it.
const Modified = struct { oid: u32, modifier: i32 };

/// What the catalog knows of one.
const Type = struct {
    name: []const u8,
    category: u8,
    element: @FieldType(RelationColumn, "element"),
    base: ?Base,
};

pub const CapturedTables = struct {
    gpa: Allocator,
    session: *Session,
    /// As long as the tables.
    arena: std.heap.ArenaAllocator,
    tables: []Table,
    types: std.AutoHashMapUnmanaged(Modified, Type) = .empty,
    /// What the publication called types that are not built in.
    told_types: std.AutoHashMapUnmanaged(u32, []const u8) = .empty,
    relations: std.AutoHashMapUnmanaged(u32, *PublishedRelation) = .empty,
    /// What a transaction that was sent before its commit said of relations, while it is read again.
    own_relations: std.AutoHashMapUnmanaged(u32, *PublishedRelation) = .empty,
    latest: ?*PublishedRelation = null,

    pub fn find(gpa: Allocator, session: *Session, streams: []const Stream) !CapturedTables {
        var self: CapturedTables = .{ .gpa = gpa, .session = session, .arena = .init(gpa), .tables = &.{} };
        errdefer self.deinit();
        const arena = self.arena.allocator();
        const schemas = try arena.alloc([]const u8, streams.len);
        const names = try arena.alloc([]const u8, streams.len);
        const tables = try arena.alloc(Table, streams.len);
        for (streams, tables, schemas, names) |stream, *table, *schema, *name| {
            schema.* = stream.schema orelse session.schema;
            name.* = stream.name;
            table.* = .{ .stream = stream, .schema = schema.* };
        }
        self.tables = tables;
        const parameters = [_]?[]const u8{ try arrayOf(arena, schemas), try arrayOf(arena, names) };
        const rows = try session.rows(5, arena, @embedFile("sql/capture_tables.sql"), &parameters, doing);
        var at: usize = 0;
        while (at < rows.len) {
            const place = rows[at].text(0);
            var end = at + 1;
            while (end < rows.len and std.mem.eql(u8, rows[end].text(0), place)) end += 1;
            const number = rows[at].number(usize, 0);
            if (number == 0 or number > tables.len) break;
            const table = &tables[number - 1];
            table.oid = rows[at].number(u32, 1);
            var columns: std.ArrayList(Table.TableColumn) = .empty;
            for (rows[at..end]) |row| if (row.optional(2)) |name| try columns.append(arena, .{
                .name = name,
                .type = .{ .oid = row.number(u32, 3), .modifier = row.number(i32, 4) },
            });
            table.columns = columns.items;
            at = end;
        }
        // Nothing would be lost with an error, and all that happened to it without one.
        for (tables) |*table| if (table.oid == null) return sdk.errors.ofStream(table.stream.name, sdk.errors.failHinted(
            .not_found,
            "a table that was renamed or dropped is captured no more: change the stream's `name`, or leave the stream out",
            "stream {s}: there is no table {s}.{s}",
            .{ table.stream.name, table.schema, table.stream.name },
        ));
        return self;
    }

    pub fn deinit(self: *CapturedTables) void {
        self.forget();
        self.relations.deinit(self.gpa);
        self.own_relations.deinit(self.gpa);
        for (self.tables) |*table| {
            for (table.shapes.items) |shape| shape.destroy(self.gpa);
            table.shapes.deinit(self.gpa);
        }
        self.types.deinit(self.gpa);
        self.told_types.deinit(self.gpa);
        self.arena.deinit();
    }

    /// Forgets all relations: the server will tell them again.
    pub fn forget(self: *CapturedTables) void {
        self.latest = null;
        for ([_]*std.AutoHashMapUnmanaged(u32, *PublishedRelation){ &self.relations, &self.own_relations }) |map| {
            var values = map.valueIterator();
            while (values.next()) |relation| relation.*.destroy(self.gpa);
            map.clearRetainingCapacity();
        }
    }

    /// The position from which the first of the streams goes on.
    pub fn position(self: *const CapturedTables) Lsn {
        var least: Lsn = .{ .value = std.math.maxInt(u64) };
        for (self.tables) |*table| least.value = @min(least.value, table.stream.position.value);
        return least;
    }

    /// Whether the server can send every column of every stream in its type's binary form, as far as it is known yet.
    pub fn areBinary(self: *CapturedTables) !bool {
        var asked: std.ArrayList(Modified) = .empty;
        defer asked.deinit(self.gpa);
        for (self.tables) |*table| {
            for (table.columns) |column| if (table.wants(column.name)) try asked.append(self.gpa, column.type);
        }
        try self.lookUp(asked.items);
        for (asked.items) |each| {
            const column = try self.columnAs("", each, false, false);
            if (!column.isBinary()) return false;
        }
        return true;
    }

    pub fn tellType(self: *CapturedTables, told: pgoutput.Type) !void {
        if (self.told_types.contains(told.oid)) return;
        const name = try postgres.ident.qualified(self.arena.allocator(), told.schema, told.name);
        try self.told_types.put(self.gpa, told.oid, name);
    }

    /// What is said of a relation. `is_own`: by a transaction that is read again, and for that alone until `merge`.
    /// The answer is the relation, with its destination.
    pub fn tell(self: *CapturedTables, told: *const pgoutput.Relation, arrival: u64, is_own: bool) !*PublishedRelation {
        const relation: *PublishedRelation = try .create(self.gpa, told, arrival);
        errdefer relation.destroy(self.gpa);
        try self.findDestination(relation, told);
        const map = if (is_own) &self.own_relations else &self.relations;
        const entry = try map.getOrPut(self.gpa, relation.oid);
        if (entry.found_existing) entry.value_ptr.*.destroy(self.gpa);
        entry.value_ptr.* = relation;
        self.latest = null;
        return relation;
    }

    /// The transaction that was read again is over, and committed: what it said of relations holds for all that follows,
    /// unless something was said since.
    pub fn merge(self: *CapturedTables) !void {
        self.latest = null;
        var values = self.own_relations.valueIterator();
        while (values.next()) |own| {
            const entry = try self.relations.getOrPut(self.gpa, own.*.oid);
            const is_older = entry.found_existing and entry.value_ptr.*.arrival > own.*.arrival;
            if (is_older) {
                own.*.destroy(self.gpa);
            } else {
                if (entry.found_existing) entry.value_ptr.*.destroy(self.gpa);
                entry.value_ptr.* = own.*;
            }
        }
        self.own_relations.clearRetainingCapacity();
    }

    pub inline fn relationOf(self: *CapturedTables, oid: u32) ?*PublishedRelation {
        if (self.latest) |latest| if (latest.oid == oid) return latest;
        return self.lookUpRelation(oid);
    }

    fn lookUpRelation(self: *CapturedTables, oid: u32) ?*PublishedRelation {
        self.latest = self.own_relations.get(oid) orelse self.relations.get(oid) orelse return null;
        return self.latest;
    }

    /// A value of a column had no place in Arrow's type: the column crosses as text from now on.
    pub fn readAsText(self: *CapturedTables, stream: usize, shape: *const Shape, place: usize) !void {
        const table = &self.tables[stream];
        const name = try self.arena.allocator().dupe(u8, shape.columns[place].of.name);
        try table.texts.put(self.arena.allocator(), name, {});
        const other = try self.intern(table, try shape.withText(self.gpa, place));
        for ([_]*std.AutoHashMapUnmanaged(u32, *PublishedRelation){ &self.relations, &self.own_relations }) |map| {
            var values = map.valueIterator();
            while (values.next()) |relation| if (relation.*.destination) |*destination| {
                if (destination.shape == shape) destination.shape = other;
            };
        }
    }

    /// The one of the table's shapes that is like this one.
    fn intern(self: *CapturedTables, table: *Table, shape: *Shape) Allocator.Error!*const Shape {
        for (table.shapes.items) |known| if (known.eql(shape)) {
            shape.destroy(self.gpa);
            return known;
        };
        errdefer shape.destroy(self.gpa);
        try table.shapes.append(self.gpa, shape);
        return shape;
    }

    fn findDestination(self: *CapturedTables, relation: *PublishedRelation, told: *const pgoutput.Relation) !void {
        const own = relation.arena.allocator();
        const stream, const standing = try self.streamOf(told) orelse return;
        const is_partition = standing == .partition;
        const table = &self.tables[stream];
        var scratch_arena: std.heap.ArenaAllocator = .init(self.gpa);
        defer scratch_arena.deinit();
        const scratch = scratch_arena.allocator();

        // Places of the relation's columns, in the order that the stream has them in.
        const order = try self.orderOf(scratch, table, relation, is_partition);
        const asked = try scratch.alloc(Modified, order.len);
        for (asked, order) |*each, i| each.* = .{
            .oid = relation.columns[i].type_oid,
            .modifier = relation.columns[i].typmod,
        };
        try self.lookUp(asked);
        const catalog = try self.catalogOf(scratch, if (is_partition) table.oid.? else relation.oid);
        const places = try own.alloc(u16, relation.columns.len);
        @memset(places, nowhere);
        const columns = try scratch.alloc(Column, order.len);
        for (columns, order, asked, 0..) |*column, i, each, place| {
            const name = relation.columns[i].name;
            places[i] = @intCast(place);
            const known = catalog.column(name);
            column.* = try self.columnAs(name, each, known != null and known.?.is_not_null, table.texts.contains(name));
            column.before = table.before(known orelse continue, each);
        }
        const identity = try relation.identityColumns(scratch);
        relation.destination = .{
            .stream = stream,
            .standing = standing,
            .shape = try self.intern(table, try .create(self.gpa, .{
                .stream = table.stream.name,
                .primary_key = catalog.primary_key,
                .identity = relation.identity,
                .identity_columns = if (identity) |found| try namesOf(scratch, relation, found) else null,
            }, columns)),
            .places = places,
            .key = if (relation.identity == .full)
                try columnsNamed(own, relation, table.stream.primary_key orelse catalog.primary_key)
            else if (identity) |found| try own.dupe(u16, found) else null,
        };
    }

    fn streamOf(self: *CapturedTables, told: *const pgoutput.Relation) !?struct { usize, PublishedRelation.Standing } {
        for (self.tables, 0..) |*table, i| if (table.oid == told.oid) return .{ i, .table };
        for (self.tables, 0..) |*table, i| {
            if (std.mem.eql(u8, table.schema, told.schema) and std.mem.eql(u8, table.stream.name, told.name)) return .{ i, .former };
        }
        // A publication without publish_via_partition_root tells a partitioned table's changes as those of its partitions.
        var arena: std.heap.ArenaAllocator = .init(self.gpa);
        defer arena.deinit();
        for (try self.oids(arena.allocator(), "SELECT relid::oid FROM pg_partition_ancestors($1::oid)", told.oid)) |ancestor| {
            for (self.tables, 0..) |*table, i| if (table.oid == ancestor) return .{ i, .partition };
        }
        return null;
    }

    /// Of a partitioned table, the partitions that hold rows.
    pub fn leavesOf(self: *CapturedTables, arena: Allocator, stream: usize) ![]const u32 {
        const oid = self.tables[stream].oid orelse return &.{};
        return self.oids(arena, "SELECT relid::oid FROM pg_partition_tree($1::oid) WHERE isleaf", oid);
    }

    fn oids(self: *CapturedTables, arena: Allocator, sql: []const u8, oid: u32) ![]const u32 {
        const text = try std.fmt.allocPrint(arena, "{d}", .{oid});
        const rows = try self.session.rows(1, arena, sql, &.{text}, doing);
        const found = try arena.alloc(u32, rows.len);
        for (found, rows) |*each, row| each.* = row.number(u32, 0);
        return found;
    }

    /// Partitions may have their columns in any order; of one table they have one order here.
    fn orderOf(
        self: *CapturedTables,
        arena: Allocator,
        table: *const Table,
        relation: *const PublishedRelation,
        is_partition: bool,
    ) ![]const usize {
        _ = self;
        var order: std.ArrayList(usize) = .empty;
        if (table.stream.columns) |names| {
            for (names) |name| if (relation.placeOf(name)) |i| try order.append(arena, i);
            return order.items;
        }
        if (is_partition) for (table.columns) |column| {
            if (relation.placeOf(column.name)) |i| try order.append(arena, i);
        };
        for (0..relation.columns.len) |i| {
            if (std.mem.findScalar(usize, order.items, i) == null) try order.append(arena, i);
        }
        return order.items;
    }

    fn columnAs(self: *CapturedTables, name: []const u8, of: Modified, is_not_null: bool, is_forced_text: bool) !Column {
        const known: Type = self.types.get(of) orelse .{
            .name = self.told_types.get(of.oid) orelse "text",
            .category = 'b',
            .element = null,
            .base = null,
        };
        return columnOf(.{
            .name = name,
            .type_name = known.name,
            .type_oid = if (known.base == null) 0 else of.oid,
            .typmod = of.modifier,
            .category = known.category,
            .nullable = !is_not_null,
            .element = known.element,
            .cast_differs = false,
            .prints_names = false,
        }, known.base, is_not_null, is_forced_text, self.session.connection.server_version >= postgres.values.infinite_intervals_since);
    }

    /// Asks the catalog about types that are not known yet. One that was dropped since stays unknown.
    fn lookUp(self: *CapturedTables, asked: []const Modified) !void {
        var arena: std.heap.ArenaAllocator = .init(self.gpa);
        defer arena.deinit();
        var type_oids: std.ArrayList(u8) = .empty;
        var modifiers: std.ArrayList(u8) = .empty;
        for (asked) |each| {
            if (self.types.contains(each)) continue;
            const separator: u8 = if (type_oids.items.len == 0) '{' else ',';
            try type_oids.print(arena.allocator(), "{c}{d}", .{ separator, each.oid });
            try modifiers.print(arena.allocator(), "{c}{d}", .{ separator, each.modifier });
        }
        if (type_oids.items.len == 0) return;
        try type_oids.append(arena.allocator(), '}');
        try modifiers.append(arena.allocator(), '}');
        const own = self.arena.allocator();
        const parameters = [_]?[]const u8{ type_oids.items, modifiers.items };
        for (try self.session.rows(11, own, @embedFile("sql/capture_types.sql"), &parameters, doing)) |row| {
            try self.types.put(self.gpa, .{ .oid = row.number(u32, 0), .modifier = row.number(i32, 1) }, .{
                .name = row.text(2),
                .category = row.letter(3),
                .element = if (row.optional(4) == null) null else .{
                    .oid = row.number(u32, 4),
                    .category = row.letter(5),
                    .type_name = row.text(6),
                },
                .base = .{
                    .oid = row.number(u32, 7),
                    .category = row.letter(8),
                    .element = if (row.optional(9) == null) null else .{
                        .oid = row.number(u32, 9),
                        .category = row.letter(10),
                    },
                },
            });
        }
    }

    const Catalog = struct {
        columns: []const CatalogColumn,
        primary_key: []const []const u8,

        fn column(self: *const Catalog, name: []const u8) ?*const CatalogColumn {
            for (self.columns) |*each| if (std.mem.eql(u8, each.name, name)) return each;
            return null;
        }
    };

    fn catalogOf(self: *CapturedTables, arena: Allocator, oid: u32) !Catalog {
        const text = try std.fmt.allocPrint(arena, "{d}", .{oid});
        const rows = try self.session.rows(6, arena, @embedFile("sql/capture_columns.sql"), &.{text}, doing);
        const columns = try arena.alloc(CatalogColumn, rows.len);
        var primary_key: std.ArrayList([]const u8) = .empty;
        for (columns, rows) |*column, row| {
            const value = row.optional(4);
            // Metadata is UTF-8, whatever the database is in.
            const is_told = value != null and std.unicode.utf8ValidateSlice(value.?);
            column.* = .{
                .name = row.text(0),
                .is_not_null = row.isTrue(1),
                .type_oid = row.number(u32, 3),
                .before = if (is_told) .{ .value = value.? } else if (value != null or row.isTrue(5)) .untold else .null,
            };
            if (row.optional(2) != null) try primary_key.append(arena, row.text(0));
        }
        return .{ .columns = columns, .primary_key = primary_key.items };
    }
};

fn namesOf(arena: Allocator, relation: *const PublishedRelation, columns: []const u16) Allocator.Error![]const []const u8 {
    const names = try arena.alloc([]const u8, columns.len);
    for (names, columns) |*name, i| name.* = relation.columns[i].name;
    return names;
}

/// Null where there are none, or not all of them.
fn columnsNamed(arena: Allocator, relation: *const PublishedRelation, names: []const []const u8) Allocator.Error!?[]const u16 {
    if (names.len == 0) return null;
    const columns = try arena.alloc(u16, names.len);
    for (columns, names) |*place, name| place.* = relation.placeOf(name) orelse return null;
    return columns;
}

/// `{a,"b c"}`
fn arrayOf(arena: Allocator, texts: []const []const u8) Allocator.Error![]const u8 {
    var array: std.ArrayList(u8) = .empty;
    try array.append(arena, '{');
    for (texts, 0..) |text, i| {
        if (i > 0) try array.append(arena, ',');
        const start = array.items.len;
        try array.appendSlice(arena, text);
        try postgres.printed.quoteFrom(&array, arena, start);
    }
    try array.append(arena, '}');
    return array.items;
}
