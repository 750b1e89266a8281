//! rb_transform: takes what the host brings, lets the handler make something else of it, hands that on.
//!
//! Rows are neither lost nor made: at each barrier the host checks that those that came are those that were emitted, the
//! rejected and the filtered.

const std = @import("std");
const sdk = @import("sdk");
const Letter = @import("letters.zig").Letter;
const Reason = @import("rows.zig").Reason;
const Refusal = @import("rows.zig").Refusal;
const Rows = @import("rows.zig").Rows;
const Shape = @import("shape.zig").Shape;
const Stream = @import("shape.zig").Stream;

const Allocator = std.mem.Allocator;
const arrow = sdk.arrow;
const host = sdk.host;
const json = sdk.json;

const Argument = struct {
    stream: Stream,
    /// Bytes of one message, where a row alone is not larger.
    max_batch_bytes: usize,
};

pub const Transformed = struct {
    /// That were emitted.
    rows: u64,
};

/// `handler`: a pointer to what root.zig shows.
pub fn run(arena: Allocator, handler: anytype, argument: json.Value) !Transformed {
    const asked = try sdk.connector.parse(Argument, arena, argument);
    const gpa = sdk.connector.gpa;
    var passage: Passage = .{
        .gpa = gpa,
        .stream = &asked.stream,
        .max_batch_bytes = asked.max_batch_bytes,
        .shape_arena = .init(gpa),
        .reader = .init(gpa),
        .scratch = .init(gpa),
        .rows = .init(gpa),
        .letters = .init(gpa),
    };
    defer passage.deinit();
    while (true) {
        const item = try host.next();
        switch (item.kind) {
            .message => try passage.take(handler, try passage.read(item.len)),
            .barrier => try passage.passBarrier(item.len),
            .end => break,
        }
    }
    passage.warn();
    return .{ .rows = passage.emitted };
}

/// Of the messages of one run.
const Passage = struct {
    gpa: Allocator,
    stream: *const Stream,
    max_batch_bytes: usize,
    message: arrow.builder.Bytes = .empty,
    /// Of the last schema, and what the handler made of it.
    shape_arena: std.heap.ArenaAllocator,
    shape: ?Shape = null,
    /// Rows in the columns that go out.
    selection: ?arrow.Selection = null,
    reader: arrow.BatchReader,
    /// Of one batch.
    scratch: std.heap.ArenaAllocator,
    rows: Rows,
    letters: sdk.Letters,
    /// Rows that came in earlier batches.
    passed: u64 = 0,
    emitted: u64 = 0,
    rejected: u64 = 0,
    /// Since the last barrier.
    rejected_unmarked: u64 = 0,
    filtered_unmarked: u64 = 0,
    /// Why the first row was refused.
    first: ?[]const u8 = null,

    fn deinit(self: *Passage) void {
        self.message.deinit(self.gpa);
        if (self.selection) |*selection| selection.deinit();
        self.shape_arena.deinit();
        self.reader.deinit();
        self.scratch.deinit();
        self.rows.deinit();
        self.letters.deinit();
        if (self.first) |message| self.gpa.free(message);
    }

    fn read(self: *Passage, len: usize) ![]align(16) const u8 {
        self.message.clearRetainingCapacity();
        try self.message.ensureTotalCapacity(self.gpa, len);
        self.message.items.len = len;
        try host.read(self.message.items);
        return self.message.items;
    }

    fn take(self: *Passage, handler: anytype, message: []align(16) const u8) !void {
        if (try arrow.reader.messageKind(message) == .schema) return self.takeSchema(handler, message);
        const shape = if (self.shape) |*known| known else return sdk.fail(.protocol, "rows came before their schema", .{});
        const batch = try self.reader.decode(&shape.schema, message);
        _ = self.scratch.reset(.retain_capacity);
        try self.rows.begin(batch.rows);
        const result = try handler.take(self.scratch.allocator(), &batch, &self.rows);
        std.debug.assert(result.rows == batch.rows);
        const rejected = try self.refuse(&batch);
        self.rejected += rejected;
        self.rejected_unmarked += rejected;
        self.filtered_unmarked += self.rows.out_count - rejected;
        self.passed += batch.rows;
        self.emitted += self.rows.staying();
        if (self.rows.staying() == 0) return;
        if (self.rows.out_count > 0) return self.emitRange(&result, 0, batch.rows);
        // Nothing was changed.
        if (result.columns.ptr == batch.columns.ptr) return host.emitBytes(message);
        const pieces = try arrow.writer.encodeViews(self.scratch.allocator(), result.columns, result.rows);
        if (arrow.writer.messageBytes(pieces) <= self.max_batch_bytes or result.rows == 1) return host.emit(pieces);
        try self.emitHalves(&result, 0, result.rows);
    }

    fn takeSchema(self: *Passage, handler: anytype, message: []const u8) !void {
        if (self.selection) |*selection| selection.deinit();
        self.selection = null;
        self.shape = null;
        _ = self.shape_arena.reset(.retain_capacity);
        const arena = self.shape_arena.allocator();
        self.shape = try .read(arena, self.stream, message);
        const schema = &self.shape.?.schema;
        const result: arrow.Schema = try handler.turn(arena, &self.shape.?);
        self.selection = try .init(self.gpa, result.fields);
        if (result.fields.ptr == schema.fields.ptr and result.metadata.ptr == schema.metadata.ptr) return host.emitBytes(message);
        const encoded = try arrow.writer.encodeSchema(self.gpa, &result);
        defer self.gpa.free(encoded);
        try host.emitBytes(encoded);
    }

    /// Emits those of the rows from `start` up to before `end` that stay; `batch` is what the handler made.
    fn emitRange(self: *Passage, batch: *const arrow.Batch, start: usize, end: usize) !void {
        const selection = &self.selection.?;
        selection.reset();
        var at = start;
        while (self.rows.run(at, end)) |found| : (at = found.end) try selection.add(batch.columns, found.start, found.end);
        if (selection.rows == 0) return;
        if (selection.rows > 1 and selection.messageBytes() > self.max_batch_bytes) return self.emitHalves(batch, start, end);
        try host.emit(try selection.encode(self.scratch.allocator()));
    }

    fn emitHalves(self: *Passage, batch: *const arrow.Batch, start: usize, end: usize) Error!void {
        const middle = start + (end - start) / 2;
        try self.emitRange(batch, start, middle);
        try self.emitRange(batch, middle, end);
    }

    const Error = host.Error || arrow.builder.Error || arrow.writer.Error;

    /// How many rows of the batch are refused: they fail the run, are counted, or become letters.
    fn refuse(self: *Passage, batch: *const arrow.Batch) !u64 {
        var rest = self.rows.sortedRefusals();
        var rejected: u64 = 0;
        while (rest.len > 0) : (rejected += 1) {
            const row = rest[0].row;
            var count: usize = 1;
            while (count < rest.len and rest[count].row == row) count += 1;
            try self.refuseRow(batch, row, rest[0..count]);
            rest = rest[count..];
        }
        return rejected;
    }

    fn refuseRow(self: *Passage, batch: *const arrow.Batch, row: usize, refusals: []const Refusal) !void {
        const policy = self.stream.on_data_error;
        if (policy == .skip and self.first != null) return;
        const scratch = self.scratch.allocator();
        const number = self.passed + row + 1;
        const message = try allReasons(scratch, refusals);
        switch (policy) {
            .fail => return sdk.errors.failHinted(
                .data,
                "mend the row, or say with `on_data_error` that such rows are left out: skip, dlq",
                "row {d} of stream {s}: {s}",
                .{ number, self.stream.name, message },
            ),
            .skip => {},
            .dlq => {
                var reason = refusals[0].reason;
                reason.column = commonColumn(refusals);
                const letter: Letter = .{
                    .gpa = self.gpa,
                    .shape = &self.shape.?,
                    .batch = batch,
                    .row = row,
                    .number = number,
                    .message = message,
                    .reason = &reason,
                    .holds_row = true,
                };
                var short = letter;
                short.holds_row = false;
                try self.letters.add(@as(?Letter, letter), short);
                if (self.letters.isFull()) try self.letters.flush();
            },
        }
        if (self.first == null) self.first = try self.gpa.dupe(u8, message);
    }

    fn passBarrier(self: *Passage, len: usize) !void {
        try self.letters.flush();
        _ = self.scratch.reset(.retain_capacity);
        const barrier = try host.readBarrier(self.scratch.allocator(), len);
        try host.passBarrier(barrier.sequence, self.rejected_unmarked, self.filtered_unmarked);
        self.rejected_unmarked = 0;
        self.filtered_unmarked = 0;
    }

    /// Of dead letters the host tells.
    fn warn(self: *const Passage) void {
        if (self.stream.on_data_error != .skip or self.rejected == 0) return;
        host.log(
            .warning,
            "{d} rows of stream {s} were left out, and are not kept; the first because of: {s}",
            .{ self.rejected, self.stream.name, self.first.? },
        );
    }
};

/// The messages of a row, as one. A single one is not copied.
fn allReasons(arena: Allocator, refusals: []const Refusal) Allocator.Error![]const u8 {
    if (refusals.len == 1) return refusals[0].reason.message;
    const messages = try arena.alloc([]const u8, refusals.len);
    for (messages, refusals) |*message, refusal| message.* = refusal.reason.message;
    return std.mem.join(arena, "; ", messages);
}

/// The column that all of them blame.
fn commonColumn(refusals: []const Refusal) ?[]const u8 {
    const first = refusals[0].reason.column orelse return null;
    for (refusals[1..]) |refusal| if (!std.mem.eql(u8, refusal.reason.column orelse return null, first)) return null;
    return first;
}
