"""Reading and loading a layout against the bare parsers, and importing: ``python benchmarks/loading.py``.

1,000 stores of 10 keys, as YAML, TOML and JSON. The parsers give values and no places; storeconf's readers check for
repeated keys, depth, size and foreign values as well, and know every place when asked.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._harness import compete, show
from storeconf.config.document import parse
from storeconf.layout import read_layout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf.config.language import Format
    from storeconf.layout import Layout

STORES = 1_000
ROUNDS = 9


def server(number: int) -> dict[str, Any]:
    """A root with ten keys."""
    return {
        "type": "redis",
        "url": f"redis://host{number}.example.com:6379/{number % 16}",
        "namespace": f"shop{number}",
        "description": f"The store number {number}",
        "command_timeout": "5s",
        "connect_timeout": 2.5,
        "max_connections": number + 1,
        "retries": 3,
        "tls": True,
        "client_name": f"user-{number}",
    }


def stores(count: int) -> dict[str, dict[str, Any]]:
    """Stores as a layout has them, ten keys each."""
    return {f"store{number}": server(number) for number in range(count)}


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


def mixed(count: int) -> dict[str, dict[str, Any]]:
    """Stores of ten values each, of the kinds that layouts mix: roots on three backends, and children."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(count):
        described = {"description": f"The store number {number}"}
        chain = {
            "ttl": {"default": "15m", "max": "1d", "jitter": 0.1},
            "limit": {"value_size": "1MiB", "key_size": 512},
        }
        if number % 4 == 0:
            root = {"type": "memory", "namespace": "shop", "max_entries": 1000 + number, "max_size": "64MiB"}
            found[f"store{number}"] = {**root, **described, "middleware": chain}
        elif number % 4 == 1:
            root = {"type": "file", "path": f"var/{number}", "create": True, "durability": "fsync"}
            found[f"store{number}"] = {**root, **described, "middleware": chain}
        elif number % 4 == 2:
            found[f"store{number}"] = server(number)
        else:
            child = {"parent": f"store{number - 3}", "namespace": f"n{number}"}
            found[f"store{number}"] = {**child, **described, "middleware": {**chain, "read_only": True, "retry": 2}}
    return found


PARSERS: dict[Format, Callable[[str], object]] = {
    "yaml": lambda text: yaml.load(text, Loader=yaml.CSafeLoader),
    "toml": tomllib.loads,
    "json": json.loads,
}
RENDERERS: dict[Format, Callable[[object], str]] = {
    "yaml": lambda content: yaml.safe_dump(content, sort_keys=False),
    "toml": tomli_w.dumps,  # type: ignore[dict-item]  # it takes mappings, and is given some
    "json": lambda content: json.dumps(content, indent=2),
}


@dataclass
class Case:
    """One layout in one format: its files, what is loaded, and per round the milliseconds of each step."""

    name: str
    format: Format
    texts: dict[str, str]
    load: Callable[[], Layout]
    figures: dict[str, list[float]] = field(default_factory=lambda: {"parser": [], "load": [], "compile": []})

    def measure(self) -> None:
        parse, made = PARSERS[self.format], []
        self.figures["parser"].append(milliseconds(lambda: [parse(text) for text in self.texts.values()]))
        self.figures["load"].append(milliseconds(lambda: made.append(self.load())))
        self.figures["compile"].append(milliseconds(made[0].compile))

    def row(self) -> list[str]:
        parser, load, compile = (self.figures[step] for step in ("parser", "load", "compile"))
        whole = [a + b for a, b in zip(load, compile, strict=True)]
        shares = [statistics.median(a / b for a, b in zip(each, parser, strict=True)) for each in (load, whole)]
        times = [f"{statistics.median(each):.1f}" for each in (parser, load, whole)]
        goal = {"yaml": "1.5 x", "toml": "2 x", "json": ""}[self.format]
        return [self.name, self.format, *times, *(f"{share:.2f} x" for share in shares), goal]


def load() -> None:
    """Loading whole: one file, and three layers with 100 variables, read, located, validated, planned and compiled."""
    again = {"stores": {f"store{number}": {"description": f"Again {number}"} for number in range(STORES)}}
    tree = {"stores": mixed(STORES)}
    variables = {f"STORECONF__STORES__STORE{number * 4}__MAX_ENTRIES": str(number + 1) for number in range(100)}
    layouts: dict[str, dict[str, object]] = {
        "servers, 10 keys": {"": {"stores": stores(STORES)}},
        "mixed, chains": {"": tree},
        "3 layers, 100 variables": {"": {**tree, "environments": {"e": again}}, ".e": again},
    }
    cases = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, contents) in enumerate(layouts.items()):
            for form in PARSERS:
                texts = {key: RENDERERS[form](content) for key, content in contents.items()}
                stem = Path(temporary) / f"{form}{number}"
                for key, text in texts.items():
                    Path(f"{stem}{key}.{form}").write_text(text, encoding="utf-8")
                layered = len(contents) > 1
                reading = partial(
                    read_layout,
                    f"{stem}.{form}",
                    environment="e" if layered else None,
                    environ=variables if layered else {},
                )
                cases.append(Case(name, form, texts, reading))
        for number in range(ROUNDS):
            for case in cases[number % len(cases) :] + cases[: number % len(cases)]:
                case.measure()
    heads = ["", "", "parser", "load", "and compile", "load : parser", "and compile", "goal"]
    rows = [heads, *(case.row() for case in cases)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{STORES:,} stores, loaded and compiled: milliseconds of processor time, and how many times the parser's")
    print("that is (the rounds' median; the other tables' ratios say how many times as fast)\n")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


async def importing() -> None:
    """Importing in a process of its own, milliseconds of processor time of the whole process."""
    import resource
    import subprocess

    programs = {
        "nothing": "pass",
        "yaml, and pydantic with one model": "import yaml, pydantic\nclass M(pydantic.BaseModel):\n    a: int",
        "storeconf": "import storeconf",
        "storeconf.stores.MemoryStore": "from storeconf.stores import MemoryStore",
        "storeconf.load": "import storeconf; storeconf.load",
        "storeconf, a small layout loaded": "import storeconf; storeconf.load({'stores': {'a': {'type': 'memory'}}})",
    }

    def run(program: str) -> Callable[[], Awaitable[dict[str, float]]]:
        async def measure() -> dict[str, float]:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True)  # noqa: ASYNC221 - nothing else runs here
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return {"ms": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3}

        return measure

    figures = await compete({name: run(program) for name, program in programs.items()}, ROUNDS)
    peers = ["yaml, and pydantic with one model"]
    show("Importing", figures, ours=["storeconf", "storeconf.stores.MemoryStore", "storeconf.load"], peers=peers)


if __name__ == "__main__":
    asyncio.run(main())
    load()
    asyncio.run(importing())
