//! The changes of one table: how their messages are read, and where they wait until they are applied.
//!
//!     _rb_op  _rb_lsn  _rb_seq  _rb_commit_ts  _rb_unchanged │ the table's columns …
//!       2      51200      7        12:00:00        0b100     │  7   "a"   NULL: not told
//!
//! LSN of the commit and number in the transaction are the order of all changes, over all tables.

const std = @import("std");
const sdk = @import("sdk");
const cells = @import("cells.zig");
const shape = @import("shape.zig");

const Allocator = std.mem.Allocator;
const ArrayView = sdk.arrow.ArrayView;
const arrow = sdk.arrow;

pub const Op = enum(i16) {
    insert = 1,
    update = 2,
    delete = 3,
    truncate = 4,
    /// The old row of the update that follows: its key, or all of it.
    old = 5,

    /// Whether the row is there no more.
    pub fn deletes(self: Op) bool {
        return switch (self) {
            .delete, .truncate, .old => true,
            .insert, .update => false,
        };
    }

    /// As a history's rows have it.
    pub fn name(self: Op) []const u8 {
        return if (self == .old) "delete" else @tagName(self);
    }
};

/// Commit LSN and number in the transaction, as one number.
pub const Position = u128;

/// The first columns of each message.
const told_first = [_]struct { []const u8, arrow.Type }{
    .{ "_rb_op", .int16 },
    .{ "_rb_lsn", .int64 },
    .{ "_rb_seq", .int64 },
    .{ "_rb_commit_ts", .{ .timestamp = .{ .utc = true } } },
    .{ "_rb_unchanged", .binary },
};

/// What a field tells of rows that are older than their column: the value that they have in it, or that nobody knows.
pub const keys = struct {
    pub const missing = "rapidbyte:missing";
    pub const untold = "rapidbyte:untold";
};

pub fn isOfRowsBefore(key: []const u8) bool {
    return std.mem.eql(u8, key, keys.missing) or std.mem.eql(u8, key, keys.untold);
}

pub const Identity = enum { default, index, full, nothing };

/// What a schema message says of one table's changes.
pub const Shape = struct {
    /// Of the messages that follow.
    wire: arrow.Schema,
    /// Of the table, as rb_read would tell it: without what is told of the changes.
    table: arrow.Schema,
    replica_identity: Identity,
    /// The columns that tell which row is changed; null where the whole row does, or nothing.
    identity: ?[]const []const u8,

    /// The stream that the message is about.
    pub fn streamOf(arena: Allocator, message: []const u8) ![]const u8 {
        const wire = try shape.read(arena, message);
        return wire.get("rapidbyte:stream") orelse
            sdk.fail(.protocol, "a schema message of changes does not name its stream", .{});
    }

    /// Everything lives in `arena`.
    pub fn read(arena: Allocator, message: []const u8) !Shape {
        const wire = try shape.read(arena, message);
        if (wire.fields.len < told_first.len) return malformed("columns are missing");
        for (told_first, wire.fields[0..told_first.len]) |expected, *field| {
            if (!std.mem.eql(u8, field.name, expected[0]) or !field.type.eql(expected[1])) return malformed(expected[0]);
        }
        const told = wire.fields[told_first.len..];
        if (told.len == 0) return sdk.errors.failHinted(
            .schema,
            "give its table a column, or take the stream out of the pipeline",
            "the stream has no columns",
            .{},
        );
        const fields = try arena.dupe(arrow.Field, told);
        for (fields) |*field|
            field.nullable = !std.mem.eql(u8, field.get("rapidbyte:not_null") orelse "", "true");
        const identity = wire.get("rapidbyte:identity") orelse "null";
        return .{
            .wire = wire,
            .table = .{ .fields = fields, .metadata = wire.metadata },
            .replica_identity = std.meta.stringToEnum(Identity, wire.get("rapidbyte:replica_identity") orelse "") orelse
                return malformed("rapidbyte:replica_identity"),
            .identity = sdk.json.parse(?[]const []const u8, arena, identity) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                else => return malformed("rapidbyte:identity"),
            },
        };
    }

    fn malformed(what: []const u8) sdk.errors.Failed {
        return sdk.fail(.protocol, "a schema message of changes is not as it has to be: {s}", .{what});
    }
};

/// One row of one of the waiting batches.
pub const Ref = struct {
    batch: u32,
    row: u32,

    pub const none: Ref = .{ .batch = std.math.maxInt(u32), .row = 0 };

    pub fn isNone(self: Ref) bool {
        return self.batch == none.batch;
    }
};

pub const Batch = struct {
    /// The memory of everything below.
    message: []align(16) u8,
    reader: arrow.BatchReader,
    rows: usize,
    ops: []align(1) const Op,
    lsns: []align(1) const i64,
    numbers: []align(1) const i64,
    times: *const ArrayView,
    unchanged: *const ArrayView,
    /// The table's columns, as they came.
    columns: []ArrayView,
    /// What is written of a row, in the order of the landing's columns.
    landed: []ArrayView = &.{},
    /// The key's columns among them.
    keyed: []ArrayView = &.{},

    /// Takes the message over, but not where it fails.
    fn decode(gpa: Allocator, schema: *const arrow.Schema, message: []align(16) u8) !Batch {
        var reader: arrow.BatchReader = .init(gpa);
        errdefer reader.deinit();
        const batch = try reader.decode(schema, message);
        for (batch.columns[0..4]) |*column| if (column.null_count > 0)
            return sdk.fail(.protocol, "a change does not say what, when or where it is", .{});
        const ops = batch.columns[0].fixed(i16);
        for (ops) |op| if (op < 1 or op > 5) return sdk.fail(.protocol, "{d} is no kind of change", .{op});
        return .{
            .message = message,
            .reader = reader,
            .rows = batch.rows,
            .ops = @ptrCast(ops),
            .lsns = batch.columns[1].fixed(i64),
            .numbers = batch.columns[2].fixed(i64),
            .times = &batch.columns[3],
            .unchanged = &batch.columns[4],
            .columns = batch.columns[told_first.len..],
        };
    }

    pub fn position(self: *const Batch, row: usize) Position {
        return @as(Position, @as(u64, @bitCast(self.lsns[row]))) << 64 | @as(u64, @bitCast(self.numbers[row]));
    }

    /// Whether an update does not tell all of its row.
    pub fn isPartial(self: *const Batch, row: usize) bool {
        return self.unchanged.null_count < self.rows and !self.unchanged.isNull(row);
    }

    /// Whether it does not tell the table's column of that number.
    pub fn isUnchanged(self: *const Batch, row: usize, column: usize) bool {
        if (!self.isPartial(row)) return false;
        const bits = self.unchanged.bytesAt(row);
        return column / 8 < bits.len and bits[column / 8] >> @intCast(column % 8) & 1 == 1;
    }

    /// For what lives as long as the batch.
    pub fn arena(self: *Batch) Allocator {
        return self.reader.arena.allocator();
    }

    pub fn view(self: *const Batch, which: Columns) arrow.Batch {
        return .{ .rows = self.rows, .columns = if (which == .landed) self.landed else self.keyed };
    }
};

pub const Columns = enum { landed, keyed };

pub const Changes = struct {
    gpa: Allocator,
    batches: std.ArrayList(Batch) = .empty,
    rows: u64 = 0,
    bytes: usize = 0,
    /// Values of rows that may have to be pieced together.
    cells: usize = 0,

    pub fn deinit(self: *Changes) void {
        self.clear();
        self.batches.deinit(self.gpa);
    }

    pub fn clear(self: *Changes) void {
        for (self.batches.items) |*batch| {
            batch.reader.deinit();
            self.gpa.free(batch.message);
        }
        self.batches.clearRetainingCapacity();
        self.rows = 0;
        self.bytes = 0;
        self.cells = 0;
    }

    /// `message` is taken over.
    pub fn add(self: *Changes, schema: *const arrow.Schema, message: []align(16) u8) !*Batch {
        errdefer self.gpa.free(message);
        try self.batches.ensureUnusedCapacity(self.gpa, 1);
        self.batches.appendAssumeCapacity(try .decode(self.gpa, schema, message));
        const batch = &self.batches.items[self.batches.items.len - 1];
        self.rows += batch.rows;
        self.bytes += message.len;
        return batch;
    }

    pub fn at(self: *const Changes, ref: Ref) *const Batch {
        return &self.batches.items[ref.batch];
    }

    pub fn positionOf(self: *const Changes, ref: Ref) Position {
        return self.at(ref).position(ref.row);
    }

    pub fn op(self: *const Changes, ref: Ref) Op {
        return self.at(ref).ops[ref.row];
    }

    /// The rows from one position up to before another.
    pub fn within(self: *const Changes, span: Span) Iterator {
        return .{ .changes = self, .span = span };
    }

    pub const Iterator = struct {
        changes: *const Changes,
        span: Span,
        next_ref: Ref = .{ .batch = 0, .row = 0 },

        pub fn next(self: *Iterator) ?Ref {
            const batches = self.changes.batches.items;
            while (self.next_ref.batch < batches.len) {
                const batch = &batches[self.next_ref.batch];
                // Rows come in their order: a batch before the span is passed over at once.
                if (self.next_ref.row == 0 and batch.rows > 0 and batch.position(batch.rows - 1) < self.span.from)
                    self.next_ref.row = @intCast(batch.rows);
                while (self.next_ref.row < batch.rows) {
                    const ref = self.next_ref;
                    self.next_ref.row += 1;
                    if (self.span.isAll()) return ref;
                    const position = batch.position(ref.row);
                    if (position < self.span.from) continue;
                    if (position >= self.span.to) return null;
                    return ref;
                }
                self.next_ref = .{ .batch = self.next_ref.batch + 1, .row = 0 };
            }
            return null;
        }
    };
};

/// Positions from the one up to before the other.
pub const Span = struct {
    from: Position,
    to: Position,

    pub const all: Span = .{ .from = 0, .to = std.math.maxInt(Position) };

    pub fn isAll(self: Span) bool {
        return self.from == all.from and self.to == all.to;
    }
};

/// Which changes of a table are applied now.
pub const Filter = union(enum) {
    all,
    /// Those of no row that one of these is of.
    except: []const Ref,
    /// Those of the row that this one is of.
    only: Ref,

    /// `ways` has `sameRow(a, b)`, which tells whether two changes are of one row.
    pub fn passes(self: Filter, ways: anytype, ref: Ref) bool {
        return switch (self) {
            .all => true,
            .except => |held| for (held) |each| {
                if (ways.sameRow(each, ref)) break false;
            } else true,
            .only => |one| ways.sameRow(one, ref),
        };
    }

    /// An update with its old row is of both.
    pub fn passesBoth(self: Filter, ways: anytype, old: Ref, ref: Ref) bool {
        return switch (self) {
            .all => true,
            .except => self.passes(ways, old) and self.passes(ways, ref),
            .only => self.passes(ways, old) or self.passes(ways, ref),
        };
    }
};
