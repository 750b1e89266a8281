"""Dead letters in files: exported, edited by whoever knows what is wrong with the rows, and read back for a replay.

    *.jsonl, *.ndjson    {"id": 7, "stream": "users", …, "types": {…}, "record": {…}}     one letter per line
    *.parquet            columns as in `DEAD_LETTER_SCHEMA`

What a replay reads of a letter is `id`, `pipeline`, `stream`, `types` and `record`; the rest is for who edits it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rapidbyte_dagster.engine.letter_rows import LetterRow, read_json, row_of
from rapidbyte_dagster.errors import UsageError
from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from rapidbyte_dagster.config import Pipeline

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"

# What a line calls the columns that the store has other names for.
_NAMES = {
    "stream_name": "stream",
    "pipeline_name": "pipeline",
    "error_message": "message",
    "error_category": "category",
    "column_name": "column",
    "constraint_name": "constraint",
}


def require_suffix(path: Path) -> None:
    """Raises `UsageError` for a file whose name tells no format."""
    if path.suffix.lower() not in (*JSON_LINES, PARQUET):
        raise UsageError(
            f"{path}: the name of a file of dead letters tells its format by its end",
            hint=f"call it *{JSON_LINES[0]} (JSON Lines) or *{PARQUET}",
        )


def letter_lines(page: pa.Table) -> Iterator[str]:
    """A page of dead letters as JSON Lines, without their ends. Record and types are as they are kept, to the digit."""
    for row in page.to_pylist():
        record, types = row.pop("record_json"), row.pop("types_json") or "{}"
        head = json.dumps({_NAMES.get(name, name): value for name, value in row.items()}, ensure_ascii=False)
        yield f'{head[:-1]}, "types": {types}, "record": {record}}}'


def write_letters(path: Path, pages: Iterable[pa.Table]) -> int:
    """Writes the letters of `pages` to `path`, all of them or no file; how many they are. Raises `UsageError`."""
    require_suffix(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    write = _write_parquet if path.suffix.lower() == PARQUET else _write_lines
    try:
        try:
            # A row may be anybody's business: for the owner's eyes.
            with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file:
                count = write(file, pages)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    return count


def _write_lines(file: IO[bytes], pages: Iterable[pa.Table]) -> int:
    count = 0
    for page in pages:
        for line in letter_lines(page):
            file.write(line.encode() + b"\n")
        count += page.num_rows
    return count


def _write_parquet(file: IO[bytes], pages: Iterable[pa.Table]) -> int:
    import pyarrow.parquet

    count = 0
    with pyarrow.parquet.ParquetWriter(file, DEAD_LETTER_SCHEMA) as writer:
        for page in pages:
            writer.write_table(page)
            count += page.num_rows
    return count


class EditedLetters:
    """A file of dead letters, with rows as somebody left them."""

    def __init__(self, path: Path, pipeline: Pipeline) -> None:
        """Reads all of the file, and keeps the letters' numbers. Raises `UsageError` that names the line."""
        require_suffix(path)
        self._path = path
        self._pipeline = pipeline.name
        self._streams = [stream.name for stream in pipeline.streams]
        self.ids: Mapping[str, frozenset[int]]
        """The letters' numbers, by their stream."""
        ids: dict[str, set[int]] = {}
        places: dict[int, str] = {}
        for place, stream, row in self._rows():
            if row.id in places:
                raise self._wrong(place, f"dead letter {row.id} is in {places[row.id]} already")
            places[row.id] = place
            ids.setdefault(stream, set()).add(row.id)
        self.ids = {stream: frozenset(numbers) for stream, numbers in ids.items()}

    def rows(self, stream: str, chosen: set[int]) -> Iterator[LetterRow]:
        """Those letters of the stream, in the file's order."""
        for _, of, row in self._rows():
            if of == stream and row.id in chosen:
                yield row

    def _rows(self) -> Iterator[tuple[str, str, LetterRow]]:
        """Each letter with its place in the file and its stream."""
        read = self._parquet if self._path.suffix.lower() == PARQUET else self._lines
        try:
            for place, letter in read():
                yield place, *self._row(place, letter)
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror or error}") from error

    def _row(self, place: str, letter: Any) -> tuple[str, LetterRow]:
        if not isinstance(letter, dict):
            raise self._wrong(place, "it is no object")
        missing = [name for name in ("id", "pipeline", "stream", "types", "record") if name not in letter]
        if missing:
            raise self._wrong(place, f"{' and '.join(missing)} missing")
        number, stream = letter["id"], letter["stream"]
        if not (isinstance(number, str) and number.isascii() and number.isdigit()) or not 0 < int(number[:20]) < 2**63:
            raise self._wrong(place, "its id is no number of a dead letter")
        if letter["pipeline"] != self._pipeline or stream not in self._streams:
            raise self._wrong(place, f"it is of no stream of pipeline {self._pipeline!r}")
        try:
            return stream, row_of(int(number), letter["record"], letter["types"])
        except ValueError as error:
            raise self._wrong(place, f"dead letter {number} cannot be replayed: {error}") from None

    def _lines(self) -> Iterator[tuple[str, Any]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", read_json(line)
                except ValueError as error:
                    raise self._wrong(f"line {number}", f"it is no line of JSON: {error}") from None

    def _parquet(self) -> Iterator[tuple[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet

        names = ("id", "pipeline_name", "stream_name", "types_json", "record_json")
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(self._path) as file:
                missing = [column for column in names if column not in file.schema_arrow.names]
                if missing:
                    raise UsageError(f"{self._path} has no column {', '.join(missing)}", hint=_EXPORT_HINT)
                for batch in file.iter_batches(batch_size=100, columns=list(names)):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"row {number}", self._of_parquet(f"row {number}", row)
        except pa.ArrowException as error:
            raise UsageError(f"{self._path} is no Parquet file: {error}", hint=_EXPORT_HINT) from error

    def _of_parquet(self, place: str, row: Mapping[str, Any]) -> dict[str, Any]:
        found = {"id": str(row["id"]), "pipeline": row["pipeline_name"], "stream": row["stream_name"]}
        for name in ("types", "record"):
            text = row[f"{name}_json"]
            try:
                found[name] = read_json(text) if isinstance(text, str) else None
            except ValueError as error:
                raise self._wrong(place, f"its {name}_json is no JSON: {error}") from None
        return found

    def _wrong(self, place: str, what: str) -> UsageError:
        return UsageError(f"{self._path}, {place}: {what}", hint=_EXPORT_HINT)


_EXPORT_HINT = (
    "a file for a replay is one that `rapidbyte dlq export` wrote, with its records edited and lines left out"
)
