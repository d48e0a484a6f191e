"""Draws the points that the chapters measured, as SVG files for the documentation, with matplotlib."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.goals import Panel

PLOTS = {
    "throughput": "Throughput by tasks",
    "latency": "Latency percentiles",
    "memory": "Memory by entries",
    "entries": "Cost of a call by entries",
    "loading": "Loading by stores",
    "chains": "Near cache and chains",
}
"""The plots, in the order of the page."""

_ORDER = ("storeconf", "Litestar", "redis-py", "valkey-glide", "bare link", "floor", "cashews", "aiocache")
"""Contenders whose color is the same in all panels; the others get those that are left."""

mpl.rcParams.update({"svg.hashsalt": "storeconf", "svg.fonttype": "none", "font.size": 9})


def draw(panels: Sequence[Panel], directory: Path) -> list[str]:
    """Write a file for each plot that has panels; return their names in the order of the page."""
    by_file = sorted(panels, key=lambda panel: list(PLOTS).index(panel.file))
    drawn = []
    for name, group in groupby(by_file, key=lambda panel: panel.file):
        several = list(group)
        rows = math.ceil(len(several) / 2)
        columns = min(2, len(several))
        figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
        for number, panel in enumerate(several, 1):
            axes = figure.add_subplot(rows, columns, number)
            if panel.x:
                _lines(axes, panel)
            else:
                _bars(axes, panel)
            axes.set_title(panel.title)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        drawn.append(name)
    return drawn


def _lines(axes: Axes, panel: Panel) -> None:
    positions = sorted({x for points in panel.lines.values() for x, _ in points})
    known = [each for each in _ORDER if each in panel.lines]
    others = iter(f"C{number}" for number in range(10) if number >= len(_ORDER) or not known)
    for name, points in panel.lines.items():
        ours = name.startswith("storeconf")
        color = f"C{_ORDER.index(name)}" if name in known else next(others, None)
        x, y = zip(*sorted(points), strict=True)
        if panel.x == "percentile":
            x = tuple(positions.index(each) for each in x)
        axes.plot(
            x,
            y,
            marker="o",
            markersize=3,
            linewidth=2.2 if ours else 1.1,
            label=name,
            color=color,
            zorder=3 if ours else 2,
        )
    if panel.x == "percentile":
        axes.set_xticks(range(len(positions)), [f"p{each:g}" for each in positions])
    else:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7)


def _bars(axes: Axes, panel: Panel) -> None:
    names = list(panel.lines)
    figures = [panel.lines[name][0][1] for name in names]
    bars = axes.barh(names, figures, color=["C0" if name.startswith("storeconf") else "C7" for name in names])
    axes.bar_label(bars, fmt="{:,.2f}", padding=3, fontsize=7)
    if min(figures) > 0 and max(figures) > 30 * min(figures):
        axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set_xlabel(panel.y)
