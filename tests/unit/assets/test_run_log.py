from __future__ import annotations

import logging
import threading

import pytest

from rapidbyte_dagster.assets.run_log import WAITING_LINES_LIMIT, RunLog
from rapidbyte_dagster.engine import Progress


def progress(rows: int, *, attempt: int = 1) -> Progress:
    return Progress(
        stream="users", rows=rows, bytes=rows * 1024, rows_committed=0, elapsed_seconds=1.0, attempt=attempt
    )


def say_from_another_thread(log: RunLog, *lines: tuple[int, str]) -> None:
    def speak() -> None:
        for line in lines:
            log.say(*line)

    thread = threading.Thread(target=speak)
    thread.start()
    thread.join()


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.DEBUG, "run_log_test")
    return logging.getLogger("run_log_test")


def test_a_line_of_a_connector_waits_for_the_steps_own_thread(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(logger, interval_seconds=3600)
    say_from_another_thread(log, (logging.WARNING, "slow"), (logging.DEBUG, "detail"))
    assert caplog.records == []
    log.progress(progress(1))
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "slow"),
        (logging.DEBUG, "detail"),
    ]


def test_a_line_from_the_steps_own_thread_is_written_at_once_and_in_order(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(logger, interval_seconds=3600)
    say_from_another_thread(log, (logging.INFO, "first"))
    log.say(logging.WARNING, "attempt 1 failed")
    assert [record.message for record in caplog.records] == ["first", "attempt 1 failed"]


def test_progress_is_told_once_per_interval(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(logger, interval_seconds=3600)
    for rows in range(100):
        log.progress(progress(rows))
    assert caplog.records == []
    often = RunLog(logger, interval_seconds=0)
    often.progress(progress(2048))
    assert "users: 2,048 rows, 2.0 MB read (0 rows committed)" in caplog.records[-1].message


def test_a_new_attempt_that_counts_from_zero_shows_no_negative_speed(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(logger, interval_seconds=0)
    log.progress(progress(5000))
    log.progress(progress(10, attempt=2))
    assert caplog.records[-1].message.endswith(" 0 rows/s")


def test_a_connector_that_says_too_much_loses_its_oldest_lines_and_the_log_says_so(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(logger, interval_seconds=3600)
    say_from_another_thread(log, *((logging.INFO, str(number)) for number in range(WAITING_LINES_LIMIT + 7)))
    log.flush()
    assert caplog.records[0].message.startswith("7 log lines of the connectors were dropped")
    assert [record.message for record in caplog.records[1:]] == [
        str(number) for number in range(7, WAITING_LINES_LIMIT + 7)
    ]
