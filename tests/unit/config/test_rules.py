"""Rules between keys, and features that are checked but not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import OnDataError, SlotNames
from rapidbyte_dagster.errors import ConfigError, Kind
from tests.unit.config.pipeline_files import VALID, changed, load_text, only_problem, problems_in

STREAM = "      columns: [id, email]\n"
"""Line 13: where the tests put further keys of the first stream."""


def stream(*lines: str) -> str:
    return changed((STREAM, "".join(f"      {line}\n" for line in lines)))


def test_stream_names_are_unique(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("name: orders", "name: users")))
    assert (
        problem == "shop.yaml:14: source.streams[1].name: the stream 'users' is already taken by the stream in line 12"
    )


def test_two_streams_cannot_write_one_table(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("table: sold", "table: users")))
    assert problem == (
        "shop.yaml:16: source.streams[1].table: the destination table 'users' is already taken by the stream in line 12"
    )


def test_two_streams_cannot_have_one_asset_key(tmp_path: Path) -> None:
    text = changed(
        (STREAM, STREAM + "      dagster: {key: raw/a}\n"), ("      schema: sales", "      dagster: {key: [raw, a]}")
    )
    assert "the asset key 'raw/a' is already taken" in only_problem(tmp_path, text)


def test_columns_must_hold_the_streams_primary_key(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, stream("columns: [id, email]", "primary_key: [ID, emial]"))
    assert problem == (
        "shop.yaml:14: source.streams[0].primary_key: not in `columns`: 'ID', 'emial'; did you mean 'id'?"
    )


def test_columns_must_hold_the_destinations_primary_key(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(after="  primary_key: [uid]\n"))
    assert problem.startswith("shop.yaml:13: source.streams[0].columns: must hold the destination's primary_key")


def test_a_batch_must_fit_in_memory(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(after="resources: {max_memory: 8mb, max_batch_bytes: 16mb}\n"))
    assert "resources.max_batch_bytes: must not exceed max_memory" in problem


def test_a_path_belongs_to_sqlite_and_a_connection_to_postgres(tmp_path: Path) -> None:
    problems = problems_in(tmp_path, changed(after="state: {backend: postgres, path: x}\n"))
    assert problems == [
        "shop.yaml:23: state.connection: required for backend: postgres, but missing",
        "shop.yaml:23: state.path: only for backend: sqlite, and it is postgres",
    ]
    problems = problems_in(tmp_path, changed(after="state: {connection: '${DSN}'}\n"))
    assert problems[0] == "shop.yaml:23: state.connection: only for backend: postgres, and it is sqlite"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["sync_mode: incremental"], "12: source.streams[0].cursor_field: required for sync_mode: incremental"),
        (
            ["cursor_field: at"],
            "13: source.streams[0].cursor_field: only for sync_mode: incremental, and it is full_refresh",
        ),
        (
            ["sync_mode: incremental", "cursor_field: id", "shards: 4"],
            "15: source.streams[0].shards: only for sync_mode: full_refresh or cdc, and it is incremental",
        ),
        (
            ["sync_mode: incremental", "cursor_field: id", "partition_key: id"],
            "15: source.streams[0].partition_key: only for sync_mode: full_refresh or cdc, and it is incremental",
        ),
        (
            ["partition_key: id", "shards: 1"],
            "13: source.streams[0].partition_key: divides nothing where shards is 1: leave out one of the two",
        ),
        (["shards: 0"], "13: source.streams[0].shards: "),
        (["tie_breaker_field: id"], "13: source.streams[0].tie_breaker_field: only for sync_mode: incremental"),
        (["cursor_lag: 5m"], "13: source.streams[0].cursor_lag: only for sync_mode: incremental"),
        (
            ["sync_mode: incremental", "cursor_field: id", "tie_breaker_field: id"],
            "15: source.streams[0].tie_breaker_field: must be another column than cursor_field",
        ),
        (
            ["sync_mode: incremental", "cursor_field: at", "cursor_lag: 5m"],
            "15: source.streams[0].cursor_lag: needs write_mode: upsert (it is append)",
        ),
        (
            ["sync_mode: incremental", "cursor_field: upated_at", "columns: [id, updated_at]"],
            "14: source.streams[0].cursor_field: column 'upated_at' is not in `columns`; did you mean 'updated_at'?",
        ),
        (
            ["sync_mode: incremental", "cursor_field: at", "write_mode: replace"],
            "15: source.streams[0].write_mode: write_mode: replace keeps only what one run reads",
        ),
        (
            ["replication_slot: s"],
            "13: source.streams[0].replication_slot: only for sync_mode: cdc, and it is full_refresh",
        ),
        (
            ["sync_mode: cdc", "replication_slot: S-1"],
            "14: source.streams[0].replication_slot: found 'S-1'; allowed: lower",
        ),
        (["deletes: soft"], "13: source.streams[0].deletes: only for sync_mode: cdc with write_mode: upsert"),
        (
            ["sync_mode: cdc", "deletes: sotf"],
            "14: source.streams[0].deletes: found 'sotf'; allowed: hard, soft; did you",
        ),
        (["cursor_lag: 5"], "13: source.streams[0].cursor_lag: found the number 5; allowed: a duration such as 30s"),
        (["sync_mode: incrmental"], "allowed: full_refresh, incremental, cdc; did you mean 'incremental'?"),
    ],
)
def test_keys_need_and_exclude_each_other(tmp_path: Path, lines: list[str], told: str) -> None:
    assert any(told in problem for problem in problems_in(tmp_path, stream(*lines)))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ("schedule: 0 * * *\n", "schedule: found '0 * * *'; allowed: a cron expression of five fields"),
        ("schedule: '@sometimes'\n", "schedule: found '@sometimes'"),
        (
            "transforms: [{use: t, streams: [usres]}]\n",
            "there is no stream 'usres'; allowed: users, orders; did you mean 'users'?",
        ),
        ("transforms: [{config: {}}]\n", "transforms[0].use: required, but missing"),
        ("transforms: {use: t}\n", "transforms: found a mapping; allowed: a list"),
        (
            "  on_data_error: dql\n",
            "destination.on_data_error: found 'dql'; allowed: fail, skip, dlq; did you mean 'dlq'?",
        ),
        ("  dlq_table: dead\n", "destination.dlq_table: only for on_data_error: dlq, and it is fail"),
        *(
            (f"  on_data_error: dlq\n  dlq_table: {name}\n", "destination.dlq_table: found ")
            for name in ("Dead", "1dead", "sqlite_dead", "d" * 51, "'dead letters'", "'a\"b'", "7")
        ),
        (
            "state: {backend: postgre}\n",
            "state.backend: found 'postgre'; allowed: sqlite, postgres; did you mean 'postgres'?",
        ),
    ],
)
def test_sections_of_features_to_come_are_checked_already(tmp_path: Path, after: str, told: str) -> None:
    assert any(told in problem for problem in problems_in(tmp_path, changed(after=after)))


@pytest.mark.parametrize("on_data_error", ["skip", "dlq"])
def test_a_stream_that_leaves_rows_out_is_moved_in_one_piece(tmp_path: Path, on_data_error: str) -> None:
    def text(shards: int | str) -> str:
        lines = f"{STREAM}      sync_mode: full_refresh\n      shards: {shards}\n"
        return changed((STREAM, lines), after=f"  on_data_error: {on_data_error}\n")

    told = f"source.streams[0].shards: more than one needs on_data_error: fail, and it is {on_data_error}"
    assert told in only_problem(tmp_path, text(2))
    for shards in (1, "auto"):
        assert load_text(tmp_path, text(shards)).streams[0].shards == shards


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed(after="schedule: '0 * * * *'\n"), ["23: schedule"]),
        (stream("sync_mode: cdc", "filter: id > 1"), ["14: source.streams[0].filter"]),
        (
            changed(
                (STREAM, STREAM + "      sync_mode: cdc\n"),
                after="transforms:\n  - {use: mask, config: {columns: {email: redact}}}\n",
            ),
            ["14: source.streams[0].sync_mode"],
        ),
    ],
)
def test_a_feature_to_come_is_refused_and_never_ignored(tmp_path: Path, text: str, told: list[str]) -> None:
    problems = problems_in(tmp_path, text)
    places = sorted(problem.removeprefix("shop.yaml:").rsplit(": ", 1)[0].split(": '")[0] for problem in problems)
    assert [place.split(": ")[:2] for place in places] == [place.split(": ") for place in sorted(told)]
    assert all("not supported yet" in problem for problem in problems)
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert (caught.value.kind, caught.value.exit_code) == (Kind.UNSUPPORTED, 2)


def test_the_names_of_slot_and_publication_are_checked(tmp_path: Path) -> None:
    text = changed(("database: shop\n", "database: shop\n    replication_slot: My-Slot\n    publication: 5\n"))
    slot, publication = problems_in(tmp_path, text)
    assert slot.startswith("shop.yaml:11: source.config.replication_slot: found 'My-Slot'")
    assert publication.startswith("shop.yaml:12: source.config.publication: found the number 5")


def test_streams_that_name_no_slot_share_the_pipelines(tmp_path: Path) -> None:
    text = changed(
        (STREAM, STREAM + "      sync_mode: cdc\n"),
        ("write_mode: replace", "write_mode: upsert\n      sync_mode: cdc\n      replication_slot: own"),
    )
    pipeline = load_text(tmp_path, text)
    shared, own = pipeline.slot_groups
    assert [(group.name, [stream.name for stream in group.streams]) for group in (shared, own)] == [
        ("cdc", ["users"]),
        ("own", ["orders"]),
    ]
    assert shared.names(pipeline, {}) == SlotNames("rapidbyte_shop", "rapidbyte_shop")
    assert shared.names(pipeline, {"replication_slot": "s", "publication": "p"}) == SlotNames("s", "p")
    assert own.names(pipeline, {"replication_slot": "s"}) == SlotNames("own", "own")
    assert own.names(pipeline, {"publication": "p"}) == SlotNames("own", "p")


def test_a_slot_cannot_be_called_like_the_step_of_the_pipelines_own(tmp_path: Path) -> None:
    text = stream("sync_mode: cdc", "write_mode: upsert", "replication_slot: cdc")
    assert "replication_slot: 'cdc' is what the step" in only_problem(tmp_path, text)


def test_what_becomes_of_a_truncate_is_a_matter_of_cdc(tmp_path: Path) -> None:
    assert "truncate: only for sync_mode: cdc" in only_problem(tmp_path, stream("truncate: fail"))
    assert "allowed: apply, ignore, fail" in only_problem(tmp_path, stream("sync_mode: cdc", "truncate: drop"))


@pytest.mark.parametrize("on_data_error", ["fail", "skip", "dlq"])
def test_a_row_that_fails_on_its_data_fails_the_stream_or_is_left_out_or_kept(
    tmp_path: Path, on_data_error: str
) -> None:
    pipeline = load_text(tmp_path, changed(after=f"  on_data_error: {on_data_error}\n"))
    assert pipeline.destination.on_data_error is OnDataError(on_data_error)


def test_a_pipeline_that_says_nothing_leaves_no_row_out(tmp_path: Path) -> None:
    assert load_text(tmp_path, VALID).destination.on_data_error is OnDataError.FAIL


def test_values_that_mean_the_default_are_supported(tmp_path: Path) -> None:
    text = changed(
        (STREAM, STREAM + "      sync_mode: full_refresh\n"), after="  on_data_error: fail\ntransforms: []\n"
    )
    assert load_text(tmp_path, text).name == "shop"


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        ("", ("add", "ignore", "fail", "allow")),
        ("  schema_evolution: {}\n", ("add", "ignore", "fail", "allow")),
        ("  schema_evolution: {type_change: coerce}\n", ("add", "ignore", "coerce", "allow")),
        (
            "  schema_evolution:\n    new_column: fail\n    removed_column: add\n    type_change: 'null'\n"
            "    nullability_change: fail\n",
            ("fail", "add", "null", "fail"),
        ),
    ],
)
def test_an_axis_of_schema_evolution_that_is_left_out_has_its_own_default(
    tmp_path: Path, section: str, policy: tuple[str, ...]
) -> None:
    found = load_text(tmp_path, changed(after=section)).destination.schema_evolution
    assert (found.new_column, found.removed_column, found.type_change, found.nullability_change) == policy


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{new_column: ad}", "new_column: found 'ad'; allowed: add, ignore, fail; did you mean 'add'?"),
        ("{removed_column: drop}", "removed_column: found 'drop'; allowed: ignore, add, fail"),
        ("{type_change: cast}", "type_change: found 'cast'; allowed: fail, coerce, null"),
        ("{type_change: null}", "found nothing (null); allowed: fail, coerce, null (a text, so in quotes)"),
        ("{type_change: Coerce}", "found 'Coerce'; allowed: fail, coerce, null; did you mean 'coerce'?"),
        ("{nullability_change: no}", "nullability_change: found the truth value false; allowed: allow, fail"),
        ("{new_column: '${POLICY}'}", "new_column: must be known when the file loads"),
        (
            "{new_colum: add}",
            "new_colum: unknown key; allowed: new_column, removed_column, type_change, nullability_change;"
            " did you mean 'new_column'?",
        ),
        ("add", "schema_evolution: found 'add'; allowed: a mapping of keys"),
    ],
)
def test_a_policy_that_is_none_is_an_error_and_never_the_default(tmp_path: Path, section: str, told: str) -> None:
    problem = only_problem(tmp_path, changed(after=f"  schema_evolution: {section}\n"))
    assert problem.startswith("shop.yaml:23: destination.schema_evolution")
    assert told in problem
