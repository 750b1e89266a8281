"""Transforms that run in the host instead of a sandbox: those that need a library which is no WebAssembly.

To the engine they are connectors like all others: verbs, batches in and out, a limit, a stop button.
"""

from __future__ import annotations

from dataclasses import dataclass

from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Connector, Host, Runnable, Sandbox, Worker

__all__ = ["load_connector"]

_VERBS = frozenset(("rb_open", "rb_check", "rb_transform", "rb_close"))


def load_connector(manifest: Manifest) -> Runnable:
    """The connector that `manifest` describes, ready to run. Raises `ConfigError` where its module is none."""
    return _HostTransform(manifest) if manifest.runs_in_host else Connector.load(manifest)


@dataclass(frozen=True)
class _HostTransform:
    manifest: Manifest

    def offers(self, verb: str) -> bool:
        return verb in _VERBS

    def worker(self, host: Host, sandbox: Sandbox, stage: Stage) -> Worker:
        from rapidbyte_dagster.transforms.sql import SqlTransform

        return SqlTransform(self.manifest, host=host, sandbox=sandbox, stage=stage)
