"""It logs writes without values, has its place, and takes away no promise."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def layout(middleware: dict[str, Any]) -> dict[str, Any]:
    return {"stores": {"main": {"type": "memory"}, "s": {"parent": "main", "middleware": middleware}}}


class TestAudited(StoreConformance):
    model_examples = 10

    def make_store(self) -> storeconf.Store:
        return storeconf.load(layout({"audit": {}}), environ={}).get("s")


def logged(
    caplog: pytest.LogCaptureFixture,
    use: Callable[[storeconf.Store], Awaitable[object]],
    settings: Any,
    **others: Any,
) -> list[str]:
    async def main() -> None:
        async with storeconf.load(layout({"audit": settings, **others}), environ={}) as registry:
            await use(registry["s"])

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    return [record.message for record in caplog.records if record.name == "audited"]


async def writes(store: storeconf.Store) -> None:
    await store.set("k", "value")
    await store.get("k")
    await store.add("k", "value")
    await store.delete_many(["k", "l"])
    await store.set("n", "value")
    with pytest.raises(ValueError, match="integer"):
        await store.increment("n")
    await store.with_namespace("below").delete_all()


def test_writes_are_logged_and_no_value(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, writes, {"logger": "audited", "keys": "plain"}) == [
        "set of s: done 'k'",
        "add of s: not done 'k'",
        "delete_many of s: done 'k' 'l'",
        "set of s: done 'n'",
        "increment of s: failed with StoreValueError 'n'",
        "delete_all of s/below: done ",
    ]


def test_keys_are_hashed_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, lambda store: store.set("k", "v"), "audited") == ["set of s: done 8254c329a92850f6"]
    caplog.clear()
    assert logged(caplog, lambda store: store.set("k", "v"), {"logger": "audited", "keys": "none"}) == [
        "set of s: done -"
    ]


def test_it_stands_behind_what_refuses_and_in_front_of_ttl(caplog: pytest.LogCaptureFixture) -> None:
    async def refused(store: storeconf.Store) -> None:
        with pytest.raises(storeconf.StoreReadOnlyError):
            await store.set("k", "v")

    others = {"ttl": "1h", "read_only": True}
    assert logged(caplog, refused, "audited", **others) == []
    settings = layout({"ttl": "1h", "audit": {}, "limit": "1MB", "read_only": True})
    plan = str(storeconf.read_layout(settings, environ={}).plan())
    order = [plan.index(kind) for kind in ("read_only", "limit", "audit", "ttl")]
    assert order == sorted(order)
