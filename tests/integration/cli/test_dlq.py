"""`rapidbyte dlq`: dead letters shown, exported, edited, replayed and purged, as commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.state import DeadLetter, LetterCategory, LetterChoice, open_state, utc_now
from tests.integration.cli.command import in_process as rapidbyte
from tests.pipelines import write_pipeline
from tests.postgres_server import Database

TYPES = {"id": "bigint", "email": "text", "score": "numeric(12,4)"}


@dataclass
class Shop:
    path: Path
    destination: Database

    def set_aside(
        self,
        *records: Mapping[str, Any] | None,
        stream: str = "users",
        category: LetterCategory = LetterCategory.CHECK,
        record_json: str | None = None,
    ) -> list[int]:
        """Their numbers."""
        letters = [
            DeadLetter(
                record_json=record_json or json.dumps(record),
                types_json=json.dumps({name: TYPES[name] for name in record or TYPES}),
                message="a [red]reason[/red]\x1b[2J",
                category=category,
                stage="destination",
                failed_at=utc_now(),
                column="score",
            )
            for record in records
        ]
        pipeline = load_pipeline(self.path)
        with open_state(pipeline, {}) as state:
            last = state.latest_checkpoint("shop", stream)
            assert last is not None
            state.add_dead_letters("shop", stream, letters, run_id=last.run_id, sequence=last.sequence)
            return sorted(state.dead_letter_ids("shop", stream, LetterChoice()))[-len(records) :]

    def show(self, *options: object) -> dict[str, Any]:
        done = rapidbyte("dlq", "show", self.path, "--stream", "users", "--json", *options)
        assert done.returncode == 0, done.stderr
        [stream] = json.loads(done.stdout)["streams"]
        assert isinstance(stream, dict)
        return stream

    def replay(self, *options: object) -> dict[str, Any]:
        done = rapidbyte("dlq", "replay", self.path, "--json", *options)
        assert done.returncode == 0, done.stderr
        told = {stream["stream"]: stream for stream in json.loads(done.stdout)["streams"]}
        found = told["users"]
        assert isinstance(found, dict)
        return found

    def rows(self) -> list[tuple[Any, ...]]:
        return self.destination.fetch("SELECT id, email, score::text FROM raw.users ORDER BY id")


@pytest.fixture
def shop(tmp_path: Path, source_db: Database, destination_db: Database) -> Shop:
    source_db.execute("""
        CREATE TABLE users (id bigint PRIMARY KEY, email text, score numeric(12,4));
        INSERT INTO users VALUES (1, 'one', 1);
        CREATE TABLE orders AS TABLE users;
    """)
    path = write_pipeline(tmp_path, source_db, destination_db, ["users", "orders"])
    assert rapidbyte("run", path).returncode == 0
    return Shop(path, destination_db)


BAD = {"id": 7, "email": "seven", "score": "-1.0000"}


def test_show_tells_of_a_stream_without_dead_letters(shop: Shop) -> None:
    done = rapidbyte("dlq", "show", shop.path)
    assert (done.returncode, done.stdout) == (0, "users: no dead letters\norders: no dead letters\n")
    assert shop.show() == {"stream": "users", "total": 0, "waiting": 0, "by_category": {}, "letters": []}


def test_show_lists_the_newest_and_acts_on_nothing_that_a_row_says(shop: Shop) -> None:
    shop.set_aside(BAD)
    [newest] = shop.set_aside({"id": 8, "email": "x" * 5000}, category=LetterCategory.CAST)
    done = rapidbyte("dlq", "show", shop.path, "--stream", "users", "--limit", "1")
    assert done.returncode == 0
    assert "users: 2 dead letters, 2 waiting (cast 1, check 1)" in done.stdout
    assert str(newest) in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert "[red]" in "".join(done.stdout.split())
    assert "1 older ones are left out" in done.stdout
    found = shop.show("--category", "cast")
    assert (found["total"], found["by_category"]) == (1, {"cast": 1})
    [letter] = found["letters"]
    assert (letter["id"], letter["category"], letter["column"]) == (newest, "cast", "score")
    assert letter["record"] == {"id": 8, "email": "x" * 5000}
    assert shop.show("--run", "nobody's")["total"] == 0


def test_replay_writes_what_waits_and_nothing_the_second_time(shop: Shop) -> None:
    shop.set_aside(BAD, {**BAD, "id": 8}, None)
    done = rapidbyte("dlq", "replay", shop.path, "--stream", "users")
    assert done.returncode == 0, done.stderr
    assert "users: 2 dead letters replayed, 2 rows are in the table; 1 left, which hold no row" in done.stdout
    assert shop.rows()[1:] == [(7, "seven", "-1.0000"), (8, "seven", "-1.0000")]
    again = rapidbyte("dlq", "replay", shop.path)
    assert "users: nothing to replay; 1 left" in again.stdout
    assert "wait no longer" not in again.stdout
    assert "orders: nothing to replay\n" in again.stdout
    shown = shop.show()
    assert (shown["total"], shown["waiting"]) == (3, 1)
    assert "of dead letters" in rapidbyte("state", "show", shop.path, "--history", "--stream", "users").stdout


def test_replay_takes_letters_by_number_wherever_they_are(shop: Shop) -> None:
    [user, _] = shop.set_aside(BAD, {**BAD, "id": 8})
    [order] = shop.set_aside(BAD, stream="orders")
    assert shop.replay("--id", user, "--id", order)["letters"] == 1
    assert shop.destination.fetch_value("SELECT count(*) FROM raw.orders") == 2
    assert len(shop.rows()) == 2
    done = rapidbyte("dlq", "replay", shop.path, "--id", 99999)
    assert done.returncode == 64
    assert "no dead letter 99999 of these streams" in done.stderr


def test_replay_that_fails_tells_why_and_changes_nothing(shop: Shop) -> None:
    shop.destination.execute("ALTER TABLE raw.users ADD CONSTRAINT positive CHECK (score > 0)")
    shop.set_aside(BAD)
    shop.set_aside(BAD, stream="orders")
    done = rapidbyte("dlq", "replay", shop.path, "--json")
    assert done.returncode == 5
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert {stream["stream"]: stream["error"] is None for stream in told["streams"]} == {"orders": True, "users": False}
    assert 'violates check constraint "positive"' in done.stderr
    assert shop.show()["waiting"] == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".parquet"])
def test_an_export_is_edited_and_replayed(shop: Shop, tmp_path: Path, suffix: str) -> None:
    shop.destination.execute("ALTER TABLE raw.users ADD CONSTRAINT positive CHECK (score > 0)")
    shop.set_aside(BAD, {**BAD, "id": 8}, {**BAD, "id": 9})
    path = tmp_path / f"letters{suffix}"
    done = rapidbyte("dlq", "export", shop.path, "--to", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"3 dead letters written to {path}" in done.stderr
    assert path.stat().st_mode & 0o077 == 0
    edited(path, lambda record: None if record["id"] == 8 else {**record, "score": "2.5000"})
    result = shop.replay("--from", path)
    assert (result["letters"], result["rows"]) == (2, 2)
    assert shop.rows()[1:] == [(7, "seven", "2.5000"), (9, "seven", "2.5000")]
    again = shop.replay("--from", path)
    assert (again["letters"], again["settled"]) == (0, 2)
    assert shop.show("--waiting")["letters"][0]["record"]["id"] == 8


def edited(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Each record as `edit` leaves it; a line that it gives nothing for is left out."""
    if path.suffix == ".parquet":
        rows = pa.parquet.read_table(path).to_pylist()
        kept = [(row, edit(json.loads(row["record_json"]))) for row in rows]
        table = [{**row, "record_json": json.dumps(record)} for row, record in kept if record is not None]
        pa.parquet.write_table(pa.Table.from_pylist(table), path)
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = [(line, edit(line["record"])) for line in lines]
    path.write_text("".join(json.dumps({**line, "record": record}) + "\n" for line, record in records if record))


def test_an_export_is_complete_to_the_digit(shop: Shop) -> None:
    digits = "1" * 5000 + ".50"
    shop.set_aside({"id": 7}, record_json=f'{{"id":18446744073709551616,"n":{digits},"s":"\\u0000ü"}}')
    done = rapidbyte("dlq", "export", shop.path)
    assert done.returncode == 0
    assert f'"record": {{"id":18446744073709551616,"n":{digits},"s":"\\u0000ü"}}}}' in done.stdout


def test_a_letter_without_a_row_is_completed_in_an_export(shop: Shop, tmp_path: Path) -> None:
    shop.set_aside(None)
    path = tmp_path / "letters.jsonl"
    assert rapidbyte("dlq", "export", shop.path, "--to", path).returncode == 0
    done = rapidbyte("dlq", "replay", shop.path, "--from", path)
    assert done.returncode == 64
    assert f"{path}, line 1: dead letter 1 cannot be replayed: it holds no row" in done.stderr
    edited(path, lambda record: {"id": 7, "score": 12.50})
    assert shop.replay("--from", path)["rows"] == 1
    assert shop.rows()[1:] == [(7, None, "12.5000")]


def test_an_export_does_not_overwrite_a_file_unless_it_is_told_to(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text("theirs")
    done = rapidbyte("dlq", "export", shop.path, "--to", path)
    assert done.returncode == 64
    assert "is there already" in done.stderr
    assert path.read_text() == "theirs"
    assert rapidbyte("dlq", "export", shop.path, "--to", path, "--overwrite").returncode == 0
    assert path.read_text() == ""
    for wrong, told in (
        (tmp_path / "letters.csv", "tells its format"),
        (tmp_path / "no" / "x.jsonl", "cannot be written"),
    ):
        done = rapidbyte("dlq", "export", shop.path, "--to", wrong)
        assert (done.returncode, told in done.stderr) == (64, True)
    assert [entry.name for entry in tmp_path.glob("*unfinished*")] == []


GOOD = {"id": 1, "pipeline": "shop", "stream": "users", "types": TYPES, "record": BAD}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: it is no line of JSON"),
        ("[1]", "line 2: it is no object"),
        (json.dumps({"id": 2}), "line 2: pipeline and stream and types and record missing"),
        (json.dumps({**GOOD, "id": 1}), "line 2: dead letter 1 is in line 1 already"),
        (json.dumps({**GOOD, "id": "x"}), "line 2: its id is no number of a dead letter"),
        (json.dumps({**GOOD, "id": -2}), "line 2: its id is no number"),
        (json.dumps({**GOOD, "id": 2, "stream": "usres"}), "line 2: it is of no stream of pipeline 'shop'"),
        (json.dumps({**GOOD, "id": 2, "pipeline": "other"}), "line 2: it is of no stream of pipeline 'shop'"),
        (json.dumps({**GOOD, "id": 2, "record": {"name": "x"}}), "column 'name' has no type in its types"),
        (
            json.dumps({**GOOD, "id": 2, "record": {"email": {"a": 1}}}),
            "column 'email' holds an object: write its text",
        ),
        (json.dumps({**GOOD, "id": 2, "record": {"score": float("nan")}}), "NaN is no number in JSON"),
        (json.dumps({**GOOD, "id": 2, "record": {"email": "\ud800"}}), "half a surrogate pair"),
        ('{"id": 2, "id": 3}', "'id' is there twice"),
        (json.dumps({**GOOD, "id": 98765}), "no dead letter 98765 of this stream"),
        ("[" * 100_000, "line 2: it is no line of JSON"),
    ],
)
def test_an_export_that_was_edited_wrongly_is_refused_as_a_whole(
    shop: Shop, tmp_path: Path, line: str, told: str
) -> None:
    shop.set_aside(BAD, {**BAD, "id": 8})
    path = tmp_path / "letters.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    done = rapidbyte("dlq", "replay", shop.path, "--from", path)
    assert done.returncode == 64, done.stderr
    assert told in done.stderr
    assert len(shop.rows()) == 1
    assert shop.show()["waiting"] == 2


def test_a_file_that_is_no_export_is_refused(shop: Shop, tmp_path: Path) -> None:
    wrong = tmp_path / "letters.parquet"
    wrong.write_text("no Parquet")
    other = tmp_path / "other.parquet"
    pa.parquet.write_table(pa.table({"id": [1]}), other)
    for path, told in (
        (wrong, "is no Parquet file"),
        (other, "has no column pipeline_name"),
        (tmp_path / "a.jsonl", "No such file"),
    ):
        done = rapidbyte("dlq", "replay", shop.path, "--from", path)
        assert (done.returncode, told in done.stderr) == (64, True), done.stderr
    done = rapidbyte("dlq", "replay", shop.path, "--from", wrong, "--id", 1)
    assert done.returncode == 64
    assert "leave out --run" in done.stderr


def test_purge_deletes_what_waits_no_longer_and_more_only_when_told(shop: Shop) -> None:
    [first, *_] = shop.set_aside(BAD, {**BAD, "id": 8}, {**BAD, "id": 9})
    shop.replay("--id", first)
    done = rapidbyte("dlq", "purge", shop.path)
    assert done.returncode == 64
    assert "there is no terminal to ask" in done.stderr
    assert shop.show()["total"] == 3
    done = rapidbyte("dlq", "purge", shop.path, "--yes")
    assert done.stdout == "users: 1 dead letter purged\norders: no dead letters purged\n"
    assert shop.show()["waiting"] == 2
    assert (
        "no dead letters purged"
        in rapidbyte("dlq", "purge", shop.path, "--yes", "--all", "--before", "2020-01-01").stdout
    )
    assert rapidbyte("dlq", "purge", shop.path, "--before", "yesterday").returncode == 64
    told = json.loads(
        rapidbyte("dlq", "purge", shop.path, "--all", "--yes", "--json", "--before", "2999-01-01T00:00Z").stdout
    )
    assert told["streams"][0] == {"stream": "users", "purged": 2, "taken": 0}
    assert shop.show()["total"] == 0


def test_help_tells_of_every_option() -> None:
    for command in ("show", "export", "replay", "purge"):
        done = rapidbyte("dlq", command, "--help")
        assert done.returncode == 0
        assert "--category" in done.stdout
