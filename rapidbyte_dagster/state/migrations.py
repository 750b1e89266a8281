"""The state store's tables, one numbered step after the other. A step that was released is never edited."""

from __future__ import annotations

# Times are ISO 8601 text in UTC. `status` of a checkpoint is 'prepared' (written before the destination's COMMIT)
# or 'committed' (known to be in the destination).
_STEPS: tuple[str, ...] = (
    """
    CREATE TABLE _rapidbyte_checkpoints (
        pipeline_name TEXT NOT NULL,
        stream_name TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('prepared', 'committed')),
        cursor_json TEXT NOT NULL,
        row_count BIGINT NOT NULL,
        byte_count BIGINT NOT NULL,
        run_id TEXT NOT NULL,
        prepared_at TEXT NOT NULL,
        committed_at TEXT,
        PRIMARY KEY (pipeline_name, stream_name, sequence)
    );
    CREATE TABLE _rapidbyte_dlq (
        id {identity},
        stream_name TEXT NOT NULL,
        record_json TEXT NOT NULL,
        error_message TEXT NOT NULL,
        error_category TEXT NOT NULL,
        failed_at TEXT NOT NULL,
        pipeline_name TEXT NOT NULL,
        run_id TEXT NOT NULL,
        stage TEXT NOT NULL,
        column_name TEXT,
        checkpoint_sequence BIGINT
    );
    CREATE INDEX _rapidbyte_dlq_stream ON _rapidbyte_dlq (pipeline_name, stream_name);
    CREATE TABLE _rapidbyte_schemas (
        pipeline_name TEXT NOT NULL,
        stream_name TEXT NOT NULL,
        version BIGINT NOT NULL,
        fingerprint TEXT NOT NULL,
        schema_json TEXT NOT NULL,
        PRIMARY KEY (pipeline_name, stream_name, version)
    );
    CREATE TABLE _rapidbyte_runs (
        run_id TEXT NOT NULL,
        pipeline_name TEXT NOT NULL,
        stream_name TEXT NOT NULL,
        status TEXT NOT NULL,
        started_at TEXT NOT NULL,
        ended_at TEXT,
        row_count BIGINT NOT NULL,
        byte_count BIGINT NOT NULL,
        attempts BIGINT NOT NULL,
        error_message TEXT,
        PRIMARY KEY (run_id, pipeline_name, stream_name)
    );
    """,
    # NULL where the commit found nothing worth writing down.
    """
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN schema_changes_json TEXT;
    """,
    # A dead letter counts once the checkpoint of its sequence and run is committed. The index answers how many there
    # are without reading a record.
    """
    ALTER TABLE _rapidbyte_dlq ADD COLUMN sqlstate TEXT;
    ALTER TABLE _rapidbyte_dlq ADD COLUMN constraint_name TEXT;
    ALTER TABLE _rapidbyte_dlq ADD COLUMN types_json TEXT;
    ALTER TABLE _rapidbyte_dlq ADD COLUMN replayed_by_run TEXT;
    ALTER TABLE _rapidbyte_dlq ADD COLUMN replayed_sequence BIGINT;
    DROP INDEX _rapidbyte_dlq_stream;
    CREATE INDEX _rapidbyte_dlq_checkpoint ON _rapidbyte_dlq
        (pipeline_name, stream_name, checkpoint_sequence, run_id, error_category, replayed_by_run);
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN rejected_count BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN dead_letter_count BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE _rapidbyte_runs ADD COLUMN rejected_count BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE _rapidbyte_runs ADD COLUMN dead_letter_count BIGINT NOT NULL DEFAULT 0;
    """,
    # `replaced` is 1 where the commit put its rows in the place of all that were there. `beneath_json` is what a replay
    # covers: the watermark as the last ordinary run left it. One index finds the letters of one replay, and marks that
    # came to nothing; the other walks through a stream's letters, a part at a time.
    """
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN replaced BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN beneath_json TEXT;
    ALTER TABLE _rapidbyte_runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'run';
    CREATE INDEX _rapidbyte_dlq_replay ON _rapidbyte_dlq
        (pipeline_name, stream_name, replayed_by_run, replayed_sequence, id);
    CREATE INDEX _rapidbyte_dlq_order ON _rapidbyte_dlq (pipeline_name, stream_name, id);
    """,
    # A run that merges everything anew commits several times: `anew_after` is the last checkpoint before it began, and
    # `is_final` is 1 where it came to its end.
    """
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN anew_after BIGINT;
    ALTER TABLE _rapidbyte_checkpoints ADD COLUMN is_final BIGINT NOT NULL DEFAULT 0;
    """,
    # What was made at a source for change data capture, and so may be taken away again.
    """
    CREATE TABLE _rapidbyte_slots (
        pipeline_name TEXT NOT NULL,
        slot_name TEXT NOT NULL,
        server TEXT,
        position TEXT,
        created_at TEXT NOT NULL,
        PRIMARY KEY (pipeline_name, slot_name)
    );
    """,
)

# The table of dead letters that a pipeline file names itself is made as `_rapidbyte_dlq` is by now. A step that changes
# that one has to find those too: they are what `letter_table` is asked for when a store is opened.
_LETTER_TABLE = """
    CREATE TABLE "{table}" (
        id {identity},
        stream_name TEXT NOT NULL,
        record_json TEXT NOT NULL,
        error_message TEXT NOT NULL,
        error_category TEXT NOT NULL,
        failed_at TEXT NOT NULL,
        pipeline_name TEXT NOT NULL,
        run_id TEXT NOT NULL,
        stage TEXT NOT NULL,
        column_name TEXT,
        checkpoint_sequence BIGINT,
        sqlstate TEXT,
        constraint_name TEXT,
        types_json TEXT,
        replayed_by_run TEXT,
        replayed_sequence BIGINT
    );
    CREATE INDEX "{table}_checkpoint" ON "{table}"
        (pipeline_name, stream_name, checkpoint_sequence, run_id, error_category, replayed_by_run);
    CREATE INDEX "{table}_replay" ON "{table}"
        (pipeline_name, stream_name, replayed_by_run, replayed_sequence, id);
    CREATE INDEX "{table}_order" ON "{table}" (pipeline_name, stream_name, id);
"""


def migrations(identity: str) -> tuple[tuple[str, ...], ...]:
    """Each step's statements; `identity` is the database's type of a key that counts up by itself."""
    return tuple(_statements(step.format(identity=identity)) for step in _STEPS)


def letter_table(table: str, identity: str) -> tuple[str, ...]:
    """The statements that make the table of dead letters of that name."""
    return _statements(_LETTER_TABLE.format(table=table, identity=identity))


def _statements(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (statement.strip() for statement in text.split(";"))))
