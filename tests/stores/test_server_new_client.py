"""`Store.new_client`: clients of the driver with the settings of the layout, on every topology."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme
import valkey
import valkey.asyncio

import storeconf
import storeconf.sync
from storeconf import MemoryStore, RedisStore, UnsupportedOperationError, ValkeyStore
from tests.proxy import Proxy
from tests.servers import Server, cluster, sentinels, shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = ("redis", "valkey")


def layout(kind: str, **store: Any) -> dict[str, Any]:
    main = {"type": kind, "namespace": "shop", **store}
    return {"stores": {"main": main, "child": {"parent": "main", "middleware": {"ttl": "1h", "cache": "1m"}}}}


async def use(client: Any, key: str) -> bytes | None:
    """Write by the client's own means, hear of it by a subscription, read, and close it."""
    subscription = client.pubsub()
    await subscription.subscribe("news")
    assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
    await client.set(key, "by the client")
    await client.publish("news", "written")
    assert (await subscription.get_message(timeout=5))["data"] == b"written"
    await subscription.aclose()
    found: bytes | None = await client.get(key)
    await client.aclose()
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    gc.collect()  # a ResourceWarning is an error


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_one_server(kind: str) -> None:
    async def main() -> None:
        registry = storeconf.load(layout(kind, url=f"{shared().url[:-1]}3", client_name="mine"), environ={})
        async with registry:
            store = registry["child"]
            client = store.new_client()
            assert type(client).__module__ == f"{kind}.asyncio.client"
            assert client is not store.new_client()
            assert await client.client_getname() in (b"mine", "mine")
            key = store.raw_key("k")
            assert key is not None
            assert await use(client, key) == b"by the client"
            assert await store.get("k") == b"by the client"
            await store.delete_all()

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_may_block_and_a_subscription_may_be_silent(kind: str) -> None:
    async def main() -> None:
        registry = storeconf.load(layout(kind, url=shared().url, command_timeout=0.1), environ={})
        async with registry:
            client, other = registry["main"].new_client(), registry["main"].new_client()
            subscription = client.pubsub()
            await subscription.subscribe("silent")
            messages = subscription.listen()
            await anext(messages)
            assert await other.blpop(["nothing"], timeout=0.3) is None
            heard = asyncio.ensure_future(anext(messages))
            await other.publish("silent", "at last")
            assert (await heard)["data"] == b"at last"
            await messages.aclose()
            await subscription.aclose()
            await client.aclose()
            await other.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("whole", [False, True], ids=["password", "url"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_password_from_a_file_is_read_for_each_connection(kind: str, whole: bool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with Server() as server:

        def use_password(password: str) -> None:
            secret.write_text(f"redis://shop:{password}@{server.address}/0" if whole else password)
            assert server.ask("ACL", "SETUSER", "shop", "on", "resetpass", f">{password}", "~*", "&*", "+@all")
            server.ask("CLIENT", "KILL", "USER", "shop")

        async def main() -> None:
            use_password("first")
            if whole:
                settings: dict[str, Any] = {"url": f"${{file:{secret}}}"}
            else:
                settings = {"url": server.url, "username": "shop", "password": f"${{file:{secret}}}"}
            async with storeconf.load(layout(kind, **settings), environ={}) as registry:
                client = registry["main"].new_client()
                assert await client.execute_command("ACL", "WHOAMI") in (b"shop", "shop")
                use_password("second")
                await client.connection_pool.disconnect()
                later = registry["main"].new_client()
                for each in (client, later):  # both connect now
                    assert await use(each, "shop::k") == b"by the client"
                blocking = storeconf.sync.SyncStore(registry["main"]).new_client()
                assert await asyncio.to_thread(blocking.get, "shop::k") == b"by the client"
                blocking.close()
                assert "first" not in repr(client) + repr(client.connection_pool) + repr(blocking.connection_pool)

        asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_with_tls(kind: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def main() -> None:
        async with Proxy(shared().port, tls=context) as proxy:
            tls = {"ca_file": str(tmp_path / "ca.pem")}
            settings = layout(kind, url=f"redis://localhost:{proxy.port}", tls=tls)
            async with storeconf.load(settings, environ={}) as registry:
                assert await use(registry["main"].new_client(), "shop::k") == b"by the client"
            settings = layout(kind, url=f"rediss://localhost:{proxy.port}")
            async with storeconf.load(settings, environ={}) as registry:
                stranger = registry["main"].new_client()
                with pytest.raises((redis.ConnectionError, valkey.ConnectionError, ssl.SSLError)):
                    await stranger.get("k")
                await stranger.aclose()

    asyncio.run(main())


def test_a_client_of_a_cluster() -> None:
    async def work(settings: dict[str, Any]) -> None:
        async with storeconf.load(settings, environ={}) as registry:
            client = registry["child"].new_client()
            for number in range(20):
                await client.set(registry["child"].raw_key(f"k{number}"), "v")
            assert len([key async for key in registry["child"].keys()]) == 20
            await client.aclose()

    with cluster() as nodes:
        for kind in KINDS:
            settings = layout(kind, cluster=[node.address for node in nodes], url=None)
            asyncio.run(work(settings))
            with storeconf.sync.load(settings, environ={}) as registry:
                client = registry["child"].new_client()
                assert client.get(registry["child"].raw_key("k0")) == b"v"
                client.close()


def test_a_client_of_what_sentinels_watch(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("watch")

    async def work(settings: dict[str, Any], kind: str) -> None:
        async with storeconf.load(settings, environ={}) as registry:
            client = registry["child"].new_client()
            assert f"{kind}.asyncio.client" in {base.__module__ for base in type(client).__mro__}
            assert await use(client, "shop:child::k") == b"by the client"
            assert await registry["child"].get("k") == b"by the client"

    with sentinels(password="watch") as watched:
        for kind in KINDS:
            sentinel = {"nodes": watched.nodes, "service": "shop", "password": f"${{file:{secret}}}"}
            settings = layout(kind, url=None, sentinel=sentinel)
            asyncio.run(work(settings, kind))
            with storeconf.sync.load(settings, environ={}) as registry:
                client = registry["child"].new_client()
                assert client.get("shop:child::k") == b"by the client"
                client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_without_an_event_loop(kind: str) -> None:
    with storeconf.sync.load(layout(kind, url=shared().url), environ={}) as registry:
        client = registry["child"].new_client()
        assert type(client).__module__ == f"{kind}.client"
        subscription = client.pubsub()
        subscription.subscribe("news")
        client.publish("news", "written")
        heard = [subscription.get_message(timeout=5) for _ in range(2)]
        assert [each and each["data"] for each in heard] == [1, b"written"]
        subscription.close()
        client.close()


def test_a_unix_socket() -> None:
    async def main() -> None:
        async with storeconf.load(layout("valkey", url=f"unix://{shared().unix_socket}"), environ={}) as registry:
            assert await use(registry["main"].new_client(), "shop::k") == b"by the client"

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_sends_no_client_command_where_those_are_forbidden(kind: str) -> None:
    with Server() as server:
        assert server.ask("ACL", "SETUSER", "default", "-client").startswith(b"+OK")

        async def main() -> None:
            settings = layout(kind, url=server.url, client_name="")
            async with storeconf.load(settings, environ={}) as registry:
                assert await use(registry["main"].new_client(), "shop::k") == b"by the client"

        asyncio.run(main())


def test_stores_that_have_no_client() -> None:
    async def main() -> None:
        with pytest.raises(UnsupportedOperationError, match="is not on a server"):
            MemoryStore().new_client()
        given = valkey.asyncio.Valkey()
        with pytest.raises(UnsupportedOperationError, match="a client that was handed in: use that one"):
            ValkeyStore(given).new_client()
        await given.aclose()
        made = RedisStore.with_client(shared().url).new_client()
        assert await use(made, "LITESTAR::k") == b"by the client"

    asyncio.run(main())
