//! What the server hears from us while it sends: up to where its changes are committed where they belong.

const std = @import("std");
const sdk = @import("sdk");
const Settlement = @import("settlement.zig").Settlement;
const SlotReader = @import("slot_reader.zig").SlotReader;

/// It hears at least as often, and as soon when something new is settled.
const status_us = 5 * std.time.us_per_s;
const news_us = 1 * std.time.us_per_s;

pub const Standby = struct {
    slot: *const SlotReader,
    settlement: Settlement,
    latest: i64 = 0,

    /// How long it may hear nothing of what is new.
    pub const patience_us = news_us;

    pub fn deinit(self: *Standby) void {
        self.settlement.deinit();
    }

    /// What is due.
    pub fn report(self: *Standby, now: i64) !void {
        if (now - self.latest < news_us) return;
        const before = self.settlement.confirmed();
        self.settlement.settle(try sdk.host.settled());
        if (now - self.latest >= status_us or self.settlement.confirmed().value != before.value) try self.tell(now, false);
    }

    /// `asks`: for an answer.
    pub fn tell(self: *Standby, now: i64, asks: bool) !void {
        self.settlement.settle(try sdk.host.settled());
        self.slot.session.replication.?.confirm(self.settlement.confirmed(), now, asks) catch |err| return self.slot.failed(err);
        self.latest = now;
    }
};
