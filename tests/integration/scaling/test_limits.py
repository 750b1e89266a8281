"""A stream that meets one of its limits says which, and the key of the pipeline file that sets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError, Stage
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

MEGABYTE = 1024 * 1024

# 20 MB, in rows of 2 KB.
SEED = "create table pages as select n as id, repeat(md5(n::text), 64) as text from generate_series(1, 10000) as n"

MASK = {"use": "transform-mask", "config": {"columns": {"text": {"truncate": 2000}}}}


@pytest.mark.parametrize(
    ("stage", "sections", "key"),
    [
        (Stage.SOURCE, {"source_section": {"limits": {"max_memory": "4mb"}}}, "source.limits.max_memory"),
        (
            Stage.TRANSFORM,
            {"transforms": [{**MASK, "limits": {"max_memory": "4mb"}}]},
            "transforms[0].limits.max_memory",
        ),
        (
            Stage.DESTINATION,
            {"destination_section": {"limits": {"max_memory": "4mb"}}},
            "destination.limits.max_memory",
        ),
        (Stage.SOURCE, {"resources": {"max_memory": "4mb", "max_batch_bytes": "4mb"}}, "resources.max_memory"),
    ],
)
def test_too_little_memory_names_the_key_to_raise(
    tmp_path: Path, source_db: Database, destination_db: Database, stage: Stage, sections: dict[str, Any], key: str
) -> None:
    source_db.execute(SEED)
    with pytest.raises(RapidbyteError) as caught:
        run(make_pipeline(tmp_path, source_db, destination_db, ["pages"], **sections))
    assert (caught.value.kind, caught.value.info.stage) == (Kind.RESOURCE, stage)
    assert caught.value.hint == f"its memory limit is 4mb: raise `{key}`, or lower `resources.max_batch_bytes`"


@pytest.mark.parametrize("stage", [Stage.SOURCE, Stage.DESTINATION])
def test_too_little_time_names_the_key_to_raise(
    tmp_path: Path, source_db: Database, destination_db: Database, stage: Stage
) -> None:
    """The source waits for its server, and the destination for its source."""
    source_db.execute("create table pages as select 1 as id")
    stream = {"name": "pages", "filter": "pg_sleep(30) is not null"}
    limited = {f"{stage}_section": {"limits": {"timeout_seconds": 1}}}
    with pytest.raises(RapidbyteError) as caught:
        run(make_pipeline(tmp_path, source_db, destination_db, [stream], **limited))
    assert (caught.value.kind, caught.value.info.stage) == (Kind.TIMEOUT, stage)
    assert "ran past its limit of 1 s" in str(caught.value)
    assert caught.value.hint == f"raise `{stage}.limits.timeout_seconds`, or find out what it waits for"


def test_no_more_waits_between_the_stages_than_is_allowed(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(SEED)
    # Rows arrive slower than they are read.
    destination_db.execute(
        "create schema raw; create table raw.pages (id int, text text);"
        "create function raw.slow() returns trigger language plpgsql as"
        " $$ begin if new.id % 1000 = 0 then perform pg_sleep(0.05); end if; return new; end $$;"
        "create trigger slow before insert on raw.pages for each row execute function raw.slow()"
    )
    resources = {"max_inflight_bytes": 2 * MEGABYTE, "max_batch_bytes": MEGABYTE}
    result = run(make_pipeline(tmp_path, source_db, destination_db, ["pages"], resources=resources))
    assert result.rows == 10_000
    assert MEGABYTE < result.peak_memory["channel"] <= 2 * MEGABYTE
    assert result.timings["source_blocked_seconds"] > 0.1
