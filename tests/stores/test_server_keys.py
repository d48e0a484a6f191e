"""The bytes of keys: what is written where, whose keys survive, and sharing with Litestar's stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio
from litestar.stores.redis import RedisStore as LitestarsStore

from storeconf import StoreValueError, UnsupportedOperationError
from storeconf.stores import RedisStore
from storeconf.stores.resp.keys import key_layout
from tests.servers import Server, shared


def store_of(namespace: str | None, **settings: Any) -> RedisStore:
    return RedisStore.with_client(shared("redis-8.2").url, namespace=namespace, **settings)


def test_keys_are_what_the_docs_say() -> None:
    layout = key_layout("storeconf")
    assert layout.prefix(("shop", "cache")) + b"k" == b"shop:cache::k"
    assert layout.prefix(()) == b""
    assert key_layout("litestar").prefix(("LITESTAR", "sessions")) == b"LITESTAR_sessions:"
    with pytest.raises(ValueError, match="unknown key layout"):
        key_layout("other")  # type: ignore[arg-type]  # what is tested


def test_the_server_holds_exactly_the_key_and_the_value() -> None:
    async def work() -> None:
        client = redis.asyncio.Redis.from_url(shared("redis-8.2").url)
        async with store_of("bytes") as store:
            await store.with_namespace("cache").set("k:ü", "v", 100)
            assert await client.get("bytes:cache::k:ü".encode()) == b"v"
            assert 99_000 < await client.pttl("bytes:cache::k:ü".encode()) <= 100_000
            await store.delete_all()
        await client.aclose()

    asyncio.run(work())


SIBLINGS = [
    "app",
    "app::",
    "app:k",
    "app:sub:k",
    "app:-bad::k",
    "app:su b::k",
    "app::k".upper(),
    "app2::k",
    "app_x::k",
    "xapp::k",
    "app-1:sub::k",
    "a*::k",
    "app:\n::k",
    "app:sub",
]


def test_delete_all_deletes_what_is_ours_and_nothing_else() -> None:
    async def work() -> None:
        client = redis.asyncio.Redis.from_url(server.url)
        async with RedisStore(redis=client, namespace="app") as store:
            foreign = [key.encode() for key in SIBLINGS if key not in ("app::",)] + [b"app::\xff", b"app:\xff::k"]
            await client.mset(dict.fromkeys(foreign, b"theirs"))
            keys = ["", "k", ":", "::", "a::b", "*", "[a]", "\\", "\n", "ü", "\x00", "app::k"]
            for space in (store, store.with_namespace("sub"), store.with_namespace("sub").with_namespace("a-_9")):
                await space.set_many(dict.fromkeys(keys, b"ours"))
                assert {key async for key in space.keys()} == set(keys)
            await store.with_namespace("sub").delete_all()
            assert {key async for key in store.keys()} == set(keys)
            await store.delete_all()
            assert sorted(await client.keys()) == sorted(foreign)
            await store.delete_all()
        await client.aclose()

    with Server() as server:
        asyncio.run(work())


@pytest.mark.parametrize("prefix", ["*", "?", "[a]", "[", "\\", "a\\*", "^", "ü", "", "a:"])
def test_prefixes_are_no_patterns(prefix: str) -> None:
    async def work() -> None:
        async with store_of("prefixes") as store:
            keys = {"*a", "?", "[a]b", "[", "\\x", "a\\*b", "^z", "ü-", "a:b", "ab", "b"}
            await store.set_many(dict.fromkeys(keys, b""))
            assert {key async for key in store.keys(prefix)} == {key for key in keys if key.startswith(prefix)}

    asyncio.run(work())


def test_a_store_without_namespace_keeps_raw_keys_and_its_distance() -> None:
    async def work() -> None:
        client = redis.asyncio.Redis.from_url(server.url)
        async with RedisStore(redis=client, namespace=None) as store:
            await store.set("raw", b"v")
            assert await client.get("raw") == b"v"
            assert {key async for key in store.keys("r")} == {"raw"}
            with pytest.raises(UnsupportedOperationError, match="no namespace"):
                await store.delete_all()
            with pytest.raises(UnsupportedOperationError, match="no namespace"):
                store.with_namespace("child")
            assert await client.get("raw") == b"v"
        await client.aclose()

    with Server() as server:
        asyncio.run(work())


def test_an_acl_for_one_prefix_is_enough() -> None:
    async def work() -> None:
        allowed = ["~shop:*", "+@read", "+@write", "+@scripting", "+@connection", "+info"]
        server.ask("ACL", "SETUSER", "shop", "on", ">pw", *allowed)
        store = RedisStore.with_client(server.url, username="shop", password="pw", namespace="shop")
        async with store:
            child = store.with_namespace("cache")
            await child.set_many({f"k{i}": b"v" for i in range(50)})
            assert len([key async for key in child.keys()]) == 50
            assert await child.get("k1", renew_for=10) == b"v"
            assert await store.increment("n", expires_in=5) == 1
            await store.delete_all()
            assert (await store.ping()).ok

    with Server() as server:
        asyncio.run(work())


# ---------------------------------------------------------------------- Litestar


def test_litestars_stores_and_ours_share_their_keys() -> None:
    async def work() -> None:
        client = redis.asyncio.Redis.from_url(server.url)
        theirs = LitestarsStore(client)
        async with RedisStore(redis=client, key_layout="litestar") as ours:
            for store, other in ((ours, theirs), (theirs, ours)):
                await store.set("k", b"v", 100)
                assert await other.get("k") == b"v"
                assert await other.expires_in("k") == 100
                await store.with_namespace("sessions").set("id:1", b"s")
                assert await other.with_namespace("sessions").get("id:1") == b"s"
                nested = store.with_namespace("a").with_namespace("b")
                await nested.set("k", b"n")
                assert await other.with_namespace("a").with_namespace("b").get("k") == b"n"
            assert {key async for key in ours.with_namespace("sessions").keys()} == {"id:1"}
            others = ["LITESTAR", "LITESTAR2:k", "LITESTAR_x", "LITESTARs:k", "other:k"]
            await client.mset(dict.fromkeys(others, b""))
            await ours.with_namespace("a").delete_all()
            assert await theirs.with_namespace("a").with_namespace("b").get("k") is None
            assert await theirs.get("k") == b"v"
            await ours.delete_all()
            assert sorted(await client.keys()) == [other.encode() for other in others]
        await client.aclose()

    with Server("redis-6.2") as server:
        asyncio.run(work())


def test_numbers_keep_all_their_digits() -> None:
    async def work() -> None:
        async with store_of("numbers") as store:
            big = (1 << 63) - 2
            await store.delete_all()
            assert await store.increment("n", big, expires_in=60) == big
            assert await store.increment("n", 1, expires_in=60) == big + 1
            with pytest.raises(StoreValueError):
                await store.increment("n", 1, expires_in=60)
            assert await store.increment("low", -(1 << 63)) == -(1 << 63)
            for text in (b"01", b"+1", b" 1", b"1 ", b"-0", b"", b"1.0", b"9223372036854775808", b"0x1"):
                await store.set("text", text)
                for expiry in (None, 10):
                    with pytest.raises(StoreValueError):
                        await store.increment("text", 1, expires_in=expiry)
                assert await store.get("text") == text
            await store.delete_all()

    asyncio.run(work())


def test_scripts_are_sent_again_to_a_server_that_forgot_them() -> None:
    async def work() -> None:
        async with RedisStore.with_client(server.url, namespace="scripts") as store:
            for _ in range(2):
                assert server.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
                await store.set("k", b"v", 10)
                assert await store.get("k", renew_for=100) == b"v"
                assert await store.touch("k", None) is True
                assert await store.compare_and_set("k", b"v", None) is True

    with Server("redis-6.2") as server:
        asyncio.run(work())


def test_commands_that_a_server_lacks_or_forbids() -> None:
    async def work() -> None:
        async with RedisStore.with_client(server.url, namespace="old") as store:
            await store.set("k", b"v")
            assert await store.pop("k") == b"v", "without GETDEL a script does"
            assert await store.pop("k") is None
            with pytest.raises(UnsupportedOperationError):
                await store.delete_all()
            with pytest.raises(UnsupportedOperationError):
                [key async for key in store.keys()]
            assert (await store.ping()).ok

    renamed = {"rename_command": 'GETDEL ""\nrename-command SCAN ""\nrename-command CLIENT ""\nrename-command INFO ""'}
    with Server("redis-6.2", **renamed) as server:
        asyncio.run(work())


def test_deleting_a_great_namespace_spares_the_server() -> None:
    async def work() -> None:
        slowest = 0.0
        async with RedisStore.with_client(server.url, namespace="great") as store, store_of("small"):
            await store.set_many({f"k{i}": b"v" for i in range(50_000)})
            sibling = RedisStore.with_client(server.url, namespace="great2")
            async with sibling:
                await sibling.set("k", b"v")
                deleting = asyncio.ensure_future(store.delete_all())
                loop = asyncio.get_running_loop()
                while not deleting.done():
                    started = loop.time()
                    assert await sibling.get("k") == b"v"
                    slowest = max(slowest, loop.time() - started)
                await deleting
            assert [key async for key in store.keys()] == []
        assert slowest < 0.1

    with Server() as server:
        asyncio.run(work())
