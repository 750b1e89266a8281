"""`load_pipeline`: from a file to a Pipeline, or to one error that tells everything that is wrong with it.

file ── document ──▶ plain values with lines
                       ├─ placement     `${…}` only where a run resolves it
                       ├─ models        keys, types, ranges             ──▶ Pipeline
                       ├─ rules         keys that need or exclude others
                       ├─ unsupported   what is designed and not built
                       └─ manifest      the connectors' own configs
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rapidbyte_dagster.config.connector_config import leaves
from rapidbyte_dagster.config.document import Document, DocumentError, read_document
from rapidbyte_dagster.config.manifest import Manifest, Role, find_manifest
from rapidbyte_dagster.config.messages import problems_of
from rapidbyte_dagster.config.models import Destination, Pipeline, Source, Transform
from rapidbyte_dagster.config.placement import is_run_time, place_references
from rapidbyte_dagster.config.problems import Key, Problem, raise_problems
from rapidbyte_dagster.config.rules import Keys, keys_of, rule_problems
from rapidbyte_dagster.config.substitution import has_reference
from rapidbyte_dagster.config.unsupported import unsupported_problems
from rapidbyte_dagster.errors import ConfigError

_SUFFIXES = (".yaml", ".yml")


def load_pipeline(path: str | Path) -> Pipeline:
    """The pipeline in the file `path`. The environment is not looked at.

    Raises ConfigError; its `problems` are all that was found, each with file, line, key path, what was found and what
    is allowed.
    """
    pipeline, problems = _load(Path(path))
    raise_problems(str(path), problems)
    assert pipeline is not None
    return pipeline


def load_pipelines(path: str | Path) -> list[Pipeline]:
    """The pipelines of a folder's *.yaml and *.yml files, in the order of their names, or the one of a file.

    Raises ConfigError with the problems of all files together; two pipelines of one name are a problem too.
    """
    folder = Path(path)
    if not folder.is_dir():
        return [load_pipeline(path)]
    files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
    if not files:
        raise ConfigError(f"there is no pipeline file (*.yaml, *.yml) in {folder}")
    loaded: list[Pipeline] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    for file in files:
        pipeline, found = _load(file)
        problems += found
        if pipeline is None:
            continue
        if pipeline.name in names:
            message = f"the pipeline {pipeline.name!r} is already defined in {names[pipeline.name]}"
            problems.append(pipeline.origin.problem(("pipeline",), message))
        names.setdefault(pipeline.name, str(file))
        loaded.append(pipeline)
    raise_problems(str(folder), problems)
    return loaded


def _load(path: Path) -> tuple[Pipeline | None, list[Problem]]:
    """The pipeline when the models accept the file, and every problem; it is to be used only without any."""
    try:
        document = read_document(path, str(path))
    except DocumentError as error:
        return None, list(error.problems)
    values, misplaced = place_references(document)
    problems = [
        *document.problems,
        *misplaced,
        *rule_problems(values, document),
        *unsupported_problems(values, document),
    ]
    manifests: dict[Key, Manifest] = {}
    for section, role in _connector_sections(values, document):
        manifest, found = _connector(section, role, path.resolve().parent)
        problems += found
        if manifest is not None:
            manifests[section.key] = manifest
    try:
        pipeline = Pipeline.model_validate(_canonical(values, manifests))
    except ValidationError as error:
        # What is no value, or not known yet, has been told.
        told = {problem.key for problem in (*document.problems, *misplaced)}
        return None, [*problems, *(problem for problem in problems_of(error, document) if problem.key not in told)]
    origin = document.origin(*_run_time_keys(values))
    pipeline.bind(path.resolve(), origin)
    for key, used in _connectors(pipeline):
        if key in manifests:
            used.config.bind(manifests[key].validator, origin, (*key, "config"))
    return pipeline, problems


def _connector_sections(values: Mapping[str, Any], document: Document) -> list[tuple[Keys, Role]]:
    """The sections of the file that name a connector, and as what."""
    root = keys_of(values, (), document)
    return [
        (root.section("source"), Role.SOURCE),
        *((section, Role.TRANSFORM) for section in root.sections("transforms")),
        (root.section("destination"), Role.DESTINATION),
    ]


def _connectors(pipeline: Pipeline) -> list[tuple[Key, Source | Transform | Destination]]:
    """The same sections, as the models have them, by their keys."""
    return [
        (("source",), pipeline.source),
        *((("transforms", index), transform) for index, transform in enumerate(pipeline.transforms)),
        (("destination",), pipeline.destination),
    ]


def _connector(section: Keys, role: Role, folder: Path) -> tuple[Manifest | None, list[Problem]]:
    """The manifest of the connector that `section` uses as `role`, and what is wrong with its config."""
    use = section.text("use")
    if use is None or not use.strip() or has_reference(use):
        return None, []
    try:
        manifest = find_manifest(use, role, folder)
    except ConfigError as error:
        message = error.info.message + (f"; {error.hint}" if error.hint else "")
        return None, [section.document.problem((*section.key, "use"), message)]
    # A transform may have nothing to be told; whether a connector can do without, its own schema says.
    config = section.values.get("config", {} if role is Role.TRANSFORM else None)
    if not isinstance(config, Mapping):
        return manifest, []
    problems: list[Problem] = []
    prefix: Key = (*section.key, "config")
    problems += [
        section.document.problem((*prefix, *problem.key), problem.message, of_key=problem.message.startswith("unknown"))
        for problem in manifest.validator.problems(config)
    ]
    return manifest, problems


def _canonical(values: dict[str, Any], manifests: Mapping[Key, Manifest]) -> dict[str, Any]:
    """`values` with each `use` as the connector's full name, or as the absolute path of its module."""

    def canonical(section: Any, key: Key) -> Any:
        if key not in manifests:
            return section
        manifest, use = manifests[key], section["use"]
        by_path = use.endswith(".wasm") or "/" in use
        return {**section, "use": str(manifest.wasm_path) if by_path else manifest.name}

    changed = {name: canonical(section, (name,)) for name, section in values.items()}
    if isinstance(transforms := values.get("transforms"), list):
        changed["transforms"] = [canonical(section, ("transforms", i)) for i, section in enumerate(transforms)]
    return changed


def _run_time_keys(values: Mapping[str, Any]) -> list[Key]:
    """The keys whose lines are wanted after loading: the streams', and those of values that a run resolves."""
    streams: list[Key] = [("source", "streams", index) for index in range(len(values["source"]["streams"]))]
    transforms: list[Key] = [("transforms", index, "config") for index in range(len(values.get("transforms") or ()))]
    configs: list[Key] = [("source", "config"), *transforms, ("destination", "config")]
    return [(), ("pipeline",), *streams, *configs, *(key for key, _ in leaves(values) if is_run_time(key))]
