//! A column's values as the texts that `CAST (… AS text)` gives in PostgreSQL.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

pub const Texts = struct {
    field: *const arrow.Field,
    form: Form,
    text: std.ArrayList(u8) = .empty,

    /// `field` outlives it.
    pub fn init(field: *const arrow.Field, type_name: []const u8) Texts {
        return .{ .field = field, .form = .of(field, type_name) };
    }

    pub fn deinit(self: *Texts, gpa: Allocator) void {
        self.text.deinit(gpa);
    }

    /// Of a value that is not NULL. It lives until the next one.
    pub fn at(self: *Texts, gpa: Allocator, view: *const arrow.ArrayView, row: usize) Allocator.Error![]const u8 {
        switch (self.form) {
            .as_it_is => return view.bytesAt(row),
            .padded => return std.mem.trimEnd(u8, view.bytesAt(row), " "),
            .truth => {
                const is_true = if (view.type == .bool) view.boolAt(row) else std.mem.startsWith(u8, view.bytesAt(row), "t");
                return if (is_true) "true" else "false";
            },
            .printed => {
                self.text.clearRetainingCapacity();
                try postgres.arrow_text.append(&self.text, gpa, self.field, view, row);
                return self.text.items;
            },
        }
    }
};

const Form = enum {
    as_it_is,
    /// Of `char(n)`: without the blanks at its end.
    padded,
    /// `true` and `false`, which print as `t` and `f`.
    truth,
    printed,

    fn of(field: *const arrow.Field, type_name: []const u8) Form {
        if (std.mem.eql(u8, type_name, "boolean")) return .truth;
        if (field.type != .utf8) return .printed;
        inline for (.{ "character", "bpchar" }) |padded| {
            if (std.mem.eql(u8, type_name, padded) or postgres.types.isModified(type_name, padded)) return .padded;
        }
        return .as_it_is;
    }
};

test "a value is the text that a cast gives" {
    const gpa = std.testing.allocator;
    const Case = struct { arrow.Type, []const u8, []const u8, []const u8 };
    for ([_]Case{
        .{ .utf8, "text", "a ", "a " },
        .{ .utf8, "character(3)", "a  ", "a" },
        .{ .utf8, "boolean", "f", "false" },
        .{ .utf8, "numeric", "1.50", "1.50" },
        .{ .binary, "bytea", "\x01", "\\x01" },
    }) |case| {
        const field: arrow.Field = .{ .name = "c", .type = case[0] };
        var column: arrow.ColumnBuilder = try .init(gpa, field.type);
        defer column.deinit();
        try column.appendBytes(case[2]);
        const view = try column.view(gpa);
        var texts: Texts = .init(&field, case[1]);
        defer texts.deinit(gpa);
        try std.testing.expectEqualStrings(case[3], try texts.at(gpa, &view, 0));
    }
}
