"""Holds the histories of appended streams against what happened: nothing is missing, and nothing is told twice."""

from __future__ import annotations

from collections import Counter

from tests.postgres_server import Database

# Each change of a transaction has a place of its own; rows of a snapshot share theirs.
REPEATED = """
    SELECT _rb_lsn::text, _rb_seq, count(*) FROM {history}
    WHERE _rb_seq > 0 GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5
"""

# What was told of one key, in order: a chain whose links fit. A row that came by a change of its key has the old one's
# end right before it.
BROKEN = """
    WITH told AS (
        SELECT _rb_op, _rb_lsn, _rb_seq, id, version,
               count(*) FILTER (WHERE _rb_op = 'truncate') OVER before AS epoch,
               lag(_rb_op) OVER before AS op_before, lag(_rb_seq) OVER before AS seq_before
        FROM {history} WINDOW before AS (ORDER BY _rb_lsn, _rb_seq)
    ), chained AS (
        SELECT *, lag(_rb_op) OVER chain AS last_op, lag(version) OVER chain AS last_version
        FROM told WHERE _rb_op <> 'truncate'
        WINDOW chain AS (PARTITION BY epoch, id ORDER BY _rb_lsn, _rb_seq)
    )
    SELECT id, _rb_op, version, _rb_lsn::text, _rb_seq, last_op, last_version FROM chained
    WHERE CASE _rb_op
        WHEN 'insert' THEN coalesce(last_op, 'delete') <> 'delete'
        WHEN 'delete' THEN coalesce(last_op, 'delete') = 'delete'
        WHEN 'update' THEN
            CASE WHEN coalesce(last_op, 'delete') = 'delete'
                 THEN op_before IS DISTINCT FROM 'delete' OR seq_before IS DISTINCT FROM _rb_seq - 1
                 ELSE version <> last_version + 1 END
        ELSE true
    END
    LIMIT 5
"""

REPLAYED = """
    SELECT {columns} FROM (
        SELECT DISTINCT ON (id) * FROM {history}
        WHERE _rb_op <> 'truncate' AND (_rb_lsn, _rb_seq) > (
            SELECT coalesce(max(_rb_lsn), '0/0'), coalesce(max(_rb_seq), -1) FROM (
                SELECT _rb_lsn, _rb_seq FROM {history} WHERE _rb_op = 'truncate' ORDER BY 1 DESC, 2 DESC LIMIT 1
            ) AS last
        )
        ORDER BY id, _rb_lsn DESC, _rb_seq DESC
    ) AS latest
    WHERE _rb_op <> 'delete' ORDER BY id
"""


def assert_tells_everything_once(
    source: Database, destination: Database, table: str, history: str, *, audited: bool
) -> None:
    """The history of a table with `id` and `version` ends where the source's rows are, by links that fit.

    audited: the source's `audit` has all that the history has to tell, since it began with an empty table.
    """
    repeated = destination.fetch(REPEATED.format(history=history))
    assert repeated == [], repeated
    broken = destination.fetch(BROKEN.format(history=history))
    assert broken == [], broken
    replayed = dict(destination.fetch(REPLAYED.format(history=history, columns="id, version")))
    expected = dict(source.fetch(f"SELECT id, version FROM {table}"))
    assert replayed == expected, (table, sorted(replayed.items() ^ expected.items())[:10])
    if audited:
        assert_told(source, destination, table, history)


def assert_told(source: Database, destination: Database, table: str, history: str) -> None:
    """Each entry of the source's `audit` once, and nothing else; rows without a key are none the worse."""
    happened = Counter(source.fetch('SELECT op, id, version FROM audit WHERE "table" = %s', [table]))
    # A delete tells the key, or the whole row.
    told = Counter(
        destination.fetch(f"SELECT _rb_op, id, CASE WHEN _rb_op <> 'delete' THEN version END FROM {history}")
    )
    lost, repeated = happened - told, told - happened
    assert not lost | repeated, {"lost": lost.most_common(5), "repeated": repeated.most_common(5)}
