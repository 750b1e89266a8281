"""The seed of what is random in these tests: new in each session, unless `RAPIDBYTE_TEST_SEED` names one."""

from __future__ import annotations

import os
import random

SEED = os.environ.get("RAPIDBYTE_TEST_SEED") or str(random.SystemRandom().randrange(2**32))
