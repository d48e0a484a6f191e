"""``limit``: sizes of keys and values, on the way in and on the way out."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import MemoryStore, StoreValueError
from storeconf.middleware.refusal import Limit
from storeconf.plugin import BuildContext

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

READS: dict[str, Callable[[storeconf.Store], Coroutine[Any, Any, Any]]] = {
    "get": lambda store: store.get("large"),
    "get, renewing": lambda store: store.get("large", renew_for=60),
    "get, ending": lambda store: store.get("large", renew_for=0),
    "get_with_expiry": lambda store: store.get_with_expiry("large"),
    "pop": lambda store: store.pop("large"),
}

CHAINS: dict[str, dict[str, Any]] = {
    "alone": {},
    "cache": {"cache": "1m"},
    "encrypt": {"encrypt": {"keys": ["k" * 32]}},
    "gzip": {"compress": {"algorithm": "gzip"}},
    "lz4": {"compress": {"algorithm": "lz4"}},
    "zstd": {"compress": {"algorithm": "zstd", "max_size": "1GiB"}},
    "all": {
        "cache": "1m",
        "compress": "zstd",
        "encrypt": {"keys": ["k" * 32]},
        "ttl": {"default": "1h", "renew_on_get": True},
    },
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_larger_value_that_is_stored_already_counts_as_damaged(
    tmp_path: Path, chain: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def opened(**more: Any) -> storeconf.StoreRegistry:
        stores = {"s": {"type": "file", "path": str(tmp_path / "data"), "middleware": {**chain, **more}}}
        return storeconf.load({"stores": stores}, environ={})

    async def check() -> None:
        async with opened() as before, opened(limit={"value_size": "1KiB"}) as after:
            store = after["s"]
            await before["s"].set_many({"large": bytes(1025), "fits": bytes(1024)}, expires_in=600)
            for name, read in READS.items():
                assert await read(store) is None, name
            assert await store.get_many(["large", "fits", "missing"]) == {"fits": bytes(1024)}
            assert await store.with_namespace("below").get("large") is None
            assert await before["s"].get("large") == bytes(1025)
            assert await store.get("fits", renew_for=60) == bytes(1024)
            with pytest.raises(StoreValueError):
                await store.set("large", bytes(1025))
            await store.set("large", "smaller now")
            assert await store.get_with_expiry("large") is not None
            assert await store.pop("large") == b"smaller now"
            assert await store.get("fits", renew_for=0) == bytes(1024)
            assert await store.get("fits") is None

    with caplog.at_level(logging.WARNING, "storeconf"):
        asyncio.run(check())
    assert "reads as missing" in caplog.text


def test_objects_have_no_size() -> None:
    async def check() -> None:
        inner = MemoryStore(objects=True)
        store: Any = Limit(value_size=4).wrap(inner, BuildContext("tested", None, lambda name: inner))
        for value in ({"a": 1}, list(range(100)), 5):
            await store.set("k", value)
            assert await store.get("k") == value
        await inner.set("k", b"large")
        assert await store.get("k") is None

    asyncio.run(check())


def test_a_plain_value_is_limited_too() -> None:
    async def check() -> None:
        stores = {
            "main": {"type": "memory"},
            "s": {
                "parent": "main",
                "namespace": "n",
                "middleware": {
                    "limit": "1KiB",
                    "compress": {"accept_plain": True},
                    "encrypt": {"keys": "k", "accept_plain": True},
                },
            },
        }
        async with storeconf.load({"stores": stores}, environ={}) as registry:
            plain = registry["main"].with_namespace("n")
            await plain.set_many({"fits": bytes(1024), "large": bytes(1025)})
            assert await registry["s"].get("large") is None
            assert await registry["s"].pop("large") is None
            assert await registry["s"].get_many(["fits", "large"]) == {"fits": bytes(1024)}
            assert await plain.get("large") == bytes(1025)

    asyncio.run(check())
