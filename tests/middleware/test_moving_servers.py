"""A move from one server to another under load, by reloads alone: prepare, move, and the middleware removed."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from tests.cli.running import run
from tests.servers import shared

if TYPE_CHECKING:
    from pathlib import Path

REGISTRIES = 3
"""Each stands for a process: it has connections, handles and a moment of reloading of its own."""


def layouts(old: dict[str, Any]) -> list[dict[str, Any]]:
    new = {"type": "valkey", "url": shared().url, "namespace": f"n{uuid.uuid4().hex}"}
    steps = [old, new | {"middleware": {"moved_from": {"store": "before", "prepare": True}}}]
    steps += [new | {"middleware": {"moved_from": "before"}}, new]
    return [{"main": step} | ({"before": old} if "middleware" in step else {}) for step in steps]


@pytest.mark.parametrize("kind", ["redis", "file"])
def test_no_session_and_no_increment_is_lost(kind: str, tmp_path: Path) -> None:
    old: dict[str, Any] = {"type": "file", "path": str(tmp_path / "old"), "namespace": "o"}
    if kind == "redis":
        old = {"type": "redis", "url": shared("redis-8.2").url, "namespace": f"o{uuid.uuid4().hex}"}
    steps = layouts(old)
    file = tmp_path / "storeconf.yaml"

    def write(stores: dict[str, Any]) -> None:
        file.write_text(json.dumps({"stores": stores | {"s": {"parent": "main"}}}))

    counted = dict.fromkeys((f"c{number}" for number in range(5)), 0)
    gone: set[str] = set()
    done = asyncio.Event()

    async def work(registry: storeconf.StoreRegistry, number: int) -> None:
        s, at = registry.get("s"), 0
        while not done.is_set():
            at += 1
            session = f"session{number}-{at}"
            await s.set(session, b"logged in", expires_in=600)
            counter = random.choice(list(counted))
            await s.increment(counter)
            counted[counter] += 1
            assert await s.get(session, renew_for=600) == b"logged in"
            if at % 3 == 0:
                assert await s.delete(session)
                gone.add(session)
            for ended in random.sample(sorted(gone), min(2, len(gone))):
                assert await s.get(ended) is None, ended
            if at > 5 and (at - 4) % 3:
                assert await s.get(f"session{number}-{at - 4}") == b"logged in"
            await asyncio.sleep(0.002)

    async def main() -> None:
        write(steps[0])
        registries = [storeconf.load(file, environ={}) for _ in range(REGISTRIES)]
        async with asyncio.timeout(50), registries[0], registries[1], registries[2]:
            tasks = [asyncio.create_task(work(registries[at % REGISTRIES], at)) for at in range(9)]
            for step in steps[1:3]:
                await asyncio.sleep(0.4)
                write(step)
                for registry in registries:  # one after another, as in a rolling deployment
                    await registry.reload()
                    await asyncio.sleep(0.1)
            moved = await asyncio.to_thread(run, "move", "s", "-f", str(file), "--format", "json")
            assert moved.status == 0, moved.both
            write(steps[3])
            for registry in registries:
                await registry.reload()
            await asyncio.sleep(0.3)
            done.set()
            await asyncio.gather(*tasks)
            s = registries[0]["s"]
            assert {key: int(await s.get(key) or 0) for key in counted} == counted
            for session in gone:
                assert await s.get(session) is None

    asyncio.run(main())
