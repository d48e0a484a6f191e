"""A process that uses a store under load, follows its layout, and writes down each call: when it began and ended.

``python -m tests.moving.worker LAYOUT LOG NUMBER`` runs until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

import storeconf

if TYPE_CHECKING:
    from storeconf import Store

SHARED = [f"shared{number}" for number in range(6)]
COUNTERS = [f"counter{number}" for number in range(4)]
VISITS = [f"visits{number}" for number in range(2)]
TASKS = 3


class Log:
    """Lines of JSON, each written at once, so that those of a process that is killed are there."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._calls = 0

    def write(self, **fields: Any) -> None:
        os.write(self._fd, json.dumps(fields).encode() + b"\n")

    async def call(self, store: Store, operation: str, key: str, *arguments: Any, **options: Any) -> Any:
        """Make a call, and note it."""
        self._calls += 1
        number = self._calls
        self.write(begin=time.monotonic(), call=number, key=key, operation=operation, arguments=arguments)
        given = [None if each is None else each.encode() for each in arguments]
        result = await getattr(store, operation)(key, *given, **options)
        if isinstance(result, bytes):
            result = result.decode(errors="backslashreplace")
        self.write(end=time.monotonic(), call=number, result=result)
        return result


class Reloads(logging.Handler):
    """Notes when the process has followed its layout."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO:
            self._log.write(note=record.getMessage())
        else:
            self._log.write(fault=record.getMessage())


async def use(store: Store, log: Log, name: str, ended: asyncio.Event) -> None:
    """Log in, stay logged in, log out; count; and compete for what is shared."""
    turn = 0
    sessions: list[str] = []
    while not ended.is_set():
        turn += 1
        session = f"session{name}-{turn}"
        await log.call(store, "set", session, f"user of {session}", expires_in=600)
        sessions.append(session)
        await log.call(store, "get", random.choice(sessions), renew_for=600)
        if len(sessions) > 5:
            await log.call(store, "delete", sessions[random.randrange(5)])
            await log.call(store, "get", sessions.pop(random.randrange(5)))
        await log.call(store, "increment", random.choice(COUNTERS))
        # Counters that end and begin again: making an entry is a way of its own.
        await log.call(store, "increment", visits := random.choice(VISITS))
        await log.call(store, random.choice(["delete", "pop", "get"]), visits)
        key, value = random.choice(SHARED), f"{name}-{turn}"
        chosen = random.randrange(6)
        if chosen == 0:
            await log.call(store, "set", key, value)
        elif chosen == 1:
            await log.call(store, "delete", key)
        elif chosen == 2:
            await log.call(store, "add", key, value, expires_in=600)
        elif chosen == 3:
            await log.call(store, "pop", key)
        elif (there := await log.call(store, "get", key)) is not None or chosen == 4:
            await log.call(store, "compare_and_set", key, there, value)
        await asyncio.sleep(random.uniform(0.01, 0.03))


async def main(layout: str, path: str, number: str) -> None:
    log = Log(path)
    logging.getLogger("storeconf").addHandler(Reloads(log))
    logging.getLogger("storeconf").setLevel(logging.INFO)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    registry = storeconf.load(layout, environ={})
    async with registry, storeconf.watch(registry, interval=0.05):
        store = registry.get("s")
        log.write(note="started")
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(use(store, log, f"{number}.{task}", ended))
    log.write(note="ended")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
