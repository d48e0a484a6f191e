"""Blocking work in threads of its own, for asyncio's default executor belongs to the application."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OwnThread"]

T = TypeVar("T")


class OwnThread(Generic[T]):
    """Does one piece of blocking work in a thread of its own, never twice at a time.

    Work that hangs, on a file system that is gone for example, holds one daemon thread, however often it is asked for:
    whoever comes meanwhile waits for the same run.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._name = name
        self._running: Future[T] | None = None
        self._process = 0

    async def run(self) -> T:
        """Return what the work returns, or raise what it raises. Being cancelled does not end the work."""
        running = self._running
        # A forked child inherits what was under way, but not the thread.
        if running is None or running.done() or self._process != os.getpid():
            running, self._process = Future(), os.getpid()
            running.set_running_or_notify_cancel()
            self._running = running
            threading.Thread(target=self._do, args=(running,), name=self._name, daemon=True).start()
        return await asyncio.wrap_future(running)

    def _do(self, running: Future[T]) -> None:
        try:
            running.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
            running.set_exception(error)
