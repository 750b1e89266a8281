"""The job that drives a pipeline's dead letters through their destination once more."""

# No postponed annotations here: Dagster reads those of an op's function, and takes no text for a type.

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.binding import AssetPart, binding_of
from rapidbyte_dagster.assets.dead_letter_check import DEAD_LETTER_CHECK, dead_letter_look_result
from rapidbyte_dagster.assets.dead_letter_figures import last_figures
from rapidbyte_dagster.assets.dead_letter_metadata import dead_letter_metadata
from rapidbyte_dagster.assets.dead_letters import DeadLetters
from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG, StepOptions
from rapidbyte_dagster.assets.run_log import RunLog
from rapidbyte_dagster.assets.termination import interruptible, interruption
from rapidbyte_dagster.config import OnDataError, Pipeline, Stream, SyncMode, WriteMode
from rapidbyte_dagster.errors import RapidbyteError, UsageError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import CancelToken, ReplayResult
    from rapidbyte_dagster.state import LetterChoice, StateStore

_LOG_SECONDS = 5.0

Keys = Mapping[str, Mapping[AssetPart, dg.AssetKey]]
"""The assets of each stream, by its name."""

_CONFIG: Mapping[str, dg.Field] = {
    "streams": dg.Field([str], default_value=[], description="Only these streams; none stands for all."),
    "run_id": dg.Field(
        dg.Noneable(str), default_value=None, is_required=False, description="Only what this run set aside."
    ),
    "categories": dg.Field([str], default_value=[], description="Only dead letters of these categories."),
    "ids": dg.Field([int], default_value=[], description="Only the dead letters of these numbers."),
}
"""All have defaults: a run without any config replays whatever waits."""


def replay_job_name(pipeline: Pipeline) -> str:
    return f"{pipeline.name}_replay_dead_letters"


def replay_jobs(
    pipelines: Iterable[Pipeline], assets: Mapping[str, Sequence[dg.AssetsDefinition]], given: StepOptions
) -> list[Any]:
    """One for each pipeline that sets rows aside; its step runs as those of the pipeline's streams do."""
    return [
        replay_job(pipeline, assets[pipeline.name], given)
        for pipeline in pipelines
        if pipeline.destination.on_data_error is OnDataError.DLQ
        and any(not _is_mirrored(pipeline, stream) for stream in pipeline.streams)
    ]


def replay_job(pipeline: Pipeline, assets: Sequence[dg.AssetsDefinition], given: StepOptions) -> dg.JobDefinition:
    """Of `pipeline`, whose `assets` are told of what has changed."""
    keys: dict[str, dict[AssetPart, dg.AssetKey]] = {}
    for spec in (spec for definition in assets for spec in definition.specs):
        binding = binding_of(spec.metadata, spec.key)
        keys.setdefault(binding.stream.name, {})[binding.part] = spec.key

    def body(context: dg.OpExecutionContext) -> None:
        _Step(context, pipeline, keys).run()

    arguments = given.op_arguments(pipeline, pipeline.dagster)
    op = dg.op(
        name=f"{replay_job_name(pipeline)}_op",
        description=f"Writes dead letters of pipeline `{pipeline.name}` to their tables.",
        config_schema=dict(_CONFIG),
        out=dg.Out(dg.Nothing),
        pool=arguments.pool,
        tags=arguments.tags,
        retry_policy=arguments.retry_policy,
    )(body)
    return dg.GraphDefinition(name=replay_job_name(pipeline), node_defs=[op]).to_job(
        description=f"Writes rows that pipeline `{pipeline.name}` has set aside to their tables, once what was wrong is"
        " mended. Those that fail again are kept with their new reason; replaying twice does nothing.",
        tags={PIPELINE_TAG: pipeline.name},
    )


class _Step:
    def __init__(self, context: dg.OpExecutionContext, pipeline: Pipeline, keys: Keys) -> None:
        self._context = context
        self._pipeline = pipeline
        self._keys = keys
        self._log = RunLog(context.log, _LOG_SECONDS)

    def run(self) -> None:
        """One stream that fails does not stop the others. Raises `dagster.Failure` with the first one's message."""
        failure: dg.Failure | None = None
        with interruptible(self._context) as cancel:
            try:
                for error in self._replay(cancel):
                    if failure is None:
                        failure = failure_from(error)
                    else:
                        self._context.log.error(str(error))
            except RapidbyteError as error:
                failure = failure or failure_from(error)
        if cancel.cancelled:
            raise interruption(self._context)
        # Raised out here it has no chain of causes: Dagster would print them all.
        if failure is not None:
            raise failure

    def _replay(self, cancel: "CancelToken") -> Iterator[RapidbyteError]:
        """The errors of those streams whose replay failed."""
        # Imported when a step runs: loading definitions must not pay for the WASM runtime.
        from rapidbyte_dagster.engine import divide_choice, replay_dead_letters
        from rapidbyte_dagster.state import open_state

        config = self._context.op_config
        streams = self._streams(config["streams"])
        choice = _choice(config)
        with open_state(self._pipeline, os.environ) as state:
            for stream, own in divide_choice(self._pipeline, streams, state, choice):
                try:
                    result = replay_dead_letters(
                        self._pipeline,
                        stream,
                        state=state,
                        run_id=self._context.run_id,
                        choice=own,
                        on_log=self._log.say,
                        cancel=cancel,
                    )
                except RapidbyteError as error:
                    yield error
                else:
                    self._tell(stream, result, state)
                finally:
                    self._log.flush()

    def _streams(self, names: Sequence[str]) -> list[Stream]:
        known = [stream.name for stream in self._pipeline.streams]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                f"pipeline {self._pipeline.name!r} has no stream {unknown[0]!r}", hint=f"it has: {', '.join(known)}"
            )
        if names:
            return [stream for stream in self._pipeline.streams if stream.name in names]
        # Of a mirror nothing is replayed: who names one is told so by the engine.
        return [stream for stream in self._pipeline.streams if not _is_mirrored(self._pipeline, stream)]

    def _tell(self, stream: Stream, result: "ReplayResult", state: "StateStore") -> None:
        """In the log, and as materialisations of what has changed."""
        self._context.log.info(
            f"{stream.name}: {result.letters:,} dead letters replayed, {result.rows:,} rows are in the table,"
            f" {result.failed_again:,} failed again; {result.untold:,} left that hold no row,"
            f" {result.settled:,} that wait no longer"
        )
        if not result.letters:
            return
        figures = {
            "replayed_dead_letters": result.letters,
            "rows": result.rows,
            "failed_again": result.failed_again,
            "checkpoint_sequence": result.sequence,
        }
        keys = self._keys[stream.name]
        if result.rows:
            # The table is what its downstream assets wait for; after a replay alone nobody counted all of its rows.
            self._context.log_event(
                dg.AssetMaterialization(keys["table"], description="dead letters replayed", metadata=figures)
            )
        letters = DeadLetters(self._pipeline, stream, self._context.run_id)
        standing = dead_letter_metadata(state, letters, "all")
        self._context.log_event(
            dg.AssetMaterialization(keys["dlq"], description="dead letters replayed", metadata={**figures, **standing})
        )
        # Taken, although the annotation of Dagster's method does not say so.
        self._context.log_event(self._judged(stream, keys["table"], state))  # type: ignore[arg-type]

    def _judged(self, stream: Stream, table: dg.AssetKey, state: "StateStore") -> dg.AssetCheckEvaluation:
        """What the check of the table says now: it may have failed because of what is replayed."""
        found = dead_letter_look_result(
            table,
            self._pipeline.dead_letter_limits(stream),
            last_figures(state, self._pipeline, stream),
            state.dead_letter_counts(self._pipeline.name, stream.name).waiting,
        )
        return dg.AssetCheckEvaluation(
            asset_key=table,
            check_name=DEAD_LETTER_CHECK,
            passed=found.passed,
            severity=found.severity,
            description=found.description,
            metadata=found.metadata,
        )


def _is_mirrored(pipeline: Pipeline, stream: Stream) -> bool:
    """Whether its dead letters are changes of rows, which later ones may have overtaken."""
    return stream.sync_mode is SyncMode.CDC and pipeline.write_mode(stream) is WriteMode.UPSERT


def _choice(config: Mapping[str, Any]) -> "LetterChoice":
    """Raises `UsageError` for a category that there is not."""
    from rapidbyte_dagster.state import LetterCategory, LetterChoice

    allowed = [category.value for category in LetterCategory]
    for name in config["categories"]:
        if name not in allowed:
            raise UsageError(f"categories: found {name!r}; allowed: {', '.join(allowed)}")
    return LetterChoice(
        run_id=config["run_id"],
        categories=tuple(LetterCategory(name) for name in config["categories"]),
        ids=tuple(config["ids"]),
    )
