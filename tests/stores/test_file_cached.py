"""Reads in the event loop: what they never wait for, what they leave to the thread, and how they share the loop."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import FileStore
from storeconf.stores.file import system
from storeconf.stores.file.format import PENDING, entry_name, pack
from storeconf.stores.file.reading import CachedReader
from storeconf.stores.file.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROOT = Path(__file__).parents[2]


def openat2_works() -> bool:
    """Whether the system has openat2 with RESOLVE_CACHED, found out without storeconf."""
    if sys.platform != "linux" or tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (5, 12):
        return False
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_DIRECTORY, 0, 0x20)
    fd = ctypes.CDLL(None, use_errno=True).syscall(437, -100, b"/", how, len(how))
    if fd >= 0:
        os.close(fd)
    return fd >= 0 or ctypes.get_errno() not in {errno.EPERM, errno.ENOSYS}  # else a sandbox refuses it


pytestmark = pytest.mark.skipif(not openat2_works(), reason="this system has no reads that never wait")

READS: dict[str, Callable[[FileStore], Awaitable[object]]] = {
    "get": lambda store: store.get("k"),
    "get_many": lambda store: store.get_many(["k", "missing", "k2"]),
    "exists": lambda store: store.exists("k"),
    "expires_in": lambda store: store.expires_in("k"),
    "get_with_expiry": lambda store: store.get_with_expiry("k"),
}


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was handed over to a worker."""
    names: list[str] = []
    submit = Worker.submit

    def note(self: Worker, work: Any, *arguments: Any) -> Any:
        names.append(work.__name__)
        return submit(self, work, *arguments)

    monkeypatch.setattr(Worker, "submit", note)
    return names


def entry(directory: Path, key: str = "k") -> Path:
    return directory / entry_name(f"::{key}".encode()).decode()


def forget_pages(path: Path) -> None:
    """Drop a file's contents from the kernel's memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_reads_that_never_wait_are_used_where_the_system_has_them() -> None:
    assert system.has_cached_open()


@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_what_is_in_memory_is_read_in_the_loop(
    tmp_path: Path, handed_over: list[str], durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(store: FileStore) -> list[object]:
        found = [await read(store) for read in READS.values()]
        assert await store.with_namespace("n").get("k") == b"in a namespace"
        assert await store.get("ü") == b"another"
        return found

    async def main(directory: Path) -> None:
        async with FileStore(directory, durability=durability) as store:
            await store.set("k", b"value", 600)
            await store.set("k2", b"2")
            await store.set("ü", b"another")
            await store.with_namespace("n").set("k", b"in a namespace")
            await store.exists("missing")
            await look(store)
            handed_over.clear()
            value, many, there, seconds, pair = await look(store)
            assert (value, many, there, seconds) == (b"value", {"k": b"value", "k2": b"2"}, True, 600)
            assert isinstance(pair, tuple)
            assert pair[0] == b"value"
            assert not handed_over
            await store.delete("k")
            assert [await read(store) for read in READS.values()] == [None, {"k2": b"2"}, False, None, None]
            await store.set("k", b"short", 0.001)
            await asyncio.sleep(0.002)
            assert [await read(store) for read in READS.values()] == [None, {"k2": b"2"}, False, None, None]

    asyncio.run(main(tmp_path / "one"))
    with monkeypatch.context() as patch:
        patch.setattr(system, "cached_open", None)
        with pytest.raises(AssertionError):
            asyncio.run(main(tmp_path / "other"))


def test_a_read_costs_three_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.cached_open is not None
    open_ = system.cached_open
    calls: list[str] = []

    def count(path: bytes) -> int:
        calls.append("openat2")
        return open_(path)

    def profile(_frame: object, event: str, function: Any) -> None:
        if event == "c_call" and getattr(function, "__module__", "") == "posix":
            calls.append(function.__name__)

    monkeypatch.setattr(system, "cached_open", count)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"value", 600)
            await store.get("k")
            calls.clear()
            sys.setprofile(profile)
            value = await store.get("k")
            sys.setprofile(None)
            assert value == b"value"
            # Where no disk is, opening never waits, and a call of Python's own is quicker.
            opening = "open" if system.read_flags(os.fsencode(tmp_path)) == system.NO_DISK else "openat2"
            assert calls == [opening, "preadv", "close"]

    asyncio.run(main())


def test_a_disk_is_never_waited_for(tmp_path: Path, handed_over: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing in memory reads go to the thread; the loop's own attempts never put its thread to sleep."""
    attempts = waits = 0
    find = CachedReader.find

    def counted(self: CachedReader, path: tuple[str, ...], key: str) -> Any:
        nonlocal attempts, waits
        attempts += 1
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        try:
            return find(self, path, key)
        finally:
            waits += resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    monkeypatch.setattr(CachedReader, "find", counted)

    async def main() -> None:
        nonlocal attempts
        async with FileStore(tmp_path) as store:
            values = {f"k{number}": os.urandom(4000) for number in range(300)}
            await store.set_many(values)
            await store.get("k0")
            for key in values:
                forget_pages(entry(tmp_path, key))
            handed_over.clear()
            attempts = 0
            for key, value in values.items():
                assert await store.get(key) == value
            assert attempts == len(values)  # what the thread has to read is not tried again
            if system.read_flags(os.fsencode(tmp_path)):
                assert len(handed_over) > 100  # a fast disk may be ready before it is looked at again
                assert waits < 30  # for the interpreter, which the other thread may have
            handed_over.clear()
            assert await store.get_many(values) == values
            assert not handed_over

    asyncio.run(main())


def test_other_file_systems_are_read_by_the_thread(
    tmp_path: Path, handed_over: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_PAGE_CACHED", frozenset())
    monkeypatch.setattr(system, "_TMPFS", -1)

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"value", 600)
            for _ in range(3):
                handed_over.clear()
                for read in READS.values():
                    assert await read(store)
                assert len(handed_over) == len(READS)

    asyncio.run(main())


def test_a_file_system_without_the_flag_is_asked_once(
    tmp_path: Path, handed_over: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*_: object) -> int:
        asked.append(1)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"value")
            await store.get("k")
            monkeypatch.setattr(os, "preadv", refuse)
            for _ in range(3):
                assert await store.get("k") == b"value"
            assert len(asked) == 1
            assert handed_over.count("find") >= 3

    asyncio.run(main())


def test_what_can_not_be_settled_at_once_goes_to_the_thread(tmp_path: Path, handed_over: list[str]) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("large", bytes(200_000))
            await store.set("k", b"value")
            await store.get("k")
            for damage in (b"", b"x" * 100, entry(tmp_path, "large").read_bytes()):
                entry(tmp_path).write_bytes(damage)
                handed_over.clear()
                assert await store.get("k") is None
                assert handed_over == ["find"]
            entry(tmp_path).write_bytes(pack(b"::k", b"pending", 0, PENDING) + b"pending")
            handed_over.clear()
            assert await store.get("k") == b"pending"
            assert await store.get("large") == bytes(200_000)
            assert handed_over == ["find", "find"]
            for size in (8191, 8192, 8193, 65_000, 65_536, 73_728, 80_000):
                await store.set("k", os.urandom(size))
                await store.set("k", value := os.urandom(size))
                assert await store.get("k") == value

    asyncio.run(main())


@pytest.mark.parametrize("size", [4000, 4096, 65_536])
def test_a_file_that_is_overwritten_while_it_is_read(
    tmp_path: Path, handed_over: list[str], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """With the checksums of the old record, whose value is there as a whole: the beginning tells."""
    preadv = os.preadv

    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", value := os.urandom(size))
            await store.get("k")
            whole = entry(tmp_path).read_bytes()
            writing = os.open(entry(tmp_path), os.O_WRONLY)

            def read_while_written(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
                got = preadv(fd, buffers, offset, flags)
                os.pwrite(writing, pack(b"::k", b"new", 0, PENDING) + b"new", 0)
                return got

            with monkeypatch.context() as patch:
                patch.setattr(os, "preadv", read_while_written)
                handed_over.clear()
                assert await store.get("k") == (b"new" if len(whole) > 4096 else value)
                assert handed_over == (["find"] if len(whole) > 4096 else [])
            os.close(writing)

    asyncio.run(main())


async def longest_turn(seconds: float) -> float:
    """The longest time that other tasks keep this one from running, in processor time of the thread."""
    end = time.monotonic() + seconds
    longest, last = 0.0, time.thread_time()
    while time.monotonic() < end:
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


def test_one_who_only_reads_hits_lets_others_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set_many({f"k{number}": b"v" for number in range(1000)})
            many = [f"k{number}" for number in range(1000)] * 20
            for work in (lambda: store.get("k0"), lambda: store.exists("k0"), lambda: store.get_many(many)):
                watching = asyncio.ensure_future(longest_turn(0.3))
                await asyncio.sleep(0)
                while not watching.done():
                    await work()
                assert await watching < 0.015  # three times of what is meant

    asyncio.run(main())


def test_one_who_only_writes_in_the_loop_lets_others_run(memory: Path) -> None:
    async def main() -> None:
        async with FileStore(memory) as store:
            await store.set("k", b"v")
            await store.set("n", b"0")
            for work in (lambda: store.set("k", b"v"), lambda: store.increment("n"), lambda: store.touch("k", 60)):
                watching = asyncio.ensure_future(longest_turn(0.2))
                await asyncio.sleep(0)
                while not watching.done():
                    await work()
                assert await watching < 0.015

    asyncio.run(main())


def test_many_who_only_read_hits_share_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        async with FileStore(tmp_path) as store:
            await store.set("k", b"v")
            reads = [0] * 50
            watching = asyncio.ensure_future(longest_turn(0.5))

            async def read(number: int) -> None:
                while not watching.done():
                    await store.get("k")
                    reads[number] += 1

            await asyncio.gather(watching, *map(read, range(50)))
            assert watching.result() < 0.015
            assert min(reads) * 5 > max(reads)

    asyncio.run(main())


def test_loops_of_several_threads_each_let_others_run(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    longest: list[float] = []

    async def read() -> None:
        watching = asyncio.ensure_future(longest_turn(0.5))
        await asyncio.sleep(0)
        while not watching.done():
            await store.get("k")
        longest.append(await watching)

    async def main() -> None:
        async with store:
            await store.set("k", b"v")
            threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(2)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert len(longest) == 2
    assert max(longest) < 0.015


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory with no disk behind it, or at least one that is taken for such a directory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield Path(directory)


def test_where_no_disk_is_the_loop_changes_entries(
    memory: Path, handed_over: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_PAGE_CACHED", frozenset())
    in_memory = system.read_flags(os.fsencode(memory)) == system.NO_DISK

    async def main() -> None:
        async with FileStore(memory / "data") as store:
            child = store.with_namespace("n")
            for place in (store, child):
                await place.set("k", b"value", 600)
                await place.set("n", b"41")
                await place.set("k", b"value", 600)
                handed_over.clear()
                await place.set("k", b"other")
                await place.set("k", b"longer value", 60)
                await place.set("k", b"v", keep_ttl=True)
                assert await place.increment("n") == 42
                assert await place.touch("k", 600)
                assert await place.get("k", renew_for=500) == b"v"
                assert await place.expires_in("k") == 500
                assert await place.compare_and_set("k", b"v", b"w")
                assert not await place.compare_and_set("k", b"v", b"w")
                assert not await place.add("k", b"x")
                assert await place.get("k") == b"w"
                await place.set("new", b"value")
                assert await place.add("newer", b"x")
                assert await place.increment("newest") == 1
                assert await place.delete("new")
                assert not await place.delete("new")
                assert await place.pop("newer") == b"x"
                assert await place.compare_and_set("newest", b"1", None)
                assert await place.touch("k", 0)
                assert await place.get_many(["k", "n", "new", "newer", "newest"]) == {"n": b"42"}
                await place.set("n", half := os.urandom(65_536))
                await place.set("n", half)
                assert await place.pop("n") == half
                if in_memory:
                    assert not handed_over
                large = os.urandom(300_000)
                for _ in range(2):
                    await place.set("k", large)
                    assert await place.get("k") == large
                    await place.set("k", b"small")
                    await place.set("k", b"smaller")
                    assert await place.get("k") == b"smaller"
                    await place.set("k", large)
                    assert await place.touch("k", 60)
                    assert await place.pop("k") == large
                    await place.set("k", b"again")
                    await place.delete("k")
            await store.delete_all()
            assert not list(memory.glob("data/storeconf.spare/*/*"))

    asyncio.run(main())


def test_overwriting_in_the_loop_keeps_out_other_writers(memory: Path) -> None:
    """Loops of several threads, the worker and other stores of the directory count together."""

    async def count(store: FileStore, times: int) -> None:
        for _ in range(times):
            await store.increment("n")
            await store.set_many({"other": b"1", "n2": b"2"})

    def elsewhere(store: FileStore) -> None:
        asyncio.run(count(store, 100))

    async def main() -> None:
        async with FileStore(memory) as one, FileStore(memory) as two:
            await one.set("n", b"0")
            threads = [threading.Thread(target=elsewhere, args=(store,)) for store in (one, two)]
            for thread in threads:
                thread.start()
            await asyncio.gather(count(one, 100), count(one, 100), count(two, 100))
            while any(thread.is_alive() for thread in threads):
                await asyncio.sleep(0.001)
            assert await one.get("n") == b"500"

    asyncio.run(main())


def test_a_directory_without_a_disk_that_is_replaced(memory: Path) -> None:
    async def main() -> None:
        async with FileStore(memory / "data") as store, FileStore(memory / "data") as other:
            for _ in range(3):
                for each in (store, other):
                    await each.set("n", b"1")
                    await each.increment("n")
                shutil.rmtree(memory / "data")
                await other.set("n", b"5")
                assert await store.increment("n") == 6
                assert await store.touch("n", 60)
                assert await other.increment("n") == 7
                assert await store.get("n") == b"7"

    asyncio.run(main())


SANDBOX = """
import asyncio, ctypes, struct, sys
sys.path.insert(0, ".")

program = b"".join(struct.pack("HBBI", *each) for each in [
    (0x20, 0, 0, 0),                                    # the number of the system call
    (0x15, 0, 1, 437),                                  # openat2?
    (0x06, 0, 0, 0x00050000 | int(sys.argv[2])),        # fails
    (0x06, 0, 0, 0x7FFF0000),                           # else is allowed
])
code = ctypes.create_string_buffer(program)
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, ctypes.c_void_p(ctypes.addressof(head)), 0, 0) == 0

from storeconf import FileStore
from storeconf.stores.file import system

async def main():
    for _ in range(2):
        async with FileStore(sys.argv[1]) as store:
            await store.set("k", b"value")
            assert await store.get("k") == b"value" and await store.get_many(["k", "no"]) == {"k": b"value"}
            assert not store._cached and system.cached_open is None
    print("works")

asyncio.run(main())
"""


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_sandbox_or_an_old_kernel_that_refuses_the_call(tmp_path: Path, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SANDBOX, tmp_path, str(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "works\n", "")


def test_closing_while_hits_are_read(tmp_path: Path) -> None:
    async def main() -> None:
        store = FileStore(tmp_path)
        async with store:
            await store.set("k", b"v")

            async def read() -> None:
                while store.is_open:
                    assert await store.get("k") == b"v"
                    await asyncio.sleep(0)

            readers = [asyncio.ensure_future(read()) for _ in range(5)]
            await asyncio.sleep(0.01)
        await asyncio.gather(*readers)

    asyncio.run(main())
