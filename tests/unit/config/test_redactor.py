"""Secrets are replaced in every form in which they tend to show up."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidbyte_dagster.config import REDACTED, Redactor
from rapidbyte_dagster.config.secrets import labels


def test_without_secrets_a_text_is_left_alone() -> None:
    assert Redactor(()).redact("as it was") == "as it was"
    assert Redactor({""}).redact("as it was") == "as it was"


def test_every_occurrence_is_replaced() -> None:
    assert Redactor({"hunter2"}).redact("hunter2, xhunter2x") == f"{REDACTED}, x{REDACTED}x"


def test_the_longest_secret_is_replaced_first() -> None:
    assert Redactor(["secret", "secret-word"]).redact("my secret-word") == f"my {REDACTED}"


@pytest.mark.parametrize("secret", ["p@ss w/rd&=", "quote'd\"", "back\\slash", "ümläut", "a.b*c[d]", "line\nbreak"])
def test_quoted_forms_are_replaced_too(secret: str) -> None:
    redactor = Redactor({secret})
    forms = [secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret), repr(secret)]
    for form in [*forms, json.dumps(secret, ensure_ascii=False), secret.replace("'", "''")]:
        redacted = redactor.redact(f"postgresql://u:{form}@h")
        assert REDACTED in redacted
        assert secret not in redacted
        assert form.strip("\"'") not in redacted


def test_a_very_short_secret_is_replaced_only_as_a_whole_token() -> None:
    assert Redactor({"ab"}).redact("ab about 'ab' cab ab.") == f"{REDACTED} about '{REDACTED}' cab {REDACTED}."


def test_the_lines_of_a_long_secret_are_replaced_one_by_one() -> None:
    assert "BBBBBB" not in Redactor({"AAAAAA\nBBBBBB\n"}).redact("line 2 is BBBBBB")


def test_a_redactor_shows_nothing_of_its_secrets() -> None:
    assert "hunter2" not in repr(Redactor({"hunter2"}))


PARTS = st.text(alphabet="0123456789/%' \"\\", max_size=30)
"""None of the characters that stand in for a secret."""


@given(st.lists(PARTS.filter(lambda part: len(part) >= 4), min_size=1, max_size=5), PARTS, PARTS)
def test_no_secret_survives(secrets: list[str], before: str, after: str) -> None:
    redactor = Redactor(secrets)
    for secret in secrets:
        assert secret not in redactor.redact(before + secret + after)


def test_two_variables_of_one_value_are_both_named() -> None:
    shown = labels([("SHOP_HOST", "10.0.0.1"), ("DW_HOST", "10.0.0.1"), ("EMPTY", "")], ["10.0.0.1", "pass-word"])
    assert shown == {"10.0.0.1": "${SHOP_HOST}|${DW_HOST}", "pass-word": REDACTED}
    assert Redactor(shown).redact("no 10.0.0.1, no pass-word") == f"no ${{SHOP_HOST}}|${{DW_HOST}}, no {REDACTED}"
