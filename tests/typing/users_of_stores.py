"""What type checkers see of loading, stores and the help for tests."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import assert_type

import storeconf
from storeconf.testing import Clock, memory_registry


async def use() -> None:
    registry = storeconf.load("storeconf.yaml", environment="test", overrides={"stores.main.url": "x"}, environ={})
    assert_type(registry, storeconf.StoreRegistry)
    layout = storeconf.read_layout({"stores": {}})
    assert_type(layout, storeconf.Layout)
    assert_type(layout.plan(), storeconf.Plan)
    assert_type(layout.origin("stores.main"), storeconf.Origin | None)
    async with registry as opened:
        assert_type(opened, storeconf.StoreRegistry)
        store = opened.get("sessions")
        assert_type(store, storeconf.Store)
        await store.set("k", "text", expires_in=timedelta(days=1))
        await store.set("k", b"bytes", keep_ttl=True)
        assert_type(await store.get("k"), bytes | None)
        assert_type(await store.get_many(["k"]), dict[str, bytes])
        assert_type(await store.get_or_set("k", lambda: "made"), bytes)
        assert_type(await store.pop("k"), bytes | None)
        assert_type(await store.touch("k", None), bool)
        assert_type(store.keys("prefix"), AsyncIterator[str])
        store.gte("k")  # type: ignore[attr-defined]
        text: str = store  # type: ignore[assignment]
        assert text
        assert_type(await opened.ping(), dict[str, storeconf.PingResult])
    async with memory_registry("storeconf.yaml", clock=Clock()) as testing:
        assert_type(testing, storeconf.StoreRegistry)
