"""How Dagster runs a stream's step: what its op is told beside what it does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from rapidbyte_dagster.config.capabilities import Section
from rapidbyte_dagster.config.values import PoolName, TagKey, choice, refuse

OWN_TAG_PREFIX = "rapidbyte/"
"""Tags of an op by which its pipeline's streams are counted; nobody else may set them."""
POOL_TAG = "dagster/concurrency_key"
"""What Dagster called a pool before there were pools; it wants both to be the same."""
RETRY_LIMIT = 100
DELAY_LIMIT_SECONDS = 24 * 3600


class Backoff(str, Enum):
    __str__ = str.__str__

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Jitter(str, Enum):
    __str__ = str.__str__

    FULL = "full"
    PLUS_MINUS = "plus_minus"


def _delay(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= DELAY_LIMIT_SECONDS:
        refuse(f"a number of seconds above 0, at most {DELAY_LIMIT_SECONDS} (a day); leave it out to retry at once")
    return value


def _op_tag(key: str) -> str:
    if key.startswith(OWN_TAG_PREFIX):
        refuse(f"tags that do not start with {OWN_TAG_PREFIX}: by those the streams of a pipeline are counted")
    if key == POOL_TAG:
        refuse("any other tag: the key `pool` sets the pool")
    return key


def _op_tag_value(value: object) -> object:
    if value is None or not _is_json(value):
        refuse("a text, a finite number, true or false, a list or a mapping of these")
    return value


def _is_json(value: object) -> bool:
    """JSON, in which Dagster keeps the tags of an op, has no infinity."""
    if isinstance(value, float):
        return isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_json(part) for part in parts)


class RetryPolicyOptions(Section):
    """Dagster's own retry policy: it repeats the whole step, after the engine's own retries."""

    max_retries: Annotated[int, Field(ge=0, le=RETRY_LIMIT)] = Field(
        description="How often the step is repeated; 0 switches a default off."
    )
    delay: (
        Annotated[
            float,
            BeforeValidator(_delay),
            WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": DELAY_LIMIT_SECONDS}),
        ]
        | None
    ) = Field(None, description="Seconds before it is. Default: none.")
    backoff: Annotated[Backoff, choice(Backoff)] | None = Field(
        None, description="How the delay grows with each retry: linear (n times) or exponential (2^n - 1 times)."
    )
    jitter: Annotated[Jitter, choice(Jitter)] | None = Field(
        None, description="Random: full (from 0 to the delay), or plus_minus (the delay, more or less the first one)."
    )


OpTag = Annotated[TagKey, AfterValidator(_op_tag)]
OpTagValue = Annotated[
    Any, BeforeValidator(_op_tag_value), WithJsonSchema({"type": ["string", "number", "boolean", "array", "object"]})
]


class OpOptions(Section):
    """What is left out of a stream's is the pipeline's, and Dagster's where that has none either."""

    retry_policy: RetryPolicyOptions | None = Field(
        None, description="Dagster's retries of the step, for errors that may pass. Default: none."
    )
    op_tags: Mapping[OpTag, OpTagValue] = Field(
        default_factory=dict,
        description="Tags of the op, such as dagster-k8s/config: a stream's are added to the pipeline's.",
    )
    pool: PoolName | None = Field(
        None, description="The concurrency pool whose limit the step counts against. Default: rapidbyte_PIPELINE."
    )

    def over(self, default: OpOptions) -> OpOptions:
        """These, and `default` where they say nothing; tags one by one."""
        return OpOptions.model_construct(
            retry_policy=self.retry_policy or default.retry_policy,
            op_tags={**default.op_tags, **self.op_tags},
            pool=self.pool or default.pool,
        )
