"""Waiting until ``mirror`` has repeated everything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from storeconf import MirrorReport, Store, mirror_report

if TYPE_CHECKING:
    from collections.abc import Callable


def report_of(store: Store) -> MirrorReport:
    """What the ``mirror`` of a store has counted."""
    report = mirror_report(store)
    assert report is not None
    return report


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def repeated(store: Store) -> MirrorReport:
    """Wait until no call of the store waits to be repeated; return what was counted."""
    await until(lambda: not report_of(store).pending)
    return report_of(store)
