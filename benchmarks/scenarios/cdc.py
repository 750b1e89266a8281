"""Captured changes, applied to a copy of the table: in many transactions, and in one."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.capture import changes
from benchmarks.capture.rounds import Make, rounds_of
from benchmarks.capture.ways import CaptureWay, captured, decoding, recvlogical, subscription
from benchmarks.scenario import Connection, Limits, Scenario

SETTINGS: Mapping[str, str] = {"wal_level": "logical"}


def _in_one(connection: Connection, count: int) -> None:
    changes.make(connection, count, transactions=1)


def _nothing(connection: Connection, count: int) -> None:
    """The rounds make their own table."""


def _scenario(
    name: str, title: str, make: Make, ways: tuple[CaptureWay, ...], limits: Limits, *, by_default: bool
) -> Scenario:
    return Scenario(
        name=name,
        title=title,
        ways=ways,
        baseline="subscription",
        baseline_title="the subscription",
        limits=limits,
        first=_nothing,
        rounds=rounds_of(make),
        settings=SETTINGS,
        unit="changes × 5 columns",
        keyed=True,
        by_default=by_default,
    )


SUBSCRIPTION = subscription("subscription", "PostgreSQL's subscription")
UPSERT = captured("upsert", "rapidbyte cdc, upsert", write_mode="upsert")

CDC = _scenario(
    "cdc",
    "captured changes in 3,000 transactions",
    changes.make,
    (
        SUBSCRIPTION,
        subscription("subscription-binary", "PostgreSQL's subscription, binary", options=", binary = true"),
        recvlogical(),
        decoding(),
        UPSERT,
        captured("append", "rapidbyte cdc, append (history)", write_mode="append"),
    ),
    Limits(ratio=1.0, peak_rss_mb=300),
    by_default=True,
)

CDC_ONE_TRANSACTION = _scenario(
    "cdc-one-transaction",
    "captured changes in one transaction",
    _in_one,
    (SUBSCRIPTION, UPSERT),
    Limits(peak_rss_mb=300),
    by_default=False,
)
