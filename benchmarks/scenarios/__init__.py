"""The tasks that are measured, in the report's order."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios.cdc import CDC, CDC_ONE_TRANSACTION
from benchmarks.scenarios.dead_letters import (
    DEAD_LETTERS,
    DEAD_LETTERS_HALF,
    DEAD_LETTERS_REPLACE,
    DEAD_LETTERS_UPSERT,
)
from benchmarks.scenarios.incremental import INCREMENTAL
from benchmarks.scenarios.parallel import PARALLEL, PARALLEL_DELAYED
from benchmarks.scenarios.refresh import REFRESH
from benchmarks.scenarios.shards import SHARDS
from benchmarks.scenarios.sql import SQL
from benchmarks.scenarios.upsert import UPSERT
from benchmarks.scenarios.validate import VALIDATE

SCENARIOS: tuple[Scenario, ...] = (
    REFRESH,
    INCREMENTAL,
    UPSERT,
    CDC,
    CDC_ONE_TRANSACTION,
    SHARDS,
    PARALLEL,
    PARALLEL_DELAYED,
    DEAD_LETTERS,
    DEAD_LETTERS_REPLACE,
    DEAD_LETTERS_UPSERT,
    DEAD_LETTERS_HALF,
    VALIDATE,
    SQL,
)
