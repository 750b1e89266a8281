"""Random patterns in the syntax of the connectors and, meaning the same, in Python's; and texts that may match them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

LETTERS = "aabbcAB1_ -.\né€😀"
# Letters of more than one case, and one case of more than one letter.
CASED = "aAkKsSéÉσςΣßẞ\u017f\u212aж"


@dataclass(frozen=True)
class Pattern:
    """`asked` is for the connectors' engine, `expected` for Python's."""

    asked: str
    expected: str

    @classmethod
    def same(cls, text: str) -> Pattern:
        return cls(text, text)

    def wrapped(self, before: str, behind: str) -> Pattern:
        return Pattern(before + self.asked + behind, before + self.expected + behind)


def random_pattern(random: Random, letters: str, *, classes: bool) -> Pattern:
    """Without `classes` there is no `\\d`, `\\b` and the like: in Python they are of ASCII only where case is too."""
    return _alternatives(random, letters, classes, depth=0)


def random_text(random: Random, letters: str) -> str:
    return "".join(random.choice(letters) for _ in range(random.choice((0, 1, 2, 3, 4, 5, 7))))


def _joined(parts: list[Pattern], between: str) -> Pattern:
    return Pattern(between.join(part.asked for part in parts), between.join(part.expected for part in parts))


def _alternatives(random: Random, letters: str, classes: bool, depth: int) -> Pattern:
    count = random.choice((1, 1, 1, 2, 3))
    return _joined([_sequence(random, letters, classes, depth) for _ in range(count)], "|")


def _sequence(random: Random, letters: str, classes: bool, depth: int) -> Pattern:
    return _joined([_item(random, letters, classes, depth) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4)))], "")


def _item(random: Random, letters: str, classes: bool, depth: int) -> Pattern:
    choice = random.random()
    if choice < 0.15:
        return _assertion(random, classes)
    atom = _group(random, letters, classes, depth) if choice < 0.4 and depth < 2 else _atom(random, letters, classes)
    if random.random() < 0.5:
        return atom
    count = random.choice(("*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}", "{0}"))
    return atom.wrapped("", count + random.choice(("", "", "?")))


def _assertion(random: Random, classes: bool) -> Pattern:
    assertions = [Pattern("^", "^"), Pattern("$", r"\Z"), Pattern(r"\A", r"\A"), Pattern(r"\z", r"\Z")]
    assertions += [Pattern("(?m:^)", "(?m:^)"), Pattern("(?m:$)", "(?m:$)")]
    if classes:
        assertions += [Pattern.same(r"\b"), Pattern.same(r"\b"), Pattern.same(r"\B")]
    return random.choice(assertions)


def _group(random: Random, letters: str, classes: bool, depth: int) -> Pattern:
    inner = _alternatives(random, letters, classes, depth + 1)
    if random.random() < 0.1:
        return Pattern(f"(?<name>{inner.asked})", f"(?:{inner.expected})")
    return inner.wrapped(random.choice(("(", "(?:", "(?:", "(?s:", "(?i:" if classes is False else "(")), ")")


def _atom(random: Random, letters: str, classes: bool) -> Pattern:
    choice = random.random()
    if choice < 0.5:
        return Pattern.same(_escaped(random.choice(letters)))
    if choice < 0.65:
        return Pattern.same(".")
    if classes and choice < 0.8:
        return Pattern.same(random.choice((r"\d", r"\D", r"\s", r"\S", r"\w", r"\W")))
    return Pattern.same(_class(random, letters, classes))


def _class(random: Random, letters: str, classes: bool) -> str:
    items = []
    for _ in range(random.choice((1, 1, 2, 3))):
        if random.random() < 0.3:
            first, last = sorted(random.choice(letters) + random.choice(letters))
            items.append(f"{_escaped(first)}-{_escaped(last)}")
        elif classes and random.random() < 0.3:
            items.append(random.choice((r"\d", r"\W", r"\s")))
        else:
            items.append(_escaped(random.choice(letters)))
    return f"[{random.choice(('', '^'))}{''.join(items)}]"


def _escaped(letter: str) -> str:
    if letter in ".-":
        return f"\\{letter}"
    return {"\n": r"\n", "é": r"\xe9", "€": r"\u20ac"}.get(letter, letter)
