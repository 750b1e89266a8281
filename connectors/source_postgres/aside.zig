//! Rows that are left out because of what is in them: they fail the read, are counted, or become dead letters.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Letter = @import("letters.zig").Letter;
const OnDataError = @import("stream.zig").OnDataError;
const Row = @import("row.zig").Row;
const Selection = @import("selection.zig").Selection;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const Column = postgres.decode.Column;
const RowDecoder = postgres.decode.RowDecoder;

/// Characters of one key's value that are shown.
const shown_max = 100;

/// What is wrong with a row.
pub const Reason = struct {
    category: Category,
    /// Where the value stands that is at fault.
    column: ?usize = null,
    sqlstate: ?[]const u8 = null,
    /// A sentence, without the relation's name.
    message: []const u8,
    /// What to do about it.
    hint: []const u8,

    /// As the ABI names them.
    pub const Category = enum { out_of_range, invalid_text, oversized };

    /// Of an error of `decoder`, which keeps its `fault`. Null where the row is not to blame.
    pub fn ofDecoder(arena: Allocator, err: postgres.decode.Error, decoder: *const RowDecoder) Allocator.Error!?Reason {
        const fault = decoder.fault;
        switch (err) {
            error.OutOfMemory, error.ColumnTooLarge, error.Malformed => return null,
            error.OutOfRange => {
                const column = decoder.columns[fault.column.?];
                return .{
                    .category = .out_of_range,
                    .column = fault.column,
                    .message = try std.fmt.allocPrint(
                        arena,
                        "column {s} ({s}) has a value that Arrow's type for it cannot hold",
                        .{ column.name, column.type_name },
                    ),
                    .hint = "leave the column out with `columns`, or read a view that casts it to text",
                };
            },
            error.NotUtf8 => {
                const column = decoder.columns[fault.column.?];
                return .{
                    .category = .invalid_text,
                    .column = fault.column,
                    .sqlstate = "22021",
                    .message = try std.fmt.allocPrint(
                        arena,
                        "column {s} ({s}) holds bytes that are not UTF-8: 0x{x:0>2} at byte {d}",
                        .{ column.name, column.type_name, fault.byte, fault.at + 1 },
                    ),
                    .hint = "mend the row, leave the column out with `columns`, or read a view that casts it to bytea",
                };
            },
        }
    }

    pub fn oversized(arena: Allocator, row_bytes: usize) Allocator.Error!Reason {
        return .{
            .category = .oversized,
            .message = try std.fmt.allocPrint(
                arena,
                "a row of {d} bytes is too large for the connector's memory",
                .{row_bytes},
            ),
            .hint = "raise `limits.max_memory`, or leave large columns out with `columns`",
        };
    }
};

pub const Aside = struct {
    gpa: Allocator,
    on_data_error: OnDataError,
    doing: []const u8,
    columns: []const Column,
    /// Places of the columns that name a row to a reader.
    key: []const usize,
    letters: sdk.Letters,
    /// In all.
    rows: u64 = 0,
    /// Since the last barrier.
    unmarked: u64 = 0,
    /// Why the first row was left out.
    first: ?[]const u8 = null,

    pub fn init(
        gpa: Allocator,
        arena: Allocator,
        stream: *const Stream,
        selection: *const Selection,
        columns: []const Column,
    ) Allocator.Error!Aside {
        var key: std.ArrayList(usize) = .empty;
        for (stream.key(&selection.relation)) |name| if (selection.place(name)) |place| try key.append(arena, place);
        return .{
            .gpa = gpa,
            .on_data_error = stream.on_data_error,
            .doing = selection.doing,
            .columns = columns,
            .key = key.items,
            .letters = .init(gpa),
        };
    }

    pub fn deinit(self: *Aside) void {
        self.letters.deinit();
        if (self.first) |message| self.gpa.free(message);
    }

    /// Leaves the row out, or fails because of it.
    pub fn take(self: *Aside, row: Row, reason: *const Reason) !void {
        var arena: std.heap.ArenaAllocator = .init(self.gpa);
        defer arena.deinit();
        const name = try self.nameOf(arena.allocator(), row);
        switch (self.on_data_error) {
            .fail => return self.failed(reason, name),
            .skip => {},
            .dlq => {
                const told = if (name) |known| try std.mem.concat(arena.allocator(), u8, &.{ " (", known, ")" }) else "";
                const whole: ?Letter = switch (row) {
                    .whole => |bytes| .init(self.gpa, self.columns, bytes, reason),
                    .passed => null,
                };
                try self.letters.add(whole, Letter.named(self.gpa, self.columns, told, reason));
            },
        }
        self.rows += 1;
        self.unmarked += 1;
        if (self.first == null) self.first = try self.gpa.dupe(u8, reason.message);
    }

    pub fn failed(self: *const Aside, reason: *const Reason, name: ?[]const u8) sdk.errors.Failed {
        var message: [1024]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&message);
        // What is longer is cut.
        writer.print("{s}: {s}", .{ self.doing, reason.message }) catch {};
        var detail: [1024]u8 = undefined;
        var detail_writer: std.Io.Writer = .fixed(&detail);
        if (name) |known| detail_writer.print("the row with {s}", .{known}) catch {};
        return sdk.errors.failWith(.{
            .kind = if (reason.category == .oversized) .resource else .data,
            .message = writer.buffered(),
            .detail = if (name == null) null else detail_writer.buffered(),
            .hint = reason.hint,
            .sqlstate = reason.sqlstate,
        });
    }

    /// `id 7, part "x"`: the row's key, as far as it is read; null where there is none.
    fn nameOf(self: *const Aside, arena: Allocator, row: Row) Allocator.Error!?[]const u8 {
        if (self.key.len == 0) return null;
        const fields = try arena.alloc(?[]const u8, self.columns.len);
        row.split(fields) catch return null;
        var name: std.ArrayList(u8) = .empty;
        for (self.key, 0..) |place, i| {
            const column = &self.columns[place];
            if (i > 0) try name.appendSlice(arena, ", ");
            try name.print(arena, "{s} ", .{column.name});
            const bytes = fields[place] orelse {
                try name.appendSlice(arena, "NULL");
                continue;
            };
            var value: std.ArrayList(u8) = .empty;
            postgres.printed.append(&value, arena, column, bytes[0..@min(bytes.len, std.math.maxInt(u16))]) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                error.Malformed => try value.append(arena, '?'),
            };
            try name.appendSlice(arena, value.items[0..@min(value.items.len, shown_max)]);
            if (value.items.len > shown_max) try name.appendSlice(arena, "…");
        }
        return name.items;
    }

    /// Which fields `take` needs of a row that is not kept.
    pub fn looksAt(self: *const Aside, place: usize) bool {
        return std.mem.findScalar(usize, self.key, place) != null;
    }

    /// Rows that no letter tells of, since the last barrier.
    pub fn rejected(self: *const Aside) u64 {
        return if (self.on_data_error == .skip) self.unmarked else 0;
    }

    pub fn warn(self: *const Aside) void {
        if (self.on_data_error != .skip) return;
        sdk.host.log(
            .warning,
            "{s}: {d} rows were left out because of what is in them; of the first, {s}",
            .{ self.doing, self.rows, self.first orelse return },
        );
    }
};
