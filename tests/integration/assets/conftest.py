from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.integration.assets.project import Project
from tests.postgres_server import Database

SHOP = """
    create table users (id bigint primary key, email text not null, created_at timestamptz not null default now());
    insert into users select n, 'user' || n || '@example.com' from generate_series(1, 1000) as n;
    create table orders (id int primary key, user_id bigint not null, total numeric(12, 2));
    insert into orders select n, n % 1000 + 1, n * 1.5 from generate_series(1, 5000) as n;
    create table empty (id int primary key, note varchar(20));
"""


@pytest.fixture
def project(tmp_path: Path, source_db: Database, destination_db: Database, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without pipelines over a seeded shop; what its pipelines need is in this process's environment too."""
    source_db.execute(SHOP)
    project = Project(tmp_path / "project", source_db, destination_db)
    project.create()
    project.variables["SHOP_PASSWORD"] = str(source_db.config["password"])
    monkeypatch.setenv("SHOP_PASSWORD", project.variables["SHOP_PASSWORD"])
    monkeypatch.setenv("DAGSTER_HOME", str(project.dagster_home))
    return project


@pytest.fixture
def instance(project: Project) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance
