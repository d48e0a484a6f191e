"""Reloads under load: no call fails, nothing is counted twice or lost, nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from tests.above.backends import BACKENDS, root
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from storeconf import Store, StoreRegistry

Counters = dict[tuple[object, ...], tuple["Callable[[str], Awaitable[bytes | None]]", "Store"]]


def layouts(backend: str, directory: Path) -> list[dict[str, Any] | str]:
    """Layouts with the same names: other settings, chains, namespaces, roots and kinds, and some broken ones."""
    main, second = root(backend, directory / "main"), root(backend, directory / "second")
    names = {"sessions": {"parent": "main"}, "counters": {"parent": "main"}}
    tunings: dict[str, dict[str, Any]] = {"memory": {"max_entries": 10_000}, "file": {"durability": "fsync"}}
    tuned = tunings.get(backend, {"command_timeout": "4s"})
    other = {"type": "memory"} if backend != "memory" else root("file", directory / "main")
    chain = {"ttl": "1h", "cache": "1s", "retry": 2}
    return [
        {"main": main, **names},
        {"main": main | tuned, **names},
        {"main": main, **names, "sessions": {"parent": "main", "middleware": chain}},
        "stores: {main: {type: nothing}}",
        {"main": main | tuned, **names, "counters": {"parent": "main", "namespace": "others"}},
        {"main": second, **names},
        {"main": other, **names},
        "stores: [",
        {"main": second, "sessions": {"type": "memory"}, "counters": {"parent": "main", "middleware": {"retry": 1}}},
        {"main": main, "sessions": {"use": "counters"}, "counters": {"parent": "main"}, "more": second},
    ]


def place(store: Store) -> tuple[object, ...]:
    """Where the counter of a store is, so that the same place is added up once."""
    raw = store.raw_key("count")
    return ("raw", raw, type(store.root)) if raw is not None else (id(store.root), store.namespaces)


async def under_load(backend: str, directory: Path, tasks: int, reloads: int, seconds: float) -> None:
    """Call stores from many tasks while their registry is reloaded; then account for every increment."""
    file = directory / "storeconf.yaml"
    choices = layouts(backend, directory)

    def write(layout: dict[str, Any] | str) -> None:
        text = layout if isinstance(layout, str) else json.dumps({"stores": layout})
        draft = file.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(file)

    write(choices[0])
    registry = storeconf.load(file, environ={})
    counted = 0
    done = asyncio.Event()
    seen: Counters = {}

    def look() -> None:
        counters = registry.get("counters")
        seen.setdefault(place(counters), (counters.get, counters.root))

    async def work(number: int) -> None:
        nonlocal counted
        sessions, counters = registry.get("sessions"), registry.get("counters")
        below = sessions.with_namespace(f"n{number % 3}")
        while not done.is_set():
            await counters.increment("count")
            counted += 1
            await sessions.set(f"k{number}", b"v", expires_in=60)
            await sessions.get(f"k{number}")
            await below.get_or_set(f"k{number % 7}", lambda: b"made", expires_in=1)
            if random.random() < 0.05:
                async for _ in below.keys():
                    await asyncio.sleep(0)
            await asyncio.sleep(random.random() * 0.01)

    async with registry:
        workers = [asyncio.create_task(work(number)) for number in range(tasks)]
        broken = 0
        for number in range(reloads):
            look()
            choice = choices[number % len(choices)]
            write(choice)
            try:
                await registry.reload()
            except storeconf.ConfigError:
                broken += 1
                assert isinstance(choice, str)
            else:
                assert not isinstance(choice, str)
            await asyncio.sleep(seconds / reloads)
        look()
        done.set()
        await asyncio.gather(*workers)
        assert broken
        values = [int(await get("count") or 0) for get, _ in seen.values()]
        assert sum(values) == counted
        assert len(values) > 2
        write(choices[0])
        await registry.reload()
        await settled(registry)
    await only_this_task()


async def only_this_task() -> None:
    """Wait until no other task is left."""
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


async def settled(registry: StoreRegistry) -> None:
    """Wait until no root of an earlier layout is open."""
    async with asyncio.timeout(10):
        while any(each.is_open for each in registry._abandoned):
            await asyncio.sleep(0.01)


def resources(backend: str) -> tuple[int, int, int]:
    """Descriptors, threads, and connections that the server counts."""
    gc.collect()
    connections = 0
    if backend in ("redis", "valkey"):
        server = shared("redis-8.2") if backend == "redis" else shared()
        connections = server.ask("CLIENT", "LIST").count(b"name=storeconf")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), connections


def run(backend: str, directory: Path, tasks: int, reloads: int, seconds: float) -> None:
    for name in ("before/main", "before/second", "main", "second"):
        (directory / name).mkdir(parents=True)
    asyncio.run(under_load(backend, directory / "before", 5, 10, 0.1))  # what is made once and stays
    before = resources(backend)
    asyncio.run(under_load(backend, directory, tasks, reloads, seconds))
    deadline = time.monotonic() + 10
    while resources(backend) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    after = resources(backend)
    assert all(left <= right for left, right in zip(after, before, strict=True)), (before, after)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_call_fails_and_nothing_is_lost(backend: str, tmp_path: Path) -> None:
    run(backend, tmp_path, tasks=20, reloads=20, seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_tasks_and_two_hundred_reloads(backend: str, tmp_path: Path) -> None:
    run(backend, tmp_path, tasks=100, reloads=200, seconds=10)


@pytest.mark.parametrize("backend", ["file", "valkey"])
def test_event_loops_of_several_threads_follow_one_reload(backend: str, tmp_path: Path) -> None:
    main = root(backend, tmp_path / "main")
    tuned = main | ({"durability": "fsync"} if backend == "file" else {"command_timeout": "4s"})
    chain = {"parent": "main", "middleware": {"ttl": "1h", "cache": "1s"}}
    layouts = [{"main": main, "s": {"parent": "main"}}, {"main": tuned, "s": chain}, {"main": main, "s": chain}]
    file = tmp_path / "storeconf.yaml"
    file.write_text(json.dumps({"stores": layouts[0]}))
    registry, ended = storeconf.load(file, environ={}), threading.Event()
    s = registry.get("s")
    counted: list[int] = []

    async def work(name: str) -> int:
        count = 0
        while not ended.is_set():
            count += 1
            await s.increment("count")
            await s.set(name, b"%d" % count)
            assert await s.get(name) == b"%d" % count
            assert await s.get_or_set(f"{name} {count}", lambda: b"made") == b"made"
        return count

    async def use(thread: int) -> list[int]:
        async with registry:
            return await asyncio.gather(*(work(f"{thread} {task}") for task in range(3)))

    async def main_loop() -> None:
        async with asyncio.timeout(60), registry:
            using = [asyncio.create_task(asyncio.to_thread(asyncio.run, use(thread))) for thread in range(3)]
            for turn in range(60):
                file.write_text(json.dumps({"stores": layouts[turn % 3]}))
                await registry.reload()
                await asyncio.sleep(0.01)
            ended.set()
            counted.extend(count for counts in await asyncio.gather(*using) for count in counts)
            assert await s.get("count") == b"%d" % sum(counted)

    try:
        asyncio.run(main_loop())
    finally:
        ended.set()
    assert min(counted) > 0
