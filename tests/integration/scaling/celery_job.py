"""A project's job under Dagster's Celery executor: `python -m … PIPELINES [RUN]` executes it, or what RUN left undone.

The broker and the results are in PostgreSQL, named by the environment: `BROKER` and `RESULTS`. Run in the project's own
process because Celery is not meant to be used by two executions of one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_celery import celery_executor

from rapidbyte_dagster import build_definitions

REPOSITORY = Path(__file__).resolve().parents[3]

RUN_CONFIG: dict[str, Any] = {
    "execution": {
        "config": {
            "broker": {"env": "BROKER"},
            "backend": {"env": "RESULTS"},
            # Seconds that a worker waits for the result of a process that is gone; ten unless told otherwise.
            "config_source": {"worker_lost_wait": 1},
        }
    }
}
"""For the workers too."""


def job_of(pipelines: str) -> dg.JobDefinition:
    """For `dagster.build_reconstructable_job`: the workers call it again."""
    return build_definitions(pipelines, executor=celery_executor).resolve_job_def("shop_job")


def main(pipelines: str, parent: str | None = None) -> int:
    job = dg.build_reconstructable_job(
        "tests.integration.scaling.celery_job",
        "job_of",
        reconstructable_kwargs={"pipelines": pipelines},
        reconstructor_working_directory=str(REPOSITORY),
    )
    with dg.DagsterInstance.get() as instance:
        again = dg.ReexecutionOptions.from_failure(parent, instance) if parent is not None else None
        # With `raise_on_error` a failure would be told as a traceback of Celery's.
        with dg.execute_job(job, instance, RUN_CONFIG, reexecution_options=again) as result:
            return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
