"""``refresh`` between processes: one computation for all, holders that fail or die, and outages."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf._arguments import LEASES
from tests.above.backends import KEY, SHARED, in_loop, layout, load
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CODED: dict[str, Any] = {"compress": {"min_size": 0, "algorithm": "gzip"}, "encrypt": {"keys": [KEY]}, "cache": "1h"}


def start(settings: dict[str, Any], directory: Path, hows: Sequence[str], delay: float) -> list[subprocess.Popen[str]]:
    moment = time.time() + delay
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.above.refresh_children", json.dumps([settings, str(directory), moment, how])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for how in hows
    ]


def results(children: Sequence[subprocess.Popen[str]]) -> list[str]:
    got = []
    for child in children:
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        got.append(output.split()[-1])
    return got


def runs(directory: Path) -> int:
    return len(list(directory.glob("run-*")))


@pytest.mark.parametrize("chain", [{}, CODED], ids=["alone", "coded"])
@pytest.mark.parametrize("backend", SHARED)
def test_one_process_computes_for_all(backend: str, chain: dict[str, Any], tmp_path: Path) -> None:
    settings = layout(backend, tmp_path, refresh={"shared": "30s"}, **chain)
    assert results(start(settings, tmp_path, ["working"] * 4, 2.5)) == ["made"] * 4
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("backend", SHARED)
def test_a_process_whose_factory_fails_lets_the_next_one_compute(backend: str, tmp_path: Path) -> None:
    settings = layout(backend, tmp_path, refresh={"shared": "60s"})
    children = start(settings, tmp_path, ["failing"] * 3, 2)
    begun = time.monotonic()
    assert results(children) == ["OSError"] * 3
    assert runs(tmp_path) == 3
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("backend", SHARED)
@in_loop
async def test_a_process_that_dies_delays_the_others_until_its_lease_ends(backend: str, tmp_path: Path) -> None:
    settings = layout(backend, tmp_path, refresh={"shared": "1s"})
    (child,) = start(settings, tmp_path, ["hanging"], 0)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "computes\n"
    child.kill()
    child.communicate()
    async with load(settings) as registry:
        begun = time.monotonic()
        assert await registry["s"].get_or_set("k", lambda: b"mine", 60) == b"mine"
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("backend", SHARED)
@in_loop
async def test_a_computation_longer_than_the_lease_runs_twice_at_most(backend: str, tmp_path: Path) -> None:
    settings = layout(backend, tmp_path, refresh={"shared": "300ms"})
    async with load(settings) as registry:
        leases = registry["s"].wrapped.with_namespace(LEASES)  # type: ignore[attr-defined]  # it is a wrapper
        await leases.set("k", b"another's, who renews it", 60)
        begun = time.monotonic()
        assert await registry["s"].get_or_set("k", lambda: b"mine", 60) == b"mine"
        assert 0.25 < time.monotonic() - begun < 5
        assert await leases.get("k") == b"another's, who renews it"


@in_loop
async def test_the_copy_is_served_while_another_process_computes(tmp_path: Path) -> None:
    settings = layout("valkey", tmp_path, refresh={"shared": "30s", "stale_if_error": "1h"})
    async with load(settings) as registry, load(settings) as other:
        await registry["s"].get_or_set("k", lambda: b"old", 0.05)
        while await registry["s"].exists("k"):
            await asyncio.sleep(0.01)
        may_end, begun = asyncio.Event(), asyncio.Event()

        async def slow() -> bytes:
            begun.set()
            await may_end.wait()
            return b"new"

        computing = asyncio.create_task(registry["s"].get_or_set("k", slow, 60))
        await begun.wait()
        assert await other["s"].get_or_set("k", lambda: pytest.fail("another one computes"), 60) == b"old"
        may_end.set()
        assert await computing == b"new"
        assert await other["s"].get_or_set("k", lambda: pytest.fail("it is there"), 60) == b"new"


@pytest.mark.parametrize("other", ["s", "child", "beside"])
@in_loop
async def test_a_newer_change_of_this_process_is_not_kept_waiting(other: str, tmp_path: Path) -> None:
    """A flight that a change has overtaken still computes, and its lease is taken over, through whatever chain."""
    refresh = {"refresh": {"shared": "60s"}}
    settings = layout("valkey", tmp_path, refresh={"shared": "60s"})
    settings["stores"]["child"] = {"parent": "s", "namespace": "below"}
    settings["stores"]["t"] = {"parent": "s", "namespace": "other", "middleware": refresh}
    async with load(settings) as registry:
        store = registry["s"]
        later = store
        if other == "child":
            store, later = store.with_namespace("below"), registry["child"]
        elif other == "beside":
            store, later = registry["t"], registry["s"].with_namespace("other")
        may_end, begun = asyncio.Event(), asyncio.Event()

        async def slow() -> bytes:
            begun.set()
            await may_end.wait()
            return b"overtaken"

        first = asyncio.create_task(store.get_or_set("k", slow, 60))
        await begun.wait()
        await later.delete("k")
        assert await asyncio.wait_for(later.get_or_set("k", lambda: b"newer", 60), 5) == b"newer"
        may_end.set()
        assert await first == b"overtaken"
        assert await store.get("k") == b"newer"
        assert not await store.wrapped.with_namespace(LEASES).exists("k")  # type: ignore[attr-defined]  # it is a wrapper


@pytest.mark.parametrize("policy", [{"on_error": "miss"}, {"fallback": "other"}])
@in_loop
async def test_in_an_outage_each_process_computes_for_itself(policy: dict[str, Any], tmp_path: Path) -> None:
    server = Server("valkey-9.1").start()
    root = {"type": "valkey", "url": server.url, "namespace": "a", "command_timeout": "0.3s", "connect_timeout": "0.3s"}
    chain = {**policy, "refresh": {"shared": "30s", "stale_if_error": "1h", "early": "20%"}}
    settings = {"stores": {"s": {**root, "middleware": chain}, "other": {"type": "memory"}}}
    async with storeconf.load(settings, environ={}) as registry:
        assert await registry["s"].get_or_set("k", lambda: b"before", 60) == b"before"
        server.stop()
        assert await registry["s"].get_or_set("k", lambda: b"mine", 60) == b"mine"
        expected = b"mine" if "fallback" in policy else b"again"
        assert await registry["s"].get_or_set("k", lambda: b"again", 60) == expected
