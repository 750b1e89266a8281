"""The runtime's public names are those that its `__init__` lists."""

from __future__ import annotations

import rapidbyte_dagster.runtime as runtime


def test_the_public_names_are_listed_in_order_and_exist() -> None:
    assert runtime.__all__ == sorted(runtime.__all__)
    assert all(hasattr(runtime, name) for name in runtime.__all__)
    assert {"Connector", "Host", "Instance", "NoData", "Sandbox", "StreamAborted", "sandbox_for"} <= set(
        runtime.__all__
    )
