"""``mirror`` while stores close, layouts are reloaded, event loops end, and processes fork."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import storeconf
from storeconf import MemoryStore, StoreUnavailableError
from tests.above.backends import in_loop
from tests.middleware.mirroring import Slow, layout, mirrored, repeated, report_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


@in_loop
async def test_closing_lets_the_rest_be_repeated(tmp_path: Path) -> None:
    registry = layout(
        main={"type": "memory", "middleware": {"mirror": "other"}}, other={"type": "file", "path": str(tmp_path)}
    )
    async with registry:
        for number in range(300):
            await registry["main"].set(f"k{number}", b"v")
        assert report_of(registry["main"]).pending
    report = report_of(registry["main"])
    assert (report.calls, report.dropped, report.pending) == (300, 0, 0)
    async with registry:
        assert len([key async for key in registry["other"].keys()]) == 300


@in_loop
async def test_closing_does_not_wait_for_a_mirror_that_is_gone() -> None:
    class Gone(MemoryStore):
        async def set(self, *args: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0.01)
            raise StoreUnavailableError("the line is cut")

    other = Gone()
    store = mirrored(other)
    async with other:
        for number in range(3000):
            await store.set(f"k{number}", b"v")
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 2
    report = report_of(store)
    assert not report.pending
    assert report.dropped > 2900
    await store.set("new", b"v")
    assert report_of(store).dropped == report.dropped + 1


@in_loop
async def test_a_reload_keeps_what_waits_and_what_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "storeconf.yaml"
    mirror = "main: {type: memory, middleware: {mirror: {store: other, percent: %s}}}\n  other: {type: file, path: var}"
    file.write_text(f"stores:\n  {mirror % 100}\n")
    registry = storeconf.load(file, environ={})
    async with registry:
        main = registry["main"]
        for number in range(200):
            await main.set(f"k{number}", str(number))
        await registry.reload()
        assert report_of(main).calls + report_of(main).pending == 200
        file.write_text(f"stores:\n  {mirror % 50}\n")
        await registry.reload()
        for number in range(200):
            await main.set(f"k{number}", b"again")
        first = await repeated(main)
        assert 50 < first.calls < 150
        assert not first.dropped
        assert first.differences == 0
        file.write_text("stores:\n  main: {type: memory}\n")
        for number in range(200):
            await main.set(f"k{number}", b"at last")
        await registry.reload()
        assert storeconf.mirror_report(main) is None
        other = storeconf.FileStore(tmp_path / "var")
        async with other:
            await_all = {f"k{number}" for number in range(200)}
            async with asyncio.timeout(20):
                while (found := await other.get_many(await_all)) and b"again" in found.values():
                    await asyncio.sleep(0.01)
            assert list(found.values()).count(b"at last") == first.calls


def test_calls_of_several_threads_and_loops_keep_the_order_of_each_key(tmp_path: Path) -> None:
    inner, other = MemoryStore(), storeconf.FileStore(tmp_path, create_directories=True)
    store = mirrored(other, inner)
    turn = [threading.Semaphore(1), *(threading.Semaphore(0) for _ in range(2))]

    async def work(number: int) -> None:
        for step in range(50):
            await asyncio.to_thread(turn[number].acquire)
            await store.set("k", f"{step}-{number}")
            turn[(number + 1) % 3].release()
        await repeated(store)

    threads = [threading.Thread(target=lambda at=at: asyncio.run(work(at))) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def last() -> bytes | None:
        try:
            return await other.get("k")
        finally:
            await other.aclose()

    assert asyncio.run(last()) == b"49-2"
    report = report_of(store)
    assert (report.calls, report.dropped, report.errors) == (150, 0, 0)


def test_threads_that_want_the_same_keys_make_no_differences() -> None:
    store = mirrored(MemoryStore())
    calls: list[Callable[[str], Coroutine[Any, Any, Any]]] = [
        *(lambda key: store.get(key), lambda key: store.set(key, "1"), lambda key: store.increment(key)),
        *(lambda key: store.delete(key), lambda key: store.add(key, "1"), lambda key: store.get_many([key, "0"])),
        *(lambda key: store.set_many({key: "1", "0": "2"}), lambda key: store.pop(key), lambda key: store.delete_all()),
    ]

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(500):
            await chance.choices(calls, weights=[8] * 8 + [1])[0](str(chance.randrange(8)))
        await repeated(store)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=lambda at=at: asyncio.run(work(at))) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    report = report_of(store)
    assert (report.differences, report.errors, report.dropped, report.pending) == (0, 0, 0, 0)
    assert report.compared > 100


@in_loop
async def test_many_deletions_of_everything_wait_in_bounded_memory_and_in_order() -> None:
    inner, other = MemoryStore(), Slow()
    store = mirrored(other, inner)
    child = store.with_namespace("child")
    for number in range(300):
        await store.set(f"k{number}", "v")
        await child.set(f"k{number}", "v")
        await (child if number % 3 else store).delete_all()
        await child.set("k", str(number))
    lanes = store._pair._lanes  # type: ignore[attr-defined]  # of a MirrorStore
    links = sum(len(call.after) for lane in lanes for call in lane.calls)
    assert links < 4 * report_of(store).pending
    other.gate.set()
    report = await repeated(store)
    assert (report.calls, report.differences, report.dropped) == (1200, 0, 0)
    for mine, its in ((inner, other), (inner.with_namespace("child"), other.with_namespace("child"))):
        assert [(key, await mine.get(key)) async for key in mine.keys()] == [
            (key, await its.get(key)) async for key in its.keys()
        ]
    await other.aclose()


def test_a_loop_that_ends_leaves_nothing_behind() -> None:
    other = Slow()
    store = mirrored(other)

    async def ends() -> None:
        for number in range(50):
            await store.set(f"k{number}", b"v")
        await store.delete_all()
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(ends())
    assert asyncio.all_tasks(loop) == set()  # none has begun while the loop ended
    assert report_of(store).pending == 0
    assert report_of(store).dropped > 0


def test_a_forked_child_leaves_what_waits_to_its_parent() -> None:
    other = Slow()
    store = mirrored(other)

    async def child() -> int:
        other.gate = asyncio.Event()
        other.gate.set()
        await store.set("child", b"v")
        report = await repeated(store)
        return report.calls + 10 * report.dropped

    async def parent() -> int:
        for number in range(20):
            await store.set(f"k{number}", b"v")
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            try:
                os._exit(asyncio.run(child()))
            finally:
                os._exit(99)
        other.gate.set()
        await repeated(store)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert asyncio.run(parent()) == 1
    report = report_of(store)
    assert (report.calls, report.dropped) == (20, 0)
