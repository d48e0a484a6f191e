"""`lock` on servers: how many round trips it takes, and what comes of replies that are late or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from storeconf import StoreLockBusyError, StoreUnavailableError, lock
from storeconf._arguments import LOCKS
from tests.above.backends import KEY, in_loop, load
from tests.proxy import Proxy
from tests.servers import cluster, shared

if TYPE_CHECKING:
    from storeconf import StoreRegistry

GUARDS: dict[str, Any] = {"metrics": True, "breaker": 5, "retry": 3, "timeout": "30s"}


class CountingProxy(Proxy):
    """Counts what comes back from the server."""

    replies = 0

    async def _return(self, reader: Any, writer: Any) -> None:
        read = reader.read

        async def counted(size: int) -> bytes:
            data: bytes = await read(size)
            self.replies += bool(data)
            return data

        reader.read = counted
        await super()._return(reader, writer)


def through(proxy: Proxy, middleware: dict[str, Any], namespace: str) -> StoreRegistry:
    """A store on the shared server, reached through the proxy."""
    store = {"type": "valkey", "url": f"valkey://127.0.0.1:{proxy.port}", "namespace": namespace}
    return load({"stores": {"s": store | {"middleware": middleware}}})


@pytest.mark.parametrize(
    ("name", "chain", "trips"),
    [
        ("bare", {}, 2),
        ("guarded", GUARDS, 2),
        ("policies", {"ttl": {"max": "1h"}, "on_error": "miss"}, 2),
        ("encrypted", {"encrypt": {"keys": [KEY]}}, None),
    ],
)
@in_loop
async def test_round_trips(name: str, chain: dict[str, Any], trips: int | None) -> None:
    proxy = CountingProxy(shared().port)
    async with proxy, through(proxy, chain, f"lock-trips-{name}") as registry:
        tokens = []
        for turn in range(3):
            before = proxy.replies
            async with lock(registry["s"], "a", lease=600) as held:
                tokens.append(held.token)
                lease = await registry["s"].with_namespace(LOCKS).get("lease:a")
                if trips is not None:
                    assert lease is not None
                    assert lease.endswith(b":%d" % held.token)
            if turn and trips is not None:  # the first one has connected, and taught the server the scripts
                assert proxy.replies - before == trips + 1
        assert tokens == sorted(set(tokens))


@pytest.mark.parametrize(("name", "chain"), [("bare", {}), ("guarded", GUARDS)])
@in_loop
async def test_a_lost_reply_leaves_no_lease(name: str, chain: dict[str, Any]) -> None:
    async with Proxy(shared().port) as proxy, through(proxy, chain, f"lock-lost-reply-{name}") as registry:
        async with lock(registry["s"], "a") as held:
            first = held.token
        proxy.cut_after = 0
        with pytest.raises(StoreUnavailableError) as raised:
            async with lock(registry["s"], "a", lease=600):
                pass
        assert raised.value.outcome_unknown
        async with lock(registry["s"], "a", wait=20) as held:
            assert held.token == first + 2


@in_loop
async def test_a_lease_that_has_ended_when_its_token_arrives_is_not_used() -> None:
    async with Proxy(shared().port) as proxy, through(proxy, {}, "lock-late") as registry:
        async with lock(registry["s"], "a") as held:
            first = held.token
        proxy.delay = 0.25
        with pytest.raises(StoreLockBusyError):
            async with lock(registry["s"], "a", lease=0.2, wait=0):
                pass
        proxy.delay = 0.0
        async with lock(registry["s"], "a", wait=20) as held:
            assert held.token == first + 2


@in_loop
async def test_on_a_cluster_each_key_has_a_server_of_its_own() -> None:
    with cluster(masters=1) as nodes:
        for place in ({"cluster": [nodes[0].address]}, {"url": nodes[0].url}):
            store = {"type": "valkey", "namespace": "app", **place}
            async with load({"stores": {"s": store}}) as registry:
                tokens = []
                for _ in range(3):
                    async with lock(registry["s"], "a", wait=0) as held:
                        tokens.append(held.token)
                assert tokens == sorted(set(tokens))
