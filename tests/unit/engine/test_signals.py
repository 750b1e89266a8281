"""Signal handlers may press a run's button in the very thread that holds one of its locks."""

from __future__ import annotations

import subprocess
import sys

# Presses fresh tokens from a signal handler while the main thread registers, forgets, waits and presses.
STORM = """
import signal, time
from rapidbyte_dagster.engine import CancelToken

current = CancelToken()

def press(number, frame):
    current.cancel()
    # One at a time: on a slow machine handlers would pile up on each other.
    signal.setitimer(signal.ITIMER_REAL, 0.0003)

signal.signal(signal.SIGALRM, press)
signal.setitimer(signal.ITIMER_REAL, 0.0003)
end = time.monotonic() + 3
twice = rounds = 0
while time.monotonic() < end:
    current = token = CancelToken()
    called = []
    forget = token.on_cancel(lambda: called.append(1))
    forget()
    rounds += 1
    if rounds % 50 == 0:
        token.wait(0.001)
    token.cancel()
    twice += len(called) > 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print("called twice:", twice)
"""


def test_a_button_that_signals_press_again_and_again_does_not_deadlock() -> None:
    done = subprocess.run([sys.executable, "-c", STORM], timeout=30, capture_output=True, text=True, check=True)
    assert done.stdout == "called twice: 0\n"
