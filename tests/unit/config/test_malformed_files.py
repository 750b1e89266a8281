"""Files that are no pipeline at all: one clear problem each, and never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import load_pipeline, load_pipelines
from rapidbyte_dagster.errors import ConfigError, Kind
from tests.unit.config.pipeline_files import VALID, changed, load_text, only_problem, problems_in


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(tmp_path / "nothing.yaml")
    assert caught.value.problems == (f"{tmp_path}/nothing.yaml: there is no such file or folder",)
    assert (caught.value.exit_code, caught.value.kind) == (2, Kind.CONFIG)
    with pytest.raises(ConfigError, match="no such file"):
        load_pipelines(tmp_path / "nothing")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder"):
        load_pipeline(tmp_path)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="not the name of a file"):
        load_pipeline("a\0b")


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 4194304 bytes"):
        load_pipeline("/dev/zero")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    assert only_problem(tmp_path, text).startswith("shop.yaml:1: the file is empty")


@pytest.mark.parametrize("text", ["~", "- a\n- b\n", "hello\n", "42"])
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert only_problem(tmp_path, text).startswith("shop.yaml:1: the file must hold a mapping of keys")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "flow sequence"),
        ("a:\n\t- b\n", 2, "cannot start any token"),
        ("a: 1\nb: *nope\n", 2, "undefined alias"),
        ("a: 1\nb: \x07\n", 2, "the character #x0007 is not allowed"),
        ("a: 1\nb: \0\n", 2, "the character #x0000 is not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "holds one document"),
    ],
)
def test_a_syntax_error_is_one_problem_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    problem = only_problem(tmp_path, text)
    assert problem.startswith(f"shop.yaml:{line}: not valid YAML: ")
    assert told in problem


def test_a_syntax_error_does_not_quote_the_line(tmp_path: Path) -> None:
    assert "hunter2" not in only_problem(tmp_path, "password: hunter2: x\n")


@pytest.mark.parametrize("data", [b"a: 1\nb: \xe9\n", b"a: 1\n" + "b: ü".encode("latin-1")])
def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path, data: bytes) -> None:
    assert only_problem(tmp_path, data).startswith("shop.yaml:2: the file is not UTF-8 (byte 0x")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    assert load_text(tmp_path, "\ufeff" + VALID).name == "shop"


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 5_000, "- " * 100_000, "a: &x [*x]\n"])
def test_nesting_without_end_is_refused(tmp_path: Path, text: str) -> None:
    assert "nested more than 64 levels deep" in only_problem(tmp_path, text)


def test_aliases_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    assert "more than 200000 values" in only_problem(tmp_path, "\n".join(lines))


def test_a_key_that_comes_twice_is_refused_at_any_depth(tmp_path: Path) -> None:
    text = changed(("pipeline: shop", "pipeline: shop\npipeline: shop2"), ("user: etl", "user: etl\n    user: root"))
    assert problems_in(tmp_path, text) == [
        "shop.yaml:3: pipeline: the key comes twice in one mapping",
        "shop.yaml:10: source.config.user: the key comes twice in one mapping",
    ]


@pytest.mark.parametrize("key", ["1", "true", "~", "1.5"])
def test_a_key_that_is_no_text_is_refused(tmp_path: Path, key: str) -> None:
    problem = only_problem(tmp_path, changed(after=f"{key}: x\n"))
    assert problem == f"shop.yaml:23: the key {key!r} is not a text; put it in quotes"


def test_tags_that_construct_objects_are_refused(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    text = changed(after=f"state: {{path: !!python/object/apply:os.system ['touch {witness}']}}\n")
    assert "shop.yaml:23: state.path: the tag !!python/object/apply:os.system" in only_problem(tmp_path, text)
    assert not witness.exists()


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    text = changed(after=f"resources: {{max_retries: {'9' * 5000}}}\n")
    assert only_problem(tmp_path, text).startswith("shop.yaml:23: resources.max_retries: ")
