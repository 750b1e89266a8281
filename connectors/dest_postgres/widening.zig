//! Which types hold every value of another, so that a column can take the one in the other's place and loses nothing.
//! Types are named as `format_type` prints them.

const std = @import("std");

/// Whether `wide` holds what `narrow` can hold. The cast between them exists, and an ALTER TABLE makes it by itself.
pub fn holds(wide: []const u8, narrow: []const u8) bool {
    if (std.mem.eql(u8, wide, narrow)) return true;
    if (element(wide)) |wide_element| {
        return holds(wide_element, element(narrow) orelse return false);
    }
    // Everything has a text form.
    if (std.mem.eql(u8, wide, "text") or std.mem.eql(u8, wide, "character varying")) return true;
    const to: Name = .parse(wide);
    const from: Name = .parse(narrow);
    if (digits(&from)) |narrow_digits| return holdsIntegers(&to, narrow_digits);
    if (from.is("numeric", "")) return to.is("numeric", "") and holdsNumeric(&to, &from);
    if (from.is("real", "")) return to.is("double precision", "");
    if (from.is("date", "")) return to.is("timestamp", " without time zone");
    if (from.is("cidr", "")) return to.is("inet", "");
    if (from.is("character", "")) return holdsLonger(&to, "character", &from) or holdsLonger(&to, "character varying", &from);
    if (from.is("character varying", "")) return holdsLonger(&to, "character varying", &from);
    if (from.is("bit", "")) return to.is("bit varying", "") and grows(&to, &from);
    inline for (.{
        .{ "bit varying", "" },              .{ "interval", "" },
        .{ "timestamp", " with time zone" }, .{ "timestamp", " without time zone" },
        .{ "time", " with time zone" },      .{ "time", " without time zone" },
    }) |same| if (from.is(same[0], same[1])) return to.is(same[0], same[1]) and grows(&to, &from);
    return false;
}

/// `timestamp(3) without time zone`: what stands before and behind the modifiers, and those.
const Name = struct {
    before: []const u8,
    modifiers: [2]?i32 = .{ null, null },
    behind: []const u8 = "",

    fn parse(text: []const u8) Name {
        const open = std.mem.findScalar(u8, text, '(') orelse {
            // Without modifiers it is one word or several; those of time belong behind.
            inline for (.{ " with time zone", " without time zone" }) |zone| if (std.mem.endsWith(u8, text, zone))
                return .{ .before = text[0 .. text.len - zone.len], .behind = zone };
            return .{ .before = text };
        };
        const close = std.mem.findScalarPos(u8, text, open, ')') orelse return .{ .before = text };
        var self: Name = .{ .before = text[0..open], .behind = text[close + 1 ..] };
        var parts = std.mem.splitScalar(u8, text[open + 1 .. close], ',');
        for (&self.modifiers) |*modifier| {
            const part = parts.next() orelse break;
            modifier.* = std.fmt.parseInt(i32, part, 10) catch return .{ .before = text };
        }
        return self;
    }

    fn is(self: *const Name, before: []const u8, behind: []const u8) bool {
        return std.mem.eql(u8, self.before, before) and std.mem.eql(u8, self.behind, behind);
    }
};

fn element(name: []const u8) ?[]const u8 {
    return if (std.mem.endsWith(u8, name, "[]")) name[0 .. name.len - 2] else null;
}

/// Of the largest value of an integer type.
fn digits(name: *const Name) ?i32 {
    if (name.is("smallint", "")) return 5;
    if (name.is("integer", "")) return 10;
    if (name.is("bigint", "")) return 19;
    return null;
}

fn holdsIntegers(to: *const Name, narrow_digits: i32) bool {
    if (digits(to)) |wide_digits| return wide_digits > narrow_digits;
    // Their mantissas have 24 and 53 bits.
    if (to.is("real", "")) return narrow_digits <= 5;
    if (to.is("double precision", "")) return narrow_digits <= 10;
    if (!to.is("numeric", "")) return false;
    const precision = to.modifiers[0] orelse return true;
    const scale = to.modifiers[1] orelse 0;
    return scale >= 0 and precision - scale >= narrow_digits;
}

fn holdsNumeric(to: *const Name, from: *const Name) bool {
    const wide = to.modifiers[0] orelse return true;
    const narrow = from.modifiers[0] orelse return false;
    const wide_scale = to.modifiers[1] orelse 0;
    const narrow_scale = from.modifiers[1] orelse 0;
    return wide_scale >= narrow_scale and wide - wide_scale >= narrow - narrow_scale;
}

fn holdsLonger(to: *const Name, before: []const u8, from: *const Name) bool {
    return to.is(before, "") and grows(to, from);
}

/// A length or a precision; none is the largest.
fn grows(to: *const Name, from: *const Name) bool {
    const wide = to.modifiers[0] orelse return true;
    return wide >= from.modifiers[0] orelse return false;
}

test "wider types hold every value of narrower ones" {
    const pairs = [_][2][]const u8{
        .{ "smallint", "integer" },                                     .{ "integer", "bigint" },
        .{ "bigint", "numeric" },                                       .{ "integer", "numeric(12,2)" },
        .{ "smallint", "real" },                                        .{ "integer", "double precision" },
        .{ "real", "double precision" },                                .{ "numeric(10,2)", "numeric(12,2)" },
        .{ "numeric(10,2)", "numeric(12,4)" },                          .{ "numeric(10,2)", "numeric" },
        .{ "character varying(5)", "character varying(10)" },           .{ "character varying(5)", "text" },
        .{ "character varying(5)", "character varying" },               .{ "character(3)", "character varying(3)" },
        .{ "character(3)", "character(4)" },                            .{ "character(3)", "text" },
        .{ "uuid", "text" },                                            .{ "integer", "text" },
        .{ "date", "timestamp without time zone" },                     .{ "cidr", "inet" },
        .{ "timestamp(3) with time zone", "timestamp with time zone" }, .{ "time(0) without time zone", "time(3) without time zone" },
        .{ "integer[]", "bigint[]" },                                   .{ "integer[]", "text" },
        .{ "bit(3)", "bit varying(3)" },                                .{ "interval(3)", "interval" },
    };
    for (pairs) |pair| {
        errdefer std.debug.print("{s} -> {s}\n", .{ pair[0], pair[1] });
        try std.testing.expect(holds(pair[1], pair[0]));
        try std.testing.expect(!holds(pair[0], pair[1]));
    }
    const others = [_][2][]const u8{
        .{ "bigint", "double precision" },            .{ "integer", "real" },
        .{ "integer", "numeric(9,0)" },               .{ "integer", "numeric(11,2)" },
        .{ "numeric(10,2)", "numeric(11,4)" },        .{ "numeric(10,2)", "bigint" },
        .{ "double precision", "numeric" },           .{ "timestamp without time zone", "timestamp with time zone" },
        .{ "date", "timestamp with time zone" },      .{ "json", "jsonb" },
        .{ "text", "uuid" },                          .{ "integer", "bigint[]" },
        .{ "character varying(5)", "character(5)" },  .{ "timestamp with time zone", "timestamp(3) with time zone" },
        .{ "interval day to second(3)", "interval" },
    };
    for (others) |pair| {
        errdefer std.debug.print("{s} -> {s}\n", .{ pair[0], pair[1] });
        try std.testing.expect(!holds(pair[1], pair[0]));
    }
}
