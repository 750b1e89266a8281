"""Values that are stored out of line are not sent with an update that leaves them alone: they stay what they are."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.cdc.conftest import Follow
from tests.cdc.tables import LONG

DOCUMENTS = f"""
    CREATE TABLE items (id int PRIMARY KEY, title text, body text, extra text);
    ALTER TABLE items ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    INSERT INTO items SELECT i, 'title', {LONG.format("i")}, {LONG.format("-i")} FROM generate_series(1, 30) i;
"""
IDENTITIES = pytest.mark.parametrize(
    "identity",
    [
        "",
        pytest.param("ALTER TABLE items REPLICA IDENTITY FULL;", id="full"),
        pytest.param("ALTER TABLE items REPLICA IDENTITY USING INDEX items_pkey;", id="index", marks=pytest.mark.full),
    ],
)


@IDENTITIES
def test_values_that_an_update_leaves_alone_stay(follow: Follow, identity: str) -> None:
    follow(
        DOCUMENTS + identity,
        "UPDATE items SET title = 'other' WHERE id % 2 = 0",
        f"UPDATE items SET body = {LONG.format('id + 1000')} WHERE id % 3 = 0",
        "UPDATE items SET extra = NULL WHERE id % 5 = 0",
        "UPDATE items SET extra = '' WHERE id % 7 = 0",
    ).assert_mirrors()


@IDENTITIES
def test_a_key_that_changes_takes_the_values_along_that_were_not_sent(follow: Follow, identity: str) -> None:
    follow(
        DOCUMENTS + identity,
        "UPDATE items SET id = id + 100 WHERE id <= 10",
        f"UPDATE items SET id = id + 200, extra = {LONG.format('id')} WHERE id BETWEEN 11 AND 15",
        "UPDATE items SET id = 0 WHERE id = 16; UPDATE items SET id = 16 WHERE id = 17; "
        "UPDATE items SET id = 17 WHERE id = 0",
        "UPDATE items SET id = id + 1000 WHERE id > 200; UPDATE items SET title = 'twice moved' WHERE id > 1000",
    ).assert_mirrors()


def test_values_of_a_row_that_is_new_in_the_run_are_found_in_it(follow: Follow) -> None:
    follow(
        DOCUMENTS,
        f"INSERT INTO items VALUES (50, 'new', {LONG.format('50')}, {LONG.format('51')}); "
        f"UPDATE items SET title = 'x' WHERE id = 50",
        "UPDATE items SET title = 'y' WHERE id = 50",
        "UPDATE items SET id = 51 WHERE id = 50",
        "UPDATE items SET extra = 'short' WHERE id = 51",
    ).assert_mirrors()


def test_values_of_a_row_that_was_deleted_and_inserted_again_are_the_new_ones(follow: Follow) -> None:
    follow(
        DOCUMENTS,
        f"DELETE FROM items WHERE id = 1; INSERT INTO items VALUES (1, 'new', {LONG.format('77')}, NULL); "
        f"UPDATE items SET title = 'x' WHERE id = 1",
        f"UPDATE items SET id = 200 WHERE id = 2; INSERT INTO items VALUES (2, 'new', {LONG.format('78')}, NULL)",
        "UPDATE items SET title = 'z' WHERE id IN (2, 200)",
    ).assert_mirrors()


def test_a_history_lists_the_columns_whose_values_were_not_told(follow: Follow) -> None:
    """NULL is never taken for a value: `_rb_unchanged` names the columns that the source did not tell."""
    replication = follow(
        DOCUMENTS,
        "UPDATE items SET title = 'other' WHERE id = 1",
        "UPDATE items SET body = NULL WHERE id = 2",
        streams=["items"],
        write_mode="append",
    )
    told = replication.destination.fetch(
        "SELECT id, body IS NULL, extra IS NULL, _rb_unchanged FROM raw.items WHERE _rb_op = 'update' ORDER BY id"
    )
    assert told == [(1, True, True, ["body", "extra"]), (2, True, True, ["extra"])]


def test_an_update_of_a_row_that_was_lost_is_an_error_and_not_passed_over(follow: Follow) -> None:
    """What it does not tell nobody knows any more."""
    replication = follow(DOCUMENTS)
    replication.destination.execute("DELETE FROM raw.items WHERE id = 3")
    replication.source.execute("UPDATE items SET title = 'other' WHERE id IN (2, 3)")
    with pytest.raises(RapidbyteError, match="find no row to change, and do not tell all of it") as caught:
        replication.catch_up()
    assert caught.value.kind is Kind.DATA
    assert "--full-refresh" in str(caught.value)
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()
