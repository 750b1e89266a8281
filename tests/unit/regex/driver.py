"""Talks to `regex-driver`, which looks for patterns with the engine of the connectors.

request    u32 length | pattern   u32 count of texts, each  u32 length | text
reply      u32 length | one of '0' and '1' for each text
           u32 length + 2^31 | position in characters, a blank, what is wrong with the pattern
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ERROR_FLAG = 1 << 31

# Seconds for all the patterns of one test.
TIMEOUT = 120


@dataclass(frozen=True)
class Refused:
    """What is wrong with a pattern; `position` counts characters from 1."""

    position: int
    message: str


@dataclass(frozen=True)
class Driver:
    executable: Path

    def search(self, questions: Sequence[tuple[str, Sequence[str]]]) -> list[list[bool] | Refused]:
        """For each pattern whether it is found in each of its texts. A crash of the command fails the test."""
        request = b"".join(
            _sized(pattern) + struct.pack("<I", len(texts)) + b"".join(map(_sized, texts))
            for pattern, texts in questions
        )
        done = subprocess.run([str(self.executable)], input=request, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr.decode()
        answers: list[list[bool] | Refused] = []
        position = 0
        for _ in questions:
            (length,) = struct.unpack_from("<I", done.stdout, position)
            size = length & ~ERROR_FLAG
            content = done.stdout[position + 4 : position + 4 + size].decode()
            position += 4 + size
            if length & ERROR_FLAG:
                place, message = content.split(" ", 1)
                answers.append(Refused(int(place), message))
            else:
                answers.append([answer == "1" for answer in content])
        return answers


def _sized(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded
