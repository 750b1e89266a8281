//! rb_read: one snapshot of one relation, from the catalog to the last batch.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");
const Increment = @import("increment.zig").Increment;
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

const Argument = struct {
    stream: Stream,
    cursor: json.Value = .null,
    /// One of those that `rb_split` made.
    shard: ?Shard = null,
    max_batch_bytes: u64,
    /// Null: as many as are good for speed.
    max_batch_rows: ?u64 = null,
};

/// Bytes of a batch at least: below it, a wide table's metadata alone would not fit.
const batch_bytes_min = 64 * 1024;

pub fn read(arena: Allocator, session: *Session, argument: json.Value) !Done {
    const parsed = try sdk.connector.parse(Argument, arena, argument);
    const stream = &parsed.stream;
    const incremental = try stream.mode() == .incremental;
    if (!incremental and parsed.cursor != .null)
        return sdk.fail(.protocol, "a full refresh has no cursor to resume from", .{});
    const max_batch_bytes: usize = @intCast(
        std.math.clamp(parsed.max_batch_bytes, batch_bytes_min, std.math.maxInt(i32)),
    );

    if (parsed.shard) |shard| try session.beginIn(arena, shard.snapshot) else try session.beginOrGoOn();
    defer session.rollback();
    var selection: Selection = try .find(arena, session, parsed.stream);
    if (parsed.shard) |shard| try shard.restrict(arena, &selection);
    var increment: ?Increment = if (incremental)
        try .begin(session.gpa, arena, session, &selection, stream, parsed.cursor)
    else
        null;
    defer if (increment) |*part| part.deinit();
    try selection.probe(arena, session);
    // Whoever split the relation has looked at all of it, and warned.
    if (parsed.shard == null) {
        try selection.checkArrays(arena, session);
        selection.warnOfRowSecurity();
    }
    if (increment) |*part| try part.warnOfExcluded(arena, session, &selection);

    const schema = try selection.schema(arena);
    try sdk.host.emitBytes(try sdk.arrow.writer.encodeSchema(arena, &schema));
    const arrow_types = try arena.alloc(sdk.arrow.Type, schema.fields.len);
    for (arrow_types, schema.fields) |*arrow_type, field| arrow_type.* = field.type;
    var decoder: RowDecoder = try .init(session.gpa, try selection.decoderColumns(arena, session.connection.server_version), arrow_types, max_batch_bytes);
    defer decoder.deinit();
    if (parsed.max_batch_rows) |max| decoder.batch_rows_max = std.math.clamp(
        std.math.cast(usize, max) orelse decoder.batch_rows_max,
        1,
        decoder.batch_rows_max,
    );

    const before = session.connection.bytesReceived();
    const sql = try selection.copySql(arena);
    const rows = if (increment) |*part|
        try copyIncrement(session, &selection, sql, &decoder, part)
    else
        try copyRows(session, &selection, sql, &decoder);
    const bytes = session.connection.bytesReceived() - before;
    try session.commit();
    if (increment) |*part| try part.barrier(arena, true) else try sdk.host.barrier(arena, null, true);
    return .{ .rows = rows, .bytes = bytes };
}

fn copyRows(session: *Session, selection: *const Selection, sql: []const u8, decoder: *RowDecoder) !u64 {
    const connection = session.connection;
    var scratch: std.heap.ArenaAllocator = .init(session.gpa);
    defer scratch.deinit();
    var rows: u64 = 0;
    var out = connection.copyOut(sql) catch |err| return session.failed(err, selection.doing);
    while (out.next() catch |err| return session.failed(err, selection.doing)) |data| {
        const row = decoder.open(data) catch |err| return rowFailed(err, session, selection, decoder);
        const fields = row orelse continue;
        if (decoder.isFull(fields.len)) rows += try emitBatch(&scratch, decoder);
        decoder.append(fields) catch |err| return rowFailed(err, session, selection, decoder);
    }
    try requireTrailer(session, selection, decoder);
    if (decoder.rows > 0) rows += try emitBatch(&scratch, decoder);
    return rows;
}

/// `copyRows` of the rows that are new, with a barrier behind each batch.
fn copyIncrement(
    session: *Session,
    selection: *const Selection,
    sql: []const u8,
    decoder: *RowDecoder,
    increment: *Increment,
) !u64 {
    const connection = session.connection;
    var scratch: std.heap.ArenaAllocator = .init(session.gpa);
    defer scratch.deinit();
    var rows: u64 = 0;
    var out = connection.copyOut(sql) catch |err| return session.failed(err, selection.doing);
    while (out.next() catch |err| return session.failed(err, selection.doing)) |data| {
        const row = decoder.open(data) catch |err| return rowFailed(err, session, selection, decoder);
        const fields = row orelse continue;
        const is_new = increment.admit(fields) catch |err|
            return cursorFailed(err, session, selection, decoder, increment, fields.len);
        if (!is_new) continue;
        if (decoder.isFull(fields.len)) {
            rows += try emitBatch(&scratch, decoder);
            _ = scratch.reset(.retain_capacity);
            try increment.barrier(scratch.allocator(), false);
        }
        decoder.append(fields) catch |err| return rowFailed(err, session, selection, decoder);
        increment.delivered(fields) catch |err|
            return cursorFailed(err, session, selection, decoder, increment, fields.len);
    }
    try requireTrailer(session, selection, decoder);
    if (decoder.rows > 0) rows += try emitBatch(&scratch, decoder);
    return rows;
}

fn requireTrailer(session: *Session, selection: *const Selection, decoder: *const RowDecoder) !void {
    if (!decoder.finished) return session.failed(
        session.connection.protocolError("COPY ended without its trailer", .{}),
        selection.doing,
    );
}

fn cursorFailed(
    err: Increment.Error,
    session: *Session,
    selection: *const Selection,
    decoder: *RowDecoder,
    increment: *const Increment,
    length: usize,
) postgres.failure.Error {
    switch (err) {
        error.NotApart => {
            session.connection.broken = true;
            return increment.notApart();
        },
        error.InDoubt => {
            session.connection.broken = true;
            return increment.inDoubt();
        },
        error.Malformed => decoder.fault = .{ .length = length, .reason = "a row's cursor is not of its type" },
        error.OutOfMemory => {},
    }
    return rowFailed(@errorCast(err), session, selection, decoder);
}

fn emitBatch(scratch: *std.heap.ArenaAllocator, decoder: *RowDecoder) !u64 {
    decoder.finishBatch();
    const rows = decoder.rows;
    _ = scratch.reset(.retain_capacity);
    const pieces = try sdk.arrow.writer.encodeBatch(scratch.allocator(), decoder.builders, rows);
    try sdk.host.emit(pieces);
    decoder.reset();
    return rows;
}

/// Errors of the decoder, told with the column they are about. COPY is still open at the server: the connection is of
/// no use any more.
fn rowFailed(
    err: postgres.decode.Error,
    session: *Session,
    selection: *const Selection,
    decoder: *const RowDecoder,
) postgres.failure.Error {
    const connection = session.connection;
    connection.broken = true;
    const fault = decoder.fault;
    const column = if (fault.column) |i| decoder.columns[i] else null;
    switch (err) {
        error.OutOfMemory => return error.OutOfMemory,
        error.ColumnTooLarge => return sdk.errors.failHinted(
            .resource,
            "leave the column out, or read fewer rows with a filter",
            "{s}: a row does not fit into a batch",
            .{selection.doing},
        ),
        error.OutOfRange => return sdk.errors.failHinted(
            .data,
            "leave the column out with `columns`, or read a view that casts it to text",
            "{s}: column {s} ({s}) has a value that Arrow's type for it cannot hold",
            .{ selection.doing, column.?.name, column.?.type_name },
        ),
        error.Malformed => return session.failed(if (column) |bad|
            connection.protocolError(
                "column {s} ({s}), {d} bytes: {s}",
                .{ bad.name, bad.type_name, fault.length, fault.reason },
            )
        else
            connection.protocolError("{s} ({d} bytes)", .{ fault.reason, fault.length }), selection.doing),
    }
}
