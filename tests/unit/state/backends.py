"""Stores that tests open more than once, from other processes too."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from rapidbyte_dagster.config import StateConnection
from rapidbyte_dagster.config.problems import Origin
from rapidbyte_dagster.config.state_connection import resolve_connection
from rapidbyte_dagster.state import StateStore, postgres, sqlite
from rapidbyte_dagster.state.dead_letter_sql import LetterTable
from rapidbyte_dagster.state.postgres import PostgresStateStore
from rapidbyte_dagster.state.sqlite import SqliteStateStore


class Backend(Protocol):
    newer_format: str
    """The statement that makes the store one of a version that does not exist yet."""

    def open(self, letters: LetterTable | None = None) -> StateStore: ...

    def existing(self, letters: LetterTable | None = None) -> StateStore | None:
        """The store for a look."""
        ...

    def leaves(self) -> Sequence[str]:
        """What there is of it, by name."""
        ...

    def execute(self, statement: str) -> None:
        """Runs `statement` behind the store's back."""
        ...

    def make_first_format(self) -> None:
        """Makes the store as the first version did."""
        ...

    def neighbours(self, number: int) -> Sequence[Backend]:
        """New stores beside this one."""
        ...


@dataclass
class SqliteBackend:
    path: str
    newer_format: str = "PRAGMA user_version = 99"

    def open(self, letters: LetterTable | None = None) -> SqliteStateStore:
        return SqliteStateStore(Path(self.path), letters=letters)

    def existing(self, letters: LetterTable | None = None) -> SqliteStateStore | None:
        return SqliteStateStore.existing(Path(self.path), letters=letters)

    def leaves(self) -> list[str]:
        return [str(path) for path in Path(self.path).parent.glob("*")]

    def execute(self, statement: str) -> None:
        with sqlite3.connect(self.path) as db:
            db.execute(statement)

    def make_first_format(self) -> None:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        for statement in (*sqlite.MIGRATIONS[0], "PRAGMA user_version = 1"):
            self.execute(statement)

    def neighbours(self, number: int) -> list[SqliteBackend]:
        return [SqliteBackend(f"{self.path}.{each}") for each in range(number)]


@dataclass
class PostgresBackend:
    dsn: str
    newer_format: str = "UPDATE _rapidbyte_state_format SET version = 99"

    def open(self, letters: LetterTable | None = None) -> PostgresStateStore:
        return PostgresStateStore(connection_to(self.dsn), letters=letters)

    def existing(self, letters: LetterTable | None = None) -> PostgresStateStore | None:
        return PostgresStateStore.existing(connection_to(self.dsn), letters=letters)

    def leaves(self) -> list[str]:
        with psycopg.connect(self.dsn) as db:
            return [name for (name,) in db.execute("SELECT relname FROM pg_class WHERE relname LIKE '%rapidbyte%'")]

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as db:
            db.execute(statement.encode())

    def make_first_format(self) -> None:
        table = postgres.FORMAT_TABLE
        made = (f"CREATE TABLE {table} (version BIGINT NOT NULL)", f"INSERT INTO {table} VALUES (1)")
        for statement in (*postgres.MIGRATIONS[0], *made):
            self.execute(statement)

    def neighbours(self, number: int) -> list[PostgresBackend]:
        found = []
        for each in range(number):
            self.execute(f"CREATE SCHEMA store{each}")
            found.append(PostgresBackend(make_conninfo(self.dsn, options=f"-csearch_path=store{each}")))
        return found


def connection_to(dsn: str) -> StateConnection:
    """`dsn` as a pipeline file would hand it to a store: from a variable."""
    return resolve_connection(Origin("shop.yaml", {}), "${STATE_DSN}", {"STATE_DSN": dsn})
