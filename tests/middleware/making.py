"""Middleware made and put around a store without a layout, for tests."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from storeconf import MemoryStore, Store
from storeconf.plugin import BuildContext, Middleware

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def context(**stores: Store) -> BuildContext:
    return BuildContext(name="tested", environment=None, store=stores.__getitem__)


M = TypeVar("M", bound=Middleware)


def made(kind: type[M], **settings: Any) -> M:
    """A middleware from settings as a layout writes them."""
    return kind(**settings)


def wrapped(middleware: Middleware, inner: Store | None = None, **stores: Store) -> Any:
    return middleware.wrap(MemoryStore() if inner is None else inner, context(**stores))


async def longest_step(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run the work beside a task that does nothing; return its result, and the longest time that the task waited."""
    longest, done = 0.0, False

    async def wait() -> None:
        nonlocal longest
        while not done:
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begun)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    try:
        result = await work
    finally:
        done = True
        await waiting
    return result, longest
