"""Making connections: after any outage again, and with errors that name server, store and reason."""

from __future__ import annotations

import asyncio
import selectors
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from storeconf import StoreError, StoreUnavailableError
from tests.servers import Server, shared
from tests.stores.test_server_faults import store_at

if TYPE_CHECKING:
    from storeconf.stores import ValkeyStore

FAST = 300
"""How many times faster than the clock on the wall an outage passes here."""


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose time runs fast, so that timers of minutes end within a test."""

    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        return time.monotonic() * FAST


class _FastSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / FAST)


async def attempts_fail(store: ValkeyStore, count: int) -> None:
    """Let a call after the other fail until the store has tried so often to connect."""
    loop = asyncio.get_running_loop()
    (link,) = store._lanes.here()._links  # type: ignore[attr-defined]  # a standalone lane has them
    deadline = loop.time() + FAST * 30
    while link._failures < count:
        assert loop.time() < deadline, f"{link._failures} attempts"
        with suppress(StoreError):
            await store.get("k")
        await asyncio.sleep(0.3)


def test_a_store_reconnects_after_an_outage_of_any_length() -> None:
    server = Server()
    try:

        async def work() -> None:
            async with store_at(server.port, "outage", retries=0, command_timeout=300, connect_timeout=300) as store:
                await attempts_fail(store, 1100)
                server.start()
                async with asyncio.timeout(FAST * 10):
                    while True:
                        with suppress(StoreUnavailableError):
                            assert await store.get("k") is None
                            break
                        await asyncio.sleep(0.5)

        with asyncio.Runner(loop_factory=FastLoop) as runner:
            runner.run(work())
    finally:
        server.close()


def test_an_attempt_that_somebody_cancels_is_made_again() -> None:
    async def work() -> None:
        async with store_at(shared().port, "cancelled", retries=0) as store:
            before = asyncio.all_tasks()
            call = asyncio.ensure_future(store.get("k"))
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - before - {call}:
                task.cancel()
            with suppress(StoreUnavailableError):
                await call
            assert await store.get("k") is None

    asyncio.run(work())
