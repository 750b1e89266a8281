//! PostgreSQL as both connectors see it: the wire protocol, authentication, types and COPY.
//!
//!     connection.zig   one session: startup, simple and extended query, COPY in both directions
//!       transport.zig    bytes to and from the server (the host's sockets; a script in tests)
//!       receiver.zig     the receive buffer, and the messages in it
//!       message.zig      what each message looks like
//!       startup.zig      TLS, the startup packet, authentication;  scram.zig, md5.zig
//!     copy.zig         COPY's data messages and the binary format's frame
//!     types.zig        which PostgreSQL type crosses as which Arrow type
//!     values.zig       what Arrow cannot say in a type's own range: infinities, NaN, epochs
//!     decode.zig       COPY binary rows -> Arrow column builders;  field.zig, numeric.zig
//!     canonical.zig    binary values -> the text that PostgreSQL prints, whatever a session is set to
//!     printed.zig      binary values -> their text, to the last digit, for rows that are told and not loaded
//!     arrow_text.zig   … and those of Arrow's values
//!     cell.zig         a value of such a row, in JSON
//!     replication.zig  a slot's stream of changes, and what is confirmed of it
//!       pgoutput.zig     the messages in it
//!       text_field.zig   values in text form -> Arrow column builders
//!       lsn.zig          positions in the write-ahead log
//!     digest.zig       what is in rows, in few digits
//!     ident.zig        quoting
//!     failure.zig      what went wrong, as the connector's error

pub const Cell = @import("cell.zig").Cell;
pub const Config = @import("config.zig").Config;
pub const Connection = @import("connection.zig").Connection;
pub const Lsn = @import("lsn.zig").Lsn;
pub const Replication = @import("replication.zig").Replication;
pub const Result = @import("connection.zig").Result;
pub const CopyOut = @import("copy.zig").CopyOut;
pub const CopyIn = @import("copy.zig").CopyIn;
pub const ServerError = @import("server_error.zig").ServerError;
pub const Transport = @import("transport.zig").Transport;

pub const arrow_text = @import("arrow_text.zig");
pub const canonical = @import("canonical.zig");
pub const copy = @import("copy.zig");
pub const decode = @import("decode.zig");
pub const digest = @import("digest.zig");
pub const failure = @import("failure.zig");
pub const ident = @import("ident.zig");
pub const pgoutput = @import("pgoutput.zig");
pub const printed = @import("printed.zig");

pub const replication = @import("replication.zig");
pub const text_field = @import("text_field.zig");
pub const transport = @import("transport.zig");
pub const types = @import("types.zig");
pub const values = @import("values.zig");

test {
    _ = arrow_text;
    _ = @import("cell.zig");
    _ = @import("config.zig");
    _ = @import("connection.zig");
    _ = @import("receiver.zig");
    _ = @import("message.zig");
    _ = @import("startup.zig");
    _ = @import("scram.zig");
    _ = @import("md5.zig");
    _ = @import("server_error.zig");
    _ = @import("transport.zig");
    _ = canonical;
    _ = copy;
    _ = decode;
    _ = @import("field.zig");
    _ = @import("numeric.zig");
    _ = failure;
    _ = ident;
    _ = @import("lsn.zig");
    _ = pgoutput;
    _ = printed;
    _ = @import("replication.zig");

    _ = text_field;
    _ = types;
    _ = values;
}
