"""FileStore against its peers: ``python benchmarks/file.py [DIRECTORY ...]``.

Without arguments it measures in /dev/shm, where there is one, and in the directory for temporary files; give a
directory on the file system that matters to you. It removes what it makes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar.stores.file import FileStore as LitestarFileStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from storeconf import FileStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEYS = [f"session:{number}" for number in range(400)]
VALUE = b"v" * 100
SECONDS = 0.05
ROUNDS = 15
GET, SET = ("get, 1 task", "get, 50 tasks"), ("set, 1 task", "set, 50 tasks")


class Hop:
    """The least that is safe: for each call a hop to a thread, where a temporary file is written and renamed."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self._directory = directory
        self._fsync = fsync
        self._numbers = itertools.count()
        directory.mkdir()

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._read, key)

    async def set(self, key: str, value: bytes) -> None:
        await asyncio.to_thread(self._write, key, value)

    def _read(self, key: str) -> bytes:
        fd = os.open(self._directory / key, os.O_RDONLY)
        try:
            return os.read(fd, 8192)
        finally:
            os.close(fd)

    def _write(self, key: str, value: bytes) -> None:
        draft = self._directory / f".{next(self._numbers)}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, value)
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
        draft.rename(self._directory / key)


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


async def measure(directory: Path) -> None:
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(FileStore(directory / "flush", create_directories=True))
        synced = await stack.enter_async_context(
            FileStore(directory / "fsync", create_directories=True, durability="fsync")
        )
        stores: dict[str, Any] = {
            "Litestar": LitestarFileStore(directory / "litestar", create_directories=True),
            "hop": Hop(directory / "hop"),
            "storeconf": ours,
            "hop, fsync": Hop(directory / "hop-fsync", fsync=True),
            "storeconf, fsync": synced,
        }
        for store in stores.values():
            for key in KEYS:
                await store.set(key, VALUE)

        def contender(store: Any, *, reads: bool) -> Callable[[], Awaitable[dict[str, float]]]:
            async def run() -> dict[str, float]:
                figures = {}
                if reads:
                    for name, tasks in zip(GET, (1, 50), strict=True):
                        figures[name] = await rate(store.get, tasks)
                for name, tasks in zip(SET, (1, 50), strict=True):
                    figures[name] = await rate(lambda key: store.set(key, VALUE), tasks)
                return figures

            return run

        figures = await compete(
            {name: contender(store, reads="fsync" not in name) for name, store in stores.items()}, ROUNDS
        )
    floor = figures.pop("hop, fsync"), figures.pop("storeconf, fsync")
    rates = (*GET, *SET)
    show(
        f"{directory.parent}: calls per second, {len(VALUE)} B, {len(KEYS)} keys overwritten",
        figures,
        ours=["storeconf"],
        peers=["Litestar", "hop"],
        more_is_better=rates,
    )
    show(
        "the same, each write on the disk",
        {"hop, fsync": floor[0], "storeconf, fsync": floor[1]},
        ours=["storeconf, fsync"],
        peers=["hop, fsync"],
        more_is_better=rates,
    )


def main() -> None:
    memory = Path("/dev/shm")
    places = [Path(name) for name in sys.argv[1:]] or [
        *([memory] if memory.is_dir() else []),
        Path(tempfile.gettempdir()),
    ]
    for place in places:
        directory = Path(tempfile.mkdtemp(prefix="storeconf-benchmark-", dir=place))
        try:
            asyncio.run(measure(directory))
        finally:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
