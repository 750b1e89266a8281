"""A connector's own config against its manifest: at load what is known then, everything when a stream runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import ConfigError, Kind
from tests.unit.config.pipeline_files import ENVIRON, VALID, changed, load_text, only_problem, problems_in


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("database: shop", "database: ''", "10: source.config.database: found ''; allowed: a text that is not empty"),
        (
            "database: shop",
            "database: 5",
            "10: source.config.database: found the number 5; allowed: a text (put it in quotes)",
        ),
        ("user: etl", "user:", "8: source.config.user: found nothing (null); allowed: a text"),
        ("${PGPORT:-5432}", "70000", "7: source.config.port: found the number 70000; allowed: at most 65535"),
        ("${PGPORT:-5432}", "0", "7: source.config.port: found the number 0; allowed: at least 1"),
        ("${PGPORT:-5432}", "'5432'", "7: source.config.port: found '5432'; allowed: a whole number"),
        (
            "user: etl",
            "user: etl\n    sslmode: requir",
            "9: source.config.sslmode: found 'requir'; allowed: disable, prefer",
        ),
        (
            "user: etl",
            "user: etl\n    sslmode: off",
            "9: source.config.sslmode: found the truth value false; allowed: a text",
        ),
        ("${PGPORT:-5432}", ".nan", "7: source.config.port: found the number nan; allowed: a whole number"),
        ("user: etl", "user: etl\n    sslcert: c.pem", "5: source.config.sslkey: required because sslcert is given"),
        ("schema: raw", "load_method: insert", "21: destination.config.load_method: found 'insert'; allowed: copy"),
        (
            "config: {host: dw, user: etl, database: dw, schema: raw}",
            "config: 5",
            "21: destination.config: found a number",
        ),
    ],
)
def test_what_is_known_at_load_is_checked_at_load(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert only_problem(tmp_path, changed((old, new))).startswith(f"shop.yaml:{told}")


def test_a_near_miss_of_a_connectors_value_is_told(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("user: etl", "user: etl\n    sslmode: verify_full")))
    assert problem.endswith("did you mean 'verify-full'?")


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("${SHOP_PASSWORD}", "123454321")))
    assert problem == "shop.yaml:9: source.config.password: found a number; allowed: a text (put it in quotes)"


def test_what_depends_on_the_environment_waits(tmp_path: Path) -> None:
    text = changed(("${PGPORT:-5432}", "${PGPORT}"), ("user: etl", "user: etl\n    sslmode: ${MODE}"))
    config = load_text(tmp_path, text).source.config
    values = config.resolve({**ENVIRON, "PGPORT": "6432", "MODE": "require"}).values
    assert (values["port"], values["sslmode"]) == (6432, "require")


def test_what_the_environment_brought_is_checked_and_not_shown(tmp_path: Path) -> None:
    text = changed(("${PGPORT:-5432}", "${PGPORT}"), ("user: etl", "user: etl\n    sslmode: ${MODE}"))
    config = load_text(tmp_path, text).source.config
    with pytest.raises(ConfigError) as caught:
        config.resolve({**ENVIRON, "PGPORT": "many-ports", "MODE": "requires"})
    assert [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        "shop.yaml:7: source.config.port: found a text; allowed: a whole number",
        "shop.yaml:9: source.config.sslmode: found a value that is not shown here; allowed: "
        "disable, prefer, require, verify-ca, verify-full",
    ]
    with pytest.raises(ConfigError, match="at most 65535") as caught:
        config.resolve({**ENVIRON, "PGPORT": "99999", "MODE": "require"})
    assert "99999" not in str(caught.value)


def test_a_resolved_config_is_complete_with_the_connectors_defaults(tmp_path: Path) -> None:
    values = load_text(tmp_path, VALID).source.config.resolve(ENVIRON).values
    assert values == {
        "host": "db.internal",
        "port": 5432,
        "user": "etl",
        "password": "s3cret-word",
        "database": "shop",
        "schema": "public",
        "sslmode": "prefer",
    }


def test_static_values_can_be_read_and_others_cannot(tmp_path: Path) -> None:
    text = changed(("host: dw, user: etl", "host: dw, user: 'a$${b', password: literal-secret"))
    pipeline = load_text(tmp_path, text)
    source, destination = pipeline.source.config, pipeline.destination.config
    assert destination.get_static("schema") == "raw"
    assert source.get_static("schema") == "public", "the connector's default"
    assert source.get_static("database") == "shop"
    assert destination.get_static("user") == "a${b"
    assert source.get_static("host") is None
    assert source.get_static("no_such_key") is None
    assert destination.get_static("password") is None


def test_literal_secrets_are_collected_for_redaction(tmp_path: Path) -> None:
    text = changed(("${SHOP_PASSWORD}", "literal-secret"))
    assert "literal-secret" in load_text(tmp_path, text).source.config.resolve(ENVIRON).secrets


def test_resolved_configs_show_no_value(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, VALID)
    for shown in (repr(pipeline.source.config.resolve(ENVIRON)), repr(pipeline.resolve(ENVIRON))):
        assert "s3cret-word" not in shown
        assert "db.internal" not in shown


def test_a_fingerprint_follows_the_config_and_not_its_secrets(tmp_path: Path) -> None:
    def fingerprint(*replacements: tuple[str, str]) -> str:
        return load_text(tmp_path, changed(*replacements)).source.config.fingerprint()

    assert fingerprint() == fingerprint(("${SHOP_PASSWORD}", "another"))
    assert fingerprint() != fingerprint(("database: shop", "database: other"))


def test_an_unknown_connector_lists_what_there_is(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("use: postgres", "use: postgress")))
    assert problem == (
        "shop.yaml:4: source.use: there is no connector 'postgress'; "
        "allowed: source-postgres, or a path to a .wasm; did you mean 'postgres'?"
    )


def test_a_connector_of_the_other_role_is_refused(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("use: dest-postgres", "use: source-postgres")))
    assert problem == (
        "shop.yaml:20: destination.use: 'source-postgres' is a source connector, "
        "and a destination connector is needed here"
    )


def test_connectors_that_are_not_built_are_told_with_the_way_out(tmp_path: Path, connectors: Path) -> None:
    for manifest in connectors.iterdir():
        manifest.unlink()
    problems = problems_in(tmp_path, VALID)
    assert [problem.split(": ")[1] for problem in problems] == ["source.use", "destination.use"]
    assert all(
        "not built" in problem and "run `make connectors` or `pip install -e .`" in problem for problem in problems
    )


def test_the_kind_of_a_config_error_is_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, changed(("user: etl", "user: 5")))
    assert caught.value.kind is Kind.CONFIG
