"""What sweeps remove: expired and damaged entries, and the directories of namespaces that are empty."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import FileStore, StoreError
from storeconf.stores.file import operations
from storeconf.stores.file.format import COMMITTED, entry_name, pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).parents[2]
FUTURE = 2**31


def entry(directory: Path, key: str = "k") -> Path:
    return directory / entry_name(f"::{key}".encode()).decode()


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the entries that are opened for reading from now on."""
    names: list[str] = []
    real = os.open

    def open_(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR) and os.fsdecode(path).endswith(".kv"):
            names.append(os.fsdecode(path).rpartition("/")[2])
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", open_)
    return names


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_namespaces_whose_entries_have_expired_leave_no_directory(tmp_path: Path, durability: Any) -> None:
    async def main() -> None:
        async with FileStore(tmp_path, durability=durability) as store:
            await store.set("stays", "v", 600)
            for number in range(30):
                user = store.with_namespace(f"user{number}")
                await user.with_namespace("deep").with_namespace("er").set("k", "v", 0.001)
                await user.set("k", "v", 0.001)
            await store.with_namespace("user7").set("stays", "v")
            await store.with_namespace("user8").with_namespace("deep").set("stays", "v")
            (tmp_path / "user9.ns" / "readme").write_text("foreign")
            (tmp_path / "user10.ns" / "deep.ns" / ("f" * 40 + ".kv")).symlink_to(tmp_path)
            await asyncio.sleep(0.005)
            await store.delete_expired()
            left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ns"))
            assert left == ["user7.ns", "user8.ns", "user8.ns/deep.ns", "user9.ns"]
            assert await store.with_namespace("user7").get("stays") == b"v"
            await store.with_namespace("user0").set("k", "again")
            assert await store.with_namespace("user0").get("k") == b"again"

    asyncio.run(main())


def test_delete_expired_of_a_namespace_removes_its_own_directory(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            for name in ("a", "ab"):
                await store.with_namespace(name).set("k", "v", 0.001)
            await asyncio.sleep(0.005)
            await store.with_namespace("a").delete_expired()
            assert [path.name for path in tmp_path.glob("*.ns")] == ["ab.ns"]
            await store.delete_expired()
            assert not list(tmp_path.glob("*.ns"))
            assert tmp_path.is_dir()

    asyncio.run(main())


SWEEPS = """
import asyncio, sys
from storeconf import FileStore

async def main():
    async with FileStore(sys.argv[1]) as store:
        print("begins", flush=True)
        while True:
            await store.delete_expired()

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_no_write_fails_or_is_lost_while_others_remove_empty_namespaces(tmp_path: Path, durability: Any) -> None:
    async def main() -> None:
        async with FileStore(tmp_path, durability=durability) as store:
            place = store.with_namespace("a").with_namespace("b")
            children = [
                subprocess.Popen([sys.executable, "-c", SWEEPS, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
                for _ in range(2)
            ]
            try:
                for child in children:
                    assert child.stdout is not None
                    assert child.stdout.readline() == b"begins\n"
                end = time.monotonic() + 1.0
                turn = 0
                while time.monotonic() < end:
                    turn += 1
                    await place.set("k", b"%d" % turn)
                    assert await place.get("k") == b"%d" % turn
                    assert await place.increment("n") == 1
                    assert await place.pop("n") == b"1"
                    await place.delete("k")
            finally:
                for child in children:
                    child.kill()
                    child.communicate()

    asyncio.run(main())


def test_a_sweep_opens_only_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_PLAIN_CHECKS", 0)
    monkeypatch.setattr(operations, "SWEEP_DELAY", 1e6)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set_many({f"live{number}": "v" for number in range(1000)}, 600)
            await store.set_many({f"permanent{number}": "v" for number in range(1000)})
            await store.set_many({f"due{number}": "v" for number in range(10)}, 0.001)
            await store.set("longer", "v", 0.001)
            await store.set("longer", "v", 600)
            await store.set("touched", "v", 600)
            await store.touch("touched", 0.001)
            await store.set("kept", "v", 600)
            await store.touch("kept", 300)
            await asyncio.sleep(0.005)
            names = opened(monkeypatch)
            await store.delete_expired()
            due = {entry(tmp_path, key).name for key in (*(f"due{number}" for number in range(10)), "touched")}
            assert due <= set(names)
            assert len(set(names)) < 40  # with one part in 256 of the others
            assert not any((tmp_path / name).exists() for name in due)
            assert len(list(tmp_path.glob("*.kv"))) == 2002

    asyncio.run(main())


def test_listing_keys_opens_each_entry_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SWEEP_DELAY", 1e6)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            for place in (store, store.with_namespace("n")):
                await place.set_many({f"k{size}": bytes(size) for size in (0, 100, 4096, 8192, 300_000)})
                await place.set("longer", "v", 600)
                await place.set("expired", "v", 0.001)
            await asyncio.sleep(0.005)
            names = opened(monkeypatch)
            live = ["k0", "k100", "k300000", "k4096", "k8192", "longer"]
            assert sorted([key async for key in store.keys()]) == live
            assert len(names) == len(set(names)) == 7
            names.clear()
            assert [key async for key in store.keys("long")] == ["longer"]
            assert len(names) == len(set(names)) == 7

    asyncio.run(main())


def plant(directory: Path, key: str, expiry: int, times: float | None) -> None:
    """Write an entry as an older version did, or one whose times a backup has not kept."""
    place = entry(directory, key)
    place.write_bytes(pack(f"::{key}".encode(), b"v", expiry, COMMITTED) + b"v")
    if times is not None:
        os.utime(place, (times, times))


@pytest.mark.parametrize("times", [None, 1.0, 2.0**32])
def test_the_header_decides_whatever_the_times_of_the_file_are(tmp_path: Path, times: float | None) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            now = time.time_ns() // 1_000_000
            plant(tmp_path, "permanent", 0, times)
            plant(tmp_path, "live", now + 600_000, times)
            plant(tmp_path, "expired", now - 600_000, times)
            for _ in range(3):
                assert await store.get_many(["permanent", "live", "expired"]) == {"permanent": b"v", "live": b"v"}
                assert sorted([key async for key in store.keys()]) == ["live", "permanent"]
                await store.delete_expired()
            assert sorted(tmp_path.glob("*.kv")) == sorted([entry(tmp_path, "live"), entry(tmp_path, "permanent")])

    asyncio.run(main())


def test_entries_of_older_versions_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_PLAIN_CHECKS", 0)
    monkeypatch.setattr(operations, "_PARTS", 1 << 20)
    monkeypatch.setattr(operations, "SWEEP_DELAY", 1e6)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            now = time.time_ns() // 1_000_000
            for number in range(50):
                plant(tmp_path, f"permanent{number}", 0, None)
                plant(tmp_path, f"live{number}", now + 600_000, None)
            names = opened(monkeypatch)
            await store.delete_expired()
            assert len(set(names)) == 100
            names.clear()
            await store.delete_expired()
            assert not names
            assert abs(entry(tmp_path, "live0").stat().st_mtime - (now / 1000 + 600)) < 1
            assert entry(tmp_path, "permanent0").stat().st_mtime > now / 1000 + FUTURE - 60

    asyncio.run(main())


def test_an_expired_entry_that_is_not_due_is_collected_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_PLAIN_CHECKS", 0)
    monkeypatch.setattr(operations, "SWEEP_DELAY", 1e6)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            for number in range(20):
                plant(tmp_path, f"k{number}", 1, time.time() + FUTURE)
            await store.set("live", "v")
            for _ in range(256):
                await store.delete_expired()
            assert list(tmp_path.glob("*.kv")) == [entry(tmp_path, "live")]

    asyncio.run(main())


def test_hard_links_keep_their_times(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path / "data") as store:
            await store.get("k")
            plant(tmp_path / "data", "k", 0, 1000.0)
            os.link(entry(tmp_path / "data"), tmp_path / "backup")
            await store.delete_expired()
            assert (tmp_path / "backup").stat().st_mtime == 1000
            assert await store.get("k") == b"v"

    asyncio.run(main())


@pytest.mark.parametrize("clock", [-1000, -1, 0, 4_000_000_000, 253_402_300_799, 10**11, 10**20, 10**40])
def test_whatever_the_clock_says_no_call_fails_with_another_error(
    tmp_path: Path, clock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a battery starts in 1970, or anywhere."""
    monkeypatch.setattr(time, "time_ns", lambda: clock * 10**9)
    monkeypatch.setattr(time, "time", lambda: float(clock))
    calls: list[Callable[[FileStore], Awaitable[object]]] = [
        lambda store: store.set("k", "v", 100),
        lambda store: store.set("k", "v"),
        lambda store: store.touch("k", 100),
        lambda store: store.get("k", renew_for=100),
        lambda store: store.get("k", renew_for=0.001),
        lambda store: store.add("a", "v", 100),
        lambda store: store.increment("n", expires_in=100),
        lambda store: store.set_many({"m": "v"}, 100),
        lambda store: store.set("k", "v", 10**9),
        lambda store: store.expires_in("k"),
        lambda store: store.get_with_expiry("k"),
        lambda store: store.delete_expired(),
        lambda store: store.pop("k"),
        lambda store: store.delete_all(),
    ]

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            for call in calls:
                try:
                    await call(store)
                except StoreError as error:
                    assert "the clock of this machine is wrong" in str(error)  # noqa: PT017  # most calls work
            await store.set("k", "v")
            assert await store.get("k") == b"v"

    asyncio.run(main())
