"""One connection to memcached, which speaks its meta commands. All calls of an event loop share it.

Requests are written as they come, and replies come in their order, so each waits in a queue for its own. One whose
caller was cancelled stays in the queue, and its reply is read and dropped: no reply reaches anybody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Connection", "LostError", "Reply"]


class LostError(Exception):
    """The connection ended before the reply came."""


class Reply(NamedTuple):
    """A reply: its code (``HD``, ``VA``, ``EN``, ``NS``, ``EX``, ``NF``, or words of an error), its flags, a value."""

    code: str
    flags: dict[str, str]
    value: bytes = b""


class Connection:
    """An open connection, in the event loop in which it was opened."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self.lost: LostError | None = None
        self._task = asyncio.get_running_loop().create_task(self._receive())

    @classmethod
    async def open(cls, address: str) -> Connection:
        """Connect to ``host:port``, or to the Unix socket at a path."""
        if address.startswith("/"):
            return cls(*await asyncio.open_unix_connection(address))
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port)))

    def send(self, request: bytes) -> asyncio.Future[Reply]:
        """Send a request, and return the future of its reply."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self.lost is not None:
            reply.set_exception(LostError(*self.lost.args))
            return reply
        self._waiting.append(reply)
        self._writer.write(request)
        return reply

    async def _receive(self) -> None:
        reason = "it was closed"
        try:
            while True:
                reply = await self._read()
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(reply)
        except (OSError, EOFError, ValueError, IndexError) as error:
            reason = str(error) or type(error).__name__
        finally:
            self.lost = self.lost or LostError(reason)
            self._writer.transport.abort()
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(LostError(reason))

    async def _read(self) -> Reply:
        line = (await self._reader.readuntil(b"\r\n")).decode("ascii", "replace").split()
        if not line:
            raise ValueError("it sent an empty line")
        code, *words = line
        if code in ("CLIENT_ERROR", "SERVER_ERROR", "ERROR"):
            return Reply(" ".join(line), {})
        if code == "VERSION":
            return Reply(" ".join(words), {})
        value = b""
        if code == "VA":
            value = (await self._reader.readexactly(int(words.pop(0)) + 2))[:-2]
        return Reply(code, {word[0]: word[1:] for word in words}, value)

    def drop(self) -> None:
        """End it soon: the server no longer answers."""
        self.lost = LostError("it did not answer in time")
        self._task.cancel()

    async def close(self) -> None:
        """End it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([self._task])
