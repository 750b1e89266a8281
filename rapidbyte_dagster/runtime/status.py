"""How a host function fails: a status for the guest, a reason for the person who reads the error."""

from __future__ import annotations

from enum import IntEnum

from rapidbyte_dagster.errors import ErrorInfo, Kind


class Status(IntEnum):
    """What a host function answers below zero. The numbers are the ABI's."""

    OK = 0
    INVALID = -1
    CANCELLED = -2
    TIMEOUT = -3
    DENIED = -4
    CLOSED = -5
    FAILED = -6
    ABORTED = -7


STATUS_OF_KIND = {Kind.CANCELLED: Status.CANCELLED, Kind.TIMEOUT: Status.TIMEOUT, Kind.DENIED: Status.DENIED}
"""Errors of the host whose kind has a status of its own; all others are `FAILED`."""


class Refusal(Exception):
    """Raised inside a host function, caught at its edge: the guest gets `status`, the instance keeps `info`."""

    def __init__(
        self,
        status: Status,
        message: str,
        *,
        kind: Kind = Kind.CONNECTOR,
        hint: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.info = ErrorInfo(kind=kind, message=message, hint=hint, detail=detail)
