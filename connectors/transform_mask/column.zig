//! One masked column: what type it has behind the mask, and its values.
//!
//! What is masked is the text that a cast to `text` gives in PostgreSQL, so that the same value is masked the same way
//! whatever column it is in.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const characters = @import("characters.zig");
const Action = @import("config.zig").Action;
const KeyedHash = @import("keyed_hash.zig").KeyedHash;
const Shape = @import("transform").Shape;
const Texts = @import("transform").Texts;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;

/// In the place of a text that is redacted, where the pipeline does not say what.
pub const redacted = "[redacted]";

const hash_characters = 2 * KeyedHash.digest_length;

pub const Column = struct {
    place: usize,
    action: Action,
    hash: *const KeyedHash,
    /// Of what comes.
    field: *const arrow.Field,
    texts: Texts,
    /// What goes out in the place of every value; null: NULL.
    replacement: ?[]const u8 = null,
    /// Of what goes out.
    masked: arrow.Field,
    builder: arrow.ColumnBuilder,

    /// Everything but the values lives in `arena`; `hash` and `action` outlive it.
    pub fn init(arena: Allocator, gpa: Allocator, shape: *const Shape, place: usize, action: Action, hash: *const KeyedHash) !Column {
        const field = &shape.schema.fields[place];
        const type_name = shape.types[place];
        const is_string = field.type == .utf8 and postgres.types.isString(type_name);
        if (action != .hash and shape.isKey(field.name)) return sdk.errors.failHinted(
            .config,
            "hash it, which keeps different keys different",
            "columns.{s}: {s} is part of the key of stream {s}, and {t} would make different keys the same",
            .{ field.name, field.name, shape.stream.name, action },
        );
        var replacement: ?[]const u8 = null;
        const masked: arrow.Field = switch (action) {
            .hash => if (is_string and holds(type_name, hash_characters)) field.* else try asText(arena, field),
            .redact => |named| blk: {
                if (!is_string and named != null) return sdk.errors.failHinted(
                    .config,
                    try std.fmt.allocPrint(arena, "write `{s}: redact`, which makes it NULL", .{field.name}),
                    "columns.{s}: {s} is {s}, and a text can be redacted by a text only where there are texts",
                    .{ field.name, field.name, type_name },
                );
                if (!is_string) {
                    var nullable = field.*;
                    nullable.nullable = true;
                    break :blk nullable;
                }
                replacement = named orelse redacted;
                break :blk if (holds(type_name, characters.count(replacement.?))) field.* else try asText(arena, field);
            },
            // Not longer than what came.
            .truncate, .keep_last => if (is_string) field.* else try asText(arena, field),
        };
        return .{
            .place = place,
            .action = action,
            .hash = hash,
            .field = field,
            .texts = .init(field, type_name),
            .replacement = replacement,
            .masked = masked,
            .builder = try .init(gpa, masked.type),
        };
    }

    pub fn deinit(self: *Column) void {
        self.texts.deinit(self.builder.gpa);
        self.builder.deinit();
    }

    /// The column behind the mask; it lives until the next one, what it needs beside in `scratch`.
    pub fn take(self: *Column, scratch: Allocator, view: *const arrow.ArrayView) !arrow.ArrayView {
        const builder = &self.builder;
        builder.reset();
        try builder.ensureRows(view.length);
        for (0..view.length) |row| {
            if (view.isNull(row)) {
                builder.appendNullAssumeCapacity();
                continue;
            }
            switch (self.action) {
                .hash => {
                    const digest = std.fmt.bytesToHex(self.hash.of(try self.texts.at(builder.gpa, view, row)), .lower);
                    try builder.appendBytes(&digest);
                },
                .redact => if (self.replacement) |text| try builder.appendBytes(text) else builder.appendNullAssumeCapacity(),
                .truncate => |limit| try builder.appendBytes(characters.head(try self.texts.at(builder.gpa, view, row), limit)),
                .keep_last => |limit| try self.appendStarred(try self.texts.at(builder.gpa, view, row), limit),
            }
        }
        return builder.view(scratch);
    }

    fn appendStarred(self: *Column, text: []const u8, limit: usize) !void {
        const stars = characters.count(text) -| limit;
        const kept = text[characters.head(text, stars).len..];
        const builder = &self.builder;
        try builder.ensureRows(1);
        try builder.ensureBytes(stars + kept.len);
        builder.values.appendNTimesAssumeCapacity('*', stars);
        builder.values.appendSliceAssumeCapacity(kept);
        builder.offsets.items[builder.length + 1] = @intCast(builder.values.items.len);
        builder.length += 1;
    }
};

/// Whether a text of so many characters fits into a string type as it is.
fn holds(type_name: []const u8, length: usize) bool {
    inline for (.{ "text", "character varying" }) |unbounded| if (std.mem.eql(u8, type_name, unbounded)) return true;
    return postgres.types.isModified(type_name, "character varying") and length <= postgres.types.lengthModifier(type_name);
}

/// The field as one of type `text`.
fn asText(arena: Allocator, field: *const arrow.Field) Allocator.Error!arrow.Field {
    const told = [_][]const u8{ arrow.keys.pg_type, arrow.keys.pg_kind, arrow.keys.extension_name };
    var metadata: std.ArrayList(arrow.KeyValue) = .empty;
    next: for (field.metadata) |entry| {
        for (told) |key| if (std.mem.eql(u8, entry.key, key)) continue :next;
        try metadata.append(arena, entry);
    }
    try metadata.append(arena, .{ .key = arrow.keys.pg_type, .value = "text" });
    return .{ .name = field.name, .type = .utf8, .nullable = field.nullable, .metadata = metadata.items };
}
