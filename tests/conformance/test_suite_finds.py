"""The suite finds what only other tasks, other processes or the clock notice, and it always ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar
from xml.etree import ElementTree

import pytest

from storeconf import FileStore, MemoryStore, Store, StoreWrapper
from storeconf.testing import StoreConformance, run_conformance

from .plain import AtomicStore, PickleStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from storeconf.store import Expiry, Value

Names = tuple[str, ...]


def suite(make: Callable[[StoreConformance], Store], **members: Any) -> type[StoreConformance]:
    return type("Suite", (StoreConformance,), {"make_store": make, **members})


def failed(make: Callable[[StoreConformance], Store], *tests: str, **members: Any) -> list[str]:
    report = run_conformance(suite(make, **members), only=tests, output=None)
    return [outcome.test for outcome in report.failures]


# ---------------------------------------------------------------------- it ends


class Disagrees(StoreWrapper):
    """Its get hides what its compare_and_set sees, so that a loop of both never ends; neither ever waits."""

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        value = await self.wrapped.get(key, renew_for)
        return None if value is None or value[:2] != b"x:" else value[2:]

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        await self.wrapped.set(key, b"x:" + bytes(str(value), "utf-8"), expires_in, keep_ttl=keep_ttl)


class Spins(AtomicStore):
    async def do_exists(self, path: Names, key: str) -> bool:
        while True:
            with contextlib.suppress(Exception):
                len(self.data)


class Blocks(AtomicStore):
    async def do_exists(self, path: Names, key: str) -> bool:
        time.sleep(3600)
        return False


class Waits(AtomicStore):
    async def do_exists(self, path: Names, key: str) -> bool:
        await asyncio.sleep(3600)
        return False


@pytest.mark.parametrize("kind", [Spins, Blocks, Waits])
def test_a_store_that_hangs_fails_within_the_limit(kind: type[AtomicStore]) -> None:
    began = time.monotonic()
    report = run_conformance(suite(lambda _: kind(), time_limit=0.5), only=["test_set_get_delete"], output=None)
    assert [type(each.error) for each in report.failures if isinstance(each.error, TimeoutError)]
    assert time.monotonic() - began < 6
    if kind is not Waits:
        assert f" in do_exists ({__file__}" in str(report.failures[0].error)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of the call that is interrupted
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("test", ["test_replace_is_atomic", "test_stateful_model"])
def test_stores_that_loop_in_many_tasks_or_in_the_model_fail_within_the_limit(test: str) -> None:
    def make(_: StoreConformance) -> Store:
        return Disagrees(MemoryStore()) if test == "test_replace_is_atomic" else Spins()

    began = time.process_time()  # these stores do nothing but compute, on whatever share of the machine they get
    assert failed(make, test, time_limit=0.5) == [test]
    assert time.process_time() - began < 10


def test_a_store_that_hangs_in_other_threads_fails_within_the_limit() -> None:
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        assert pool.submit(failed, lambda _: Spins(), "test_set_get_delete", time_limit=0.5).result() != []
        assert time.monotonic() - began < 6


# ---------------------------------------------------------------------- cancellation, and the event loop


class Swallows(AtomicStore):
    async def do_set(self, path: Names, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.002)
        await super().do_set(path, key, value, expiry, keep_ttl)


class SwallowsInDeleteAll(AtomicStore):
    async def do_delete_all(self, path: Names) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.002)
        await super().do_delete_all(path)


class BlocksInDeleteAll(AtomicStore):
    async def do_delete_all(self, path: Names) -> None:
        await super().do_delete_all(path)
        time.sleep(0.3)


class BlocksInKeys(AtomicStore):
    async def do_keys(self, path: Names, prefix: str) -> AsyncIterator[str]:
        time.sleep(0.3)
        async for key in super().do_keys(path, prefix):
            yield key


@pytest.mark.parametrize("kind", [Swallows, SwallowsInDeleteAll])
def test_a_swallowed_cancellation_is_found(kind: type[AtomicStore]) -> None:
    assert failed(lambda _: kind(), "test_cancelled_calls_end_cancelled")


@pytest.mark.parametrize("kind", [BlocksInDeleteAll, BlocksInKeys])
def test_a_blocked_event_loop_is_found(kind: type[AtomicStore]) -> None:
    assert failed(lambda _: kind(), "test_listing_and_emptying_let_others_run")


# ---------------------------------------------------------------------- several processes


class OneProcessOnly(FileStore):
    """A shared store with an operation that only a lock of the event loop makes atomic."""

    locks: ClassVar[dict[int, asyncio.Lock]] = {}

    def lock(self) -> asyncio.Lock:
        return self.locks.setdefault(id(asyncio.get_running_loop()), asyncio.Lock())


class RacyAdd(OneProcessOnly):
    async def do_add(self, path: Names, key: str, value: bytes, expiry: int | None) -> bool:
        async with self.lock():
            if await self.do_exists(path, key):
                return False
            if expiry is None or expiry > 0:
                await self.do_set(path, key, value, expiry, False)
            return True


class RacyPop(OneProcessOnly):
    async def do_pop(self, path: Names, key: str) -> bytes | None:
        async with self.lock():
            value = await self.do_get(path, key, None)
            await self.do_delete(path, key)
            return value


class RacyCompareAndSet(OneProcessOnly):
    async def do_compare_and_set(
        self, path: Names, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        async with self.lock():
            if await self.do_get(path, key, None) != old:
                return False
            if new is None:
                await self.do_delete(path, key)
            else:
                await self.do_set(path, key, new, expiry, keep_ttl)
            return True


class RacyTouch(OneProcessOnly):
    async def do_touch(self, path: Names, key: str, expiry: int | None) -> bool:
        async with self.lock():
            value = await self.do_get(path, key, None)
            if value is not None:
                await self.do_set(path, key, value, expiry, False)
            return value is not None


class RacyRenewal(OneProcessOnly):
    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        if renew is None:
            return await super().do_get(path, key, None)
        async with self.lock():
            value = await super().do_get(path, key, None)
            if value is not None and await self.do_expires_in(path, key) != -1:
                await self.do_set(path, key, value, renew, False)
            return value


@pytest.mark.parametrize("kind", [RacyAdd, RacyPop, RacyCompareAndSet, RacyTouch, RacyRenewal])
def test_an_operation_that_is_atomic_in_one_process_only_is_found(kind: type[OneProcessOnly]) -> None:
    def make(self: StoreConformance) -> Store:
        return kind(self.directory / "data", create_directories=True)

    assert failed(make, "test_shared_atomic_operations_between_processes")


class ParentsSocket(AtomicStore):
    """Speaks with a server, here itself, over a connection which a forked child keeps."""

    async def do_open(self) -> None:
        if not hasattr(self, "line"):
            self.line = socket.socketpair()
            for end in self.line:
                weakref.finalize(self, end.close)

    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        self.line[0].send(b"?")
        assert self.line[1].recv(1) == b"?"
        return await super().do_get(path, key, renew)


class ParentsFile(PickleStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file: Any = None

    async def do_open(self) -> None:
        if self.file is None:
            self.file = self.path.with_suffix(".lock").open("w+b")
            weakref.finalize(self, self.file.close)

    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        self.file.seek(0)
        self.file.write(b"locked")
        self.file.flush()
        self.file.seek(0)
        assert self.file.read() == b"locked"
        return await super().do_get(path, key, renew)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_use_of_the_parents_connections_is_found() -> None:
    assert failed(lambda _: ParentsSocket(), "test_fork_of_an_open_store")
    assert failed(lambda self: ParentsFile(self.directory / "data"), "test_fork_of_an_open_store")


class LockOfOneLoop(AtomicStore):
    """A lock is bound to the first event loop in which two calls meet at it."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def do_set(self, path: Names, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        async with self.turn:
            await super().do_set(path, key, value, expiry, keep_ttl)


def test_use_of_another_event_loops_locks_is_found() -> None:
    assert failed(lambda _: LockOfOneLoop(), "test_other_event_loops")


# ---------------------------------------------------------------------- a right store passes


class InThreads(AtomicStore):
    """A right store whose calls begin and end at any time, for they wait for threads."""


def _in_thread(name: str) -> Any:
    hook = getattr(AtomicStore, name)

    async def do(self: InThreads, *arguments: Any) -> Any:
        await asyncio.to_thread(time.sleep, random.random() * 0.003)
        result = await hook(self, *arguments)
        await asyncio.to_thread(time.sleep, random.random() * 0.003)
        return result

    do.__name__ = name
    return do


for _hook in ("do_get", "do_set", "do_delete", "do_exists", "do_expires_in", "do_add", "do_pop", "do_touch"):
    setattr(InThreads, _hook, _in_thread(_hook))


def test_a_right_store_whose_calls_run_in_threads_passes() -> None:
    tests = [name for name in dir(StoreConformance) if name.startswith("test_") and "caller" in name]
    assert "test_cancelled_caller_leaves_the_others" in tests
    for _ in range(10):
        assert failed(lambda _: InThreads(), *tests) == []


def _slow(name: str) -> Any:
    hook = getattr(AtomicStore, name)

    async def do(self: AtomicStore, *arguments: Any) -> Any:
        await asyncio.sleep(0.03)
        return await hook(self, *arguments)

    return do


class Slow(AtomicStore):
    """A right store, of which two calls take longer than the shortest expiry in the suite."""


for _hook in ("do_set", "do_get", "do_increment", "do_touch", "do_delete"):
    setattr(Slow, _hook, _slow(_hook))


def test_a_right_store_that_is_slow_passes() -> None:
    tests = [
        "test_keep_ttl_keeps_the_expiry",
        "test_increment_sets_expiry_only_on_creation",
        "test_longer_expiry_replaces_a_shorter_one",
    ]
    assert failed(lambda _: Slow(), *tests) == []


class LetsGoLate(AtomicStore):
    """A right store whose thread still holds it for a moment after each call."""

    warn_if_left_open = True
    pool: ClassVar[ThreadPoolExecutor]

    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        self.pool.submit(lambda held: time.sleep(0.1), self)
        return await super().do_get(path, key, renew)


def test_a_right_store_that_a_thread_holds_for_a_moment_passes() -> None:
    with ThreadPoolExecutor(1) as LetsGoLate.pool:
        assert failed(lambda _: LetsGoLate(), "test_left_open_is_told") == []


# ---------------------------------------------------------------------- the report


class Hostile(AtomicStore):
    async def do_exists(self, path: Names, key: str) -> bool:
        raise AssertionError("\x00 \x1b[0m \ud800 <&> \ufffe")


def test_junit_xml_and_the_summary() -> None:
    tests = ["test_missing_key_is_no_error", "test_set_with_expiry_that_is_over"]
    report = run_conformance(suite(lambda _: Hostile()), only=tests, output=None)
    tree = ElementTree.fromstring(report.to_junit_xml().encode())
    assert (tree.get("tests"), tree.get("failures")) == ("2", str(len(report.failures)))
    cases = tree.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == tests
    failure = cases[0].find("failure")
    assert failure is not None
    assert r"\x00 \x1b[0m \ud800 <&> \ufffe" in (failure.get("message") or "")
    assert "do_exists" in (failure.text or "")
    assert report.summary.endswith(f" conformance: {2 - len(report.failures)} of 2 checks passed")


def test_fcntl_is_left_alone() -> None:
    """The parent's own descriptors survive that its child is cut off from them."""
    left, right = socket.socketpair()
    with left, right:
        assert not failed(lambda _: AtomicStore(), "test_fork_of_an_open_store")
        assert fcntl.fcntl(left, fcntl.F_GETFD) >= 0
        left.send(b"v")
        assert right.recv(1) == b"v"
