from __future__ import annotations

import dagster as dg
import pytest

from rapidbyte_dagster.assets.names import key_part, op_name

ODD_NAMES = ["order items", "Ünïcode", "a/b", 'quo"te', "semi;colon", "100%", "🐘", "a\nb", " "]


@pytest.mark.parametrize("name", ["users", "Users", "order_items", "order-items", "v1.2", "_", "2024"])
def test_an_ordinary_table_name_is_its_own_key_part(name: str) -> None:
    assert key_part(name) == name


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_table_name_gives_names_that_dagster_takes(name: str) -> None:
    spec = dg.AssetSpec(["shop", key_part(name)])

    @dg.multi_asset(name=op_name("shop", name), specs=[spec])
    def op() -> None:
        pass

    assert dg.Definitions(assets=[op]).resolve_all_asset_keys() == [spec.key]
    # The user string is what `dagster asset materialize --select` takes: it must lead back to the key.
    assert dg.AssetKey.from_user_string(spec.key.to_user_string()) == spec.key


def test_different_names_stay_different_when_their_odd_characters_are_replaced() -> None:
    names = [*ODD_NAMES, "order_items", "order.items", "order-items", "order/items", "order\\items"]
    assert len({key_part(name) for name in names}) == len(names)
    assert len({op_name("shop", name) for name in names}) == len(names)
