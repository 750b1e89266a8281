"""What a sandbox allows: patterns, the intersection of two lists, the hosts and files that a config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config.capabilities import Limits, Network, Permissions
from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.runtime import Sandbox, sandbox_for

MEGABYTE = 1024 * 1024

CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "host": {"type": "string", "x-rapidbyte": "host", "default": "localhost"},
        "replicas": {"type": "array", "items": {"type": "string"}, "x-rapidbyte": "host"},
        "proxy": {"type": "object", "properties": {"host": {"type": "string", "x-rapidbyte": "host"}}},
        "sslrootcert": {"type": "string", "x-rapidbyte": "file"},
        "sslkey": {"type": "string", "x-rapidbyte": "file"},
        "user": {"type": "string"},
    },
}


def manifest(**overrides: Any) -> Manifest:
    content = {
        "name": "a-source",
        "version": "1",
        "role": "source",
        "protocol": 1,
        "config_schema": CONFIG_SCHEMA,
        "permissions": {"network": {"allowed_hosts": ["*"]}},
        "sha256": "0" * 64,
    }
    return Manifest.model_validate(content | overrides)


def made(
    config: dict[str, Any] | None = None,
    *,
    hosts: tuple[str, ...] | None = None,
    granted: list[str] | None = None,
    limits: Limits | None = None,
    **overrides: Any,
) -> Sandbox:
    if granted is not None:
        overrides["permissions"] = {"network": {"allowed_hosts": granted}}
    permissions = Permissions() if hosts is None else Permissions(network=Network(allowed_hosts=hosts))
    return sandbox_for(manifest(**overrides), config or {}, permissions, limits or Limits(), 256 * MEGABYTE, "source")


def allows(*patterns: str) -> Sandbox:
    return Sandbox(allowed_hosts=patterns, readable_files=frozenset(), max_memory=0, timeout_seconds=None)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("db.internal", "db.internal"),
        ("db.internal", "DB.Internal"),
        ("db.internal", "db.internal."),
        ("*.aws.internal", "db.aws.internal"),
        ("*.aws.internal", "a.b.c.aws.internal"),
        ("*.AWS.internal", "db.aws.INTERNAL."),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("[::1]", "::1"),
        ("*", "anything.at.all"),
        ("*", "10.0.0.1"),
        ("*", "/var/run/postgresql/.s.PGSQL.5432"),
        ("/var/run/postgresql", "/var/run/postgresql/.s.PGSQL.5432"),
        ("/var/run/postgresql/", "/var/run/postgresql/.s.PGSQL.5432"),
        ("/var/run/postgresql/.s.PGSQL.5432", "/var/run/postgresql/.s.PGSQL.5432"),
    ],
)
def test_a_pattern_allows(pattern: str, host: str) -> None:
    assert allows("unrelated", pattern).allows_host(host)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("*.aws.internal", "aws.internal"),
        ("*.aws.internal", "evilaws.internal"),
        ("*.aws.internal", "aws.internal.evil"),
        ("*.0.0.1", "127.0.0.1"),
        ("*.1", "10.0.0.1"),
        ("*.1", "127.1"),
        ("*.1", "0x7f.0.1"),
        ("*.0x1", "127.0.0.0x1"),
        ("*.1", "127.0.0.1."),
        ("/run/postgresql", "/run/link/../postgresql/.s.PGSQL.5432"),
        ("/run/postgresql/.s.PGSQL.5432", "/run/postgresql/link/../.s.PGSQL.5432"),
        ("db.internal", "xdb.internal"),
        ("db.internal", "db.internal.evil"),
        ("127.0.0.1", "localhost"),
        ("localhost", "127.0.0.1"),
        ("*.x", "/tmp/a.x"),
        ("/var/run/postgresql", "/var/run/postgresql-evil/.s.PGSQL.5432"),
        ("/var/run/postgresql", "/var/run/postgresql/../evil/.s.PGSQL.5432"),
        ("/var/run/postgresql", "/var/run/postgresql/deeper/.s.PGSQL.5432"),
        ("/var/run/postgresql/.s.PGSQL.5432", "/var/run/postgresql/.s.PGSQL.5433"),
        ("/", "/var/run/postgresql/.s.PGSQL.5432"),
        ("db.*", "db.internal"),
        ("", ""),
    ],
)
def test_a_pattern_does_not_allow(pattern: str, host: str) -> None:
    assert not allows(pattern).allows_host(host) or host == ""


def test_an_empty_list_allows_nothing() -> None:
    assert not allows().allows_host("localhost")
    assert made({"host": "db"}, hosts=()).allowed_hosts == ()


def test_without_a_list_exactly_the_hosts_of_the_config_are_allowed() -> None:
    config = {"host": "db.internal", "user": "evil.example", "replicas": ["r1", "r2"], "proxy": {"host": "p"}}
    assert made(config).allowed_hosts == ("db.internal", "r1", "r2", "p")


def test_a_default_host_counts_as_named() -> None:
    assert made({}).allowed_hosts == ("localhost",)


def test_a_host_of_the_config_is_never_a_pattern() -> None:
    assert made({"host": "*"}).allowed_hosts == ()
    assert made({"host": "*.com"}).allowed_hosts == ()


def test_a_manifest_without_a_list_grants_the_hosts_of_the_config() -> None:
    sandbox = made({"host": "db"}, hosts=("*",), permissions={})
    assert sandbox.allowed_hosts == ("db",)


@pytest.mark.parametrize(
    ("wanted", "granted", "both"),
    [
        (("*",), ["*"], ("*",)),
        (("*",), ["a", "*.b"], ("a", "*.b")),
        (("a", "b"), ["b", "c"], ("b",)),
        (("a.x", "x"), ["*.x"], ("a.x",)),
        (("*.x",), ["a.x", "b.y"], ("a.x",)),
        (("*.a.x",), ["*.x"], ("*.a.x",)),
        (("*.x",), ["*.a.x"], ("*.a.x",)),
        (("*.x",), ["*.x"], ("*.x",)),
        (("*.ax",), ["*.x"], ()),
        (("*.x",), ["*.y"], ()),
        (("a",), [], ()),
        (("/run/pg",), ["/run/pg/s"], ("/run/pg/s",)),
        (("/run/pg/s",), ["/run/pg"], ("/run/pg/s",)),
        (("/run/pg",), ["*.x", "localhost"], ()),
    ],
)
def test_both_lists_must_allow_a_host(wanted: tuple[str, ...], granted: list[str], both: tuple[str, ...]) -> None:
    assert made(hosts=wanted, granted=granted).allowed_hosts == both


def test_the_hosts_of_the_config_need_the_manifests_leave_too() -> None:
    assert made({"host": "db"}, granted=["other"]).allowed_hosts == ()


def test_only_files_that_the_config_names_are_readable() -> None:
    files = made({"sslrootcert": "certs/root.pem", "sslkey": "", "user": "/etc/passwd"}).readable_files
    assert files == {"certs/root.pem"}


def test_the_lower_limit_counts() -> None:
    sandbox = made(limits=Limits(max_memory=64 * MEGABYTE, timeout_seconds=60))
    assert (sandbox.max_memory, sandbox.timeout_seconds) == (64 * MEGABYTE, 60.0)
    assert sandbox.memory_set_by == ("`source.limits.max_memory`",)
    assert sandbox.timeout_set_by == ("`source.limits.timeout_seconds`",)


def test_where_several_keys_set_a_limit_all_of_them_are_told() -> None:
    sandbox = made(limits=Limits(max_memory=256 * MEGABYTE))
    assert sandbox.memory_set_by == ("`resources.max_memory`", "`source.limits.max_memory`")


def test_the_manifests_limits_cannot_be_raised() -> None:
    overrides = {"limits": {"max_memory": 32 * MEGABYTE, "timeout_seconds": 10}}
    permissions = Permissions()
    limits = Limits(max_memory=64 * MEGABYTE, timeout_seconds=60)
    sandbox = sandbox_for(manifest(**overrides), {}, permissions, limits, 256 * MEGABYTE, "source")
    assert (sandbox.max_memory, sandbox.timeout_seconds) == (32 * MEGABYTE, 10.0)
    assert sandbox.memory_set_by == ("`limits.max_memory` of its manifest",)
    assert sandbox.timeout_set_by == ("`limits.timeout_seconds` of its manifest",)


def test_without_limits_the_resources_section_decides_and_time_is_unlimited() -> None:
    sandbox = made()
    assert (sandbox.max_memory, sandbox.timeout_seconds) == (256 * MEGABYTE, None)


def test_a_schema_without_properties_names_nothing() -> None:
    assert made({"host": "db"}, config_schema={"type": "object"}).allowed_hosts == ()


def test_paths_are_compared_as_the_config_spells_them() -> None:
    assert str(Path("/certs/../certs/root.pem")) in made({"sslrootcert": "/certs/../certs/root.pem"}).readable_files
