"""Who applies the changes, or only reads them; each goes on from a slot at the same position."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from typing_extensions import LiteralString

from benchmarks.capture.changes import NAME
from benchmarks.engine import engine
from benchmarks.way import DESTINATION, SOURCE, Told, Way, url
from demo.embedded_postgres import EmbeddedPostgres

PUBLICATION = "bench"
SLOT = "rapidbyte_bench"
"""What each way consumes: the one that this engine makes for the pipeline `bench`."""
MARKS = "marks.json"
"""In the folder of each way: where the changes end."""

LATEST: LiteralString = """
    (select distinct on (id) * from raw.changes order by id, _rb_lsn desc, _rb_seq desc) as latest
    where _rb_op <> 'delete'
"""


@dataclass(frozen=True, kw_only=True)
class CaptureWay(Way):
    """A way that consumes `SLOT`."""

    arrives: LiteralString | None
    """What holds the source's rows in the end, as SQL behind `from`; None: it only reads."""
    begins: bool
    """Its own first run makes the slot, and copies what is there before; otherwise both are made by hand."""
    moves_rows: bool = True
    """Whether it tells how many changes it moved."""

    @classmethod
    def of(cls, way: Way, **more: Any) -> CaptureWay:
        return cls(**{one.name: getattr(way, one.name) for one in fields(Way)}, **more)


def marks(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MARKS).read_text()))


def subscription(name: str, title: str, *, options: str = "") -> CaptureWay:
    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        words = [server.dsn(DESTINATION), server.dsn(SOURCE), SLOT, str(marks(folder)["last_id"]), options]
        return [sys.executable, "-m", "benchmarks.capture.subscription", *words]

    return CaptureWay(
        name=name,
        title=title,
        command=command,
        before="continued",
        told=_seconds,
        theirs=True,
        arrives=NAME,
        begins=False,
        moves_rows=False,
    )


def recvlogical() -> CaptureWay:
    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        options = ["--option=proto_version=1", f"--option=publication_names={PUBLICATION}"]
        return [
            *(server.installation.program("pg_recvlogical"), "--dbname", url(server, SOURCE), "--slot", SLOT),
            *("--start", "--no-loop", "--file=/dev/null", f"--endpos={marks(folder)['end']}", *options),
        ]

    return CaptureWay(
        name="recvlogical",
        title="pg_recvlogical > /dev/null",
        command=command,
        before="continued",
        arrives=None,
        begins=False,
        moves_rows=False,
    )


def captured(name: str, title: str, *, write_mode: str, resources: Mapping[str, Any] | None = None) -> CaptureWay:
    streams = [{"name": NAME, "sync_mode": "cdc"}]
    way = engine(name, title, write_mode=write_mode, before="continued", streams=streams, resources=resources)

    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        words = way.command(server, folder)
        if not (folder / MARKS).exists():
            return words
        file = words[words.index("run") + 1]
        return [sys.executable, "-m", "benchmarks.capture.catching_up", file, str(marks(folder)["end"])]

    return CaptureWay.of(
        replace(way, command=command), arrives="raw.changes" if write_mode == "upsert" else LATEST, begins=True
    )


def decoding() -> CaptureWay:
    """This engine's source without anybody who takes what it makes; it goes by the other ways' pipeline file."""

    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        file = captured("decoding", "", write_mode="upsert").command(server, folder)[-2]
        told = marks(folder)
        return [sys.executable, "-m", "benchmarks.capture.decoding", file, str(told["start"]), str(told["end"])]

    return CaptureWay(
        name="decoding",
        title="rapidbyte, source alone",
        command=command,
        before="continued",
        told=lambda output: Told(**json.loads(output)),
        arrives=None,
        begins=False,
    )


def _seconds(output: str) -> Told:
    return Told(seconds=float(json.loads(output)["seconds"]), rows=0)
