"""Where each row of the source is: in the destination's table, or in a dead letter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.postgres_server import Database
from tests.recovery.trial import INTERRUPTED, UNDISTURBED, Trial

Rows = Counter[tuple[Any, ...]]


def assert_accounted(trial: Trial) -> None:
    """Every row of the source is in the table or in a dead letter that counts, and not in both; once.

    The run before must have ended. A row is what it holds: where one changed and was refused since, the table still has
    what it was, and a dead letter what it is.
    """
    assert trial.letters_in_all() == len(trial.letters()), "a dead letter is left of what was never committed"
    checkpoints = trial.checkpoints()
    told = Counter(letter["checkpoint_sequence"] for letter in trial.letters())
    assert dict(told) == {c.sequence: c.dead_letters for c in checkpoints if c.dead_letters}
    for checkpoint in checkpoints:
        assert checkpoint.rejected == checkpoint.dead_letters
    # A full refresh tells of the whole source, whatever runs before it told.
    newest = None if trial.cell.commits_on_the_way else checkpoints[0].sequence
    there, refused = in_table(trial), in_letters(trial, since=newest)
    assert refused, "nothing was refused: the trial shows nothing"
    for row, count in in_source(trial).items():
        if trial.cell.write_mode != "append":
            assert there[row] <= count == 1
        assert there[row] + refused[row] == count, (row, there[row], refused[row])


def assert_same_letters(trial: Trial) -> None:
    """The interrupted pipeline's dead letters are the other's, row for row and reason for reason."""
    assert told(trial.letters()) == told(trial.letters(UNDISTURBED))


def told(letters: Iterable[Mapping[str, Any]]) -> Counter[tuple[Any, ...]]:
    names = ("record_json", "types_json", "error_category", "sqlstate", "constraint_name", "column_name", "stage")
    return Counter(tuple(letter[name] for name in names) for letter in letters)


def in_source(trial: Trial) -> Rows:
    return Counter(trial.source.fetch("SELECT * FROM events"))


def in_table(trial: Trial) -> Rows:
    return Counter(trial.destination.fetch(f"SELECT * FROM {INTERRUPTED}.events"))


def in_letters(trial: Trial, *, since: int | None = None) -> Rows:
    """As PostgreSQL reads them; those of one checkpoint."""
    return rows_of(
        trial.source,
        (letter["record_json"] for letter in trial.letters() if since in (None, letter["checkpoint_sequence"])),
    )


def rows_of(source: Database, records: Iterable[str]) -> Rows:
    made = json.dumps([json.loads(record) for record in records])
    return Counter(source.fetch("SELECT * FROM json_populate_recordset(null::events, %s)", [made]))
