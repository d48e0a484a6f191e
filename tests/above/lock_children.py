"""Holders of a lock in processes of their own, and a resource that checks fencing tokens. Run as a module."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import storeconf
from storeconf import StoreLockLostError, lock

if TYPE_CHECKING:
    from collections.abc import Iterator


class Resource:
    """A file that takes writes with a token, and refuses those with one below the highest it has seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with suppress(FileExistsError), path.open("x"):
            pass

    def write(self, token: int) -> bool:
        """Write; whether the resource took it."""
        with self.path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            taken = [json.loads(line) for line in file]
            if taken and taken[-1][0] > token:
                return False
            file.write(json.dumps([token, os.getpid()]) + "\n")
            return True

    def accepted(self) -> list[tuple[int, int]]:
        """The token and the process of each write, in order."""
        return [(token, pid) for token, pid in map(json.loads, self.path.read_text().splitlines())]


async def hold(settings: dict[str, Any], resource: Resource, lease: float, how: str) -> None:
    """Take the lock and write now and then; ``how`` says whether between the writes the event loop runs."""
    async with storeconf.load(settings, environ={}) as registry:
        with suppress(StoreLockLostError):
            async with lock(registry["s"], "job", lease=lease) as held:
                print("holds", held.token, flush=True)
                end = time.monotonic() + 60
                while time.monotonic() < end:
                    print("wrote" if resource.write(held.token) else "refused", held.token, flush=True)
                    if how == "blocking":
                        time.sleep(0.02)  # so that nothing can cancel the body
                    else:
                        await asyncio.sleep(0.02)
        print("lost", flush=True)


async def take(settings: dict[str, Any], resource: Resource, lease: float, times: int) -> None:
    """Take the lock several times; write twice each time, with a pause between in which another one may come."""
    async with storeconf.load(settings, environ={}) as registry:
        for _ in range(times):
            with suppress(StoreLockLostError):
                async with lock(registry["s"], "job", lease=lease) as held:
                    resource.write(held.token)
                    await asyncio.sleep(0.002)
                    resource.write(held.token)


class Child:
    """A holder in a process of its own."""

    def __init__(self, settings: dict[str, Any], resource: Resource, lease: float, how: str) -> None:
        arguments = json.dumps([settings, str(resource.path), lease, how])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.above.lock_children", arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._lines: IO[str] = self._process.stdout
        self.pid = self._process.pid

    def wait_for(self, word: str) -> str:
        """Read what it prints until a line begins with that word; the rest of that line."""
        for line in self._lines:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"the child ended without {word!r}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end."""
        self._lines.close()
        return self._process.wait(30)


@contextmanager
def child(settings: dict[str, Any], resource: Resource, lease: float, how: str = "yielding") -> Iterator[Child]:
    """A holder, which is killed in the end."""
    started = Child(settings, resource, lease, how)
    try:
        yield started
    finally:
        started.signal(signal.SIGKILL)
        started.end()


if __name__ == "__main__":
    settings, path, lease, how = json.loads(sys.argv[1])
    work = (
        take(settings, Resource(Path(path)), lease, 25)
        if how == "taking"
        else hold(settings, Resource(Path(path)), lease, how)
    )
    asyncio.run(work)
