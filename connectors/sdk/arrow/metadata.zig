//! The numbers of Arrow's FlatBuffers schemas that both directions need.
//!
//! https://github.com/apache/arrow/blob/main/format/Message.fbs and Schema.fbs; slots are numbered in the order that
//! the .fbs files declare fields, a union taking two (its tag and its value).

const types = @import("types.zig");

/// Opens every message; older writers left it out.
pub const continuation: u32 = 0xFFFF_FFFF;

/// Continuation marker and metadata size.
pub const prefix_bytes = 8;

pub const version_5: i16 = 4;
pub const little_endian: i16 = 0;

/// `MessageHeader`.
pub const Header = enum(u8) {
    none = 0,
    schema = 1,
    dictionary_batch = 2,
    record_batch = 3,
    _,
};

/// `Type`; the ones without a place in the ABI are named for the message to the user.
pub const TypeTag = enum(u8) {
    none = 0,
    null = 1,
    int = 2,
    floating_point = 3,
    binary = 4,
    utf8 = 5,
    bool = 6,
    decimal = 7,
    date = 8,
    time = 9,
    timestamp = 10,
    interval = 11,
    list = 12,
    @"struct" = 13,
    @"union" = 14,
    fixed_size_binary = 15,
    fixed_size_list = 16,
    map = 17,
    duration = 18,
    large_binary = 19,
    large_utf8 = 20,
    large_list = 21,
    run_end_encoded = 22,
    binary_view = 23,
    utf8_view = 24,
    list_view = 25,
    large_list_view = 26,
    _,

    pub fn of(value: types.Type) TypeTag {
        return switch (value) {
            .bool => .bool,
            .int16, .int32, .int64 => .int,
            .float32, .float64 => .floating_point,
            .decimal128, .decimal256 => .decimal,
            .utf8 => .utf8,
            .binary => .binary,
            .date32 => .date,
            .timestamp => .timestamp,
            .time64 => .time,
            .interval_month_day_nano => .interval,
            .fixed_size_binary => .fixed_size_binary,
            .list => .list,
        };
    }
};

pub const float_single: i16 = 1;
pub const float_double: i16 = 2;

pub const date_day: i16 = 0;
/// The default of `Date.unit`.
pub const date_millisecond: i16 = 1;

/// `TimeUnit`.
pub const unit_second: i16 = 0;
pub const unit_millisecond: i16 = 1;
pub const unit_microsecond: i16 = 2;

pub const interval_month_day_nano: i16 = 2;

/// Slots of `Message`.
pub const message = struct {
    pub const version = 0;
    pub const header_tag = 1;
    pub const header = 2;
    pub const body_length = 3;
};

/// Slots of `Schema`.
pub const schema = struct {
    pub const endianness = 0;
    pub const fields = 1;
    pub const custom_metadata = 2;
};

/// Slots of `Field`.
pub const field = struct {
    pub const name = 0;
    pub const nullable = 1;
    pub const type_tag = 2;
    pub const type_value = 3;
    pub const dictionary = 4;
    pub const children = 5;
    pub const custom_metadata = 6;
};

/// Slots of `RecordBatch`.
pub const record_batch = struct {
    pub const length = 0;
    pub const nodes = 1;
    pub const buffers = 2;
    pub const compression = 3;
    pub const variadic_counts = 4;
};
