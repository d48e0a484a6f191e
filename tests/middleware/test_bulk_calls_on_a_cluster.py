"""Bulk calls of every policy on a real Cluster of which one node is down."""

from __future__ import annotations

import asyncio
from typing import Any

import storeconf
from tests.servers import cluster

CHAINS: dict[str, dict[str, Any]] = {
    "alone": {"on_error": "miss"},
    "coded": {"on_error": "miss", "compress": {"min_size": 0}, "encrypt": {"keys": ["k" * 32]}},
    "renewing": {"on_error": "miss", "ttl": {"default": "1h", "renew_on_get": True}},
    "cached": {"on_error": "miss", "cache": "1m"},
    "limited": {"on_error": "miss", "limit": "1KiB"},
    "falling back": {"fallback": "local"},
}


def test_what_can_be_reached_is_found_and_deleted() -> None:
    async def check() -> None:
        with cluster() as nodes:
            for node in nodes:
                node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
            stores: dict[str, Any] = {
                "local": {"type": "memory"},
                "main": {"type": "valkey", "cluster": [node.address for node in nodes], "namespace": "app"},
            }
            names = {chain: chain.replace(" ", "-") for chain in CHAINS}
            for chain, middleware in CHAINS.items():
                stores[names[chain]] = {"parent": "main", "middleware": middleware}
            keys = [f"k{number}" for number in range(90)]
            async with storeconf.load({"stores": stores}, environ={}) as registry:
                for name in names.values():
                    await registry[name].set_many(dict.fromkeys(keys, "v"))
                nodes[0].stop()
                for chain, name in names.items():
                    store = registry[name]
                    found = await store.get_many(keys)
                    assert 30 < len(found) < 90, chain
                    single = await asyncio.gather(*map(store.get, keys))
                    assert found == {key: value for key, value in zip(keys, single, strict=True) if value}, chain
                    assert await store.delete_many(keys) == len(found), chain
                    assert await store.get_many(keys) == {}, chain

    asyncio.run(check())
