"""storeconf's own namespaces: out of reach of applications, left out of listings, and spared by ``delete_all``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storeconf import RedisStore, Store, lock, read_layout
from storeconf._arguments import LEASES, LOCKS, STALE
from storeconf.transfer.endpoint import Endpoint
from tests.above.backends import BACKENDS, in_loop, layout, load
from tests.servers import shared

if TYPE_CHECKING:
    from pathlib import Path

OWN = (STALE, LEASES, LOCKS)


async def fill(store: Store) -> None:
    """Put an entry into each of the store's own namespaces, into itself, and into one below it."""
    for place in (store, store.with_namespace("a"), *map(store.with_namespace, OWN)):
        await place.set("k", b"v")
        await place.set("k:-lock::k", b"v")


@pytest.mark.parametrize("name", ["-", "-lock", "-stale", "-lease", "-x"])
@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_applications_cannot_create_them(backend: str, name: str, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        with pytest.raises(ValueError, match="can't name a namespace"):
            registry["s"].with_namespace(name)
        with pytest.raises(ValueError, match="can't name a namespace"):
            registry.get(name)


@pytest.mark.parametrize("below", [(), ("b",), ("b", "c")])
@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_listings_omit_them(backend: str, below: tuple[str, ...], tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        store = registry["s"]
        for name in below:
            store = store.with_namespace(name)
        await fill(store)
        assert {key async for key in store.keys()} == {"k", "k:-lock::k"}
        expected = {(below, "k"), (below, "k:-lock::k"), ((*below, "a"), "k"), ((*below, "a"), "k:-lock::k")}
        assert {place async for place in registry["s"].walk()} == expected
        for own in OWN:
            assert {key async for key in store.with_namespace(own).keys()} == {"k", "k:-lock::k"}


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_delete_all_clears_copies_and_spares_locks_and_leases(backend: str, depth: int, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        path = [registry["s"]]
        for name in "bc"[:depth]:
            path.append(path[-1].with_namespace(name))
        await fill(path[-1])
        await path[0].delete_all()
        for name, left in ((STALE, False), (LEASES, True), (LOCKS, True)):
            assert await path[-1].with_namespace(name).exists("k") is left
        assert not await path[-1].exists("k")
        await path[-1].with_namespace(LOCKS).delete_all()
        assert not await path[-1].with_namespace(LOCKS).exists("k")


@pytest.mark.parametrize("below", [(), ("b",)])
@in_loop
async def test_litestars_keys_know_them_too(below: tuple[str, ...]) -> None:
    async with RedisStore.with_client(shared("redis-8.2").url, namespace=f"L{id(below)}", key_layout="litestar") as top:
        store = top
        for name in below:
            store = store.with_namespace(name)
        for place in (store, *map(store.with_namespace, OWN)):
            await place.set("k", b"v")
        assert {place async for place in top.walk()} == {(below, "k")}
        await top.delete_all()
        exists = [await store.with_namespace(name).exists("k") for name in OWN]
        assert exists == [False, True, True]
        for name in OWN:
            await store.with_namespace(name).delete_all()


@pytest.mark.parametrize("backend", ["file", "valkey"])
@in_loop
async def test_transfers_omit_them(backend: str, tmp_path: Path) -> None:
    settings = layout(backend, tmp_path)
    async with load(settings) as registry:
        await fill(registry["s"])
        async with lock(registry["s"], "job"):
            pass
    async with Endpoint(read_layout(settings, environ={}), "s") as endpoint:
        found = {(address.namespaces, address.key) async for address in endpoint.addresses()}
    assert found == {((), "k"), ((), "k:-lock::k"), (("a",), "k"), (("a",), "k:-lock::k")}
