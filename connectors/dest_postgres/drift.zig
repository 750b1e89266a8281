//! How a stream differs from its table, and what became of it, as the host is told.

const std = @import("std");
const sdk = @import("sdk");

const Allocator = std.mem.Allocator;

pub const Kind = enum { new_column, removed_column, type_change, nullability_change, primary_key };

pub const Action = enum {
    /// The table gets the column.
    added,
    /// … and has NULL in rows that may have a value at the source.
    unfilled,
    /// A new column is left out; a removed one stays, and gets NULL.
    ignored,
    /// The table keeps the column, and NULL is written.
    kept,
    /// The table's column takes the stream's type.
    widened,
    /// Values are cast into the type that the column has.
    cast,
    /// … and NULL is written for those that do not fit.
    nulled,
    /// The table's column loses its NOT NULL.
    relaxed,
    /// The table's column gets NOT NULL.
    tightened,
    /// The table stays as it is.
    left,
    /// The policy is to fail.
    refused,
};

pub const Change = struct {
    kind: Kind,
    /// Null for the primary key.
    column: ?[]const u8,
    /// As the stream has it, and as the table has it; null where it has not.
    stream: ?[]const u8 = null,
    table: ?[]const u8 = null,
    /// The policy's value; null where there is none.
    policy: ?[]const u8 = null,
    action: Action,
    ddl: []const []const u8 = &.{},
    /// What differs, and behind a colon, what is done about it.
    message: []const u8,

    pub fn addDdl(self: *Change, arena: Allocator, sql: []const u8) !void {
        self.ddl = try std.mem.concat(arena, []const u8, &.{ self.ddl, &.{sql} });
    }

    /// A copy that lives as long as `arena`.
    pub fn dupe(self: *const Change, arena: Allocator) Allocator.Error!Change {
        var copy = self.*;
        inline for (.{ "column", "stream", "table", "policy" }) |name| {
            if (@field(self, name)) |text| @field(copy, name) = try arena.dupe(u8, text);
        }
        const ddl = try arena.alloc([]const u8, self.ddl.len);
        for (ddl, self.ddl) |*statement, sql| statement.* = try arena.dupe(u8, sql);
        copy.ddl = ddl;
        copy.message = try arena.dupe(u8, self.message);
        return copy;
    }

    /// Another action than the one that was planned.
    pub fn become(self: *Change, arena: Allocator, action: Action, comptime format: []const u8, args: anytype) !void {
        const found = if (std.mem.find(u8, self.message, ": ")) |end| self.message[0..end] else self.message;
        self.action = action;
        self.ddl = &.{};
        self.message = try std.fmt.allocPrint(arena, "{s}: " ++ format, .{found} ++ args);
    }
};

pub fn anyRefused(changes: []const Change) bool {
    for (changes) |change| if (change.action == .refused) return true;
    return false;
}

/// The failure of a stream whose changes are refused, after the host was told of all of them: as one of them is refused,
/// nothing is done about the others either.
pub fn refuse(arena: Allocator, stream: ?[]const u8, changes: []Change, label: []const u8) !void {
    var told: std.ArrayList(u8) = .empty;
    var axes: std.ArrayList(u8) = .empty;
    for (changes) |*change| {
        if (change.action != .refused) {
            try change.become(arena, .left, "nothing is done, because another change is refused", .{});
            continue;
        }
        if (told.items.len > 0) try told.appendSlice(arena, "; ");
        try told.print(arena, "{s} (schema_evolution.{t}: fail)", .{ change.message, change.kind });
        const instead = switch (change.kind) {
            .new_column => "new_column: add or ignore",
            .removed_column => "removed_column: ignore or add",
            .type_change => "type_change: coerce or 'null'",
            .nullability_change => "nullability_change: allow",
            .primary_key => unreachable,
        };
        if (std.mem.find(u8, axes.items, instead) != null) continue;
        if (axes.items.len > 0) try axes.appendSlice(arena, ", ");
        try axes.appendSlice(arena, instead);
    }
    try sdk.host.drift(arena, stream, changes);
    return sdk.errors.failHinted(
        .schema,
        try std.fmt.allocPrint(
            arena,
            "change the table or the stream's `columns` so that they agree, or allow it under `schema_evolution`: {s}",
            .{axes.items},
        ),
        "{s}: {s}",
        .{ label, told.items },
    );
}
