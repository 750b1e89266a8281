//! The keys of a run, as hashes of 128 bits: two that differ have the same hash once in 10²⁰ runs of a thousand million keys.
//!
//!     directory    the hash's first bits -> page
//!     page         64 KB, an open table of hashes; one that is full becomes two by the next bit
//!
//! So the memory grows by 64 KB at a time, and nothing is ever copied that is larger: all that a guest may have can be
//! filled.

const std = @import("std");

const Allocator = std.mem.Allocator;

/// Of a page: with what the allocator adds for itself it is 64 KB.
const slots = 64 * 1024 / @sizeOf(u128) - 1;
/// Beyond which a page is divided.
const slots_used_max = slots * 4 / 5;
/// A slot without a hash.
const empty: u128 = 0;

const Page = struct {
    slots: *[slots]u128,
    used: u32,
    /// Bits that all of its hashes have in common.
    depth: u6,
};

pub const Seen = struct {
    gpa: Allocator,
    pages: std.ArrayList(Page) = .empty,
    directory: std.ArrayList(u32) = .empty,
    /// Bits that choose of the directory.
    depth: u6 = 0,
    /// Room for a page that is divided.
    scratch: ?*[slots]u128 = null,
    count: u64 = 0,

    pub fn init(gpa: Allocator) Seen {
        return .{ .gpa = gpa };
    }

    pub fn deinit(self: *Seen) void {
        for (self.pages.items) |page| self.gpa.destroy(page.slots);
        if (self.scratch) |scratch| self.gpa.destroy(scratch);
        self.pages.deinit(self.gpa);
        self.directory.deinit(self.gpa);
    }

    pub fn contains(self: *const Seen, hash: u128) bool {
        if (self.pages.items.len == 0) return false;
        const key = keyOf(hash);
        const page = &self.pages.items[self.pageOf(key)];
        return page.slots[find(page.slots, key)] == key;
    }

    /// Adds one that is not there.
    pub fn add(self: *Seen, hash: u128) Allocator.Error!void {
        if (self.pages.items.len == 0) try self.begin();
        const key = keyOf(hash);
        var page = &self.pages.items[self.pageOf(key)];
        while (page.used >= slots_used_max) {
            try self.divide(self.pageOf(key));
            page = &self.pages.items[self.pageOf(key)];
        }
        page.slots[find(page.slots, key)] = key;
        page.used += 1;
        self.count += 1;
    }

    fn begin(self: *Seen) Allocator.Error!void {
        if (self.scratch == null) self.scratch = try self.gpa.create([slots]u128);
        try self.directory.ensureTotalCapacity(self.gpa, 1);
        try self.addPage(0);
        self.directory.appendAssumeCapacity(0);
    }

    fn addPage(self: *Seen, depth: u6) Allocator.Error!void {
        try self.pages.ensureUnusedCapacity(self.gpa, 1);
        const page = try self.gpa.create([slots]u128);
        @memset(page, empty);
        self.pages.appendAssumeCapacity(.{ .slots = page, .used = 0, .depth = depth });
    }

    fn pageOf(self: *const Seen, key: u128) u32 {
        return self.directory.items[prefix(key, self.depth)];
    }

    /// Leaves everything as it is where there is no memory.
    fn divide(self: *Seen, number: u32) Allocator.Error!void {
        const depth = self.pages.items[number].depth;
        if (depth == self.depth) try self.widen();
        try self.addPage(depth + 1);
        const other: u32 = @intCast(self.pages.items.len - 1);
        const page = &self.pages.items[number];
        const right = &self.pages.items[other];
        page.depth = depth + 1;
        page.used = 0;
        const old = self.scratch.?;
        @memcpy(old, page.slots);
        @memset(page.slots, empty);
        for (old) |key| if (key != empty) {
            const to = if (prefix(key, depth + 1) & 1 == 0) page else right;
            to.slots[find(to.slots, key)] = key;
            to.used += 1;
        };
        for (self.directory.items, 0..) |*entry, i| {
            if (entry.* == number and i >> @as(u5, @intCast(self.depth - depth - 1)) & 1 == 1) entry.* = other;
        }
    }

    /// One more bit chooses: each entry stands twice.
    fn widen(self: *Seen) Allocator.Error!void {
        const length = self.directory.items.len;
        try self.directory.resize(self.gpa, 2 * length);
        var i = length;
        while (i > 0) {
            i -= 1;
            const page = self.directory.items[i];
            self.directory.items[2 * i] = page;
            self.directory.items[2 * i + 1] = page;
        }
        self.depth += 1;
    }
};

fn keyOf(hash: u128) u128 {
    return if (hash == empty) 1 else hash;
}

/// The first bits.
inline fn prefix(key: u128, bits: u6) usize {
    const first: u32 = @intCast(key >> 96);
    return if (bits == 0) 0 else first >> @intCast(32 - @as(u32, bits));
}

/// Where the key is, or would be.
inline fn find(page: *const [slots]u128, key: u128) usize {
    const last: u32 = @truncate(key);
    var at: usize = @intCast(@as(u64, last) * slots >> 32);
    while (page[at] != empty and page[at] != key) at = if (at + 1 == slots) 0 else at + 1;
    return at;
}

test "keys are found again, and no others" {
    const gpa = std.testing.allocator;
    var seen: Seen = .init(gpa);
    defer seen.deinit();
    var generator: std.Random.DefaultPrng = .init(5);
    try std.testing.expect(!seen.contains(0));
    for (0..200_000) |_| {
        const key = generator.random().int(u128);
        try std.testing.expect(!seen.contains(key));
        try seen.add(key);
    }
    try seen.add(0);
    try std.testing.expectEqual(200_001, seen.count);
    generator = .init(5);
    for (0..200_000) |_| try std.testing.expect(seen.contains(generator.random().int(u128)));
    for (0..200_000) |_| try std.testing.expect(!seen.contains(generator.random().int(u128)));
    // Pages are half full at least, on average.
    try std.testing.expect(seen.pages.items.len * slots < 2 * 200_001 + slots);
}

test "memory that runs out leaves every key where it was" {
    var failing: std.testing.FailingAllocator = .init(std.testing.allocator, .{});
    var seen: Seen = .init(failing.allocator());
    defer seen.deinit();
    var generator: std.Random.DefaultPrng = .init(6);
    var added: usize = 0;
    var failed: usize = 0;
    while (added < 30_000) {
        const key = generator.random().int(u128);
        const room = generator.random().uintLessThan(usize, 3);
        failing.fail_index = failing.alloc_index + room;
        failing.resize_fail_index = failing.resize_index + room;
        while (true) {
            seen.add(key) catch {
                failed += 1;
                failing.fail_index = std.math.maxInt(usize);
                failing.resize_fail_index = std.math.maxInt(usize);
                continue;
            };
            break;
        }
        added += 1;
    }
    try std.testing.expect(failed > 3);
    try std.testing.expectEqual(added, seen.count);
    generator = .init(6);
    for (0..added) |_| {
        try std.testing.expect(seen.contains(generator.random().int(u128)));
        _ = generator.random().uintLessThan(usize, 3);
    }
}
