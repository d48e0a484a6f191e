"""What the benchmarks share: contenders in turn within one process, medians, and a table of ratios.

Machines are noisy, so absolute figures mean little: a round measures every contender once, in changing order, and
only ratios within one run count.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

Figures: TypeAlias = dict[str, dict[str, float]]
"""Per contender, per measure: the median."""


Samples: TypeAlias = dict[str, dict[str, list[float]]]
"""Per contender, per measure: the figure of each round."""


@dataclass(frozen=True)
class Spread:
    """What several rounds gave: the median and the quartiles."""

    low: float
    median: float
    high: float
    runs: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Summarize the figures of some rounds."""
        if len(figures) == 1:
            return cls(figures[0], figures[0], figures[0], 1)
        low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
        return cls(low, median, high, len(figures))


async def sample(contenders: Mapping[str, Callable[[], Awaitable[Mapping[str, float]]]], rounds: int) -> Samples:
    """Let each contender measure itself once in each round, in changing order; return all figures."""
    names = list(contenders)
    found: Samples = {name: {} for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            for measure, figure in (await contenders[name]()).items():
                found[name].setdefault(measure, []).append(figure)
    return found


async def compete(
    contenders: Mapping[str, Callable[[], Awaitable[Mapping[str, float]]]], rounds: int, figures: Figures | None = None
) -> Figures:
    """Let each contender measure itself once in each round, in turn; return the medians, added to ``figures``."""
    figures = {} if figures is None else figures
    for name, measures in (await sample(contenders, rounds)).items():
        figures.setdefault(name, {}).update(
            {measure: statistics.median(values) for measure, values in measures.items()}
        )
    return figures


async def nanoseconds(
    call: Callable[..., Awaitable[object]],
    arguments: Sequence[tuple[object, ...]],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Await ``call`` once with each of ``arguments``, one after the other; return nanoseconds per call.

    Where nothing but this thread works, `time.thread_time` as the clock leaves other processes out.
    """
    gc.collect()
    gc.disable()
    try:
        start = clock()
        for each in arguments:
            await call(*each)
        return (clock() - start) / len(arguments) * 1e9
    finally:
        gc.enable()


async def stall(work: Awaitable[object]) -> tuple[float, float]:
    """Await ``work``; return the seconds it took and the longest time that the event loop was kept from other tasks.

    Both in processor time of this thread, so that other processes do not count.
    """
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            worst, last = max(worst, now - last), now

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    start = time.thread_time()
    try:
        await work
    finally:
        took = time.thread_time() - start
        await asyncio.sleep(0)
        watcher.cancel()
    return took, worst


def show(
    title: str, figures: Figures, *, ours: Sequence[str], peers: Sequence[str], more_is_better: Iterable[str] = ()
) -> None:
    """Print the figures, and below them how many times better each of ``ours`` is than each of ``peers``."""
    measures = list(dict.fromkeys(measure for row in figures.values() for measure in row))
    more = set(more_is_better)
    rows = [(name, [_number(row.get(measure)) for measure in measures]) for name, row in figures.items()]
    for name in ours:
        for peer in peers:
            ratios = []
            for measure in measures:
                mine, theirs = figures[name].get(measure), figures[peer].get(measure)
                ratio = (
                    mine / theirs if measure in more and mine and theirs else theirs / mine if mine and theirs else None
                )
                ratios.append("" if ratio is None else f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x")
            rows.append((f"{name} : {peer}", ratios))
    width = max(len(name) for name, _ in rows)
    columns = [max(len(m), *(len(cells[i]) for _, cells in rows)) for i, m in enumerate(measures)]
    print(f"\n{title}\n")
    print(" " * width, *(measure.rjust(column) for measure, column in zip(measures, columns, strict=True)), sep="  ")
    for name, cells in rows:
        print(name.ljust(width), *(cell.rjust(column) for cell, column in zip(cells, columns, strict=True)), sep="  ")


def _number(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.2f}"
