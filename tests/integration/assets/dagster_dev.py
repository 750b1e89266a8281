"""A running `dagster dev` over a user's project, asked as its UI asks it: over GraphQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from tests.integration.assets.project import Project

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""Until the code location is loaded, on a busy machine."""
RUN_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1

# A launched run waits in a queue that is looked at so often; five seconds are Dagster's own choice.
INSTANCE = """\
telemetry:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""

_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}"""
_REEXECUTE = """
mutation($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_TERMINATE = """
mutation($run: String!) {
  terminateRun(runId: $run) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
  }
}"""


class DagsterDev:
    """A context manager; the process and all of its children are gone at its end."""

    def __init__(self, project: Project) -> None:
        self.project = project
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = probe.getsockname()[1]
        (project.dagster_home / "dagster.yaml").write_text(INSTANCE)
        self._process: subprocess.Popen[bytes] | None = None
        self.instance = dg.DagsterInstance.from_config(str(project.dagster_home))
        """Of the same DAGSTER_HOME."""

    def __enter__(self) -> DagsterDev:
        with (self.project.folder / "dagster-dev.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-f", "definitions.py"),
                    *("-h", HOST, "-p", str(self._port), "--log-level", "warning"),
                ],
                cwd=self.project.folder,
                env=self.project.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._wait_for_code()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def launch(self, job: str, *, assets: Sequence[str] | None = None, config: Mapping[str, Any] | None = None) -> str:
        """The id of a new run of `job`, or of the part of it that makes `assets` (keys as `shop/users`)."""
        selector: dict[str, Any] = {
            "repositoryLocationName": "definitions.py",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets is not None:
            selector["assetSelection"] = [{"path": key.split("/")} for key in assets]
            selector["assetCheckSelection"] = []
        params = {"selector": selector, "runConfigData": config or {}, "mode": "default"}
        return self._launched(self._ask(_LAUNCH, params=params)["launchRun"])

    def reexecute(self, run_id: str, strategy: str) -> str:
        """The id of the new run. `strategy` is FROM_FAILURE, FROM_ASSET_FAILURE or ALL_STEPS."""
        params = {"parentRunId": run_id, "strategy": strategy}
        return self._launched(self._ask(_REEXECUTE, params=params)["launchRunReexecution"])

    def terminate(self, run_id: str) -> None:
        """As the UI's button does; it returns before the run has ended."""
        answer = self._ask(_TERMINATE, run=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def wait(self, run_id: str) -> dg.DagsterRunStatus:
        """How the run ended."""
        deadline = time.monotonic() + RUN_SECONDS
        while (run := self.instance.get_run_by_id(run_id)) is None or not run.is_finished:
            assert time.monotonic() < deadline, f"run {run_id} goes on: {run and run.status}\n{self._log()}"
            time.sleep(POLL_SECONDS)
        return run.status

    def events(self, run_id: str) -> list[dg.EventLogEntry]:
        """Those of Dagster itself, oldest first."""
        return [record for record in self.instance.all_logs(run_id) if record.dagster_event is not None]

    def _launched(self, answer: Mapping[str, Any]) -> str:
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def _ask(self, query: str, **variables: Any) -> Any:
        asked = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self._port}/graphql", asked, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=RUN_SECONDS) as response:
            answer = json.loads(response.read())
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def _wait_for_code(self) -> None:
        query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError"
        query += " { __typename ... on PythonError { message } } } } } }"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self._log()
            with contextlib.suppress(OSError):
                entries = self._ask(query)["workspaceOrError"].get("locationEntries", [])
                if any(entry["loadStatus"] == "LOADED" for entry in entries):
                    assert [e["locationOrLoadError"]["__typename"] for e in entries] == ["RepositoryLocation"], entries
                    return
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"the code location did not load\n{self._log()}")

    def _log(self) -> str:
        return (self.project.folder / "dagster-dev.log").read_text(errors="replace")

    def _stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Its children are of its own session, and whoever of them is left has nothing more to do.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.instance.dispose()
