"""Reading a layout against the bare parsers: ``python benchmarks/loading.py``.

1,000 stores of 10 keys, as YAML, TOML and JSON. The parsers give values and no places; storeconf's readers check for
repeated keys, depth, size and foreign values as well, and know every place when asked.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from storeconf.config.document import Format, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STORES = 1_000
ROUNDS = 9


def stores(count: int) -> dict[str, dict[str, Any]]:
    """Stores as a layout has them, ten keys each."""
    return {
        f"store{number}": {
            "type": "redis",
            "url": f"redis://host{number}.example.com:6379/{number % 16}",
            "namespace": f"shop{number}",
            "description": f"The store number {number}",
            "command_timeout": "500ms",
            "connect_timeout": 2.5,
            "max_connections": number + 1,
            "retries": 3,
            "tls": True,
            "username": f"user-{number}",
        }
        for number in range(count)
    }


def texts(count: int) -> dict[Format, str]:
    """The same stores in each format, as people write them."""
    blocks = ["stores:\n"]
    tables = []
    for name, fields in stores(count).items():
        blocks.append(f"  {name}:\n")
        tables.append(f"\n[stores.{name}]\n")
        for key, value in fields.items():
            written = json.dumps(value)
            blocks.append(f"    {key}: {value if isinstance(value, str) else written}\n")
            tables.append(f"{key} = {written}\n")
    return {
        "yaml": "".join(blocks),
        "toml": "".join(tables)[1:],
        "json": json.dumps({"stores": stores(count)}, indent=2),
    }


def milliseconds(call: Callable[[], object]) -> float:
    gc.collect()
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


def one(form: str, call: Callable[[], object]) -> Callable[[], Awaitable[dict[str, float]]]:
    """A contender that measures itself by one call."""

    async def measure() -> dict[str, float]:
        return {form: milliseconds(call)}

    return measure


async def main() -> None:
    written = texts(STORES)
    data = {form: text.encode() for form, text in written.items()}
    assert all(parse(data[form], form, "a").value == {"stores": stores(STORES)} for form in data)

    async def read() -> dict[str, float]:
        return {form: milliseconds(lambda form=form: parse(data[form], form, "a")) for form in data}

    async def locate() -> dict[str, float]:
        def last(form: Format) -> None:
            parse(data[form], form, "a").location(("stores", f"store{STORES - 1}", "url"))

        return {form: milliseconds(lambda form=form: last(form)) for form in data}

    figures = await compete(
        {
            "parser alone": one("yaml", lambda: yaml.load(written["yaml"], Loader=yaml.CSafeLoader)),
            "tomllib": one("toml", lambda: tomllib.loads(written["toml"])),
            "json": one("json", lambda: json.loads(written["json"])),
            "storeconf, read": read,
            "storeconf, read and one place asked for": locate,
        },
        ROUNDS,
    )
    figures["parser alone"].update(figures.pop("tomllib"))
    figures["parser alone"].update(figures.pop("json"))
    show(
        f"{STORES:,} stores of 10 keys, milliseconds of processor time (parser: CSafeLoader, tomllib, json)",
        figures,
        ours=["storeconf, read", "storeconf, read and one place asked for"],
        peers=["parser alone"],
    )


if __name__ == "__main__":
    asyncio.run(main())
