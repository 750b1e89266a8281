"""What the verbs answer, read: a guest is not trusted to answer in the shapes that the ABI has.

Written after `docs/connector-abi.md`; keys that it does not have are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.state import Watermark


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Opened(_Answer):
    server: str = ""


class LeftShards(_Answer):
    """What an interrupted run has left at the destination."""

    note: Any
    """The source's, of what they are."""
    loaded: tuple[NonNegativeInt, ...]
    """The numbers of those that are there, and how many rows they have."""
    rows: NonNegativeInt


class OpenedDestination(Opened):
    watermark: Watermark | None = None
    staged: LeftShards | None = None


class OpenedGroup(Opened):
    """`rb_open` of a destination that is to apply the changes of several streams."""

    watermarks: dict[str, Watermark | None]


class Snapshot(_Answer):
    """`rb_snapshot`: a state of the database that others can read in."""

    id: str
    lsn: str
    """Everything that committed before is in it, and nothing else."""
    origin: str | None = None
    """Of the table that is read in it, as `rb_slot` told."""
    taken_at: str | None = None
    """When, as the source's database prints it."""
    system: str | None = None
    """Of which database system, in the connector's own words."""


class Captured(_Answer):
    """`rb_capture`."""

    transactions: NonNegativeInt
    bytes: NonNegativeInt
    lsn: str


class OpenedTransform(_Answer):
    whole_run: bool = False
    """What it says of a row depends on all rows of the run."""


class Divided(_Answer):
    """`rb_split`: no shards where the stream is to be read in one piece."""

    shards: tuple[Any, ...]
    reason: str | None = None
    note: Any = None
    """What the source needs to go on with some of these shards in a later run; None where it cannot."""
    resumes: bool = False
    """Whether they are the shards of the note that it was given, some of which are loaded."""
    since: Any = None
    """What has to be known of these to bring them up to date; None where they are."""
    complete: bool = False
    """Whether all rows that they have are as they were: those that came since are others."""


class Staged(_Answer):
    """`rb_stage`: where shards load their rows, in the connector's own words."""

    into: Any
    loaded: tuple[NonNegativeInt, ...] = ()
    """The shards that an interrupted run has left there, by number, and how many rows they have together."""
    rows: NonNegativeInt = 0


class WrittenColumn(_Answer):
    name: str
    type: str
    nullable: bool


class Written(_Answer):
    """`rb_write`: the table as it is after the last commit."""

    schema_: str = Field(alias="schema")
    table: str
    columns: tuple[WrittenColumn, ...]
    primary_key: tuple[str, ...] | None = None


class AppliedStream(Written):
    inserted: NonNegativeInt = 0
    updated: NonNegativeInt = 0
    deleted: NonNegativeInt = 0
    truncated: NonNegativeInt = 0


class Applied(_Answer):
    """`rb_apply`: the tables as they are after the last commit, and how many rows of each were changed how."""

    streams: dict[str, AppliedStream]


class CheckFinding(_Answer):
    level: Literal["ok", "warning", "error"]
    check: str
    message: str
    stream: str | None = None
    hint: str | None = None


class Checked(_Answer):
    findings: tuple[CheckFinding, ...]


class Compared(_Answer):
    """`rb_compare`."""

    exists: bool = True
    """Whether there is a table to compare with."""


class FoundColumn(_Answer):
    name: str
    type: str
    arrow_type: str
    nullable: bool


class FoundTable(_Answer):
    schema_: str = Field(alias="schema")
    name: str
    kind: str
    rows_estimate: NonNegativeInt | None = None
    bytes: NonNegativeInt | None = None
    primary_key: tuple[str, ...] | None = None
    columns: tuple[FoundColumn, ...]


class Discovered(_Answer):
    tables: tuple[FoundTable, ...]


class SlotRefusal(_Answer):
    """Why a stream cannot be captured."""

    kind: Kind
    message: str
    hint: str | None = None
    sqlstate: str | None = None

    def as_error(self, stream: str) -> RapidbyteError:
        return error_from(
            ErrorInfo(
                kind=self.kind,
                message=self.message,
                stage=Stage.SOURCE,
                stream=stream,
                hint=self.hint,
                sqlstate=self.sqlstate,
            )
        )


class SlotSetUp(_Answer):
    """`rb_slot` with action `setup`."""

    created_slot: bool
    created_publication: bool
    added_tables: tuple[str, ...]
    position: str | None
    wal_position: str
    origins: dict[str, str] = Field(default_factory=dict)
    unpublished: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: dict[str, SlotRefusal] = Field(default_factory=dict)


class FoundSlot(_Answer):
    exists: bool
    plugin: str | None = None
    active: bool = False
    active_pid: int | None = None
    active_application: str | None = None
    restart_lsn: str | None = None
    confirmed_flush_lsn: str | None = None
    wal_status: str | None = None
    safe_wal_size: int | None = None
    invalidation_reason: str | None = None


class FoundPublication(_Answer):
    exists: bool
    ours: bool
    tables: tuple[str, ...]
    missing: tuple[str, ...] = ()


class SlotFound(_Answer):
    """`rb_slot` with action `status`."""

    slot: FoundSlot
    publication: FoundPublication
    server: str | None = None
    wal_position: str
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    change_counter: str
    fault: str | None = None


class SlotTornDown(_Answer):
    """`rb_slot` with action `teardown`."""

    dropped_slot: bool
    dropped_publication: bool


class Digested(_Answer):
    """`rb_digest`: a table's rows, and a hash of what is in `columns` of them."""

    rows: NonNegativeInt
    hash: str
    columns: tuple[str, ...]


A = TypeVar("A", bound=_Answer)


def read_answer(shape: type[A], answer: Mapping[str, Any], *, verb: str, stage: Stage) -> A:
    """`answer` of `verb` as a `shape`. Raises an error of kind `connector` that shows none of its values."""
    try:
        return shape.model_validate(dict(answer))
    except ValidationError as invalid:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in invalid.errors(include_input=False)
        )
    raise error_from(
        ErrorInfo(
            kind=Kind.CONNECTOR,
            stage=stage,
            message=f"the {stage} connector broke the ABI: its answer to {verb} is not as it should be",
            detail=faults,
            hint="this is a bug of the connector: report it with its name and version",
        )
    )
