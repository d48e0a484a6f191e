"""Opening is bounded, names what did not open, and needs an event loop of asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio

import storeconf
from storeconf import (
    Backend,
    BuildContext,
    Catalog,
    FileStore,
    MemoryStore,
    Store,
    StoreRegistry,
    StoreTimeoutError,
    _root,
)
from storeconf.stores import ValkeyStore
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


class Hangs(MemoryStore):
    """A store whose opening never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = 0

    async def do_open(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class Opens(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def do_open(self) -> None:
        self.log.append("open")

    async def do_close(self) -> None:
        self.log.append("close")


class HangsBackend(Backend):
    type: Literal["hangs"] = "hangs"

    def build(self, context: BuildContext) -> Store:
        return Hangs()


class OpensBackend(Backend):
    type: Literal["opens"] = "opens"

    def build(self, context: BuildContext) -> Store:
        return Opens()


CATALOG = Catalog.builtin().with_backend("hangs", HangsBackend).with_backend("opens", OpensBackend)


def load(stores: dict[str, Any]) -> StoreRegistry:
    return storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile()


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storeconf._root.OPEN_LIMIT", 0.05)
    monkeypatch.setattr("storeconf.registry.OPEN_LIMIT", 0.05)


def test_a_store_that_never_opens_is_given_up(short_limit: None) -> None:
    async def main() -> None:
        store = Hangs()
        store.name = "slow"
        for use in (store.__aenter__, lambda: store.get("k"), lambda: store.with_namespace("a").set("k", b"v")):
            with pytest.raises(StoreTimeoutError, match=r"opening store 'slow' timed out after 0\.05 s") as caught:
                await use()
            assert (caught.value.store, caught.value.operation) == ("slow", "open")
        assert store.cancelled == 3
        assert not store.is_open

    asyncio.run(main())


def test_all_who_wait_for_the_opening_get_its_error(short_limit: None) -> None:
    async def main() -> None:
        store = Hangs()
        results = await asyncio.gather(*(store.get("k") for _ in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreTimeoutError}
        assert store.cancelled == 1

    asyncio.run(main())


def test_what_the_registry_opened_before_is_closed(short_limit: None) -> None:
    async def main() -> None:
        registry = load({"first": {"type": "opens"}, "slow": {"type": "hangs"}, "last": {"type": "opens"}})
        with pytest.raises(StoreTimeoutError, match="'slow'"):
            await registry.__aenter__()
        first, last = registry["first"].root, registry["last"].root
        assert isinstance(first, Opens)
        assert isinstance(last, Opens)
        assert first.log == ["open", "close"]
        assert last.log == []
        assert not registry.is_open

    asyncio.run(main())


def test_a_shorter_timeout_of_the_chain_bounds_opening() -> None:
    async def main() -> None:
        registry = load({"slow": {"type": "hangs", "middleware": {"timeout": "50ms", "ttl": "1h", "retry": 3}}})
        with pytest.raises(StoreTimeoutError, match=r"'slow' timed out after 0\.05 s"):
            await registry.__aenter__()

    asyncio.run(main())


def test_a_longer_timeout_of_the_chain_bounds_nothing(short_limit: None) -> None:
    async def main() -> None:
        registry = load({"slow": {"type": "hangs", "middleware": {"timeout": "1h"}}})
        with pytest.raises(StoreTimeoutError, match=r"'slow' timed out after 0\.05 s"):
            await registry.__aenter__()

    asyncio.run(main())


def test_the_timeout_of_a_child_bounds_its_calls_and_not_the_opening_of_others(short_limit: None) -> None:
    async def main() -> None:
        stores = {"slow": {"type": "hangs"}, "child": {"parent": "slow", "middleware": {"timeout": "10ms"}}}
        registry = load(stores)
        with pytest.raises(StoreTimeoutError, match=r"after 0\.05 s"):
            await registry.__aenter__()

    asyncio.run(main())


def test_a_store_of_another_library_that_never_opens_is_given_up(short_limit: None) -> None:
    class Foreign:
        async def __aenter__(self) -> None:
            await asyncio.Event().wait()

        async def __aexit__(self, *_: object) -> None:
            pass

    async def main() -> None:
        first = Opens()
        registry = StoreRegistry({"first": first, "theirs": Foreign()})  # type: ignore[dict-item]  # a foreign one
        with pytest.raises(StoreTimeoutError, match="opening store 'theirs' timed out"):
            await registry.__aenter__()
        assert first.log == ["open", "close"]

    asyncio.run(main())


def test_a_timeout_of_the_backend_itself_stays_its_own(short_limit: None) -> None:
    class Fails(MemoryStore):
        async def do_open(self) -> None:
            raise TimeoutError("its own")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await Fails().__aenter__()

    asyncio.run(main())


# ---------------------------------------------------------------------- the first caller


class Request:
    """What an application keeps in a context variable for the length of a request."""


request: ContextVar[Request] = ContextVar("request")

KINDS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda path: MemoryStore(),
    "file": lambda path: FileStore(path),
    "server": lambda path: ValkeyStore.with_client(shared().url, namespace="first-caller"),
    "server with a near cache": lambda path: load(
        {"s": {"type": "valkey", "url": shared().url, "namespace": "first-caller", "middleware": {"cache": "1m"}}}
    )["s"],
    "given up": lambda path: Hangs(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_does_not_keep_the_context_of_the_caller_for_whom_it_opened(kind: str, tmp_path: Path) -> None:
    async def call(store: Store) -> weakref.ref[Request]:
        mine = Request()
        request.set(mine)
        use = asyncio.ensure_future(store.set("k", b"v", 60))
        if kind == "given up":
            await asyncio.sleep(0)
            use.cancel()
        await asyncio.wait([use])
        await asyncio.gather(*([] if use.cancelled() else [store.get("k")]))
        return weakref.ref(mine)

    async def main() -> None:
        store = KINDS[kind](tmp_path)
        # A timer that is due sooner, behind which cancelled ones stay in the loop.
        timer = asyncio.get_running_loop().call_later(20, str)
        kept = await asyncio.create_task(call(store))
        await asyncio.sleep(0)
        gc.collect()
        assert kept() is None
        timer.cancel()
        await store.root.aclose()

    asyncio.run(main())


# ---------------------------------------------------------------------- without asyncio


def test_a_store_that_another_thread_opens_at_that_moment_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def open_in_another_thread() -> None:
        monkeypatch.undo()
        thread = threading.Thread(target=lambda: asyncio.run(store.set("other", b"v")))
        thread.start()
        thread.join()

    monkeypatch.setattr(_root, "require_asyncio", open_in_another_thread)  # called after the state has been read
    asyncio.run(store.set("k", b"v"))


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what needs no event loop, as another library's loop would begin it."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def test_without_asyncio_opening_fails_at_once() -> None:
    store, registry = Opens(), load({"a": {"type": "memory"}})
    uses: list[Coroutine[Any, Any, Any]] = [
        store.__aenter__(),
        store.get("k"),
        store.set("k", b"v"),
        store.get_or_set("k", lambda: b"v"),
    ]
    uses += [registry.__aenter__(), registry["a"].exists("k"), registry.aclose(), store.aclose()]
    for use in uses:
        with pytest.raises(RuntimeError, match="asyncio only"):
            drive(use)
    assert store.log == []
    assert not registry.is_open

    async def main() -> None:
        async with registry, store:
            assert await registry["a"].get("k") is None

    asyncio.run(main())


def test_trio_is_told_so_when_it_opens_a_registry() -> None:
    registry = load({"a": {"type": "memory"}})

    async def main() -> None:
        async with registry:
            raise AssertionError("it opened")

    with pytest.raises(RuntimeError, match="asyncio only"):
        trio.run(main)
    assert not registry.is_open
