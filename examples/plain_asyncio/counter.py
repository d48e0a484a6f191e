"""Plain asyncio: a server of lines that counts its visitors, without any framework."""

import asyncio
from functools import partial
from pathlib import Path

import storeconf

LAYOUT = Path(__file__).with_name("storeconf.yaml")


async def visit(registry: storeconf.StoreRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = (await reader.readline()).decode().strip()
    visits = await registry["sessions"].increment(name, expires_in=3600)
    writer.write(f"{name} has been here {visits} times\n".encode())
    await writer.drain()
    writer.close()


async def serve(port: int, ready: asyncio.Event | None = None) -> None:
    async with storeconf.load(LAYOUT) as registry:
        server = await asyncio.start_server(partial(visit, registry), "127.0.0.1", port)
        async with server:
            if ready is not None:
                ready.set()
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(8000))
