"""The connection string of a PostgreSQL state store: from the file, through the environment, shown by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import Pipeline, Redactor, load_pipeline
from rapidbyte_dagster.errors import ConfigError
from tests.pipelines import pipeline_text

CONFIG = {"host": "h", "user": "u", "database": "d"}


def a_pipeline(folder: Path, connection: str) -> Pipeline:
    file = folder / "shop.yaml"
    file.write_text(pipeline_text(CONFIG, CONFIG, ["users"], state={"backend": "postgres", "connection": connection}))
    return load_pipeline(file)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://etl:p%40ss-word@db:5433/state", "host=db port=5433 user=etl password='p@ss-word' dbname=state"],
)
def test_a_uri_and_key_value_pairs_mean_the_same(tmp_path: Path, dsn: str) -> None:
    pipeline = a_pipeline(tmp_path, "${STATE_DSN}")
    connection = pipeline.state.resolve_connection({"STATE_DSN": dsn})
    assert connection.parameters == {
        "host": "db",
        "port": "5433",
        "user": "etl",
        "password": "p@ss-word",
        "dbname": "state",
    }


def test_loading_needs_no_variable_and_a_run_tells_the_missing_one_with_its_line(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, "${STATE_DSN}")
    for resolve in (pipeline.state.resolve_connection, pipeline.resolve):
        with pytest.raises(ConfigError) as caught:
            resolve({})
        (problem,) = caught.value.problems
        assert "state.connection: environment variable STATE_DSN is not set" in problem
        assert "shop.yaml:21:" in problem


@pytest.mark.parametrize("dsn", ["", "hunter2-alone", "postgresql://u:hunter2 x@h/d", "hunter2=1", "postgresql://[h"])
def test_what_is_no_connection_string_is_told_without_a_word_of_it(tmp_path: Path, dsn: str) -> None:
    pipeline = a_pipeline(tmp_path, "${STATE_DSN}")
    for resolve in (pipeline.state.resolve_connection, pipeline.resolve):
        with pytest.raises(ConfigError, match="expands to no connection string") as caught:
            resolve({"STATE_DSN": dsn})
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None


def test_a_run_hides_the_string_its_variables_and_its_password(tmp_path: Path) -> None:
    dsn = "postgresql://etl:p%40ss-word@db.internal/state"
    redactor = Redactor(a_pipeline(tmp_path, "${STATE_DSN}").resolve({"STATE_DSN": dsn}).secrets)
    assert redactor.redact(f"{dsn}, p@ss-word") == "${STATE_DSN}, [redacted]"
    # Ordinary words: only the store's own messages are searched for them.
    assert redactor.redact("state of db.internal") == "state of db.internal"


def test_the_store_hides_all_that_the_file_does_not_show(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, "postgresql://${WHO}:${PASSWORD}@${HOST}/bookkeeping")
    connection = pipeline.state.resolve_connection({"WHO": "worker", "PASSWORD": "pass-word", "HOST": "db.internal"})
    redactor = Redactor(connection.secrets)
    told = "worker with pass-word at db.internal in bookkeeping"
    assert redactor.redact(told) == "${WHO} with ${PASSWORD} at ${HOST} in bookkeeping"


def test_a_password_in_the_file_is_hidden_too(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, "postgresql://etl:pass-word@db.internal/state")
    assert Redactor(pipeline.resolve({}).secrets).redact("pass-word") == "[redacted]"
    assert Redactor(pipeline.state.resolve_connection({}).secrets).redact("pass-word") == "[redacted]"
    assert "pass-word" not in repr(pipeline) + repr(pipeline.state) + repr(pipeline.state.resolve_connection({}))
