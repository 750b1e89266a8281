"""Connector manifests: which connectors there are, and what each says of itself.

rapidbyte_dagster/connectors/source-postgres.wasm     the module
rapidbyte_dagster/connectors/source-postgres.json     its manifest (docs/connector-abi.md, "The manifest")
rapidbyte_dagster/transforms/transform-sql.json       the manifest of one that runs in the host, and has no module
"""

from __future__ import annotations

import difflib
import json
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from rapidbyte_dagster.config.capabilities import Limits, Permissions, Section
from rapidbyte_dagster.config.config_schema import ConfigSchema
from rapidbyte_dagster.config.problems import dotted
from rapidbyte_dagster.config.values import choice
from rapidbyte_dagster.errors import ConfigError, Kind

CONNECTORS = Path(__file__).resolve().parent.parent / "connectors"
"""Where the build puts the first-party connectors."""
HOST_TRANSFORMS = CONNECTORS.with_name("transforms")
"""Where the manifests of those are that need no module."""
PROTOCOL = 1
MANIFEST_LIMIT_BYTES = 1024 * 1024
"""A manifest is a page of JSON; the largest known has 3 KB."""


class Role(str, Enum):
    """Which part of a pipeline a connector serves."""

    __str__ = str.__str__

    SOURCE = "source"
    DESTINATION = "destination"
    TRANSFORM = "transform"


_PREFIXES = {Role.SOURCE: "source-", Role.DESTINATION: "dest-", Role.TRANSFORM: "transform-"}


class Manifest(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
    version: Annotated[str, Field(min_length=1)]
    role: Annotated[Role, choice(Role)]
    protocol: int
    description: str = ""
    config_schema: dict[str, Any] = Field(repr=False)
    permissions: Permissions = Permissions()
    limits: Limits = Limits()
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Hex digest of the module; one that does not match is refused. None where there is no module."""

    _path: Path = PrivateAttr(Path())
    _validator: ConfigSchema = PrivateAttr(ConfigSchema("", {}))

    @property
    def path(self) -> Path:
        """The manifest's own file."""
        return self._path

    @property
    def runs_in_host(self) -> bool:
        """Whether it is a part of this package instead of a module."""
        return self.sha256 is None

    @property
    def wasm_path(self) -> Path:
        return self._path.with_suffix(".wasm")

    @property
    def validator(self) -> ConfigSchema:
        """Judges configs by `config_schema`; one manifest file has one, made once."""
        return self._validator


def first_party_manifests() -> dict[str, Manifest]:
    """The connectors that come with the package, by name. Raises ConfigError when they are not built."""
    modules = sorted(CONNECTORS.glob("*.wasm"))
    if not modules:
        raise ConfigError(
            f"the connectors are not built: there is no module in {CONNECTORS}",
            kind=Kind.CONNECTOR,
            hint="run `make connectors` or `pip install -e .`",
        )
    manifests = [_beside_module(module) for module in modules]
    manifests += [read_manifest(path) for path in sorted(HOST_TRANSFORMS.glob("*.json"))]
    return {manifest.name: manifest for manifest in manifests}


def find_manifest(use: str, role: Role, base_dir: Path) -> Manifest:
    """The manifest that `use` means, in a file in `base_dir`: a connector's name or the path of a .wasm.

    `postgres` is short for `source-postgres` or `dest-postgres`, by `role`. Raises ConfigError when there is no such
    connector or when it has the other role.
    """
    if use.endswith(".wasm") or "/" in use:
        return _of_role(_beside_module(base_dir / Path(use).expanduser()), role, use)
    known = first_party_manifests()
    manifest = known.get(use) or known.get(_PREFIXES[role] + use)
    if manifest is None:
        raise ConfigError(f"there is no connector {use!r}{_suggestion(use, role, known)}", kind=Kind.CONFIG)
    return _of_role(manifest, role, use)


def short_name(manifest: Manifest) -> str:
    """The name without the prefix of its role: `postgres` for `source-postgres`."""
    return manifest.name.removeprefix(_PREFIXES[manifest.role])


def _suggestion(use: str, role: Role, known: dict[str, Manifest]) -> str:
    fitting = sorted(name for name, manifest in known.items() if manifest.role is role)
    names = fitting + [short_name(known[name]) for name in fitting]
    near = difflib.get_close_matches(use.lower(), names, n=1, cutoff=0.6)
    text = f"; allowed: {', '.join(fitting) or 'none'}, or a path to a .wasm"
    return text + (f"; did you mean {near[0]!r}?" if near else "")


def _of_role(manifest: Manifest, role: Role, use: str) -> Manifest:
    if manifest.role != role:
        raise ConfigError(f"{use!r} is a {manifest.role} connector, and a {role} connector is needed here")
    return manifest


def _beside_module(module: Path) -> Manifest:
    if module.suffix != ".wasm":
        raise ConfigError(f"{module} is not the path of a .wasm")
    if not module.is_file():
        raise ConfigError(f"there is no connector module {module}")
    path = module.with_suffix(".json")
    if not path.is_file():
        raise ConfigError(
            f"the connector module {module} has no manifest",
            hint=f"its manifest must be beside it as {path.name}",
        )
    manifest = read_manifest(path)
    if manifest.runs_in_host:
        raise _broken(path, "sha256: Field required")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file `path`; read again only when the file changed. Raises ConfigError of kind connector."""
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise _broken(path, f"it cannot be read: {error.strerror}") from error


@lru_cache(maxsize=256)
def _read(path: Path, modified_ns: int, size: int) -> Manifest:
    if size > MANIFEST_LIMIT_BYTES:
        raise _broken(path, f"it has {size} bytes; the limit is {MANIFEST_LIMIT_BYTES}")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"it is not JSON in UTF-8: {error}") from error
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise _broken(path, "; ".join(_line(detail) for detail in error.errors(include_input=False))) from error
    if manifest.protocol != PROTOCOL:
        raise _broken(path, f"it speaks protocol {manifest.protocol}; this version of Rapidbyte speaks {PROTOCOL}")
    manifest._path = path
    manifest._validator = ConfigSchema(manifest.name, manifest.config_schema)
    return manifest


def _line(detail: ErrorDetails) -> str:
    return f"{dotted(detail['loc'])}: {detail['msg']}"


def _broken(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} is no connector manifest: {why}", kind=Kind.CONNECTOR)
