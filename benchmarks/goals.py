"""What GOALS.md asks for, measured chapter by chapter: ``python -m benchmarks.goals CHAPTER [--quick]`` prints JSON.

A row compares one contender with another in the same round, so that what else the machine does hits both alike; it has
the ratio of each round. Each chapter also measures the points of the plots. `python -m benchmarks` runs all chapters,
each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import tracemalloc
from contextlib import AsyncExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import storeconf
from benchmarks._harness import Spread, nanoseconds, sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from benchmarks._harness import Samples

PLACES = [place for place in (Path("/dev/shm"), Path(tempfile.gettempdir())) if place.is_dir()]
VALUE = b"v" * 100


@dataclass(frozen=True)
class Row:
    """One goal: ``figures`` are those of each round, ``goal`` the least of them that will do, or the most."""

    what: str
    against: str
    goal: float
    unit: str
    at_least: bool
    figures: list[float]

    @property
    def spread(self) -> Spread:
        """The median and the quartiles."""
        return Spread.of(self.figures)

    @property
    def missed(self) -> bool:
        """Whether the goal is beyond the middle half of the rounds."""
        return self.spread.high < self.goal if self.at_least else self.spread.low > self.goal


@dataclass
class Panel:
    """One panel of a plot: lines of points by name, or, without a title of the x axis, bars."""

    file: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def point(self, name: str, x: float, y: float) -> None:
        """Add a point to the line of that name."""
        self.lines.setdefault(name, []).append((x, y))


@dataclass
class Chapter:
    """What one process measures."""

    quick: bool
    rows: list[Row] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    def rounds(self, quick: int, full: int) -> int:
        """How often something is measured."""
        return quick if self.quick else full

    def at_least(self, what: str, against: str, goal: float, figures: Iterable[float], unit: str = "x") -> None:
        """Add a row whose figures should be that large."""
        self.rows.append(Row(what, against, goal, unit, True, list(figures)))

    def at_most(self, what: str, against: str, goal: float, figures: Iterable[float], unit: str = "x") -> None:
        """Add a row whose figures should be that small."""
        self.rows.append(Row(what, against, goal, unit, False, list(figures)))

    def panel(self, file: str, title: str, x: str, y: str) -> Panel:
        """Add a panel to the plot of that name."""
        made = Panel(file, title, x, y)
        self.panels.append(made)
        return made


def of(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ratios(samples: Samples, measure: str, above: str, below: str) -> list[float]:
    """One contender's figure by another's, round by round."""
    return [a / b for a, b in zip(samples[above][measure], samples[below][measure], strict=True)]


# ---------------------------------------------------------------------- memory


async def memory(chapter: Chapter) -> None:
    from key_value.aio.stores.memory import MemoryStore as KeyValueMemory

    from benchmarks import memory as bench

    class KeyValue:
        def __init__(self) -> None:
            self._store = KeyValueMemory(max_entries_per_collection=None)

        async def get(self, key: str) -> Any:
            return await self._store.get(key)

        async def set(self, key: str, value: bytes, expires_in: float | None = None) -> None:
            await self._store.put(key, {"v": value.decode()}, ttl=expires_in)

    bench.PEERS["py-key-value"] = KeyValue
    found = await bench.calls(sample, chapter.rounds(9, 25))
    for measure, text, goal in (
        ("get", "memory: get", 30),
        ("set", "memory: set with expiry over an entry", 20),
        ("set new", "memory: set with expiry of a new key", 15),
    ):
        chapter.at_least(text, "Litestar", goal, ratios(found, measure, "Litestar", "storeconf"))
    bars = chapter.panel("chains", "A call on memory", "", "ns")
    for name, measures in found.items():
        bars.point(name, 0, statistics.median(measures["get"]))
    sizes = chapter.panel("memory", "Memory of an entry of 100 bytes with an expiry", "entries", "bytes per entry")
    names = ("storeconf", "storeconf, bounded", "Litestar", "cashews", "aiocache", "floor")
    for count in (1_000, 10_000, 100_000) if chapter.quick else (1_000, 10_000, 100_000, 1_000_000):
        for name in names:
            if name == "aiocache" and count > 10_000:
                continue  # which has a timer of the event loop for each entry, and takes minutes
            size = await entry_size(bench.PEERS[name], count)
            sizes.point(name, count, size)
            if (name, count) == ("storeconf", 100_000):
                chapter.at_most("memory: an entry", "100,000 entries", 375, [size], "bytes")
    expired = await bench.expiry(sample, chapter.rounds(3, 7))
    goal = "memory: delete_expired, 1,000 of 101,000 entries"
    chapter.at_least(goal, "Litestar", 40, ratios(expired, "delete_expired", "Litestar", "storeconf"))
    chapter.at_most(f"{goal}: stall", "event loop", 1, expired["storeconf"]["worst stall"], "ms")
    costs = chapter.panel("entries", "get and set on memory", "entries", "ns per call")
    for exponent in range(3, 6 if chapter.quick else 8):
        for name in ("storeconf", "Litestar", "floor"):
            if name == "Litestar" and exponent > 6:
                continue
            get, set_ = await calls_among(bench.PEERS[name](), 10**exponent)
            costs.point(f"{name}, get", 10**exponent, get)
            costs.point(f"{name}, set", 10**exponent, set_)


async def entry_size(make: Callable[[], Any], count: int) -> float:
    store = make()
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        await store.set(f"user:{number}", number.to_bytes(100), 3600)
    size = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    return size


async def calls_among(store: Any, count: int, sampled: int = 2000) -> tuple[float, float]:
    """Nanoseconds of a get and a set of random keys among so many entries."""
    for number in range(count):
        await store.set(f"user:{number}", VALUE, 3600)
    keys = [f"user:{random.randrange(count)}" for _ in range(sampled)]
    gets = [await nanoseconds(store.get, [(key,) for key in keys], time.thread_time) for _ in range(3)]
    sets = [await nanoseconds(store.set, [(key, VALUE, 3600) for key in keys], time.thread_time) for _ in range(3)]
    return min(gets), min(sets)


# ---------------------------------------------------------------------- layouts


def registry(chapter: Chapter) -> None:
    layout = {"stores": {"main": {"type": "memory"}}, "default_factory": {"parent": "main", "max_stores": 10_000}}
    found = storeconf.load(layout, environ={})
    names = [f"tenant{number}" for number in range(1_000_000)]
    for each in names[: 20_000 if chapter.quick else None]:
        found.get(each)
    recent = [f"tenant{number}" for number in range(5_000)]

    def cost(names: Sequence[str]) -> float:
        start = time.thread_time()
        for each in names:
            found.get(each)
        return (time.thread_time() - start) / len(names) * 1e6

    cost(recent)
    rounds = chapter.rounds(9, 25)
    chapter.at_most("registry.get: a listed name", "", 0.1, [cost(["main"] * 5000) for _ in range(rounds)], "µs")
    text = "registry.get: a name of the default factory"
    chapter.at_most(text, "5,000 of them", 0.4, [cost(recent) for _ in range(rounds)], "µs")


def loading(chapter: Chapter) -> None:
    from benchmarks.loading import milliseconds, texts
    from storeconf.layout import read_layout

    registry(chapter)
    rounds = chapter.rounds(5, 15)
    times = chapter.panel("loading", "A layout of stores of ten values, to a registry", "stores", "ms")
    with tempfile.TemporaryDirectory() as temporary:
        for count in (10, 100, 1000) if chapter.quick else (10, 100, 1000, 10_000, 50_000):
            written = texts(count)
            figures: dict[str, list[float]] = {}
            for form in ("yaml", "toml"):
                path = Path(temporary, f"{count}.{form}")
                path.write_text(written[form], encoding="utf-8")
                text = written[form]

                def parse(form: str = form, text: str = text) -> object:
                    return yaml.load(text, Loader=yaml.CSafeLoader) if form == "yaml" else tomllib.loads(text)

                def load(path: Path = path) -> object:
                    return read_layout(path, environ={}).compile()

                def read(path: Path = path) -> object:
                    return read_layout(path, environ={})

                load()
                for _ in range(rounds if count <= 1000 else 1):
                    figures.setdefault(f"storeconf, {form}", []).append(milliseconds(load))
                    figures.setdefault(f"storeconf, {form}, without making the stores", []).append(milliseconds(read))
                    figures.setdefault(f"the parser alone, {form}", []).append(milliseconds(parse))
            for name, measured in figures.items():
                times.point(name, count, statistics.median(measured))
            if count == 1000:
                for what, whole, form, parser, goal in (
                    ("read and validate", ", without making the stores", "yaml", "CSafeLoader", 1.0),
                    ("load, as a registry,", "", "yaml", "CSafeLoader", 1.5),
                    ("load, as a registry,", "", "toml", "tomllib", 2.0),
                ):
                    ours, theirs = figures[f"storeconf, {form}{whole}"], figures[f"the parser alone, {form}"]
                    pairs = zip(ours, theirs, strict=True)
                    chapter.at_most(f"{what} 1,000 stores, {form}", parser, goal, [a / b for a, b in pairs])
    importing(chapter)


def importing(chapter: Chapter) -> None:
    import resource

    model = "import yaml, pydantic\nclass M(pydantic.BaseModel):\n    a: int"
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary, "storeconf.yaml").write_text(
            "stores:\n  main: {type: memory}\n  sessions: {parent: main, middleware: {ttl: 14d}}\n"
        )
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONPYCACHEPREFIX": str(Path(temporary, "cache"))}

        def cost(*arguments: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, *arguments]
            subprocess.run(command, check=True, cwd=temporary, env=environ, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        programs = {
            "import": ("-c", "import storeconf"),
            "model": ("-c", model),
            "validate": ("-m", "storeconf", "validate"),
            "click": ("-c", f"import click, {model[7:]}"),
        }
        figures: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(chapter.rounds(7, 15) + 1):
            for name, arguments in programs.items():
                figures[name].append(cost(*arguments))
    first = {name: measured[1:] for name, measured in figures.items()}  # the first writes the compiled modules

    def by(above: str, below: str) -> list[float]:
        return [a / b for a, b in zip(first[above], first[below], strict=True)]

    chapter.at_most("import storeconf", "yaml and pydantic with a model", 1.2, by("import", "model"))
    chapter.at_most("storeconf validate", "yaml, click and pydantic with a model", 1.7, by("validate", "click"))


# ---------------------------------------------------------------------- middleware


async def middleware(chapter: Chapter) -> None:
    from benchmarks import middleware as bench
    from benchmarks.memory import Floor
    from tests.servers import Server
    from tests.test_call_counts import counted

    kinds = ("bare", *bench.EIGHT, "encrypt", "cache", "these eight")
    stores = {name: bench.made(bench.KINDS[name]) for name in kinds}
    contenders: dict[str, Any] = {"floor": Floor(), **stores}
    found = await sample(
        {name: (lambda store=store: bench.measure(store)) for name, store in contenders.items()},
        chapter.rounds(15, 40),
    )

    def added(name: str, call: str) -> list[float]:
        rounds = zip(found[name][call], found["bare"][call], found["floor"][call], strict=True)
        return [(with_it - without) / floor for with_it, without, floor in rounds]

    bars = chapter.panel("chains", "What middleware adds to a get", "", "floors")
    for name in kinds[1:]:
        bars.point(name, 0, statistics.median(added(name, "get")))
    for name, goal in (("encrypt", 3), ("compress", 1), ("metrics", 1), ("breaker", 0.5)):
        for call in ("get", "set"):
            text = "compress, values that do not shrink" if name == "compress" else name
            chapter.at_most(f"{text}: added to a {call}", "floor", goal, added(name, call), "floors")
    for call in ("get", "set"):
        parts = [added(name, call) for name in bench.EIGHT]
        whole = [a / sum(b) for a, b in zip(added("these eight", call), zip(*parts, strict=True), strict=True)]
        chapter.at_most(f"a chain of eight: added to a {call}", "sum of its parts", 1, whole)
    for store in stores.values():
        await store.aclose()
    with Server("valkey-9.1") as server:
        root = {"type": "valkey", "url": f"valkey://{server.address}", "namespace": "calls"}
        calls = await asyncio.to_thread(lambda: len(counted(root, {"cache": "1h"}, "other")))
        chapter.at_most("near cache: functions of a miss", "Valkey", 15, [calls], "calls")
        layout = {"stores": {"main": root, "near": {"parent": "main", "middleware": {"cache": "1h"}}}}
        near = chapter.panel("chains", "A get from Valkey, with and without a near cache", "", "µs")
        async with storeconf.load(layout, environ={}) as live:
            await live["main"].set("k", VALUE, 600)
            await live["near"].set("k", VALUE, 600)
            await asyncio.sleep(0.3)
            missing = [(f"missing{number}",) for number in range(300)]
            for name, store, keys in (
                ("from the server", live["main"], [("k",)] * 300),
                ("near", live["near"], [("k",)] * 300),
                ("a miss of the near cache", live["near"], missing),
            ):
                await store.get("k")
                near.point(name, 0, min([await nanoseconds(store.get, keys) for _ in range(5)]) / 1e3)


# ---------------------------------------------------------------------- files


def file_system(path: Path) -> str:
    """The kind of the file system, as Linux names it."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, mounted, name, *_ = line.split()
        if path.is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, name
    return kind


async def files(chapter: Chapter) -> None:
    for place in PLACES:
        directory = Path(tempfile.mkdtemp(prefix="storeconf-benchmark-", dir=place))
        try:
            await files_in(chapter, directory, file_system(place))
        finally:
            shutil.rmtree(directory)


async def files_in(chapter: Chapter, directory: Path, kind: str) -> None:
    from litestar.stores.file import FileStore as LitestarFileStore

    from benchmarks import file as bench
    from storeconf import FileStore

    async with AsyncExitStack() as stack:
        cache, mapped = bench.DiskCache(directory / "diskcache"), bench.Lmdb(directory / "lmdb")
        stack.enter_context(closing(cache.cache))
        stack.enter_context(closing(mapped.environment))
        stores: dict[str, Any] = {
            "Litestar": LitestarFileStore(directory / "litestar", create_directories=True),
            "py-key-value": bench.KeyValue(directory / "py-key-value"),
            "diskcache": cache,
            "lmdb": mapped,
            "storeconf": await stack.enter_async_context(FileStore(directory / "flush")),
        }
        for store in stores.values():
            for key in bench.KEYS:
                await store.set(key, VALUE)
        found = await sample(
            {name: bench.contender(store, VALUE) for name, store in stores.items()}, chapter.rounds(5, 15)
        )
    goals = {"get": (14, 18), "set": (10, 10) if kind == "tmpfs" else (4, 10)}
    for call, (one, fifty) in goals.items():
        panel = chapter.panel("throughput", f"FileStore on {kind}: {call}", "tasks", "calls per second")
        for name, measures in found.items():
            for tasks in bench.TASKS:
                panel.point(name, tasks, statistics.median(measures[f"{call}, {tasks}"]))
        for tasks, goal in ((1, one), (50, fifty)):
            pairs = ratios(found, f"{call}, {tasks}", "storeconf", "Litestar")
            chapter.at_least(f"file on {kind}: {call}, {of(tasks, 'task')}", "Litestar", goal, pairs)
    async with FileStore(directory / "fsync", durability="fsync") as synced:
        hop = bench.Hop(directory / "hop")

        def each(store: Any) -> Callable[[], Awaitable[Mapping[str, float]]]:
            async def measure() -> Mapping[str, float]:
                return {"set": await bench.rate(lambda key: store.set(key, VALUE), 50)}

            return measure

        pairs = ratios(
            await sample({"hop": each(hop), "ours": each(synced)}, chapter.rounds(5, 15)), "set", "ours", "hop"
        )
        chapter.at_least(f"file on {kind}: set with fsync, 50 tasks", "a hop for each", 1.5, pairs)
    costs = chapter.panel("entries", f"get and set of a FileStore on {kind}", "entries", "ns per call")
    many = kind != "tmpfs" and not chapter.quick
    for count in (1_000, 10_000, 100_000, 1_000_000) if many else (1_000, 10_000):
        async with FileStore(directory / f"of-{count}") as store:
            for start in range(0, count, 5000):
                numbers = range(start, min(start + 5000, count))
                await store.set_many({f"user:{number}": VALUE for number in numbers}, 3600)
            keys = [f"user:{random.randrange(count)}" for _ in range(2000)]
            costs.point("get", count, await nanoseconds(store.get, [(key,) for key in keys]))
            costs.point("set", count, await nanoseconds(store.set, [(key, VALUE, 3600) for key in keys[:500]]))
            if count == 1_000_000:
                await file_scale(chapter, store, kind)


async def file_scale(chapter: Chapter, store: Any, kind: str) -> None:
    async def seconds(work: Awaitable[object]) -> float:
        start = time.perf_counter()
        await work
        return time.perf_counter() - start

    async def list_all() -> None:
        async for _ in store.keys():
            pass

    text = f"file on {kind}, 1,000,000 entries"
    chapter.at_most(f"{text}: a sweep", "", 5, [await seconds(store.delete_expired())], "s")
    chapter.at_most(f"{text}: keys", "", 10, [await seconds(list_all())], "s")
    chapter.at_most(f"{text}: delete_all", "", 46, [await seconds(store.delete_all())], "s")


# ---------------------------------------------------------------------- servers


def servers(chapter: Chapter) -> None:
    import uvloop

    from benchmarks.servers import delete
    from tests.servers import Server

    with Server("valkey-9.1", enable_debug_command="yes") as server:
        asyncio.run(on_a_server(chapter, server, "asyncio"))
        uvloop.run(on_a_server(chapter, server, "uvloop"))
        asyncio.run(transfers(chapter, server))
        without_await(chapter, server)
        if not chapter.quick:
            found = asyncio.run(delete(server, sample, 3))
            text = "server: delete_all, 100,000 of 1,000,000 keys"
            chapter.at_most(text, "Litestar's script", 1, ratios(found, "ms", "storeconf", "Litestar"))
            chapter.at_most(f"{text}: worst PING", "another client", 10, found["storeconf"]["worst PING, ms"], "ms")
        asyncio.run(server_entries(chapter, server))
        runs = [one_cold_key(server) for _ in range(chapter.rounds(3, 9))]
        chapter.at_most("one cold key, 4 processes: runs of the factory", "Valkey", 1, runs, "calls")


COLD = """
import asyncio, sys
import storeconf

async def main(url, round_):
    layout = {
        "stores": {
            "main": {"type": "valkey", "url": url, "namespace": "cold", "middleware": {"refresh": {"shared": "30s"}}},
            "counters": {"type": "valkey", "url": url, "namespace": "counters"},
        }
    }

    async def factory():
        await live["counters"].increment(round_)
        await asyncio.sleep(0.2)
        return b"v"

    async with storeconf.load(layout, environ={}) as live:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        assert await live["main"].get_or_set(round_, factory, 600) == b"v"
        print((await live["counters"].get(round_)).decode())

asyncio.run(main(*sys.argv[1:]))
"""


def one_cold_key(server: Any) -> float:
    """How often four processes that ask for the same missing key at once compute it."""
    arguments = [sys.executable, "-c", COLD, f"valkey://{server.address}", str(time.monotonic_ns())]
    processes = [subprocess.Popen(arguments, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    counts = [int(each.communicate(timeout=30)[0]) for each in processes]
    assert all(each.returncode == 0 for each in processes)
    return max(counts)


async def peers_on(server: Any, stack: AsyncExitStack) -> dict[str, Any]:
    import aiocache
    import redis.asyncio
    from cashews import Cache
    from key_value.aio.stores.redis import RedisStore as KeyValueRedis

    from benchmarks.servers import contenders

    found = await contenders(server, stack)
    cashews = Cache()
    cashews.setup(f"redis://{server.address}/0?max_connections=3000")
    stack.push_async_callback(cashews.close)
    other = aiocache.Cache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=server.port, pool_max_size=3000, timeout=60)
    stack.push_async_callback(other.close)
    client = redis.asyncio.Redis(port=server.port, max_connections=3000, decode_responses=True)
    stack.push_async_callback(client.aclose)
    key_value = KeyValueRedis(client=client)

    class Cashews:
        async def get(self, key: str) -> Any:
            return await cashews.get(f"cashews:{key}")

        async def set(self, key: str, value: bytes, seconds: int) -> None:
            await cashews.set(f"cashews:{key}", value, expire=seconds)

    class Aiocache:
        async def get(self, key: str) -> Any:
            return await other.get(f"aiocache:{key}")

        async def set(self, key: str, value: bytes, seconds: int) -> None:
            await other.set(f"aiocache:{key}", value.decode(), ttl=seconds)

    class KeyValue:
        async def get(self, key: str) -> Any:
            return await key_value.get(key)

        async def set(self, key: str, value: bytes, seconds: int) -> None:
            await key_value.put(key, {"v": value.decode()}, ttl=seconds)

    return found | {"cashews": Cashews(), "aiocache": Aiocache(), "py-key-value": KeyValue()}


async def on_a_server(chapter: Chapter, server: Any, loop: str) -> None:
    from benchmarks import servers as bench

    whole = loop == "asyncio"
    async with AsyncExitStack() as stack:
        stores = await peers_on(server, stack)
        if not whole:
            stores = {name: stores[name] for name in ("bare link", "storeconf")}
        for store in stores.values():
            await store.set("k", VALUE, 600)
        late: dict[tuple[str, int], list[float]] = {}

        def contender(name: str, call: str, tasks: int, calls: int, value: bytes) -> Any:
            store = stores[name]
            if name not in ("storeconf", "bare link"):
                calls = max(1, calls // 4)
            work = (lambda: store.get("k")) if call == "get" else (lambda: store.set("k", value, 600))

            async def measure() -> Mapping[str, float]:
                rate, latencies = await bench.timed(work, tasks, calls)
                if call == "get" and value is VALUE:
                    late.setdefault((name, tasks), []).extend(latencies)
                return {"rate": rate, "p99": latencies[len(latencies) * 99 // 100] * 1e3}

            return measure

        async def all_of(call: str, tasks: int, calls: int, value: bytes, names: Iterable[str]) -> Samples:
            made = {}
            for name in names:
                each = contender(name, call, tasks, calls, value)
                try:
                    await each()  # which also opens the connections
                except Exception as error:  # a peer that fails at so many tasks is left out there
                    if name in ("storeconf", "bare link"):
                        raise
                    print(f"{name} fails, {call}, {tasks} tasks: {type(error).__name__}: {error}", file=sys.stderr)
                else:
                    made[name] = each
            return await sample(made, chapter.rounds(7, 21))

        for call in ("get", "set"):
            title = f"Valkey 9.1, {loop}: {call} of 100 bytes"
            panel = chapter.panel("throughput", title, "tasks", "calls per second") if whole else None
            for tasks, calls in bench.TASKS.items():
                found = await all_of(call, tasks, calls, VALUE, stores)
                for name, measures in found.items():
                    if panel is not None:
                        panel.point(name, tasks, statistics.median(measures["rate"]))
                text = f"server: {call}, {of(tasks, 'task')}"
                if tasks != 10 and call == "get":
                    pairs = ratios(found, "rate", "storeconf", "bare link")
                    chapter.at_least(f"{text}, {loop}", "the bare link", 0.9, pairs)
                goal = {1: 1.2, 100: 8, 1000: 20}.get(tasks) if whole else None
                if goal is not None and "Litestar" in found:
                    chapter.at_least(text, "Litestar", goal, ratios(found, "rate", "storeconf", "Litestar"))
                if whole and tasks == 100 and "valkey-glide" in found:
                    chapter.at_least(text, "valkey-glide", 4, ratios(found, "rate", "storeconf", "valkey-glide"))
                if whole and tasks == 1 and call == "get" and "redis-py" in found:
                    chapter.at_most(f"{text}: p99", "redis-py", 1, ratios(found, "p99", "storeconf", "redis-py"))
        if whole:
            large = b"v" * 10_240
            for store in stores.values():
                await store.set("k", large, 600)
            found = await all_of("get", 100, 20, large, ("Litestar", "storeconf"))
            pairs = ratios(found, "rate", "storeconf", "Litestar")
            chapter.at_least("server: get of 10 KiB, 100 tasks", "Litestar", 5, pairs)
            for tasks in (1, 100):
                panel = chapter.panel("latency", f"Latency of a get, {of(tasks, 'task')}", "percentile", "ms")
                for name in [each for each in stores if (each, tasks) in late]:
                    latencies = sorted(late[name, tasks])
                    for percentile in (50, 90, 99, 99.9):
                        at = min(len(latencies) - 1, int(len(latencies) * percentile / 100))
                        panel.point(name, percentile, latencies[at] * 1e3)


async def transfers(chapter: Chapter, server: Any) -> None:
    """`dump` and `restore` against redis-py's pipelines that only read, or only write, the same entries."""
    import redis.asyncio

    from storeconf.layout import read_layout
    from storeconf.transfer import Endpoint, dump, restore

    count = 20_000 if chapter.quick else 1_000_000
    layout = {"stores": {"main": {"type": "redis", "url": server.url, "namespace": "dumped"}}}
    client = redis.asyncio.Redis.from_url(server.url)
    async with Endpoint(read_layout(layout, environ={}), "main") as main:
        for start in range(0, count, 5000):
            await main.store.set_many({f"k{number}": VALUE for number in range(start, start + 5000)}, 3600)
        names = [f"dumped::k{number}" for number in range(count)]
        parts = [names[start : start + 1000] for start in range(0, count, 1000)]

        async def reads() -> None:
            async for _ in client.scan_iter("dumped::*", count=1000):
                pass
            for part in parts:
                pipeline = client.pipeline(transaction=False)
                for name in part:
                    pipeline.get(name)
                    pipeline.pttl(name)
                await pipeline.execute()

        async def writes() -> None:
            for part in parts:
                pipeline = client.pipeline(transaction=False)
                for name in part:
                    pipeline.set(name, VALUE, px=3_600_000)
                await pipeline.execute()

        dumped: list[bytes] = []

        async def write(lines: bytes) -> None:
            dumped.append(lines)

        async def dumps() -> None:
            dumped.clear()
            await dump(main, write)

        async def restores() -> None:
            async def lines() -> AsyncIterator[bytes]:
                for each in b"".join(dumped).splitlines(keepends=True):
                    yield each

            result = await restore(lines(), main, overwrite=True)
            assert not result.failures

        figures: dict[str, list[float]] = {}
        for _ in range(chapter.rounds(3, 3)):
            for work in (dumps, reads, restores, writes):
                start = time.perf_counter()
                await work()
                figures.setdefault(work.__name__, []).append(time.perf_counter() - start)
        for ours, theirs, text in (("dumps", "reads", "dump"), ("restores", "writes", "restore")):
            pairs = [b / a for a, b in zip(figures[ours], figures[theirs], strict=True)]
            chapter.at_least(f"{text} of {count:,} entries", f"redis-py's pipelined {theirs}", 1, pairs)
        await main.store.delete_all()
    await client.aclose()


def without_await(chapter: Chapter, server: Any) -> None:
    import redis

    import storeconf.sync
    from benchmarks.above import in_threads

    layout = {"stores": {"main": {"type": "redis", "url": server.url, "namespace": "sync"}}}
    client = redis.Redis(port=server.port)
    with storeconf.sync.load(layout, environ={}) as live:
        store = live["main"]
        made = {
            "storeconf": in_threads(lambda key: store.set(key, VALUE), store.get),
            "redis-py": in_threads(
                lambda key: client.set(f"plain:{key}", VALUE), lambda key: client.get(f"plain:{key}")
            ),
        }
        found = asyncio.run(sample(made, chapter.rounds(5, 15)))
    client.close()
    for threads, goal in ((1, 0.6), (16, 1.1)):
        pairs = ratios(found, f"{threads} threads", "storeconf", "redis-py")
        chapter.at_least(f"storeconf.sync on Valkey, {of(threads, 'thread')}", "redis-py", goal, pairs)


async def server_entries(chapter: Chapter, server: Any) -> None:
    panel = chapter.panel("entries", "get and set on Valkey", "entries", "ns per call")
    layout = {"stores": {"main": {"type": "redis", "url": server.url, "namespace": "of"}}}
    async with storeconf.load(layout, environ={}) as live:
        for exponent in range(3, 7 if chapter.quick else 8):
            server.ask("FLUSHALL")
            server.ask("DEBUG", "POPULATE", 10**exponent, "of:", 50)
            keys = [f"key:{random.randrange(10**exponent)}" for _ in range(500)]
            get = min([await nanoseconds(live["main"].get, [(key,) for key in keys]) for _ in range(3)])
            panel.point("get", 10**exponent, get)
            sets = [(key, VALUE, 3600) for key in keys]
            panel.point("set", 10**exponent, min([await nanoseconds(live["main"].set, sets) for _ in range(3)]))
    server.ask("FLUSHALL")


# ---------------------------------------------------------------------- all of them

CHAPTERS: dict[str, Callable[[Chapter], Awaitable[None] | None]] = {
    "memory": memory,
    "files": files,
    "servers": servers,
    "middleware": middleware,
    "loading": loading,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one chapter; print its rows and points as JSON.")
    parser.add_argument("chapter", choices=CHAPTERS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    chapter = Chapter(options.quick)
    pending = CHAPTERS[options.chapter](chapter)
    if pending is not None:
        asyncio.run(pending)
    print(json.dumps({"rows": [*map(asdict, chapter.rows)], "panels": [*map(asdict, chapter.panels)]}))


if __name__ == "__main__":
    main()
