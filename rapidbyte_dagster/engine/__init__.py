"""One stream's run, knowing nothing of Dagster, PostgreSQL or terminals."""

from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.inspection import (
    DiscoveredColumn,
    DiscoveredTable,
    Finding,
    check_pipeline,
    discover,
)
from rapidbyte_dagster.engine.result import Progress, StreamResult, log_to
from rapidbyte_dagster.engine.runner import run_stream

__all__ = [
    "CancelToken",
    "DiscoveredColumn",
    "DiscoveredTable",
    "Finding",
    "Progress",
    "StreamResult",
    "check_pipeline",
    "discover",
    "log_to",
    "run_stream",
]
