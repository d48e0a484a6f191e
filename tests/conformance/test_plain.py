"""The suite over stores built on the hooks alone: tests the base class, and the suite itself."""

from __future__ import annotations

from storeconf.testing import StoreConformance

from .plain import AtomicStore, PickleStore, PlainStore


class TestPlain(StoreConformance):
    def make_store(self) -> PlainStore:
        return PlainStore()


class TestAtomicChild(StoreConformance):
    namespaces = ("parent", "child")

    def make_store(self) -> AtomicStore:
        return AtomicStore()


class TestPickle(StoreConformance):
    model_examples = 10

    def make_store(self) -> PickleStore:
        return PickleStore(self.directory / "data.pickle")


class TestManualClock(StoreConformance):
    """The author's own clock: nothing waits, however long an expiry takes."""

    time = 1000.0

    def make_store(self) -> AtomicStore:
        return AtomicStore(self.now)

    def now(self) -> float:
        return self.time

    async def advance(self, seconds: float) -> None:
        self.time += seconds
