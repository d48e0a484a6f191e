"""Long loops that give way to the event loop. Imports nothing of storeconf."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FEW", "Pace", "batches", "few", "in_batches"]

T = TypeVar("T")

FEW = 512
"""Items that are handled without a look at the clock, where each takes a few microseconds at most."""

_STEP = 0.005
"""Seconds that a loop may hold the event loop: others wait for no longer than a few of these."""


class Pace:
    """Tells a loop when to give way to the event loop: ``if pace.due(): await pace.rest()``."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = monotonic() + _STEP

    def due(self) -> bool:
        """Whether the loop has run for long enough."""
        return monotonic() >= self._until

    async def rest(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)
        self._until = monotonic() + _STEP


def few(items: Iterable[object]) -> bool:
    """Whether the items are so few that a loop over them needs no pace. What has no length may be many."""
    try:
        return len(items) <= FEW  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return the items, `FEW` at a time."""
    return (items[start : start + FEW] for start in range(0, len(items), FEW))


async def in_batches(items: Sequence[T], work: Callable[[Sequence[T]], None]) -> None:
    """Do the work on all items; if there are many, `FEW` at a time, and let others run in between."""
    if len(items) <= FEW:
        work(items)
        return
    pace = Pace()
    for batch in batches(items):
        work(batch)
        if pace.due():
            await pace.rest()
