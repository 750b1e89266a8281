"""One stream's run, knowing nothing of Dagster, PostgreSQL or terminals."""

from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.capture import SlotResult, run_slot
from rapidbyte_dagster.engine.comparison import compare_stream
from rapidbyte_dagster.engine.finding import Finding
from rapidbyte_dagster.engine.inspection import (
    DiscoveredColumn,
    DiscoveredTable,
    check_pipeline,
    discover,
)
from rapidbyte_dagster.engine.letter_files import EditedLetters, letter_lines, require_suffix, write_letters
from rapidbyte_dagster.engine.position import read_watermark, reset_stream, rewind_stream
from rapidbyte_dagster.engine.replay import ReplayResult, divide_choice, replay_dead_letters
from rapidbyte_dagster.engine.result import Progress, StreamResult, log_to
from rapidbyte_dagster.engine.runner import run_stream
from rapidbyte_dagster.engine.start import Start

__all__ = [
    "CancelToken",
    "DiscoveredColumn",
    "DiscoveredTable",
    "EditedLetters",
    "Finding",
    "Progress",
    "ReplayResult",
    "SlotResult",
    "Start",
    "StreamResult",
    "check_pipeline",
    "compare_stream",
    "discover",
    "divide_choice",
    "letter_lines",
    "log_to",
    "read_watermark",
    "replay_dead_letters",
    "require_suffix",
    "reset_stream",
    "rewind_stream",
    "run_slot",
    "run_stream",
    "write_letters",
]
