"""What Dagster is told of an op: its retry policy, its tags, its pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import dagster as dg

from rapidbyte_dagster.assets.names import pool_name
from rapidbyte_dagster.config import OWN_TAG_PREFIX, OpOptions, Pipeline, RetryPolicyOptions
from rapidbyte_dagster.errors import ConfigError

PIPELINE_TAG = f"{OWN_TAG_PREFIX}pipeline"
"""Op and run tag: the pipeline's name."""
STREAM_TAG = f"{OWN_TAG_PREFIX}stream"
"""Op tag: the stream's name."""
SLOT_TAG = f"{OWN_TAG_PREFIX}slot"
"""Op tag of change data capture, and tag of the runs of a slot's job: which slot it is."""


class OpArguments(NamedTuple):
    retry_policy: dg.RetryPolicy | None
    tags: Mapping[str, Any]
    pool: str


@dataclass(frozen=True)
class StepOptions:
    """As Dagster takes them. From a caller they come before what the pipeline file says, tags one by one.

    Raises `ConfigError` for a tag that is not a caller's to set.
    """

    retry_policy: dg.RetryPolicy | None = None
    op_tags: Mapping[str, Any] | None = None
    pool: str | None = None

    def __post_init__(self) -> None:
        for name in self.op_tags or ():
            if name.startswith(OWN_TAG_PREFIX):
                raise ConfigError(
                    f"op_tags: {name!r} is not for others to set",
                    hint=f"by tags that start with {OWN_TAG_PREFIX} the streams of a pipeline that run are counted",
                )

    def op_arguments(self, pipeline: Pipeline, written: OpOptions) -> OpArguments:
        """For an op of `pipeline`, about which the file has `written` this."""
        policy = self.retry_policy or _retry_policy(written.retry_policy)
        return OpArguments(
            # Of a policy without retries Dagster would make a failure of its own.
            retry_policy=policy if policy is not None and policy.max_retries else None,
            tags={**written.op_tags, **(self.op_tags or {}), PIPELINE_TAG: pipeline.name},
            pool=self.pool or written.pool or pool_name(pipeline.name),
        )


def _retry_policy(options: RetryPolicyOptions | None) -> dg.RetryPolicy | None:
    if options is None:
        return None
    return dg.RetryPolicy(
        max_retries=options.max_retries,
        delay=options.delay,
        backoff=dg.Backoff[options.backoff.name] if options.backoff else None,
        jitter=dg.Jitter[options.jitter.name] if options.jitter else None,
    )
