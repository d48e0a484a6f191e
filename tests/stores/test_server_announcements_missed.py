"""What near caches may have missed: connections, servers and networks that fail."""

from __future__ import annotations

import asyncio
import logging
import random
import time

import pytest

from storeconf import StoreError, StoreUnavailableError
from storeconf.stores import ValkeyStore
from storeconf.stores.resp import keys
from tests.proxy import Proxy
from tests.servers import Server, shared
from tests.stores.announcing import (
    SOON,
    cached,
    in_step,
    listeners,
    pair,
    run,
    seen,
    served_for_ever,
    the_listener,
    until,
)


def test_a_lost_connection_empties_the_cache_and_a_new_one_is_made() -> None:
    async def work() -> None:
        with Server() as server:
            store, other = pair(server)
            async with store, other:
                for turn in range(5):
                    await other.set("k", b"%d" % turn)
                    await in_step(store, other)
                    assert await store.get("k") == b"%d" % turn
                    listener = await the_listener(server)
                    server.ask("CLIENT", "KILL", "ID", listener)
                    await other.set("k", b"missed %d" % turn)
                    await seen(store, "k", b"missed %d" % turn)
                await until(lambda: len(listeners(server)) == 1)

    run(work)


def test_while_nothing_is_announced_max_age_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator forbids it for a while: the cache is emptied, then old values live to max_age, then all is well."""
    monkeypatch.setattr(keys, "PAUSE_AFTER_REFUSAL", 0.05)
    caplog.set_level(logging.WARNING, "storeconf.stores")

    async def work() -> None:
        with Server() as server:
            server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
            store, other = pair(server, username="app", password="secret")
            async with store, other:
                await other.set("k", b"1")
                await in_step(store, other)
                assert await store.get("k") == b"1"
                server.ask("ACL", "SETUSER", "app", "-client|tracking")
                listener = await the_listener(server)
                server.ask("CLIENT", "KILL", "ID", listener)
                await other.set("k", b"2")
                await seen(store, "k", b"2")
                await until(lambda: "does not support client tracking" in caplog.text)
                await store.get("k")
                await other.set("k", b"3")
                assert await store.get("k") == b"2"  # near, for an hour
                server.ask("ACL", "SETUSER", "app", "+client|tracking")
                await seen(store, "k", b"3")
                await in_step(store, other)
        assert caplog.text.count("does not support client tracking") == 1

    run(work)


def test_max_age_where_the_server_announces_nothing() -> None:
    """No CLIENT command is sent where the layout forbids them."""

    async def work() -> None:
        with Server() as server:
            store, other = pair(server, client_name="")
            store = cached(store.wrapped, max_age=0.2)
            async with store, other:
                await other.set("k", b"1")
                assert await store.get("k") == b"1"
                began = time.monotonic()
                await other.set("k", b"2")
                await seen(store, "k", b"2")
                assert time.monotonic() - began > 0.15
                assert not listeners(server)

    run(work)


def test_a_server_that_is_killed_and_comes_back() -> None:
    async def work() -> None:
        with Server() as server:
            store, other = pair(server)
            async with store, other:
                for _ in range(2):
                    await other.set("k", b"v")
                    await in_step(store, other)
                    assert await store.get("k") == b"v"
                    server.stop()
                    with pytest.raises(StoreUnavailableError):
                        await served_for_ever(store, "k", b"v")
                    await asyncio.to_thread(server.start)
                    async with asyncio.timeout(SOON):
                        while not (await store.ping()).ok or not (await other.ping()).ok:
                            await asyncio.sleep(0.005)
                    assert await store.get("k") is None
                    await in_step(store, other)

    run(work)


def test_a_server_that_freezes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "HEARTBEAT", 0.1)

    async def work() -> None:
        with Server() as server:
            store, other = pair(server)
            async with store, other:
                await other.set("k", b"v")
                await in_step(store, other)
                await store.get("k")
                server.freeze()
                with pytest.raises(StoreError):
                    await served_for_ever(store, "k", b"v")
                server.thaw()
                async with asyncio.timeout(SOON):
                    while not (await store.ping()).ok or not (await other.ping()).ok:
                        await asyncio.sleep(0.005)
                await in_step(store, other)

    run(work)


def test_a_network_that_cuts_and_talks_garbage() -> None:
    async def work() -> None:
        server = shared()
        chance = random.Random(3)
        async with Proxy(server.port) as proxy:
            store, _ = pair(server, url=f"redis://127.0.0.1:{proxy.port}", namespace="net")
            other = ValkeyStore.with_client(server.url, namespace="net")
            async with store, other:
                for turn in range(20):
                    value = b"%d" % turn
                    await other.set("k", value)
                    fault = chance.randrange(4)
                    if fault == 1:
                        proxy.cut()
                    elif fault == 2:
                        proxy.garbage = b"!!no RESP!!\r\n"
                    elif fault == 3:
                        proxy.cut_after = chance.randrange(1, 60)
                    async with asyncio.timeout(SOON):
                        while True:
                            try:
                                if await store.get("k") == value:
                                    break
                            except StoreError:
                                pass
                            await asyncio.sleep(0.002)
                proxy.garbage = proxy.cut_after = None
                await in_step(store, other)

    run(work)
