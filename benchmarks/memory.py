"""MemoryStore against its peers: ``python benchmarks/memory.py``.

The floor is the least that a store with expiry can do: a coroutine over a dict of (value, expiry) and a clock.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiocache import SimpleMemoryCache
from cashews.backends.memory import Memory
from litestar.stores.memory import MemoryStore as LitestarMemoryStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import Figures, compete, nanoseconds, show, stall
from storeconf import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

KEYS = [f"user:{number}" for number in range(1_000)]
MISSING = [f"nobody:{number}" for number in range(1_000)]
VALUE = b"v" * 100
LIVE, EXPIRED = 100_000, 1_000
MILLION = 1_000_000


class Floor:
    def __init__(self) -> None:
        self._entries: dict[str, tuple[bytes, float | None]] = {}

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, deadline = entry
        if deadline is not None and deadline <= time.monotonic():
            return None
        return value

    async def set(self, key: str, value: bytes, expires_in: float | None = None) -> None:
        self._entries[key] = (value, None if expires_in is None else time.monotonic() + expires_in)


PEERS: dict[str, Callable[[], Any]] = {
    "floor": Floor,
    "Litestar": LitestarMemoryStore,
    "cashews": lambda: Memory(size=MILLION),
    "aiocache": SimpleMemoryCache,
    "storeconf": MemoryStore,
    "storeconf, bounded": lambda: MemoryStore(max_entries=MILLION),
}


def cost(call: Callable[..., Awaitable[object]], arguments: Sequence[tuple[object, ...]]) -> Awaitable[float]:
    return nanoseconds(call, arguments, time.thread_time)


async def calls(run: Callable[..., Awaitable[Any]] = compete, rounds: int = 25) -> Any:
    """Nanoseconds per awaited call; all sets but ``set new`` write over an entry."""

    def contender(name: str) -> Callable[[], Awaitable[dict[str, float]]]:
        async def measure() -> dict[str, float]:
            store = PEERS[name]()
            with_expiry = [(key, VALUE, 600) for key in KEYS]
            figures = {
                "set new": await cost(store.set, with_expiry),
                "set": await cost(store.set, with_expiry),
                "set for ever": await cost(store.set, [(key, VALUE) for key in KEYS]),
            }
            await cost(store.set, with_expiry)
            figures["get"] = await cost(store.get, [(key,) for key in KEYS])
            figures["miss"] = await cost(store.get, [(key,) for key in MISSING])
            return figures

        return measure

    return await run({name: contender(name) for name in PEERS}, rounds)


async def sizes() -> Figures:
    """Bytes per entry of 100 bytes, key and value included."""
    figures: Figures = {}
    for name in ("floor", "Litestar", "storeconf", "storeconf, bounded"):
        for measure, expiry in (("with expiry", (3600,)), ("for ever", ())):
            store = PEERS[name]()
            gc.collect()
            tracemalloc.start()
            for number in range(LIVE):
                await store.set(f"user:{number}", number.to_bytes(100), *expiry)
            figures.setdefault(name, {})[measure] = tracemalloc.get_traced_memory()[0] / LIVE
            tracemalloc.stop()
    return figures


async def expiry(run: Callable[..., Awaitable[Any]] = compete, rounds: int = 7) -> Any:
    """Milliseconds of delete_expired, and how long it keeps the event loop from other tasks at worst."""

    def contender(store: Any) -> Callable[[], Awaitable[dict[str, float]]]:
        async def measure() -> dict[str, float]:
            for number in range(EXPIRED):
                await store.set(f"gone:{number}", VALUE, 0.001)
            await asyncio.sleep(0.01)
            took, worst = await stall(store.delete_expired())
            return {"delete_expired": took * 1e3, "worst stall": worst * 1e3}

        return measure

    ours, litestar = MemoryStore(), LitestarMemoryStore()
    for number in range(LIVE):
        await ours.set(f"user:{number}", VALUE, 3600)
        await litestar.set(f"user:{number}", VALUE, 3600)
    gc.collect()
    gc.freeze()  # a collection would count as a stall of whoever happens to allocate
    gc.disable()
    try:
        return await run({"Litestar": contender(litestar), "storeconf": contender(ours)}, rounds)
    finally:
        gc.unfreeze()
        gc.enable()


async def stalls() -> Figures:
    """Of work on a million entries: the processor's milliseconds, and the worst stall of the event loop."""
    store = MemoryStore()
    for number in range(MILLION):
        await store.set(f"user:{number}", VALUE, 3600)

    async def list_while_it_changes() -> None:
        number = 0
        async for _ in store.keys():
            number += 1
            if not number % 1000:
                await store.set(f"new:{number}", VALUE)
                await store.delete(f"user:{number}")

    gc.collect()
    gc.freeze()
    gc.disable()
    figures: Figures = {}
    for name, work in (("keys()", list_while_it_changes()), ("delete_all()", store.delete_all())):
        took, worst = await stall(work)
        figures[name] = {"ms": took * 1e3, "worst stall": worst * 1e3}
    gc.unfreeze()
    gc.enable()
    return figures


async def main() -> None:
    show("Nanoseconds per call", await calls(), ours=["storeconf"], peers=["floor", "Litestar"])
    show("Bytes per entry", await sizes(), ours=["storeconf"], peers=["floor", "Litestar"])
    show(
        f"Milliseconds to drop {EXPIRED:,} expired of {LIVE:,} entries",
        await expiry(),
        ours=["storeconf"],
        peers=["Litestar"],
    )
    show("Milliseconds with a million entries", await stalls(), ours=[], peers=[])


if __name__ == "__main__":
    asyncio.run(main())
