"""The kinds of single values a pipeline file holds: names, sizes, durations, host patterns, asset keys.

Each is an annotated type whose validator either returns the value in the form the program uses or refuses it by
saying what would be allowed; `messages.py` adds what was found and where.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from rapidbyte_dagster.config.cron import CronError, parse_cron
from rapidbyte_dagster.config.substitution import has_reference

POSTGRES_NAME_BYTES = 63
"""NAMEDATALEN - 1: what PostgreSQL would silently cut a longer identifier to."""
PIPELINE_NAME_CHARACTERS = 40
"""Leaves room for prefixes such as `rapidbyte_` in slots, jobs and lock names, which are cut at 63 bytes."""
DAGSTER_TAG_CHARACTERS = 63
DAGSTER_KINDS = 10
KILOBYTE = 1024
MEMORY_FLOOR_BYTES = 1024 * KILOBYTE
"""Less linear memory than this cannot hold a connector's stack and buffers."""
MEMORY_CEILING_BYTES = 4 * 1024 * 1024 * KILOBYTE
"""wasm32 addresses no more than 4 GiB."""

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

NOT_ALLOWED = "not_allowed"
"""The type of every error these validators raise; its context holds `allowed` and, for a closed set, `choices`."""


def refuse(allowed: str, *, choices: Iterable[str] = ()) -> NoReturn:
    raise PydanticCustomError(NOT_ALLOWED, "allowed: {allowed}", {"allowed": allowed, "choices": list(choices)})


def choice(kind: type[E]) -> BeforeValidator:
    """One of an enum's values, given as text."""
    choices = [str(member.value) for member in kind]

    def validate(value: object) -> object:
        if isinstance(value, kind):
            return value
        if isinstance(value, str) and value in choices:
            return kind(value)
        # YAML reads a bare null as nothing.
        quotes = " (a text, so in quotes)" if value is None and "null" in choices else ""
        refuse(", ".join(choices) + quotes, choices=choices)

    return BeforeValidator(validate)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        refuse(f"each entry once; repeated: {', '.join(repeated)}")
    return values


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        refuse("at least one entry; leave the key out for the default")
    return values


AS_TUPLE = BeforeValidator(_as_tuple)
DISTINCT = AfterValidator(_distinct)
LISTED_ONCE = Field(json_schema_extra={"minItems": 1, "uniqueItems": True})
NOT_EMPTY = AfterValidator(_not_empty)


def _full_match(pattern: str, allowed: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def validate(value: str) -> str:
        if compiled.fullmatch(value) is None:
            refuse(allowed)
        return value

    return AfterValidator(validate)


# -- names -------------------------------------------------------------------------------------------------------


def _postgres_name(value: str) -> str:
    if not value:
        refuse("a name of 1 to 63 bytes")
    if "\0" in value:
        refuse("a name without the NUL character, which PostgreSQL cannot hold")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        refuse("a name that UTF-8 can encode")
    if size > POSTGRES_NAME_BYTES:
        refuse(f"at most {POSTGRES_NAME_BYTES} bytes of UTF-8 (this one has {size}), or PostgreSQL would cut it")
    return value


_IDENTIFIER_SCHEMA = {"type": "string", "minLength": 1, "maxLength": POSTGRES_NAME_BYTES}
_PIPELINE_NAME = r"[a-z][a-z0-9_]*"

PipelineName = Annotated[
    str,
    _full_match(
        rf"(?=.{{1,{PIPELINE_NAME_CHARACTERS}}}\Z){_PIPELINE_NAME}",
        f"a lower-case letter, then lower-case letters, digits and _; at most {PIPELINE_NAME_CHARACTERS} characters",
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_PIPELINE_NAME}$", "maxLength": PIPELINE_NAME_CHARACTERS}),
]
Identifier = Annotated[str, AfterValidator(_postgres_name), WithJsonSchema(_IDENTIFIER_SCHEMA)]
"""A table, schema or column as PostgreSQL spells it: quoted by the connectors, so any case and any character."""
ColumnNames = Annotated[tuple[Identifier, ...], AS_TUPLE, NOT_EMPTY, DISTINCT, LISTED_ONCE]
SlotName = Annotated[
    str,
    _full_match(r"[a-z0-9_]{1,63}", "lower-case letters, digits and _; at most 63 (a replication slot's name)"),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9_]{1,63}$"}),
]
_LETTER_TABLE = r"(?!sqlite_|pg_)[a-z_][a-z0-9_]{0,49}"
LetterTable = Annotated[
    str,
    _full_match(
        _LETTER_TABLE,
        "lower-case letters, digits and _, not a digit first; at most 50 characters (a table of the state store)",
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_LETTER_TABLE}$"}),
]
"""A table whose name both kinds of state store take as it is, and which leaves room for its indexes' names."""


def _destination_table(value: str) -> str:
    if value.startswith(RESERVED_TABLE_PREFIX):
        refuse(f"a table that does not start with {RESERVED_TABLE_PREFIX}: those are Rapidbyte's own")
    return value


RESERVED_TABLE_PREFIX = "_rapidbyte_"
DestinationTable = Annotated[Identifier, AfterValidator(_destination_table)]


def _not_blank(value: str) -> str:
    if not value.strip():
        refuse("a text that is not empty")
    if "\0" in value:
        refuse("a text without the NUL character")
    return value


Text = Annotated[str, AfterValidator(_not_blank), WithJsonSchema({"type": "string", "minLength": 1})]


def _cron(value: str) -> str:
    try:
        parse_cron(value)
    except CronError as error:
        refuse(f'a cron expression of five fields such as "0 * * * *", or @hourly, @daily, …: {error}')
    return value


CronSchedule = Annotated[Text, AfterValidator(_cron)]


# -- quantities --------------------------------------------------------------------------------------------------

_SIZE = re.compile(r"([0-9]{1,18})\s*(b|kb|mb|gb)?", re.IGNORECASE)
_SIZE_UNITS = {"b": 1, "kb": KILOBYTE, "mb": KILOBYTE**2, "gb": KILOBYTE**3}
_SIZE_ALLOWED = "a size such as 64mb (kb, mb, gb are binary), or a number of bytes"
_DURATION = re.compile(r"([0-9]{1,9})\s*([smh])")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600}


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            refuse(_SIZE_ALLOWED)
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        refuse(_SIZE_ALLOWED)
    return int(match[1]) * _SIZE_UNITS[(match[2] or "b").lower()]


def size_in_bytes(value: object) -> int | None:
    """Bytes of a size as the file writes it; None when it is none."""
    try:
        return _size(value)
    except PydanticCustomError:
        return None


def _within(floor: int, ceiling: int, allowed: str) -> AfterValidator:
    def validate(value: int) -> int:
        if not floor <= value <= ceiling:
            refuse(allowed)
        return value

    return AfterValidator(validate)


def _duration(value: object) -> int:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        refuse("a duration such as 30s, 5m or 2h")
    return int(match[1]) * _DURATION_UNITS[match[2]]


SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*[0-9]+\s*([kKmMgG]?[bB])?\s*$"}]
}
_LARGEST_SIZE = 2**53
"""JSON numbers beyond this lose digits, and connectors are told their sizes in JSON."""

Size = Annotated[int, BeforeValidator(_size), _within(0, _LARGEST_SIZE, _SIZE_ALLOWED), WithJsonSchema(SIZE_SCHEMA)]
"""Bytes; `64mb` in the file is 67108864 here."""
PositiveSize = Annotated[
    int, BeforeValidator(_size), _within(1, _LARGEST_SIZE, f"{_SIZE_ALLOWED}; at least 1"), WithJsonSchema(SIZE_SCHEMA)
]
MemorySize = Annotated[
    int,
    BeforeValidator(_size),
    _within(MEMORY_FLOOR_BYTES, MEMORY_CEILING_BYTES, "a size from 1mb to 4gb, which is all that wasm32 can address"),
    WithJsonSchema(SIZE_SCHEMA),
]
Duration = Annotated[
    int, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+\s*[smh]\s*$"})
]
"""Seconds; `5m` in the file is 300 here."""


def _auto_or_up_to(limit: int) -> BeforeValidator:
    def validate(value: object) -> object:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit):
            return value
        refuse(f"auto, or a whole number from 1 to {limit}", choices=["auto"])

    return BeforeValidator(validate)


def _auto_or_up_to_schema(limit: int) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": limit}]})


PARALLELISM_LIMIT = 256
"""Each stream at once costs two database sessions and two instances' memory; more than this is a typing error."""
Parallelism = Annotated[
    int | Literal["auto"], _auto_or_up_to(PARALLELISM_LIMIT), _auto_or_up_to_schema(PARALLELISM_LIMIT)
]
SHARD_LIMIT = 64
"""The same for the parts of one stream."""
Shards = Annotated[int | Literal["auto"], _auto_or_up_to(SHARD_LIMIT), _auto_or_up_to_schema(SHARD_LIMIT)]

# -- hosts -------------------------------------------------------------------------------------------------------

_HOST_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_PATTERN = re.compile(rf"(\*\.)?{_HOST_LABEL}(\.{_HOST_LABEL})*\.?")
_HOST_ALLOWED = (
    "a host name, an IP address, the directory of a unix socket, *.domain (any depth below domain), or * (any host); "
    "no port, no scheme"
)


def host_pattern(value: str) -> str:
    """`value` if it is a pattern that the sandbox understands; a pattern that still holds `${…}` waits."""
    if has_reference(value) or value == "*" or is_host_pattern(value):
        return value
    refuse(_HOST_ALLOWED)


def is_host_pattern(value: str) -> bool:
    if value.startswith("/"):
        return "\0" not in value
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return len(value) <= 255 and _HOST_PATTERN.fullmatch(value) is not None
    return True


HostPattern = Annotated[str, AfterValidator(host_pattern), WithJsonSchema({"type": "string", "minLength": 1})]


def _not_null(value: object) -> object:
    # A list whose entries were all commented out reads as null. Taking that for "not given" would widen the access.
    if value is None:
        refuse("a list of hosts; [] allows none; leave the key out to allow those that the config names")
    return value


AllowedHosts = Annotated[
    Annotated[tuple[HostPattern, ...], AS_TUPLE] | None,
    BeforeValidator(_not_null),
    WithJsonSchema({"type": "array", "items": {"type": "string", "minLength": 1}}),
]

# -- Dagster -----------------------------------------------------------------------------------------------------

_TAG_PART = rf"[A-Za-z0-9_.-]{{1,{DAGSTER_TAG_CHARACTERS}}}"


def _split_asset_key(value: object) -> object:
    return tuple(value.split("/")) if isinstance(value, str) else _as_tuple(value)


_AssetKeyPart = Annotated[
    str,
    _full_match(r"[A-Za-z0-9_.-]+", "parts of letters, digits, _, . and -: a list, or one text with / between them"),
]
AssetKeyParts = Annotated[
    tuple[_AssetKeyPart, ...],
    BeforeValidator(_split_asset_key),
    NOT_EMPTY,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^[A-Za-z0-9_.-]+$"}},
            ]
        }
    ),
]
GroupName = Annotated[
    str,
    _full_match(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*", "letters, digits and _, with / between the levels of nested groups"),
]
Owner = Annotated[
    str,
    _full_match(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+", "an e-mail address, or team:NAME"),
]
Owners = Annotated[tuple[Owner, ...], AS_TUPLE, DISTINCT]
TagKey = Annotated[
    str,
    _full_match(
        rf"({_TAG_PART}/)?{_TAG_PART}",
        f"tag names of at most {DAGSTER_TAG_CHARACTERS} letters, digits, _, . and -, with one / at most",
    ),
]
TagValue = Annotated[
    str,
    _full_match(
        rf"[A-Za-z0-9_.-]{{0,{DAGSTER_TAG_CHARACTERS}}}",
        f"tag values of at most {DAGSTER_TAG_CHARACTERS} letters, digits, _, . and -",
    ),
]
PoolName = Annotated[
    str,
    _full_match(r"\S+", "a pool's name, without spaces"),
    WithJsonSchema({"type": "string", "pattern": r"^\S+$"}),
]
_Kind = Annotated[str, _full_match(_TAG_PART, f"at most {DAGSTER_TAG_CHARACTERS} letters, digits, _, . and -")]


def _at_most_ten(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(values) > DAGSTER_KINDS:
        refuse(f"at most {DAGSTER_KINDS} kinds, which is Dagster's limit")
    return values


Kinds = Annotated[
    tuple[_Kind, ...],
    AS_TUPLE,
    DISTINCT,
    AfterValidator(_at_most_ten),
    Field(json_schema_extra={"maxItems": DAGSTER_KINDS}),
]
