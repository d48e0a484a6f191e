"""Bytes in and out without blocking the event loop, and the file of a dump.

A pipe may block its reader or writer, and Ctrl-C must still work. A thread would not do: `asyncio.run` waits for it
when it ends, however long the pipe blocks.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import select
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

__all__ = ["lines_of", "new_file", "put"]

_CHUNK = 1 << 18

_PIECE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which is ready takes without making anyone wait."""

_FIRST_LINE = 1 << 16
"""Bytes of the longest first line; a stream with a longer one is not text."""


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

    def on_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        watch(fd, on_ready)
    except (PermissionError, NotImplementedError):
        return False
    try:
        await ready
    finally:
        unwatch(fd)
    return True


# ---------------------------------------------------------------------- files


@contextmanager
def new_file(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file that gets its name when it is complete, and the name that it has until then; only its owner may read it.

    If the block raises, or the process ends, the file stays beside ``path``, under a name that ends in ``.partial``.
    Raises FileExistsError if there is a file of that name, at the start or, with ``filename2`` set, by the end.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    partial = f"{path}.{secrets.token_hex(4)}.partial"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(fd, "wb", buffering=0) as stream:
            yield stream, partial
            os.fsync(fd)
        _publish(partial, path)
    finally:
        with suppress(FileNotFoundError):
            if not os.path.getsize(partial):
                os.unlink(partial)


def _publish(partial: str, path: str) -> None:
    """Give a complete file its name; a file that has been made under that name since is never replaced."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), partial, None, path) from None
        os.rename(partial, path)
    else:
        os.unlink(partial)
    if hasattr(os, "O_DIRECTORY"):
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
