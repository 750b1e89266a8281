"""Turns a pipeline file into Dagster assets that copy tables through sandboxed connectors.

The names below are the public API; everything else may change. They load on first use, so that the `rapidbyte`
command does not pay for importing Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapidbyte_dagster.assets.dead_letter_files import DlqParquetIOManager
    from rapidbyte_dagster.assets.dead_letters import DeadLetters
    from rapidbyte_dagster.assets.definitions import build_definitions
    from rapidbyte_dagster.assets.factory import build_pipeline_assets, rapidbyte_stream_asset
    from rapidbyte_dagster.assets.io_managers import CheckpointIOManager, DlqIOManager, SchemaIOManager
    from rapidbyte_dagster.assets.resource import RapidbyteResource, default_resources
    from rapidbyte_dagster.assets.translator import RapidbyteTranslator, StreamTranslatorData
    from rapidbyte_dagster.config import Pipeline, SlotGroup, load_pipeline
    from rapidbyte_dagster.errors import (
        ConfigError,
        DestinationError,
        InternalError,
        Kind,
        RapidbyteError,
        RunCancelled,
        SchemaError,
        SourceError,
        Stage,
        StateError,
        UsageError,
    )
    from rapidbyte_dagster.state import Checkpoint, SchemaState

__all__ = [
    "Checkpoint",
    "CheckpointIOManager",
    "ConfigError",
    "DeadLetters",
    "DestinationError",
    "DlqIOManager",
    "DlqParquetIOManager",
    "InternalError",
    "Kind",
    "Pipeline",
    "RapidbyteError",
    "RapidbyteResource",
    "RapidbyteTranslator",
    "RunCancelled",
    "SchemaError",
    "SchemaIOManager",
    "SchemaState",
    "SlotGroup",
    "SourceError",
    "Stage",
    "StateError",
    "StreamTranslatorData",
    "UsageError",
    "build_definitions",
    "build_pipeline_assets",
    "default_resources",
    "load_pipeline",
    "rapidbyte_stream_asset",
]

_MODULES = {
    "rapidbyte_dagster.assets.dead_letter_files": ("DlqParquetIOManager",),
    "rapidbyte_dagster.assets.dead_letters": ("DeadLetters",),
    "rapidbyte_dagster.assets.definitions": ("build_definitions",),
    "rapidbyte_dagster.assets.factory": ("build_pipeline_assets", "rapidbyte_stream_asset"),
    "rapidbyte_dagster.assets.io_managers": ("CheckpointIOManager", "DlqIOManager", "SchemaIOManager"),
    "rapidbyte_dagster.assets.resource": ("RapidbyteResource", "default_resources"),
    "rapidbyte_dagster.assets.translator": ("RapidbyteTranslator", "StreamTranslatorData"),
    "rapidbyte_dagster.config": ("Pipeline", "SlotGroup", "load_pipeline"),
    "rapidbyte_dagster.errors": (
        "ConfigError",
        "DestinationError",
        "InternalError",
        "Kind",
        "RapidbyteError",
        "RunCancelled",
        "SchemaError",
        "SourceError",
        "Stage",
        "StateError",
        "UsageError",
    ),
    "rapidbyte_dagster.state": ("Checkpoint", "SchemaState"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
