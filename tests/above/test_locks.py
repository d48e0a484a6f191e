"""`lock` in one process: who may enter, what is lost and when, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import (
    MemoryStore,
    RedisStore,
    Store,
    StoreLockBusyError,
    StoreLockLostError,
    StoreUnavailableError,
    UnknownStoreError,
    UnsupportedOperationError,
    _lock,
    lock,
)
from storeconf._arguments import LOCKS
from tests.above.backends import BACKENDS, KEY, in_loop, layout, load
from tests.conformance.plain import AtomicStore, PlainStore
from tests.servers import Server, shared

if TYPE_CHECKING:
    from pathlib import Path

MIDDLEWARE: dict[str, Any] = {
    "ttl": {"max": "0.3s"},
    "limit": {"key_size": 4, "value_size": 8},
    "on_error": "miss",
    "fallback": "other",
    "cache": "1h",
    "compress": {"min_size": 0, "algorithm": "gzip"},
    "encrypt": {"keys": [KEY]},
    "breaker": 5,
    "retry": 3,
    "timeout": "30s",
    "metrics": True,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chain", [{}, MIDDLEWARE, {"read_only": True}], ids=["bare", "full", "read-only"])
@in_loop
async def test_one_at_a_time_with_growing_tokens(backend: str, chain: dict[str, Any], tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path, **chain)) as registry:
        inside, tokens = 0, []

        async def work() -> None:
            nonlocal inside
            async with lock(registry["s"], "a long name: of any kind", lease=20) as held:
                inside += 1
                assert inside == 1
                tokens.append(held.token)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(12)))
        assert tokens == sorted(set(tokens))
        async with lock(registry["s"], "another name"), lock(registry["s"].with_namespace("a"), "another name"):
            pass


@in_loop
async def test_tokens_grow_under_a_longest_expiry() -> None:
    async with load({"stores": {"s": {"type": "memory", "middleware": {"ttl": {"max": "20ms"}}}}}) as registry:
        async with lock(registry["s"], "a") as held:
            first = held.token
        await asyncio.sleep(0.04)
        async with lock(registry["s"], "a") as held:
            assert held.token > first


@pytest.mark.parametrize("wait", [0, 0.05, timedelta(milliseconds=50)])
@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_busy(backend: str, wait: Any, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry, lock(registry["s"], "a"):
        with pytest.raises(StoreLockBusyError) as raised:
            async with lock(registry["s"], "a", wait=wait):
                pass
        assert isinstance(raised.value, TimeoutError)
        assert (raised.value.store, raised.value.operation) == ("s", "lock")
        async with load(layout(backend, tmp_path)) as other:  # another root, as another process has it
            if backend == "file":
                with pytest.raises(StoreLockBusyError):
                    async with lock(other["s"], "a", wait=wait):
                        pass
    assert isinstance(raised.value, TimeoutError)


@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_a_waiting_one_enters_as_soon_as_it_is_free(backend: str, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        async with lock(registry["s"], "a", lease=60) as first:
            waiting = asyncio.create_task(lock(registry["s"], "a", wait=20).__aenter__())
            await asyncio.sleep(0.05)
            assert not waiting.done()
        second = await waiting
        assert second.token > first.token
        await second.__aexit__(None, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_the_lease_is_renewed(backend: str, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        async with lock(registry["s"], "a", lease=0.5):
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                assert await registry["s"].with_namespace(LOCKS).exists("lease:a")
                await asyncio.sleep(0.02)
        assert not await registry["s"].with_namespace(LOCKS).exists("lease:a")


@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_a_lost_lease_cancels_the_body(backend: str, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        cancelled = False

        async def hold() -> None:
            nonlocal cancelled
            async with lock(registry["s"], "a", lease=0.3):
                await registry["s"].with_namespace(LOCKS).delete("lease:a")
                try:
                    await asyncio.sleep(20)
                except asyncio.CancelledError:
                    cancelled = True
                    raise

        with pytest.raises(StoreLockLostError, match="lock 'a' of store 's' was lost"):
            await hold()
        assert cancelled
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        async with lock(registry["s"], "a", wait=0):
            pass


@in_loop
async def test_the_lease_of_another_is_not_touched() -> None:
    store = MemoryStore()
    leases = store.with_namespace(LOCKS)

    async def hold() -> None:
        async with lock(store, "a", lease=0.3):
            await leases.set("lease:a", b"another's", 50)
            await asyncio.sleep(20)

    with pytest.raises(StoreLockLostError):
        await hold()
    assert await leases.get("lease:a") == b"another's"
    assert (await leases.expires_in("lease:a") or 0) > 40
    with pytest.raises(StoreLockLostError, match="ended before the body did"):
        async with lock(store, "b", lease=30):
            await leases.set("lease:b", b"another's")
    assert await leases.get("lease:b") == b"another's"


@in_loop
async def test_what_the_body_raises_goes_first() -> None:
    store = MemoryStore()

    async def fail_when_cancelled() -> None:
        async with lock(store, "a", lease=0.2):
            await store.with_namespace(LOCKS).delete("lease:a")
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                raise KeyError("mine") from None

    async def fail() -> None:
        async with lock(store, "b"):
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail_when_cancelled()
    with pytest.raises(KeyError):
        await fail()
    assert not await store.with_namespace(LOCKS).exists("lease:b")
    await asyncio.sleep(0)  # no cancellation is left over


@in_loop
async def test_a_body_that_hides_the_cancellation_learns_of_it_when_it_leaves() -> None:
    store = MemoryStore()

    async def hide() -> None:
        async with lock(store, "a", lease=0.2):
            await store.with_namespace(LOCKS).delete("lease:a")
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(20)

    with pytest.raises(StoreLockLostError):
        await hide()
    with pytest.raises(StoreLockLostError):
        async with lock(store, "b", lease=0.1):
            time.sleep(0.3)  # the body that blocks the event loop is what is tested
    await asyncio.sleep(0)


@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_a_cancellation_from_outside_stays_one_and_gives_the_lock_back(backend: str, tmp_path: Path) -> None:
    async with load(layout(backend, tmp_path)) as registry:
        entered = asyncio.Event()

        async def hold() -> None:
            async with lock(registry["s"], "a", lease=60):
                entered.set()
                await asyncio.sleep(20)

        task = asyncio.create_task(hold())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with lock(registry["s"], "a", wait=0):
            pass


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("chain", [{}, {"encrypt": {"keys": [KEY]}}], ids=["alone", "encrypt"])
@in_loop
async def test_a_cancellation_while_it_is_taken_leaves_no_lease(
    backend: str, chain: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    async with load(layout(backend, tmp_path, **chain)) as registry:
        taking = asyncio.create_task(lock(registry["s"], "a", lease=60).__aenter__())
        for _ in range(steps):
            await asyncio.sleep(0)
        taking.cancel()
        with suppress(asyncio.CancelledError):
            held = await taking
            await held.__aexit__(None, None, None)
        async with lock(registry["s"], "a", wait=10):
            pass


def test_a_store_that_a_reload_has_removed_leaves_no_error_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "storeconf.json"

    @in_loop
    async def work() -> None:
        file.write_text('{"stores": {"s": {"type": "memory"}}}')
        async with storeconf.load(file, environ={}) as registry:
            store = registry["s"]
            file.write_text("{}")
            await registry.reload()
            with pytest.raises(UnknownStoreError):
                await lock(store, "l").__aenter__()
            await asyncio.sleep(0.01)

    work()
    gc.collect()
    assert caplog.text == ""


@in_loop
async def test_one_object_is_for_one_holder() -> None:
    mine = lock(MemoryStore(), "a")
    async with mine:
        with pytest.raises(RuntimeError, match="each holder makes its own"):
            await mine.__aenter__()
    async with mine as held:
        assert held.token == 2


@pytest.mark.parametrize("arguments", [{"lease": 0}, {"lease": -1}, {"lease": float("nan")}, {"wait": float("inf")}])
def test_bad_spans(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"finite|greater than zero"):
        lock(MemoryStore(), "a", **arguments)


def test_stores_that_cannot_have_locks() -> None:
    with pytest.raises(UnsupportedOperationError, match="does not offer add, compare_and_set, increment"):
        lock(PlainStore(), "a")
    with pytest.raises(UnsupportedOperationError, match="has no namespace"):
        lock(RedisStore.with_client("redis://localhost", namespace=None), "a")


class Stopping(AtomicStore):
    """A store that can stop answering."""

    failing = False

    async def do_compare_and_set(self, *arguments: Any) -> bool:
        if self.failing:
            raise StoreUnavailableError("down")
        return await super().do_compare_and_set(*arguments)


@in_loop
async def test_a_lease_that_cannot_be_renewed_is_lost_when_it_ends() -> None:
    store = Stopping(time.monotonic)
    begun = time.monotonic()

    async def hold() -> None:
        async with lock(store, "a", lease=0.4):
            store.failing = True
            await asyncio.sleep(20)

    with pytest.raises(StoreLockLostError, match="could not be renewed before its lease ended: down"):
        await hold()
    assert 0.35 < time.monotonic() - begun < 5


@in_loop
async def test_a_short_outage_loses_nothing() -> None:
    store = Stopping(time.monotonic)
    async with lock(store, "a", lease=0.6):
        store.failing = True
        await asyncio.sleep(0.3)
        store.failing = False
        await asyncio.sleep(0.6)


@in_loop
async def test_work_that_was_done_under_the_lock_is_not_failed_by_giving_it_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Stopping(time.monotonic)
    with caplog.at_level(logging.WARNING, "storeconf"):
        async with lock(store, "a", lease=0.4):
            store.failing = True
    assert "could not be given back, and ends with its lease" in caplog.text
    store.failing = False
    async with lock(store, "a", wait=10):
        pass


@in_loop
async def test_an_outage_while_waiting_is_told() -> None:
    server = Server("valkey-9.1").start()
    settings = {"stores": {"s": {"type": "valkey", "url": server.url, "namespace": "a", "command_timeout": "0.3s"}}}
    async with storeconf.load(settings, environ={}) as registry:
        async with lock(registry["s"], "a"):
            pass
        server.stop()
        with pytest.raises(StoreUnavailableError):
            async with lock(registry["s"], "a"):
                pass


def keys_of(store: Store) -> str:
    raw = store.with_namespace(LOCKS).raw_key("lease:a")
    assert raw is not None
    return raw


def test_locks_are_in_a_namespace_below_the_store() -> None:
    store = RedisStore.with_client(shared("redis-8.2").url, namespace="shop")
    assert keys_of(store) == "shop:-lock::lease:a"
    assert keys_of(store.with_namespace("cache")) == "shop:cache:-lock::lease:a"


class Refusing(MemoryStore):
    """Adds only when told to, and takes no compare-and-set."""

    synchronous_operations = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.adding, self.go = asyncio.Event(), asyncio.Event()
        self.refused = 0

    async def do_add(self, *arguments: Any) -> bool:
        self.adding.set()
        with suppress(asyncio.CancelledError):
            await self.go.wait()
        return await super().do_add(*arguments)

    async def do_compare_and_set(self, *arguments: Any) -> bool:
        self.refused += 1
        return False


@in_loop
async def test_giving_a_lease_back_ends_on_a_store_that_refuses_every_change() -> None:
    store = Refusing()
    async with store, asyncio.timeout(30):
        task = asyncio.ensure_future(lock(store, "job", lease=20).__aenter__())
        await store.adding.wait()
        task.cancel()
        store.go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        while _lock._background:
            await asyncio.wait(_lock._background)
        assert 1 < store.refused < 20
