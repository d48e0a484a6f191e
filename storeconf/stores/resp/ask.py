"""Asking several servers for the same: the first answer counts, and one that hangs holds up nobody for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from storeconf.stores.resp.errors import LinkError, ReplyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["NobodyAnswersError", "first_answer"]

PATIENCE = 0.2
"""Seconds after which another server is asked as well."""

S = TypeVar("S")
T = TypeVar("T")


class NobodyAnswersError(Exception, Generic[S]):
    """All were asked in vain; ``failures`` says of each why."""

    def __init__(self, failures: list[tuple[S, Exception]]) -> None:
        super().__init__("nobody answers")
        self.failures = failures


async def first_answer(servers: Sequence[S], ask: Callable[[S], Awaitable[T]]) -> tuple[S, T]:
    """Ask one after the other, without waiting long for any; return who answered first, and what."""
    waiting = list(servers)
    asked: dict[asyncio.Task[T], S] = {}
    failures: list[tuple[S, Exception]] = []
    try:
        while waiting or asked:
            if waiting:
                server = waiting.pop(0)
                asked[asyncio.ensure_future(_asking(ask, server))] = server
            done, _ = await asyncio.wait(
                asked, timeout=PATIENCE if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                server = asked.pop(task)
                try:
                    return server, task.result()
                except (OSError, LinkError, ReplyError) as error:
                    failures.append((server, error))
        raise NobodyAnswersError(failures)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _asking(ask: Callable[[S], Awaitable[T]], server: S) -> T:
    return await ask(server)
