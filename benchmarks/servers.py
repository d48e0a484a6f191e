"""Server stores against their peers: ``python benchmarks/servers.py [redis-6.2|redis-8.2|valkey-9.1] [quick]``.

Starts a server of its own on a loopback port. Calls per second and the slowest of a hundred calls, in turn within one
process, on asyncio and uvloop; then the deletion of a namespace while another process waits for PINGs.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis.asyncio
import uvloop
from litestar.stores.redis import RedisStore as LitestarRedisStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from benchmarks._link import Link
from storeconf.stores import RedisStore
from tests.servers import KINDS, Server, cluster

try:
    import glide
except ImportError:
    glide = None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks._harness import Figures

ROUNDS = 15
TASKS = {1: 200, 10: 100, 100: 20, 1000: 8}
"""How many tasks at once, and how many calls each of them makes in a round."""

SIZES = {"100 B": 100, "10 KiB": 10 * 1024}

_PINGS = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
worst = 0
print("ready", flush=True)
end = time.perf_counter() + 60
while time.perf_counter() < end:
    start = time.perf_counter()
    connection.sendall(b"PING\\r\\n")
    if not connection.recv(100):
        break
    worst = max(worst, time.perf_counter() - start)
    print(worst * 1000, flush=True)
    time.sleep(0.0005)
"""


class Plain:
    """redis-py itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, key: str) -> Any:
        return await self._client.get("plain:" + key)

    async def set(self, key: str, value: bytes, seconds: int) -> Any:
        return await self._client.set("plain:" + key, value, px=seconds * 1000)


class Glide:
    """valkey-glide, whose core is Rust."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, key: str) -> Any:
        return await self._client.get("glide:" + key)

    async def set(self, key: str, value: bytes, seconds: int) -> Any:
        expiry = glide.ExpirySet(glide.ExpiryType.MILLSEC, seconds * 1000)
        return await self._client.set("glide:" + key, value, expiry=expiry)


async def timed(call: Callable[[], Awaitable[object]], tasks: int, calls: int) -> tuple[float, list[float]]:
    """Calls per second of so many tasks at once, and the seconds that each call took, in order."""
    clock = time.perf_counter
    latencies: list[float] = []

    async def work() -> None:
        now = clock()
        for _ in range(calls):
            await call()
            before, now = now, clock()
            latencies.append(now - before)

    start = clock()
    await asyncio.gather(*(work() for _ in range(tasks)))
    took = clock() - start
    latencies.sort()
    return len(latencies) / took, latencies


async def burst(call: Callable[[], Awaitable[object]], tasks: int, calls: int) -> tuple[float, float]:
    """Calls per second of so many tasks at once, and the milliseconds within which 99 of 100 calls end."""
    rate, latencies = await timed(call, tasks, calls)
    return rate, latencies[len(latencies) * 99 // 100] * 1000


async def contenders(server: Server, stack: AsyncExitStack) -> dict[str, Any]:
    client = redis.asyncio.Redis.from_url(server.url, max_connections=3000)
    stack.push_async_callback(client.aclose)
    found: dict[str, Any] = {"Litestar": LitestarRedisStore(client), "redis-py": Plain(client)}
    if glide is not None:
        address = glide.NodeAddress("127.0.0.1", server.port)
        own = await glide.GlideClient.create(glide.GlideClientConfiguration([address], request_timeout=5000))
        stack.push_async_callback(own.close)
        found["valkey-glide"] = Glide(own)
    found["bare link"] = link = await Link.connect(server.port)
    stack.push_async_callback(link.aclose)
    found["storeconf"] = await stack.enter_async_context(RedisStore.with_client(server.url, namespace="shop"))
    return found


async def measure(server: Server, loop: str) -> None:
    async with AsyncExitStack() as stack:
        stores = await contenders(server, stack)
        for title, size in SIZES.items():
            value = b"v" * size
            for store in stores.values():
                await store.set("k", value, 600)
            figures: Figures = {name: {} for name in stores}
            late: Figures = {name: {} for name in stores}
            ratios: dict[str, list[str]] = {name: [] for name in stores if name != "storeconf"}
            for what in ("get", "set"):
                for tasks, calls in TASKS.items():
                    await alternate(stores, what, tasks, calls, value, figures, late, ratios)
            show(f"{server.kind}, {loop}, {title}: calls per second by tasks", figures, ours=[], peers=[])
            print("\nstoreconf in turn with each, median and the middle half of the rounds:")
            for name, texts in ratios.items():
                print(f"  {name:<13}", *(text.rjust(19) for text in texts))
            show(f"{server.kind}, {loop}, {title}: p99 in ms by tasks", late, ours=[], peers=[])


async def alternate(
    stores: dict[str, Any],
    what: str,
    tasks: int,
    calls: int,
    value: bytes,
    figures: Figures,
    late: Figures,
    ratios: dict[str, list[str]],
) -> None:
    """Let all take turns so quickly that what else the machine does hits them alike; add what was found."""
    rates: dict[str, list[float]] = {name: [] for name in stores}
    slowest: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(ROUNDS):
        for name, store in stores.items():
            call = (lambda s=store: s.get("k")) if what == "get" else (lambda s=store: s.set("k", value, 600))
            found = await burst(call, tasks, calls if name in ("storeconf", "bare link") else max(1, calls // 4))
            rates[name].append(found[0])
            slowest[name].append(found[1])
    for name in stores:
        figures[name][f"{what} {tasks}"] = statistics.median(rates[name])
        late[name][f"{what} {tasks}"] = statistics.median(slowest[name])
    for name, texts in ratios.items():
        pairs = [ours / theirs for ours, theirs in zip(rates["storeconf"], rates[name], strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4)
        texts.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")


async def delete(server: Server, run: Callable[..., Awaitable[Any]] = compete, rounds: int = 3) -> Any:
    """100,000 keys of 1,000,000, and the longest that another client waited for a PING."""
    server.ask("DEBUG", "POPULATE", 900_000, "other", 50)
    client = redis.asyncio.Redis.from_url(server.url)
    async with RedisStore.with_client(server.url, namespace="gone") as ours:
        stores: dict[str, Any] = {"Litestar": LitestarRedisStore(client, namespace="gone_"), "storeconf": ours}

        def contender(store: Any, prefix: str) -> Callable[[], Awaitable[dict[str, float]]]:
            async def run() -> dict[str, float]:
                raw = RedisStore.with_client(server.url, namespace=None)
                async with raw:
                    for at in range(0, 100_000, 5000):
                        await raw.set_many({f"{prefix}{at + i}": b"v" * 50 for i in range(5000)})
                arguments = [sys.executable, "-c", _PINGS, str(server.port)]
                with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as pings:  # noqa: ASYNC220
                    assert pings.stdout is not None
                    pings.stdout.readline()
                    await asyncio.sleep(0.05)
                    start = time.perf_counter()
                    await store.delete_all()
                    took = (time.perf_counter() - start) * 1000
                    await asyncio.sleep(0.05)
                    pings.terminate()
                    lines = pings.stdout.read().splitlines()
                return {"ms": took, "worst PING, ms": float(lines[-2])}

            return run

        figures = await run(
            {"Litestar": contender(stores["Litestar"], "gone_:"), "storeconf": contender(ours, "gone::")}, rounds
        )
    await client.aclose()
    return figures


async def many_of_a_cluster(nodes: list[Server]) -> None:
    """get_many of 3,000 keys over three nodes, against the library's."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=nodes[0].port)
    keys = [f"k{i}" for i in range(3000)]
    async with RedisStore(redis=client, namespace="shop") as store:
        await store.set_many(dict.fromkeys(keys, b"v" * 100))
        raw = [f"shop::{key}" for key in keys]

        async def ours() -> dict[str, float]:
            start = time.perf_counter()
            assert len(await store.get_many(keys)) == 3000
            return {"ms": (time.perf_counter() - start) * 1000}

        async def library() -> dict[str, float]:
            start = time.perf_counter()
            assert len(await client.mget_nonatomic(raw)) == 3000
            return {"ms": (time.perf_counter() - start) * 1000}

        figures = await compete({"redis-py": library, "storeconf": ours}, 7)
    await client.aclose()
    show(f"{nodes[0].kind}, Cluster: 3,000 keys of three nodes", figures, ours=["storeconf"], peers=["redis-py"])


def main() -> None:
    global ROUNDS
    kinds = [argument for argument in sys.argv[1:] if argument in KINDS] or ["valkey-9.1"]
    if "quick" in sys.argv:
        ROUNDS = 5
    for kind in kinds:
        with Server(kind, enable_debug_command="yes") if kind != "redis-6.2" else Server(kind) as server:
            asyncio.run(measure(server, "asyncio"))
            uvloop.run(measure(server, "uvloop"))
            title = f"{kind}: 100,000 of 1,000,000 keys deleted"
            show(title, asyncio.run(delete(server)), ours=["storeconf"], peers=["Litestar"])
        with cluster(kind) as nodes:
            asyncio.run(many_of_a_cluster(nodes))


if __name__ == "__main__":
    main()
