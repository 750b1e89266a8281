"""`rb_capture`: what a slot brings, transaction by transaction."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.integration.source.capturing import (
    BEFORE,
    DELETE,
    INSERT,
    TRUNCATE,
    UPDATE,
    Capturing,
    CapturingHost,
    capturing,
    lsn_number,
    lsn_text,
)
from tests.postgres_server import Database

USERS = "CREATE TABLE users (id int PRIMARY KEY, name text)"


@pytest.fixture
def users(source_db: Database) -> Iterator[Capturing]:
    source_db.execute(USERS)
    with capturing(source_db, ["users"]) as slot:
        yield slot


def test_changes_come_in_the_order_of_their_commits(users: Capturing) -> None:
    """Of two open transactions the one that commits first comes first, whatever began first."""
    with users.database.connect() as first, users.database.connect() as second:
        first.execute("BEGIN; INSERT INTO users VALUES (1, 'late')")
        second.execute("BEGIN; INSERT INTO users VALUES (2, 'early'); UPDATE users SET name = 'changed' WHERE id = 2")
        second.execute("COMMIT")
        first.execute("DELETE FROM users WHERE id = 1; COMMIT")

    got = users.catch_up("users")

    assert got.told("users") == [
        (INSERT, {"id": 2, "name": "early"}),
        (UPDATE, {"id": 2, "name": "changed"}),
        (INSERT, {"id": 1, "name": "late"}),
        (DELETE, {"id": 1, "name": None}),
    ]
    assert [change.seq for change in got.changes] == [1, 2, 1, 2]
    assert len({change.lsn for change in got.changes}) == 2
    assert got.answer | {"bytes": 0} == {"rows": 4, "transactions": 2, "bytes": 0, "lsn": got.lsn}
    now = datetime.now(timezone.utc)
    assert all(abs((now - change.commit_ts).total_seconds()) < 60 for change in got.changes)
    commit_ts = got.host.barriers[-1][1]["cursor"]["commit_ts"]
    assert commit_ts == round(got.changes[-1].commit_ts.timestamp() * 1_000_000)


def test_what_was_captured_does_not_come_again(users: Capturing) -> None:
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    first = users.catch_up("users")
    assert lsn_number(users.confirmed) >= lsn_number(first.lsn)
    assert not users.is_active
    assert users.catch_up("users").changes == []
    users.database.execute("INSERT INTO users VALUES (2, 'b')")
    assert users.catch_up("users").told("users") == [(INSERT, {"id": 2, "name": "b"})]


def test_what_was_not_committed_at_the_destination_comes_again(users: Capturing) -> None:
    position = users.position
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    first = users.catch_up("users", host=CapturingHost(commits=False), confirm=False)
    assert lsn_number(users.confirmed) <= lsn_number(position)
    users.position = position
    assert users.catch_up("users").changes == first.changes != []


def test_an_undone_transaction_does_not_come(users: Capturing) -> None:
    users.database.execute("BEGIN; INSERT INTO users VALUES (1, 'a'); ROLLBACK")
    users.database.execute(
        "BEGIN; SAVEPOINT s; INSERT INTO users VALUES (2); ROLLBACK TO s; INSERT INTO users VALUES (3, 'c'); COMMIT"
    )
    assert users.catch_up("users").told("users") == [(INSERT, {"id": 3, "name": "c"})]


def test_each_stream_begins_at_its_own_position(source_db: Database) -> None:
    """A transaction is of a stream whose position is its commit record's start, and of none that stands behind that."""
    source_db.execute(f"{USERS}; CREATE TABLE orders (id int PRIMARY KEY)")
    with capturing(source_db, ["users", "orders"]) as slot:
        source_db.execute("INSERT INTO users VALUES (1); INSERT INTO orders VALUES (1)")
        source_db.execute("BEGIN; INSERT INTO users VALUES (2); INSERT INTO orders VALUES (2); COMMIT")
        both = slot.catch_up("users", "orders", host=CapturingHost(commits=False), confirm=False)
        second = both.changes[-1].lsn
        ids = [(change.stream, change.values["id"]) for change in both.changes]
        assert ids == [("users", 1), ("orders", 1), ("users", 2), ("orders", 2)]

        slot.position = slot.confirmed
        slot.positions = {"orders": lsn_text(second)}
        at = slot.catch_up("users", "orders", host=CapturingHost(commits=False), confirm=False)
        assert [change.values["id"] for change in at.of("orders")] == [2]
        assert [change.values["id"] for change in at.of("users")] == [1, 2]

        slot.position = slot.confirmed
        slot.positions = {"orders": lsn_text(second + 1)}
        behind = slot.catch_up("users", "orders")
        assert behind.of("orders") == []
        assert [change.values["id"] for change in behind.of("users")] == [1, 2]


def test_a_target_divides_transactions_into_those_before_it_and_the_others(users: Capturing) -> None:
    for i in range(4):
        users.database.execute("INSERT INTO users VALUES (%s)", [i])
    begin = users.position
    changes = users.catch_up("users", host=CapturingHost(commits=False), confirm=False).changes
    for wanted, change in enumerate(changes):
        for target, expected in ((change.lsn, wanted), (change.lsn + 1, wanted + 1)):
            users.position = begin
            host = CapturingHost(commits=False)
            got = users.catch_up("users", host=host, confirm=False, target=lsn_text(target))
            assert [row.values["id"] for row in got.changes] == list(range(expected))
            assert got.lsn == lsn_text(target)


def test_an_idle_server_is_caught_up_with_at_once(users: Capturing) -> None:
    started = time.monotonic()
    for _ in range(3):
        users.catch_up("users")
    assert time.monotonic() - started < 5


def test_other_tables_are_passed_over_and_the_slot_moves_on(source_db: Database) -> None:
    source_db.execute(f"{USERS}; CREATE TABLE noise (id int)")
    with capturing(source_db) as slot:
        source_db.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
        source_db.execute("BEGIN; INSERT INTO noise VALUES (1); INSERT INTO users VALUES (1, 'a'); COMMIT")
        source_db.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
        before = slot.confirmed
        got = slot.catch_up("users")
        # A change of another table has its number.
        assert [(change.told, change.seq) for change in got.changes] == [((INSERT, {"id": 1, "name": "a"}), 2)]
        assert lsn_number(slot.confirmed) > max(lsn_number(before), got.changes[0].lsn)


def test_a_key_that_changes_is_told_before_the_row(users: Capturing) -> None:
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    users.database.execute("UPDATE users SET id = 2")
    users.database.execute("UPDATE users SET name = 'b'")
    assert users.catch_up("users").told("users")[1:] == [
        (BEFORE, {"id": 1, "name": None}),
        (UPDATE, {"id": 2, "name": "a"}),
        (UPDATE, {"id": 2, "name": "b"}),
    ]


@pytest.mark.parametrize(
    ("identity", "told", "columns"),
    [
        ("DEFAULT", "default", ["id"]),
        ("USING INDEX t_code", "index", ["code"]),
        ("FULL", "full", None),
    ],
)
def test_every_replica_identity_tells_what_it_knows(
    source_db: Database, identity: str, told: str, columns: list[str] | None
) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, note text)")
    source_db.execute("CREATE UNIQUE INDEX t_code ON t (code)")
    source_db.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute(
            "INSERT INTO t VALUES (1, 'x', 'n'); UPDATE t SET note = 'm'; UPDATE t SET id = 2, code = 'y'"
        )
        source_db.execute("DELETE FROM t")
        got = slot.catch_up("t")
        before = {"id": 1, "code": "x", "note": "m"}
        gone = {"id": 2, "code": "y", "note": "m"}
        if columns is not None:
            before = {name: value if name in columns else None for name, value in before.items()}
            gone = {name: value if name in columns else None for name, value in gone.items()}
        assert got.told("t") == [
            (INSERT, {"id": 1, "code": "x", "note": "n"}),
            (UPDATE, {"id": 1, "code": "x", "note": "m"}),
            (BEFORE, before),
            (UPDATE, {"id": 2, "code": "y", "note": "m"}),
            (DELETE, gone),
        ]
        assert [change.seq for change in got.changes] == [1, 2, 3, 4, 1]
        metadata = got.schema("t").metadata
        assert metadata[b"rapidbyte:replica_identity"] == told.encode()
        assert metadata[b"rapidbyte:identity"] == (b"null" if columns is None else f'["{columns[0]}"]'.encode())
        assert metadata[b"rapidbyte:primary_key"] == b'["id"]'


def test_without_a_key_every_update_has_the_row_that_it_was(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute("INSERT INTO t VALUES (1, NULL); UPDATE t SET b = 'x'")
        assert slot.catch_up("t").told("t") == [
            (INSERT, {"a": 1, "b": None}),
            (BEFORE, {"a": 1, "b": None}),
            (UPDATE, {"a": 1, "b": "x"}),
        ]


def test_without_an_identity_rows_can_be_inserted(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY NOTHING")
    with capturing(source_db, ["t"], options="WITH (publish = 'insert, truncate')") as slot:
        source_db.execute("INSERT INTO t VALUES (1); TRUNCATE t; INSERT INTO t VALUES (2)")
        got = slot.catch_up("t")
        assert got.told("t") == [(INSERT, {"a": 1}), (TRUNCATE, {"a": None}), (INSERT, {"a": 2})]
        assert got.schema("t").metadata[b"rapidbyte:identity"] == b"null"


LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g)"


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_long_value_that_did_not_change_is_told_or_named(source_db: Database, identity: str) -> None:
    """Stored out of line it is not in the log; with the whole old row it is."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, long text, n int, other text)")
    source_db.execute("ALTER TABLE t ALTER long SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL")
    source_db.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    source_db.execute(f"INSERT INTO t VALUES (1, {LONG}, 0, {LONG})")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute("UPDATE t SET n = 1; UPDATE t SET other = 'short'; UPDATE t SET id = 2")
        long = source_db.fetch_value("SELECT long FROM t")
        got = slot.catch_up("t")
        updates = [change for change in got.changes if change.op == UPDATE]
        if identity == "FULL":
            assert [change.unchanged for change in updates] == [(), (), ()]
            assert updates[0].values == {"id": 1, "long": long, "n": 1, "other": long}
        else:
            assert [change.unchanged for change in updates] == [("long", "other"), ("long",), ("long",)]
            assert updates[0].values == {"id": 1, "n": 1}
            assert updates[2].values == {"id": 2, "n": 1, "other": "short"}


def test_a_truncate_is_one_row_for_each_stream(source_db: Database) -> None:
    source_db.execute(f"{USERS}; CREATE TABLE orders (id int PRIMARY KEY, of int REFERENCES users)")
    with capturing(source_db, ["users", "orders"]) as slot:
        source_db.execute("INSERT INTO users VALUES (1, 'a'); INSERT INTO orders VALUES (1, 1); TRUNCATE users CASCADE")
        got = slot.catch_up("users", "orders")
        truncates = [change for change in got.changes if change.op == TRUNCATE]
        assert {change.stream for change in truncates} == {"users", "orders"}
        assert [change.seq for change in truncates] == [3, 4]
        assert truncates[0].lsn == truncates[1].lsn


@pytest.mark.parametrize("via_root", [True, False])
def test_a_partitioned_table_is_one_stream(source_db: Database, via_root: bool) -> None:
    """One partition has its columns in another order."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, note text, n int) PARTITION BY RANGE (id)")
    source_db.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    source_db.execute("CREATE TABLE t_2 (n int, note text, gone int, id int PRIMARY KEY); ALTER TABLE t_2 DROP gone")
    source_db.execute("ALTER TABLE t ATTACH PARTITION t_2 FOR VALUES FROM (10) TO (20)")
    options = f"WITH (publish_via_partition_root = {str(via_root).lower()})"
    with capturing(source_db, ["t"], options=options) as slot:
        source_db.execute("INSERT INTO t VALUES (1, 'a', 11), (11, 'b', 12), (2, 'c', 13)")
        source_db.execute("UPDATE t SET id = 12 WHERE id = 1")
        source_db.execute("TRUNCATE t")
        got = slot.catch_up("t")
        # A row that moves to another partition is deleted there and inserted here.
        assert got.told("t") == [
            (INSERT, {"id": 1, "note": "a", "n": 11}),
            (INSERT, {"id": 11, "note": "b", "n": 12}),
            (INSERT, {"id": 2, "note": "c", "n": 13}),
            (DELETE, {"id": 1, "note": None, "n": None}),
            (INSERT, {"id": 12, "note": "a", "n": 11}),
            (TRUNCATE, {"id": None, "note": None, "n": None}),
        ]
        assert len(got.schemas("t")) == 1


def test_a_partition_that_is_truncated_alone_is_refused_unless_truncates_are_ignored(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    source_db.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    source_db.execute("CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20)")
    with capturing(source_db, ["t"], options="WITH (publish_via_partition_root = false)") as slot:
        source_db.execute("INSERT INTO t VALUES (1), (11); TRUNCATE t_1")
        with pytest.raises(RapidbyteError, match="a partition was truncated alone") as caught:
            slot.catch_up("t")
        assert (caught.value.kind, caught.value.info.stream) == (Kind.DATA, "t")
        assert caught.value.hint is not None
        assert "--stream t --full-refresh" in caught.value.hint
        got = slot.catch_up({"name": "t", "truncate": "ignore"})
        assert got.told("t") == [(INSERT, {"id": 1}), (INSERT, {"id": 11})]


def test_only_the_wanted_columns_come_in_the_wanted_order(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c inet)")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute("INSERT INTO t VALUES (1, 'x', 'y', '::1')")
        got = slot.catch_up({"name": "t", "columns": ["b", "id"]})
        assert got.told("t") == [(INSERT, {"b": "y", "id": 1})]
        assert got.schema("t").names[5:] == ["b", "id"]


def test_published_columns_alone_come(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) STORED)")
    with capturing(source_db, ["t (id, g)"]) as slot:
        source_db.execute("INSERT INTO t VALUES (1, 'x')")
        assert slot.catch_up("t").told("t") == [(INSERT, {"id": 1, "g": 2})]


def test_a_table_that_changes_its_shape_is_told_anew_where_it_did(users: Capturing) -> None:
    execute = users.database.execute
    execute("INSERT INTO users VALUES (1, 'a')")
    execute("ALTER TABLE users ADD born date DEFAULT '2000-01-01'; INSERT INTO users VALUES (2, 'b')")
    execute("ALTER TABLE users DROP name; INSERT INTO users VALUES (3, NULL)")
    execute(
        "ALTER TABLE users RENAME born TO day; ALTER TABLE users ALTER id TYPE bigint; INSERT INTO users VALUES (4)"
    )
    got = users.catch_up("users")
    day = datetime(2000, 1, 1).date()
    assert got.told("users") == [
        (INSERT, {"id": 1, "name": "a"}),
        (INSERT, {"id": 2, "name": "b", "born": day}),
        (INSERT, {"id": 3, "born": None}),
        (INSERT, {"id": 4, "day": day}),
    ]
    types = [[str(field.type) for field in schema][5:] for schema in got.schemas("users")]
    assert types == [
        ["int32", "string"],
        ["int32", "string", "date32[day]"],
        ["int32", "date32[day]"],
        ["int64", "date32[day]"],
    ]
    assert got.field_metadata("users", "id")["rapidbyte:not_null"] == "true"
    assert "rapidbyte:not_null" not in got.field_metadata("users", "day")


def test_a_table_that_was_renamed_since_is_found(users: Capturing) -> None:
    users.database.execute("INSERT INTO users VALUES (1, 'a'); ALTER TABLE users RENAME TO people")
    users.database.execute("INSERT INTO people VALUES (2, 'b')")
    assert [change.values["id"] for change in users.catch_up("people").changes] == [1, 2]


def test_a_table_that_is_not_there_any_more_is_named(users: Capturing) -> None:
    users.database.execute("INSERT INTO users VALUES (1, 'a'); ALTER TABLE users RENAME TO people")
    with pytest.raises(RapidbyteError, match=r"stream users: there is no table public.users") as caught:
        users.catch_up("users")
    assert caught.value.kind is Kind.NOT_FOUND


def test_a_table_that_was_made_anew_asks_for_a_new_snapshot(source_db: Database) -> None:
    """No change says that the rows of the old one are gone. A stream that stands behind it has them no more."""
    source_db.execute(USERS)
    with capturing(source_db) as slot:
        source_db.execute(f"INSERT INTO users VALUES (1, 'a'); DROP TABLE users; {USERS}")
        position = source_db.fetch_value("SELECT pg_current_wal_insert_lsn()::text")
        source_db.execute("INSERT INTO users VALUES (2, 'b')")
        with pytest.raises(RapidbyteError, match=r"stream users: public.users is another table than it was") as caught:
            slot.catch_up("users")
        assert (caught.value.kind, caught.value.info.stream) == (Kind.CONFIG, "users")
        assert caught.value.hint is not None
        assert "--full-refresh" in caught.value.hint
        slot.position = position
        assert slot.catch_up("users").told("users") == [(INSERT, {"id": 2, "name": "b"})]


def test_a_value_that_arrow_has_no_place_for_turns_its_column_into_text(source_db: Database) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, tags int[], span interval)")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute("INSERT INTO t VALUES (1, '{1,2}', '1 day')")
        source_db.execute("INSERT INTO t VALUES (2, '[0:1]={1,2}', '1 day'), (3, '{3}', '2562047788:00:54.775807')")
        source_db.execute("INSERT INTO t VALUES (4, '{{1},{2}}', '1 year')")
        got = slot.catch_up("t")
        assert [change.values["tags"] for change in got.changes] == [[1, 2], "[0:1]={1,2}", "{3}", "{{1},{2}}"]
        assert [change.values["span"] for change in got.changes][2:] == ["2562047788:00:54.775807", "1 year"]
        assert [str(schema.field("tags").type) for schema in got.schemas("t")] == [
            "list<item: int32>",
            "string",
            "string",
        ]
        assert got.field_metadata("t", "tags")["rapidbyte:pg_type"] == "integer[]"


def test_a_column_without_a_known_binary_form_that_appears_later_is_read_from_where_it_appears(
    users: Capturing,
) -> None:
    """Everything was sent in binary form until then: the server is asked again, and no change comes twice."""
    execute = users.database.execute
    execute("INSERT INTO users VALUES (1, 'a')")
    with users.database.connect() as connection:
        connection.execute("BEGIN; INSERT INTO users VALUES (2, 'b')")
        connection.execute("ALTER TABLE users ADD host inet")
        connection.execute(
            "INSERT INTO users VALUES (3, 'c', '10.0.0.1/8'); UPDATE users SET id = 4 WHERE id = 3; COMMIT"
        )
    execute("INSERT INTO users VALUES (5, 'e', '::1')")
    # It is gone when the capture begins, and nothing warns of it.
    execute("ALTER TABLE users DROP host; INSERT INTO users VALUES (6, 'f')")
    got = users.catch_up("users")
    assert got.told("users") == [
        (INSERT, {"id": 1, "name": "a"}),
        (INSERT, {"id": 2, "name": "b"}),
        (INSERT, {"id": 3, "name": "c", "host": "10.0.0.1/8"}),
        (BEFORE, {"id": 3, "name": None, "host": None}),
        (UPDATE, {"id": 4, "name": "c", "host": "10.0.0.1/8"}),
        (INSERT, {"id": 5, "name": "e", "host": "::1"}),
        (INSERT, {"id": 6, "name": "f"}),
    ]
    assert any("as text" in text for _, text in got.host.logs)


# Barriers, and what the slot is told.


def test_a_barrier_stands_between_transactions_and_never_in_one(users: Capturing) -> None:
    """With small batches a transaction is emitted in parts."""
    sizes = [10, 3000, 1, 5000, 20, 20]
    first = 0
    for size in sizes:
        users.database.execute(
            "INSERT INTO users SELECT g, repeat('x', 40) FROM generate_series(%s::int, %s) g", [first + 1, first + size]
        )
        first += size
    got = users.catch_up("users", max_batch_bytes=64 * 1024)
    assert [change.values["id"] for change in got.changes] == list(range(1, first + 1))
    assert len(got.host.batches) > 8
    assert max(map(len, got.host.messages)) <= 64 * 1024
    borders = set(itertools.accumulate(sizes)) | {0}
    for messages, payload in got.host.barriers:
        before = sum(1 for data in got.host.messages[:messages] if data)
        rows = sum(batch.num_rows for _, _, batch in _until(got.host, before))
        assert rows in borders
        position = lsn_number(payload["cursor"]["lsn"])
        assert {change.values["id"] for change in got.changes if change.lsn < position} == set(range(1, rows + 1))
    assert len(got.host.barriers) > 2


def _until(host: CapturingHost, messages: int) -> list[Any]:
    part = CapturingHost(messages=host.messages[:messages])
    return part.batches


def test_a_batch_is_no_larger_than_asked_for_however_many_columns_it_has(source_db: Database) -> None:
    columns = ", ".join(f"c{i} int" for i in range(300))
    source_db.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    with capturing(source_db, ["t"]) as slot:
        source_db.execute("INSERT INTO t (id, c0, c299) SELECT g, g, g FROM generate_series(1, 2000) g")
        got = slot.catch_up("t", max_batch_bytes=128 * 1024)
        assert len(got.changes) == 2000
        assert max(map(len, got.host.messages)) <= 128 * 1024


def test_the_slot_is_held_where_it_is_to_be_held(users: Capturing) -> None:
    hold = users.confirmed
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    got = users.catch_up("users", confirm=False, hold=hold, seconds=1.2)
    assert len(got.changes) == 1
    assert users.confirmed == hold


def test_a_tail_brings_changes_while_they_are_made_and_moves_the_slot(users: Capturing) -> None:
    host = CapturingHost()
    seen: list[float] = []

    def write() -> None:
        for i in range(5):
            users.database.execute("INSERT INTO users VALUES (%s, 'a')", [i])
            started = time.monotonic()
            while len(host.batches) <= i and time.monotonic() - started < 5:
                time.sleep(0.005)
            seen.append(time.monotonic() - started)
        time.sleep(1.5)
        moved.append(users.confirmed)

    moved: list[str] = []
    writer = threading.Thread(target=write)
    writer.start()
    got = users.catch_up("users", host=host, seconds=4, confirm=False)
    writer.join()
    assert [change.values["id"] for change in got.changes] == list(range(5))
    assert sorted(seen)[2] < 0.5
    # During the capture, by what was settled.
    assert lsn_number(moved[0]) > got.changes[-1].lsn


@pytest.mark.full
def test_the_server_hears_of_a_capture_that_waits_for_room(users: Capturing) -> None:
    """Nothing else tells it that somebody is there, and the settled position is told meanwhile."""
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    first = users.catch_up("users", host=CapturingHost(commits=False), confirm=False)
    users.position = users.confirmed

    class Slow(CapturingHost):
        waits = 0

        def room(self, seconds: float) -> bool:
            self.waits += 1
            if self.waits <= 7:
                time.sleep(seconds)
                replies.append(replied())
                return False
            return True

    def replied() -> Any:
        [[reply_time]] = users.database.fetch(
            "SELECT r.reply_time FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid "
            "WHERE s.slot_name = %s",
            [users.slot],
            superuser=True,
        )
        return reply_time

    replies: list[Any] = []
    got = users.catch_up("users", host=Slow())
    assert got.changes == first.changes
    assert len(set(replies)) >= 2


# What must not be lost without a word.


def test_a_slot_that_was_confirmed_beyond_a_position_is_refused(users: Capturing) -> None:
    begin = users.position
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    users.catch_up("users")
    users.position = begin
    with pytest.raises(RapidbyteError, match=r"stream users stands at .* the changes between are gone") as caught:
        users.catch_up("users")
    assert caught.value.kind is Kind.CONFIG
    assert caught.value.hint is not None
    assert "--full-refresh" in caught.value.hint


def test_a_slot_that_is_not_there_is_named(users: Capturing) -> None:
    missing = Capturing(users.database, "nowhere", users.position)
    with pytest.raises(RapidbyteError, match='replication slot "nowhere" does not exist') as caught:
        missing.catch_up("users")
    assert caught.value.kind is Kind.CONFIG


@pytest.mark.full
def test_a_slot_that_another_consumer_reads_is_told(users: Capturing) -> None:
    with users.instance(CapturingHost()) as holder:
        holder.call("rb_capture", users.argument("users"))
        with pytest.raises(RapidbyteError, match="is active for PID") as caught:
            users.catch_up("users")
    assert caught.value.kind is Kind.TRANSIENT_DB
    users.catch_up("users")


def test_a_publication_that_is_not_there_is_named(users: Capturing) -> None:
    """The server passes over its changes without a word, from version 18 on."""
    users.database.execute("INSERT INTO users VALUES (1, 'a')")
    argument = users.argument("users") | {"publication": "nowhere"}
    with (
        users.instance(CapturingHost()) as instance,
        pytest.raises(RapidbyteError, match="publication nowhere does not exist") as caught,
    ):
        instance.call("rb_capture", argument)
    assert caught.value.kind is Kind.CONFIG


def test_a_publication_that_is_made_anew_during_a_capture_fails_it(users: Capturing) -> None:
    def replace() -> None:
        users.database.execute(f"DROP PUBLICATION {users.slot}", superuser=True)
        users.database.execute(f"CREATE PUBLICATION {users.slot} FOR TABLE users", superuser=True)

    replacing = threading.Timer(1, replace)
    replacing.start()
    host = CapturingHost()
    with pytest.raises(RapidbyteError, match="was made anew meanwhile"):
        users.catch_up("users", host=host, seconds=2)
    replacing.join()
    assert [payload["final"] for _, payload in host.barriers].count(True) == 0


def test_a_server_that_is_shut_down_ends_the_capture_as_a_lost_connection(own_postgres: Any) -> None:
    own_postgres.create_database("d")
    database = Database(own_postgres, "d")
    database.execute(USERS)
    slot = "shut_down"
    database.execute(f"CREATE PUBLICATION {slot} FOR TABLE users", superuser=True)
    [[position]] = database.fetch(f"SELECT lsn::text FROM pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    stopper = threading.Timer(1, own_postgres.stop)
    stopper.start()
    started = time.monotonic()
    with pytest.raises(RapidbyteError) as caught:
        Capturing(database, slot, position).catch_up("users", seconds=60)
    stopper.join()
    assert caught.value.kind in {Kind.TRANSIENT_NETWORK, Kind.TRANSIENT_DB}
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"streams": []}, "no stream"),
        ({"target": None}, "either a target or a time"),
        ({"seconds": 1}, "either a target or a time"),
        ({"target": "soon"}, "target soon is no position"),
        ({"hold": 7}, "expected shape"),
    ],
)
def test_an_argument_that_is_none_is_refused(users: Capturing, change: dict[str, Any], message: str) -> None:
    with users.instance(CapturingHost()) as instance, pytest.raises(RapidbyteError, match=message) as caught:
        instance.call("rb_capture", users.argument("users") | change)
    assert caught.value.kind is Kind.PROTOCOL
