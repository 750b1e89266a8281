"""The JSON Schema of the pipeline file, for editors: `python -m rapidbyte_dagster.config.json_schema [FILE]`.

It is made from the models and, for the connectors that come with the package, from their manifests. It knows keys,
types and values; rules between keys are told when a file is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapidbyte_dagster.config.manifest import Manifest, Role, first_party_manifests, short_name
from rapidbyte_dagster.config.models import Pipeline

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_SECTIONS = {Role.SOURCE: "Source", Role.TRANSFORM: "Transform", Role.DESTINATION: "Destination"}


def pipeline_schema(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """The schema of a pipeline file whose connectors may be those of `manifests`, by name."""
    schema = _tidied(Pipeline.model_json_schema(by_alias=True))
    definitions = schema["$defs"]
    for role, section in _SECTIONS.items():
        of_role = [
            {
                "if": {"properties": {"use": {"enum": [name, short_name(manifest)]}}, "required": ["use"]},
                "then": {"properties": {"config": _config_schema(manifest)}},
            }
            for name, manifest in sorted(manifests.items())
            if manifest.role is role
        ]
        if of_role:
            definitions[section]["allOf"] = of_role
    return {"$schema": _DRAFT, **schema, "title": "Rapidbyte pipeline"}


def _tidied(part: Any) -> Any:
    """Without what says nothing to an editor: generated titles, and defaults that only repeat "left out"."""
    if isinstance(part, list):
        return [_tidied(each) for each in part]
    if not isinstance(part, dict):
        return part
    tidied = {}
    for key, value in part.items():
        if (key == "title" and isinstance(value, str)) or (
            key == "default" and (value is None or isinstance(value, dict | list))
        ):
            continue
        # `properties` holds keys of the file, which may be called `title` or `default`.
        inner = isinstance(value, dict) and key in ("properties", "$defs")
        tidied[key] = {name: _tidied(each) for name, each in value.items()} if inner else _tidied(value)
    return tidied


def schema_text(manifests: Mapping[str, Manifest]) -> str:
    return json.dumps(pipeline_schema(manifests), indent=2, ensure_ascii=False) + "\n"


def _config_schema(manifest: Manifest) -> dict[str, Any]:
    """The connector's own schema, where every value may be a `${NAME}` as well."""
    schema = {key: value for key, value in manifest.config_schema.items() if key != "$schema"}
    schema["properties"] = {name: _or_reference(part) for name, part in manifest.validator.properties.items()}
    return schema


def _or_reference(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") == "string" and "enum" not in part and "pattern" not in part:
        return dict(part)
    told = {key: value for key, value in part.items() if key in ("description", "default", "writeOnly")}
    judged = {key: value for key, value in part.items() if key not in told}
    return {**told, "anyOf": [judged, _REFERENCE]}


def main(arguments: Sequence[str]) -> int:
    text = schema_text(first_party_manifests())
    if arguments:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
