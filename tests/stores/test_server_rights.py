"""Users who may only read: whatever only reads works for them, on every server and by every way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import storeconf
from storeconf import StoreError, UnsupportedOperationError
from storeconf.stores import RedisStore
from tests.cli.running import run
from tests.proxy import Proxy
from tests.servers import KINDS, Server, cluster, shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storeconf import Store

READER = ("on", ">p", "resetkeys", "~shop:*", "-@all", "+@read")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        server.ask("ACL", "SETUSER", "reader", *READER)
        if server.kind != "redis-6.2":  # which knows no rights to keys for reading alone
            server.ask("ACL", "SETUSER", "other", "on", ">p", "resetkeys", "%R~shop:*", "+@all")
        yield server


def users(server: Server) -> list[str]:
    return ["reader"] if server.kind == "redis-6.2" else ["reader", "other"]


async def reads(store: Store) -> None:
    """Read in all ways what `fill` has stored, as a user who may write nothing."""
    child = store.with_namespace("child")
    for _ in range(2):
        assert await store.get("k") == b"v"
        assert await store.get("none") is None
        assert await store.get_many(["k", "e", "none"]) == {"k": b"v", "e": b"w"}
        assert await store.get_or_set("k", lambda: b"other") == b"v"
        assert await child.get("c") == b"x"
        assert await store.exists("k")
        assert await store.expires_in("e") in (99, 100)
        assert (await store.expires_in("k"), await store.expires_in("none")) == (-1, None)
        assert await store.get_with_expiry("k") == (b"v", None)
        assert await store.get_with_expiry("none") is None
        found = await store.get_with_expiry("e")
        assert found is not None
        value, left = found
        assert value == b"w"
        assert left is not None
        assert 90 < left <= 100
        assert {key async for key in store.keys()} == {"k", "e"}
        assert {place async for place in store.walk()} == {((), "k"), ((), "e"), (("child",), "c")}
        result = await store.ping()
        assert result.ok, result.error
    for write in (store.set("k", b"new"), store.delete("k"), store.get("k", renew_for=5)):
        with pytest.raises(StoreError) as caught:
            await write
        assert not caught.value.outcome_unknown


async def fill(store: Store) -> None:
    async with store:
        await store.delete_all()
        await store.set("k", b"v")
        await store.set("e", b"w", expires_in=100)
        await store.with_namespace("child").set("c", b"x")


@pytest.mark.parametrize("cache", [False, "10s"])
@pytest.mark.parametrize("connections", [1, 3])
def test_reading(server: Server, cache: Any, connections: int) -> None:
    async def work() -> None:
        await fill(RedisStore.with_client(server.url, namespace="shop"))
        for user in users(server):
            main = {
                "type": "redis",
                "url": server.url.replace("//", f"//{user}:p@"),
                "namespace": "shop",
                "max_connections": connections,
                "middleware": {"cache": cache},
            }
            async with storeconf.load({"stores": {"main": main}}, environ={}) as registry:
                await reads(registry["main"])

    asyncio.run(work())


class OwnClient(redis.asyncio.Redis):
    """A client that is called through its own methods."""


def test_reading_through_a_client(server: Server) -> None:
    async def work() -> None:
        await fill(RedisStore.with_client(server.url, namespace="shop"))
        for user in users(server):
            retry = Retry(NoBackoff(), 0)
            client = OwnClient(host="127.0.0.1", port=server.port, username=user, password="p", retry=retry)
            async with RedisStore(client, namespace="shop", handle_client_shutdown=True) as store:
                await reads(store)

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["redis-6.2", "valkey-9.1"])
def test_reading_in_a_cluster(kind: str) -> None:
    async def work(nodes: list[Server]) -> None:
        addresses = [node.address for node in nodes]
        for node in nodes:
            node.ask("ACL", "SETUSER", "reader", *READER, "+cluster")

        def store(**login: str) -> Store:
            main = {"type": "redis", "cluster": addresses, "namespace": "shop", **login}
            return storeconf.load({"stores": {"main": main}}, environ={})["main"]

        await fill(store())
        async with store(username="reader", password="p") as main:
            await reads(main)

    with cluster(kind) as nodes:
        asyncio.run(work(nodes))


def test_commands_that_only_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(RedisStore.with_client(server.url, namespace="shop")))
    monkeypatch.chdir(tmp_path)
    for user in users(server):
        place = tmp_path / user
        place.mkdir()
        url = server.url.replace("//", f"//{user}:p@")
        (place / "storeconf.yaml").write_text(
            f"stores:\n  main: {{type: redis, namespace: shop, url: '{url}'}}\n  to: {{type: file, path: to}}\n"
        )
        monkeypatch.chdir(place)
        for command in ("ping", "keys main", "get main k", "stats main", "dump main all.jsonl", "copy main to"):
            done = run(*command.split())
            assert done.status == 0, (command, done.err)
        assert run("get", "to", "k").out == "v"


@pytest.mark.parametrize("user", ["default", "reader"])
def test_value_and_expiry_belong_together_however_the_commands_arrive(user: str) -> None:
    """Between any two bytes of a reader's requests the server may do what another client asks for."""

    async def work() -> None:
        server = shared()
        server.ask("ACL", "SETUSER", "reader", *READER, "~together:*")
        login = "" if user == "default" else f"{user}:p@"
        writer = RedisStore.with_client(server.url, namespace="together")
        async with Proxy(server.port) as proxy, writer:
            proxy.part_size = 7
            async with RedisStore.with_client(f"redis://{login}127.0.0.1:{proxy.port}", namespace="together") as store:
                stopped = False

                async def write() -> None:
                    number = 0
                    while not stopped:
                        number += 1
                        await writer.set("k", b"%d" % number, 1000 + number)

                writing = asyncio.ensure_future(write())
                seen = set()
                for _ in range(300):
                    found = await store.get_with_expiry("k")
                    if found is not None:
                        value, left = found
                        number = int(value)
                        seen.add(number)
                        assert left is not None
                        assert 999 + number < left <= 1000 + number
                stopped = True
                await writing
                assert len(seen) > 20
                await writer.delete_all()
                server.ask("ACL", "DELUSER", "reader")

    asyncio.run(work())


@pytest.mark.parametrize("kind", KINDS)
def test_less_than_a_millisecond_is_still_a_second_rounded_up(kind: str) -> None:
    """Redis 7 and later tell 0 for it, and the key is there."""

    async def work() -> None:
        server = shared(kind)
        async with RedisStore.with_client(server.url, namespace="last") as store:
            for _ in range(30):
                await store.set("k", b"v", expires_in=0.003)
                found: list[Any] = []
                while not found or found[-1] is not None:
                    found.append(await store.expires_in("k"))
                assert set(found) <= {1, None}
                await store.set("k", b"v", expires_in=0.003)
                while (pair := await store.get_with_expiry("k")) is not None:
                    assert pair[1] is not None
                    assert pair[1] > 0

    asyncio.run(work())


@pytest.mark.parametrize("more", [{}, {"compress": "zstd", "retry": 2}], ids=str)
def test_a_near_cache_reads_for_users_who_may_not_ask_for_expiries(
    server: Server, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What might end at any moment can't be kept, but it can be read."""

    async def work() -> None:
        server.ask("ACL", "SETUSER", "getter", "on", ">p", "resetkeys", "~shop:*", "-@all", "+get", "+mget")
        main = {
            "type": "redis",
            "url": server.url.replace("//", "//getter:p@"),
            "namespace": "shop",
            "middleware": {"cache": "10s", **more},
        }
        owner = main | {"url": server.url}
        async with (
            storeconf.load({"stores": {"main": owner}}, environ={}) as owners,
            storeconf.load({"stores": {"main": main}}, environ={}) as registry,
        ):
            await owners["main"].set("k", b"v", expires_in=100)
            store = registry["main"]
            for _ in range(2):
                assert await store.get("k") == b"v"
                assert await store.get("none") is None
                assert await store.get_many(["k", "none"]) == {"k": b"v"}
                assert await store.get_or_set("k", lambda: b"other") == b"v"
                assert await store.with_namespace("child").get("k") is None
                for call in (store.get_with_expiry, store.expires_in):
                    with pytest.raises(UnsupportedOperationError):
                        await call("k")
            await owners["main"].set("k", b"new")
            assert await store.get("k") == b"new"
            assert caplog.text.count("keeps nothing") == 1
            server.ask("ACL", "SETUSER", "getter", "+pttl")
            assert await store.get_with_expiry("k") == (b"new", None)

    asyncio.run(work())
