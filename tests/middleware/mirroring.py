"""Stores with a mirror, one that is slow, and waiting until everything is repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import storeconf
from storeconf import MemoryStore, MirrorReport, Store, mirror_report
from storeconf.operations import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable


def report_of(store: Store) -> MirrorReport:
    """What the ``mirror`` of a store has counted."""
    report = mirror_report(store)
    assert report is not None
    return report


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def repeated(store: Store) -> MirrorReport:
    """Wait until no call of the store waits to be repeated; return what was counted."""
    await until(lambda: not report_of(store).pending)
    return report_of(store)


class Slow(MemoryStore):
    """A mirror whose calls wait until it is ``open_gate``d, and that records them in the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.ran: list[tuple[str, Any]] = []
        self.waiting = 0

    def do_attach(self, parent: Slow) -> None:
        super().do_attach(parent)
        self.gate, self.ran, self.waiting = parent.gate, parent.ran, 0


def gated(method: str) -> Callable[..., Any]:
    own = getattr(MemoryStore, method)

    async def call(self: Slow, *args: Any, **kwargs: Any) -> Any:
        self.waiting += 1
        await self.gate.wait()
        self.ran.append((method, args[0] if args else None))
        return await own(self, *args, **kwargs)

    return call


for _method in METHODS:
    if _method not in ("keys", "ping"):
        setattr(Slow, _method, gated(_method))


def mirrored(other: Store, inner: Store | None = None, **settings: Any) -> Store:
    middleware = storeconf.Catalog.builtin().middleware("mirror")(**{"store": "other", **settings})
    context = storeconf.BuildContext(name="mirrored", environment=None, store=lambda name: other)
    return middleware.wrap(inner or MemoryStore(), context)


def layout(**stores: Any) -> storeconf.StoreRegistry:
    return storeconf.load({"stores": stores}, environ={})
