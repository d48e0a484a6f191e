"""Reading and loading a layout against the bare parsers, and importing: ``python benchmarks/loading.py``.

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
from storeconf.layout import read_layout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STORES = 1_000
ROUNDS = 9


def server(number: int) -> dict[str, Any]:
    """A root with ten keys."""
    return {
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


async def load() -> None:
    """Loading whole: one file, and three layers with 100 variables, read, located, validated, planned and compiled."""
    import tempfile

    import tomli_w

    described = {f"store{number}": {"description": f"Again {number}"} for number in range(STORES)}
    tree = {"stores": mixed(STORES)}
    layered = {**tree, "environments": {"e": {"stores": described}}}
    variables = {f"STORECONF__STORES__STORE{number * 4}__MAX_ENTRIES": str(number + 1) for number in range(100)}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        texts = {}
        for name, content in (("one", tree), ("three", layered), ("three.e", {"stores": described})):
            texts[f"y_{name}.yaml"] = yaml.safe_dump(content, sort_keys=False)
            texts[f"t_{name}.toml"] = tomli_w.dumps(content)
        for name, text in texts.items():
            (directory / name).write_text(text)

        def parsers(loads: Callable[[str], object], suffix: str) -> Callable[[], object]:
            wanted = [text for name, text in texts.items() if "three" in name and name.endswith(suffix)]
            return lambda: [loads(text) for text in wanted]

        def whole(name: str, environment: str | None, environ: dict[str, str]) -> Callable[[], object]:
            return lambda: read_layout(directory / name, environment=environment, environ=environ).compile()

        csafe = lambda text: yaml.load(text, Loader=yaml.CSafeLoader)  # noqa: E731

        async def bare() -> dict[str, float]:
            return {
                "yaml": milliseconds(lambda: csafe(texts["y_one.yaml"])),
                "toml": milliseconds(lambda: tomllib.loads(texts["t_one.toml"])),
                "yaml, 3 layers": milliseconds(parsers(csafe, "yaml")),
                "toml, 3 layers": milliseconds(parsers(tomllib.loads, "toml")),
            }

        async def ours() -> dict[str, float]:
            return {
                "yaml": milliseconds(whole("y_one.yaml", None, {})),
                "toml": milliseconds(whole("t_one.toml", None, {})),
                "yaml, 3 layers": milliseconds(whole("y_three.yaml", "e", variables)),
                "toml, 3 layers": milliseconds(whole("t_three.toml", "e", variables)),
            }

        figures = await compete({"parser alone": bare, "storeconf, load and compile": ours}, ROUNDS)
        show(
            f"{STORES:,} stores of about 10 values, loaded and compiled; 3 layers with 100 variables; milliseconds",
            figures,
            ours=["storeconf, load and compile"],
            peers=["parser alone"],
        )


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
    for part in (main, load, importing):
        asyncio.run(part())
