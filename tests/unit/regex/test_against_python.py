"""The connectors' engine against Python's, on random patterns and on all letters."""

from __future__ import annotations

import os
import re
import unicodedata
from random import Random

import pytest

from tests.unit.regex.driver import Driver, Refused
from tests.unit.regex.random_patterns import CASED, LETTERS, random_pattern, random_text

TEXTS = 30


@pytest.mark.parametrize(("letters", "classes"), [(LETTERS, True), (CASED, False)], ids=["classes", "case"])
@pytest.mark.parametrize("patterns", [100, pytest.param(2_000, marks=pytest.mark.full)])
def test_a_random_pattern_is_found_where_python_finds_it(
    driver: Driver, letters: str, classes: bool, patterns: int
) -> None:
    seed = int(os.environ.get("RAPIDBYTE_TEST_SEED", "0")) or Random().randrange(1 << 32)
    random = Random(seed)
    flags = re.ASCII if classes else re.UNICODE
    asked = []
    for _ in range(patterns):
        pattern = random_pattern(random, letters, classes=classes)
        ignores_case = not classes and random.random() < 0.5
        if ignores_case:
            pattern = pattern.wrapped("(?i)", "")
        texts = [random_text(random, letters) for _ in range(TEXTS)]
        expected = re.compile(pattern.expected, flags)
        # Python before 3.14 has no place that is no boundary in an empty text.
        asked.append((pattern, [text for text in texts if text or r"\B" not in pattern.asked], expected))
    found = driver.search([(pattern.asked, texts) for pattern, texts, _ in asked])
    matched = 0
    for (pattern, texts, expected), answer in zip(asked, found, strict=True):
        assert not isinstance(answer, Refused), f"seed {seed}: {pattern.asked!r}: {answer}"
        for text, is_found in zip(texts, answer, strict=True):
            assert is_found == bool(expected.search(text)), f"seed {seed}: {pattern.asked!r} in {text!r}"
            matched += is_found
    assert 0 < matched < len(asked) * TEXTS


def test_letters_are_the_same_where_unicode_folds_them_to_one(driver: Driver) -> None:
    # In a version of Unicode that both know: letters without a name in the interpreter's are left out.
    letters = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cs", "Cn", "Co")]
    orbits: dict[str, set[str]] = {}
    for letter in letters:
        for other in (letter.casefold(), letter.lower()):
            if len(other) == 1 and other != letter:
                joined = orbits.get(letter, {letter}) | orbits.get(other, {other})
                for member in joined:
                    orbits[member] = joined
    cased = [letter for letter in letters if letter in orbits and unicodedata.ucd_3_2_0.category(letter) != "Cn"]
    assert len(cased) > 1500
    for letter, answer in zip(
        cased,
        driver.search([(f"(?i)^{letter}$", [*sorted(orbits[letter]), "1", "ı", "İ"]) for letter in cased]),
        strict=True,
    ):
        assert answer == [True] * len(orbits[letter]) + [False] * 3, f"U+{ord(letter):04X}"


@pytest.mark.parametrize(
    ("pattern", "position", "message"),
    [
        (r"é(a)\1", 5, "back-references"),
        ("a(?=b)", 2, "look-ahead"),
        ("a{1001}", 2, "more than 1000"),
        ("[b-a]", 2, "descend"),
    ],
)
def test_what_is_refused_is_told_with_its_place(driver: Driver, pattern: str, position: int, message: str) -> None:
    (answer,) = driver.search([(pattern, ["a"])])
    assert isinstance(answer, Refused)
    assert answer.position == position
    assert message in answer.message


def test_a_pattern_that_explodes_elsewhere_takes_the_time_of_its_text(driver: Driver) -> None:
    text = "a" * 1_000_000
    assert driver.search([("^(a+)+$", [f"{text}b", text]), ("(a|a)*(a|aa)*b", [text])]) == [[False, True], [False]]
