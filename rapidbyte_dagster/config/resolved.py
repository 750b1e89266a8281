"""What a pipeline becomes when its `${NAME}` meet the environment, at the start of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rapidbyte_dagster.config.capabilities import Network, Permissions
from rapidbyte_dagster.config.connector_config import ResolvedConfig, missing_variables
from rapidbyte_dagster.config.problems import Key, Origin, Problem, raise_problems
from rapidbyte_dagster.config.secrets import labels
from rapidbyte_dagster.config.state_connection import CONNECTION_KEY, resolved_connection
from rapidbyte_dagster.config.substitution import expand, has_reference, references
from rapidbyte_dagster.config.values import is_host_pattern

if TYPE_CHECKING:
    from rapidbyte_dagster.config.models import Pipeline, Stream


@dataclass(frozen=True, slots=True)
class ResolvedTransform:
    config: ResolvedConfig
    permissions: Permissions


@dataclass(frozen=True, slots=True)
class ResolvedPipeline:
    """The values of one run. `secrets` has every text of it that must not be shown, with what is shown instead."""

    source: ResolvedConfig
    destination: ResolvedConfig
    source_permissions: Permissions
    destination_permissions: Permissions
    transforms: Mapping[int, ResolvedTransform]
    """Those that are needed, by their place in the file."""
    filters: Mapping[str, str | None] = field(repr=False)
    """The SQL predicate by stream name."""
    secrets: Mapping[str, str] = field(repr=False)


def resolve(
    pipeline: Pipeline, origin: Origin, environ: Mapping[str, str], stream: Stream | None = None
) -> ResolvedPipeline:
    """Raises ConfigError: every missing variable at once, or else every value that does not fit."""
    streams = [
        (index, each) for index, each in enumerate(pipeline.streams) if stream is None or each.name == stream.name
    ]
    transforms = {index: transform for _, each in streams for index, transform in pipeline.transforms_of(each)}
    hosts = [
        *_hosts(pipeline.source.permissions, ("source",)),
        *(host for index, each in transforms.items() for host in _hosts(each.permissions, ("transforms", index))),
        *_hosts(pipeline.destination.permissions, ("destination",)),
    ]
    filters: list[tuple[Key, str]] = [
        (("source", "streams", index, "filter"), each.filter) for index, each in streams if each.filter is not None
    ]
    stored = pipeline.state
    state: list[tuple[Key, str]] = [(("state", "path"), stored.path)] if stored.path is not None else []
    if stored.connection is not None:
        state.append((CONNECTION_KEY, stored.connection))
    texts = [*hosts, *filters, *state]
    raise_problems(
        origin.file,
        [
            *pipeline.source.config.missing(environ),
            *(problem for each in transforms.values() for problem in each.config.missing(environ)),
            *pipeline.destination.config.missing(environ),
            *missing_variables(origin, texts, environ),
        ],
    )
    source, source_problems = pipeline.source.config.resolved(environ)
    destination, destination_problems = pipeline.destination.config.resolved(environ)
    resolved_transforms: dict[int, ResolvedTransform] = {}
    transform_problems: list[Problem] = []
    for index, each in transforms.items():
        config, problems = each.config.resolved(environ)
        resolved_transforms[index] = ResolvedTransform(config, _resolved_permissions(each.permissions, environ))
        transform_problems += problems
    hosts_problems = _host_problems(origin, hosts, environ)
    connection, state_problems = None, list[Problem]()
    if stored.connection is not None:
        connection, state_problems = resolved_connection(origin, stored.connection, environ)
    raise_problems(
        origin.file,
        [*source_problems, *transform_problems, *destination_problems, *hosts_problems, *state_problems],
    )
    configs = [source, *(each.config for each in resolved_transforms.values()), destination]
    return ResolvedPipeline(
        source=source,
        destination=destination,
        source_permissions=_resolved_permissions(pipeline.source.permissions, environ),
        destination_permissions=_resolved_permissions(pipeline.destination.permissions, environ),
        transforms=resolved_transforms,
        filters={each.name: None if each.filter is None else expand(each.filter, environ) for _, each in streams},
        secrets=labels(
            [*(variable for config in configs for variable in config.variables), *_variables(texts, environ)],
            frozenset().union(
                *(config.literals for config in configs), connection.passwords if connection else frozenset()
            ),
        ),
    )


def _hosts(permissions: Permissions, section: Key) -> list[tuple[Key, str]]:
    return [
        ((*section, "permissions", "network", "allowed_hosts", index), host)
        for index, host in enumerate(permissions.network.allowed_hosts or ())
    ]


def _resolved_permissions(permissions: Permissions, environ: Mapping[str, str]) -> Permissions:
    hosts = permissions.network.allowed_hosts
    if hosts is None:
        return permissions
    return Permissions(network=Network(allowed_hosts=tuple(expand(host, environ) for host in hosts)))


def _host_problems(origin: Origin, hosts: list[tuple[Key, str]], environ: Mapping[str, str]) -> list[Problem]:
    return [
        origin.problem(key, f"{host} expands to no host name, address, socket directory or *.domain")
        for key, host in hosts
        if not (is_host_pattern(expand(host, environ)) or expand(host, environ) == "*")
    ]


def _variables(texts: list[tuple[Key, str]], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (reference.name, environ[reference.name])
        for _, text in texts
        if has_reference(text)
        for reference in references(text)
        if reference.is_from(environ)
    ]
