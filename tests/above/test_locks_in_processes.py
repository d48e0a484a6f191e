"""Locks between processes: killed and frozen holders, and a resource that never takes the writes of two holders."""

from __future__ import annotations

import asyncio
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from storeconf import StoreLockBusyError, lock
from tests.above.backends import SHARED, in_loop, layout, load
from tests.above.lock_children import Child, Resource, child

if TYPE_CHECKING:
    from pathlib import Path

LEASE = 0.6


@pytest.mark.parametrize("backend", SHARED)
@in_loop
async def test_a_killed_holder_lets_the_next_one_in_when_its_lease_ends(backend: str, tmp_path: Path) -> None:
    settings, resource = layout(backend, tmp_path), Resource(tmp_path / "resource")
    async with load(settings) as registry:
        with child(settings, resource, LEASE) as holder:
            first = int(holder.wait_for("holds"))
            holder.wait_for("wrote")
            with pytest.raises(StoreLockBusyError):
                async with lock(registry["s"], "job", lease=LEASE, wait=1.5 * LEASE):  # the lease is renewed
                    pass
            holder.signal(signal.SIGKILL)
        killed = time.monotonic()
        async with lock(registry["s"], "job", lease=LEASE, wait=20) as held:
            assert time.monotonic() - killed < LEASE + 5
            assert held.token > first
            assert resource.write(held.token)
    tokens = [token for token, _ in resource.accepted()]
    assert tokens == sorted(tokens)


@pytest.mark.parametrize("how", ["yielding", "blocking"])
@pytest.mark.parametrize("backend", SHARED)
@in_loop
async def test_a_holder_that_was_frozen_writes_nothing_after_the_next_one(
    backend: str, how: str, tmp_path: Path
) -> None:
    settings, resource = layout(backend, tmp_path), Resource(tmp_path / "resource")
    async with load(settings) as registry:
        with child(settings, resource, LEASE, how) as holder:
            first = int(holder.wait_for("holds"))
            holder.wait_for("wrote")
            holder.signal(signal.SIGSTOP)
            async with lock(registry["s"], "job", lease=LEASE, wait=20) as held:
                assert held.token > first
                assert resource.write(held.token)
                holder.signal(signal.SIGCONT)
                # A body that lets the loop run is cancelled; one that blocks it is stopped by its token alone.
                await asyncio.to_thread(holder.wait_for, "lost" if how == "yielding" else "refused")
                assert resource.write(held.token)
    accepted = [token for token, _ in resource.accepted()]
    assert accepted == sorted(accepted)
    assert resource.accepted()[-1][0] == held.token


@pytest.mark.parametrize("backend", SHARED)
def test_tokens_grow_with_every_holder_though_processes_freeze(backend: str, tmp_path: Path) -> None:
    """Leases end all the time, because each process is stopped now and then for longer than that."""
    settings, resource = layout(backend, tmp_path), Resource(tmp_path / "resource")
    children = [Child(settings, resource, 0.08, "taking") for _ in range(3)]
    try:
        for turn in range(12):
            stopped = children[turn % 3]
            seen = len(resource.accepted())
            stopped.signal(signal.SIGSTOP)
            deadline = time.monotonic() + 1
            while len(resource.accepted()) < seen + 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            stopped.signal(signal.SIGCONT)
        assert [each.end() for each in children] == [0, 0, 0]
    finally:
        for each in children:
            each.signal(signal.SIGKILL)
            each.end()
    accepted = resource.accepted()
    assert len(accepted) > 20
    assert all(one[0] < other[0] or one == other for one, other in pairwise(accepted)), "one holder per token, in order"
