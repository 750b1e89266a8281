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
    # A dead letter counts once the checkpoint of its sequence and run is committed. One table for all pipelines: one
    # for each name that a file may give would have to be found again by every migration and every reconciliation, also
    # when no file names it any longer. The index answers how many there are without reading a record.
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
)


def migrations(identity: str) -> tuple[tuple[str, ...], ...]:
    """Each step's statements; `identity` is the database's type of a key that counts up by itself."""
    return tuple(
        tuple(filter(None, (statement.strip() for statement in step.format(identity=identity).split(";"))))
        for step in _STEPS
    )
