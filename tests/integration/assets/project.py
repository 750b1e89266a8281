"""A user's project for tests: a folder with `definitions.py`, pipeline files, and a DAGSTER_HOME of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from rapidbyte_dagster import build_definitions
from tests.pipelines import write_pipeline
from tests.postgres_server import Database

REPOSITORY = Path(__file__).resolve().parents[3]

COMMAND_SECONDS = 120
"""For one `dagster` command, start to end, on a busy machine."""

DEFINITIONS = 'from rapidbyte_dagster import build_definitions\n\ndefs = build_definitions("pipelines")\n'


@dataclass
class Project:
    folder: Path
    source: Database
    destination: Database
    variables: dict[str, str] = field(default_factory=dict)
    """What the pipeline files take from the environment."""

    @property
    def pipelines(self) -> Path:
        return self.folder / "pipelines"

    @property
    def dagster_home(self) -> Path:
        return self.folder / "home"

    @property
    def definitions_file(self) -> Path:
        return self.folder / "definitions.py"

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, **self.variables, "DAGSTER_HOME": str(self.dagster_home), "PYTHONPATH": str(REPOSITORY)}

    def create(self) -> None:
        self.pipelines.mkdir(parents=True)
        self.dagster_home.mkdir()
        (self.dagster_home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        self.definitions_file.write_text(DEFINITIONS)

    def add_pipeline(
        self,
        *streams: str | Mapping[str, Any],
        name: str = "shop",
        password_variable: str = "SHOP_PASSWORD",
        **options: Any,
    ) -> Path:
        """A pipeline whose source password comes from the environment variable of that name."""
        source = {**self.source.config, "password": f"${{{password_variable}}}"}
        destination = {**self.destination.config, "schema": "raw"}
        return write_pipeline(self.pipelines, source, destination, streams, name=name, **options)

    def definitions(self, **options: Any) -> dg.Definitions:
        return build_definitions(self.pipelines, **options)

    def dagster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the `dagster` command in the project's folder, as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "dagster", *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    def rows(self, table: str) -> int:
        return int(self.destination.fetch_value(f"select count(*) from raw.{table}"))


def job_of(pipelines: str, job: str) -> dg.JobDefinition:
    """For `dagster.build_reconstructable_job`: step processes call it again."""
    return build_definitions(pipelines).resolve_job_def(job)


def events_of(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.DagsterEvent]:
    return [record.dagster_event for record in instance.all_logs(run_id) if record.dagster_event is not None]


def materialization(events: Sequence[dg.DagsterEvent], key: str) -> Mapping[str, Any]:
    """The metadata values of the one materialisation of `key` among `events`."""
    (found,) = [
        event.step_materialization_data.materialization
        for event in events
        if event.is_step_materialization and event.asset_key == dg.AssetKey.from_user_string(key)
    ]
    return {name: value.value for name, value in found.metadata.items()}


def materialized(events: Sequence[dg.DagsterEvent]) -> set[str]:
    return {event.asset_key.to_user_string() for event in events if event.is_step_materialization and event.asset_key}


def step_failure(events: Sequence[dg.DagsterEvent], step: str) -> Any:
    """What the one failure of `step` tells: `description` and `metadata`."""
    (found,) = [event for event in events if event.is_step_failure and event.step_key == step]
    data = found.step_failure_data.user_failure_data
    assert data is not None, f"the step failed otherwise: {found.step_failure_data.error}"
    return data
