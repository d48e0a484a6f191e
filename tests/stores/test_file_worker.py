"""The file store's worker thread: hand-over, several loops, closing, cancelling, sweeping, failing disks."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import FileStore, StoreClosedError, StoreUnavailableError
from storeconf.stores.file import operations, syncing, system
from storeconf.stores.file.format import lock_number
from storeconf.stores.file.system import Locks, RangeLocks
from storeconf.stores.file.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BOTH = pytest.mark.parametrize("durability", ["flush", "fsync"])


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("storeconf-file")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def files(path: Path) -> int:
    """How many entries there are; directories may be removed meanwhile."""
    return sum(name.endswith(".kv") for _, _, names in os.walk(path) for name in names)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_calls_of_one_turn_go_over_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cached_open", None)
    sizes: list[int] = []
    put = Worker.put

    def count(self: Worker, lane: Any, calls: list[Any]) -> None:
        sizes.append(len(calls))
        put(self, lane, calls)

    monkeypatch.setattr(Worker, "put", count)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            sizes.clear()
            for _ in range(4):
                await asyncio.gather(*(store.set(f"k{key}", b"v") for key in range(50)))
            assert sizes == [1, 49, 50, 50, 50]  # a lone call does not wait for company
            sizes.clear()
            for _ in range(3):
                await store.touch("k0", 60)
            assert sizes == [1, 1, 1]

    asyncio.run(main())


@BOTH
def test_nothing_is_left_after_closing(tmp_path: Path, durability: Any) -> None:
    store = FileStore(tmp_path, durability=durability)

    async def main() -> None:
        for _ in range(3):
            async with store:
                await asyncio.gather(*(store.set(f"k{key}", b"v") for key in range(20)))
                await store.get("k0")
                assert workers()
            assert not workers()

    asyncio.run(main())
    before = open_files()
    asyncio.run(main())
    assert open_files() == before
    assert not list((tmp_path / "storeconf.spare").iterdir())


def test_a_store_that_is_forgotten_ends_its_thread(tmp_path: Path) -> None:
    before = open_files()

    async def main() -> None:
        await FileStore(tmp_path).set("k", b"v")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
        asyncio.run(until(lambda: not workers()))
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert open_files() == before
    assert not list((tmp_path / "storeconf.spare").iterdir())


@BOTH
def test_an_opening_that_fails_leaves_nothing(tmp_path: Path, durability: Any) -> None:
    async def main() -> None:
        with pytest.raises(StoreUnavailableError):
            await FileStore(tmp_path / "missing", durability=durability, must_exist=True).get("k")
        await until(lambda: not workers())

    before = open_files()
    asyncio.run(main())
    assert open_files() == before


@BOTH
def test_several_loops_at_once(tmp_path: Path, durability: Any) -> None:
    store = FileStore(tmp_path, durability=durability)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        for turn in range(10):
            await asyncio.gather(*(store.set(f"{name}{key}", b"%d" % turn) for key in range(10)))
            await store.increment("n")
            assert await store.get(f"{name}9") == b"%d" % turn

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)

    async def main() -> None:
        async with store:
            threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
            for thread in threads:
                thread.start()
            await until(lambda: not any(thread.is_alive() for thread in threads))
            assert await store.get("n") == b"30"

    asyncio.run(main())
    assert not failures


@BOTH
def test_cancelled_calls_break_nothing(tmp_path: Path, durability: Any) -> None:
    async def main() -> None:
        async with FileStore(tmp_path, durability=durability) as store:
            await store.set("k", b"old")
            for turns in range(4):
                calls: list[asyncio.Future[Any]] = [
                    asyncio.ensure_future(store.set("k", b"%d" % number)) for number in range(10)
                ]
                calls += [asyncio.ensure_future(store.delete_all()), asyncio.ensure_future(store.get_many(["k"]))]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(each is None or isinstance(each, asyncio.CancelledError | dict) for each in results)
                await store.set("k", b"new")
                assert await store.get("k") == b"new"

    asyncio.run(main())


@BOTH
def test_long_operations_let_others_have_their_turn(tmp_path: Path, durability: Any) -> None:
    async def main() -> None:
        async with FileStore(tmp_path, durability=durability) as store:
            child = store.with_namespace("n")
            await asyncio.gather(*(child.set_many({f"{part}-{key}": b"v" for key in range(100)}) for part in range(10)))
            await store.set("k", b"v")
            clearing = asyncio.ensure_future(child.delete_all())
            reads = 0
            while not clearing.done():
                assert await store.get("k") == b"v"
                reads += 1
            await clearing
            assert reads > 3
            assert files(tmp_path) == 1
            assert not (tmp_path / "n.ns").exists()

    asyncio.run(main())


def test_closing_ends_long_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storeconf._root.CLOSE_GRACE", 0.05)
    monkeypatch.setattr(operations, "_SLICE", -1.0)

    async def main() -> None:
        store = FileStore(tmp_path)
        await store.set_many({f"k{key}": b"v" for key in range(500)})
        held = RangeLocks(os.fsencode(tmp_path / "storeconf.lock"), 0o600)
        numbers = [lock_number(path.name.encode()) for path in tmp_path.glob("*.kv")]
        assert held.acquire(numbers[0])
        clearing = asyncio.ensure_future(store.delete_all())
        await until(lambda: files(tmp_path) == 1)
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await clearing
        held.close()
        async with store:
            await store.delete_all()
        assert not files(tmp_path)

    asyncio.run(main())


def test_an_iteration_may_be_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set_many({f"k{key}": b"v" for key in range(1000)})
            before = open_files()
            for _ in range(5):
                async for _key in store.keys():
                    break
            gc.collect()
            await until(lambda: open_files() <= before)

    asyncio.run(main())


# ---------------------------------------------------------------------- expiry and sweeping


def test_the_sweeper_drops_what_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SWEEP_DELAY", 0.01)
    monkeypatch.setattr(operations, "SWEEP_INTERVAL", 0.01)
    monkeypatch.setattr(operations, "_SWEEP_SHARE", 1.0)

    async def main() -> None:
        async with FileStore(tmp_path) as store, FileStore(tmp_path) as other:
            child = store.with_namespace("a").with_namespace("b")
            await store.set_many({f"k{key}": b"v" for key in range(20)}, 0.1)
            await child.set_many({f"k{key}": bytes(10_000) for key in range(20)}, 0.1)
            await store.set("stays", b"v", 600)
            await other.set("stays too", b"v")
            (tmp_path / ("0" * 40 + ".kv")).write_bytes(b"damaged")
            await until(lambda: files(tmp_path) == 2 and not (tmp_path / "a.ns").exists())
            assert await store.get_many(["stays", "stays too"]) == {"stays": b"v", "stays too": b"v"}

    asyncio.run(main())


def test_one_process_at_a_time_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SWEEP_DELAY", 0.0)
    monkeypatch.setattr(operations, "SWEEP_INTERVAL", 0.01)
    sweeper = RangeLocks(os.fsencode(tmp_path / "storeconf.lock"), 0o600)
    assert sweeper.acquire(Locks.SWEEPER)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"v", 0.001)
            for _ in range(10):
                await asyncio.sleep(0.01)
                assert await store.get("k") is None
            assert files(tmp_path) == 1
            sweeper.close()
            await until(lambda: not files(tmp_path))

    asyncio.run(main())


def test_a_sweeper_that_fails_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operations, "SWEEP_DELAY", 0.0)
    monkeypatch.setattr(operations, "SWEEP_INTERVAL", 0.01)
    scan, failures = os.scandir, [OSError(errno.EIO, "Input/output error"), FileNotFoundError()]

    def fail(path: Any) -> Any:
        if failures:
            raise failures.pop()
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"v", 0.001)
            await until(lambda: not failures and not files(tmp_path))

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        f"sweeping {tmp_path} failed: [Errno {errno.EIO}] Input/output error"
    ]


@pytest.mark.parametrize("memory", [False, True])
def test_large_spare_files_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool, request: pytest.FixtureRequest
) -> None:
    """What a small value replaces may be large; it does not wait for the next write."""
    if memory and Path("/dev/shm").is_dir():  # where the event loop writes small values
        tmp_path = Path(tempfile.mkdtemp(dir="/dev/shm"))
        request.addfinalizer(lambda: shutil.rmtree(tmp_path))
    monkeypatch.setattr(operations, "SWEEP_DELAY", 0.0)
    monkeypatch.setattr(operations, "SWEEP_INTERVAL", 0.01)

    def spare() -> int:
        found = 0
        for path in (tmp_path / "storeconf.spare").glob("*/*"):
            with suppress(FileNotFoundError):  # it has gone since it was listed
                found += path.stat().st_size
        return found

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", bytes(1_000_000))
            await store.set("k", b"small")
            await until(lambda: spare() == 0)
            await store.set("k", bytes(1_000_000))
            await store.set("k", bytes(2_000_000))
            assert spare() == 0
            await store.set("s", b"1")
            await store.set("s", b"2")
            assert 0 < spare() < 100
            await store.delete_all()
            assert spare() == 0

    asyncio.run(main())


# ---------------------------------------------------------------------- what must survive the machine


def test_a_batch_reaches_the_disk_before_anybody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync_data, sync_directory = system.sync_data, system.sync_directory

    def data(fd: int) -> None:
        sync_data(fd)
        done.append("data")

    def directory(path: bytes) -> None:
        sync_directory(path)
        done.append(os.fsdecode(path).removeprefix(str(tmp_path)))

    monkeypatch.setattr(system, "sync_data", data)
    monkeypatch.setattr(system, "sync_directory", directory)

    async def main() -> None:
        async with FileStore(tmp_path / "data", True, durability="fsync") as store:
            assert set(done) == {"", "/data"}  # the new directory and its format
            await store.set("first", b"v")
            done.clear()
            await store.set("k", b"v")
            assert done == ["data", "/data"]
            done.clear()
            await asyncio.gather(*(store.set(f"k{key}", b"v") for key in range(40)))
            assert done.count("data") == 40
            assert done.count("/data") <= 2
            done.clear()
            await store.delete("k")
            assert done == ["/data"]
            done.clear()
            await store.with_namespace("n").set("k", b"v")
            assert done == ["data", "/data", "/data/n.ns"]
            done.clear()
            assert await store.touch("k1", 60)
            assert done == ["data", "/data"]
            done.clear()
            await store.get("k1")
            assert not done

    asyncio.run(main())


def test_more_changes_than_one_group_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "_MOST", 5)

    async def main() -> None:
        async with FileStore(tmp_path, durability="fsync") as store:
            await asyncio.gather(*(store.set(f"k{key}", b"%d" % key) for key in range(33)))
            await store.set_many({f"m{key}": b"%d" % key for key in range(33)})
            numbers = await asyncio.gather(*(store.increment("n") for _ in range(33)))
            assert sorted(numbers) == list(range(1, 34))
            assert [await store.get(f"k{key}") for key in range(33)] == [b"%d" % key for key in range(33)]
            await store.delete_many([f"m{key}" for key in range(33)])
            assert await store.get_many([f"m{key}" for key in range(33)]) == {}
            await store.delete_all()

    asyncio.run(main())


def test_a_disk_that_fails_before_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is told to those whom it concerns; they know that the old value is there."""
    sync_data = system.sync_data

    def fail(fd: int) -> None:
        if b"bad" in Path(f"/dev/fd/{fd}").read_bytes():
            raise OSError(errno.EIO, "Input/output error")
        sync_data(fd)

    async def main() -> None:
        async with FileStore(tmp_path, durability="fsync") as store:
            await store.set("k", b"old")
            monkeypatch.setattr(system, "sync_data", fail)
            calls = [store.set(f"k{key}", b"bad" if key % 3 == 0 else b"good") for key in range(9)]
            results = await asyncio.gather(store.set("k", b"bad"), *calls, return_exceptions=True)
            failed = [result is not None for result in results]
            assert failed == [True, *(key % 3 == 0 for key in range(9))]
            for result in results:
                if result is not None:
                    assert isinstance(result, StoreUnavailableError)
                    assert (result.outcome_unknown, result.operation) == (False, "set")
            assert await store.get("k") == b"old"
            assert sorted([key async for key in store.keys()]) == ["k", "k1", "k2", "k4", "k5", "k7", "k8"]
            with pytest.raises(StoreUnavailableError):
                await store.set_many({"a": b"good", "b": b"bad"})

    asyncio.run(main())


def test_a_disk_that_fails_after_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it would survive nobody knows, and the error says so."""

    def fail(path: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def main() -> None:
        async with FileStore(tmp_path, durability="fsync") as store:
            await store.set("k", b"old")
            monkeypatch.setattr(system, "sync_directory", fail)
            for call in (store.set("k", b"new"), store.increment("n"), store.pop("k"), store.delete_many(["n"])):
                with pytest.raises(StoreUnavailableError) as caught:
                    await call
                assert caught.value.outcome_unknown

    asyncio.run(main())


def test_closing_in_another_loop_than_the_one_that_was_left_with_calls_under_way(tmp_path: Path) -> None:
    store = FileStore(tmp_path)

    async def leave() -> None:
        await store.set("k", b"v")
        calls = [asyncio.ensure_future(store.set(f"k{number}", b"v")) for number in range(20)]
        await asyncio.sleep(0)
        assert not any(call.done() for call in calls)

    async def close() -> None:
        assert await store.get("k") == b"v"
        await store.aclose()
        assert not workers()

    before = open_files()
    for _ in range(5):
        asyncio.run(leave())
    asyncio.run(close())
    gc.collect()
    assert open_files() == before


# ---------------------------------------------------------------------- bulk calls


def test_bulk_calls_never_hold_the_loop_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of the loop takes long, by the processor time of its thread: a busy machine does not count."""
    longest = 0.0
    run = asyncio.events.Handle._run

    def timed(self: asyncio.Handle) -> Any:
        nonlocal longest
        start = time.thread_time()
        try:
            return run(self)
        finally:
            longest = max(longest, time.thread_time() - start)

    items = {f"k{number}": b"v" for number in range(30_000)}

    async def listed(store: FileStore) -> list[str]:
        return [key async for key in store.keys()]

    calls: list[Callable[[FileStore], Awaitable[Any]]] = [
        lambda store: store.set_many(items),
        lambda store: store.get_many(items),
        lambda store: store.delete_many(list(items)[::2]),
        listed,
        lambda store: store.delete_expired(),
        lambda store: store.delete_all(),
    ]

    async def main(directory: str) -> None:
        nonlocal longest
        async with FileStore(directory) as store:
            monkeypatch.setattr(asyncio.events.Handle, "_run", timed)
            for number, call in enumerate(calls):
                longest = 0.0
                await asyncio.ensure_future(call(store))
                await asyncio.sleep(0)
                assert longest < 0.025, f"call {number}: {longest}"

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    gc.collect()
    gc.freeze()  # collecting what all other tests have left takes long; it stays frozen, or it would from now on
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        asyncio.run(main(directory))


AT_EXIT = """
import asyncio, atexit, sys

loop = asyncio.new_event_loop()
atexit.register(lambda: (loop.run_until_complete(asyncio.wait_for(store.aclose(), 5)), print("closed")))

from storeconf import FileStore  # what was registered before runs after all finalizers

store = FileStore(sys.argv[1], durability=sys.argv[2])
loop.run_until_complete(store.set("k", b"v"))
"""


@BOTH
def test_closing_when_the_interpreter_has_run_all_finalizers(tmp_path: Path, durability: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, tmp_path, durability], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")
