"""Whether a failed attempt is worth another, and when. The only place that decides."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rapidbyte_dagster.errors import RapidbyteError

# The first wait is short enough for a dropped connection, the longest long enough for a database to restart.
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class RetryPolicy:
    max_retries: int

    def wait_before_retry(self, error: RapidbyteError, attempt: int) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None when it must not be repeated.

        Exponential with full jitter: streams that failed together do not come back together.
        """
        if not error.kind.retryable or attempt > self.max_retries:
            return None
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        return random.uniform(0, ceiling)
