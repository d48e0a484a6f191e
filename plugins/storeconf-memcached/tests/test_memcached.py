"""storeconf's own suite over the backend, and what is memcached's alone."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from storeconf_memcached import MemcachedStore

import storeconf
from storeconf import Store, StoreTimeoutError, StoreUnavailableError, StoreValueError, UnsupportedOperationError
from storeconf.testing import StoreConformance

REAL = shutil.which("memcached")
VERSION = subprocess.check_output([REAL, "-V"], text=True).split()[-1] if REAL else "1.6.0-test"


class TestMemcachedStore(StoreConformance):
    model_examples = 10

    @pytest.fixture(autouse=True)
    def _server(self, address: str) -> None:
        self.address = address

    def make_store(self) -> Store:
        return MemcachedStore(self.address, timeout=20).with_namespace(self.unique)

    async def clean(self, store: Store) -> None:
        """Nothing: each test has a namespace of its own."""


def test_a_layout_names_it(address: str) -> None:
    stores = {"cache": {"type": "memcached", "address": address, "namespace": "shop"}, "pages": {"parent": "cache"}}

    async def use() -> None:
        async with storeconf.load({"stores": stores}, environ={}) as registry:
            await registry["pages"].set("k", "v")
            assert await registry["cache"].get("k") is None
            result = (await registry.ping())["pages"]
            assert (result.ok, result.server) == (True, f"memcached {VERSION}")

    asyncio.run(use())


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:x", ":11211", "localhost:99999"])
def test_addresses_are_checked(address: str) -> None:
    with pytest.raises(storeconf.ConfigError, match="host:port"):
        storeconf.read_layout({"stores": {"a": {"type": "memcached", "address": address}}}, environ={})


def test_roots_on_one_server_need_namespaces() -> None:
    same = {"type": "memcached"}
    with pytest.raises(storeconf.ConfigError, match="use"):
        storeconf.read_layout({"stores": {"a": same, "b": same}}, environ={})
    storeconf.read_layout({"stores": {"a": {**same, "namespace": "a"}, "b": {**same, "namespace": "b"}}}, environ={})


def test_it_says_that_it_can_not_list(address: str) -> None:
    async def use() -> None:
        async with MemcachedStore(address) as store:
            await store.set("kept", "v")
            with pytest.raises(UnsupportedOperationError, match="list"):
                [key async for key in store.keys()]
            with pytest.raises(UnsupportedOperationError):
                await store.delete_all()
            assert await store.get("kept") == b"v"

    asyncio.run(use())


def test_what_is_too_large_is_a_value_error(address: str) -> None:
    async def use() -> None:
        async with MemcachedStore(address) as store:
            with pytest.raises(StoreValueError):
                await store.set("k", b"v" * 1_000_001)
            assert await store.get("k") is None
            with pytest.raises(StoreValueError, match="memcached"):
                await store.set("k" * 100_000, b"v" * 1_000_000)
            await store.set("k", b"v" * 1_000_000)
            assert await store.pop("k") == b"v" * 1_000_000

    asyncio.run(use())


def test_it_finds_the_server_again() -> None:
    """Replies that never come, and a server that ends, in the middle of calls."""
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        if len(connections) == 1:  # never answers
            await reader.read()
        elif len(connections) == 2:  # ends in the middle of a reply
            await reader.readline()
            writer.write(b"VA 100 c1\r\nhalf")
        else:
            while await reader.readline():
                writer.write(b"EN\r\n")
        writer.close()

    async def use() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            store = MemcachedStore(f"{host}:{port}", timeout=0.2)
            with pytest.raises(StoreTimeoutError, match=f"no reply from memcached at {host}:{port}") as caught:
                await store.set("k", "v")
            assert caught.value.outcome_unknown
            with pytest.raises(StoreUnavailableError, match=f"memcached at {host}:{port}") as lost:
                await store.get("k")
            assert not lost.value.outcome_unknown
            assert await store.get("k") is None
            for connection in connections:  # for which the end of a server waits since Python 3.12
                connection.close()
        for _ in range(2):  # the first may find the connection in its last moment
            with pytest.raises(StoreUnavailableError):
                await store.get("k")
        await store.aclose()

    asyncio.run(use())
