//! Transactions that the server sends before they are committed. Each lies in a spool of the host's, message by message,
//! until it is committed or undone.
//!
//!     record   length:u32 kept:u32 arrival:u64 message…
//!
//! The arrival, which counts all messages, tells what was said of a relation last, wherever that was said. Of a message that
//! is larger than the memory its beginning is kept.

const std = @import("std");
const sdk = @import("sdk");
const postgres = @import("postgres");

const Allocator = std.mem.Allocator;
const Spool = sdk.host.Spool;

/// Bytes that are handed to the host, or taken from it, at once.
const chunk_bytes = 256 * 1024;
const header_bytes = 4 + 4 + 8;
/// What there is always memory for.
const beginning_bytes = 4096;

pub const Transaction = struct {
    spool: Spool,
    bytes: u64 = 0,
    /// Subtransactions that were undone.
    undone: std.AutoHashMapUnmanaged(u32, void) = .empty,
};

pub const Spooled = struct {
    gpa: Allocator,
    transactions: std.AutoArrayHashMapUnmanaged(u32, Transaction) = .empty,
    /// The one whose messages come; all others are in their spools to the last byte.
    current: ?u32 = null,
    waiting: std.ArrayList(u8) = .empty,

    pub fn deinit(self: *Spooled) void {
        for (self.transactions.values()) |*transaction| transaction.undone.deinit(self.gpa);
        self.transactions.deinit(self.gpa);
        self.waiting.deinit(self.gpa);
    }

    /// Drops all of them: they will come again.
    pub fn clear(self: *Spooled) !void {
        while (self.transactions.count() > 0) try self.drop(self.transactions.keys()[0]);
        self.current = null;
        self.waiting.clearRetainingCapacity();
    }

    pub fn start(self: *Spooled, xid: u32) error{ OutOfMemory, Protocol }!void {
        if (self.current != null) return error.Protocol;
        _ = try self.transactions.getOrPutValue(self.gpa, xid, .{ .spool = .{ .id = xid } });
        self.current = xid;
    }

    /// A message of the transaction that was started last, which had `length` bytes.
    pub fn append(self: *Spooled, message: []const u8, length: usize, arrival: u64) !void {
        const size = header_bytes + message.len;
        if (self.waiting.items.len > 0 and self.waiting.items.len + size > chunk_bytes) try self.flush();
        const header = try self.waiting.addManyAsArray(self.gpa, header_bytes);
        std.mem.writeInt(u32, header[0..4], @intCast(length), .little);
        std.mem.writeInt(u32, header[4..8], @intCast(message.len), .little);
        std.mem.writeInt(u64, header[8..], arrival, .little);
        if (size <= chunk_bytes) return self.waiting.appendSlice(self.gpa, message);
        // There may be no memory for it a second time.
        try self.flush();
        try self.write(message);
    }

    pub fn stop(self: *Spooled) !void {
        if (self.current == null) return error.Protocol;
        try self.flush();
        self.current = null;
    }

    fn flush(self: *Spooled) !void {
        if (self.waiting.items.len == 0) return;
        try self.write(self.waiting.items);
        self.waiting.clearRetainingCapacity();
    }

    fn write(self: *Spooled, bytes: []const u8) !void {
        const transaction = self.transactions.getPtr(self.current.?).?;
        try transaction.spool.append(bytes);
        transaction.bytes += bytes.len;
    }

    /// All of a transaction, or one subtransaction of it, did not happen.
    pub fn undo(self: *Spooled, xid: u32, subxid: u32) !void {
        if (xid == subxid) return self.drop(xid);
        const transaction = self.transactions.getPtr(xid) orelse return;
        try transaction.undone.put(self.gpa, subxid, {});
    }

    pub fn drop(self: *Spooled, xid: u32) !void {
        var removed = self.transactions.fetchSwapRemove(xid) orelse return;
        removed.value.undone.deinit(self.gpa);
        try removed.value.spool.drop();
    }

    /// Reads a transaction again, from its beginning. None is under way then.
    pub fn read(self: *Spooled, xid: u32) ?Reader {
        std.debug.assert(self.current == null);
        const transaction = self.transactions.getPtr(xid) orelse return null;
        return .{ .gpa = self.gpa, .transaction = transaction };
    }
};

pub const Reader = struct {
    gpa: Allocator,
    transaction: *const Transaction,
    buffer: []u8 = &.{},
    start: usize = 0,
    end: usize = 0,
    /// Of the spool, in the buffer or gone.
    taken: u64 = 0,

    pub const Record = struct {
        message: []const u8,
        /// Bytes that it had.
        length: usize,
        arrival: u64,

        /// Whether there is only its beginning.
        pub fn isCut(self: *const Record) bool {
            return self.message.len < self.length;
        }
    };

    pub fn deinit(self: *Reader) void {
        self.gpa.free(self.buffer);
    }

    /// Valid until the next call; null at the end.
    pub fn next(self: *Reader) !?Record {
        if (self.start == self.end and self.taken == self.transaction.bytes) return null;
        try self.fill(header_bytes);
        const header = self.buffer[self.start..][0..header_bytes];
        const length = std.mem.readInt(u32, header[0..4], .little);
        const kept = std.mem.readInt(u32, header[4..8], .little);
        const arrival = std.mem.readInt(u64, header[8..], .little);
        self.fill(header_bytes + kept) catch |err| {
            if (err != error.OutOfMemory) return err;
            try self.fill(header_bytes + beginning_bytes);
            const message = self.buffer[self.start + header_bytes ..][0..beginning_bytes];
            self.taken += header_bytes + kept - (self.end - self.start);
            self.start = self.end;
            return .{ .message = message, .length = length, .arrival = arrival };
        };
        const message = self.buffer[self.start + header_bytes ..][0..kept];
        self.start += header_bytes + kept;
        return .{ .message = message, .length = length, .arrival = arrival };
    }

    fn fill(self: *Reader, count: usize) !void {
        if (self.end - self.start >= count) return;
        const rest = self.buffer[self.start..self.end];
        if (count > self.buffer.len) {
            const larger = try self.gpa.alloc(u8, @max(count, chunk_bytes));
            @memcpy(larger[0..rest.len], rest);
            self.gpa.free(self.buffer);
            self.buffer = larger;
        } else @memmove(self.buffer[0..rest.len], rest);
        self.start = 0;
        self.end = rest.len;
        while (self.end < count) {
            const got = try self.transaction.spool.read(self.taken, self.buffer[self.end..]);
            if (got == 0) return error.Protocol;
            self.end += got;
            self.taken += got;
        }
    }
};

test "transactions that come in turns are read one by one, as they came" {
    const gpa = std.testing.allocator;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var playing: sdk.loopback.Script = .{ .arena = arena.allocator(), .items = &.{} };
    sdk.loopback.script = &playing;
    defer sdk.loopback.script = null;
    var spooled: Spooled = .{ .gpa = gpa };
    defer spooled.deinit();
    const large = try arena.allocator().alloc(u8, 3 * chunk_bytes);
    @memset(large, 'x');
    for (0..2000) |i| {
        const xid: u32 = @intCast(7 + i % 2);
        try spooled.start(xid);
        try std.testing.expectError(error.Protocol, spooled.start(xid));
        var text: [300]u8 = @splat('a');
        try spooled.append(text[0 .. i % text.len], i % text.len, i);
        if (i == 1000) try spooled.append(large, large.len, i);
        try spooled.stop();
    }
    try spooled.undo(7, 9);
    try spooled.undo(8, 8);
    try std.testing.expectEqual(null, spooled.read(8));
    try std.testing.expectError(error.Protocol, spooled.stop());
    var reader = spooled.read(7).?;
    defer reader.deinit();
    try std.testing.expect(reader.transaction.undone.contains(9));
    for (0..1000) |half| {
        const i = 2 * half;
        const record = (try reader.next()).?;
        try std.testing.expectEqual(i, record.arrival);
        try std.testing.expectEqual(i % 300, record.message.len);
        if (i == 1000) try std.testing.expectEqualStrings(large, (try reader.next()).?.message);
    }
    try std.testing.expectEqual(null, try reader.next());
    // With memory for all but the large one.
    var failing: std.testing.FailingAllocator = .init(gpa, .{ .fail_index = 1 });
    var poor = spooled.read(7).?;
    defer poor.deinit();
    poor.gpa = failing.allocator();
    var cut: usize = 0;
    for (0..1001) |_| {
        const record = (try poor.next()).?;
        if (!record.isCut()) continue;
        cut += 1;
        try std.testing.expectEqual(large.len, record.length);
        try std.testing.expectEqualStrings(large[0..beginning_bytes], record.message);
    }
    try std.testing.expectEqual(1, cut);
    try std.testing.expectEqual(null, try poor.next());
    try spooled.clear();
    try std.testing.expectEqual(0, playing.spools.count());
}
