"""A store of a layout as py-key-value's ``AsyncKeyValue``.

py-key-value's own tests of stores pass as well, but they are not part of its package.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from key_value.aio.errors import DeserializationError, InvalidTTLError, SerializationError
from key_value.aio.protocols import key_value as protocols

import storeconf
from storeconf import StoreUnavailableError, UnknownStoreError
from storeconf.integrations.key_value import StoreconfKeyValue
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

NAMES = [
    "plain",
    "q-plain",
    "user:ada",
    "Größe",
    "_private",
    "-lock",
    "a b",
    "a_b",
    "a_20b",
    "q-",
    "x" * 1500,
    "..",
    "é" * 90,
]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.fixture(params=["memory", "file", "valkey"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A store ``data`` and a neighbour of it on one backend."""
    main: dict[str, Any] = {"type": request.param, "namespace": "app"}
    if request.param == "file":
        main["path"] = str(tmp_path / "stores")
    elif request.param == "valkey":
        server: Server = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        main["url"] = f"valkey://{server.address}"
    return {"stores": {"main": main, "data": {"parent": "main"}, "other": {"parent": "main"}}}


def run(layout: dict[str, Any], work: Callable[[StoreconfKeyValue], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with StoreconfKeyValue("data", layout) as storage:
            await work(storage)

    asyncio.run(main())


def test_it_has_every_protocol() -> None:
    storage = StoreconfKeyValue(storeconf.MemoryStore())
    for name in (
        "AsyncKeyValue",
        "AsyncCullProtocol",
        "AsyncEnumerateKeysProtocol",
        "AsyncEnumerateCollectionsProtocol",
        "AsyncDestroyStoreProtocol",
        "AsyncDestroyCollectionProtocol",
    ):
        assert isinstance(storage, getattr(protocols, name)), name


def test_collections_of_any_name_are_kept_apart_and_listed(layout: dict[str, Any]) -> None:
    async def work(storage: StoreconfKeyValue) -> None:
        for number, name in enumerate(NAMES):
            await storage.put("k", {"number": number}, collection=name)
        await storage.put("k", {"number": -1})
        for number, name in enumerate(NAMES):
            assert await storage.get("k", collection=name) == {"number": number}, name
            assert await storage.keys(name) == ["k"]
        assert sorted(await storage.collections()) == sorted([*NAMES, "default_collection"])
        assert len(await storage.collections(limit=3)) == 3
        assert await storage.destroy_collection(NAMES[0])
        assert await storage.get("k", collection=NAMES[0]) is None
        assert await storage.get("k", collection=NAMES[1]) == {"number": 1}
        assert await storage.destroy()
        assert await storage.collections() == []

    run(layout, work)


def test_destroying_spares_the_stores_beside_it(layout: dict[str, Any]) -> None:
    async def main() -> None:
        async with storeconf.load(layout) as registry:
            await registry.get("other").set("k", "v")
            storage = StoreconfKeyValue("data", registry)
            await storage.put("k", {"a": 1})
            await storage.destroy()
            assert await storage.get("k") is None
            assert await registry.get("other").get("k") == b"v"

    asyncio.run(main())


def test_many_keys_keep_their_order(layout: dict[str, Any]) -> None:
    async def work(storage: StoreconfKeyValue) -> None:
        await storage.put_many(["a", "b", "a"], [{"n": 1}, {"n": 2}, {"n": 3}], ttl=60)
        assert await storage.get_many(["b", "missing", "a", "b"]) == [{"n": 2}, None, {"n": 3}, {"n": 2}]
        (first, left), missing = await storage.ttl_many(["a", "missing"])
        assert first == {"n": 3}
        assert left is not None
        assert 59 < left <= 60
        assert missing == (None, None)
        assert await storage.keys(limit=1) in (["a"], ["b"])
        assert await storage.delete_many(["a", "b", "missing"]) == 2
        with pytest.raises(ValueError, match="1 keys and 2 values"):
            await storage.put_many(["a"], [{}, {}])

    run(layout, work)


def test_expiry_is_the_stores_and_obeys_the_layout() -> None:
    rules = {"stores": {"data": {"type": "memory", "middleware": {"ttl": {"default": "1h", "max": "2h"}}}}}

    async def work(storage: StoreconfKeyValue) -> None:
        for given, kept in ((None, 3600), (10, 10), (2.5, 2.5), (86_400, 7200)):
            await storage.put("k", {}, ttl=given)
            _, left = await storage.ttl("k")
            assert left == pytest.approx(kept, abs=1)
        for wrong in (0, -1, True, math.nan, math.inf, "soon"):
            with pytest.raises(InvalidTTLError):
                await storage.put("k", {}, ttl=wrong)  # type: ignore[arg-type]
        await storage.cull()

    run(rules, work)


def test_values_are_json_objects() -> None:
    store = storeconf.MemoryStore()

    async def main() -> None:
        async with StoreconfKeyValue(store) as storage:
            with pytest.raises(SerializationError):
                await storage.put("k", {"at": datetime.now(UTC)})
            for wrong in ([1], {1: 2}):
                with pytest.raises(TypeError):
                    await storage.put("k", wrong)  # type: ignore[arg-type]
            for damaged in (b"\xff", b"[1]", b"{"):
                await store.with_namespace("default_collection").set("k", damaged)
                with pytest.raises(DeserializationError):
                    await storage.get("k")

    asyncio.run(main())


def test_an_outage_is_a_connection_error_that_the_layout_may_hide() -> None:
    main: dict[str, Any] = {"type": "valkey", "url": "valkey://127.0.0.1:1", "namespace": "a", "retries": 0}

    async def raises(storage: StoreconfKeyValue) -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            await storage.get("k")
        assert isinstance(caught.value, ConnectionError)

    async def misses(storage: StoreconfKeyValue) -> None:
        assert await storage.get("k") is None
        assert await storage.delete("k") is False
        assert await storage.delete_many(["k"]) == 0

    run({"stores": {"data": main}}, raises)
    run({"stores": {"data": {**main, "middleware": {"on_error": "miss"}}}}, misses)


def test_a_name_needs_a_layout_that_has_it() -> None:
    with pytest.raises(UnknownStoreError, match="did you mean 'data'"):
        StoreconfKeyValue("date", {"stores": {"data": {"type": "memory"}}})
    with pytest.raises(ValueError, match="this is a store"):
        StoreconfKeyValue(storeconf.MemoryStore(), "storeconf.yaml")
