"""``refresh`` in one process: early renewal, stale values, a bounded wait, and what writes do to copies."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import ConfigError, MemoryStore, StoreRegistry, cached, typed
from storeconf._arguments import LEASES, STALE
from storeconf.middleware.refresh import Refresh, RefreshStore
from storeconf.plugin import BuildContext
from storeconf.testing import Clock, memory_registry
from tests.above.backends import BACKENDS, KEY, in_loop, layout, load
from tests.middleware.making import made

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

CHAINS: dict[str, dict[str, Any]] = {
    "alone": {},
    "coded": {"compress": {"min_size": 0, "algorithm": "gzip"}, "encrypt": {"keys": [KEY]}},
    "cached": {"cache": "1h", "fallback": "other"},
    "full": {
        "ttl": {"max": "1d"}, "on_error": "miss", "fallback": "other", "cache": "1h", "limit": {"key_size": 40},
        "compress": {"min_size": 0, "algorithm": "gzip"}, "encrypt": {"keys": [KEY]},
        "breaker": 5, "retry": 3, "timeout": "30s", "metrics": True,
    },
}  # fmt: skip

chains = pytest.mark.parametrize("chain", CHAINS)
backends = pytest.mark.parametrize("backend", BACKENDS)


def stores(backend: str, directory: Path, chain: str, **refresh: Any) -> StoreRegistry:
    return load(layout(backend, directory, **CHAINS[chain], refresh=refresh))


class Source:
    """A factory whose results are numbers; it can fail and wait."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> bytes:
        self.runs += 1
        number = self.runs
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return b"%d" % number


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    while not await condition():  # the time limit of the test ends it
        await asyncio.sleep(0.005)


def inner(store: storeconf.Store) -> storeconf.Store:
    """What is inside the refresh of a chain."""
    while not isinstance(store, RefreshStore):
        assert isinstance(store, storeconf.StoreWrapper)
        store = store.wrapped
    return store.wrapped


async def stale(store: storeconf.Store, key: str) -> bytes | None:
    return await inner(store).with_namespace(STALE).get(key)


# ---------------------------------------------------------------------- stale_if_error


@backends
@chains
@in_loop
async def test_a_source_that_fails_is_not_noticed(
    backend: str, chain: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    async with stores(backend, tmp_path, chain, stale_if_error="1h") as registry:
        store = registry["s"]
        assert await store.get_or_set("k", source, 0.05) == b"1"
        await until(lambda: missing(store, "k"))
        source.error = OSError("the source is down")
        with caplog.at_level(logging.WARNING, "storeconf"):
            assert [await store.get_or_set("k", source, 0.05) for _ in range(3)] == [b"1"] * 3
        assert caplog.text.count("a copy of the expired value is served") == 1
        assert "OSError: the source is down" in caplog.text
        assert await store.get("k") is None
        assert await store.exists("k") is False
        assert [key async for key in store.keys()] == []
        with pytest.raises(OSError, match="the source is down"):
            await store.get_or_set("other", source, 0.05)
        source.error = None
        assert await store.get_or_set("k", source, 60) == b"6"
        assert await store.get("k") == b"6"


async def missing(store: storeconf.Store, key: str) -> bool:
    return await store.get(key) is None


def context() -> BuildContext:
    return BuildContext("s", None, lambda name: MemoryStore())


@in_loop
async def test_each_stale_value_is_counted() -> None:
    clock = Clock()
    store = made(Refresh, stale_if_error="1h").wrap(MemoryStore(clock=clock), context())
    source = Source()
    await store.get_or_set("k", source, 60)
    await store.with_namespace("below").get_or_set("k", source, 60)
    clock.advance(61)
    source.error = OSError("down")
    assert await store.get_or_set("k", source, 60) == b"1"
    assert await store.with_namespace("below").get_or_set("k", source, 60) == b"2"
    assert isinstance(store, RefreshStore)
    assert store.stale_served == 2
    clock.advance(3600)
    with pytest.raises(OSError, match="down"):
        await store.get_or_set("k", source, 60)


WRITES: dict[str, Callable[[storeconf.Store], Coroutine[Any, Any, Any]]] = {
    "set": lambda store: store.set("k", b"5", 0.05),
    "set keep_ttl": lambda store: store.set("k", b"5", keep_ttl=True),
    "set over": lambda store: store.set("k", b"5", 0),
    "set_many": lambda store: store.set_many({"k": b"5"}, 0.05),
    "add": lambda store: store.add("k", b"5", 0.05),
    "delete": lambda store: store.delete("k"),
    "delete_many": lambda store: store.delete_many(["other", "k"]),
    "delete_all": lambda store: store.delete_all(),
    "pop": lambda store: store.pop("k"),
    "increment": lambda store: store.increment("k"),
    "compare_and_set": lambda store: store.compare_and_set("k", b"1", b"5", 0.05),
    "compare_and_delete": lambda store: store.compare_and_set("k", b"1", None),
    "touch over": lambda store: store.touch("k", 0),
    "renew over": lambda store: store.get("k", 0),
}


@pytest.mark.parametrize("write", WRITES)
@backends
@in_loop
async def test_writes_and_deletions_delete_the_copy(backend: str, write: str, tmp_path: Path) -> None:
    source = Source()
    async with stores(backend, tmp_path, "full", stale_if_error="1h") as registry:
        store = registry["s"]
        assert await store.get_or_set("k", source, 3600) == b"1"
        assert await stale(store, "k") == b"1"
        await WRITES[write](store)
        assert await stale(store, "k") is None


@in_loop
async def test_writes_after_the_expiry_delete_the_copy_too() -> None:
    for write in ("set", "add", "increment", "delete", "pop", "delete_all", "set_many", "delete_many"):
        clock = Clock()
        store = made(Refresh, stale_if_error="1h").wrap(MemoryStore(clock=clock), context())
        await store.get_or_set("k", Source(), 60)
        clock.advance(61)
        await WRITES[write](store)
        assert await stale(store, "k") is None, write


@backends
@in_loop
async def test_reading_and_renewing_keep_the_copy(backend: str, tmp_path: Path) -> None:
    async with stores(backend, tmp_path, "alone", stale_if_error="1h") as registry:
        store = registry["s"]
        await store.get_or_set("k", Source(), 60)
        for read in (
            store.get("k"), store.get("k", 60), store.get_many(["k"]), store.exists("k"), store.expires_in("k"),
            store.get_with_expiry("k"), store.touch("k", 60), store.get_or_set("k", Source(), 60),
        ):  # fmt: skip
            await read
        assert await stale(store, "k") == b"1"
        assert 3590 < (await inner(store).with_namespace(STALE).expires_in("k") or 0) - 60 <= 3600


@in_loop
async def test_what_never_expires_has_no_copy() -> None:
    store = made(Refresh, stale_if_error="1h", wait=0.1).wrap(MemoryStore(), context())
    await store.get_or_set("k", Source())
    assert await stale(store, "k") is None


@in_loop
async def test_the_copy_of_a_value_that_another_process_replaced_is_not_kept() -> None:
    memory = MemoryStore()
    store = made(Refresh, stale_if_error="1h").wrap(memory, context())

    async def factory() -> bytes:
        await memory.do_set((), "k", b"another's", None, False)  # past this process, as another one would
        return b"mine"

    assert await store.get_or_set("k", factory, 60) == b"another's"
    assert await stale(store, "k") is None


# ---------------------------------------------------------------------- early


@backends
@chains
@in_loop
async def test_one_caller_renews_early_and_the_others_get_the_value(backend: str, chain: str, tmp_path: Path) -> None:
    source = Source()
    async with stores(backend, tmp_path, chain, early="50%") as registry:
        store = registry["s"]
        assert await store.get_or_set("k", source, 0.8) == b"1"
        assert await store.get_or_set("k", source, 0.8) == b"1"
        await asyncio.sleep(0.45)
        source.may_end.clear()
        renewing = asyncio.create_task(store.get_or_set("k", source, 60))
        while source.runs < 2:
            await asyncio.sleep(0.001)
        assert await store.get_or_set("k", source, 60) == b"1"
        assert not renewing.done()
        source.may_end.set()
        assert await renewing == b"2"
        assert await store.get_or_set("k", source, 60) == b"2"
        assert source.runs == 2


@in_loop
async def test_an_early_renewal_that_fails_leaves_the_value() -> None:
    clock, source = Clock(), Source()
    store = made(Refresh, early="20%").wrap(MemoryStore(clock=clock), context())
    await store.get_or_set("k", source, 100)
    clock.advance(79)
    source.error = OSError("down")
    assert await store.get_or_set("k", source, 100) == b"1"
    assert source.runs == 1
    clock.advance(2)
    assert await store.get_or_set("k", source, 100) == b"1"
    assert source.runs == 2
    assert (await store.expires_in("k") or 0) <= 19


@in_loop
async def test_early_goes_by_the_expiry_that_the_chain_gives() -> None:
    clock = Clock()
    settings = {"stores": {"s": {"type": "memory", "middleware": {"refresh": 0.2, "ttl": {"default": 100, "max": 50}}}}}
    async with memory_registry(settings, clock=clock) as registry:
        for span in (None, 1000):
            source = Source()
            await registry["s"].delete_all()
            await registry["s"].get_or_set("k", source, span)
            clock.advance(39)
            assert await registry["s"].get_or_set("k", source, span) == b"1"
            clock.advance(2)
            assert await registry["s"].get_or_set("k", source, span) == b"2"


@in_loop
async def test_early_does_not_apply_to_what_reading_renews() -> None:
    clock, source = Clock(), Source()
    chain = {"refresh": "90%", "ttl": {"default": 100, "renew_on_get": True}}
    async with memory_registry({"stores": {"s": {"type": "memory", "middleware": chain}}}, clock=clock) as registry:
        for _ in range(5):
            assert await registry["s"].get_or_set("k", source) == b"1"
            clock.advance(60)


@pytest.mark.parametrize("change", ["set", "delete", "compare_and_set"])
@in_loop
async def test_an_early_renewal_undoes_no_change(change: str) -> None:
    """Neither one through this process nor one of another."""
    for through_this in (True, False):
        clock = Clock()
        memory = MemoryStore(clock=clock)
        store = made(Refresh, early="50%", stale_if_error="1h", shared=30).wrap(memory, context())
        await store.get_or_set("k", lambda: b"1", 100)
        clock.advance(60)

        async def factory(through_this: bool = through_this, memory: MemoryStore = memory, store: Any = store) -> bytes:
            if change == "delete":
                await (store.delete("k") if through_this else memory.do_delete((), "k"))
            else:
                await (store.set("k", b"newer") if through_this else memory.do_set((), "k", b"newer", None, False))
            return b"2"

        value = await store.get_or_set("k", factory, 100)
        assert value == (b"2" if through_this or change == "delete" else b"newer")
        assert await store.get("k") == (None if change == "delete" else b"newer")


# ---------------------------------------------------------------------- background, and wait


@backends
@chains
@in_loop
async def test_a_renewal_in_the_background_keeps_nobody_waiting(backend: str, chain: str, tmp_path: Path) -> None:
    source = Source()
    async with stores(backend, tmp_path, chain, early="99%", shared="30s") as registry:
        store = registry["s"]
        await store.get_or_set("k", source, 60, background=True)
        await asyncio.sleep(0.65)
        source.may_end.clear()
        assert await store.get_or_set("k", source, 60, background=True) == b"1"
        assert await store.get_or_set("k", source, 60, background=True) == b"1"
        source.may_end.set()
        await until(lambda: equals(store, "k", b"2"))
        assert source.runs == 2


async def equals(store: storeconf.Store, key: str, value: bytes) -> bool:
    return await store.get(key) == value


@backends
@chains
@in_loop
async def test_a_slow_source_costs_callers_no_more_than_wait(backend: str, chain: str, tmp_path: Path) -> None:
    source = Source()
    # On a busy machine the copy must outlive the value by more than that lived.
    async with stores(backend, tmp_path, chain, wait="20ms", stale_if_error="1h") as registry:
        store = registry["s"]
        await store.get_or_set("k", source, 0.3)
        await until(lambda: missing(store, "k"))
        source.may_end.clear()
        assert await store.get_or_set("k", source, 60, background=True) == b"1"
        assert await store.get_or_set("k", source, 60, background=True) == b"1"
        source.may_end.set()
        await until(lambda: equals(store, "k", b"2"))
        assert source.runs == 2


@in_loop
async def test_without_a_copy_callers_wait_for_the_factory() -> None:
    source = Source()
    store = made(Refresh, wait=0.01, stale_if_error="1h").wrap(MemoryStore(), context())
    source.may_end.clear()
    waiting = asyncio.create_task(store.get_or_set("k", source, 60, background=True))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    source.may_end.set()
    assert await waiting == b"1"
    assert source.runs == 1


@in_loop
async def test_a_factory_that_belongs_to_its_callers_is_waited_for() -> None:
    clock, source = Clock(), Source()
    store = made(Refresh, wait=0.001, stale_if_error="1h").wrap(MemoryStore(clock=clock), context())
    await store.get_or_set("k", source, 60)
    clock.advance(61)
    source.may_end.clear()
    waiting = asyncio.create_task(store.get_or_set("k", source, 60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    source.may_end.set()
    await asyncio.sleep(0.01)
    assert await store.get("k") is None, "the last caller to leave cancels it"


@backends
@pytest.mark.parametrize("chain", ["alone", "coded"])
@pytest.mark.parametrize("steps", range(8))
@in_loop
async def test_a_computation_that_is_cancelled_leaves_no_lease(
    backend: str, chain: str, steps: int, tmp_path: Path
) -> None:
    async with stores(backend, tmp_path, chain, shared="1h") as registry:
        store = registry["s"]
        first = asyncio.create_task(store.get_or_set("k", Source(), 60))
        for _ in range(steps):
            await asyncio.sleep(0)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await store.delete("k")
        async with asyncio.timeout(20):
            assert await store.get_or_set("k", Source(), 60) == b"1"


@in_loop
async def test_an_error_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock, source = Clock(), Source()
    store = made(Refresh, wait=0.01).wrap(MemoryStore(clock=clock), context())
    await store.get_or_set("k", source, 60, background=True)
    clock.advance(61)
    source.error = OSError("down")
    source.may_end.clear()
    with caplog.at_level(logging.WARNING, "storeconf"):
        assert await store.get_or_set("k", source, 60, background=True) == b"1"
        source.may_end.set()
        await asyncio.sleep(0.01)
    assert "could not be computed in the background" in caplog.text
    assert "OSError: down" in caplog.text


@in_loop
async def test_a_timeout_of_the_factory_is_its_own() -> None:
    async def factory() -> bytes:
        raise TimeoutError("mine")

    store = made(Refresh, wait=10).wrap(MemoryStore(), context())
    with pytest.raises(TimeoutError, match="mine"):
        await store.get_or_set("k", factory, 60, background=True)


@in_loop
async def test_closing_ends_what_runs_in_the_background() -> None:
    source = Source()
    registry = load({"stores": {"s": {"type": "memory", "middleware": {"refresh": {"early": "99%", "shared": "1h"}}}}})
    loop = asyncio.get_running_loop()
    async with registry:
        await registry["s"].get_or_set("k", source, 10)
        await asyncio.sleep(0.12)
        source.may_end.clear()
        await registry["s"].get_or_set("k", source, 10, background=True)
        while source.runs < 2:
            await asyncio.sleep(0)
        begun = loop.time()
    assert loop.time() - begun < 2, "nobody waits for what nobody needs"
    async with registry:
        assert await registry["s"].with_namespace(LEASES).get("k") is None, "its lease was given back"


@in_loop
async def test_cached_functions_may_outlive_their_callers() -> None:
    clock = Clock()
    settings = {"stores": {"s": {"type": "memory", "middleware": {"refresh": {"wait": 0, "stale_if_error": "1h"}}}}}
    async with memory_registry(settings, clock=clock) as registry:
        runs, may_end = 0, asyncio.Event()
        may_end.set()

        @cached(registry["s"], expires_in=60)
        async def number() -> int:
            nonlocal runs
            runs += 1
            run = runs
            await may_end.wait()
            return run

        assert await number() == 1
        clock.advance(61)
        may_end.clear()
        assert await number() == 1
        may_end.set()
        while await number() != 2:
            await asyncio.sleep(0.001)
        assert runs == 2


@in_loop
async def test_a_copy_that_is_not_valid_is_not_served() -> None:
    clock = Clock()
    store = made(Refresh, stale_if_error="1h").wrap(MemoryStore(clock=clock), context())
    values = typed(store, int, invalid="miss")
    await store.get_or_set("k", lambda: b"old form", 60)
    assert await values.get_or_set("k", lambda: 5, 60) == 5
    assert await values.get("k") == 5
    assert await stale(store, "k") == b"5"
    await store.delete("k")
    await store.get_or_set("k", lambda: b"old form", 60)
    clock.advance(61)

    def fail() -> int:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        await values.get_or_set("k", fail, 60)


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give early"), ({"early": "0%"}, "greater than 0"), ({"early": "100%"}, "less than 1"),
        ({"early": "often"}, "'often' is not a share"), ({"early": True}, "a share"),
        ({"early": [1]}, "a share"), ({"shared": 0}, "greater than zero"), ({"other": 1}, "other"),
        ({"stale_if_error": "0s"}, "greater than zero"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        storeconf.read_layout({"stores": {"s": {"type": "memory", "middleware": {"refresh": settings}}}}, environ={})


@pytest.mark.parametrize(("early", "share"), [("20%", 0.2), (0.25, 0.25), ("0.5", 0.5), ("12.5 %", 0.125)])
def test_the_main_setting(early: Any, share: float) -> None:
    read = storeconf.read_layout({"stores": {"s": {"type": "memory", "middleware": {"refresh": early}}}}, environ={})
    step = read.plan().steps[0]
    assert [getattr(link, "early", None) for _, link in step.chain] == [share]


def test_its_place_in_the_chain() -> None:
    chain = {"cache": "1s", "refresh": "20%", "fallback": "other"}
    read = storeconf.read_layout(
        {"stores": {"s": {"type": "memory", "middleware": chain}, "other": {"type": "memory"}}}, environ={}
    )
    kinds = [kind for step in read.plan().steps if step.name == "s" for kind, _ in step.chain]
    assert kinds == ["fallback", "refresh", "cache"]


def test_where_it_cannot_be() -> None:
    server = {"type": "redis", "url": "redis://h", "namespace": "", "middleware": {"refresh": "20%"}}
    with pytest.raises(ConfigError, match="refresh needs namespaces below 's'") as raised:
        storeconf.read_layout({"stores": {"s": server}}, environ={})
    assert [each.code for each in raised.value.diagnostics] == ["SC605"]
    objects = {"type": "memory", "objects": True, "middleware": {"refresh": "20%"}}
    with pytest.raises(ConfigError, match="refresh works on bytes") as raised:
        storeconf.read_layout({"stores": {"s": objects}}, environ={})
    assert [each.code for each in raised.value.diagnostics] == ["SC607"]
