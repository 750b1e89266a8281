"""The pipeline file: YAML text in, a frozen typed `Pipeline` out, every problem told at once."""

from __future__ import annotations

from rapidbyte_dagster.config.capabilities import Limits, Network, Permissions
from rapidbyte_dagster.config.connector_config import ConnectorConfig, ResolvedConfig
from rapidbyte_dagster.config.dead_letter_limits import DeadLetterLimits, Limit
from rapidbyte_dagster.config.loader import load_pipeline, load_pipelines
from rapidbyte_dagster.config.manifest import Manifest, Role, find_manifest, first_party_manifests
from rapidbyte_dagster.config.models import (
    DagsterOptions,
    Deletes,
    Destination,
    OnDataError,
    Pipeline,
    Resources,
    SchemaEvolution,
    Source,
    StateBackend,
    StateConfig,
    Stream,
    SyncMode,
    Transform,
    WriteMode,
)
from rapidbyte_dagster.config.op_options import OWN_TAG_PREFIX, OpOptions, RetryPolicyOptions
from rapidbyte_dagster.config.replication import CaptureOptions, SensorStatus, SlotGroup, SlotNames
from rapidbyte_dagster.config.resolved import ResolvedPipeline
from rapidbyte_dagster.config.secrets import REDACTED, Redactor
from rapidbyte_dagster.config.state_connection import StateConnection

__all__ = [
    "OWN_TAG_PREFIX",
    "REDACTED",
    "CaptureOptions",
    "ConnectorConfig",
    "DagsterOptions",
    "DeadLetterLimits",
    "Deletes",
    "Destination",
    "Limit",
    "Limits",
    "Manifest",
    "Network",
    "OnDataError",
    "OpOptions",
    "Permissions",
    "Pipeline",
    "Redactor",
    "ResolvedConfig",
    "ResolvedPipeline",
    "Resources",
    "RetryPolicyOptions",
    "Role",
    "SchemaEvolution",
    "SensorStatus",
    "SlotGroup",
    "SlotNames",
    "Source",
    "StateBackend",
    "StateConfig",
    "StateConnection",
    "Stream",
    "SyncMode",
    "Transform",
    "WriteMode",
    "find_manifest",
    "first_party_manifests",
    "load_pipeline",
    "load_pipelines",
]
