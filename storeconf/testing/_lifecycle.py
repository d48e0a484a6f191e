"""The life of a store: new, open, closed and open again, in other event loops, in threads, and after a fork."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import random
import select
import signal
import stat
import time
import traceback
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storeconf import Store, StoreClosedError
from storeconf.store import StoreBase
from storeconf.testing._suite import Suite, check_keys, equal, from_new, holds, raises
from storeconf.testing._values import key_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OpeningAndClosing(Suite):
    """Promises on opening and closing."""

    def test_first_call_opens(self) -> None:
        """A new store opens itself at the first call, whichever that is."""
        with self.place() as store:

            async def call(fresh: Store, name: str) -> None:
                equal(fresh.is_open, False, "a new store is not open")
                try:
                    await key_calls(self, fresh)[name]("k")
                    equal(fresh.is_open, True, f"{name} opens a new store")
                finally:
                    await fresh.aclose()

            for name in key_calls(self, store):
                self.run(call(self.handle(), name))

    @from_new
    async def test_entering_gives_the_store(self, store: Store) -> None:
        """``async with`` opens the store and gives itself; leaving closes it."""
        async with store as entered:
            holds(entered is store, "async with gives the store itself")
            equal(store.is_open, True, "entering opens")
            await store.set("k", b"v")
        equal(store.is_open, False, "leaving closes")

    @from_new
    async def test_entering_nests(self, store: Store) -> None:
        """The last exit closes, of any handle."""
        async with store:
            async with store, store.with_namespace("child") as child:
                await child.set("k", b"v")
            equal(store.is_open, True, "an inner exit leaves it open")
            await store.set("k", b"v")
        equal(store.is_open, False, "the last exit closes")
        await raises(StoreClosedError, store.get, "k")

    @from_new
    async def test_concurrent_entering(self, store: Store) -> None:
        """Tasks that enter and leave at the same time share one opening, and all of them work."""

        async def work(number: int) -> None:
            for turn in range(3):
                async with store:
                    await store.set(f"k{number}", str(turn))
                    equal(await store.get(f"k{number}"), str(turn).encode(), "each task works")

        await asyncio.gather(*(work(number) for number in range(8)))
        equal(store.is_open, False, "the last exit closes")

    @from_new
    async def test_concurrent_first_calls(self, store: Store) -> None:
        """First calls of many tasks share one opening."""
        await asyncio.gather(*(store.set(f"k{n}", b"v") for n in range(30)))
        await check_keys(store, {f"k{n}" for n in range(30)}, "each took effect")

    @from_new
    async def test_errors_inside_close_and_pass(self, store: Store) -> None:
        """An error inside ``async with`` closes the store and passes through."""

        async def fail() -> None:
            async with store:
                raise LookupError("mine")

        await raises(LookupError, fail)
        equal(store.is_open, False, "an error closes as well")

    @from_new
    async def test_closed_store_refuses_every_call(self, store: Store) -> None:
        """On a closed store every call raises StoreClosedError and changes nothing."""
        await store.set("k", b"old")
        child = store.with_namespace("child")
        await store.aclose()
        for handle in (store, child, store.with_namespace("late")):
            calls = key_calls(self, handle)
            for name in calls:
                error = await raises(StoreClosedError, calls[name], "k")
                equal(error.store, handle.name, f"the error of {name} names the store")
            if self.lists(store):
                await raises(StoreClosedError, handle.delete_all)
            await raises(StoreClosedError, handle.delete_expired)
            equal((await handle.ping()).ok, False, "ping of a closed store says so without raising")
        holds("closed" in repr(store), "the repr says that the store is closed")
        async with store:
            equal(await store.get("k"), b"old", "refused calls change nothing")
            await check_keys(store, {"k"}, "refused calls create nothing")

    @from_new
    async def test_closing_twice(self, store: Store) -> None:
        """Closing is idempotent, also of a new store, and also at the same time."""
        await store.aclose()
        await raises(StoreClosedError, store.get, "k")
        await store.aclose()
        async with store:
            await asyncio.gather(store.aclose(), store.aclose(), store.with_namespace("child").aclose())
            equal(store.is_open, False, "aclose closes whoever holds it open")

    @from_new
    async def test_open_again(self, store: Store) -> None:
        """A closed store can be opened again; its data and all its handles are there."""
        child = store.with_namespace("child")
        for turn in range(3):
            async with store:
                if turn:
                    equal(await store.get("k"), str(turn - 1).encode(), "data is there after opening again")
                    equal(await child.get("k"), b"child", "handles are valid after opening again")
                await store.set("k", str(turn))
                await child.set("k", b"child", expires_in=3600)

    @from_new
    async def test_an_iteration_ends_when_the_store_closes(self, store: Store) -> None:
        """An iteration over keys that meets a closed store raises StoreClosedError or ends; it never hangs."""
        await store.set_many({f"k{n}": b"v" for n in range(600)})
        listing = aiter(store.keys())
        await anext(listing)
        await store.aclose()
        try:
            rest = [key async for key in listing]
        except StoreClosedError:
            rest = []
        holds(len(rest) <= 600, "what was read already may still come")

    @from_new
    async def test_closing_beside_calls(self, store: Store) -> None:
        """Calls under way while the store closes succeed or raise StoreClosedError; nothing else happens to them."""
        await store.set("k", b"old")
        new = bytes(min(200_000, self.capabilities(store).max_value_size or 200_000))
        calls: list[asyncio.Future[object]] = [asyncio.ensure_future(store.set("k", new)) for _ in range(5)]
        calls += [asyncio.ensure_future(store.delete(f"m{n}")) for n in range(5)]
        await asyncio.sleep(0)
        await store.aclose()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            holds(
                result in (None, False) or isinstance(result, StoreClosedError),
                f"a call beside closing ended with {result!r}",
            )
        async with store:
            holds(await store.get("k") in (b"old", new), "the value is the old or the new one")

    def test_other_event_loops(self) -> None:
        """Handles stay valid in another event loop, after closing and without it."""
        with self.place() as store:
            child = store.with_namespace("child")

            async def write() -> None:
                async with store:
                    # At once, so that objects with waiters here, such as a lock, belong to this loop.
                    await asyncio.gather(*(child.set("k", b"one") for _ in range(10)))
                    await asyncio.gather(*(child.get("k") for _ in range(10)))

            async def use(expected: bytes, new: bytes) -> None:
                equal(await child.get("k"), expected, "data is there in another loop")
                await asyncio.gather(*(child.set("k", new) for _ in range(10)))
                equal(await child.get_or_set("made", lambda: b"made"), b"made", "get_or_set works in another loop")
                await child.delete("made")

            async def enter() -> None:
                async with store:
                    await use(b"one", b"two")

            self.run(write())
            self.run(enter())
            holder = self.run(store.__aenter__())
            self.run(use(b"two", b"three"))
            self.run(use(b"three", b"four"))
            self.run(holder.__aexit__(None, None, None))
            equal(store.is_open, False, "what one loop opened another one closes")

    def test_several_threads(self) -> None:
        """Several threads' event loops use one store at once, and atomic operations stay exact."""
        if not self.threads:
            return
        with self.place() as store:
            atomic = self.capabilities(store).atomic

            async def work(number: int) -> None:
                async with store:
                    for turn in range(30):
                        await store.set(f"{number}-{turn}", str(number))
                        equal(await store.get(f"{number}-{turn}"), str(number).encode(), "each thread reads its writes")
                        if "increment" in atomic:
                            await store.increment("counter")
                    equal(await store.get_or_set(f"{number}-made", lambda: b"made"), b"made", "each runs its factory")

            async def check() -> None:
                expected = {f"{number}-{turn}" for number in range(4) for turn in [*range(30), "made"]}
                if "increment" in atomic:
                    expected.add("counter")
                    equal(await store.get("counter"), b"120", "increments of several threads are exact")
                async with store:
                    await check_keys(store, expected, "every write took effect")

            async def main() -> None:
                async with store:
                    loop = asyncio.get_running_loop()
                    with ThreadPoolExecutor(4) as pool:
                        jobs = [loop.run_in_executor(pool, self.run, work(number)) for number in range(4)]
                        await asyncio.gather(*jobs)
                    await check()

            self.run(main())

    def test_several_threads_with_large_values(self) -> None:
        """Several threads that read and write large values at once each get their own, byte for byte."""
        if not self.threads:
            return
        with self.place() as store:

            async def work(number: int) -> None:
                chance = random.Random(number)
                async with store:
                    for turn in range(100):
                        value = b"thread %d, turn %d; " % (number, turn) * chance.randrange(100, 2000)
                        value = value[: self.fitting(store, len(value))]
                        await store.set(f"{number}", value)
                        holds(await store.get(f"{number}") == value, "each thread reads what it wrote")

            async def main() -> None:
                async with store:
                    loop = asyncio.get_running_loop()
                    with ThreadPoolExecutor(4) as pool:
                        await asyncio.gather(
                            *(loop.run_in_executor(pool, self.run, work(number)) for number in range(4))
                        )

            self.run(main())

    def test_fork_of_an_open_store(self) -> None:
        """A forked child uses its own connections, threads and locks; the parent's go on working beside it."""
        if not hasattr(os, "fork"):
            return
        with self.place() as store:
            self.run(store.get("k"))  # a client library may make something that the whole process keeps
        gc.collect()  # else leftovers of an earlier test may be closed meanwhile, and their descriptors used again
        before = open_files()
        with self.place() as store:
            child = store.with_namespace("child")
            capabilities = self.capabilities(store)

            async def work(key: str) -> None:
                await asyncio.gather(*(child.set(f"{key}{n}", key) for n in range(5)))
                equal(await child.get(f"{key}0"), key.encode(), "a store works on both sides of a fork")

            async def check() -> None:
                await work("after")
                kept = capabilities.shared or capabilities.persistent
                expected = {"before", "after", "forked"} if kept else {"before", "after"}
                keys = {f"{key}{n}" for key in expected for n in range(5)}
                await check_keys(child, keys, "the parent sees what it should")

            async def in_the_child() -> None:
                equal(await child.get("before0"), b"before", "a forked child finds the data")
                await work("forked")
                await store.aclose()

            def forked() -> None:
                with cut_off(inherited):
                    self.run(in_the_child())

            self.run(work("before"))
            inherited = open_files() - before
            in_child(self.time_limit, forked)
            self.run(check())

    def test_left_open_is_told(self) -> None:
        """A store that holds a resource and is left open ends with a ResourceWarning."""
        with self.place() as store:
            root = store.root
            assert isinstance(root, StoreBase)  # as every root is
            if not root.warn_if_left_open:
                return
            left = self.handle()

            async def leave_open(store: Store) -> None:
                await store.__aenter__()
                await store.get("k")

            self.run(leave_open(left))
            name, alive = left.name, weakref.ref(left.root)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del left
                until = time.monotonic() + _LAST_STEPS
                gc.collect()
                while alive() is not None and time.monotonic() < until:
                    time.sleep(0.001)  # a thread of the store's may be about to drop its finished work
                    gc.collect()
                told = any(issubclass(warning.category, ResourceWarning) for warning in caught)
                # A warning may hold the resource that it is about, such as a database, which would warn again later.
                warnings.simplefilter("ignore")
                caught.clear()
                gc.collect()
            holds(alive() is None, "a store that nobody holds goes; make_store must keep no reference to it")
            holds(told, f"the store {name} that was left open causes a ResourceWarning")


# ---------------------------------------------------------------- forked processes


_LAST_STEPS = 2.0
"""Seconds that threads of a store that nobody holds any longer get to let go of it."""

_CHILD_GRACE = 2.0
"""Seconds that a forked process gets beyond its time limit before it is killed."""


def in_child(limit: float, *works: Callable[[], None]) -> None:
    """Run each of ``works`` in a forked process of its own, all at once; fail with the error of one.

    A process that takes longer than ``limit`` seconds is killed, which is a failure, too.
    """
    children = [_fork(work) for work in works]
    until = time.monotonic() + limit + _CHILD_GRACE
    failures = []
    for pid, read in children:
        answered, _, _ = select.select([read], [], [], max(0.0, until - time.monotonic()))
        if not answered:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        report = os.read(read, 1 << 15).decode(errors="replace") if answered else f"it hung for {limit:g} s"
        os.close(read)
        if status or report:
            failures.append(f"a forked process works; one ended with status {status}\n{report}")
    if failures:
        raise AssertionError("\n".join(failures))


def open_files() -> set[tuple[int, int, int]]:
    """The descriptors of this process that only one process at a time may use: sockets, and files open for writing.

    Each with the device and inode of its file: a number is given again as soon as it is free.
    """
    found = set()
    for descriptor in range(3, min(1024, os.sysconf("SC_OPEN_MAX"))):
        try:
            status = os.fstat(descriptor)
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode) or (stat.S_ISREG(status.st_mode) and mode == os.O_RDWR):
            found.add((descriptor, status.st_dev, status.st_ino))
    return found


@contextmanager
def cut_off(files: set[tuple[int, int, int]]) -> Iterator[None]:
    """In a forked child: make the parent's open files useless, so that using it fails instead of mixing things up.

    The parent's own descriptors stay as they are.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, _, _ in files:
        os.dup2(nothing, descriptor)
    yield
    os.close(nothing)


def _fork(work: Callable[[], None]) -> tuple[int, int]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        # A fork beside other threads is the very thing that is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent, which fails with it
        os.write(write, traceback.format_exc().encode()[-(1 << 14) :])
    finally:
        os._exit(status)
