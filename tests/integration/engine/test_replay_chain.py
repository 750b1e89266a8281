"""Dead letters of a stream with transforms: each goes back in where it came out."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import ReplayResult, replay_dead_letters
from rapidbyte_dagster.engine.letter_files import EditedLetters
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, MakeDatabase

SALT = "a salt that nobody guesses"
ENVIRON = {"MASK_SALT": SALT}
MASK: dict[str, Any] = {
    "use": "transform-mask",
    "config": {"salt": "${MASK_SALT}", "columns": {"email": "hash", "card": "hash"}},
}


@pytest.fixture
def source(make_database: MakeDatabase) -> Database:
    database = make_database("ascii", encoding="SQL_ASCII")
    database.execute(
        r"""
        create table users (id int primary key, email text not null, card bigint, age int);
        insert into users values (1, 'ann@example.org', 1111, 20), (2, 'bob@example.org', 2222, 200),
            (3, convert_from('\x636166e9', 'SQL_ASCII'), 3333, 30)
        """
    )
    return database


def hashed(text: str) -> str:
    return hmac.new(SALT.encode(), text.encode(), hashlib.sha256).hexdigest()


def letters(pipeline: Pipeline) -> list[dict[str, Any]]:
    with open_state(pipeline, ENVIRON) as state:
        return state.dead_letters(pipeline.name, "users").to_pylist()


def replay(pipeline: Pipeline, edited: EditedLetters | None = None) -> ReplayResult:
    with open_state(pipeline, ENVIRON) as state:
        return replay_dead_letters(
            pipeline, pipeline.streams[0], state=state, run_id=str(uuid.uuid4()), edited=edited, environ=ENVIRON
        )


def edited(folder: Path, pipeline: Pipeline, **changes: Any) -> EditedLetters:
    """All letters, those of the source with `changes`."""
    lines = []
    for letter in letters(pipeline):
        record, types = json.loads(letter["record_json"]), json.loads(letter["types_json"])
        if letter["stage"] == "source":
            record.update(changes)
            types["email"] = "text"
        told = {"id": letter["id"], "pipeline": "shop", "stream": "users", "record": record, "types": types}
        lines.append(json.dumps(told))
    path = folder / "letters.jsonl"
    path.write_text("\n".join(lines))
    return EditedLetters(path, pipeline)


def test_a_replay_masks_what_the_mask_has_not_seen_and_masks_nothing_twice(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    destination_db.execute(
        "create schema raw;"
        " create table raw.users (id int, email text, card text, age int constraint young check (age < 100))"
    )
    pipeline = make_pipeline(
        tmp_path,
        source,
        destination_db,
        ["users"],
        destination_section={"on_data_error": "dlq"},
        transforms=[MASK],
    )
    result = run(pipeline, environ=ENVIRON)
    assert (result.rows, result.rejected, result.dead_letters) == (1, 2, 2)
    found = {letter["stage"]: json.loads(letter["record_json"]) for letter in letters(pipeline)}
    assert found["destination"]["email"] == hashed("bob@example.org")
    assert found["source"]["card"] == 3333

    destination_db.execute("alter table raw.users drop constraint young")
    again = replay(pipeline, edited(tmp_path, pipeline, email="café"))
    assert (again.letters, again.rows, again.failed_again) == (2, 2, 0)
    assert destination_db.fetch("select id, email, card, age from raw.users order by id") == [
        (1, hashed("ann@example.org"), hashed("1111"), 20),
        (2, hashed("bob@example.org"), hashed("2222"), 200),
        (3, hashed("café"), hashed("3333"), 30),
    ]
    assert replay(pipeline).letters == 0


def test_letters_of_the_destination_alone_need_no_transform(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    source.execute("delete from users where id = 3")
    destination_db.execute(
        "create schema raw;"
        " create table raw.users (id int, email text, card text, age int constraint young check (age < 100))"
    )
    options: dict[str, Any] = {"destination_section": {"on_data_error": "dlq"}, "transforms": [MASK]}
    pipeline = make_pipeline(tmp_path, source, destination_db, ["users"], **options)
    run(pipeline, environ=ENVIRON)
    destination_db.execute("alter table raw.users drop constraint young")
    # A mask that would refuse the stream's columns: it is not asked.
    config = {**MASK["config"], "columns": {"gone": "hash"}}
    options["transforms"] = [{**MASK, "config": config}]
    result = replay(make_pipeline(tmp_path, source, destination_db, ["users"], **options))
    assert (result.rows, result.failed_again) == (1, 0)
    assert destination_db.fetch_value("select email from raw.users where id = 2") == hashed("bob@example.org")


def test_a_row_that_a_rule_refuses_goes_through_the_rules_again_and_then_through_the_mask(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    source.execute("delete from users where id = 3")

    def pipeline(oldest: int) -> Pipeline:
        rules = [{"assert_range": {"column": "age", "max": oldest}}]
        return make_pipeline(
            tmp_path,
            source,
            destination_db,
            ["users"],
            destination_section={"on_data_error": "dlq"},
            transforms=[{"use": "validate", "config": {"rules": rules}}, MASK],
        )

    result = run(pipeline(100), environ=ENVIRON)
    assert (result.rows, result.dead_letters) == (1, 1)
    [letter] = letters(pipeline(100))
    assert (letter["stage"], letter["error_category"], letter["column_name"]) == ("transform 1", "rule", "age")
    assert json.loads(letter["record_json"])["email"] == "bob@example.org"

    again = replay(pipeline(150))
    assert (again.letters, again.rows, again.failed_again) == (1, 0, 1)
    [first, second] = letters(pipeline(100))
    assert first["replayed_by_run"] is not None
    assert (second["stage"], second["record_json"]) == ("transform 1", first["record_json"])

    assert replay(pipeline(200)).rows == 1
    assert destination_db.fetch("select id, email, card, age from raw.users order by id") == [
        (1, hashed("ann@example.org"), hashed("1111"), 20),
        (2, hashed("bob@example.org"), hashed("2222"), 200),
    ]
