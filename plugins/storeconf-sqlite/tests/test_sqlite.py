"""storeconf's own suite over the backend, and what is SQLite's alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from storeconf_sqlite import SqliteStore

import storeconf
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from pathlib import Path


class TestSqliteStore(StoreConformance):
    model_examples = 20
    threads = False  # one worker thread serves one event loop at a time

    def make_store(self) -> SqliteStore:
        return SqliteStore(self.directory / "data.sqlite")


class TestSqliteStoreAsChild(TestSqliteStore):
    model_examples = 10
    namespaces = ("parent", "child")


def test_a_layout_names_it(tmp_path: Path) -> None:
    (tmp_path / "storeconf.yaml").write_text("stores: {jobs: {type: sqlite, path: deep/down/jobs.sqlite}}")

    async def use() -> None:
        async with storeconf.load(tmp_path / "storeconf.yaml", environ={}) as registry:
            await registry["jobs"].set("k", "v")
            result = (await registry.ping())["jobs"]
            assert result.ok
            assert (result.server or "").startswith("SQLite")

    asyncio.run(use())
    assert (tmp_path / "deep/down/jobs.sqlite").exists()


def test_two_roots_on_one_file_are_refused() -> None:
    stores = {"a": {"type": "sqlite", "path": "/tmp/x.sqlite"}, "b": {"type": "sqlite", "path": "/tmp/x.sqlite"}}
    with pytest.raises(storeconf.ConfigError, match="use"):
        storeconf.read_layout({"stores": stores}, environ={})


def test_increments_of_several_processes_are_exact(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from storeconf_sqlite import SqliteStore\n"
        "async def main():\n"
        "    async with SqliteStore(pathlib.Path(sys.argv[1])) as store:\n"
        "        for _ in range(200): await store.increment('n')\n"
        "asyncio.run(main())\n"
    )
    database = tmp_path / "data.sqlite"
    running = [subprocess.Popen([sys.executable, "-c", program, str(database)]) for _ in range(4)]
    assert [each.wait(60) for each in running] == [0] * 4

    async def total() -> bytes | None:
        async with SqliteStore(database) as store:
            return await store.get("n")

    assert asyncio.run(total()) == b"800"


START = """
import asyncio, pathlib, sys, time
from storeconf_sqlite import SqliteStore

async def main(store):
    async with store:
        await store.set(sys.argv[1], "v")

print("ready", flush=True)
for line in sys.stdin:
    moment, path = line.split()
    time.sleep(max(0, float(moment) - time.time()))
    asyncio.run(main(SqliteStore(pathlib.Path(path))))
    print("done", flush=True)
"""


def test_processes_that_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(6)
    ]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for attempt in range(25):
            for each in running:
                assert each.stdin is not None
                each.stdin.write(f"{time.time() + 0.02} {tmp_path / str(attempt)}\n")
                each.stdin.flush()
            assert [each.stdout and each.stdout.readline() for each in running] == ["done\n"] * len(running)
    finally:
        for each in running:
            each.kill()
            each.communicate()
