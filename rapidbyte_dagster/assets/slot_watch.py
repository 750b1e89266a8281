"""Whether a replication slot is to be caught up now: what one tick of its sensor decides, from what it has seen.

Nothing here asks a server, an instance or a clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal

from rapidbyte_dagster.assets.amounts import bytes_text, seconds_text

FIRST_RETRY_SECONDS = 30.0
"""After a run that failed; twice as long after each further one."""
LAST_RETRY_SECONDS = 300.0
"""The longest wait while changes come: streams that did not fail are caught up by each try as well."""
IDLE_SECONDS = 3600.0
"""So long WAL of other tables' traffic may be retained, however little it is."""
IDLE_SHARE = 0.25
"""Of `max_lag_bytes`: what may be retained of it without a run."""
HELD_SECONDS = 300.0
"""So long somebody else may read from the slot before that is an alarm: a tail on a terminal, a session whose client is
gone."""
OBSERVE_SECONDS = 60.0
"""Between two observations, where something has changed."""
OBSERVE_IDLE_SECONDS = 600.0
"""Between two observations, where nothing has."""

_IDLE = "idle"


@dataclass(frozen=True)
class PastRun:
    """A run of the slot's job that has ended."""

    run_id: str
    status: Literal["ok", "failed", "canceled"]
    created_at: float
    """Seconds since 1970, as all times here."""
    ended_at: float
    changes: str | None
    """The digest of the tables' changes that its tick had seen; None where no tick has started it."""


@dataclass(frozen=True)
class RunningRun:
    """A run that reads from the slot, or is about to."""

    run_id: str
    created_at: float
    status: str


@dataclass(frozen=True)
class Look:
    """What a tick has seen."""

    at: float
    lag_bytes: int
    """From the slot's confirmed position to the server's end of WAL."""
    changes: str
    """A digest that differs whenever rows of the slot's tables may have changed."""
    exists: bool = True
    held_by: int | None = None
    """The process id of the session that reads from the slot."""
    held_as: str | None = None
    """What that session's application calls itself."""
    held_by_own: bool = False
    """Whether that is what runs of the pipeline call themselves."""
    alarm: str | None = None
    """Why no stream can go on, which no run can mend, and what to do."""
    stopped: str | None = None
    """The same of some of the streams, while the others can go on."""
    running: RunningRun | None = None
    past: Sequence[PastRun] = ()
    """Newest first."""

    @property
    def covered(self) -> str | None:
        """The digest of the changes that the newest successful run of a tick has read at least."""
        return next((run.changes for run in self.past if run.status == "ok" and run.changes), None)

    @property
    def failures(self) -> int:
        """How many of the newest runs in a row have failed."""
        return next((count for count, run in enumerate(self.past) if run.status == "ok"), len(self.past))

    def caught_up_at(self, known: float | None) -> float | None:
        """The last time at which surely nothing waited. `known` is what was known before of that."""
        if self.exists and self.changes == self.covered:
            return self.at
        success = self.last_success
        # A run reads everything that was committed when it was asked for.
        times = [known, success.created_at if success else None]
        return max((at for at in times if at is not None), default=None)

    @property
    def last_success(self) -> PastRun | None:
        return next((run for run in self.past if run.status == "ok"), None)


@dataclass(frozen=True)
class Memory:
    """The sensor's cursor: what a tick knows of those before. All of it may be lost."""

    caught_up_at: float | None = None
    """The last time at which nothing waited."""
    held_since: float | None = None
    observed_at: float | None = None
    observed: str | None = None
    """The state that was observed then."""

    @classmethod
    def of(cls, cursor: str | None) -> Memory:
        """What `text` made; a cursor of another version is forgotten."""
        try:
            values = json.loads(cursor or "{}")
        except ValueError:
            return cls()
        if not isinstance(values, Mapping):
            return cls()
        number = {name: values[name] for name in ("caught_up_at", "held_since", "observed_at") if name in values}
        observed = values.get("observed")
        return cls(
            **{name: float(value) for name, value in number.items() if isinstance(value, int | float)},
            observed=observed if isinstance(observed, str) else None,
        )

    @property
    def text(self) -> str:
        return json.dumps({name: value for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class Decision:
    action: Literal["run", "skip", "alarm"]
    """`alarm`: the tick is to fail, so that somebody looks."""
    message: str
    """For people: why, and how far the slot is behind."""
    memory: Memory
    lag_seconds: float | None
    """How long the oldest change may wait already; None before the first run that succeeds."""
    observe: bool = False
    run_key: str | None = None
    """One per last run: two ticks never start two runs behind the same one, and a failed run does not use it up."""


def decide(look: Look, memory: Memory, *, max_lag_bytes: int) -> Decision:
    """What the tick does that has seen `look`. `memory` is of the tick before."""
    caught_up_at = look.caught_up_at(memory.caught_up_at)
    caught_up = caught_up_at == look.at
    lag_seconds = None if caught_up_at is None else max(0.0, look.at - caught_up_at)
    held_since = None
    if look.held_by is not None and look.running is None:
        held_since = look.at if memory.held_since is None else memory.held_since
    memory = replace(memory, caught_up_at=caught_up_at, held_since=held_since)
    action, reason = _action(look, memory, caught_up=caught_up, max_lag_bytes=max_lag_bytes)
    said = [look.stopped, reason] if look.stopped else [reason]
    if look.exists:
        said.append(_lag_text(look, lag_seconds))
    message = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in said)
    state = _IDLE if action == "skip" and caught_up else "busy"
    observe = action != "alarm" and _is_due(look, memory, state)
    if observe:
        memory = replace(memory, observed_at=look.at, observed=state)
    last = look.past[0].run_id if look.past else "none"
    return Decision(
        action,
        reason if action == "alarm" else message,
        memory,
        lag_seconds,
        observe,
        f"after {last}" if action == "run" else None,
    )


def retry_seconds(failures: int, longest: float = LAST_RETRY_SECONDS) -> float:
    """How long to wait after so many runs in a row have failed."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** (failures - 1), longest)


def _action(
    look: Look, memory: Memory, *, caught_up: bool, max_lag_bytes: int
) -> tuple[Literal["run", "skip", "alarm"], str]:
    if look.running is not None:
        return "skip", _running_text(look.running, look.at)
    if look.alarm is not None:
        return "alarm", look.alarm
    if memory.held_since is not None:
        return _held(look, look.at - memory.held_since)
    if look.failures:
        return _after_failure(look, look.past[0])
    success = look.last_success
    if success is None:
        return "run", "No run is known that has caught up: this is the first"
    if not caught_up:
        return "run", "Rows of its tables have changed"
    if look.lag_bytes >= IDLE_SHARE * max_lag_bytes:
        return "run", "Nothing of its tables changed, and WAL of other traffic is retained: the position moves on"
    if look.lag_bytes > 0 and look.at - success.ended_at >= IDLE_SECONDS:
        return "run", f"Nothing of its tables changed for {seconds_text(IDLE_SECONDS)}: the position moves on"
    return "skip", "Nothing to read"


def _held(look: Look, seconds: float) -> tuple[Literal["skip", "alarm"], str]:
    if look.held_by_own:
        told = "`rapidbyte run`, or one whose process was killed"
        return (
            "skip",
            f"A run that this instance does not know of reads from the slot ({told}; process id {look.held_by})",
        )
    session = f"the session with process id {look.held_by}" + (f", {look.held_as!r}" if look.held_as else "")
    if seconds < HELD_SECONDS:
        return "skip", f"Another consumer reads from the slot: {session}"
    return "alarm", (
        f"another consumer has been reading from the slot for {seconds_text(seconds)}: {session}. A slot has one"
        " consumer, and what that one confirms is lost for this pipeline. Stop it, or give one of the two a slot of its"
        " own; where its client is gone, end it at the source with"
        f" SELECT pg_terminate_backend({look.held_by})"
    )


def _after_failure(look: Look, last: PastRun) -> tuple[Literal["run", "skip"], str]:
    # Streams that nothing but a person can help fail every run: without changes of the others it would be in vain.
    in_vain = look.stopped is not None and look.changes == last.changes
    longest = IDLE_SECONDS if in_vain else LAST_RETRY_SECONDS
    wait = last.ended_at + retry_seconds(look.failures, longest) - look.at
    how = "was canceled" if last.status == "canceled" else "failed"
    told = f"The last run, {last.run_id[:8]}, {how}"
    if look.failures > 1:
        told += f", and {look.failures - 1} before it"
    return ("run", f"{told}: once more") if wait <= 0 else ("skip", f"{told}: the next try is in {seconds_text(wait)}")


def _running_text(run: RunningRun, at: float) -> str:
    since = datetime.fromtimestamp(run.created_at, timezone.utc)
    text = f"Run {run.run_id[:8]} is {run.status.lower()} since {since:%Y-%m-%d %H:%M:%S} UTC"
    if at - run.created_at >= IDLE_SECONDS:
        text += ". Where its process is gone, mark it as failed in the UI (or switch on run_monitoring): until then no"
        text += " other one starts"
    return text


def _lag_text(look: Look, lag_seconds: float | None) -> str:
    if lag_seconds == 0:
        waits = "no change waits"
    elif lag_seconds is None:
        waits = "nothing was read yet"
    else:
        waits = f"changes wait for at most {seconds_text(lag_seconds)}"
    return f"Behind by {bytes_text(look.lag_bytes)} of WAL; {waits}"


def _is_due(look: Look, memory: Memory, state: str) -> bool:
    """Whether the tick is worth an observation: they are kept for good, and ticks come often."""
    if memory.observed_at is None:
        return True
    since = look.at - memory.observed_at
    return since >= (OBSERVE_IDLE_SECONDS if state == memory.observed == _IDLE else OBSERVE_SECONDS)
