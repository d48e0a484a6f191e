"""Bytes in and out without holding up the event loop: a pipe may let one wait, and then Ctrl-C must still be heard."""

from __future__ import annotations

import asyncio
import os
import select
from io import UnsupportedOperation
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["lines_of", "put"]

_CHUNK = 1 << 18

_PIECE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which is ready takes without making anyone wait."""

_FIRST_LINE = 1 << 16
"""Bytes of a first line; what has a longer one is no text of lines."""


async def lines_of(stream: BinaryIO) -> AsyncGenerator[bytes]:
    """The lines of a stream with their ends; the last one may lack it."""
    rest: list[bytes] = []
    first = True
    while chunk := await _take(stream):
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*rest, line, b"\n"))
            rest, first = [], False
        rest.append(last)
        if first and sum(map(len, rest)) > _FIRST_LINE:
            break
    if line := b"".join(rest):
        yield line


async def put(stream: BinaryIO, content: bytes) -> None:
    """Write all of it."""
    fd = _descriptor(stream)
    if fd is None:
        stream.write(content)
        return
    loop = asyncio.get_running_loop()
    view = memoryview(content)
    while view:
        waits = await _ready(fd, loop.add_writer, loop.remove_writer)
        try:
            view = view[os.write(fd, view[:_PIECE] if waits else view) :]
        except BlockingIOError:
            continue


async def _take(stream: BinaryIO) -> bytes:
    fd = _descriptor(stream)
    if fd is None:
        return stream.read(_CHUNK)
    loop = asyncio.get_running_loop()
    while True:
        await _ready(fd, loop.add_reader, loop.remove_reader)
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            continue


def _descriptor(stream: BinaryIO) -> int | None:
    try:
        return stream.fileno()
    except UnsupportedOperation:
        return None


async def _ready(fd: int, watch: Callable[..., None], unwatch: Callable[[int], object]) -> bool:
    """Wait until the descriptor is ready; false at once for one that always is, as that of a file."""
    ready = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        watch(fd, tell)
    except (PermissionError, NotImplementedError):
        return False
    try:
        await ready
    finally:
        unwatch(fd)
    return True
