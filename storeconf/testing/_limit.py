"""A time limit that also ends code which never gives way to its event loop. Imports nothing of storeconf."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["OvertimeError", "limited"]

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
