"""The part of memcached's meta protocol that the store uses, for machines without memcached: ``server.py PORT``."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

LIMIT = 1 << 20

items: dict[bytes, tuple[bytes, float, int]] = {}
versions = itertools.count(1)


def live(key: bytes) -> tuple[bytes, float, int] | None:
    found = items.get(key)
    return found if found is not None and found[1] > time.time() else None


def answer(command: bytes, key: bytes, flags: dict[str, str], data: bytes) -> bytes:
    found = live(key)
    if command == b"mg":
        return b"EN\r\n" if found is None else b"VA %d c%d\r\n%b\r\n" % (len(found[0]), found[2], found[0])
    if flags.get("M") == "E":
        if found is not None:
            return b"NS\r\n"
    elif "C" in flags and (found is None or found[2] != int(flags["C"])):
        return b"NF\r\n" if found is None else b"EX\r\n"
    if command == b"md":
        items.pop(key, None)
        return b"NF\r\n" if found is None else b"HD\r\n"
    if len(data) > LIMIT:
        return b"SERVER_ERROR object too large for cache\r\n"
    seconds = int(flags.get("T", 0))
    end = float("inf") if not seconds else seconds if seconds > 30 * 86_400 else time.time() + seconds
    items[key] = (data, end, next(versions))
    return b"HD\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        command, *words = line.split()
        if command == b"version":
            writer.write(b"VERSION 1.6.0-test\r\n")
            continue
        key, *rest = words
        if len(key) > 250:
            writer.write(b"CLIENT_ERROR bad command line format\r\n")
            continue
        data = (await reader.readexactly(int(rest.pop(0)) + 2))[:-2] if command == b"ms" else b""
        flags = {word[:1].decode(): word[1:].decode() for word in rest}
        writer.write(answer(command, key, flags, data))
        await writer.drain()
    writer.close()


async def main() -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 21) as server:
        await server.serve_forever()


asyncio.run(main())
