"""transform-validate between two real databases: rules are held against what a CHECK says of each value."""

from __future__ import annotations

import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import check_pipeline, replay_dead_letters
from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError, Stage
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

VALUES: Mapping[str, tuple[str, list[str]]] = {
    "s": ("smallint", ["'-5'", "0", "7", "32767"]),
    "i": ("integer", ["41", "'-2147483648'"]),
    "b": ("bigint", ["9007199254740993", "9007199254740992", "9223372036854775807"]),
    "n": ("numeric(12,4)", ["0.1", "99.9999", "0.0999", "'NaN'", "'-1'"]),
    "w": ("numeric(70,2)", [f"{'1234567890' * 5}.11", f"{'1234567890' * 5}.12", "'NaN'"]),
    "u": ("numeric", ["1.50", "1e-20", "'Infinity'", "'NaN'", "'-0.00'", "1.0000000000000000000000000000001"]),
    "r": ("real", ["0.1", "'NaN'", "'-Infinity'", "0.09999999"]),
    "d": ("double precision", ["0.1", "1e300", "'NaN'", "'-0'", "'Infinity'"]),
    "day": ("date", ["'2024-02-29'", "'infinity'", "'0044-03-15 BC'", "'2024-01-01'", "'2023-12-31'"]),
    "t": ("time", ["'24:00:00'", "'01:02:03.4'", "'12:00:00'", "'12:00:00.000001'"]),
    "ts": ("timestamp", ["'2024-02-29 01:02:03'", "'2024-02-29 01:02:03.000001'", "'-infinity'", "'294276-12-31'"]),
    "tz": ("timestamptz", ["'2024-02-29 01:02:03+02'", "'2024-02-29 01:02:03+00'", "'infinity'", "'1999-01-01+00'"]),
    "x": ("text", ["'a@b.example'", "'naïve'", "''", "e'a\\nb@c'"]),
    "c": ("char(5)", ["'ab'", "'abc'", "'ab c'"]),
    "m": ("mood", ["'happy'", "'sad'"]),
    "g": ("uuid", ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-4000-8000-0000000000ff'"]),
    "f": ("boolean", ["true", "false"]),
    "j": ("jsonb", ["'{\"a\": [1, null]}'", "'{}'"]),
    "a": ("integer[]", ["array[1, null]", "array[2]", "'{}'"]),
    "p": ("inet", ["'10.0.0.1'", "'::1'"]),
}
"""Columns, and values of each. Each column has NULLs beside."""

ROWS = max(len(values) for _, values in VALUES.values()) + 1

PAGE = Path(__file__).parents[3] / "docs" / "transforms.md"
FIFTY_DIGITS = "1234567890" * 5
EMAIL = r"^[^@\s]+@[^@\s]+$"

RULES: Sequence[tuple[dict[str, Any], str, str]] = [
    ({"assert_not_null": "x"}, "x IS NOT NULL", "x is NULL (assert_not_null)"),
    ({"assert_not_null": ["a"]}, "a IS NOT NULL", "a is NULL (assert_not_null)"),
    *(
        (
            {"assert_range": {"column": column} | bounds},
            check,
            f"{column} is not within {', '.join(f'{k} {v}' for k, v in bounds.items())} (assert_range)",
        )
        for column, bounds, check in (
            ("s", {"min": 0}, "s >= 0"),
            ("s", {"exclusive_min": -5.5, "max": 7.5}, "s > -5.5 AND s <= 7.5"),
            ("i", {"max": "4e1"}, "i <= 40"),
            ("b", {"min": 9007199254740993}, "b >= 9007199254740993"),
            ("b", {"exclusive_max": 9223372036854775807}, "b < 9223372036854775807"),
            ("n", {"min": 0.1, "exclusive_max": "99.9999"}, "n >= 0.1 AND n < 99.9999"),
            ("n", {"exclusive_min": 0.09995}, "n > 0.09995"),
            ("w", {"max": f"{FIFTY_DIGITS}.115"}, f"w <= {FIFTY_DIGITS}.115"),
            ("u", {"exclusive_min": "1e-20"}, "u > 1e-20"),
            ("u", {"min": 0, "max": 1.5}, "u >= 0 AND u <= 1.5"),
            ("u", {"exclusive_max": "1.0000000000000000000000000000001"}, "u < 1.0000000000000000000000000000001"),
            ("r", {"min": 0.1}, "r >= 0.1::real"),
            ("r", {"exclusive_max": 0.1}, "r < 0.1::real"),
            ("d", {"exclusive_min": 0}, "d > 0"),
            ("d", {"max": "1e300"}, "d <= 1e300::float8"),
            ("day", {"min": "2024-01-01"}, "day >= '2024-01-01'"),
            ("day", {"exclusive_max": "infinity"}, "day < 'infinity'"),
            ("t", {"max": "12:00"}, "t <= '12:00'"),
            ("ts", {"exclusive_min": "2024-02-29T01:02:03"}, "ts > '2024-02-29 01:02:03'"),
            ("ts", {"max": "2100-01-01"}, "ts <= '2100-01-01'"),
            ("tz", {"min": "2024-02-29 01:02:03+02:00"}, "tz >= '2024-02-29 01:02:03+02'"),
            ("tz", {"max": "2024-02-29T01:02Z"}, "tz <= '2024-02-29 01:02:00+00'"),
        )
    ),
    *(
        (
            {"assert_regex": {"column": column, "pattern": pattern}},
            f"{column}::text ~ '{pattern}'",
            f"{column} does not match {pattern} (assert_regex)",
        )
        for column, pattern in (
            ("x", EMAIL),
            ("x", "ï"),
            ("c", "^ab$"),
            ("i", r"^\d+$"),
            ("n", "^0"),
            ("d", "^-|^1e"),
            ("day", "^2024-"),
            ("tz", r"\+00$"),
            ("f", "^true$"),
            ("g", "^a0eebc99-"),
            ("j", r"\[1, null\]"),
            ("a", r"^\{1,NULL\}$"),
            ("m", "^ha"),
            ("p", r"\."),
        )
    ),
    *(
        (
            {"assert_in": {"column": column, "values": values}},
            check,
            f"{column} is none of {', '.join(told)} (assert_in)",
        )
        for column, values, told, check in (
            ("s", [7, "-5"], ["7", "-5"], "s IN (7, -5)"),
            ("b", [9007199254740993], ["9007199254740993"], "b IN (9007199254740993)"),
            ("n", [0.1, "99.9999"], ["0.1", "99.9999"], "n IN (0.1, 99.9999)"),
            ("w", [f"{FIFTY_DIGITS}.12"], [f"{FIFTY_DIGITS}.12"], f"w IN ({FIFTY_DIGITS}.12)"),
            ("u", [0, "1.5000"], ["0", "1.5000"], "u IN (0, 1.5)"),
            ("r", [0.1], ["0.1"], "r IN (0.1::real)"),
            ("d", [0, "1e300"], ["0", "1e300"], "d IN (0::float8, 1e300::float8)"),
            ("day", ["2024-02-29", "infinity"], ["2024-02-29", "infinity"], "day IN ('2024-02-29', 'infinity')"),
            ("t", ["24:00", "12:00:00"], ["24:00", "12:00:00"], "t IN ('24:00', '12:00')"),
            ("ts", ["2024-02-29T01:02:03"], ["2024-02-29T01:02:03"], "ts IN ('2024-02-29 01:02:03')"),
            ("tz", ["2024-02-28T23:02:03Z"], ["2024-02-28T23:02:03Z"], "tz IN ('2024-02-28 23:02:03+00')"),
            ("x", ["", "naïve"], ["", "naïve"], "x IN ('', 'naïve')"),
            ("c", ["abc"], ["abc"], "c IN ('abc')"),
            ("m", ["happy"], ["happy"], "m IN ('happy')"),
            ("f", [False], ["false"], "f IN (false)"),
            ("g", [f"A0EEBC99{'-9c0b-4ef8-bb6d-6bb9bd380a11'}"], [f"A0EEBC99{'-9c0b-4ef8-bb6d-6bb9bd380a11'}"],
             "g IN ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')"),
            ("p", ["::1"], ["::1"], "p IN ('::1')"),
        )
    ),
]  # fmt: skip
"""A rule, the same as a CHECK, and what is said of a row that breaks it."""


def validated(
    folder: Path, source: Database, destination: Database, rules: Sequence[Mapping[str, Any]], **options: Any
) -> Pipeline:
    transform = {"use": "validate", "config": {"rules": [dict(rule) for rule in rules]}}
    limits = options.pop("limits", None)
    policy = options.pop("on_data_error", "fail")
    return make_pipeline(
        folder,
        source,
        destination,
        ["people"],
        transforms=[transform | ({"limits": limits} if limits else {})],
        destination_section={"on_data_error": policy},
        **options,
    )


def create_every_type(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
    columns = ", ".join(f"{name} {type_name}" for name, (type_name, _) in VALUES.items())
    database.execute(f"CREATE TABLE people (id int PRIMARY KEY, {columns})")
    for row in range(ROWS):
        values = [known[row] if row < len(known) else "NULL" for _, known in VALUES.values()]
        database.execute(f"INSERT INTO people VALUES ({row}, {', '.join(values)})")


def reasons(database: Database) -> dict[int, str]:
    """By PostgreSQL's own judgement, of each row that breaks a rule: what is said of it."""
    told = ", ".join(f"({check}) IS FALSE" for _, check, _ in RULES)
    settings = "-c TimeZone=UTC -c IntervalStyle=postgres -c DateStyle=ISO"
    with psycopg.connect(database.dsn, options=settings, client_encoding="utf8") as connection:
        rows = connection.execute(f"SELECT id, {told} FROM people ORDER BY id".encode()).fetchall()
    messages = [message for _, _, message in RULES]
    broken = {row[0]: [text for text, fails in zip(messages, row[1:], strict=True) if fails] for row in rows}
    return {row: "; ".join(texts) for row, texts in broken.items() if texts}


def letters(pipeline: Pipeline, run_id: str | None = None) -> list[dict[str, Any]]:
    with open_state(pipeline, {}) as state:
        found = state.dead_letters(pipeline.name, "people", run_id).to_pylist()
    return [{**letter, "record": json.loads(letter["record_json"])} for letter in found]


def loaded(database: Database) -> list[int]:
    return [key for (key,) in database.fetch("SELECT id FROM raw.people ORDER BY id")]


def test_rules_say_of_every_type_what_a_check_says_and_say_it_again_of_a_replay(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    create_every_type(source_db)
    expected = reasons(source_db)
    assert len(expected) == ROWS
    assert not [text for _, _, text in RULES if not any(text in told for told in expected.values())]
    pipeline = validated(tmp_path, source_db, destination_db, [rule for rule, _, _ in RULES], on_data_error="dlq")
    result = run(pipeline)
    assert (result.rows, result.rejected, result.dead_letters) == (0, ROWS, ROWS)
    found = letters(pipeline)
    assert {letter["record"]["id"]: letter["error_message"] for letter in found} == expected
    assert {(letter["stage"], letter["error_category"]) for letter in found} == {("transform 1", "rule")}
    # In a replay every value comes as its text, and is judged as before.
    with open_state(pipeline, {}) as state:
        replay = replay_dead_letters(pipeline, pipeline.streams[0], state=state, run_id="replay", environ={})
    assert (replay.letters, replay.rows, replay.failed_again) == (ROWS, 0, ROWS)
    again = letters(pipeline, "replay")
    assert {letter["record"]["id"]: letter["error_message"] for letter in again} == expected


# Each rule, with the ids of the rows that break it, and what is said of them.
SMALL = """
    CREATE TABLE people (id int PRIMARY KEY, tenant int, email text, age numeric, state text);
    INSERT INTO people VALUES
        (1, 1, 'ann@example.org', 20, 'new'), (2, 1, 'bob', 200, 'paid'), (3, 2, NULL, NULL, NULL),
        (4, 2, 'ann@example.org', 'NaN', 'lost'), (5, 2, 'eve@example.org', 30, 'new'), (6, 2, 'mal', -1, 'new')
"""
EACH_RULE: Mapping[str, tuple[dict[str, Any], dict[int, str]]] = {
    "not_null": ({"assert_not_null": "email"}, {3: "email is NULL (assert_not_null)"}),
    "regex": (
        {"assert_regex": {"column": "email", "pattern": EMAIL}},
        dict.fromkeys((2, 6), f"email does not match {EMAIL} (assert_regex)"),
    ),
    "range": (
        {"assert_range": {"column": "age", "min": 0, "max": 150}},
        dict.fromkeys((2, 4, 6), "age is not within min 0, max 150 (assert_range)"),
    ),
    "unique": ({"assert_unique": ["email"]}, {4: "email was there before (assert_unique)"}),
    "in": (
        {"assert_in": {"column": "state", "values": ["new", "paid"]}},
        {4: "state is none of new, paid (assert_in)"},
    ),
}


def remember(lines: dict[int, list[str]], level: int, message: str) -> None:
    lines[level].append(message)


def test_a_row_that_breaks_a_rule_fails_the_run_or_is_left_out_or_kept(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(SMALL)
    for rule, (config, broken) in EACH_RULE.items():
        first = min(broken)
        kept = [row for row in range(1, 7) if row not in broken]
        with pytest.raises(RapidbyteError) as caught:
            run(validated(tmp_path, source_db, destination_db, [config], name=f"failing_{rule}"))
        info = caught.value.info
        expected = (Kind.DATA, Stage.TRANSFORM, f"row {first} of stream people: {broken[first]}")
        assert (info.kind, info.stage, info.message) == expected
        assert destination_db.fetch_value("SELECT to_regclass('raw.people')") is None

        lines: dict[int, list[str]] = defaultdict(list)
        skipping = validated(
            tmp_path, source_db, destination_db, [config], on_data_error="skip", name=f"skipping_{rule}"
        )
        result = run(skipping, on_log=partial(remember, lines))
        assert (result.rows, result.rejected, result.dead_letters) == (len(kept), len(broken), 0), rule
        assert loaded(destination_db) == kept
        [warning] = lines[logging.WARNING]
        assert f"{len(broken)} rows of stream people were left out" in warning
        assert broken[first] in warning

        destination_db.execute("DROP TABLE raw.people")
        keeping = validated(tmp_path, source_db, destination_db, [config], on_data_error="dlq", name=f"keeping_{rule}")
        result = run(keeping)
        assert (result.rows, result.rejected, result.dead_letters) == (len(kept), len(broken), len(broken)), rule
        assert loaded(destination_db) == kept
        found = letters(keeping)
        assert {letter["record"]["id"]: letter["error_message"] for letter in found} == broken
        [column] = {letter["column_name"] for letter in found}
        assert column in ("email", "age", "state")
        destination_db.execute("DROP TABLE raw.people")


def test_one_letter_holds_all_reasons_and_names_a_column_if_all_do(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(SMALL)
    rules = [config for config, _ in EACH_RULE.values()]
    rules.append({"assert_regex": {"column": "email", "pattern": "example"}})
    pipeline = validated(tmp_path, source_db, destination_db, rules, on_data_error="dlq")
    run(pipeline)
    assert loaded(destination_db) == [1, 5]
    unlike = "email does not match example (assert_regex)"
    every = {row: [reasons[row] for _, reasons in EACH_RULE.values() if row in reasons] for row in (2, 3, 4, 6)}
    # What was there before is said last: it depends on what else is wrong.
    every[4] = [EACH_RULE["range"][1][4], EACH_RULE["in"][1][4], EACH_RULE["unique"][1][4]]
    for row in (2, 6):
        every[row].append(unlike)
    found = {letter["record"]["id"]: letter for letter in letters(pipeline)}
    assert {row: letter["error_message"] for row, letter in found.items()} == {
        row: "; ".join(texts) for row, texts in every.items()
    }
    assert {row: letter["column_name"] for row, letter in found.items()} == {2: None, 3: "email", 4: None, 6: None}


def test_the_first_of_the_same_keys_of_a_whole_run_passes(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        """
        CREATE TABLE people (id int PRIMARY KEY, tenant int, code text, age int);
        INSERT INTO people SELECT i, CASE WHEN i % 11 > 0 THEN i % 7 END, 'code ' || i % 700, i % 13
        FROM generate_series(1, 20000) i
        """
    )
    rules: list[dict[str, Any]] = [
        {"assert_unique": ["tenant", "code"]},
        {"assert_range": {"column": "age", "min": 1}},
        {"assert_unique": "id"},
    ]
    # Batches and checkpoints by the dozen: a run that has to see all of its rows commits at its end alone.
    resources = {"max_batch_bytes": "16kb", "checkpoint_interval_rows": 500}
    pipeline = validated(tmp_path, source_db, destination_db, rules, on_data_error="dlq", resources=resources)
    result = run(pipeline)
    expected = source_db.fetch(
        """
        SELECT id FROM people WHERE age >= 1 AND tenant IS NULL
        UNION ALL SELECT min(id) FROM people WHERE age >= 1 AND tenant IS NOT NULL GROUP BY tenant, code ORDER BY 1
        """
    )
    assert loaded(destination_db) == [row for (row,) in expected]
    assert 0 < result.rejected == 20_000 - len(expected) == result.dead_letters
    with open_state(pipeline, {}) as state:
        checkpoint = state.latest_checkpoint("shop", "people")
    assert checkpoint is not None
    assert checkpoint.sequence == 1
    messages = {letter["error_message"] for letter in letters(pipeline)}
    outside, twice = "age is not within min 1 (assert_range)", "(tenant, code) was there before (assert_unique)"
    assert messages == {outside, twice, f"{outside}; {twice}"}


def test_more_keys_than_memory_holds_fail_the_run_and_are_counted(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE people AS SELECT i AS id FROM generate_series(1, 600000) i")
    pipeline = validated(
        tmp_path,
        source_db,
        destination_db,
        [{"assert_unique": "id"}],
        limits={"max_memory": "12mb"},
        resources={"max_batch_bytes": "64kb"},
    )
    with pytest.raises(RapidbyteError) as caught:
        run(pipeline)
    info = caught.value.info
    assert (info.kind, info.stage) == (Kind.RESOURCE, Stage.TRANSFORM)
    found = re.search(r"rules\[0\]\.assert_unique: there is no memory for more than the (\d+) keys", info.message)
    assert found
    # Of 12 MB nearly all is keys, of 20 to 40 bytes each.
    assert 200_000 < int(found[1]) < 600_000
    assert "max_memory" in (info.hint or "")
    assert destination_db.fetch_value("SELECT to_regclass('raw.people')") is None


MISFITS: Sequence[tuple[dict[str, Any], str]] = [
    ({"assert_not_null": "emial"}, "rules[0].assert_not_null: stream people has no column emial"),
    (
        {"assert_range": {"column": "email", "min": 1}},
        "rules[0].assert_range: column email is text; allowed: columns of numbers, dates, times of day and timestamps",
    ),
    (
        {"assert_range": {"column": "age", "max": "old"}},
        "rules[0].assert_range.max: found old; allowed for column age (numeric): a number",
    ),
    (
        {"assert_range": {"column": "age", "min": 0.30000000000000004}},
        "rules[0].assert_range.min: found a number of more than 15 digits; put it in quotes, so that none is lost",
    ),
    (
        {"assert_range": {"column": "id", "min": 2, "max": 1}},
        "rules[0].assert_range: no value of column id (integer) is within min 2, max 1",
    ),
    (
        {"assert_in": {"column": "id", "values": [1, 1.5]}},
        "rules[0].assert_in.values[1]: found 1.5; allowed for column id (integer): a whole number",
    ),
    (
        {"assert_regex": {"column": "email", "pattern": "(a)(?=b)"}},
        "rules[0].assert_regex.pattern: look-ahead and look-behind are not supported, at character 4 of (a)(?=b)",
    ),
]


def test_a_rule_that_does_not_fit_the_columns_is_told_before_a_row_moves(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(SMALL)
    for rule, message in MISFITS:
        pipeline = validated(tmp_path, source_db, destination_db, [rule], on_data_error="skip")
        with pytest.raises(RapidbyteError) as caught:
            run(pipeline)
        assert (caught.value.info.kind, caught.value.info.message) == (Kind.CONFIG, message)
        found = [finding for finding in check_pipeline(pipeline, {}) if finding.level == "error"]
        assert {(finding.stage, finding.message) for finding in found} == {(Stage.TRANSFORM, message)}
    assert destination_db.fetch_value("SELECT to_regclass('raw.people')") is None


def test_rows_that_all_pass_arrive_as_they_were(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    create_every_type(source_db)
    columns = [name for name in VALUES if name != "m"]
    rules = [{"assert_regex": {"column": name, "pattern": "(?s)^.*$"}} for name in columns]
    # As deep as groups may be: the guest's stack has to hold it.
    rules.append({"assert_regex": {"column": "x", "pattern": f"{'(' * 200}a|{')?' * 200}"}})
    unique: dict[str, Any] = {"assert_unique": "id"}
    stream = {"name": "people", "columns": ["id", *columns]}
    transform = {"use": "transform-validate", "config": {"rules": [*rules, unique]}}
    run(make_pipeline(tmp_path, source_db, destination_db, [stream], transforms=[transform]))
    listed = ", ".join(["id", *columns])
    told = "SELECT md5(string_agg(row({})::text, '|' ORDER BY id)) FROM {}"
    assert destination_db.fetch(told.format(listed, "raw.people")) == source_db.fetch(told.format(listed, "people"))


def test_the_example_of_the_page_is_a_pipeline(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    section = PAGE.read_text().split("## transform-validate")[1].split("\n## ")[0]
    example, told = re.findall(r"```(?:yaml)?\n(.*?)```", section, re.DOTALL)
    source_db.execute(
        """
        CREATE TABLE users (id int, tenant int, name text, email text, age smallint, signed_up date, state text);
        INSERT INTO users VALUES (1, 1, 'Ann', 'ann@example.org', 149, '2015-01-01', 'new'),
            (2, 1, 'Bob', 'bob', 150, '2015-01-01', 'new')
        """
    )
    pipeline = make_pipeline(
        tmp_path,
        source_db,
        destination_db,
        ["users"],
        destination_section={"on_data_error": "dlq"},
        **yaml.safe_load(example),
    )
    assert run(pipeline).rejected == 1
    with open_state(pipeline, {}) as state:
        [letter] = state.dead_letters(pipeline.name, "users").to_pylist()
    assert letter["error_message"] == told.strip()


@pytest.mark.parametrize(
    ("rules", "key", "message"),
    [
        ([], "rules", "found an empty list; allowed: at least 1 item"),
        ([{"assert_nul": "id"}], "rules[0].assert_nul", "unknown key; allowed: assert_not_null, assert_regex"),
        ([{"assert_not_null": 5}], "rules[0].assert_not_null", "found the number 5; allowed: a text or a list"),
        ([{"assert_unique": "id", "assert_not_null": "id"}], "rules[0]", "allowed: at most 1 key"),
        ([{"assert_regex": {"column": "id"}}], "rules[0].assert_regex.pattern", "required, but missing"),
        ([{"assert_range": {"column": "id"}}], "rules[0].assert_range", "allowed: at least 2 keys"),
        ([{"assert_range": {"column": "id", "mim": 1}}], "rules[0].assert_range.mim", "did you mean 'min'"),
        (
            [{"assert_in": {"column": "id", "values": 1}}],
            "rules[0].assert_in.values",
            "found the number 1; allowed: a list",
        ),
        ([{"assert_in": {"column": "id", "values": [None]}}], "rules[0].assert_in.values[0]", "a text or a number"),
        (
            [{"assert_range": {"column": "id", "max": math.inf}}],
            "rules[0].assert_range.max",
            "found the number inf; allowed: a finite number",
        ),
    ],
)
def test_rules_of_another_form_are_told_when_the_file_is_loaded(
    tmp_path: Path, rules: Sequence[Mapping[str, Any]], key: str, message: str
) -> None:
    config = {"host": "localhost", "user": "u", "database": "d"}
    transform = {"use": "validate", "config": {"rules": list(rules)}}
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, config, config, ["people"], transforms=[transform])
    told = str(caught.value)
    assert f"transforms[0].config.{key}: " in told
    assert message in told
    assert re.search(r"shop\.yaml:\d+", told)
