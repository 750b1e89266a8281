//! Dead letters that wait to be handed over, as the JSON that the host takes them in.

const std = @import("std");
const host = @import("host.zig");
const json = @import("json.zig");

const Allocator = std.mem.Allocator;

/// Bytes of letters that wait: from here on a call's price does not matter.
const waiting_bytes_max = 1024 * 1024;
/// Bytes of one letter at most; the host takes 256 MB at once. A longer one is told without its row.
const letter_bytes_max = 200 * 1024 * 1024;

const opening = "{\"letters\":[";

pub const Letters = struct {
    gpa: Allocator,
    /// Whose they are, where several streams are moved together.
    stream: ?[]const u8 = null,
    /// Of the letters that wait: what is handed over, but for its end.
    text: std.Io.Writer.Allocating,
    waiting: usize = 0,

    pub fn init(gpa: Allocator) Letters {
        return .{ .gpa = gpa, .text = .init(gpa) };
    }

    pub fn ofStream(gpa: Allocator, stream: []const u8) Letters {
        var self: Letters = .init(gpa);
        self.stream = stream;
        return self;
    }

    pub fn deinit(self: *Letters) void {
        self.text.deinit();
    }

    pub fn isFull(self: *const Letters) bool {
        return self.text.writer.end >= waiting_bytes_max;
    }

    /// `whole` and `short` have `write(*json.Stringify) !void`, which writes a letter; `short` is the one that takes its
    /// place when there is no room for it. A null `whole` is one for which there is none.
    pub fn add(self: *Letters, whole: anytype, short: anytype) !void {
        if (whole) |letter| {
            if (self.fits(letter)) return;
            // There may be room for it alone.
            try self.flush();
            self.text.deinit();
            self.text = .init(self.gpa);
            if (self.fits(letter)) return;
        }
        if (!self.fits(short)) return error.OutOfMemory;
    }

    /// Whether there was room for the letter.
    fn fits(self: *Letters, letter: anytype) bool {
        const before = self.text.writer.end;
        self.write(letter) catch {
            self.text.writer.end = before;
            return false;
        };
        if (self.text.writer.end - before > letter_bytes_max) {
            self.text.writer.end = before;
            return false;
        }
        self.waiting += 1;
        return true;
    }

    fn write(self: *Letters, letter: anytype) !void {
        try self.text.writer.writeAll(if (self.waiting == 0) opening else ",");
        var stringify: json.Stringify = .{ .writer = &self.text.writer };
        try letter.write(&stringify);
    }

    fn close(self: *Letters) !void {
        const stream = self.stream orelse return self.text.writer.writeAll("]}");
        try self.text.writer.writeAll("],\"stream\":");
        var stringify: json.Stringify = .{ .writer = &self.text.writer };
        try stringify.write(stream);
        try self.text.writer.writeAll("}");
    }

    /// Hands over what waits.
    pub fn flush(self: *Letters) !void {
        if (self.waiting == 0) return;
        // Room for a few bytes more is found: where it is not, the memory of a batch is not either.
        self.close() catch return error.OutOfMemory;
        try host.emitDlqText(self.text.written());
        self.waiting = 0;
        if (self.text.writer.buffer.len > 2 * waiting_bytes_max) {
            self.text.deinit();
            self.text = .init(self.gpa);
        } else self.text.clearRetainingCapacity();
    }
};
