"""A YAML file as plain values, with the line of each of them.

The text is composed into PyYAML's node tree, which keeps marks, and the values are built from that tree here: strictly
mappings with text keys, lists, texts, numbers, truth values and null. Lines are looked up in the tree when an error
needs one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rapidbyte_dagster.config.problems import Key, Origin, Problem

FILE_LIMIT_BYTES = 4 * 1024 * 1024
"""A pipeline of a thousand streams has about 200 KB."""
VALUES_LIMIT = 200_000
"""Values after expansion of aliases: a few lines of nested aliases can stand for billions."""
DEPTH_LIMIT = 64

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = yaml.constructor.SafeConstructor()
_MERGE = "tag:yaml.org,2002:merge"
_TEXT_TAGS = frozenset(
    # YAML 1.1 reads an unquoted 2024-01-31 as a date and a bare = as a "value"; no key of a pipeline wants either.
    {"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
)


class DocumentError(Exception):
    """The file is no document at all; `problems` says why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Document:
    file: str
    """As the user named it."""
    root: yaml.Node = field(repr=False)
    values: dict[str, Any] = field(repr=False)
    problems: tuple[Problem, ...]
    """Keys that come twice, values of no plain type: told beside whatever else is wrong."""

    def line(self, key: Key, *, of_key: bool = False) -> int:
        """The line (from 1) of the value at `key`, or of the key itself; of the nearest parent when it is missing."""
        node, line = self.root, self.root.start_mark.line
        for position, step in enumerate(key):
            last = position == len(key) - 1
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
                continue
            found = _pair(node, step)
            if found is None:
                break
            key_node, node = found
            scalar = isinstance(node, yaml.ScalarNode)
            line = node.start_mark.line if last and scalar and not of_key else key_node.start_mark.line
        return int(line) + 1

    def problem(self, key: Key, message: str, *, of_key: bool = False, **others: Any) -> Problem:
        return Problem(self.file, self.line(key, of_key=of_key), key, message, **others)

    def origin(self, *keys: Key) -> Origin:
        """The lines of `keys`, for errors found when the document is gone."""
        return Origin(self.file, {key: self.line(key) for key in keys})


def read_document(path: Path, shown: str) -> Document:
    """The one YAML document in the file `path`, called `shown` in errors. Raises DocumentError."""
    text = _read(path, shown)
    root = _composed(text, shown)
    if root is None:
        raise DocumentError(Problem(shown, 1, (), 'the file is empty; a pipeline file starts with version: "1.0"'))
    builder = _Builder(shown)
    try:
        values = builder.build(root, (), 0)
    except _TooMuch as error:
        raise DocumentError(*builder.problems, Problem(shown, error.line, (), str(error))) from error
    if not isinstance(values, dict):
        message = "the file must hold a mapping of keys, such as version: and pipeline:"
        raise DocumentError(*builder.problems, Problem(shown, root.start_mark.line + 1, (), message))
    return Document(shown, root, values, tuple(builder.problems))


def _read(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise DocumentError(Problem(shown, None, (), "there is no such file or folder")) from None
    except IsADirectoryError:
        raise DocumentError(Problem(shown, None, (), "this is a folder; name a pipeline file in it")) from None
    except ValueError:
        raise DocumentError(Problem(shown, None, (), "this is not the name of a file")) from None
    except OSError as error:
        raise DocumentError(Problem(shown, None, (), f"the file cannot be read: {error.strerror}")) from None
    if len(data) > FILE_LIMIT_BYTES:
        raise DocumentError(Problem(shown, None, (), f"the file has more than {FILE_LIMIT_BYTES} bytes"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8 (byte 0x{data[error.start]:02x})"
        raise DocumentError(Problem(shown, line, (), message)) from None


def _composed(text: str, shown: str) -> yaml.Node | None:
    try:
        _check_depth(text, shown)
        loader = _Loader(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Never the mark's snippet: the line may hold a password.
        message = "; ".join(part for part in (error.context, error.problem) if part) or "malformed"
        if "single document" in message:
            message = "a pipeline file holds one document; there is a second ---"
        raise DocumentError(Problem(shown, mark.line + 1 if mark else None, (), f"not valid YAML: {message}")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: the character #x{error.character:04x} is not allowed"
        raise DocumentError(Problem(shown, line, (), message)) from None
    return node


def _check_depth(text: str, shown: str) -> None:
    """Looks at the events, which need no stack: the C composer recurses, and deep nesting would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise DocumentError(Problem(shown, line, (), f"nested more than {DEPTH_LIMIT} levels deep"))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _TooMuch(Exception):
    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


class _Builder:
    """Builds plain values from nodes and collects what is wrong with them."""

    def __init__(self, shown: str) -> None:
        self.problems: list[Problem] = []
        self._shown = shown
        self._count = 0

    def build(self, node: yaml.Node, key: Key, depth: int) -> Any:
        self._count += 1
        if self._count > VALUES_LIMIT:
            raise _TooMuch(node, f"the file stands for more than {VALUES_LIMIT} values (nested aliases?)")
        if depth > DEPTH_LIMIT:
            raise _TooMuch(node, f"nested more than {DEPTH_LIMIT} levels deep (an alias inside itself?)")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(part, (*key, index), depth + 1) for index, part in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, key, depth)
        self._report(node, key, f"the tag {_shown_tag(node)} is not allowed; only plain values are")
        return None

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        if node.tag in _TEXT_TAGS:
            return node.value
        construct = _CONSTRUCTORS.get(node.tag)
        if construct is None:
            self._report(node, key, f"the tag {_shown_tag(node)} is not allowed; only plain values are")
            return None
        try:
            return construct(node)
        except (ValueError, OverflowError, KeyError):
            self._report(node, key, f"found a value that is no {_shown_tag(node)}")
            return None

    def _mapping(self, node: yaml.MappingNode, key: Key, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for name, value in self._merged(value_node, key, depth):
                    merged.setdefault(name, value)
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _TEXT_TAGS:
                shown = f" {key_node.value!r}" if isinstance(key_node, yaml.ScalarNode) else ""
                self._report(key_node, key, f"the key{shown} is not a text; put it in quotes")
                continue
            name = str(key_node.value)
            if name in values:
                self._report(key_node, (*key, name), "the key comes twice in one mapping")
                continue
            values[name] = self.build(value_node, (*key, name), depth + 1)
        return {**merged, **values}

    def _merged(self, node: yaml.Node, key: Key, depth: int) -> list[tuple[str, Any]]:
        """The pairs that `<<` brings, the strongest first."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: list[tuple[str, Any]] = []
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self._report(part, key, "<< takes a mapping or a list of mappings")
                continue
            pairs += self.build(part, key, depth + 1).items()
        return pairs

    def _report(self, node: yaml.Node, key: Key, message: str) -> None:
        self.problems.append(Problem(self._shown, node.start_mark.line + 1, key, message))


_CONSTRUCTORS = {
    "tag:yaml.org,2002:null": _SCALARS.construct_yaml_null,
    "tag:yaml.org,2002:bool": _SCALARS.construct_yaml_bool,
    "tag:yaml.org,2002:int": _SCALARS.construct_yaml_int,
    "tag:yaml.org,2002:float": _SCALARS.construct_yaml_float,
}


def _shown_tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


def _pair(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """The key and value nodes of `step` in a mapping, its own before those that `<<` brings."""
    if not isinstance(node, yaml.MappingNode):
        return None
    merges: list[yaml.Node] = []
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:
            merges += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
        elif key_node.value == step:
            return key_node, value_node
    for merge in merges:
        found = _pair(merge, step)
        if found is not None:
            return found
    return None
