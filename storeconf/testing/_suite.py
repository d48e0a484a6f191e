"""The ground under the conformance suite: its hooks, its clock, and the running of one test. Imports no test runner."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import math
import os
import select
import signal
import stat
import tempfile
import time
import traceback
import uuid
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from storeconf.errors import UnsupportedOperationError
from storeconf.operations import LISTING
from storeconf.store import OversizeError
from storeconf.testing._checks import equal, holds, limited, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from storeconf import Capabilities, Store

S = TypeVar("S", bound="Suite")
T = TypeVar("T")

SHORT = 0.05
"""An expiry, in seconds, that a test waits for."""

LONG = 3600
"""An expiry, in seconds, that no test lives to see."""

_TICK = 0.004
_CLOCKS_DIFFER = 0.05
_CHILD_GRACE = 2.0


class Suite:
    """What a test author may override. `make_store` is the one thing that must be."""

    namespaces: ClassVar[tuple[str, ...]] = ()
    """Run everything on this namespace path of the store instead of on the store itself."""

    threads: ClassVar[bool] = True
    """Whether the store may be used from the event loops of several threads at once."""

    time_limit: ClassVar[float] = 60.0
    """Seconds after which a test fails instead of waiting on, also if the store never gives way to the event loop."""

    directory: Path
    """An empty directory of the running test's own, removed afterwards."""

    unique: str
    """A name of the running test's own, fit for a namespace, a table or a file."""

    def make_store(self) -> Store:
        """Return a new store, not opened, for the running test; keep no reference to it.

        Within one test every call gives a store on the same data, as another process would have it; another test's
        store starts empty. Take `directory` or `unique` as the place.
        """
        raise NotImplementedError

    def runner(self) -> asyncio.Runner:
        """Return the runner of one event loop; override it to run on another loop."""
        return asyncio.Runner(debug=False)

    def now(self) -> float:
        """Return the time in seconds. Override it together with `advance` for a store whose clock can be set."""
        return time.monotonic()

    async def advance(self, seconds: float) -> None:
        """Let time pass for the store; really waits unless overridden."""
        await asyncio.sleep(seconds)

    async def clean(self, store: Store) -> None:
        """Remove what a test left behind; the store is open. A store that can't list is left as it is."""
        if self.lists(store):
            await store.delete_all()

    _lists = True
    """Whether the store of the running test lists its keys."""

    def capabilities(self, store: Store) -> Capabilities:
        """Return what the store declares that it can do; the suite holds it to exactly that."""
        return store.capabilities

    # ------------------------------------------------------------------ for the tests

    def lists(self, store: Store) -> bool:
        """Whether the store can list its keys, and delete all of them."""
        return self.capabilities(store).lists

    def handle(self) -> Store:
        """Return another new store on the running test's data, in the suite's namespace."""
        store = self.make_store()
        for name in self.namespaces:
            store = store.with_namespace(name)
        return store

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in an event loop of its own, for `time_limit` at most; no task of the store may fail unseen."""
        unseen: list[str] = []

        def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            unseen.append(f"{context['message']}: {context.get('exception')!r}")

        async def bounded() -> T:
            asyncio.get_running_loop().set_exception_handler(note)
            async with asyncio.timeout(self.time_limit):
                return await self._as_far_as_it_lists(work)

        with limited(self.time_limit), self.runner() as runner:
            result = runner.run(bounded())
        equal(unseen, [], "nothing fails in the background")
        return result

    async def _as_far_as_it_lists(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a test up to the first step that is beyond what the store declares: a list of keys, or a size."""
        try:
            return await work
        except UnsupportedOperationError as error:
            if self._lists or error.operation not in LISTING:
                raise
        except OversizeError:
            pass
        return None  # type: ignore[return-value]  # what is checked afterwards is left out, too

    @contextmanager
    def place(self) -> Iterator[Store]:
        """Give a test its own place and a store in it; afterwards empty and close the store."""
        self.unique = f"t{uuid.uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="storeconf-") as directory:
            self.directory = Path(directory)
            store = self.handle()
            self._lists = self.lists(store)
            try:
                yield store
            except BaseException as error:
                try:
                    self.run(self._leave(store))
                except Exception as later:  # noqa: BLE001 - the test's own error matters more; this one goes with it
                    error.add_note(f"Cleaning up failed as well: {later!r}")
                raise
            self.run(self._leave(store))

    async def _leave(self, store: Store) -> None:
        try:
            async with store:
                await self.clean(store)
        finally:
            await store.aclose()

    async def outlive(self, store: Store, span: float = SHORT) -> None:
        """Wait until everything that was set before with this expiry is over, without touching it.

        A witness that is set now, in a namespace of its own, is asked for until it has expired.
        """
        await self.expires(store.with_namespace("witness"), "witness", span)
        resolution = self.capabilities(store).resolution
        if resolution > _TICK:
            await self.advance(resolution)

    async def expires(self, store: Store, key: str, span: float) -> None:
        """Set the key with an expiry and ask for it until it is gone: neither early nor late."""
        before = self.now()
        await store.set(key, b"expires", expires_in=span)
        late = self.now() + span + self.capabilities(store).resolution + _CLOCKS_DIFFER
        while True:
            asked = self.now()
            if await store.get(key) is None:
                break
            holds(asked <= late, f"an expiry of {span} s ends after {span} s; {asked - before:.3f} s passed")
            await self.advance(_TICK)
        lived = self.now() - before
        holds(lived >= span - 0.002, f"an entry lives for the {span} s of its expiry; it lived {lived:.3f} s")

    async def check_left(self, store: Store, key: str, span: float, since: float, promise: str) -> None:
        """Fail unless ``expires_in`` tells ``span`` less the time since ``since``, in whole seconds rounded up."""
        left = await store.expires_in(key)
        low = math.ceil(span - (self.now() - since) - 0.001)
        high = math.ceil(span + self.capabilities(store).resolution - 0.001)
        within(left, low, high, promise)


def promise(body: Callable[[S, Store], Awaitable[None]]) -> Callable[[S], None]:
    """Make a plain test method of an async one that wants a store which is open."""

    async def opened(suite: S, store: Store) -> None:
        async with store:
            await body(suite, store)

    return _plain(body, opened)


def from_new(body: Callable[[S, Store], Awaitable[None]]) -> Callable[[S], None]:
    """Make a plain test method of an async one that wants a store which was never opened."""
    return _plain(body, body)


def with_others(count: int) -> Callable[[Callable[..., Awaitable[None]]], Callable[[S], None]]:
    """Make a plain test method of an async one that wants new stores: ``count`` more on the same data."""

    def decorate(body: Callable[..., Awaitable[None]]) -> Callable[[S], None]:
        return _plain(body, body, count)

    return decorate


def _plain(
    body: Callable[..., Awaitable[None]], work: Callable[..., Awaitable[None]], others: int = 0
) -> Callable[[Any], None]:
    async def finish(suite: Suite, stores: list[Store]) -> None:
        await work(suite, *stores)

    @functools.wraps(body)
    def test(self: Any) -> None:
        with self.place() as store:
            # All are made outside the event loop, because making one may read files.
            self.run(finish(self, [store, *(self.handle() for _ in range(others))]))

    del test.__dict__["__wrapped__"]  # runners read the signature, and the body's other parameters are no fixtures
    return test


async def all_keys(store: Store, prefix: str = "") -> set[str]:
    """Return the keys of the namespace as a set."""
    return {key async for key in store.keys(prefix)}


def in_child(limit: float, *works: Callable[[], None]) -> None:
    """Run each of ``works`` in a forked process of its own, all at once; fail with what one raised.

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

    Each with the device and inode of what it is: a number is given again as soon as it is free.
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
    """In a forked child: make useless what the parent had opened, so that using it fails instead of mixing things up.

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
