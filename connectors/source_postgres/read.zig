//! rb_read: one snapshot of one relation, from the catalog to the last batch.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Amendment = @import("pieces.zig").Amendment;
const Aside = @import("aside.zig").Aside;
const Increment = @import("increment.zig").Increment;
const Passed = @import("passed.zig").Passed;
const Reason = @import("aside.zig").Reason;
const Row = @import("row.zig").Row;
const Selection = @import("selection.zig").Selection;
const Session = @import("session.zig").Session;
const Shard = @import("shard.zig").Shard;
const Stream = @import("stream.zig").Stream;

const Allocator = std.mem.Allocator;
const RowDecoder = postgres.decode.RowDecoder;
const json = sdk.json;

pub const Done = struct {
    rows: u64,
    /// Received from the server.
    bytes: u64,
};

/// The cursor of a stream that captures changes: whatever commits before it is applied.
const Position = struct { lsn: []const u8 };

const Argument = struct {
    stream: Stream,
    cursor: json.Value = .null,
    /// One of those that `rb_split` made.
    shard: ?Shard = null,
    /// Several of them, of which an earlier snapshot's rows are there.
    amends: ?Amendment = null,
    max_batch_bytes: u64,
    /// Null: as many as are good for speed.
    max_batch_rows: ?u64 = null,
};

/// Bytes of a batch at least: below it, a wide table's metadata alone would not fit.
const batch_bytes_min = 64 * 1024;

pub fn read(arena: Allocator, session: *Session, argument: json.Value) !Done {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const stream = &parsed.stream;
    const sync_mode = try stream.mode();
    const incremental = sync_mode == .incremental;
    if (!incremental and parsed.cursor != .null)
        return sdk.fail(.protocol, "what reads everything has no cursor to resume from", .{});
    if (sync_mode == .cdc and stream.snapshot == null)
        return sdk.fail(.protocol, "the first rows of a stream that captures changes are read from a snapshot", .{});
    const max_batch_bytes: usize = @intCast(
        std.math.clamp(parsed.max_batch_bytes, batch_bytes_min, std.math.maxInt(i32)),
    );

    const is_part = parsed.shard != null or parsed.amends != null;
    if (is_part and stream.on_data_error != .fail)
        return sdk.fail(.protocol, "rows of a shard cannot be left out", .{});
    if (parsed.amends) |amends| if (amends.shards.len == 0)
        return sdk.fail(.protocol, "there are no shards to amend", .{});
    if (parsed.shard) |shard|
        try session.beginIn(arena, shard.snapshot)
    else if (parsed.amends) |amends|
        try session.beginIn(arena, amends.shards[0].snapshot)
    else
        try session.beginAsked(arena, stream);
    defer session.rollback();
    var selection: Selection = try .find(arena, session, parsed.stream);
    if (parsed.shard) |shard| try shard.restrict(arena, &selection);
    if (parsed.amends) |amends| try amends.restrict(arena, &selection);
    var increment: ?Increment = if (incremental)
        try .begin(session.gpa, arena, session, &selection, stream, parsed.cursor)
    else
        null;
    defer if (increment) |*part| part.deinit();
    try selection.probe(arena, session);
    // Whoever split the relation has looked at all of it, and warned.
    if (!is_part) {
        try selection.checkArrays(arena, session);
        selection.warnOfRowSecurity();
    }
    if (increment) |*part| try part.warnOfExcluded(arena, session, &selection);

    const schema = try selection.schema(arena);
    try sdk.host.emitBytes(try sdk.arrow.writer.encodeSchema(arena, &schema));
    const arrow_types = try arena.alloc(sdk.arrow.Type, schema.fields.len);
    for (arrow_types, schema.fields) |*arrow_type, field| arrow_type.* = field.type;
    const columns = try selection.decoderColumns(arena, session.connection.server_version);
    var decoder: RowDecoder = try .init(session.gpa, columns, arrow_types, max_batch_bytes);
    defer decoder.deinit();
    if (parsed.max_batch_rows) |max| decoder.batch_rows_max = std.math.clamp(
        std.math.cast(usize, max) orelse decoder.batch_rows_max,
        1,
        decoder.batch_rows_max,
    );
    if (!session.connection.knows_encoding) {
        // The server would end the COPY at the first text that is not UTF-8, and not tell of which row. Its bytes come as
        // they are until the transaction ends.
        try session.exec("SET LOCAL client_encoding TO 'SQL_ASCII'", selection.doing);
        decoder.checks_texts = true;
    }

    const before = session.connection.bytesReceived();
    const sql = try selection.copySql(arena);
    var reading: Reading = .{
        .session = session,
        .selection = &selection,
        .decoder = &decoder,
        .increment = if (increment) |*part| part else null,
        .aside = try .init(session.gpa, arena, stream, &selection, columns),
        .scratch = .init(session.gpa),
    };
    defer reading.deinit();
    defer reading.aside.warn();
    if (increment == null) try reading.copyAll(sql) else try reading.copyIncrement(sql);
    const bytes = session.connection.bytesReceived() - before;
    try session.commit();
    const rejected = reading.aside.rejected();
    if (increment) |*part|
        _ = try part.barrier(arena, true, rejected)
    else if (sync_mode == .cdc)
        try sdk.host.barrier(arena, Position{ .lsn = stream.snapshot.?.lsn }, true, rejected)
    else
        try sdk.host.barrier(arena, null, true, rejected);
    return .{ .rows = reading.rows, .bytes = bytes };
}

/// One COPY on its way into batches.
const Reading = struct {
    session: *Session,
    selection: *const Selection,
    decoder: *RowDecoder,
    increment: ?*Increment,
    aside: Aside,
    /// Of one batch or barrier.
    scratch: std.heap.ArenaAllocator,
    /// Emitted.
    rows: u64 = 0,
    /// A row did not find its memory, and what others held of it was given back.
    is_relaxed: bool = false,

    fn deinit(self: *Reading) void {
        self.aside.deinit();
        self.scratch.deinit();
    }

    fn copyAll(self: *Reading, sql: []const u8) !void {
        const decoder = self.decoder;
        var out = self.session.connection.copyOut(sql) catch |err| return self.serverFailed(err);
        while (true) {
            const data = out.next() catch |err| {
                try self.letBy(&out, err);
                continue;
            } orelse break;
            const row = decoder.open(data) catch |err| return self.decoderFailed(err);
            const fields = row orelse continue;
            if (decoder.isFull(fields.len)) try self.emitBatch();
            decoder.append(fields) catch |err| {
                if (try self.appendAlone(fields, err)) continue;
                try self.setAside(.{ .whole = fields }, err);
            };
        }
        try self.end();
    }

    /// `copyAll` of the rows that are new, with a barrier behind each batch.
    fn copyIncrement(self: *Reading, sql: []const u8) !void {
        const decoder = self.decoder;
        const increment = self.increment.?;
        var out = self.session.connection.copyOut(sql) catch |err| return self.serverFailed(err);
        while (true) {
            const data = out.next() catch |err| {
                try self.letBy(&out, err);
                continue;
            } orelse break;
            const row = decoder.open(data) catch |err| return self.decoderFailed(err);
            const fields = row orelse continue;
            const is_new = increment.admit(.{ .whole = fields }) catch |err| return self.cursorFailed(err, fields.len);
            if (!is_new) continue;
            if (decoder.isFull(fields.len)) try self.markBarrier();
            decoder.append(fields) catch |err| if (!try self.appendAlone(fields, err)) {
                try self.setAside(.{ .whole = fields }, err);
                continue;
            };
            increment.delivered(.{ .whole = fields }) catch |err| return self.cursorFailed(err, fields.len);
        }
        try self.end();
    }

    fn end(self: *Reading) !void {
        if (!self.decoder.finished) return self.serverFailed(
            self.session.connection.protocolError("COPY ended without its trailer", .{}),
        );
        if (self.decoder.rows > 0) try self.emitBatch();
        try self.aside.letters.flush();
    }

    fn emitBatch(self: *Reading) !void {
        const decoder = self.decoder;
        decoder.finishBatch();
        _ = self.scratch.reset(.retain_capacity);
        const pieces = try sdk.arrow.writer.encodeBatch(self.scratch.allocator(), decoder.builders, decoder.rows);
        try sdk.host.emit(pieces);
        self.rows += decoder.rows;
        decoder.reset();
    }

    /// Behind everything that was delivered or set aside so far.
    fn markBarrier(self: *Reading) !void {
        if (self.decoder.rows > 0) try self.emitBatch();
        try self.aside.letters.flush();
        _ = self.scratch.reset(.retain_capacity);
        if (try self.increment.?.barrier(self.scratch.allocator(), false, self.aside.rejected())) self.aside.unmarked = 0;
    }

    // Rows that fail.

    /// Where a row did not find its memory: whether it does when the batch before it is gone.
    fn appendAlone(self: *Reading, row: []const u8, err: postgres.decode.Error) !bool {
        @branchHint(.cold);
        if (!isTooLarge(err)) return false;
        if (self.decoder.rows > 0) try self.emitBatch();
        self.decoder.relax();
        self.decoder.append(row) catch |again| {
            if (!isTooLarge(again)) return self.decoderFailed(again);
            self.decoder.relax();
            return false;
        };
        return true;
    }

    /// A row that the decoder refused, as it came. It is delivered then, as far as the cursor is concerned.
    fn setAside(self: *Reading, row: Row, err: postgres.decode.Error) !void {
        @branchHint(.cold);
        var arena: std.heap.ArenaAllocator = .init(self.session.gpa);
        defer arena.deinit();
        const reason = if (isTooLarge(err)) too_large: {
            // The next one may be as large, and needs the memory that this one lies in twice.
            self.session.connection.receiver.is_to_shrink = true;
            break :too_large try Reason.oversized(arena.allocator(), row.length());
        } else try Reason.ofDecoder(arena.allocator(), err, self.decoder) orelse return self.decoderFailed(err);
        try self.leaveOut(row, &reason);
    }

    fn leaveOut(self: *Reading, row: Row, reason: *const Reason) !void {
        // Until all went well, COPY is open at the server and the connection of no use.
        self.session.connection.broken = true;
        const is_told = if (self.increment) |increment|
            increment.wasSetAside(row) catch |err| return self.cursorFailed(err, row.length())
        else
            false;
        if (!is_told) try self.aside.take(row, reason);
        if (self.increment) |increment| {
            try increment.requireCursorText();
            increment.delivered(row) catch |err| return self.cursorFailed(err, row.length());
        }
        self.session.connection.broken = false;
        const is_long = self.aside.unmarked >= self.decoder.batch_rows_max;
        if (self.increment != null) {
            if (is_long or self.aside.letters.isFull()) try self.markBarrier();
        } else if (self.aside.letters.isFull()) try self.aside.letters.flush();
    }

    /// Takes a row from the server that there is no memory for, or is ready to have the server asked again.
    fn letBy(self: *Reading, out: *postgres.CopyOut, err: postgres.Connection.Error) !void {
        @branchHint(.cold);
        const connection = self.session.connection;
        if (err != error.OutOfMemory) return self.serverFailed(err);
        if (self.decoder.rows > 0 or !self.is_relaxed) {
            if (self.decoder.rows > 0) try self.emitBatch();
            self.is_relaxed = true;
            return self.decoder.relax();
        }
        self.is_relaxed = false;
        const large = out.large() orelse return error.OutOfMemory;
        var arena: std.heap.ArenaAllocator = .init(self.session.gpa);
        defer arena.deinit();
        if (self.aside.on_data_error == .fail) {
            connection.broken = true;
            return self.aside.failed(&try Reason.oversized(arena.allocator(), large.left), null);
        }
        const wanted = try arena.allocator().alloc(bool, self.decoder.columns.len);
        for (wanted, 0..) |*is_wanted, place| {
            is_wanted.* = self.aside.looksAt(place);
            if (self.increment) |increment| is_wanted.* = is_wanted.* or increment.looksAt(place);
        }
        const passed = Passed.read(arena.allocator(), large, self.decoder, wanted) catch |failure| switch (failure) {
            error.Malformed => return self.decoderFailed(error.Malformed),
            else => |other| return self.serverFailed(other),
        };
        const row: Row = .{ .passed = &passed };
        if (self.increment) |increment| {
            if (passed.too_large) |place| if (increment.looksAt(place)) return self.cannotTell(&passed, place);
            const is_new = increment.admit(row) catch |failure| return self.cursorFailed(failure, passed.length);
            if (!is_new) return;
        }
        try self.leaveOut(row, &try Reason.oversized(arena.allocator(), passed.length));
    }

    fn cannotTell(self: *Reading, passed: *const Passed, place: usize) sdk.errors.Failed {
        self.session.connection.broken = true;
        return sdk.errors.failHinted(
            .resource,
            "raise `limits.max_memory`, or tell rows apart by a short column",
            "{s}: a row of {d} bytes is too large for the connector's memory, and its column {s}, which tells it from others, " ++
                "for what is kept of it",
            .{ self.selection.doing, passed.length, self.decoder.columns[place].name },
        );
    }

    // Errors.

    fn serverFailed(self: *Reading, err: postgres.Connection.Error) postgres.failure.Error {
        @branchHint(.cold);
        return self.session.failed(err, self.selection.doing);
    }

    fn cursorFailed(self: *Reading, err: Increment.Error, length: usize) postgres.failure.Error {
        @branchHint(.cold);
        switch (err) {
            error.NotApart => {
                self.session.connection.broken = true;
                return self.increment.?.notApart();
            },
            error.InDoubt => {
                self.session.connection.broken = true;
                return self.increment.?.inDoubt();
            },
            error.Malformed => self.decoder.fault = .{
                .length = length,
                .reason = "a row's cursor is not of its type",
            },
            error.OutOfMemory => {},
        }
        return self.decoderFailed(@errorCast(err));
    }

    /// Errors of the decoder that are not a row's fault, told with the column they are about. COPY is still open at the
    /// server: the connection is of no use any more.
    fn decoderFailed(self: *Reading, err: postgres.decode.Error) postgres.failure.Error {
        @branchHint(.cold);
        const connection = self.session.connection;
        connection.broken = true;
        if (err != error.Malformed) return error.OutOfMemory;
        const fault = self.decoder.fault;
        return self.serverFailed(if (fault.column) |place| connection.protocolError(
            "column {s} ({s}), {d} bytes: {s}",
            .{ self.decoder.columns[place].name, self.decoder.columns[place].type_name, fault.length, fault.reason },
        ) else connection.protocolError("{s} ({d} bytes)", .{ fault.reason, fault.length }));
    }
};

fn isTooLarge(err: postgres.decode.Error) bool {
    return err == error.OutOfMemory or err == error.ColumnTooLarge;
}
