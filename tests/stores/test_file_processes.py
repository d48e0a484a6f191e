"""The file store between processes, and when they are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf import FileStore, StoreTimeoutError
from storeconf.stores.file import operations, system
from tests.history import Call, unfinished, violations
from tests.stores import file_children
from tests.stores.file_children import number, places, store, value

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["cached", "thread"])
def _read_both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with what this process reads in its event loop, once without."""
    if request.param == "thread":
        monkeypatch.setattr(system, "cached_open", None)


@contextmanager
def program(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.stores.file_children", name, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def debris(directory: Path) -> list[Path]:
    return list((directory / "storeconf.spare").iterdir())


@pytest.mark.usefixtures("_read_both_ways")
@pytest.mark.slow
@pytest.mark.parametrize("durability", ["flush", "fsync"])
def test_a_writer_killed_at_any_time_leaves_old_or_new(
    tmp_path: Path, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "data"

    async def look() -> list[int]:
        async with store(str(directory)) as root:
            found = [await place.get("k") for place in places(root)]
        return [0 if each is None else number(each) for each in found]

    told = 0
    for turn in range(8):
        with program("write", directory, durability, told) as child:
            told = int(line(child))
            # The kill comes at another place of the writer's work each time.
            deadline = time.monotonic() + 0.003 * turn
            while time.monotonic() < deadline:
                told = int(line(child))
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            for rest in child.stdout.read().split("\n")[:-1]:
                told = int(rest)
        found = asyncio.run(look())
        assert all(told <= each <= told + 1 for each in found), (told, found)
        assert not debris(directory)
        told = max(found)
    assert not caplog.records
    names = [path for path in directory.rglob("*") if path.is_file()]
    assert len(names) == len(file_children.PLACES) + 2  # and the format and the lock


def test_four_processes_count_exactly(tmp_path: Path) -> None:
    directory, times, children = tmp_path / "data", 60, 4

    async def prepare() -> None:
        async with store(str(directory)) as root:
            await root.set_many({f"pop{turn}": str(turn) for turn in range(times)})

    async def check() -> None:
        async with store(str(directory)) as root:
            counters = await root.get_many([f"n{key}" for key in range(4)])
            assert sum(map(int, counters.values())) == times * children
            assert [key async for key in root.keys("pop")] == []

    asyncio.run(prepare())
    told: Counter[str] = Counter()
    running = [program("count", directory, times) for _ in range(children)]
    processes = [each.__enter__() for each in running]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            told.update(output.split("\n")[:-1])
    finally:
        for each in running:
            each.__exit__(None, None, None)
    assert told == Counter([f"{did} {turn}" for did in ("added", "popped") for turn in range(times)])
    asyncio.run(check())


def test_opening_and_closing_beside_each_other(tmp_path: Path) -> None:
    """Nobody takes what another has just made for debris; the first ones make the directory at once."""
    directory, times, children = tmp_path / "data", 30, 4

    async def check() -> None:
        async with store(str(directory)) as root:
            assert await root.get("n") == b"%d" % (times * children)
            assert not debris(directory)

    running = [program("reopen", directory, times) for _ in range(children)]
    processes = [each.__enter__() for each in running]
    try:
        assert [process.wait(60) for process in processes] == [0] * children
    finally:
        for each in running:
            each.__exit__(None, None, None)
    asyncio.run(check())


@pytest.mark.usefixtures("_read_both_ways")
@pytest.mark.slow
def test_nobody_reads_a_mixture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "data"

    async def read(children: list[subprocess.Popen[str]]) -> int:
        reads = 0
        async with store(str(directory)) as root:
            await root.set_many({f"k{key}": value(1) for key in range(4)})
            while any(child.poll() is None for child in children):
                for found in (await root.get_many([f"k{key}" for key in range(4)] * 20)).values():
                    number(found)
                    reads += 1
                assert await root.exists("k0")
                assert {key async for key in root.keys()} == {"k0", "k1", "k2", "k3"}
        return reads

    with program("churn", directory, 1.5, 0) as one, program("churn", directory, 1.5, 500) as other:
        assert asyncio.run(read([one, other])) > 100
        assert (one.wait(), other.wait()) == (0, 0)
    assert not caplog.records


@pytest.mark.usefixtures("_read_both_ways")
@pytest.mark.slow
def test_reading_never_goes_back_in_time(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    async def read(child: subprocess.Popen[str]) -> int:
        last = changes = 0
        async with store(str(directory)) as root:
            while child.poll() is None:
                found = await root.get("k")
                seen = 0 if found is None else number(found)
                assert seen >= last
                changes += seen != last
                last = seen
        return changes

    with program("ascend", directory, 1.5) as child:
        assert asyncio.run(read(child)) > 10
        assert child.wait() == 0


def calls_in(lines: list[str]) -> Iterator[Call]:
    """The calls that a child wrote down; those that it was killed in have no end."""
    begun: dict[str, tuple[float, str, str, tuple[str, ...]]] = {}
    for each in lines:
        if each.startswith("["):
            kind, name, moment, *rest = json.loads(each)
            if kind == "begin":
                key, operation, arguments = rest
                begun[name] = (moment, key, operation, tuple(arguments))
            else:
                begin, key, operation, arguments = begun.pop(name)
                yield Call(begin, moment, key, operation, arguments, rest[0])
    yield from (unfinished(*each) for each in begun.values())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cached", "thread"])
@pytest.mark.parametrize("disk", [True, False])
def test_what_several_processes_saw_has_an_order(tmp_path: Path, way: str, disk: bool) -> None:
    """Three places: the loop reads; it also writes, in memory; the thread does all."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=tmp_path if disk or not memory.is_dir() else memory) as directory,
        ExitStack() as stack,
    ):
        children = [stack.enter_context(program("record", directory, way, seed, 200)) for seed in range(3)]
        outputs: list[list[str]] = [[] for _ in children]
        for child in children:
            assert line(child) == "ready"

        async def begin() -> None:
            async with store(directory) as root:
                await root.set("go", b"1")

        asyncio.run(begin())
        for _ in range(100):  # then one dies, at a moment that the others decide
            outputs[0].append(line(children[0]))
        children[0].send_signal(signal.SIGKILL)
        for child, output in zip(children, outputs, strict=True):
            assert child.stdout is not None
            whole, _, _ = child.stdout.read().rpartition("\n")
            output += whole.split("\n")
        calls = [each for output in outputs for each in calls_in(output)]
        assert outputs[1][-1] == outputs[2][-1] == "ends"
        assert len(calls) > 800
        assert not violations(calls)


def test_delete_all_that_is_killed_leaves_whole_entries_and_no_debris(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "data"

    async def fill() -> None:
        async with store(str(directory)) as root:
            for place in places(root):
                await place.set_many({f"k{key}": b"v" for key in range(300)})

    async def check() -> None:
        async with store(str(directory)) as root:
            assert not debris(directory) or len(debris(directory)) == 1
            for place in places(root):
                for key in [key async for key in place.keys()]:
                    assert await place.get(key) == b"v"
            await root.delete_all()
            assert [[key async for key in place.keys()] for place in places(root)] == [[]] * len(places(root))
        assert sorted(path.name for path in directory.iterdir()) == [
            "storeconf.format",
            "storeconf.lock",
            "storeconf.spare",
        ]

    asyncio.run(fill())
    with program("clear", directory) as child:
        assert line(child) == "begins"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if sum(name.endswith(".kv") for _, _, names in os.walk(directory) for name in names) <= 1000:
                break
        child.kill()
    asyncio.run(check())
    assert not caplog.records


def test_a_process_that_stops_while_it_holds_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other keys are not affected, reading neither; writing that key fails in the end, and works when it is dead."""
    directory = tmp_path / "data"
    monkeypatch.setattr(operations, "_PATIENCE", 0.2)

    async def main(child: subprocess.Popen[str]) -> None:
        async with store(str(directory)) as root:
            waiting = asyncio.ensure_future(root.set("k", b"new"))
            await root.set("other", b"v")
            assert await root.get("k") is None
            assert not waiting.done()
            with pytest.raises(StoreTimeoutError, match="another process") as caught:
                await waiting
            assert (caught.value.operation, caught.value.outcome_unknown) == ("set", False)
            with pytest.raises(StoreTimeoutError):
                await root.set_many({"k": b"1"})
            child.kill()
            child.wait()
            await root.set("k", b"new")
            assert await root.get("k") == b"new"

    with program("hold", directory) as child:
        assert line(child) == "holds"
        asyncio.run(main(child))


def test_a_lock_that_comes_free_is_taken(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    async def main(child: subprocess.Popen[str]) -> None:
        async with FileStore(directory) as root:
            waiting = asyncio.gather(root.increment("k"), root.increment("k"), root.delete_all(), root.increment("x"))
            await root.set("other", b"v")
            child.kill()
            await waiting

    with program("hold", directory) as child:
        assert line(child) == "holds"
        asyncio.run(main(child))


def test_the_debris_of_the_dead_is_swept_and_that_of_the_living_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    async def main() -> None:
        with program("write", directory, "flush", 0) as child:
            assert line(child)
            async with store(str(directory)) as root:
                living = debris(directory)
                assert living
                assert line(child)
                child.kill()
                child.wait()
                assert sorted(debris(directory)) == sorted(living)
                await root.delete_expired()
                assert not debris(directory)
        async with store(str(directory)):
            assert not debris(directory)

    asyncio.run(main())
