"""An existing Litestar store as a backend: what it keeps, and what it says that it can't."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from litestar.stores.memory import MemoryStore as LitestarMemoryStore

import storeconf
from storeconf import Backend, BuildContext, Catalog, Store, StoreUnavailableError, UnsupportedOperationError
from storeconf.integrations.litestar_backed import LitestarBacked
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Path = tuple[str, ...]


class Listed(LitestarBacked):
    """What the suite needs besides, noted here: with it, everything else is held to the promises."""

    def __init__(self) -> None:
        super().__init__(LitestarMemoryStore())
        self.written: dict[tuple[Path, str], None] = {}

    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.written[path, key] = None
        await super().do_set(path, key, value, expiry, keep_ttl)

    async def do_delete(self, path: Path, key: str) -> None:
        self.written.pop((path, key), None)
        await super().do_delete(path, key)

    async def do_delete_all(self, path: Path) -> None:
        for place in [place for place in self.written if place[0][: len(path)] == path]:
            await self.do_delete(*place)

    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        for place, key in list(self.written):
            if place == path and key.startswith(prefix) and await self.do_exists(path, key):
                yield key


@pytest.mark.slow
class TestKept(StoreConformance):
    threads = False  # Litestar's memory store has a lock that belongs to one event loop
    model_examples = 5
    model_steps = 20

    def make_store(self) -> LitestarBacked:
        return Listed()


class LegacyBackend(Backend):
    type: Literal["legacy"] = "legacy"

    def build(self, context: BuildContext) -> Store:
        return LitestarBacked(LitestarMemoryStore())


def test_a_layout_names_it_and_what_it_can_not_do_is_said() -> None:
    catalog = Catalog.builtin().with_backend("legacy", LegacyBackend)
    stores = {"old": {"type": "legacy"}, "sessions": {"parent": "old", "middleware": {"ttl": "1h"}}}

    async def use() -> None:
        layout = storeconf.read_layout({"stores": stores}, environ={}, catalog=catalog)
        async with layout.compile() as registry:
            sessions, old = registry["sessions"], registry["old"]
            await sessions.set("k", "v")
            assert await sessions.get("k") == b"v"
            assert await sessions.expires_in("k") in (3600, 3601)
            with pytest.raises(UnsupportedOperationError, match=r"increment\(\)"):
                await sessions.increment("n")
            with pytest.raises(UnsupportedOperationError, match="written for Litestar, can't list its keys"):
                [key async for key in sessions.keys()]
            with pytest.raises(UnsupportedOperationError, match="for one namespace"):
                await sessions.delete_all()
            await old.delete_all()
            assert await sessions.get("k") is None

    asyncio.run(use())


def test_existing_plain_keys_are_found() -> None:
    inner = LitestarMemoryStore()

    async def use() -> None:
        await inner.set("session-id", b"v")
        async with LitestarBacked(inner) as store:
            assert await store.get("session-id") == b"v"
            assert await store.expires_in("session-id") == -1

    asyncio.run(use())


class Down(LitestarMemoryStore):
    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        raise OSError("no route")


def test_errors_are_translated() -> None:
    async def use() -> None:
        async with LitestarBacked(Down()) as store:
            with pytest.raises(StoreUnavailableError, match="Down failed: OSError") as caught:
                await store.get("k")
        assert isinstance(caught.value.__cause__, OSError)

    asyncio.run(use())
