"""A connector as loaded from disk: verified against its manifest and the ABI, compiled, ready to be instantiated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.errors import ConfigError, Kind, Stage
from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.checkout import warn_if_stale
from rapidbyte_dagster.runtime.compiled import CompiledModule, compile_module, new_engine
from rapidbyte_dagster.runtime.host import Host
from rapidbyte_dagster.runtime.instance import Instance
from rapidbyte_dagster.runtime.sandbox import Sandbox

_REBUILD = "build the connector again (`make connectors`), or use one made for this version"
_WASM_MAGIC = b"\0asm"


@dataclass(frozen=True)
class Connector:
    """A verified module. Immutable and safe to share between threads; each run makes `Instance`s of it."""

    manifest: Manifest
    compiled: CompiledModule
    verbs: frozenset[str] = frozenset()
    """The optional ones that it exports."""

    def offers(self, verb: str) -> bool:
        """Whether `verb` can be called in its instances."""
        return verb in abi.EXPORTS or verb in abi.EXPORTS_OF_ROLE[self.manifest.role] or verb in self.verbs

    def worker(self, host: Host, sandbox: Sandbox, stage: Stage) -> Instance:
        return Instance(self, host=host, sandbox=sandbox, stage=stage)

    @classmethod
    def load(cls, manifest: Manifest) -> Connector:
        """Read, verify and compile the module that `manifest` describes.

        Raises `ConfigError` of kind `connector`: no such file, not a WebAssembly module, not the one whose SHA-256
        the manifest names, a foreign import, a missing export. The ABI's version is compared on instantiation.
        """
        name = manifest.name
        if manifest.protocol != abi.VERSION:
            raise _refused(
                name, f"speaks ABI version {manifest.protocol}, this host speaks {abi.VERSION}", hint=_REBUILD
            )
        path = Path(manifest.wasm_path)
        wasm = _read(name, path)
        sha256 = hashlib.sha256(wasm).hexdigest()
        if sha256 != manifest.sha256:
            raise _refused(
                name,
                f"does not match its manifest: {path.name} was changed after it was built",
                detail=f"SHA-256 of the file {sha256}, of the manifest {manifest.sha256}",
                hint="install or build the connector again, and find out who changed the file",
            )
        if not wasm.startswith(_WASM_MAGIC):
            raise _refused(name, f"is not a WebAssembly module: {path}", hint="`use` names a .wasm file")
        try:
            compiled = compile_module(wasm, sha256)
            module = compiled.load(new_engine())
        except wasmtime.WasmtimeError as error:
            raise _refused(
                name, f"is not a WebAssembly module that can run here: {path}", detail=str(error), hint=_REBUILD
            ) from error
        _verify_imports(name, module)
        optional = _verify_exports(name, manifest.role, module)
        warn_if_stale(path)
        return cls(manifest, compiled, optional)


def _read(name: str, path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            wasm = file.read(abi.MAX_MODULE_BYTES + 1)
    except OSError as error:
        raise _refused(
            name,
            f"cannot be read: {path}: {error.strerror or error}",
            hint="build it (`make connectors`), or mend `use`",
        ) from error
    if len(wasm) > abi.MAX_MODULE_BYTES:
        raise _refused(name, f"is over the limit of {abi.MAX_MODULE_BYTES} bytes: {path}")
    return wasm


def _verify_imports(name: str, module: wasmtime.Module) -> None:
    """The import list is the sandbox: nothing but the ABI's functions, with the ABI's types."""
    for entry in module.imports:
        label = f"{entry.module}.{entry.name}"
        expected = abi.IMPORTS.get(entry.name or "") if entry.module == abi.NAMESPACE else None
        if expected is None:
            raise _refused(
                name,
                f"imports {label!r}, which the connector ABI does not offer",
                hint="a connector is built for wasm32 without WASI and imports only from `rapidbyte`",
            )
        found = _signature(entry.type)
        if found != expected:
            raise _refused(
                name,
                f"imports {label!r} as {_shown(found)}, the ABI has {abi.describe(expected)}",
                hint=_REBUILD,
            )


def _verify_exports(name: str, role: str, module: wasmtime.Module) -> frozenset[str]:
    """The optional verbs among them."""
    exports = {entry.name: entry.type for entry in module.exports}
    memory = exports.get("memory")
    if not isinstance(memory, wasmtime.MemoryType) or memory.is_64 or memory.is_shared:
        raise _refused(name, "does not export a 32-bit linear `memory`", hint=_REBUILD)
    required = {**abi.EXPORTS, **abi.EXPORTS_OF_ROLE[str(role)]}
    optional = {verb: type_ for verb, type_ in abi.OPTIONAL_EXPORTS_OF_ROLE[str(role)].items() if verb in exports}
    for export, expected in {**required, **optional}.items():
        if export not in exports:
            raise _refused(
                name,
                f"is no {role} connector of ABI version {abi.VERSION}: it does not export {export!r}",
                hint=_REBUILD,
            )
        found = _signature(exports[export])
        if found != expected:
            raise _refused(
                name, f"exports {export!r} as {_shown(found)}, the ABI has {abi.describe(expected)}", hint=_REBUILD
            )
    return frozenset(optional)


def _signature(kind: object) -> abi.Signature | None:
    if not isinstance(kind, wasmtime.FuncType):
        return None
    return tuple(str(value) for value in kind.params), tuple(str(value) for value in kind.results)


def _shown(signature: abi.Signature | None) -> str:
    return "something else than a function" if signature is None else abi.describe(signature)


def _refused(name: str, message: str, *, detail: str | None = None, hint: str | None = None) -> ConfigError:
    return ConfigError(f"connector {name!r} {message}", kind=Kind.CONNECTOR, detail=detail, hint=hint)
