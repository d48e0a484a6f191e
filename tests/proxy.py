"""A proxy in the test's own event loop that harms what passes, and one that ends TLS for servers that have none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


class Proxy:
    """Passes bytes between clients and the server on ``port``, harmed as the attributes say."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.delay = 0.0
        """Seconds by which replies come later."""
        self.cut_after: int | None = None
        """Bytes of replies after which every connection is cut."""
        self.have_cut = asyncio.Event()
        self.garbage: bytes | None = None
        """What is sent to clients in place of the next reply."""
        self.part_size: int | None = None
        """Bytes of requests that are passed on at once, None for all that have come."""
        self.reading = asyncio.Event()
        """While cleared, nothing is read from clients."""
        self.reading.set()

    async def __aenter__(self) -> Proxy:
        await self._listen()
        return self

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=1 << 16)
        self.port = self._server.sockets[0].getsockname()[1]

    async def use(self, tls: ssl.SSLContext) -> None:
        """Shake hands in another way from now on; connections stay."""
        self._tls = tls
        self._server.close()
        await self._listen()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reading.set()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.05)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Cut all connections now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.add(writer)
        back: asyncio.StreamWriter | None = None
        try:
            server, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, back))
                group.create_task(self._return(server, writer))
        except* (OSError, _EndedError):
            pass
        finally:
            self._tasks.discard(task)
            for side in (writer, back):
                if side is not None:
                    self._writers.discard(side)
                    side.transport.abort()
                    with suppress(OSError):
                        await side.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.reading.wait()
            data = await reader.read(1 << 16)
            if not data:
                raise _EndedError
            for at in range(0, len(data), self.part_size or len(data)):
                writer.write(data[at : at + (self.part_size or len(data))])
                await writer.drain()
                if self.part_size is not None:
                    await asyncio.sleep(0)

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.garbage is not None:
                data, self.garbage = self.garbage, None
            if self.cut_after is not None:
                data, self.cut_after = data[: self.cut_after], max(0, self.cut_after - len(data))
            writer.write(data)
            await writer.drain()
            if self.cut_after == 0:
                self.cut_after = None
                self.have_cut.set()
                raise _EndedError
        raise _EndedError


class _EndedError(Exception):
    """One side is gone, so the other one goes as well."""
