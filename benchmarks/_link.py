"""The bare link: what a client on one connection can do at most, against which the store's own work is measured.

One `asyncio.Protocol` with hiredis. It sends what the store sends, packed by formatting bytes, and the commands of
one turn of the event loop together. It knows no time limits, no reconnecting and no back-pressure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis


class Link(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._packed: list[bytes] = []
        self._transport: Any = None

    @classmethod
    async def connect(cls, port: int) -> Link:
        """Connect to a server on loopback."""
        _, link = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return link

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            waiting.popleft().set_result(reply)

    def _call(self, command: bytes) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if not self._waiting:
            self._transport.write(command)
        else:
            if not self._packed:
                self._loop.call_soon(self._send)
            self._packed.append(command)
        self._waiting.append(future)
        return future

    def _send(self) -> None:
        self._transport.write(b"".join(self._packed))
        self._packed.clear()

    async def get(self, key: str) -> Any:
        """As the store's."""
        name = b"bare::" + key.encode()
        return await self._call(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))

    async def set(self, key: str, value: bytes, seconds: int) -> Any:
        """As the store's, with an expiry in milliseconds."""
        name, span = b"bare::" + key.encode(), b"%d" % (seconds * 1000)
        parts = (len(name), name, len(value), value, len(span), span)
        return await self._call(b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % parts)

    async def aclose(self) -> None:
        """Close the connection."""
        self._transport.close()
