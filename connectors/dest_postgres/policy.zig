//! What a pipeline wants to happen where a stream's columns are not those of its table: `schema_evolution` of the pipeline
//! file.

pub const Policy = struct {
    new_column: NewColumn = .add,
    removed_column: RemovedColumn = .ignore,
    type_change: TypeChange = .fail,
    nullability_change: NullabilityChange = .allow,

    pub const NewColumn = enum { add, ignore, fail };
    /// Both `ignore` and `add` keep the column; whoever says `add` does not want to be warned of it.
    pub const RemovedColumn = enum { ignore, add, fail };
    pub const TypeChange = enum { fail, coerce, null };
    pub const NullabilityChange = enum { allow, fail };
};

/// A column that the stream brought in an earlier run.
pub const KnownColumn = struct {
    name: []const u8,
    /// In the table, after that run.
    nullable: bool,
    /// In the stream; null where nobody wrote it down.
    stream_nullable: ?bool = null,

    /// Whether the table's column could hold NULL while the stream's could not, and everybody lived with it.
    pub fn isSettled(self: *const KnownColumn) bool {
        return self.nullable and !(self.stream_nullable orelse false);
    }
};
