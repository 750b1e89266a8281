"""Dead letters as Parquet files in a folder or a bucket, for teams that keep them there.

BASE/shop/users/dlq/RUN.parquet: one file per run that has left rows out, written from the state store page by page. A
file appears whole or not at all.
"""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from rapidbyte_dagster.assets.binding import StreamBinding, binding_of
from rapidbyte_dagster.assets.dead_letter_metadata import dead_letter_metadata
from rapidbyte_dagster.assets.dead_letters import (
    DeadLetters,
    LetterSelection,
    chosen_run,
    letter_pages,
    letters_given,
)
from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.names import key_part
from rapidbyte_dagster.errors import ConfigError, RapidbyteError, StateError

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

    from rapidbyte_dagster.state import StateStore

_SUFFIX = ".parquet"
_LOCAL = ("", "file", "local")


class DlqParquetIOManager(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]
    """Writes each run's dead letters to a Parquet file of its own, and loads them as a `pyarrow.Table`.

        build_definitions("pipelines/", resources={
            "rapidbyte_dlq_io_manager": DlqParquetIOManager(base_path="s3://bucket/dead-letters"),
        })

    The state store keeps them as well: a replay takes them from there.
    """

    base_path: str = Field(
        description="The folder of all streams: an absolute path, or a URL of any file system that fsspec knows."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="What that file system takes: credentials, endpoints. May hold EnvVars."
    )
    selection: LetterSelection = Field(
        default="all", description="all: the whole history of the stream. run: what the run at hand has left out."
    )

    def create_io_manager(self, context: dg.InitResourceContext) -> dg.IOManager:
        return _LetterFiles(_base(self.base_path, _resolved(self.storage_options)), self.selection)


class _LetterFiles(dg.UPathIOManager):
    """An asset's path is a folder, with a file for each run."""

    def __init__(self, base_path: UPath, selection: LetterSelection) -> None:
        super().__init__(base_path)
        self._selection: LetterSelection = selection
        self._written = 0

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        failure: dg.Failure | None = None
        try:
            super().handle_output(context, obj)
        except RapidbyteError as error:
            failure = failure_from(error)
        if failure is not None:
            raise failure

    def load_input(self, context: dg.InputContext) -> Any:
        failure: dg.Failure | None = None
        try:
            return super().load_input(context)
        except RapidbyteError as error:
            failure = failure_from(error)
        raise failure

    def make_directory(self, path: UPath) -> None:
        try:
            super().make_directory(path)
        except Exception as error:
            raise _unreachable("written to", path, error) from error

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        from rapidbyte_dagster.state import open_state

        letters = letters_given(obj, context.asset_key.to_user_string())
        self.make_directory(path)
        with open_state(letters.pipeline, os.environ) as state:
            self._written = 0
            for run_id in self._runs_to_write(state, letters, path):
                _write(state, letters, run_id, path / _file_name(run_id))
                self._written += 1

    def _runs_to_write(self, state: StateStore, letters: DeadLetters, path: UPath) -> Iterable[str]:
        """This run's, and those of runs that were killed before they came here; all where no row was moved."""
        known = state.dead_letter_runs(letters.pipeline.name, letters.stream.name)
        if letters.run_id is None:
            return known
        there = {file.name for file in _files(path)}
        return [run_id for run_id in known if run_id == letters.run_id or _file_name(run_id) not in there]

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, Any]:
        from rapidbyte_dagster.state import open_state

        letters = letters_given(obj, context.asset_key.to_user_string())
        with open_state(letters.pipeline, os.environ) as state:
            return {"files_written": self._written, **dead_letter_metadata(state, letters, self._selection)}

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pa.Table:
        run_id = self._chosen_run(context)
        name = None if run_id is None else _file_name(run_id)
        return _read([file for file in _files(path) if name in (None, file.name)])

    def _chosen_run(self, context: dg.InputContext) -> str | None:
        from rapidbyte_dagster.state import open_state

        binding = _binding(context)
        with open_state(binding.pipeline, os.environ) as state:
            return chosen_run(state, binding.pipeline, binding.stream, context, self._selection)

    def get_loading_input_log_message(self, path: UPath) -> str:
        return f"Loading dead letters from {path}"

    def get_writing_output_log_message(self, path: UPath) -> str:
        return f"Writing dead letters to {path}"


def _binding(context: dg.InputContext) -> StreamBinding:
    upstream = context.upstream_output
    return binding_of(upstream.definition_metadata if upstream else {}, context.asset_key)


def _base(base_path: str, options: Mapping[str, Any]) -> UPath:
    """Raises `ConfigError` for a path that depends on who starts the run, and for a file system that is not there."""
    from upath import UPath

    if urlsplit(base_path).password:
        raise ConfigError(
            "base_path of the dead letters' IO manager holds a password, which Dagster would show",
            hint="put credentials into storage_options, by EnvVar",
        )
    try:
        with warnings.catch_warnings():
            # UPath warns of a file system that only fsspec knows, and works with it.
            warnings.simplefilter("ignore", UserWarning)
            base: UPath = UPath(base_path, **options)
        relative = base.protocol in _LOCAL and not base.is_absolute()
        base.fs  # noqa: B018 - asks for the package of the file system
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"base_path of the dead letters' IO manager is not usable: {base_path!r}: {error}",
            hint="it is an absolute path, or a URL of a file system that fsspec knows and whose package is installed",
        ) from None
    if relative:
        raise ConfigError(
            f"base_path of the dead letters' IO manager is relative: {base_path!r}",
            hint="give an absolute path: steps may run in other working directories than the code location",
        )
    return base


def _resolved(option: Any) -> Any:
    """`option` with the values of the environment variables that it names. Raises `ConfigError` for a missing one."""
    if isinstance(option, dict):
        # What an EnvVar inside of a mapping is by the time that Dagster gives the mapping to a resource.
        if set(option) == {"env"} and isinstance(name := option["env"], str):
            if name not in os.environ:
                raise ConfigError(f"the environment variable {name} of the dead letters' storage_options is not set")
            return os.environ[name]
        return {name: _resolved(value) for name, value in option.items()}
    return [_resolved(value) for value in option] if isinstance(option, list) else option


def _file_name(run_id: str) -> str:
    return f"{key_part(run_id)}{_SUFFIX}"


def _files(path: UPath) -> list[UPath]:
    """The files of an asset's folder; none where that is not there yet."""
    try:
        # What a file system says of a folder that is not there differs.
        found = path.iterdir() if path.exists() else ()
        return sorted((file for file in found if file.name.endswith(_SUFFIX)), key=lambda file: file.name)
    except Exception as error:
        raise _unreachable("read from", path, error) from error


def _write(state: StateStore, letters: DeadLetters, run_id: str, file: UPath) -> None:
    """One run's, without a half-written file at any time: on the way through a local one."""
    local = file.protocol in _LOCAL
    # A local one is renamed, which works inside of one file system only.
    folder = Path(file.parent.path) if local else Path(tempfile.gettempdir())
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        _write_parquet(state, letters, run_id, temporary)
        if local:
            os.replace(temporary, file.path)
        else:
            file.fs.put_file(str(temporary), file.path)
    except RapidbyteError:
        raise
    except Exception as error:
        # Each file system has errors of its own.
        raise _unreachable("written to", file, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(state: StateStore, letters: DeadLetters, run_id: str, file: Path) -> None:
    import pyarrow.parquet as pq

    from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA

    with pq.ParquetWriter(file, DEAD_LETTER_SCHEMA, compression="zstd") as writer:
        for page in letter_pages(state, letters.pipeline, letters.stream, run_id):
            writer.write_table(page)


def _read(files: Iterable[UPath]) -> pa.Table:
    """Their rows, oldest first, in the columns of today."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA

    tables = [DEAD_LETTER_SCHEMA.empty_table()]
    for file in files:
        try:
            with file.open("rb") as opened:
                found = pq.read_table(opened)
            columns = [
                found[field.name].cast(field.type)
                if field.name in found.column_names
                else pa.nulls(len(found), field.type)
                for field in DEAD_LETTER_SCHEMA
            ]
            tables.append(pa.table(columns, schema=DEAD_LETTER_SCHEMA))
        except Exception as error:
            raise _unreachable("read from", file, error) from error
    # Numbers start anew in a state store that was made anew.
    return pa.concat_tables(tables).sort_by([("failed_at", "ascending"), ("id", "ascending")])


def _unreachable(what: str, path: UPath, error: Exception) -> StateError:
    return StateError(
        f"the dead letters cannot be {what} {path}: {type(error).__name__}: {error}",
        hint="the state store has them: once the path works, materialise the asset of the dead letters again",
    )
