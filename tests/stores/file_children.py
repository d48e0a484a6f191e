"""Programs that the file store's tests run in processes of their own: ``file_children.py NAME DIRECTORY ...``."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Literal, cast

from storeconf import FileStore, Store

Durability = Literal["flush", "fsync"]
PLACES = [(), ("a",), ("a", "B"), ("a_b",)]


def store(directory: str, durability: str = "flush") -> FileStore:
    return FileStore(directory, create_directories=True, durability=cast("Durability", durability))


def places(root: Store) -> list[Store]:
    found = []
    for path in PLACES:
        place = root
        for name in path:
            place = place.with_namespace(name)
        found.append(place)
    return found


def value(number: int) -> bytes:
    """A value whose every part tells the number, of a length that changes with it."""
    return b"%d;" % number * (1 + number * 37 % 400)


def number(value: bytes) -> int:
    """The number of a whole value; AssertionError for any other."""
    found = int(value.split(b";", 1)[0])
    assert value == b"%d;" % found * (1 + found * 37 % 400)
    return found


async def write(directory: str, durability: str, start: str) -> None:
    """Set every key to one number after another, and tell each number when all keys have it."""
    turn = int(start)
    async with store(directory, durability) as root:
        while True:
            turn += 1
            await asyncio.gather(*(place.set("k", value(turn)) for place in places(root)))
            print(turn, flush=True)


async def count(directory: str, times: str) -> None:
    """Increment, add and pop beside others; tell what was added and popped."""
    async with store(directory) as root:
        await root.increment("ready")
        for turn in range(int(times)):
            await root.increment(f"n{turn % 4}")
            if await root.add(f"add{turn}", b"x"):
                print("added", turn)
            popped = await root.pop(f"pop{turn}")
            if popped is not None:
                print("popped", popped.decode())


async def churn(directory: str, seconds: str, seed: str) -> None:
    """Set a few keys to values of many lengths, as fast as possible."""
    end = time.monotonic() + float(seconds)
    turn = int(seed)
    async with store(directory) as root:
        while time.monotonic() < end:
            turn += 1
            await asyncio.gather(*(root.set(f"k{key}", value(turn)) for key in range(4)))


async def ascend(directory: str, seconds: str) -> None:
    """Set one key to rising numbers, so that the spare file always was the same key's."""
    end = time.monotonic() + float(seconds)
    turn = 0
    async with store(directory) as root:
        while time.monotonic() < end:
            turn += 1
            await root.set("k", value(turn))


async def reopen(directory: str, times: str) -> None:
    """Open and close, with a write and a sweep in between."""
    for turn in range(int(times)):
        async with store(directory) as root:
            await root.set("k", value(turn))
            await root.increment("n")
            await root.delete_expired()


async def clear(directory: str) -> None:
    """Delete everything, and tell that it begins."""
    async with store(directory) as root:
        print("begins", flush=True)
        await root.delete_all()
        print("ends", flush=True)


async def hold(directory: str) -> None:
    """Hold the lock of a key until it is killed."""
    from storeconf.stores.file.directory import Directory
    from storeconf.stores.file.writing import EntryWriter

    place = Directory(directory, create=True, fsync=False, mode=0o700)
    place.open()
    with EntryWriter(place).entry((), "k"):
        print("holds", flush=True)
        await asyncio.Event().wait()


async def record(directory: str, way: str, seed: str, times: str) -> None:
    """Make random calls on three keys, and write down when each began and ended, and its result."""
    from storeconf.stores.file import system

    if way == "thread":
        system.cached_open = None
    async with store(directory) as root:
        print("ready", flush=True)
        while not await root.exists("go"):
            await asyncio.sleep(0.001)
        await asyncio.gather(*(_record(root, f"{seed}.{task}", int(times)) for task in range(2)))
    print("ends", flush=True)


async def _record(root: FileStore, name: str, times: int) -> None:
    chance = random.Random(name)
    seen: str | None = None
    for turn in range(times):
        key = chance.choice(["a", "b", "n"])
        operation, arguments = chance.choice(
            [("get", ()), ("increment", ()), ("pop", ()), ("delete", ())]
            if key == "n"
            else [
                ("get", ()),
                ("get", ()),
                ("set", (f"{name}:{turn}",)),
                ("add", (f"{name}:{turn}",)),
                ("compare_and_set", (seen, f"{name}:{turn}")),
                ("pop", ()),
                ("delete", ()),
            ]
        )
        print(json.dumps(["begin", name, time.monotonic(), key, operation, arguments]), flush=True)
        result = await getattr(root, operation)(key, *arguments)
        end = time.monotonic()
        if isinstance(result, bytes):
            result = result.decode()
        if operation == "get":
            seen = result
        print(json.dumps(["end", name, end, result]), flush=True)
        if chance.random() < 0.3:
            await asyncio.sleep(0)


PROGRAMS = {program.__name__: program for program in (write, count, churn, ascend, reopen, clear, hold, record)}

if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
