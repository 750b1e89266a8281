"""A connector that breaks the stream's protocol, as the error that stops the run."""

from __future__ import annotations

from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from


def violation(stage: Stage, what: str) -> RapidbyteError:
    """`what` reads on from "the source connector …"."""
    return error_from(
        ErrorInfo(
            kind=Kind.PROTOCOL,
            stage=stage,
            message=f"the {stage} connector {what}",
            hint="this is a bug of the connector: report it with its name and version",
        )
    )
