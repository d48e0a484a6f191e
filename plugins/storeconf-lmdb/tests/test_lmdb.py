"""storeconf's own suite over the backend, and what is LMDB's alone."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import lmdb
import pytest
from litestar.stores.file import FileStore
from storeconf_lmdb import LmdbStore, environment
from storeconf_lmdb.store import MAP_SIZE

import storeconf
from storeconf import StoreError, StoreRefusedError, StoreUnavailableError
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LARGE = b"v" * 100_000


class TestLmdbStore(StoreConformance):
    model_examples = 20

    def make_store(self) -> LmdbStore:
        return LmdbStore(self.directory / "data")


class TestDurableAsChild(StoreConformance):
    model_examples = 10
    namespaces = ("parent" * 80, "child")

    def make_store(self) -> LmdbStore:
        return LmdbStore(self.directory / "data", durability="fsync")


def test_a_layout_names_it(tmp_path: Path) -> None:
    (tmp_path / "storeconf.yaml").write_text("stores: {jobs: {type: lmdb, path: deep/jobs, max_size: 1GiB}}")

    async def use() -> None:
        async with storeconf.load(tmp_path / "storeconf.yaml", environ={}) as registry:
            await registry["jobs"].set("k", "v")
            result = (await registry.ping())["jobs"]
            assert result.ok
            assert (result.server or "").startswith("LMDB 0.9")

    asyncio.run(use())
    assert stat.S_IMODE((tmp_path / "deep/jobs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep/jobs/data.mdb").stat().st_mode) == 0o600


def test_two_roots_in_one_place_are_refused(tmp_path: Path) -> None:
    stores = {name: {"type": "lmdb", "path": str(tmp_path)} for name in "ab"}
    with pytest.raises(storeconf.ConfigError, match="use"):
        storeconf.read_layout({"stores": stores}, environ={})


def test_a_full_map_grows(tmp_path: Path) -> None:
    async def use() -> None:
        async with LmdbStore(tmp_path) as store:
            await asyncio.gather(*(store.set(f"k{n}", LARGE) for n in range(600)))
            assert await store.get("k599") == LARGE
            assert (tmp_path / "data.mdb").stat().st_size > 3 * MAP_SIZE

    asyncio.run(use())


def test_a_full_database_refuses_writes_and_can_be_emptied(tmp_path: Path) -> None:
    async def fill(store: LmdbStore, value: bytes) -> int:
        for number in range(100_000):
            try:
                await store.set(f"{len(value)}-{number}", value)
            except StoreRefusedError as error:
                refused = error
                break
        assert (refused.code, refused.operation, refused.outcome_unknown) == ("OOM", "set", False)
        assert f"is full: it has reached its max_size of {MAP_SIZE:,} bytes" in str(refused)
        return number

    async def use() -> None:
        async with LmdbStore(tmp_path, max_size=MAP_SIZE) as store:
            count = await fill(store, LARGE)
            for size in (8_000, 1_000, 1):  # to the last page
                await fill(store, b"v" * size)
            assert count > 100
            assert await store.get(f"100000-{count - 1}") == LARGE
            results = await asyncio.gather(
                store.set("large", LARGE), store.pop("100000-0"), store.set("more", LARGE), return_exceptions=True
            )
            assert results[1] == LARGE
            assert await store.delete_many(["100000-1", "100000-2"]) == 2
            await store.set("large", LARGE)
            await store.delete_all()
            assert await fill(store, LARGE) > count * 3 / 4  # the rest is in pieces

    asyncio.run(use())
    assert (tmp_path / "data.mdb").stat().st_size <= MAP_SIZE + (1 << 20)


def test_what_has_expired_makes_room(tmp_path: Path) -> None:
    async def use() -> None:
        async with LmdbStore(tmp_path, max_size=MAP_SIZE) as store:
            for number in range(500):
                await store.set(f"k{number}", LARGE, expires_in=0.001)
            assert await store.get("k499") in (None, LARGE)

    asyncio.run(use())


def test_expired_entries_leave_nothing_behind(tmp_path: Path) -> None:
    async def use() -> None:
        async with LmdbStore(tmp_path) as store:
            below = store.with_namespace("n" * 200).with_namespace("n" * 300)
            for handle in (store, below):
                for key in ("k", "x" * 2000):
                    await handle.set(key, "v", expires_in=5)
                    await handle.set(key, "v", expires_in=0.01)
                    await handle.set(f"{key}2", "v", expires_in=5)
                    await handle.set(f"{key}2", "v")
            await asyncio.sleep(0.02)
            await store.delete_expired()
            assert sorted([(names, key[:2]) async for names, key in store.walk()]) == [
                ((), "k2"),
                ((), "xx"),
                (("n" * 200, "n" * 300), "k2"),
                (("n" * 200, "n" * 300), "xx"),
            ]

    asyncio.run(use())
    with lmdb.open(str(tmp_path), max_dbs=3) as database, database.begin() as transaction:
        counts = {name: transaction.stat(database.open_db(name, transaction))["entries"] for name in TABLES}
    assert counts == {b"entries": 4, b"expiries": 0, b"paths": 1}


TABLES = (b"entries", b"expiries", b"paths")

PROGRAM = """
import asyncio, pathlib, sys
from storeconf_lmdb import LmdbStore

async def main():
    async with LmdbStore(pathlib.Path(sys.argv[1])) as store:
        for number in range(100):
            await store.increment("n")
            await store.set(f"{sys.argv[2]}-{number}", b"v" * 100_000)
        for number in range(100):
            assert await store.get(f"{sys.argv[2]}-{number}") == b"v" * 100_000

asyncio.run(main())
"""


def test_processes_that_open_a_new_database_at_once_and_grow_it(tmp_path: Path) -> None:
    path = tmp_path / "new"
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(number)]) for number in range(4)]
    assert [each.wait(60) for each in running] == [0] * 4

    async def total() -> bytes | None:
        async with LmdbStore(path) as store:
            return await store.get("n")

    assert asyncio.run(total()) == b"400"
    assert (path / "data.mdb").stat().st_size > 2 * MAP_SIZE


def test_a_process_that_died_leaves_no_lock_and_no_reader(tmp_path: Path) -> None:
    async def use() -> None:
        async with LmdbStore(tmp_path) as store:
            await store.set("k", "v")
            for _ in range(3):
                await asyncio.to_thread(fork, store)
            assert await asyncio.wait_for(store.increment("n"), 10) > 0
            assert await store.get("k") == b"v"

    def fork(store: LmdbStore) -> None:
        if not (child := os.fork()):
            asyncio.run(die(store))
        os.waitpid(child, 0)

    async def die(store: LmdbStore) -> None:
        tasks = [asyncio.ensure_future(store.increment("n")) for _ in range(1_000)]
        await tasks[0]
        os._exit(1)

    asyncio.run(use())


def test_other_settings_for_an_open_database_are_refused(tmp_path: Path) -> None:
    async def use() -> None:
        async with LmdbStore(tmp_path), LmdbStore(tmp_path):
            with pytest.raises(StoreError, match="is open in this process with other settings"):
                await LmdbStore(tmp_path, durability="fsync").get("k")
        async with LmdbStore(tmp_path, durability="fsync") as store:
            assert await store.get("k") is None

    asyncio.run(use())


def test_opening_gives_up_on_a_map_that_never_stops_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def grown(*_: object, **__: object) -> None:
        attempts.append(None)
        raise lmdb.MapResizedError("grown")

    async def work() -> None:
        with pytest.raises(StoreUnavailableError, match="grown"):
            await LmdbStore(tmp_path / "data").get("k")
        monkeypatch.undo()
        async with LmdbStore(tmp_path / "data") as store:
            await store.set("k", "v")

    monkeypatch.setattr(lmdb, "open", grown)
    monkeypatch.setattr(environment, "OPENING", 0.01)
    asyncio.run(work())
    assert len(attempts) > 1


def test_a_damaged_database_is_an_error_of_storeconf(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"this is no database" * 1_000)

    async def use() -> None:
        with pytest.raises(storeconf.StoreUnavailableError, match=r"MDB_INVALID"):
            await LmdbStore(tmp_path).get("k")

    asyncio.run(use())


def test_it_is_faster_than_files(tmp_path: Path) -> None:
    """On a quiet machine it reads 35 times and writes 14 times as fast as Litestar's FileStore."""

    async def seconds(work: Callable[[], Awaitable[object]], count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            await work()
        return (time.perf_counter() - began) / count

    async def compare() -> None:
        files = FileStore(tmp_path / "files", create_directories=True)
        async with LmdbStore(tmp_path / "lmdb") as store:
            times: dict[str, list[float]] = {}
            for _ in range(5):
                for name, call, count in (
                    ("set", lambda: store.set("k", b"v" * 1000), 200),
                    ("get", lambda: store.get("k"), 2_000),
                    ("set of files", lambda: files.set("k", b"v" * 1000), 50),
                    ("get of files", lambda: files.get("k"), 100),
                ):
                    times.setdefault(name, []).append(await seconds(call, count))
            best = {name: min(each) for name, each in times.items()}
            assert best["get"] < best["get of files"] / 15, best
            assert best["set"] < best["set of files"] / 2, best

    asyncio.run(compare())
