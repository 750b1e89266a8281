"""Dead letters as Parquet files, on file systems of fsspec: real Dagster runs of connectors that set rows aside."""

# No postponed annotations here: Dagster reads those of an op's function.

import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from rapidbyte_dagster import DlqParquetIOManager, build_definitions, default_resources
from rapidbyte_dagster.state import LetterChoice
from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA
from tests.integration.assets.setting_aside import KEPT, TABLE, Stream, refused, replayed
from tests.integration.assets.test_dead_letter_asset import REPORT, Report, failure_of, told

FOLDER = "shop/users/dlq"


@pytest.fixture(params=["path", "file", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the files go, as a user writes it."""
    folder = tmp_path / "dead letters"
    return {"path": str(folder), "file": folder.as_uri(), "memory": f"memory://{uuid.uuid4().hex}/letters"}[
        request.param
    ]


@pytest.fixture
def local(tmp_path: Path) -> str:
    return str(tmp_path / "letters")


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Stream(tmp_path)


def keep_in(stream: Stream, base: str, **options: Any) -> None:
    manager = DlqParquetIOManager(base_path=base, **options)
    stream.resources = {**default_resources(), "rapidbyte_dlq_io_manager": manager}


def files(base: str) -> dict[str, list[str]]:
    """The messages in each file, by its name."""
    fs, path = fsspec.url_to_fs(base)
    found = fs.find(f"{path}/{FOLDER}") if fs.exists(f"{path}/{FOLDER}") else []
    tables = {file.rsplit("/", 1)[-1]: pq.read_table(fs.open(file, "rb")) for file in found}
    return {name: [str(message) for message in table["error_message"].to_pylist()] for name, table in tables.items()}


def test_each_run_has_a_file_of_its_own(stream: Stream, base: str) -> None:
    keep_in(stream, base)
    first = stream.run(refused("check", "unique", message="first"))
    assert told(first)["files_written"] == 1
    stream.run()
    third = stream.run(refused("check", message="third"))
    assert files(base) == {f"{first.run_id}.parquet": ["first 1", "first 2"], f"{third.run_id}.parquet": ["third 1"]}
    found = told(third)
    assert (found["files_written"], found["dead_letters"], found["new_dead_letters"]) == (1, 3, 1)
    assert found["dead_letters_check"] == 2
    assert "third 1" in found["newest"]
    assert found["path"].endswith(FOLDER)


def test_an_input_loads_all_files_the_runs_own_or_one_that_it_names(stream: Stream, base: str) -> None:
    keep_in(stream, base)
    everything, latest = Report(), Report({"rapidbyte/run_id": "latest"})
    first = stream.run(refused("check", message="first"))
    stream.run(refused("check", message="second"), everything.asset, selection=[TABLE, *KEPT, REPORT])
    assert everything.messages() == ["first 1", "second 1"]
    assert everything.tables[-1].schema == DEAD_LETTER_SCHEMA
    assert stream.look([REPORT], latest.asset).success
    assert latest.messages() == ["second 1"]
    named = Report({"rapidbyte/run_id": first.run_id})
    assert stream.look([REPORT], named.asset).success
    assert named.messages() == ["first 1"]
    keep_in(stream, base, selection="run")
    stream.run(refused("check", message="third"), everything.asset, selection=[TABLE, *KEPT, REPORT])
    assert everything.messages() == ["third 1"]


def test_a_stream_without_dead_letters_has_no_file_and_loads_an_empty_table(stream: Stream, base: str) -> None:
    keep_in(stream, base)
    report = Report()
    assert stream.look([REPORT], report.asset).success
    found = told(stream.run((), report.asset, selection=[TABLE, *KEPT, REPORT]))
    assert (found["dead_letters"], found["files_written"]) == (0, 0)
    assert files(base) == {}
    assert [(table.num_rows, table.schema) for table in report.tables] == [(0, DEAD_LETTER_SCHEMA)] * 2


def test_what_a_run_did_not_come_to_write_is_written_by_the_next(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    first = stream.run(refused("check", message="first"), selection=[TABLE])
    assert files(local) == {}
    second = stream.run(refused("check", message="second"))
    assert told(second)["files_written"] == 2
    assert files(local) == {f"{first.run_id}.parquet": ["first 1"], f"{second.run_id}.parquet": ["second 1"]}


def test_alone_it_writes_every_file_again_as_the_store_has_it_now(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    run = stream.run(refused("check", "unique"))
    replayed(stream, run.run_id, 1)
    report = Report()
    assert told(stream.look([*KEPT, REPORT], report.asset))["files_written"] == 1
    assert report.tables[-1]["replayed_by_run"].to_pylist() == [run.run_id, None]


def test_files_stay_when_the_store_is_purged(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    stream.run(refused("check", message="first"))
    with stream.state() as state:
        assert state.purge_dead_letters("shop", "users", LetterChoice()) == 1
    report = Report()
    found = told(stream.run(refused("check", message="second"), report.asset, selection=[TABLE, *KEPT, REPORT]))
    assert found["dead_letters"] == 1
    assert report.messages() == ["first 1", "second 1"]


def test_files_of_an_older_version_load_in_the_columns_of_today(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    run = stream.run(refused("check"))
    file = Path(local) / FOLDER / f"{run.run_id}.parquet"
    older = pq.read_table(file).drop_columns(["replayed_by_run"]).append_column("of_old", pa.array([1]))
    pq.write_table(older, file)
    report = Report()
    assert stream.look([REPORT], report.asset).success
    assert report.tables[-1].schema == DEAD_LETTER_SCHEMA
    assert report.messages() == ["no 1"]


def test_nothing_but_whole_files_is_left_behind(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    run = stream.run(refused("check"))
    stream.look(KEPT)
    assert [path.name for path in (Path(local) / FOLDER).iterdir()] == [f"{run.run_id}.parquet"]


class FullFileSystem(MemoryFileSystem):  # type: ignore[misc]
    protocol = "full"

    def put_file(self, *arguments: Any, **options: Any) -> None:
        raise OSError("no space left in the bucket")


def test_a_file_system_that_fails_fails_the_asset_clearly_and_loses_nothing(stream: Stream, tmp_path: Path) -> None:
    fsspec.register_implementation("full", FullFileSystem, clobber=True)
    keep_in(stream, "full://bucket/letters")
    result = stream.run(refused("check"), selection=[TABLE, *KEPT])
    failure = failure_of(result, "shop__users")
    assert "the dead letters cannot be written to full://bucket/letters/shop/users/dlq/" in failure.description
    assert "OSError: no space left in the bucket" in failure.description
    assert "materialise the asset of the dead letters again" in failure.metadata["hint"].value
    assert "Traceback" not in failure.description
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key] == [
        "users"
    ]
    keep_in(stream, str(tmp_path / "letters"))
    assert told(stream.look(KEPT))["files_written"] == 1


def test_a_folder_that_cannot_be_is_told_with_its_path(stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    keep_in(stream, str(tmp_path / "taken" / "letters"))
    failure = failure_of(stream.run(refused("check")), "shop__users")
    assert f"the dead letters cannot be written to {tmp_path}/taken/letters/shop/users" in failure.description


def test_a_damaged_file_is_told_by_its_name(stream: Stream, local: str) -> None:
    keep_in(stream, local)
    run = stream.run(refused("check"))
    (Path(local) / FOLDER / f"{run.run_id}.parquet").write_bytes(b"not parquet")
    failure = failure_of(stream.look([REPORT], Report().asset), REPORT)
    assert f"cannot be read from {local}/{FOLDER}/{run.run_id}.parquet: ArrowInvalid" in failure.description


@pytest.mark.parametrize(
    ("base_path", "message"),
    [
        ("letters", "is relative: 'letters'"),
        ("nowhere://bucket", "is not usable: 'nowhere://bucket'"),
        ("ftp://me:hunter2@host/letters", "holds a password, which Dagster would show"),
    ],
)
def test_a_base_path_of_no_use_fails_before_a_row_moves(stream: Stream, base_path: str, message: str) -> None:
    keep_in(stream, base_path)
    result = stream.run(refused("check"))
    assert not result.success
    text = str([event.event_specific_data for event in result.all_events if event.is_failure])
    assert message in text
    assert "hunter2" not in text
    with stream.state() as state:
        assert state.latest_checkpoint("shop", "users") is None


def test_options_of_the_file_system_come_from_the_environment_when_a_run_needs_them(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    class Keyed(MemoryFileSystem):  # type: ignore[misc]
        protocol = "keyed"
        cachable = False

        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__()

    fsspec.register_implementation("keyed", Keyed, clobber=True)
    options = {"key": dg.EnvVar("LETTERS_KEY"), "client": {"secret": dg.EnvVar("LETTERS_SECRET"), "port": 1}}
    keep_in(stream, "keyed://bucket", storage_options=options)
    result = stream.run(refused("check"))
    assert not result.success
    monkeypatch.setenv("LETTERS_KEY", "k1")
    monkeypatch.setenv("LETTERS_SECRET", "s1")
    stream.committed = 0
    assert told(stream.run(refused("check")))["files_written"] == 1
    assert {"key": "k1", "client": {"secret": "s1", "port": 1}} in made


def test_definitions_with_it_load_without_touching_the_file_system(stream: Stream) -> None:
    manager = DlqParquetIOManager(base_path="s3://bucket/letters", storage_options={"key": dg.EnvVar("NOT_SET")})
    stream.pipeline()
    definitions = build_definitions(stream.folder / "shop.yaml", resources={"rapidbyte_dlq_io_manager": manager})
    dg.Definitions.validate_loadable(definitions)
