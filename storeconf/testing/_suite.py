"""The ground under the conformance suite: assertions, a time limit, its hooks, its clock, and the running of one test.

The assertions work under any runner, also with ``python -O``: they tell the promise and the actual result.
``__tracebackhide__`` keeps them out of pytest's reports. The time limit also ends code which never gives way to its
event loop. Imports no test runner.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import inspect
import math
import reprlib
import signal
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from storeconf.errors import UnsupportedOperationError
from storeconf.operations import LISTING
from storeconf.store import OversizeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
    from types import FrameType

    from storeconf import Capabilities, Store


S = TypeVar("S", bound="Suite")
T = TypeVar("T")

SHORT = 0.05
"""An expiry, in seconds, that a test waits for."""

LONG = 3600
"""An expiry, in seconds, that no test lives to see."""

_TICK = 0.004
_CLOCKS_DIFFER = 0.05


class Suite:
    """The attributes and methods that a test author may override; only `make_store` must be overridden."""

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
        """Remove the entries that a test left behind; the store is open. A store that can't list is left as it is."""
        if self.lists(store):
            await store.delete_all()

    _lists = True
    """Whether the store of the running test lists its keys."""

    def capabilities(self, store: Store) -> Capabilities:
        """Return the capabilities that the store declares; the suite holds it to exactly these."""
        return store.capabilities

    # ------------------------------------------------------------------ for the tests

    def lists(self, store: Store) -> bool:
        """Whether the store can list its keys, and delete all of them."""
        return self.capabilities(store).lists

    def takes(self, store: Store, key: str) -> bool:
        """Whether the store's keys may be as long as this one, its namespace path included."""
        most = self.capabilities(store).max_key_size
        return most is None or len("::".join(filter(None, (store.namespace, key))).encode(errors="replace")) <= most

    def fitting(self, store: Store, size: int) -> int:
        """Return the size, or the largest one that the store's values may have."""
        most = self.capabilities(store).max_value_size
        return size if most is None else min(size, most)

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
        """Run a test; one that needs a capability which the store lacks, a list of keys or a size, ends there."""
        try:
            return await work
        except UnsupportedOperationError as error:
            if self._lists or error.operation not in LISTING:
                raise
        except OversizeError:
            pass
        return None  # type: ignore[return-value]  # later checks are left out, too

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

    async def within_span(self, span: float, work: Callable[[float], Awaitable[object]]) -> float:
        """Do ``work``, which sets something with an expiry and goes on while that lives; return the expiry.

        Where the store takes so long that it may have ended meanwhile, all is done again with twice the expiry.
        """
        while True:
            since = self.now()
            await work(span)
            if self.now() - since < span - 0.002:
                return span
            span *= 2

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


async def check_keys(store: Store, expected: Collection[str], promise: str) -> None:
    """Fail unless the namespace has exactly these keys, or, where the store can't list them, these at least."""
    if store.capabilities.lists:
        equal(await all_keys(store), set(expected), promise)
    else:
        equal(set(await store.get_many(expected)), set(expected), promise)


# ---------------------------------------------------------------- assertions


E = TypeVar("E", bound=BaseException)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxdict = _short.maxset = _short.maxlist = 12


def equal(actual: object, expected: object, promise: str) -> None:
    """Fail unless ``actual`` equals ``expected`` and is of the same type: 1 is not True, a bytearray not bytes."""
    __tracebackhide__ = True
    if type(actual) is not type(expected) or actual != expected:
        raise AssertionError(f"{promise}: expected {_short.repr(expected)}, got {_short.repr(actual)}")


def within(actual: object, low: float, high: float, promise: str) -> None:
    """Fail unless ``actual`` is a whole number from ``low`` to ``high``."""
    __tracebackhide__ = True
    if not isinstance(actual, int) or isinstance(actual, bool) or not low <= actual <= high:
        raise AssertionError(f"{promise}: expected an int from {low:g} to {high:g}, got {_short.repr(actual)}")


def holds(condition: object, promise: str) -> None:
    """Fail unless ``condition`` is true."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(f"{promise}: it does not")


def told(actual: object, expected: object, promise: str) -> None:
    """Fail unless ``actual`` equals ``expected``, or is None because the backend cannot tell."""
    __tracebackhide__ = True
    if actual is not None:
        equal(actual, expected, promise)


async def returns_none(call: Awaitable[object], promise: str) -> None:
    """Fail unless the result of the awaitable is None."""
    __tracebackhide__ = True
    equal(await call, None, promise)


async def raises(expected: type[E], call: Callable[..., Any], *arguments: object, **named: object) -> E:
    """Call, await the result, and return the error; fail if it is another one or none."""
    __tracebackhide__ = True
    shown = [*map(_short.repr, arguments), *(f"{name}={_short.repr(value)}" for name, value in named.items())]
    text = f"{getattr(call, '__name__', 'the call')}({', '.join(shown)})"
    try:
        result = call(*arguments, **named)
        if inspect.isawaitable(result):
            result = await result
    except expected as error:
        return error
    except Exception as error:
        raise AssertionError(f"{text}: expected {expected.__name__}, got {error!r}") from error
    raise AssertionError(f"{text}: expected {expected.__name__}, got the result {_short.repr(result)}")


# ---------------------------------------------------------------- a time limit


_GRACE = 0.5
"""Seconds that asyncio's own timeout, whose message is better, gets before this one."""

_AGAIN = 0.5
"""Seconds after which code that goes on all the same is interrupted again."""

_FRAMES = 3
"""How many of the innermost calls the message names."""


class OvertimeError(TimeoutError):
    """The time limit is over, and the code that runs does not give way to the event loop."""


class _Overtime(BaseException):
    """Raised in the running code when the time is over; no ``except Exception`` of a store catches it."""


class _Watch:
    """Records the place of the code that took too long."""

    place: str | None = None

    def note(self, frame: FrameType | None) -> None:
        if self.place is None:
            calls: list[str] = []
            while frame is not None and len(calls) < _FRAMES:
                calls.append(f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})")
                frame = frame.f_back
            self.place = "".join(f" in {call}" for call in calls)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OvertimeError` if the block runs longer than this, even if it blocks the event loop.

    Interrupts pure Python everywhere; in the main thread also calls that block, such as ``time.sleep``.
    """
    watch = _Watch()
    in_main_thread = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    try:
        with (_by_signal if in_main_thread else _by_thread)(seconds + _GRACE, watch):
            yield
    except BaseException as error:
        if watch.place is None:
            raise
        raise OvertimeError(
            f"the test did not end within its time limit of {seconds:g} s: the event loop was blocked{watch.place}"
        ) from error


@contextmanager
def _by_signal(seconds: float, watch: _Watch) -> Iterator[None]:
    began = time.monotonic()
    theirs, interval = signal.getitimer(signal.ITIMER_REAL)
    if 0 < theirs < seconds:  # the test runner's own limit ends sooner
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        watch.note(frame)
        with suppress(RuntimeError):  # no event loop runs
            for task in asyncio.all_tasks():  # those that have not begun would only take their turn
                task.cancel()
        raise _Overtime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if theirs:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, theirs - (time.monotonic() - began)), interval)


@contextmanager
def _by_thread(seconds: float, watch: _Watch) -> Iterator[None]:
    """For other threads than the main one: a thread that raises the exception in this one."""
    thread, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def interrupt() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    watch.note(sys._current_frames().get(thread))  # noqa: SLF001 - CPython's documented name
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Overtime))
            wait = _AGAIN

    watcher = threading.Thread(target=interrupt, name="storeconf-time-limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            over.set()
        watcher.join()
