"""What `make demo` promises, run as it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.shop import open_shop

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 60.0


@pytest.fixture
def demo_folder() -> Iterator[Path]:
    """In place of `.demo`: short, and open to the account of the server."""
    with tempfile.TemporaryDirectory(prefix="rapidbyte-demo-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "DEMO_FOLDER": str(folder), "COLUMNS": "140"}


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_the_demo_copies_the_shop_and_does_so_again(demo_folder: Path) -> None:
    # Orders are incremental: the second run finds nothing new.
    for rows in ("130,500", "10,500"):
        done = run_demo(demo_folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{rows} rows moved" in done.stdout
        # Three tables that are copied, and three whose changes are captured.
        assert done.stdout.count("equal") == 6
        assert "of 500 transactions captured" in done.stdout
        # Calm: neither Dagster's debug lines nor warnings.
        assert done.stderr == ""
    with open_shop(demo_folder / "postgres") as shop:
        for table in ("users", "products", "orders", "carts", "cart_items", "stock"):
            query = f"select count(*), sum(hashtextextended(t::text, 0)::numeric) from {table} as t"
            with shop.server.connect("shop") as source, shop.server.connect("warehouse") as warehouse:
                warehouse.execute("set search_path = raw")
                assert warehouse.execute(query.encode()).fetchone() == source.execute(query.encode()).fetchone()


@pytest.mark.full
def test_a_shop_that_is_seeded_anew_leaves_nothing_of_the_old_one(demo_folder: Path) -> None:
    with open_shop(demo_folder / "postgres") as shop:
        with shop.server.connect("warehouse") as connection:
            connection.execute("create schema raw; create table raw.stock (product_id int)")
        with shop.server.connect("shop") as connection:
            connection.execute("select pg_create_logical_replication_slot('rapidbyte_shop_cdc', 'pgoutput')")
            connection.execute("truncate stock")
            # As an older seed would have left it.
            connection.execute("comment on database shop is 'seeded otherwise'")
    with open_shop(demo_folder / "postgres") as shop:
        assert shop.count("shop", "stock") == 500
        assert shop.count("shop", "pg_replication_slots") == 0
        assert shop.count("warehouse", "pg_namespace where nspname = 'raw'") == 0


@pytest.mark.full
def test_a_demo_that_fails_says_why_in_one_message_and_ends_with_an_error(demo_folder: Path) -> None:
    with open_shop(demo_folder / "postgres") as shop, shop.server.connect("shop") as connection:
        connection.execute("alter table orders rename to orders_gone")
    done = run_demo(demo_folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "orders" in done.stdout
    assert "hint" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # The other streams are not held up.
    assert "raw.users" in done.stdout


def test_the_demo_serves_dagsters_ui_until_it_is_told_to_stop(demo_folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dev = subprocess.Popen(
        [sys.executable, "-m", "demo", "dev"],
        cwd=ROOT,
        env={**environment(demo_folder), "DEV_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert "rapidbyte" in ask_for_code_locations(port)
        dev.send_signal(signal.SIGTERM)
        said, _ = dev.communicate(timeout=STOP_SECONDS)
    finally:
        dev.kill()
        dev.wait()
    assert dev.returncode == 0, said
    assert f"http://127.0.0.1:{port}" in said
    assert not (demo_folder / "postgres" / "data" / "postmaster.pid").exists()


def ask_for_code_locations(port: int) -> str:
    """What Dagster's webserver answers when its code location is loaded."""
    query = json.dumps({"query": "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", query.encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + START_SECONDS
    answer: str = "nothing"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(request) as response:
            answer = str(response.read().decode())
            if "LOADED" in answer:
                return answer
        time.sleep(0.2)
    raise AssertionError(f"the code location did not load: {answer}")


def test_the_demos_shell_knows_the_command_and_its_variables(demo_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "shell"],
        cwd=ROOT,
        env={**environment(demo_folder), "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
        input="rapidbyte check pipelines/shop.yaml && rapidbyte run --stream users pipelines/shop.yaml; exit $?\n",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "raw.users" in done.stdout
    assert "10,000" in done.stdout


def test_an_unknown_command_is_a_usage_error(demo_folder: Path) -> None:
    done = run_demo(demo_folder, "fly")
    assert done.returncode == 64
    assert done.stderr.startswith("usage:")
