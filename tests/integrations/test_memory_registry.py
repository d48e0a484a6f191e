"""Any layout on memory stores: what stays as the layout says, what does not, and whose time it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import ConfigError, MemoryStore, UnknownStoreError
from storeconf.testing import Clock, fixtures, memory_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storeconf import StoreRegistry

clock, memory_registry_fixture = fixtures.clock, fixtures.memory_registry

LAYOUT: dict[str, Any] = {
    "stores": {
        "main": {"type": "memory"},
        "sessions": {
            "parent": "main",
            "middleware": {"ttl": {"default": "1h"}, "encrypt": {"keys": ["${file:/run/secrets/never}"]}},
        },
        "other_name": {"use": "sessions"},
        "pages": {"parent": "sessions", "namespace": "html", "middleware": {"encrypt": False}},
        "uploads": {"type": "file", "path": "${UPLOADS}", "mode": "0750"},
        "objects": {"type": "memory", "objects": True, "max_entries": 2},
    },
    "default_factory": {"parent": "main"},
    "environments": {
        "production": {"stores": {"main": {"type": "redis", "url": "${REDIS_URL:?needed}", "namespace": "shop"}}}
    },
}


def test_names_namespaces_and_chains_are_those_of_the_layout() -> None:
    registry = memory_registry(LAYOUT, environment="production")

    async def main() -> None:
        async with registry:
            sessions = registry["sessions"]
            await sessions.set("k", "v")
            assert await sessions.get("k") == b"v"
            assert await sessions.expires_in("k") == 3600
            bare: Any = registry["main"]
            assert await bare.with_namespace("sessions").get("k") not in (b"v", None)  # encrypted, as in production

    asyncio.run(main())
    assert registry.names() == list(LAYOUT["stores"])
    assert registry["sessions"].namespaces == ("shop", "sessions")
    assert registry["pages"].namespaces == ("shop", "sessions", "html")
    assert registry["other_name"] is registry["sessions"]
    assert registry.get("unlisted").namespaces == ("shop", "unlisted")
    assert {type(registry[name].root) for name in registry} == {MemoryStore}
    assert registry["objects"].capabilities.objects


def test_time_stands_still_until_it_is_advanced(tmp_path: Path) -> None:
    clock = Clock()
    registry = memory_registry(LAYOUT, clock=clock)

    async def main() -> None:
        async with registry:
            stores = [registry["sessions"], registry["uploads"], registry["objects"], registry.get("unlisted")]
            for store in stores:
                await store.set("k", b"v", expires_in=60)
            clock.advance(59)
            assert [await store.expires_in("k") for store in stores] == [1] * 4
            clock.advance(timedelta(seconds=1))
            assert [await store.get("k") for store in stores] == [None] * 4

    asyncio.run(main())


@pytest.mark.parametrize("factory", [None, {"type": "redis", "namespace": "x", "url": "${NO}"}, {"use": "main"}])
def test_what_no_layout_lists_runs_on_the_same_clock(factory: dict[str, Any] | None) -> None:
    layout = {"stores": LAYOUT["stores"], **({"default_factory": factory} if factory else {})}
    clock = Clock()
    registry = memory_registry(layout, clock=clock)

    async def main() -> None:
        async with registry:
            await registry.get("unlisted").set("k", "v", expires_in=60)
            clock.advance(60)
            assert not await registry.get("unlisted").exists("k")

    asyncio.run(main())


def test_each_registry_is_one_of_its_own() -> None:
    first, second = (memory_registry(LAYOUT) for _ in range(2))

    async def main() -> None:
        async with first, second:
            await first["main"].set("k", "v")
            assert await second["main"].get("k") is None

    asyncio.run(main())


def test_variables_of_the_process_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF_ENV", "nowhere")
    monkeypatch.setenv("STORECONF__STORES__MAIN__MAX_ENTRIES", "1")
    registry = memory_registry(LAYOUT)

    async def main() -> None:
        async with registry:
            await registry["main"].set_many({"a": b"1", "b": b"2"})
            assert len(await registry["main"].get_many(["a", "b"])) == 2

    asyncio.run(main())
    with pytest.raises(ConfigError, match="nowhere"):
        memory_registry(LAYOUT, environ={"STORECONF_ENV": "nowhere"})


def test_a_wrong_layout_is_an_error_and_a_strict_one_stays_strict() -> None:
    with pytest.raises(ConfigError, match="pathh"):
        memory_registry({"stores": {"uploads": {"type": "file", "pathh": "x"}}})
    strict = memory_registry({"stores": {"a": {"type": "memory"}}, "default_factory": "forbid"})
    with pytest.raises(UnknownStoreError):
        strict.get("b")


def test_the_fixtures_share_the_clock_of_a_test(
    clock: Clock, memory_registry_fixture: Callable[..., StoreRegistry]
) -> None:
    registry = memory_registry_fixture(LAYOUT, environment="production")

    async def main() -> None:
        async with registry:
            await registry["sessions"].set("k", "v")
            clock.advance(3600)
            assert await registry["sessions"].get("k") is None

    asyncio.run(main())


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="not go back"):
        Clock().advance(-1)
