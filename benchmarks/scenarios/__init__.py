"""The tasks that are measured, in the report's order."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios.incremental import INCREMENTAL
from benchmarks.scenarios.refresh import REFRESH
from benchmarks.scenarios.shards import SHARDS
from benchmarks.scenarios.upsert import UPSERT

SCENARIOS: tuple[Scenario, ...] = (REFRESH, INCREMENTAL, UPSERT, SHARDS)
