"""A store of a layout as the storage of limits, with and without an event loop, and exact limits for Litestar.

limits' own tests of storages and strategies pass as well, but they are not part of its package.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import limits
import pytest
from limits.aio import strategies as aio
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from litestar import Litestar, get
from litestar.stores.memory import MemoryStore as LitestarMemoryStore
from litestar.testing import TestClient

import storeconf
from storeconf import StoreUnavailableError, StoreValueError, UnknownStoreError
from storeconf._background import background_loop
from storeconf.integrations.limits import AsyncStoreconfStorage, StoreconfStorage
from storeconf.integrations.litestar import RateLimitConfig, StoreconfPlugin
from tests.servers import Server, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = limits.parse("25/minute")
MEMORY: dict[str, Any] = {"stores": {"rates": {"type": "memory"}}}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


def shared(kind: str, tmp_path: Path, valkey: Server | None) -> dict[str, Any]:
    """A layout that several processes may use."""
    if kind == "file":
        return {"stores": {"rates": {"type": "file", "path": str(tmp_path / "stores")}}}
    assert valkey is not None
    valkey.ask("FLUSHALL")
    return {"stores": {"rates": {"type": "valkey", "url": f"valkey://{valkey.address}", "namespace": "a"}}}


def limiters(layout: dict[str, Any]) -> list[Any]:
    storage = StoreconfStorage("storeconf://rates", layout=layout)
    return [FixedWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)]


def worker(given: Any, begin: Any, results: Any) -> None:
    begin.wait()
    results.put([sum(limiter.hit(LIMIT, "ada") for _ in range(20)) for limiter in given])


@pytest.mark.parametrize("kind", ["file", "valkey"])
def test_forked_processes_let_exactly_as_many_hits_pass_as_allowed(kind: str, tmp_path: Path, valkey: Server) -> None:
    given = limiters(shared(kind, tmp_path, valkey))
    for limiter in given:  # the parent's connections are open, and not the children's to use
        assert limiter.hit(LIMIT, "bob")
    forked = multiprocessing.get_context("fork")
    begin, results = forked.Barrier(3), forked.Queue()
    workers = [forked.Process(target=worker, args=(given, begin, results)) for _ in range(3)]
    for each in workers:
        each.start()
    passed = [results.get(timeout=60) for _ in workers]
    for each in workers:
        each.join(30)
        assert each.exitcode == 0
    assert [sum(each) for each in zip(*passed, strict=True)] == [25, 25]
    assert [limiter.hit(LIMIT, "ada") for limiter in given] == [False, False]
    given[0].storage.close()


@pytest.mark.parametrize("kind", ["memory", "file", "valkey"])
@pytest.mark.parametrize("strategy", [aio.FixedWindowRateLimiter, aio.SlidingWindowCounterRateLimiter])
def test_tasks_and_costs_are_exact_too(strategy: Any, kind: str, tmp_path: Path, valkey: Server) -> None:
    layout = MEMORY if kind == "memory" else shared(kind, tmp_path, valkey)

    async def main() -> None:
        one, other = (AsyncStoreconfStorage("async+storeconf://rates", layout=layout) for _ in range(2))
        if kind == "memory":
            other = one
        async with one, other:
            both = [strategy(one), strategy(other)]
            passed = await asyncio.gather(*(both[number % 2].hit(LIMIT, "ada") for number in range(60)))
            assert sum(passed) == 25
            assert await both[0].hit(LIMIT, "bob", cost=20)
            assert not await both[1].hit(LIMIT, "bob", cost=6)
            assert not await both[1].hit(LIMIT, "eve", cost=26)
            assert not await both[0].test(LIMIT, "ada")
            assert (await both[0].get_window_stats(LIMIT, "ada")).remaining == 0
            await both[0].clear(LIMIT, "ada")
            assert await both[1].hit(LIMIT, "ada")
            assert await one.check()
            assert (await one.reset() or 0) >= 2
            assert (await both[0].get_window_stats(LIMIT, "bob")).remaining == 25

    asyncio.run(main())


def test_threads_are_exact_too() -> None:
    for limiter in limiters(MEMORY):
        passed: list[bool] = []
        threads = [
            threading.Thread(target=lambda hit=limiter.hit, note=passed.append: note(hit(LIMIT))) for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(passed) == 25


def test_a_window_slides_by_the_clock_of_the_store() -> None:
    """With an earlier window of 4 hits, each quarter of the next one admits one more."""
    now = 0.0
    store = storeconf.MemoryStore()
    store._clock = lambda: now
    registry = storeconf.StoreRegistry({"rates": store})
    storage = AsyncStoreconfStorage("async+storeconf://rates", layout=registry)
    limit, limiter = limits.parse("4/hour"), aio.SlidingWindowCounterRateLimiter(storage)

    async def passed() -> int:
        return sum([await limiter.hit(limit) for _ in range(6)])

    async def main() -> None:
        nonlocal now
        async with storage:
            assert await passed() == 4
            counts = []
            for quarter in (4, 5, 6, 7, 8, 9, 30):
                now = quarter * 900 + 10
                counts.append(await passed())
            assert counts == [1, 1, 1, 1, 1, 1, 4]

    asyncio.run(main())


def test_slowapi_may_call_it_in_a_running_loop() -> None:
    (fixed, sliding) = limiters(MEMORY)

    async def main() -> None:
        assert fixed.hit(LIMIT)
        assert sliding.hit(LIMIT)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["storeconf", "async+storeconf"])
def test_the_uri_names_store_layout_and_environment(scheme: str, tmp_path: Path) -> None:
    layout = tmp_path / "storeconf.yaml"
    layout.write_text(
        "stores: {rates: {type: memory}}\nenvironments:\n  small: {stores: {rates: {max_entries: 1}}}\n  big: {}\n"
    )
    storage: Any = storage_from_string(f"{scheme}://rates?layout={layout}&environment=small")
    assert storage.store.name == "rates"
    assert storage_from_string(f"{scheme}://rates", layout=str(layout), environment="big") is not storage
    for wrong in ("", "//rates/more", "//rates?size=3", f"//rates?layout={layout}&layout=b"):
        with pytest.raises(ConfigurationError):
            storage_from_string(f"{scheme}:{wrong}")
    with pytest.raises(ConfigurationError, match="both"):
        storage_from_string(f"{scheme}://rates?layout={layout}", layout=str(layout))
    with pytest.raises(UnknownStoreError, match="did you mean 'rates'"):
        storage_from_string(f"{scheme}://rate?layout={layout}&environment=big")
    with pytest.raises(NotImplementedError):
        (aio.MovingWindowRateLimiter if scheme.startswith("async") else MovingWindowRateLimiter)(storage)


def test_a_layout_that_would_end_windows_early_is_refused_when_it_counts() -> None:
    capped = {"stores": {"rates": {"type": "memory", "middleware": {"ttl": {"max": 90, "renew_on_get": "50s"}}}}}
    fixed, sliding = limiters(capped)
    assert fixed.hit(LIMIT)
    end = fixed.get_window_stats(LIMIT).reset_time
    assert end == pytest.approx(time.time() + 60, abs=2)  # looking at it has not renewed it
    with pytest.raises(StoreValueError, match=r"'rates' keeps no entry longer than 90 s .* needs 120 s"):
        sliding.hit(LIMIT)


def test_a_storage_that_nobody_uses_any_longer_closes_its_store_and_waits_for_nothing(tmp_path: Path) -> None:
    storage = StoreconfStorage("storeconf://rates", layout=shared("file", tmp_path, valkey=None))
    assert storage.incr("k", 60) == 1
    store = storage.store
    background_loop().loop.call_soon_threadsafe(lambda kept: kept.clear(), [storage])  # in the loop's own thread
    del storage
    gc.collect()
    wait_for(lambda: not store.is_open, "the store is closed")


def test_a_process_ends_at_once_and_cleanly_while_a_storage_is_open(tmp_path: Path) -> None:
    program = f"""
from storeconf.integrations.limits import StoreconfStorage
storage = StoreconfStorage("storeconf://rates", layout={shared("file", tmp_path, None)!r})
print(storage.incr("k", 60))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=8, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_an_outage_is_an_error_that_limits_may_wrap() -> None:
    down = {"stores": {"rates": {"type": "valkey", "url": "valkey://127.0.0.1:1", "namespace": "a", "retries": 0}}}
    storage = StoreconfStorage("storeconf://rates", layout=down)
    with pytest.raises(StoreUnavailableError):
        storage.incr("k", 60)
    assert storage.check() is False
    storage.close()
    wrapped = StoreconfStorage("storeconf://rates", wrap_exceptions=True, layout=down)
    with pytest.raises(StorageError):
        wrapped.acquire_sliding_window_entry("k", 1, 60)
    wrapped.close()


# ---------------------------------------------------------------------- Litestar


@get("/")
async def index() -> str:
    return "here"


def application(layout: dict[str, Any], **config: Any) -> Litestar:
    plugins = [StoreconfPlugin(layout)]
    return Litestar([index], plugins=plugins, middleware=[RateLimitConfig(("minute", 10), **config).middleware])


def test_two_workers_of_litestar_let_exactly_ten_requests_pass(tmp_path: Path, valkey: Server) -> None:
    layout = shared("valkey", tmp_path, valkey)

    async def main() -> None:
        apps: list[Any] = [application(layout, store="rates") for _ in range(2)]
        clients = [httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") for app in apps]
        async with clients[0], clients[1]:
            answers = await asyncio.gather(*(clients[number % 2].get("/") for number in range(40)))
        assert sum(answer.status_code == 200 for answer in answers) == 10
        remaining = [int(answer.headers["RateLimit-Remaining"]) for answer in answers if answer.status_code == 200]
        assert sorted(remaining) == list(range(10))
        for app in apps:
            await app.stores.registry.aclose()

    asyncio.run(main())


def test_litestars_headers_and_options_work() -> None:
    with TestClient(application(MEMORY, store="rates")) as client:
        headers = client.get("/").headers
        assert headers["RateLimit-Limit"] == "10"
        assert headers["RateLimit-Remaining"] == "9"
        assert headers["RateLimit-Policy"] == "10; w=60"
        assert 58 <= int(headers["RateLimit-Reset"]) <= 60
        for _ in range(9):
            assert client.get("/").status_code == 200
        refused = client.get("/")
        assert refused.status_code == 429
        assert refused.headers["RateLimit-Remaining"] == "0"
        assert int(refused.headers["RateLimit-Reset"]) >= 50
    with TestClient(application(MEMORY, store="rates", set_rate_limit_headers=False)) as client:
        answers = [client.get("/") for _ in range(11)]
        assert answers[-1].status_code == 429
        assert not any("RateLimit-Limit" in answer.headers for answer in answers)
    with TestClient(application(MEMORY, check_throttle_handler=lambda _: False)) as client:
        assert {client.get("/").status_code for _ in range(12)} == {200}


def test_litestars_own_store_is_refused() -> None:
    middleware = [RateLimitConfig(("minute", 10)).middleware]
    app = Litestar([index], stores={"rate_limit": LitestarMemoryStore()}, middleware=middleware, debug=True)
    with TestClient(app) as client:
        assert "needs a store of storeconf" in client.get("/").text
