//! assert_in: the column's value is one of a list.

const std = @import("std");
const sdk = @import("sdk");
const transform = @import("transform");
const decimal = @import("decimal.zig");
const domain_module = @import("domain.zig");
const float = @import("range.zig").float;

const Allocator = std.mem.Allocator;
const Decimal = decimal.Decimal;
const Domain = domain_module.Domain;
const Number = decimal.Number;
const Ordinals = domain_module.Ordinals;
const Reason = transform.Reason;
const Rows = transform.Rows;
const arrow = sdk.arrow;
const json = sdk.json;

/// Bytes of the list that a message shows.
const shown_max = 200;

pub const Choice = struct {
    values: Values,
    reason: Reason,

    /// Sorted, where they have an order.
    const Values = union(enum) {
        texts: std.StringHashMapUnmanaged(void),
        ordinals: struct { domain: Domain, sorted: []const i64 },
        decimals128: []const i128,
        decimals256: []const i256,
        floats: struct { domain: Domain, sorted: []const f64 },
        numbers: []const Decimal,
        uuids: []const [16]u8,
        booleans: struct { has_false: bool, has_true: bool },
    };

    /// Everything lives in `arena`. `path`: where the rule is in the config.
    pub fn init(
        arena: Allocator,
        path: []const u8,
        values: []const json.Value,
        field: *const arrow.Field,
        type_name: []const u8,
    ) !Choice {
        const domain: Domain = .of(field, type_name);
        switch (domain) {
            .bytes, .interval, .list => return sdk.fail(
                .config,
                "{s}: column {s} is {s}, which is not compared with a list",
                .{ path, field.name, type_name },
            ),
            else => {},
        }
        var reader: Reader = .{ .arena = arena, .path = path, .field = field, .type_name = type_name, .domain = domain };
        const read = try reader.read(values);
        return .{ .values = read, .reason = .{
            .message = try std.fmt.allocPrint(arena, "{s} is none of {s} (assert_in)", .{ field.name, try told(arena, values) }),
            .column = field.name,
        } };
    }

    pub fn judge(self: *const Choice, texts: *transform.Texts, view: *const arrow.ArrayView, rows: *Rows) !void {
        switch (self.values) {
            .ordinals => |values| {
                const ordinals: Ordinals = .{ .domain = values.domain, .view = view };
                switch (ordinals.ofView()) {
                    inline else => |layout| for (0..view.length) |row| {
                        if (view.isNull(row)) continue;
                        const value = ordinals.at(layout, row);
                        if (value == null or !isAmong(i64, values.sorted, value.?)) try rows.refuse(row, self.reason);
                    },
                }
            },
            else => for (0..view.length) |row| {
                if (view.isNull(row)) continue;
                if (!try self.holds(texts, view, row)) try rows.refuse(row, self.reason);
            },
        }
    }

    fn holds(self: *const Choice, texts: *transform.Texts, view: *const arrow.ArrayView, row: usize) !bool {
        return switch (self.values) {
            .ordinals => unreachable,
            .texts => |known| known.contains(try texts.at(sdk.connector.gpa, view, row)),
            .decimals128 => |sorted| isAmong(i128, sorted, view.fixed(i128)[row]),
            .decimals256 => |sorted| isAmong(i256, sorted, view.fixed(i256)[row]),
            .floats => |values| isAmong(f64, values.sorted, domain_module.floatAt(values.domain, view, row) orelse return false),
            .numbers => |sorted| blk: {
                const number = Number.parse(view.bytesAt(row)) orelse break :blk false;
                if (number != .finite) break :blk false;
                break :blk std.sort.binarySearch(Decimal, sorted, number.finite, Decimal.order) != null;
            },
            .uuids => |known| for (known) |*uuid| {
                if (std.mem.eql(u8, uuid, view.bytesAt(row))) break true;
            } else false,
            .booleans => |known| if (isTrue(view, row)) known.has_true else known.has_false,
        };
    }
};

fn isTrue(view: *const arrow.ArrayView, row: usize) bool {
    return if (view.type == .bool) view.boolAt(row) else std.mem.startsWith(u8, view.bytesAt(row), "t");
}

fn isAmong(comptime T: type, sorted: []const T, value: T) bool {
    // NaN is in no list, and has no place in the order.
    return std.sort.binarySearch(T, sorted, value, struct {
        fn order(wanted: T, item: T) std.math.Order {
            return if (wanted == item) .eq else if (wanted < item) .lt else .gt;
        }
    }.order) != null;
}

const Reader = struct {
    arena: Allocator,
    path: []const u8,
    field: *const arrow.Field,
    type_name: []const u8,
    domain: Domain,

    fn read(self: *Reader, values: []const json.Value) !Choice.Values {
        switch (self.domain) {
            .boolean => {
                var has_false = false;
                var has_true = false;
                for (values, 0..) |value, i| {
                    if (value != .bool) return self.refused(i, value);
                    if (value.bool) has_true = true else has_false = true;
                }
                return .{ .booleans = .{ .has_false = has_false, .has_true = has_true } };
            },
            .integer, .date, .time, .timestamp, .timestamptz => {
                const sorted = try self.arena.alloc(i64, values.len);
                for (sorted, values, 0..) |*ordinal, value, i| {
                    const text = try domain_module.numberText(self.arena, value) orelse return self.refused(i, value);
                    ordinal.* = self.domain.ordinal(text) orelse return self.refused(i, value);
                }
                std.mem.sort(i64, sorted, {}, std.sort.asc(i64));
                return .{ .ordinals = .{ .domain = self.domain, .sorted = sorted } };
            },
            .numeric => switch (self.field.type) {
                .decimal128 => |of| return .{ .decimals128 = try self.decimals(i128, values, of.scale, 38) },
                .decimal256 => |of| return .{ .decimals256 = try self.decimals(i256, values, of.scale, 76) },
                else => {
                    const sorted = try self.arena.alloc(Decimal, values.len);
                    for (sorted, values, 0..) |*each, value, i| each.* = try self.number(value, i);
                    std.mem.sort(Decimal, sorted, {}, struct {
                        fn isBelow(_: void, a: Decimal, b: Decimal) bool {
                            return a.order(b) == .lt;
                        }
                    }.isBelow);
                    return .{ .numbers = sorted };
                },
            },
            .real, .double => {
                const sorted = try self.arena.alloc(f64, values.len);
                for (sorted, values, 0..) |*each, value, i| {
                    const written = try self.number(value, i);
                    each.* = if (self.domain == .real) try float(f32, written) else try float(f64, written);
                }
                std.mem.sort(f64, sorted, {}, std.sort.asc(f64));
                return .{ .floats = .{ .domain = self.domain, .sorted = sorted } };
            },
            .uuid => if (self.field.type == .fixed_size_binary) {
                const uuids = try self.arena.alloc([16]u8, values.len);
                for (uuids, values, 0..) |*uuid, value, i| uuid.* = uuidOf(value) orelse return self.refused(i, value);
                return .{ .uuids = uuids };
            } else return self.texts(values),
            .text, .other => return self.texts(values),
            .bytes, .interval, .list => unreachable,
        }
    }

    fn texts(self: *Reader, values: []const json.Value) !Choice.Values {
        var known: std.StringHashMapUnmanaged(void) = .empty;
        for (values, 0..) |value, i| {
            if (value != .string) return self.refused(i, value);
            const text = try self.arena.dupe(u8, value.string);
            // As PostgreSQL prints them.
            if (self.domain == .uuid) {
                if (uuidOf(value) == null) return self.refused(i, value);
                for (text) |*byte| byte.* = std.ascii.toLower(byte.*);
            }
            try known.put(self.arena, text, {});
        }
        return .{ .texts = known };
    }

    /// Values that the column cannot have are the config's mistake.
    fn decimals(self: *Reader, comptime Int: type, values: []const json.Value, scale: i32, digits: u8) ![]const Int {
        const sorted = try self.arena.alloc(Int, values.len);
        for (sorted, values, 0..) |*scaled, value, i| {
            const written = try self.number(value, i);
            scaled.* = written.scaled(Int, scale, digits, .down);
            if (scaled.* != written.scaled(Int, scale, digits, .up)) return self.refused(i, value);
        }
        std.mem.sort(Int, sorted, {}, std.sort.asc(Int));
        return sorted;
    }

    fn number(self: *Reader, value: json.Value, i: usize) !Decimal {
        const text = try domain_module.numberText(self.arena, value) orelse return self.refused(i, value);
        const written = try Decimal.parseWritten(self.arena, text) orelse return self.refused(i, value);
        if (value == .float and written.significantDigits() > domain_module.sure_digits) return sdk.fail(
            .config,
            "{s}.values[{d}]: found a number of more than {d} digits; put it in quotes, so that none is lost",
            .{ self.path, i, domain_module.sure_digits },
        );
        return written;
    }

    fn refused(self: *const Reader, i: usize, value: json.Value) error{ OutOfMemory, Failed } {
        const text = try json.stringify(self.arena, value);
        return sdk.fail(
            .config,
            "{s}.values[{d}]: found {s}; allowed for column {s} ({s}): {s}",
            .{ self.path, i, text, self.field.name, self.type_name, self.domain.example() },
        );
    }
};

fn uuidOf(value: json.Value) ?[16]u8 {
    if (value != .string or value.string.len != 36) return null;
    var digits: [32]u8 = undefined;
    var count: usize = 0;
    for (value.string, 0..) |byte, i| {
        const is_dash = i == 8 or i == 13 or i == 18 or i == 23;
        if (is_dash != (byte == '-')) return null;
        if (is_dash) continue;
        digits[count] = byte;
        count += 1;
    }
    var uuid: [16]u8 = undefined;
    _ = std.fmt.hexToBytes(&uuid, &digits) catch return null;
    return uuid;
}

/// `new, paid, …`
fn told(arena: Allocator, values: []const json.Value) Allocator.Error![]const u8 {
    var text: std.ArrayList(u8) = .empty;
    for (values, 0..) |value, i| {
        if (i > 0) try text.appendSlice(arena, ", ");
        const written = if (value == .string) value.string else try json.stringify(arena, value);
        if (text.items.len + written.len > shown_max) {
            try text.appendSlice(arena, "…");
            break;
        }
        try text.appendSlice(arena, written);
    }
    return text.items;
}
