"""A store whose life the tests watch, and what they wait at."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from storeconf.errors import (
    StoreError,
    StoreUnavailableError,
)
from storeconf.store import Capabilities, Store, StoreBase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Probe(StoreBase):
    """A store on a dict that records its life and lets a test hold up or fail each step."""

    capabilities = Capabilities(atomic=frozenset({"pop"}))

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}
        self.opening: Callable[[], Awaitable[None]] | None = None
        self.closing: Callable[[], Awaitable[None]] | None = None
        self.reading: Callable[[], Awaitable[None]] | None = None

    async def do_open(self) -> None:
        self.log.append("open")
        if self.opening is not None:
            await self.opening()
        self.log.append("opened")

    async def do_close(self) -> None:
        self.log.append("close")
        if self.closing is not None:
            await self.closing()
        self.log.append("closed")

    def do_forget(self) -> None:
        self.log.append("forget")

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        if self.reading is not None:
            await self.reading()
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        self.data.pop((path, key), None)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        return (path, key) in self.data

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        raise StoreUnavailableError("the backend is away")

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        try:
            for found, key in list(self.data):
                if self.reading is not None:
                    await self.reading()
                if found == path and key.startswith(prefix):
                    yield key
        finally:
            self.log.append("keys ended")


class Gate:
    """Something to wait at that tells when somebody does."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.free.wait()


class ThreadGate:
    """The same between threads: whoever comes waits without blocking its loop."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.free = threading.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await asyncio.get_running_loop().run_in_executor(None, self.free.wait)


def is_open(store: Store) -> bool:
    """A call, because a type checker takes an attribute for unchanged."""
    return store.is_open


async def settled() -> None:
    """Let every other task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def in_thread(work: Callable[[], Awaitable[Any]]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    async def main() -> None:
        try:
            outcome.append(await work())
        except StoreError as error:
            outcome.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    return thread, outcome


async def failure(error: BaseException) -> None:
    raise error
