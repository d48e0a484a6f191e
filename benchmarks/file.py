"""FileStore against its peers: ``python benchmarks/file.py [--rounds N] [DIRECTORY ...]``.

Without arguments it measures in /dev/shm, where there is one, and in the directory for temporary files; give a
directory on the file system that matters to you. It removes what it makes. diskcache and lmdb, which know nothing of
asyncio, are called in threads.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diskcache
import lmdb
from key_value.aio.stores.filetree import FileTreeStore, FileTreeV1KeySanitizationStrategy
from litestar.stores.file import FileStore as LitestarFileStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from storeconf import FileStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEYS = [f"session:{number}" for number in range(400)]
TASKS = (1, 10, 50, 500)
SIZES = (100, 4096, 65536)
SECONDS = 0.05
ROUNDS = 5


class Hop:
    """The least that is safe: for each call a hop to a thread, where a file is written, synchronized and renamed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        directory.mkdir()

    async def set(self, key: str, value: bytes) -> None:
        await asyncio.to_thread(self._write, key, value)

    def _write(self, key: str, value: bytes) -> None:
        draft = self._directory / f".{next(self._numbers)}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, value)
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.rename(self._directory / key)


class DiskCache:
    """diskcache in threads."""

    def __init__(self, directory: Path) -> None:
        self.cache = diskcache.Cache(str(directory))

    async def get(self, key: str) -> Any:
        return await asyncio.to_thread(self.cache.get, key)

    async def set(self, key: str, value: bytes) -> None:
        await asyncio.to_thread(self.cache.set, key, value)


class Lmdb:
    """LMDB in threads; writes do not wait for the disk, as with ``durability: flush``."""

    def __init__(self, directory: Path) -> None:
        self.environment = lmdb.open(str(directory), map_size=1 << 30, sync=False)

    async def get(self, key: str) -> Any:
        return await asyncio.to_thread(self._get, key)

    async def set(self, key: str, value: bytes) -> None:
        await asyncio.to_thread(self._set, key, value)

    def _get(self, key: str) -> Any:
        with self.environment.begin() as transaction:
            return transaction.get(key.encode())

    def _set(self, key: str, value: bytes) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(key.encode(), value)


class KeyValue:
    """py-key-value's tree of JSON files, which holds bytes as text."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        strategy = FileTreeV1KeySanitizationStrategy(directory)
        self._store = FileTreeStore(data_directory=directory, key_sanitization_strategy=strategy)

    async def get(self, key: str) -> Any:
        return await self._store.get(key)

    async def set(self, key: str, value: bytes) -> None:
        await self._store.put(key, {"v": value.hex()})


async def rate(call: Callable[[str], Awaitable[object]], tasks: int) -> float:
    """Calls per second of so many tasks at once."""
    keys = itertools.cycle(KEYS)
    done = 0
    start = time.perf_counter()
    end = start + SECONDS

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(next(keys))
            done += 1

    await asyncio.gather(*(work() for _ in range(tasks)))
    return done / (time.perf_counter() - start)


def contender(store: Any, value: bytes, *, reads: bool = True) -> Callable[[], Awaitable[dict[str, float]]]:
    """What measures one store for one round."""

    async def run() -> dict[str, float]:
        figures = {}
        for tasks in TASKS:
            if reads:
                figures[f"get, {tasks}"] = await rate(store.get, tasks)
        for tasks in TASKS:
            figures[f"set, {tasks}"] = await rate(lambda key: store.set(key, value), tasks)
        return figures

    return run


async def measure(directory: Path, rounds: int) -> None:
    measures = [f"{name}, {tasks}" for name in ("get", "set") for tasks in TASKS]
    for size in SIZES:
        value = os.urandom(size)
        below = directory / str(size)
        below.mkdir()
        async with AsyncExitStack() as stack:
            cache, mapped = DiskCache(below / "diskcache"), Lmdb(below / "lmdb")
            stack.enter_context(closing(cache.cache))
            stack.enter_context(closing(mapped.environment))
            stores: dict[str, Any] = {
                "Litestar": LitestarFileStore(below / "litestar", create_directories=True),
                "py-key-value": KeyValue(below / "py-key-value"),
                "diskcache": cache,
                "lmdb": mapped,
                "storeconf": await stack.enter_async_context(FileStore(below / "flush")),
            }
            for store in stores.values():
                for key in KEYS:
                    await store.set(key, value)
            figures = await compete({name: contender(store, value) for name, store in stores.items()}, rounds)
        show(
            f"{directory.parent}: calls per second by tasks, {size} B, {len(KEYS)} keys overwritten",
            figures,
            ours=["storeconf"],
            peers=["Litestar", "py-key-value", "diskcache", "lmdb"],
            more_is_better=measures,
        )
    async with FileStore(directory / "fsync", durability="fsync") as synced:
        hop, value = Hop(directory / "hop"), os.urandom(100)
        for store in (hop, synced):
            for key in KEYS:
                await store.set(key, value)
        figures = await compete(
            {
                "hop, fsync": contender(hop, value, reads=False),
                "storeconf, fsync": contender(synced, value, reads=False),
            },
            rounds,
        )
    show(
        f"{directory.parent}: the same, 100 B, each write on the disk",
        figures,
        ours=["storeconf, fsync"],
        peers=["hop, fsync"],
        more_is_better=measures,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="FileStore against its peers.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("directories", nargs="*")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    places = [Path(name) for name in options.directories] or [
        *([memory] if memory.is_dir() else []),
        Path(tempfile.gettempdir()),
    ]
    for place in places:
        directory = Path(tempfile.mkdtemp(prefix="storeconf-benchmark-", dir=place))
        try:
            asyncio.run(measure(directory, options.rounds))
        finally:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
