"""The WASM host: loads connectors, runs them in a sandbox, and gives them sockets, batches and a clock."""

from rapidbyte_dagster.runtime.connector import Connector
from rapidbyte_dagster.runtime.host import (
    Barrier,
    End,
    Host,
    Item,
    LogLevel,
    Message,
    NoData,
    StreamAborted,
)
from rapidbyte_dagster.runtime.instance import Instance
from rapidbyte_dagster.runtime.sandbox import Sandbox, sandbox_for
from rapidbyte_dagster.runtime.worker import Runnable, Worker

__all__ = [
    "Barrier",
    "Connector",
    "End",
    "Host",
    "Instance",
    "Item",
    "LogLevel",
    "Message",
    "NoData",
    "Runnable",
    "Sandbox",
    "StreamAborted",
    "Worker",
    "sandbox_for",
]
