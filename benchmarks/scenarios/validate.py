"""A load whose rows go through rules that all of them pass, beside the same load without a transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import events
from benchmarks.engine import FULL_REFRESH, engine
from benchmarks.scenario import Limits, Scenario
from benchmarks.way import Way

NOT_NULL = {"assert_not_null": ["title", "code"]}
REGEX = {"assert_regex": {"column": "title", "pattern": r"^event number \d+ of kind \d{1,3}$"}}
RANGE = {"assert_range": {"column": "amount", "min": 0, "exclusive_max": 10000}}
UNIQUE = {"assert_unique": "id"}


def _append(name: str, title: str, rules: Sequence[Mapping[str, Any]]) -> Way:
    transforms = [{"use": "transform-validate", "config": {"rules": [dict(rule) for rule in rules]}}]
    # In one piece, as every stream with transforms.
    stream: Mapping[str, Any] = {**FULL_REFRESH, "shards": 1}
    return engine(
        name, title, write_mode="append", before="empty", stream=stream, transforms=transforms if rules else ()
    )


VALIDATE = Scenario(
    name="validate",
    title="append through transform-validate",
    ways=(
        _append("clean", "no transform", ()),
        _append("regex", "assert_not_null, assert_regex", (NOT_NULL, REGEX)),
        _append("range", "assert_not_null, assert_range", (NOT_NULL, RANGE)),
        _append("unique", "assert_unique", (UNIQUE,)),
    ),
    baseline="clean",
    baseline_title="no transform",
    limits=Limits(ratio=1.25, peak_rss_mb=300),
    first=events.seed,
    by_default=False,
)
