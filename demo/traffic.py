"""`make traffic`: people at the demo's shop, until Ctrl-C: carts that are filled, changed, paid and left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.console import Console

from demo.embedded_postgres.server import USER
from demo.shop import Shop

TRANSACTIONS_PER_SECOND = 5.0
TOLD_SECONDS = 5.0
PRODUCTS, USERS = 500, 10000


@dataclass(frozen=True)
class Visit:
    """One transaction, over one table or several."""

    name: str
    weight: int
    statements: tuple[str, ...]


OPENED = Visit(
    "opened",
    4,
    (
        "insert into carts (user_id, opened_at) values (%(user)s, now())",
        "insert into cart_items select currval(pg_get_serial_sequence('carts', 'id')), %(product)s, %(quantity)s",
    ),
)
VISITS = (
    OPENED,
    Visit(
        "filled",
        6,
        (
            "insert into cart_items values (%(cart)s, %(product)s, %(quantity)s)"
            " on conflict (cart_id, product_id) do update set quantity = least(cart_items.quantity + 1, 99)",
        ),
    ),
    Visit("discounted", 1, ("update carts set coupon = 'TAKE10' where id = %(cart)s",)),
    Visit(
        "paid",
        3,
        (
            "update stock set units = units - quantity, counted_at = now()"
            " from cart_items where cart_id = %(cart)s and stock.product_id = cart_items.product_id",
            "delete from cart_items where cart_id = %(cart)s",
            "delete from carts where id = %(cart)s",
        ),
    ),
    Visit("restocked", 1, ("update stock set units = units + 100, counted_at = now() where product_id = %(product)s",)),
)

# Found first and locked then: rows that an OFFSET skips would be locked as well.
_SOME_CART = b"""
    select id from carts
    where id = (select id from carts offset floor(%s * greatest((select count(*) from carts), 1)) limit 1)
    for update skip locked
"""


def visits(connection: psycopg.Connection[Any], chance: random.Random) -> Iterator[str]:
    """Makes one after the other, each a transaction; gives its name. `connection` is in autocommit mode."""
    while True:
        (visit,) = chance.choices(VISITS, [visit.weight for visit in VISITS])
        with connection.transaction():
            # Locked, for others may be at work in the same shop.
            found = connection.execute(_SOME_CART, [chance.random()]).fetchone()
            # Before the first cart there is none to change.
            visit = visit if found else OPENED
            values = {
                "cart": found[0] if found else None,
                "user": chance.randint(1, USERS),
                "product": chance.randint(1, PRODUCTS),
                "quantity": chance.randint(1, 3),
            }
            for statement in visit.statements:
                connection.execute(statement.encode(), values)
        yield visit.name


def make_visits(shop: Shop, count: int, *, seed: int = 0) -> None:
    """So many at once."""
    with psycopg.connect(shop.server.dsn("shop", user=USER), autocommit=True) as connection:
        for _, _ in zip(range(count), visits(connection, random.Random(seed)), strict=False):
            pass


def serve_customers(shop: Shop, console: Console) -> int:
    """Goes on until it is interrupted."""
    console.print(f"{TRANSACTIONS_PER_SECOND:g} transactions per second in the shop. Ctrl-C ends it.")
    made: Counter[str] = Counter()
    told_at = time.monotonic()
    with psycopg.connect(shop.server.dsn("shop", user=USER), autocommit=True) as connection:
        for name in visits(connection, random.Random()):
            made[name] += 1
            if time.monotonic() - told_at >= TOLD_SECONDS:
                console.print(", ".join(f"{count} {name}" for name, count in sorted(made.items())))
                told_at = time.monotonic()
            time.sleep(1 / TRANSACTIONS_PER_SECOND)
    return 0
