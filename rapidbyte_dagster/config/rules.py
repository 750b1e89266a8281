"""Rules between keys: what needs what, what excludes what, what must be unique.

They read the plain values and not the models, so that they are told beside a wrong type elsewhere in the file. A
value of the wrong type is the models' to report; here it counts as not given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config.dead_letter_limits import limit_that_never_warns
from rapidbyte_dagster.config.document import Document
from rapidbyte_dagster.config.problems import Key, Problem, did_you_mean
from rapidbyte_dagster.config.replication import DEFAULT_GROUP
from rapidbyte_dagster.config.values import size_in_bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """One mapping of the file, whatever it really is, with the way to it."""

    values: Mapping[str, Any]
    key: Key
    document: Document

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        value = self.values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def names(self, name: str) -> list[str] | None:
        value = self.values.get(name)
        if not isinstance(value, list):
            return None
        return [each for each in value if isinstance(each, str)]

    def section(self, name: str) -> Keys:
        return keys_of(self.values.get(name), (*self.key, name), self.document)

    def sections(self, name: str) -> list[Keys]:
        value = self.values.get(name)
        entries = value if isinstance(value, list) else []
        return [keys_of(entry, (*self.key, name, index), self.document) for index, entry in enumerate(entries)]

    def problem(self, name: str, message: str) -> Problem:
        return self.document.problem((*self.key, name), message, of_key=self.has(name))


def keys_of(value: Any, key: Key, document: Document) -> Keys:
    return Keys(value if isinstance(value, Mapping) else {}, key, document)


def rule_problems(values: Mapping[str, Any], document: Document) -> list[Problem]:
    """Every broken rule of the file whose plain values are `values`."""
    root = keys_of(values, (), document)
    streams = root.section("source").sections("streams")
    destination = root.section("destination")
    problems: list[Problem] = []
    transforms = root.sections("transforms")
    for stream in streams:
        problems += _read_rules(stream, destination)
        problems += _chain_rules(stream, transforms)
        problems += _column_rules(stream, destination)
        problems += _limit_rules(stream, destination)
        problems += _retry_rules(stream)
    problems += _shared_step_rules(streams)
    problems += _unique(streams, "stream", lambda stream: ("name", stream.text("name")))
    problems += _unique(streams, "destination table", _destination_table)
    problems += _unique(streams, "asset key", _asset_key)
    problems += _destination_rules(destination)
    problems += _state_rules(root.section("state"))
    problems += _resource_rules(root.section("resources"))
    problems += _retry_rules(root)
    problems += _transform_rules(transforms, streams)
    return problems


def _read_rules(stream: Keys, destination: Keys) -> Iterator[Problem]:
    sync_mode = stream.text("sync_mode") or "full_refresh"
    write_mode = stream.text("write_mode") or destination.text("write_mode")
    if sync_mode == "incremental":
        if not stream.has("cursor_field"):
            yield stream.problem("cursor_field", "required for sync_mode: incremental, but missing")
        elif stream.text("cursor_field") == stream.text("tie_breaker_field") is not None:
            yield stream.problem("tie_breaker_field", "must be another column than cursor_field")
        if stream.has("cursor_lag") and write_mode not in (None, "upsert"):
            yield stream.problem("cursor_lag", f"needs write_mode: upsert (it is {write_mode}): it reads rows again")
    else:
        for name in ("cursor_field", "tie_breaker_field", "cursor_lag"):
            if stream.has(name):
                yield stream.problem(name, f"only for sync_mode: incremental, and it is {sync_mode}")
    if sync_mode == "incremental":
        for name in ("shards", "partition_key"):
            if stream.has(name):
                yield stream.problem(name, f"only for sync_mode: full_refresh or cdc, and it is {sync_mode}")
    elif stream.has("partition_key") and stream.number("shards") == 1:
        yield stream.problem("partition_key", "divides nothing where shards is 1: leave out one of the two")
    on_data_error = destination.text("on_data_error")
    if on_data_error in ("skip", "dlq") and (stream.number("shards") or 1) > 1:
        yield stream.problem("shards", f"more than one needs on_data_error: fail, and it is {on_data_error}")
    if sync_mode in ("incremental", "cdc") and write_mode == "replace":
        name = "write_mode" if stream.has("write_mode") else "sync_mode"
        yield stream.problem(name, f"write_mode: replace keeps only what one run reads; {sync_mode} reads changes")
    if sync_mode != "cdc" and stream.has("replication_slot"):
        yield stream.problem("replication_slot", f"only for sync_mode: cdc, and it is {sync_mode}")
    if stream.text("replication_slot") == DEFAULT_GROUP:
        told = f"{DEFAULT_GROUP!r} is what the step of the pipeline's own slot is called: name the slot otherwise"
        yield stream.problem("replication_slot", told)
    if stream.has("deletes") and (sync_mode != "cdc" or write_mode not in (None, "upsert")):
        told = f"only for sync_mode: cdc with write_mode: upsert; they are {sync_mode} and {write_mode}"
        yield stream.problem("deletes", told)
    if sync_mode != "cdc" and stream.has("truncate"):
        yield stream.problem("truncate", f"only for sync_mode: cdc, and it is {sync_mode}")


def _chain_rules(stream: Keys, transforms: list[Keys]) -> Iterator[Problem]:
    if transforms_of(stream, transforms) and (stream.number("shards") or 1) > 1:
        yield stream.problem(
            "shards", "more than one is for streams without transforms: their rows go through in order"
        )


def transforms_of(stream: Keys, transforms: list[Keys]) -> list[Keys]:
    """Those that the stream's rows go through."""
    name = stream.text("name")
    return [each for each in transforms if not each.has("streams") or name in (each.names("streams") or ())]


def _column_rules(stream: Keys, destination: Keys) -> Iterator[Problem]:
    columns = stream.names("columns")
    if not columns:
        return
    for name in ("cursor_field", "tie_breaker_field"):
        column = stream.text(name)
        if column is not None and column not in columns:
            yield stream.problem(name, f"column {column!r} is not in `columns`{did_you_mean(column, columns)}")
    owner = stream if stream.has("primary_key") else destination
    missing = [column for column in owner.names("primary_key") or () if column not in columns]
    if missing:
        told = ", ".join(map(repr, missing)) + did_you_mean(missing[0], columns)
        if owner is stream:
            yield stream.problem("primary_key", f"not in `columns`: {told}")
        else:
            yield stream.problem("columns", f"must hold the destination's primary_key; missing: {told}")


def _destination_table(stream: Keys) -> tuple[str, str | None]:
    return ("table", stream.text("table")) if stream.has("table") else ("name", stream.text("name"))


def _asset_key(stream: Keys) -> tuple[str, str | None]:
    key = stream.section("dagster").values.get("key")
    if isinstance(key, list) and all(isinstance(part, str) for part in key):
        key = "/".join(key)
    return "dagster", key if isinstance(key, str) else None


def _unique(streams: list[Keys], what: str, named: Any) -> Iterator[Problem]:
    first: dict[str, Keys] = {}
    for stream in streams:
        name, value = named(stream)
        if value is None:
            continue
        if value in first:
            line = stream.document.line(first[value].key)
            yield stream.problem(name, f"the {what} {value!r} is already taken by the stream in line {line}")
        first.setdefault(value, stream)


def _destination_rules(destination: Keys) -> Iterator[Problem]:
    on_data_error = destination.text("on_data_error") or "fail"
    if destination.has("dlq_table") and on_data_error != "dlq":
        yield destination.problem("dlq_table", f"only for on_data_error: dlq, and it is {on_data_error}")
    yield from _limit_rules(destination, destination)


def _limit_rules(owner: Keys, destination: Keys) -> Iterator[Problem]:
    """Of `dead_letters` of a stream, or of the destination itself, whose keys a stream's come before."""
    if not owner.has("dead_letters"):
        return
    if (destination.text("on_data_error") or "fail") == "fail":
        yield owner.problem("dead_letters", "only for on_data_error: skip or dlq; where it is fail no row is left out")
        return
    own = owner.section("dead_letters")
    found = limit_that_never_warns([own.values, destination.section("dead_letters").values])
    if found is not None and (own.has("warn_above") or own.has("fail_above")):
        warn_above, fail_above = found
        told = f"warn_above ({warn_above}) must not lie beyond fail_above ({fail_above}), or it never warns"
        yield own.problem("warn_above" if own.has("warn_above") else "fail_above", told)


def _state_rules(state: Keys) -> Iterator[Problem]:
    backend = state.text("backend") or "sqlite"
    if backend == "postgres" and not state.has("connection"):
        yield state.problem("connection", "required for backend: postgres, but missing")
    for name, owner in (("path", "sqlite"), ("connection", "postgres")):
        if state.has(name) and backend != owner:
            yield state.problem(name, f"only for backend: {owner}, and it is {backend}")


def _resource_rules(resources: Keys) -> Iterator[Problem]:
    batch = size_in_bytes(resources.values.get("max_batch_bytes"))
    memory = size_in_bytes(resources.values.get("max_memory"))
    if batch is not None and memory is not None and batch > memory:
        yield resources.problem("max_batch_bytes", "must not exceed max_memory, in which a batch is built")


_STEP_OPTIONS = ("retry_policy", "op_tags", "pool")


def _shared_step_rules(streams: list[Keys]) -> Iterator[Problem]:
    """Streams that share a replication slot share a step, and none of them says alone how that runs."""
    captured = [stream for stream in streams if stream.text("sync_mode") == "cdc"]
    slots = [stream.text("replication_slot") for stream in captured]
    for stream, slot in zip(captured, slots, strict=True):
        if slots.count(slot) > 1:
            options = stream.section("dagster")
            for name in _STEP_OPTIONS:
                if options.has(name):
                    told = "not for a stream that shares its replication slot: their step is one. Say it in the file's"
                    yield options.problem(name, f"{told} top-level `dagster`, or give the stream a replication_slot")


def _retry_rules(owner: Keys) -> Iterator[Problem]:
    """Of `dagster.retry_policy` of a stream, or of the pipeline."""
    policy = owner.section("dagster").section("retry_policy")
    if policy.number("max_retries") == 0:
        for name in ("delay", "backoff", "jitter"):
            if policy.has(name):
                yield policy.problem(name, "there is nothing to wait for where max_retries is 0")
    elif not policy.has("delay"):
        for name in ("backoff", "jitter"):
            if policy.has(name):
                yield policy.problem(name, "changes `delay`, which is missing")


def _transform_rules(transforms: list[Keys], streams: list[Keys]) -> Iterator[Problem]:
    known = [name for stream in streams if (name := stream.text("name")) is not None]
    for transform in transforms:
        for index, name in enumerate(transform.names("streams") or ()):
            if name not in known:
                told = f"there is no stream {name!r}; allowed: {', '.join(known)}{did_you_mean(name, known)}"
                yield transform.document.problem((*transform.key, "streams", index), told)
