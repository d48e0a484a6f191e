"""examples/plain_asyncio does over its port what it claims, on every backend."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.examples.pages import Pages, pages, servers
from tests.servers import free_port

__all__ = ["pages", "servers"]

DIRECTORY = "plain_asyncio"


async def say(port: int, name: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{name}\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


def test_counter(pages: Pages) -> None:
    page = pages("counter")

    async def main() -> None:
        port, ready = free_port(), asyncio.Event()
        server = asyncio.create_task(page.serve(port, ready))
        await ready.wait()
        answers = await asyncio.gather(*(say(port, "Ada") for _ in range(5)))
        assert sorted(answers) == [f"Ada has been here {number} times\n" for number in range(1, 6)]
        server.cancel()
        with suppress(asyncio.CancelledError):
            await server

    asyncio.run(main())
