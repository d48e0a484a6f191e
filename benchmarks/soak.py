"""Minutes of steady use of each backend: ``python benchmarks/soak.py [--seconds N] [memory] [file] [redis] [valkey]``.

Memory, descriptors, threads and tasks after a fifth of the time are compared with those at its end: all but memory must
be equal, and memory may grow by a twentieth. Exit status 1 if it is not so. Each backend is used by a process of its
own, through a chain and without one, by all operations, by callers that are cancelled, and by event loops that come
and go. The servers are reached through a proxy that cuts all connections now and then. Takes about a quarter of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import storeconf
from tests.proxy import Proxy
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from storeconf import Store, StoreRegistry

SERVERS = {"redis": "redis-8.2", "valkey": "valkey-9.1"}
BACKENDS = ("memory", "file", *SERVERS)
SHARE = 0.2
"""Of a core, for the process that uses the store."""
CALLERS = 20
GROWTH = 1.05
PATIENCE = 15.0
"""Seconds in which a sweep must have ended."""
CUTS = (0.2, 4.0)
"""Seconds between two cuts of all connections, at least and at most."""

CHAINS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "chain": {
        "ttl": {"default": "10s", "renew_on_get": True},
        "cache": {"max_age": "2s", "max_entries": 200},
        "compress": "zstd",
        "retry": 2,
        "timeout": "2s",
        "metrics": True,
    },
    "policies": {
        "on_error": "miss",
        "refresh": {"early": "20%", "stale_if_error": "5s", "shared": "5s"},
        "encrypt": {"keys": ["a key for this measurement alone"]},
        "breaker": {"failures": 5, "reset_after": "1s"},
    },
}


class Held(NamedTuple):
    """What the process holds and has to give back."""

    descriptors: int
    threads: int
    tasks: int

    @classmethod
    def take(cls) -> Held:
        """Count."""
        return cls(len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks()))


class Sample(NamedTuple):
    """What the process has at a quiet moment; resident memory in KiB."""

    resident: int
    held: Held


class Load:
    """Uses the stores of a registry, a batch of calls at a time, and counts them and their errors."""

    def __init__(self, registry: StoreRegistry) -> None:
        self.stores = [registry[name] for name in CHAINS]
        self.stores += [store.with_namespace(name) for store in self.stores for name in ("a", "b")]
        self.counts: Counter[str] = Counter()
        self._random = random.Random(1)
        self._executor = ThreadPoolExecutor(1)  # no more threads than this one, whatever the rate

    async def batch(self) -> None:
        """Make some calls at once, and give up one of them."""
        calls = [asyncio.ensure_future(self._counted(self._call())) for _ in range(CALLERS)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.wait(calls)

    async def rare(self) -> None:
        """Do what takes longer: iterate, delete a namespace, make bulk calls, use the stores in another event loop."""
        await self._counted(self._bulk(self._random.choice(self.stores)))
        await asyncio.get_running_loop().run_in_executor(self._executor, lambda: asyncio.run(self._elsewhere()))

    async def reach(self) -> None:
        """Use each store until it answers, so that all connections that it needs are there."""
        for store in self.stores:
            while True:
                try:
                    await store.exists("reach")
                    await store.set("reach", b"", 5)
                    break
                except storeconf.StoreError:
                    await asyncio.sleep(0.05)

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()

    async def _elsewhere(self) -> None:
        for store in self.stores[:3]:
            await self._counted(store.set("elsewhere", b"v", 5))
            await self._counted(store.get("elsewhere"))

    async def _counted(self, call: Awaitable[object]) -> None:
        try:
            await call
        except storeconf.StoreError as error:
            self.counts[type(error).__name__] += 1
        else:
            self.counts["calls"] += 1

    async def _bulk(self, store: Store) -> None:
        items = {f"bulk:{number}": bytes(50) for number in range(200)}
        await store.set_many(items, 5)
        await store.get_many(items)
        async for _ in store.keys("bulk:"):
            pass
        await store.delete_many(list(items)[:100])
        if store.namespaces[-1:] == ("b",):
            await store.delete_all()
        await store.delete_expired()

    async def _call(self) -> object:
        chosen = self._random
        store = chosen.choice(self.stores)
        key = f"key:{chosen.randrange(500)}"
        value = chosen.randbytes(chosen.choice((10, 100, 1000, 20_000)))
        match chosen.randrange(12):
            case 0 | 1 | 2 | 3:
                return await store.get(key)
            case 4 | 5:
                await store.set(key, value, chosen.choice((0.05, 1, 15)))
                return None
            case 6:
                return await store.get_or_set(key, lambda: value, 2)
            case 7:
                return await store.increment(f"count:{chosen.randrange(100)}", expires_in=5)
            case 8:
                return await store.add(key, value, 3)
            case 9:
                return await store.pop(key)
            case 10:
                return await store.compare_and_set(key, None, value, 1)
            case _:
                return await store.delete(key)


def layout(backend: str, place: str) -> dict[str, Any]:
    """The root with its children, each with a chain of its own."""
    root: dict[str, Any] = {"type": backend}
    if backend == "file":
        root["path"] = place
    elif backend in SERVERS:
        root |= {"url": place, "namespace": "soak", "connect_timeout": 1, "command_timeout": 1}
    children = {name: {"parent": "root", "middleware": dict(chain)} for name, chain in CHAINS.items()}
    return {"stores": {"root": root, **children}}


async def use(backend: str, place: str, seconds: float) -> int:
    """Use the backend for that time, and print what the process holds; the exit status."""
    registry = storeconf.load(layout(backend, place), environ={})
    samples: list[Sample] = []
    async with registry:
        load = Load(registry)
        begin = now = time.monotonic()
        ticks = [begin + seconds * part / 10 for part in range(1, 11)]
        rare = begin
        while ticks:
            cost = time.process_time()
            await load.batch()
            if now >= rare:
                await load.rare()
                rare = now + max(1.0, seconds / 60)
            await asyncio.sleep((time.process_time() - cost) * (1 / SHARE - 1))
            now = time.monotonic()
            if now >= ticks[0]:
                ticks.pop(0)
                held = samples[1].held if len(samples) > 1 else None
                samples.append(await _quiet_sample(load, held, seconds / 60 if held is None else PATIENCE))
                print(f"{backend:7} {now - begin:5.0f} s {_text(samples[-1])} {dict(load.counts)}", flush=True)
        load.close()
    early, late = samples[1], samples[-1]
    grown = late.resident / early.resident - 1
    good = late.resident <= early.resident * GROWTH and early.held == late.held
    print(f"{backend:7} memory {grown:+.1%} from {early.resident} KiB; {'ok' if good else 'NOT CONSTANT'}", flush=True)
    return 0 if good else 1


async def _quiet_sample(load: Load, held: Held | None, patience: float) -> Sample:
    """Measure while the parent cuts nothing: what was cut is there again.

    Sweeps open directories for a while, so what is counted is the least of several looks; enough is what is ``held``.
    """
    print("hold", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await load.reach()
    looks = [Held.take()]
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and (held is None or looks[-1] != held):
        await asyncio.sleep(0.1)
        looks.append(Held.take())
    print("go on", flush=True)
    return Sample(_resident(), looks[-1] if looks[-1] == held else min(looks))


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _text(sample: Sample) -> str:
    counts = (f"{value:3} {name}" for name, value in sample.held._asdict().items())
    return ", ".join((f"{sample.resident} KiB", *counts))


async def supervise(backend: str, seconds: float) -> int:
    """Provide the backend's resource and the harm, and run `use` in a process of its own; its exit status."""
    async with contextlib.AsyncExitStack() as stack:
        harm: Callable[[], None] = lambda: None  # noqa: E731  # nothing to cut
        place = stack.enter_context(tempfile.TemporaryDirectory())
        if backend in SERVERS:
            server = Server(SERVERS[backend]).start()
            stack.callback(server.close)
            proxy = await stack.enter_async_context(Proxy(server.port))
            place, harm = f"redis://127.0.0.1:{proxy.port}", proxy.cut
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--use",
            place,
            "--seconds",
            str(seconds),
            backend,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        calm = asyncio.Event()
        cutting = asyncio.create_task(_cut(harm, calm))
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            async for line in process.stdout:
                text = line.decode().rstrip()
                if text == "hold":
                    calm.set()
                    process.stdin.write(b"\n")
                elif text == "go on":
                    calm.clear()
                else:
                    print(text, flush=True)
            return await process.wait()
        finally:
            cutting.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _cut(harm: Callable[[], None], calm: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(random.uniform(*CUTS))
        if not calm.is_set():
            harm()


def main() -> int:
    """Measure the backends that are named, else all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=f"of {', '.join(BACKENDS)}; all by default")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each backend, 300 by default")
    parser.add_argument("--use", metavar="PLACE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.backends) - set(BACKENDS):
        parser.error(f"unknown backend: {', '.join(sorted(unknown))}")
    if given.use is not None:
        return asyncio.run(use(given.backends[0], given.use, given.seconds))
    return max(asyncio.run(supervise(backend, given.seconds)) for backend in given.backends or BACKENDS)


if __name__ == "__main__":
    sys.exit(main())
