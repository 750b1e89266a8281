"""One stream's run, knowing nothing of Dagster, PostgreSQL or terminals."""

from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.comparison import compare_stream
from rapidbyte_dagster.engine.finding import Finding
from rapidbyte_dagster.engine.inspection import (
    DiscoveredColumn,
    DiscoveredTable,
    check_pipeline,
    discover,
)
from rapidbyte_dagster.engine.position import read_watermark, reset_stream, rewind_stream
from rapidbyte_dagster.engine.result import Progress, StreamResult, log_to
from rapidbyte_dagster.engine.runner import run_stream
from rapidbyte_dagster.engine.start import Start

__all__ = [
    "CancelToken",
    "DiscoveredColumn",
    "DiscoveredTable",
    "Finding",
    "Progress",
    "Start",
    "StreamResult",
    "check_pipeline",
    "compare_stream",
    "discover",
    "log_to",
    "read_watermark",
    "reset_stream",
    "rewind_stream",
    "run_stream",
]
