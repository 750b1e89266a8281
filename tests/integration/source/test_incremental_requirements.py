"""What an incremental or keyed stream demands of its table: told by `rb_check`, and by `rb_read` before a row moves."""

from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError, SchemaError
from tests.integration.source.reading import Collected, check, read_increment, stream_argument
from tests.postgres_server import Database, TlsServer, unique_name


@pytest.fixture
def orders(source_db: Database) -> Database:
    source_db.execute(
        """
        create type mood as enum ('ok');
        create domain day as date;
        create table orders (id int primary key, at timestamptz not null, n numeric, f float8, ok boolean, m mood,
                             d day, doc jsonb, kind "char", tags text[], label name, i interval, t time, note text);
        insert into orders (id, at) values (1, '2024-01-01');
        create index on orders (at);
        create table keyless (id int, at date not null);
        """
    )
    return source_db


def refused(database: Database, name: str, cursor: Any = None, **stream: Any) -> RapidbyteError:
    """The error of `rb_check`'s stream at `rb_read`, which has to be the same and to come before anything else."""
    stream = {"cursor_field": "at", **stream}
    host = Collected()
    with pytest.raises(RapidbyteError) as caught:
        read_increment(database.config, name, cursor, host=host, **stream)
    assert (host.messages, host.barriers) == ([], [])
    error = caught.value
    if cursor is None:
        [finding] = check(database.config, stream_argument(name, sync_mode="incremental", **stream))[1:]
        assert finding["level"] == "error"
        assert (finding["message"], finding["hint"]) == (error.info.message, error.info.hint)
    return error


@pytest.mark.parametrize("field", ["f", "ok", "m", "d", "doc", "kind", "tags", "label", "i", "t"])
def test_a_type_without_a_usable_order_is_no_cursor(orders: Database, field: str) -> None:
    error = refused(orders, "orders", cursor_field=field)
    assert isinstance(error, ConfigError)
    assert f"column {field} cannot be a cursor: it is " in error.info.message
    assert "timestamp and timestamptz" in str(error.info.hint)


def test_text_of_a_collation_that_is_not_deterministic_is_no_cursor(tls_postgres: TlsServer) -> None:
    """On the system's server: PostgreSQL from pip was built without ICU."""
    name = unique_name("collation")
    tls_postgres.server.create_database(name)
    database = tls_postgres.database(name)
    if not database.fetch("select 1 from pg_collation where collprovider = 'i' limit 1"):
        pytest.skip("the system's PostgreSQL was built without ICU")
    database.execute(
        """
        create collation blurred (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create collation swedish (provider = icu, locale = 'sv');
        create table t (id int primary key, v text collate blurred, w text collate swedish);
        insert into t values (1, 'z', 'z'), (2, 'Z', 'ö'), (3, 'ä', 'ä');
        """
    )
    assert "a collation that is not deterministic" in refused(database, "t", cursor_field="v").info.message
    got = read_increment(database.config, "t", cursor_field="w")
    assert got.column("w") == ["z", "ä", "ö"]
    assert got.cursor["collation"] == "public.swedish"
    assert read_increment(database.config, "t", got.cursor, cursor_field="w").cursor == got.cursor
    database.execute('alter table t alter w type text collate "C"')
    error = refused(database, "t", got.cursor, cursor_field="w")
    assert isinstance(error, SchemaError)
    assert "in the order of collation public.swedish" in error.info.message


@pytest.mark.parametrize(
    ("stream", "message", "hint"),
    [
        ({"cursor_field": None}, "sync_mode incremental needs a cursor_field", "name the column"),
        ({"cursor_field": "att"}, "no such column: att, named by cursor_field", "its columns are: id, at, n, f, "),
        ({"tie_breaker_field": "idd"}, "no such column: idd, named by tie_breaker_field", "its columns are: id, at"),
        ({"tie_breaker_field": "at"}, "tie_breaker_field is the cursor_field itself (at)", "or leave"),
        ({"primary_key": ["id", "key"]}, "no such column: key, named by primary_key", "its columns are: id, at"),
        ({"columns": ["id", "note"]}, "column at (cursor_field) is not among its `columns`", "add at to `columns`"),
        ({"columns": ["id", "at"], "tie_breaker_field": "n"}, "column n (tie_breaker_field) is not among", "add n"),
        ({"columns": ["id", "at"], "primary_key": ["n"]}, "column n (primary_key) is not among", "add n"),
        ({"columns": ["at", "n"]}, "column id (the primary key) is not among", "add id"),
        ({"cursor_lag": 60}, "cursor_lag reads rows again, which write_mode append would repeat", "upsert"),
        ({"cursor_field": "n", "cursor_lag": 60, "write_mode": "upsert"}, "cursor_lag is a time, and column n", "out"),
        ({"filter": "at >"}, "syntax error", "filter"),
    ],
)
def test_what_cannot_work_is_said_before_a_row_moves(
    orders: Database, stream: dict[str, Any], message: str, hint: str
) -> None:
    error = refused(orders, "orders", **stream)
    assert message in error.info.message
    assert hint in str(error.info.hint)
    assert error.kind in (Kind.CONFIG, Kind.NOT_FOUND)


def test_an_upsert_needs_a_key_in_every_sync_mode(orders: Database) -> None:
    message = "upsert without a key: public.keyless has no primary key and the pipeline names none"
    assert message in refused(orders, "keyless", write_mode="upsert").info.message
    [finding] = check(orders.config, stream_argument("keyless", write_mode="upsert"))[1:]
    assert message in finding["message"]
    [finding] = check(orders.config, stream_argument("keyless", write_mode="upsert", primary_key=["id"]))[1:]
    assert finding["level"] == "ok"
    [finding] = check(orders.config, stream_argument("orders", write_mode="upsert", columns=["at"]))[1:]
    assert "column id (the primary key) is not among its `columns`" in finding["message"]
    [finding] = check(orders.config, stream_argument("orders", write_mode="append", columns=["at"]))[1:]
    assert finding["level"] == "ok"


def test_a_cursor_that_may_be_null_or_has_no_index_is_warned_of(orders: Database) -> None:
    orders.execute(
        """
        create table parts (id int, "Day" date not null) partition by range (id);
        create view seen as select id, at from orders;
        create index on keyless (id, at);
        create index on keyless (at) where id > 5;
        """
    )

    def findings(name: str, **stream: Any) -> list[tuple[str, str, str]]:
        found = check(orders.config, stream_argument(name, sync_mode="incremental", **stream))[1:]
        return [(each["level"], each["check"], each["hint"]) for each in found if each["level"] != "ok"]

    null_hint = "make it NOT NULL, or read a view that puts a value in its place"
    assert findings("orders", cursor_field="at") == []
    assert findings("orders", cursor_field="id") == []
    assert findings("seen", cursor_field="at") == [("warning", "cursor", null_hint)]
    assert findings("keyless", cursor_field="at", tie_breaker_field="id") == [
        ("warning", "index", 'CREATE INDEX CONCURRENTLY ON "public"."keyless" ("at", "id")')
    ]
    assert findings("parts", cursor_field="Day") == [("warning", "index", 'CREATE INDEX ON "public"."parts" ("Day")')]
    assert findings("orders", cursor_field="n") == [
        ("warning", "cursor", null_hint),
        ("warning", "index", 'CREATE INDEX CONCURRENTLY ON "public"."orders" ("n")'),
    ]
    for hint in (
        found[2] for found in findings("orders", cursor_field="n")[1:] + findings("parts", cursor_field="Day")
    ):
        orders.execute(hint)
    assert findings("parts", cursor_field="Day") == []


def test_a_cursor_of_another_column_or_type_is_refused(orders: Database) -> None:
    cursor = read_increment(orders.config, "orders", cursor_field="at").cursor
    error = refused(orders, "orders", cursor, cursor_field="id")
    assert isinstance(error, SchemaError)
    assert "the stored cursor is one of column at, and cursor_field is id now" in error.info.message
    assert "`rapidbyte state reset FILE --stream orders`" in str(error.info.hint)
    orders.execute("alter table orders alter at type timestamp using at")
    error = refused(orders, "orders", cursor)
    assert "is of type timestamptz, and column at is timestamp without time zone now" in error.info.message
    orders.execute("alter table orders drop at")
    assert "no such column: at, named by cursor_field" in refused(orders, "orders", cursor).info.message
    # Within a family values keep their meaning.
    cursor = read_increment(orders.config, "orders", cursor_field="id").cursor
    orders.execute("alter table orders alter id type bigint; insert into orders (id) values (5000000000)")
    assert read_increment(orders.config, "orders", cursor, cursor_field="id").column("id") == [5000000000]


def test_a_cursor_that_this_connector_did_not_make_is_refused(orders: Database) -> None:
    good = read_increment(orders.config, "orders", cursor_field="at").cursor
    seen = good["seen"]
    broken: list[Any] = [
        7,
        "2024-01-01",
        [],
        {},
        {"field": "at"},
        {**good, "type": "float8"},
        {**good, "value": 5},
        {**good, "value": "yesterday"},
        {**good, "value": "infinity"},
        {**good, "value": "2024-01-01 00:00:00"},
        {**good, "value": "2024-02-30 00:00:00+00"},
        {**good, "value": "2024-01-01 00:00:00+00'; drop table orders; --"},
        {**good, "seen": {**seen, "set": "!"}},
        {**good, "seen": {**seen, "set": "gA"}},
        {**good, "seen": {**seen, "shape": "none"}},
        {**good, "seen": {**seen, "by": ["id", "at"]}},
        {**good, "seen": {**seen, "by": []}},
        {**good, "seen": {**seen, "by": ["gone"]}},
        {**good, "seen": "all"},
        {**good, "seen": None},
    ]
    for cursor in broken:
        error = refused(orders, "orders", cursor)
        assert isinstance(error, SchemaError), cursor
        assert "rapidbyte state reset" in str(error.info.hint)
    assert orders.fetch_value("select count(*) from orders") == 1
