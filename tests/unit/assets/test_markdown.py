"""What is written is read back by a Markdown parser that this package has no part in."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rapidbyte_dagster.assets import markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

# Database names may hold anything but NUL; backslashes before pipes are the one thing that code in a table cannot show.
HOSTILE = [
    "a|b",
    "`",
    "a``b`",
    " a ",
    "<b>bold</b>",
    "*x* _y_ ~~z~~",
    "[l](http://x)",
    "![i](x)",
    "&amp;",
    "\\",
    "a\\b",
]


def inline(text: str) -> list[Token]:
    """The inline tokens of `text` as one paragraph, without empty ones."""
    children = [child for token in PARSER.parse(text) for child in token.children or []]
    return [child for child in children if child.type != "text" or child.content]


def shown(children: list[Token]) -> str:
    return "".join(child.content for child in children)


def cells_of(text: str) -> list[list[str]]:
    """Each row's cells, as they are shown."""
    rows: list[list[str]] = []
    for token in PARSER.parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(shown(token.children or []))
    return rows


@pytest.mark.parametrize("text", HOSTILE)
def test_plain_text_reads_as_it_is(text: str) -> None:
    children = inline(f"x{markdown.plain(text)}x")
    assert {child.type for child in children} <= {"text", "text_special"}
    assert shown(children) == f"x{text}x"


@given(st.text(alphabet="\\`*_~<>[](){}&;#|!:/'\"$ ab1"))
@example("a_b __c__ d_(e)_f")
@example("[[a]](b)")
@example("&#124;&lt;")
@example("<1@b.cd><http://e>")
def test_plain_text_reads_as_it_is_whatever_it_holds(text: str) -> None:
    assert shown(inline(f"x {markdown.plain(text)} x")) == f"x {text} x"


def test_names_with_underscores_stay_readable_in_the_source_too() -> None:
    assert markdown.plain("column created_at is text[] in raw.users") == "column created_at is text[] in raw.users"


@pytest.mark.parametrize("text", HOSTILE)
def test_code_reads_as_it_is(text: str) -> None:
    (child,) = inline(markdown.code(text))
    assert (child.type, child.content) == ("code_inline", text)


def test_no_text_is_no_code() -> None:
    assert markdown.code("") == ""


def test_line_breaks_become_spaces() -> None:
    assert markdown.plain("a\nb\r\n\tc") == "a b c"
    assert markdown.code("a\nb") == "`a b`"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_shows_its_text_whatever_it_holds(text: str) -> None:
    rows = cells_of(markdown.table(["left", "right"], [[markdown.plain(text), markdown.code(text)]]))
    assert rows == [["left", "right"], [text.strip(), text]]


@given(st.lists(st.text(alphabet="|\\` a<*\n"), min_size=2, max_size=2))
@example(["\\|", "\\\\|"])
def test_a_table_keeps_its_shape_whatever_its_cells_hold(texts: list[str]) -> None:
    left, right = texts
    rows = cells_of(markdown.table(["a", "b", "c"], [[markdown.plain(left), markdown.code(right), "end"]]))
    assert [len(row) for row in rows] == [3, 3]
    assert rows[1][2] == "end"
