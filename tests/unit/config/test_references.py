"""`${NAME}` in values: left alone at load, replaced once at run, secret ever after."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.config.substitution import expand, has_reference, malformed_reference, references
from rapidbyte_dagster.errors import ConfigError
from tests.unit.config.pipeline_files import ENVIRON, VALID, changed, load_text, only_problem, problems_in

NASTY = [
    "p: q",
    "p #q",
    "'single'",
    '"double"',
    "${X}",
    "$${X}",
    "${SHOP_HOST}",
    "back\\slash\\n",
    "line\nbreak",
    "{a: b}",
    "[1, 2]",
    "&anchor",
    "*alias",
    "!tag",
    "%percent",
    "@at",
    "`tick`",
    "ümläut €",
    " spaces ",
    "null",
    "123456",
    "}",
    "$",
]


@pytest.mark.parametrize("secret", NASTY)
def test_a_secret_arrives_verbatim(tmp_path: Path, secret: str) -> None:
    config = load_text(tmp_path, VALID).source.config
    resolved = config.resolve({**ENVIRON, "SHOP_PASSWORD": secret, "X": "expanded twice"})
    assert resolved.values["password"] == secret
    assert secret in resolved.secrets


@pytest.mark.parametrize("secret", NASTY)
def test_a_literal_secret_arrives_verbatim_when_yaml_and_dollar_are_escaped(tmp_path: Path, secret: str) -> None:
    written = yaml.safe_dump(secret.replace("${", "$${"), allow_unicode=True, width=10_000, default_style='"').strip()
    config = load_text(tmp_path, changed(("${SHOP_PASSWORD}", written))).source.config
    # `$${X}` itself would be written `$$${X}`: a dollar, then a literal reference.
    assert config.resolve(ENVIRON).values["password"] == secret


@pytest.mark.parametrize(
    ("text", "environ", "expanded"),
    [
        ("${A}", {"A": "1"}, "1"),
        ("${A}${B}", {"A": "1", "B": "2"}, "12"),
        ("x-${A}-y", {"A": "1"}, "x-1-y"),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-}", {}, ""),
        ("${A:-a: b #c}", {}, "a: b #c"),
        ("${A:-http://x:1}", {}, "http://x:1"),
        ("${A}", {"A": ""}, ""),
        ("${A}", {"A": "${B}", "B": "no"}, "${B}"),
        ("${A:-$B}", {"B": "no"}, "$B"),
        ("$${A}", {"A": "1"}, "${A}"),
        ("$$${A}", {"A": "1"}, "$${A}"),
        ("$A $ $$ {A}", {"A": "1"}, "$A $ $$ {A}"),
        ("${_a1}", {"_a1": "1"}, "1"),
    ],
)
def test_references_expand_once(text: str, environ: dict[str, str], expanded: str) -> None:
    assert malformed_reference(text) is None
    assert expand(text, environ) == expanded


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-b}", "${A", "${A:b}", "${ A }", "x${A.B}", "${A:-"])
def test_a_malformed_reference_is_told_at_load(tmp_path: Path, text: str) -> None:
    assert has_reference(text)
    assert not list(references(text))
    problem = only_problem(tmp_path, changed(("${SHOP_PASSWORD}", f"'{text}'")))
    assert problem == (
        "shop.yaml:9: source.config.password: found a malformed reference; "
        "allowed: ${NAME}, ${NAME:-default}, or $${ for a literal ${"
    )


def test_missing_names_are_told_all_at_once_with_their_keys(tmp_path: Path) -> None:
    text = changed(
        ("host: dw", "host: '${DW_HOST}.${DW_ZONE}'"),
        ("  streams:\n", "  permissions: {network: {allowed_hosts: ['${SHOP_HOST}', '${OTHER}']}}\n  streams:\n"),
        ("      columns", "      filter: day > '${SINCE}'\n      columns"),
        after="state: {path: '${STATE_DIR}/s.db'}\n",
    )
    pipeline = load_text(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        pipeline.resolve({})
    expected = [
        ("shop.yaml:6: source.config.host", "SHOP_HOST"),
        ("shop.yaml:9: source.config.password", "SHOP_PASSWORD"),
        ("shop.yaml:11: source.permissions.network.allowed_hosts[0]", "SHOP_HOST"),
        ("shop.yaml:11: source.permissions.network.allowed_hosts[1]", "OTHER"),
        ("shop.yaml:14: source.streams[0].filter", "SINCE"),
        ("shop.yaml:23: destination.config.host", "DW_HOST"),
        ("shop.yaml:23: destination.config.host", "DW_ZONE"),
        ("shop.yaml:25: state.path", "STATE_DIR"),
    ]
    assert [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        f"{where}: environment variable {name} is not set: set it, or write ${{{name}:-default}}"
        for where, name in expected
    ]
    with pytest.raises(ConfigError, match="SHOP_PASSWORD"):
        pipeline.source.config.resolve({"SHOP_HOST": "x"})
    with pytest.raises(ConfigError, match=r"state\.path: environment variable STATE_DIR"):
        pipeline.state.resolve_path({})


def test_everything_that_a_run_needs_is_resolved(tmp_path: Path) -> None:
    text = changed(
        ("  streams:\n", "  permissions: {network: {allowed_hosts: ['*.${ZONE}', db]}}\n  streams:\n"),
        ("      columns", "      filter: day > '${SINCE}' and x = '$${'\n      columns"),
        after="state: {path: '${STATE_DIR:-/var/lib}/s.db'}\n",
    )
    pipeline = load_text(tmp_path, text)
    environ = {**ENVIRON, "ZONE": "aws.internal", "SINCE": "2024-01-31"}
    resolved = pipeline.resolve(environ)
    assert resolved.source.values["host"] == "db.internal"
    assert resolved.destination.values["host"] == "dw"
    assert resolved.source_permissions.network.allowed_hosts == ("*.aws.internal", "db")
    assert resolved.destination_permissions.network.allowed_hosts is None
    assert resolved.filters == {"users": "day > '2024-01-31' and x = '${'", "orders": None}
    assert pipeline.state.resolve_path(environ) == "/var/lib/s.db"
    assert set(resolved.secrets) == {"db.internal", "s3cret-word", "aws.internal", "2024-01-31"}


def test_one_stream_does_not_wait_for_anothers_variables(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, changed(("      columns", "      filter: day > '${SINCE}'\n      columns")))
    assert pipeline.resolve(ENVIRON, stream=pipeline.stream("orders")).filters == {"orders": None}
    with pytest.raises(ConfigError, match="SINCE"):
        pipeline.resolve(ENVIRON, stream=pipeline.stream("users"))


def test_a_host_that_expands_to_no_host_is_refused_and_not_shown(tmp_path: Path) -> None:
    text = changed(("  streams:\n", "  permissions: {network: {allowed_hosts: ['${HOSTS}']}}\n  streams:\n"))
    with pytest.raises(ConfigError, match="allowed_hosts") as caught:
        load_text(tmp_path, text).resolve({**ENVIRON, "HOSTS": "one,two"})
    assert "one,two" not in str(caught.value)


def test_defaults_are_no_secrets_and_words_of_the_schema_neither(tmp_path: Path) -> None:
    text = changed(("user: etl", "user: ${SHOP_USER:-reader}\n    sslmode: ${SSLMODE}"))
    resolved = load_text(tmp_path, text).source.config.resolve({**ENVIRON, "SSLMODE": "require"})
    assert resolved.values["user"] == "reader"
    assert set(resolved.secrets) == {"db.internal", "s3cret-word"}


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("pipeline: shop", "pipeline: ${NAME}", 2, "pipeline"),
        ("use: postgres", "use: ${CONNECTOR}", 4, "source.use"),
        ("name: users", "name: ${TABLE}", 12, "source.streams[0].name"),
        ("[id, email]", "['${COLUMN}']", 13, "source.streams[0].columns[0]"),
        ("table: sold", "table: sold_${ENV}", 16, "source.streams[1].table"),
        ("write_mode: append", "write_mode: ${MODE}", 22, "destination.write_mode"),
    ],
)
def test_what_must_be_known_at_load_cannot_hold_a_reference(
    tmp_path: Path, old: str, new: str, line: int, key: str
) -> None:
    problem = only_problem(tmp_path, changed((old, new)))
    assert problem.startswith(f"shop.yaml:{line}: {key}: must be known when the file loads")


def test_an_escaped_reference_is_a_literal_everywhere(tmp_path: Path) -> None:
    assert load_text(tmp_path, changed(("table: sold", "table: 'a$${b'"))).stream("orders").table == "a${b"


def test_a_secret_never_shows_in_an_error(tmp_path: Path) -> None:
    text = changed(("user: etl", "user: etl\n    nonsense: ${SHOP_PASSWORD}"), ("${SHOP_PASSWORD}", "hunter2-hunter2"))
    assert "hunter2" not in "".join(problems_in(tmp_path, text))


def test_a_redacted_text_names_the_variable_whose_value_it_hides(tmp_path: Path) -> None:
    resolved = load_text(tmp_path, VALID).resolve(ENVIRON)
    told = Redactor(resolved.secrets).redact("db.internal refused etl with s3cret-word")
    assert told == "${SHOP_HOST} refused etl with ${SHOP_PASSWORD}"
