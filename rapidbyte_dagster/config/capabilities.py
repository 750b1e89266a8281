"""What a connector may use: the hosts it may reach, its memory, its time. Pipelines and manifests share the shape."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rapidbyte_dagster.config.values import AllowedHosts, MemorySize

_TIMEOUT_LIMIT_SECONDS = 30 * 24 * 3600
"""A month: nothing that runs longer than this is one run."""


class Section(BaseModel):
    """A mapping of a file: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Network(Section):
    allowed_hosts: AllowedHosts = Field(
        None, description="Hosts the connector may reach. Left out: those its own config names. []: none at all."
    )


class Permissions(Section):
    network: Network = Network()


class Limits(Section):
    """A limit that is None is the other side's: of the pipeline's and the manifest's, the lower one counts."""

    max_memory: MemorySize | None = Field(None, description="Bytes of linear memory, such as 512mb.")
    timeout_seconds: Annotated[int, Field(ge=1, le=_TIMEOUT_LIMIT_SECONDS)] | None = Field(
        None, description="Seconds that one stream's run of this connector may take."
    )
