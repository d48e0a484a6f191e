"""One event loop in a background thread, for all threads of the process that have none of their own.

A thread hands it work and waits for the outcome. A forked child makes a loop of its own when it first needs one.

Imports nothing of storeconf but single flight. Longer than other modules, because a thread that waits also runs the
factories that were asked for in it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from asyncio import _get_running_loop
from collections import deque
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from storeconf._single_flight import part_of_flight, running_flight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from storeconf._single_flight import Flight

__all__ = [
    "BackgroundLoop",
    "background_loop",
    "check_thread",
    "close_in_background",
    "drive",
    "factories_here",
    "run_in_background",
]

T = TypeVar("T")


def check_thread() -> None:
    """Raise RuntimeError in a thread that must not wait: one with a running event loop, or with green threads."""
    if _get_running_loop() is not None:
        raise RuntimeError(
            "storeconf.sync would block the event loop that runs in this thread; "
            "use storeconf.load and await the stores' methods"
        )
    modules = sys.modules
    if ("gevent" in modules and _in_gevent()) or ("eventlet" in modules and _in_eventlet()):
        raise RuntimeError(
            "storeconf.sync works under neither gevent nor eventlet: a call would block all green threads"
        )


def _in_gevent() -> bool:
    import gevent  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from gevent import monkey  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return monkey.is_module_patched("threading") or isinstance(gevent.getcurrent(), gevent.Greenlet)


def _in_eventlet() -> bool:
    from eventlet import greenthread, patcher  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return patcher.is_monkey_patched("thread") or isinstance(greenthread.getcurrent(), greenthread.GreenThread)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing in this thread, which has no event loop; giving way is passed over."""
    try:
        while work.send(None) is None:
            pass
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a coroutine's result is untyped
    work.close()
    raise AssertionError("a coroutine that was to wait for nothing waits")


class _FactoryLeftError(Exception):
    """The thread that was to run the factory has left, by KeyboardInterrupt for example. Callers never see it."""


class _FactoryCall:
    """A flight's request to a waiting thread to run its factory."""

    __slots__ = ("answer", "flight")

    def __init__(self, answer: asyncio.Future[Any], flight: Flight | None) -> None:
        self.answer = answer
        self.flight = flight


class _Errand(Generic[T]):
    """Work of one thread in the loop: the thread gets its messages by ``mail``, the outcome last."""

    __slots__ = ("context", "left", "mail", "request", "task", "work")

    def __init__(self) -> None:
        self.work: Awaitable[T] | None = None
        self.context: Context = copy_context()
        self.mail: SimpleQueue[_FactoryCall | tuple[bool, Any]] = SimpleQueue()
        self.task: asyncio.Task[None] | None = None
        self.request: _FactoryCall | None = None
        self.left = False

    async def serve(self) -> None:
        """Do the work and send the outcome. Runs in the loop."""
        assert self.work is not None
        try:
            outcome: tuple[bool, Any] = (True, await self.work)
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            outcome = (False, error)
        self.mail.put(outcome)

    async def ask(self) -> Any:
        """Let the thread run its factory, and return the value. Runs in the loop, as the factory of a flight."""
        if self.left:
            raise _FactoryLeftError
        self.request = _FactoryCall(asyncio.get_running_loop().create_future(), running_flight())
        self.mail.put(self.request)
        return await self.request.answer

    def leave(self) -> None:
        """The thread does not wait any longer. Runs in the loop."""
        self.left = True
        if self.request is not None and not self.request.answer.done():
            self.request.answer.set_exception(_FactoryLeftError())
        if self.task is None:
            self._close()
        else:
            self.task.add_done_callback(lambda _: self._close())
            self.task.cancel()

    def _close(self) -> None:
        """End work that has not begun."""
        if asyncio.iscoroutine(self.work):
            self.work.close()


class BackgroundLoop:
    """An event loop that runs in a thread of its own to the end of the process."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._wake = self._waker()
        self._waiting: deque[_Errand[Any]] = deque()
        self._woken = False
        threading.Thread(target=self._work, name="storeconf", daemon=True).start()

    def _waker(self) -> Callable[[], object]:
        """Return the function that makes the loop call `_begin`, from any thread.

        By a descriptor of its own where there are eventfds: `call_soon_threadsafe` makes a handle in the thread, and
        has the loop read its pipe until that is empty, which is a tenth of a call to a server nearby.
        """
        if not hasattr(os, "eventfd"):
            return partial(self.loop.call_soon_threadsafe, self._begin)
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

        def woken() -> None:
            os.eventfd_read(descriptor)
            self._begin()

        self.loop.add_reader(descriptor, woken)
        return partial(os.eventfd_write, descriptor, 1)

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Awaitable[T]) -> T:
        """Await ``work`` in the loop, in this thread's context, and return its result or raise its error."""
        errand: _Errand[T] = _Errand()
        errand.work = work
        return self._wait(errand, None)

    def get_or_set(
        self, compute: Callable[[Callable[[], Awaitable[Any]]], Awaitable[T]], factory: Callable[[], Any]
    ) -> T:
        """Run ``compute``, a `get_or_set` that takes a factory, in the loop, and ``factory`` in this thread.

        If another thread runs its factory for the same key and leaves before it has ended, this one computes instead.
        """
        while True:
            errand: _Errand[T] = _Errand()
            errand.work = compute(errand.ask)
            try:
                return self._wait(errand, factory)
            except _FactoryLeftError:
                continue

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Let ``work`` be done in the loop; nobody waits for it."""
        errand: _Errand[object] = _Errand()
        errand.work = work
        self._hand_over(errand)

    def _hand_over(self, errand: _Errand[Any]) -> None:
        self._waiting.append(errand)
        # One that sees it woken has appended before the loop looks: it takes the mark away first.
        if not self._woken:
            self._woken = True
            self._wake()

    def _wait(self, errand: _Errand[T], factory: Callable[[], Any] | None) -> T:
        mail = errand.mail
        try:
            self._hand_over(errand)
            while True:
                letter = mail.get()
                if letter.__class__ is tuple:
                    break
                assert isinstance(letter, _FactoryCall)
                assert factory is not None
                self._answer(letter, factory)
        except BaseException:  # the exception of a signal's handler, or a factory's that ends the thread
            self.loop.call_soon_threadsafe(self._abandon, errand)
            raise
        done, outcome = letter
        if done:
            return outcome  # type: ignore[no-any-return]
        try:
            raise outcome
        finally:
            del outcome, letter, errand  # which would keep each other alive through the traceback

    def _begin(self) -> None:
        """Begin the work that threads have handed over. Runs in the loop."""
        self._woken = False
        waiting, loop = self._waiting, self.loop
        while waiting:
            errand = waiting.popleft()
            if errand.left:
                continue
            errand.task = loop.create_task(errand.serve(), context=errand.context)

    def _abandon(self, errand: _Errand[Any]) -> None:
        errand.leave()
        self._begin()  # which a signal may have kept the thread from asking for

    def _answer(self, request: _FactoryCall, factory: Callable[[], Any]) -> None:
        try:
            with part_of_flight(request.flight):
                made = factory()
            if inspect.isawaitable(made):
                if inspect.iscoroutine(made):
                    made.close()
                raise TypeError("a factory of storeconf.sync is a plain function, not a coroutine function")
        except StopIteration as error:
            failure: Exception = RuntimeError("the factory raised StopIteration")
            failure.__cause__ = error
            self.loop.call_soon_threadsafe(_fail, request.answer, failure)
        except Exception as error:  # noqa: BLE001 - all that wait for the value get it, this thread too
            self.loop.call_soon_threadsafe(_fail, request.answer, error)
        else:
            self.loop.call_soon_threadsafe(_settle, request.answer, made)


def _settle(answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():  # as it is when the flight was ended meanwhile
        answer.set_result(value)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


# ---------------------------------------------------------------- threads that have an event loop


class LoopFactories:
    """Runs factories in the thread of an event loop, for flights in the background loop.

    If a call without ``await`` keeps that thread waiting, it runs them meanwhile: its flight may need one of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._asked: deque[Callable[[], None]] = deque()
        self._bells: list[SimpleQueue[object]] = []  # of the calls that keep the thread waiting

    async def get_or_set(
        self, compute: Callable[[Callable[[], Awaitable[Any]]], Awaitable[T]], factory: Callable[[], Any]
    ) -> T:
        """See `BackgroundLoop.get_or_set`; for coroutines of this loop, in which ``factory`` runs."""
        while True:
            request = _LoopRequest(self, factory)
            try:
                return await asyncio.wrap_future(request.begin(compute))
            except _FactoryLeftError:
                if request.failure is not None:
                    raise request.failure from None
            finally:
                request.end()

    def wait(self, compute: Callable[[Callable[[], Awaitable[Any]]], Awaitable[T]], factory: Callable[[], Any]) -> T:
        """The same without ``await``: the loop is blocked meanwhile."""
        while True:
            request = _LoopRequest(self, factory)
            bell: SimpleQueue[object] = SimpleQueue()
            self._bells.append(bell)
            try:
                work = request.begin(compute)
                work.add_done_callback(bell.put)
                while not work.done():
                    self._run_asked()
                    bell.get()
                return work.result()
            except _FactoryLeftError:
                if request.failure is not None:
                    raise request.failure from None
            finally:
                self._bells.remove(bell)
                request.end()

    def ask(self, work: Callable[[], None]) -> None:
        """Have the thread do ``work`` soon. For any thread; RuntimeError if the loop is closed."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        self._asked.append(work)
        loop.call_soon_threadsafe(self._run_asked)
        for bell in tuple(self._bells):
            bell.put(None)

    def _run_asked(self) -> None:
        while self._asked:
            self._asked.popleft()()


class _LoopRequest:
    """One call of `get_or_set` in a thread that has an event loop."""

    def __init__(self, thread: LoopFactories, factory: Callable[[], Any]) -> None:
        self._thread = thread
        self._factory = factory
        self._context = copy_context()
        self._work: Future[Any] | None = None
        self._made: list[Future[Any]] = []
        self._ended = False
        self.failure: BaseException | None = None
        """The factory's exception, if it is for nobody else: each of the others runs its own."""

    def begin(self, compute: Callable[[Callable[[], Awaitable[Any]]], Awaitable[T]]) -> Future[T]:
        """Let the background loop compute."""
        self._work = work = asyncio.run_coroutine_threadsafe(_awaited(compute(self._ask)), background_loop().loop)
        return work

    def end(self) -> None:
        """Nobody waits any longer."""
        self._ended = True  # before it looks for requests: a requester looks afterwards
        if self._work is not None:
            self._work.cancel()
        for made in self._made:
            made.cancel()  # unless it has run

    async def _ask(self) -> Any:
        made: Future[Any] = Future()
        self._made.append(made)
        if self._ended:  # the loop may end without having run the request
            raise _FactoryLeftError
        try:
            self._thread.ask(partial(self._context.run, self._make, made, running_flight()))
        except RuntimeError as error:  # the loop is closed
            raise _FactoryLeftError from error
        try:
            return await asyncio.wrap_future(made)
        except asyncio.CancelledError:
            if made.cancelled():
                raise _FactoryLeftError from None
            raise

    def _make(self, made: Future[Any], flight: Flight | None) -> None:
        if not made.set_running_or_notify_cancel():
            return
        try:
            with part_of_flight(flight):
                value = self._factory()
        except StopIteration as error:  # which no future takes
            made.set_exception(RuntimeError(f"the factory raised {error!r}"))
        except Exception as error:  # noqa: BLE001 - all that wait for the value get it
            made.set_exception(error)
        except BaseException as error:
            self.failure = error
            made.set_exception(_FactoryLeftError())
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            made.set_result(value)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopFactories] = WeakKeyDictionary()


def factories_here() -> LoopFactories:
    """Return the runner of factories in this thread, which has a running event loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = LoopFactories(loop)
    return found


# ---------------------------------------------------------------- the loop of a process


_shared: BackgroundLoop | None = None
_lock = threading.Lock()
_inherited: list[BackgroundLoop] = []
"""In a forked child: the loops of its parents, which must not be closed: closing would disturb the parent's."""


def background_loop() -> BackgroundLoop:
    """Return the loop that all threads of this process share."""
    global _shared
    shared = _shared
    if shared is None:
        with _lock:
            if _shared is None:
                _shared = BackgroundLoop()
            shared = _shared
    return shared


def run_in_background(work: Awaitable[T]) -> T:
    """Await ``work`` in the shared loop."""
    return background_loop().run(work)


def close_in_background(closing: Coroutine[Any, Any, None]) -> None:
    """Await the closing of a store in the shared loop, or here if this process has not begun that loop.

    Nothing has been opened in it then, and at the end of a process Python 3.12 and later start no thread for it.
    """
    if _shared is not None:
        run_in_background(closing)
        return
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(closing)
    finally:
        loop.close()


def _after_fork() -> None:
    global _shared, _lock
    _lock = threading.Lock()
    if _shared is not None:
        _inherited.append(_shared)
        _shared = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
