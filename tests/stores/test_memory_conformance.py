"""The conformance suite over bounded memory stores, and over one whose clock is set by hand."""

from __future__ import annotations

from storeconf import MemoryStore
from storeconf.testing import StoreConformance


class TestBounded(StoreConformance):
    def make_store(self) -> MemoryStore:
        return MemoryStore(max_entries=100_000, max_size=1 << 30)


class TestBoundedChild(TestBounded):
    namespaces = ("app", "app2")


class TestSetClock(StoreConformance):
    """No test waits; and the slack of floats that a real clock would hide shows."""

    time = 1e6 + 0.1

    def make_store(self) -> MemoryStore:
        return MemoryStore(clock=self.now)

    def now(self) -> float:
        return self.time

    async def advance(self, seconds: float) -> None:
        self.time += seconds
