"""`storeconf ping`: one real round trip to every store."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.output import columns, data, emit_json, escaped, heading, lines, readable_time, style
from storeconf.plan import HIDDEN_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.layout import Layout
    from storeconf.plan import Plan
    from storeconf.store import PingResult

__all__ = ["ping_command"]


@click.command("ping")
@format_option("text", "json")
@on_layout()
def ping_command(source: Source, form: str) -> None:
    """Do one real round trip to every store.

    All at once. Shows how long each took, and the server's version, topology and TLS. The status is 1 when one does
    not answer.
    """
    layout = source.layout()
    plan = layout.plan()
    results = asyncio.run(_ping(layout, plan))
    if form == "json":
        found = [
            {
                "store": name,
                "ok": result.ok,
                "latency": result.latency,
                "server": result.server,
                "error": result.error,
            }
            for name, result in results.items()
        ]
        emit_json({"environment": layout.environment, "ping": found})
    else:
        data(heading(layout))
        lines(columns(_rows(plan, results)))
    if not all(result.ok for result in results.values()):
        raise SystemExit(1)


_OUR_ERROR = re.compile(r"^Store\w*Error: ")
"""What programs need to know of an error, and people do not."""


async def _ping(layout: Layout, plan: Plan) -> dict[str, PingResult]:
    """The results by name. Every store opens by itself, so that one that can't keeps no other from its turn."""
    registry = layout.compile()
    logger = logging.getLogger("storeconf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the results tell the same
    try:
        results = await registry.ping()
        if plan.default_factory is not None and plan.default_factory.kind == "root":
            results[HIDDEN_ROOT] = await registry.get("storeconf-ping").ping()
    finally:
        await registry.aclose()
        logger.setLevel(level)
    return results


def _rows(plan: Plan, results: dict[str, PingResult]) -> Iterator[list[str]]:
    roots = {step.name: step.root for step in plan.steps}
    said = set()
    for name, result in results.items():
        about = result.server if result.ok else _OUR_ERROR.sub("", result.error or "")
        place = (roots.get(name, name), about)
        if place in said:  # once for all stores of one root
            about = None if result.ok else style("the same", dim=True)
        elif about is not None:
            about = escaped(about)
        said.add(place)
        took = readable_time(timedelta(seconds=result.latency)) if result.ok and result.latency is not None else ""
        state = style("ok", fg="green") if result.ok else style("failed", fg="red", bold=True)
        yield [state, style(name, bold=True), took.rjust(8), about or ""]
