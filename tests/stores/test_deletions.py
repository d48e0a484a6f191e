"""``delete`` and ``delete_many`` return what was there: on every backend, and through every chain."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

import storeconf
from storeconf import Store
from storeconf.testing import StoreConformance
from tests.conformance.plain import AtomicStore, PlainStore
from tests.conformance.test_stores import BACKENDS, CACHE, FULL_STACK

CHAINS: dict[str, dict[str, Any]] = {"none": {}, "cache": CACHE, "full": FULL_STACK, "all": {**FULL_STACK, **CACHE}}


async def delete_some(store: Store) -> None:
    below = store.with_namespace("below")
    for handle in (store, below):
        await handle.set_many({"a": b"1", "b": b"1", "c": b"1"})
        await handle.set("short", b"1", expires_in=0.001)
        assert await handle.get("a") == b"1"  # near from now on
        assert await handle.delete("a") is True
        assert await handle.delete("a") is False
        while await handle.exists("short"):
            await asyncio.sleep(0.001)
        assert await handle.delete("short") is False
        assert await handle.delete_many(["b", "missing", "c", "b", "short"]) == 2
        assert await handle.delete_many(["b"]) == 0
        assert await handle.delete_many([]) == 0
        many = {f"k{number}": b"1" for number in range(2500)}
        await handle.set_many(many)
        assert await handle.delete_many([*many, "missing"]) == 2500


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_deletions_return_what_was_there(backend: str, chain: str) -> None:
    async def main() -> None:
        async with storeconf.load({"stores": stores}, environ={}) as registry:
            try:
                await delete_some(registry["s"])
            finally:
                await registry["main"].delete_all()

    suite = StoreConformance()
    with tempfile.TemporaryDirectory() as directory:
        suite.directory, suite.unique = Path(directory), f"deletions-{chain}"
        stores = {
            "other": {"type": "memory"},
            "second": {"type": "memory"},
            "main": BACKENDS[backend](suite),
            "s": {"parent": "main", "middleware": CHAINS[chain]},
        }
        asyncio.run(main())


@pytest.mark.parametrize("kind", [PlainStore, AtomicStore])
def test_the_base_class_counts_what_each_deletion_returns(kind: type[PlainStore]) -> None:
    asyncio.run(delete_some(kind()))


def test_a_backend_that_cannot_tell_returns_none() -> None:
    class Silent(PlainStore):
        async def do_delete(self, path: tuple[str, ...], key: str) -> None:  # type: ignore[override]  # an older one
            await super().do_delete(path, key)

    async def main() -> None:
        store = Silent()
        await store.set_many({"a": b"1", "b": b"1"})
        assert await store.delete("a") is None
        assert await store.delete_many(["a", "b"]) is None
        assert await store.get_many(["a", "b"]) == {}

    asyncio.run(main())
