//! A stream as the host describes it, and what can be said against it before the server is asked.

const std = @import("std");
const sdk = @import("sdk");
const Relation = @import("relation.zig").Relation;

const Allocator = std.mem.Allocator;

pub const SyncMode = enum { full_refresh, incremental, cdc };

/// How the destination writes: what the source reads depends on it only where rows have to be told apart.
pub const WriteMode = enum { append, replace, upsert };

/// What becomes of a row that cannot be read because of what is in it.
pub const OnDataError = enum { fail, skip, dlq };

/// What a deleted row leaves at a destination that mirrors the table.
pub const Deletes = enum { hard, soft };

/// One state of the database, which an instance that made it with `rb_snapshot` holds.
pub const Snapshot = struct {
    /// For SET TRANSACTION SNAPSHOT.
    id: []const u8,
    /// What was committed before is in it, and nothing else.
    lsn: []const u8,
    /// When it was taken, as the server prints it; null: not told.
    taken_at: ?[]const u8 = null,
    /// Whose it is; null: not told.
    system: ?[]const u8 = null,
};

pub const Stream = struct {
    name: []const u8,
    schema: ?[]const u8 = null,
    sync_mode: []const u8 = "full_refresh",
    columns: ?[]const []const u8 = null,
    filter: ?[]const u8 = null,
    cursor_field: ?[]const u8 = null,
    tie_breaker_field: ?[]const u8 = null,
    /// Seconds.
    cursor_lag: ?u64 = null,
    write_mode: WriteMode = .append,
    /// As the pipeline names it; null: the relation's own.
    primary_key: ?[]const []const u8 = null,
    /// How many parts to read side by side; null: as many as are worth it.
    shards: ?u32 = null,
    /// What to divide it by, instead of where its rows lie. Need not be read.
    partition_key: ?[]const u8 = null,
    on_data_error: OnDataError = .fail,
    /// Of a stream that captures changes, as what follows: null where rows are not mirrored but kept as a history.
    deletes: ?Deletes = null,
    /// What its first rows are read from.
    snapshot: ?Snapshot = null,
    /// Null: the config's.
    replication_slot: ?[]const u8 = null,
    publication: ?[]const u8 = null,

    /// The sync mode, when it is one of those that this connector has.
    pub fn mode(self: *const Stream) sdk.errors.Failed!SyncMode {
        const sync_mode = std.meta.stringToEnum(SyncMode, self.sync_mode) orelse return sdk.fail(
            .unsupported,
            "stream {s}: sync_mode {s} is not supported yet",
            .{ self.name, self.sync_mode },
        );
        if (self.filter) |filter| if (std.mem.findScalar(u8, filter, 0) != null)
            return sdk.fail(.config, "stream {s}: the filter holds a NUL character", .{self.name});
        return sync_mode;
    }

    /// The key of the rows: the pipeline's, else the relation's own. Empty: there is none.
    pub fn key(self: *const Stream, relation: *const Relation) []const []const u8 {
        return self.primary_key orelse relation.primary_key;
    }

    /// What an incremental stream must say, and must not.
    fn requireCursor(self: *const Stream) sdk.errors.Failed!void {
        const cursor_field = self.cursor_field orelse return sdk.errors.failHinted(
            .config,
            "name the column whose values only grow, a time of change for instance",
            "stream {s}: sync_mode incremental needs a cursor_field",
            .{self.name},
        );
        if (self.tie_breaker_field) |tie_breaker| if (std.mem.eql(u8, tie_breaker, cursor_field))
            return sdk.errors.failHinted(
                .config,
                "name a column that tells rows of equal cursor apart, or leave tie_breaker_field out",
                "stream {s}: tie_breaker_field is the cursor_field itself ({s})",
                .{ self.name, cursor_field },
            );
        if (self.cursor_lag != null and self.write_mode != .upsert) return sdk.errors.failHinted(
            .config,
            "use write_mode upsert, or leave cursor_lag out",
            "stream {s}: cursor_lag reads rows again, which write_mode {t} would repeat",
            .{ self.name, self.write_mode },
        );
    }

    /// Columns that the stream names for a purpose: they must exist and be read.
    pub fn requireColumns(self: *const Stream, arena: Allocator, relation: *const Relation) !void {
        const sync_mode = try self.mode();
        const incremental = sync_mode == .incremental;
        if (incremental) {
            try self.requireCursor();
            try self.requireColumn(arena, relation, "cursor_field", self.cursor_field.?);
            if (self.tie_breaker_field) |name| try self.requireColumn(arena, relation, "tie_breaker_field", name);
        }
        if (self.primary_key) |names| {
            for (names) |name| try self.requireColumn(arena, relation, "primary_key", name);
        } else if (self.write_mode == .upsert or (incremental and self.tie_breaker_field == null)) {
            for (relation.primary_key) |name| try self.requireColumn(arena, relation, "the primary key", name);
        }
        if (self.partition_key) |name| {
            if (relation.column(name) == null) return relation.missingColumns(arena, "partition_key", name);
        }
        // What identifies a captured row is its replica identity: `Captured` looks into that.
        if (sync_mode == .cdc) return;
        if (self.write_mode == .upsert and self.key(relation).len == 0) return sdk.errors.failHinted(
            .config,
            "name the columns of `primary_key`, or choose another write_mode",
            "stream {s}: upsert without a key: {s}.{s} has no primary key and the pipeline names none",
            .{ self.name, relation.schema, relation.name },
        );
    }

    fn requireColumn(self: *const Stream, arena: Allocator, relation: *const Relation, role: []const u8, name: []const u8) !void {
        if (relation.column(name) == null) return relation.missingColumns(arena, role, name);
        const columns = self.columns orelse return;
        for (columns) |column| if (std.mem.eql(u8, column, name)) return;
        return sdk.errors.failHinted(
            .config,
            try std.fmt.allocPrint(arena, "add {s} to `columns`", .{name}),
            "stream {s}: column {s} ({s}) is not among its `columns`",
            .{ self.name, name, role },
        );
    }
};
