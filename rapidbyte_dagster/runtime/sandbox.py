"""What one connector instance may reach and use up.

Allowed hosts are exact names, addresses or unix socket paths, `*.x` (any depth below `x`, not `x` itself), or `*`.
A pipeline's list and the manifest's are both upper bounds: the instance gets their intersection.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config.capabilities import Limits, Permissions
from rapidbyte_dagster.config.manifest import Manifest

EVERYTHING = "*"

_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True)
class Sandbox:
    """The capabilities of one instance.

    `allowed_hosts` are patterns as above, `readable_files` the paths that TLS may read, exactly as the config spells
    them, `max_memory` is in bytes of linear memory, `timeout_seconds` the life of the instance (None: no limit).
    """

    allowed_hosts: tuple[str, ...]
    readable_files: frozenset[str]
    max_memory: int
    timeout_seconds: float | None
    section: str = ""
    """Where the pipeline file draws it, for hints: `source`, `transforms[0]`."""
    memory_set_by: tuple[str, ...] = ()
    """The keys that `max_memory` comes from: all that have this value, where several limits meet."""
    timeout_set_by: tuple[str, ...] = ()

    def allows_host(self, host: str) -> bool:
        """Whether `host` (a name, an address, or a unix socket's path) may be connected to."""
        return any(_matches(pattern, host) for pattern in self.allowed_hosts)


def sandbox_for(
    manifest: Manifest,
    config: Mapping[str, Any],
    permissions: Permissions,
    limits: Limits,
    max_memory: int,
    section: str,
) -> Sandbox:
    """The sandbox of an instance of `manifest`'s connector.

    `config` is the connector's resolved config, `permissions` and `limits` are the pipeline's, `max_memory` (bytes) is
    its `resources.max_memory`, `section` the key of all this in the file. Without a list of their own, the pipeline and
    the manifest allow exactly the hosts that the config names; an empty list allows none.
    """
    named = tuple(_annotated(manifest.config_schema, config, "host"))
    wanted, granted = permissions.network.allowed_hosts, manifest.permissions.network.allowed_hosts
    memories = {
        "`resources.max_memory`": max_memory,
        f"`{section}.limits.max_memory`": limits.max_memory,
        "`limits.max_memory` of its manifest": manifest.limits.max_memory,
    }
    timeouts = {
        f"`{section}.limits.timeout_seconds`": limits.timeout_seconds,
        "`limits.timeout_seconds` of its manifest": manifest.limits.timeout_seconds,
    }
    lowest_memory, memory_set_by = _lowest(memories)
    lowest_timeout, timeout_set_by = _lowest(timeouts)
    assert lowest_memory is not None, "resources.max_memory has a default"
    return Sandbox(
        allowed_hosts=_intersection(named if wanted is None else wanted, named if granted is None else granted),
        readable_files=frozenset(_annotated(manifest.config_schema, config, "file")),
        max_memory=lowest_memory,
        timeout_seconds=None if lowest_timeout is None else float(lowest_timeout),
        section=section,
        memory_set_by=memory_set_by,
        timeout_set_by=timeout_set_by,
    )


def _lowest(limits: Mapping[str, int | None]) -> tuple[int | None, tuple[str, ...]]:
    """The limit that counts, and every key that sets it: raising one of several would change nothing."""
    lowest = min((limit for limit in limits.values() if limit is not None), default=None)
    return lowest, tuple(key for key, limit in limits.items() if limit is not None and limit == lowest)


def _annotated(schema: Mapping[str, Any], config: Mapping[str, Any], role: str) -> Iterator[str]:
    """The config's values whose property in `schema` says `"x-rapidbyte": role`, defaults included."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return
    for name, described in properties.items():
        if not isinstance(described, Mapping):
            continue
        value = config.get(name, described.get("default"))
        if described.get("x-rapidbyte") == role:
            values = value if isinstance(value, list | tuple) else [value]
            # A host of that name is one host, whatever characters it has: it is never a pattern.
            yield from (item for item in values if isinstance(item, str) and item and not item.startswith("*"))
        elif isinstance(value, Mapping):
            yield from _annotated(described, value, role)


def _intersection(wanted: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """The patterns that match exactly what both lists match."""
    granted = tuple(granted)
    both = (_narrower(one, other) for one in wanted for other in granted)
    return tuple(dict.fromkeys(pattern for pattern in both if pattern is not None))


def _narrower(one: str, other: str) -> str | None:
    """Two patterns overlap only when one of them lies within the other."""
    if _covers(other, one):
        return one
    if _covers(one, other):
        return other
    return None


def _covers(outer: str, inner: str) -> bool:
    if outer == EVERYTHING:
        return True
    if inner == EVERYTHING:
        return False
    if inner.startswith("*."):
        return outer.startswith("*.") and ("." + _plain(inner[2:])).endswith("." + _plain(outer[2:]))
    return _matches(outer, inner)


def _matches(pattern: str, host: str) -> bool:
    if pattern == EVERYTHING:
        return True
    if pattern.startswith("/") or host.startswith("/"):
        return _socket_matches(pattern, host)
    if pattern.startswith("*."):
        # `*.1` must not allow 127.0.0.1: depth means something in names only.
        return not _is_address(host) and _plain(host).endswith("." + _plain(pattern[2:]))
    return _plain(pattern) == _plain(host)


def _socket_matches(pattern: str, path: str) -> bool:
    """A unix socket is allowed by its path, or by the folder that it lies in: configs name the folder."""
    if not (pattern.startswith("/") and path.startswith("/")) or ".." in path.split("/"):
        # Behind a link `..` leads elsewhere than the text says.
        return False
    pattern, path = posixpath.normpath(pattern), posixpath.normpath(path)
    return pattern in (path, posixpath.dirname(path))


def _plain(host: str) -> str:
    """One spelling per host: lower case, no root dot, no brackets, addresses in their canonical form."""
    plain = host.strip().lower().rstrip(".")
    if plain.startswith("[") and plain.endswith("]"):
        plain = plain[1:-1]
    try:
        return str(ipaddress.ip_address(plain))
    except ValueError:
        return plain


def _is_address(host: str) -> bool:
    """Also in the spellings that only resolvers know: 127.1, 0x7f.1. A name never ends in a number."""
    plain = _plain(host)
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        return _NUMBER.fullmatch(plain.rpartition(".")[2]) is not None
    return True
