"""Assertions that work under any runner, also with ``python -O``: they say what was promised and what came instead.

``__tracebackhide__`` keeps these functions themselves out of pytest's reports. A time limit also ends code which never
gives way to its event loop. Imports nothing of storeconf.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import reprlib
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

__all__ = ["OvertimeError", "limited"]

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
    """Fail unless what is awaited is None."""
    __tracebackhide__ = True
    equal(await call, None, promise)


async def raises(expected: type[E], call: Callable[..., Any], *arguments: object, **named: object) -> E:
    """Call, await what comes back, and return the error; fail if it is another one or none."""
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
    """What is raised in the code that runs; no ``except Exception`` of a store catches it."""


class _Watch:
    """What is known of the code that took too long."""

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
    """Raise `OvertimeError` if the block runs longer than this, whatever it does meanwhile.

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
