"""The host functions `spool_append`, `spool_read` and `spool_drop`: files for what does not fit into a guest's memory.

They are the instance's own and nameless: on POSIX they have no entry in any folder, and they go with the instance,
however it ends.
"""

from __future__ import annotations

import tempfile
from typing import IO, Final

from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.memory import GuestMemory
from rapidbyte_dagster.runtime.status import Refusal, Status

IN_MEMORY_BYTES: Final = 256 * 1024
"""What is smaller never reaches the disk."""


class Spools:
    def __init__(self, memory: GuestMemory, stage: Stage) -> None:
        self._memory = memory
        self._stage = stage
        self._files: dict[int, IO[bytes]] = {}

    def spool_append(self, number: int, address: int, length: int) -> int:
        part = self._memory.view(address, length)
        file = self._files.get(number)
        if file is None:
            if len(self._files) == abi.MAX_SPOOLS:
                raise Refusal(Status.INVALID, f"more than {abi.MAX_SPOOLS} spools at once")
            file = self._files[number] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        try:
            file.seek(0, 2)
            file.write(part)
        except OSError as error:
            raise self._failure(error) from error
        return Status.OK

    def spool_read(self, number: int, offset: int, address: int, length: int) -> int:
        file = self._files.get(number)
        if file is None or offset < 0:
            raise Refusal(Status.INVALID, "`spool_read` was called for a spool or a place that there is not")
        into = self._memory.view(address, length)
        try:
            file.seek(offset)
            part = file.read(length)
        except OSError as error:
            raise self._failure(error) from error
        into[: len(part)] = part
        return len(part)

    def spool_drop(self, number: int) -> int:
        file = self._files.pop(number, None)
        if file is not None:
            file.close()
        return Status.OK

    def close(self) -> None:
        for number in list(self._files):
            self.spool_drop(number)

    def _failure(self, error: OSError) -> RapidbyteError:
        return error_from(
            ErrorInfo(
                kind=Kind.RESOURCE,
                stage=self._stage,
                message=f"a transaction that does not fit into memory could not be put by on disk: {error.strerror}",
                hint=f"make room in {tempfile.gettempdir()}, or set TMPDIR to a folder that has it",
            )
        )
