"""What is done now and then by somebody who comes by all the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def at_most_every(seconds: float, work: Callable[[float], None]) -> Callable[[], None]:
    """Calls `work`, with `time.monotonic()`, when `seconds` have passed since it was called last; at once at first."""
    last = -math.inf

    def come_by() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            work(now)

    return come_by
