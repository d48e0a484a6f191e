"""What each policy makes of a real server that can be read and takes no writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import storeconf
from storeconf import StoreRefusedError
from tests.servers import KINDS, Server

CHAINS: dict[str, dict[str, Any]] = {
    "alone": {},
    "on_error": {"on_error": "miss"},
    "fallback": {"fallback": "local"},
    "coded": {"compress": {"min_size": 0}, "encrypt": {"keys": ["k" * 32]}},
    "cache": {"cache": "1m"},
    "breaker": {"breaker": 1},
    "all": {"on_error": "miss", "fallback": "local", "cache": "1m", "compress": "zstd", "breaker": 1, "timeout": "10s"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_reading_goes_on_and_deleting_raises(kind: str) -> None:
    async def check(server: Server) -> None:
        stores: dict[str, Any] = {
            "local": {"type": "memory"},
            "main": {"type": "redis", "url": server.url, "namespace": "app", "retries": 0},
        }
        for name, chain in CHAINS.items():
            stores[name] = {"parent": "main", "middleware": chain}
            stores[f"{name}-ttl"] = {
                "parent": "main", "middleware": {"ttl": {"default": "1h", "renew_on_get": True}, **chain}
            }  # fmt: skip
        async with storeconf.load({"stores": stores}, environ={}) as registry:
            for name in stores:
                await registry[name].set("k", "v", expires_in=600)
            changes: dict[tuple[Any, ...], tuple[Any, ...]] = {
                ("REPLICAOF", "127.0.0.1", "1"): ("REPLICAOF", "NO", "ONE"),
                ("CONFIG", "SET", "min-replicas-to-write", 1): ("CONFIG", "SET", "min-replicas-to-write", 0),
            }
            for start, end in list(changes.items())[
                : 1 if kind == "redis-6.2" else 2
            ]:  # whose scripts need no replicas
                server.ask(*start)
                for name in CHAINS:
                    misses, tolerates = "on_error" in CHAINS[name], name in ("fallback", "on_error", "all")
                    for store in (registry[name], registry[f"{name}-ttl"]):
                        await refused(store, misses=misses, tolerates=tolerates)
                server.ask(*end)

    async def refused(store: storeconf.Store, *, misses: bool, tolerates: bool) -> None:
        assert await store.get("k") == b"v"
        assert await store.get("k", renew_for=60) == b"v"
        assert await store.get_many(["k", "missing"]) == {"k": b"v"}
        for removing in (
            *(store.delete("k"), store.pop("k"), store.delete_many(["k"]), store.get("k", renew_for=0)),
            *(store.set("k", "new", -1), store.set_many({"k": "new"}, expires_in=0), store.touch("k", 0)),
        ):
            with pytest.raises(StoreRefusedError):
                await removing
        if misses:
            await store.set("k", "new")
            await store.set_many({"k": "new"})
            assert await store.touch("k", 5) is False
        else:
            for writing in (store.set("k", "new"), store.set_many({"k": "new"}), store.touch("k", 5)):
                with pytest.raises(StoreRefusedError):
                    await writing
        if tolerates:
            assert await store.get_or_set("made", lambda: b"page") == b"page"
            assert await store.get("made") is None
        assert await store.get("k") == b"v"

    with Server(kind) as server:
        asyncio.run(check(server))
