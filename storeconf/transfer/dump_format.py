"""The format of dumps, and their streams: bytes in and out without blocking the event loop.

A dump is one JSON object per line, with checksums, and a last line that shows if all are there.
docs/reference/dump-format.md describes it for other tools. Nothing here knows of stores.

A pipe may block its reader or writer, and Ctrl-C must still work. A thread would not do: `asyncio.run` waits for it
when it ends, however long the pipe blocks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import hashlib
import json
import os
import secrets
import select
import zlib
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from storeconf.store import check_name, key_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from datetime import datetime

__all__ = ["Address", "DumpError", "DumpReader", "DumpWriter", "DumpedEntry", "VERSION", "lines_of", "new_file", "put"]

VERSION: Final = 1

_KIND: Final = "dump"

_MOST_MILLISECONDS: Final = 1 << 62


class DumpError(ValueError):
    """A line that does not belong there. ``fatal``: nothing that follows can be trusted either."""

    def __init__(self, why: str, *, fatal: bool = False) -> None:
        super().__init__(why)
        self.fatal = fatal


class Address(NamedTuple):
    """Where an entry is, seen from a store: the namespaces from there down to the entry's, and its key."""

    namespaces: tuple[str, ...]
    key: str


class DumpedEntry(NamedTuple):
    """An entry of a dump; ``expires`` is in milliseconds since 1970 (UTC), None for never."""

    address: Address
    value: bytes
    expires: int | None

    def checksum(self) -> str:
        """CRC-32 of names, key, expiry and value; it does not depend on how the line is written."""
        names, key = self.address
        expires = "" if self.expires is None else str(self.expires)
        head = "\0".join((":".join(names), expires, key, "")).encode()
        return f"{zlib.crc32(self.value, zlib.crc32(head)):08x}"


class DumpWriter:
    """The lines of a dump; the last one holds their number and digest."""

    def __init__(self) -> None:
        self.entries: int = 0
        self._digest = hashlib.sha256()

    def first(self, store: str, environment: str | None, now: datetime) -> bytes:
        """The line that names the format and the store."""
        about = {"store": store, "environment": environment, "created": now.isoformat(timespec="seconds")}
        return self._line({"storeconf": _KIND, "version": VERSION, **about})

    def entry(self, entry: DumpedEntry) -> bytes:
        """The line of an entry."""
        names, key = entry.address
        line: dict[str, Any] = {"key": key}
        if names:
            line["namespaces"] = list(names)
        if entry.expires is not None:
            line["expires"] = entry.expires
        line["value"] = base64.b64encode(entry.value).decode()
        self.entries += 1
        return self._line({**line, "crc32": entry.checksum()})

    def last(self) -> bytes:
        """The line without which a dump was cut."""
        return self._line({"entries": self.entries, "sha256": self._digest.hexdigest()})

    def _line(self, line: dict[str, Any]) -> bytes:
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        self._digest.update(text)
        return text


class DumpReader:
    """Reads a dump line by line. Entries can be trusted one by one; the last line shows whether all are there."""

    def __init__(self) -> None:
        self.lines: int = 0
        self.ended: bool = False
        self._digest = hashlib.sha256()
        self._before = b""  # the last line, not yet in the digest: that of the dump leaves out its own last line
        self._sound = True

    def read(self, line: bytes) -> DumpedEntry | None:
        """The entry in the next line, None in the first and the last one. Raises DumpError."""
        self.lines += 1
        if self.ended:
            raise DumpError("something follows the last line of the dump", fatal=True)
        self._digest.update(self._before)
        self._before = line
        try:
            if not line.endswith(b"\n"):
                raise DumpError("the line was cut off")
            found = _object(line)
            if self.lines == 1:
                _check_first(found)
                return None
            if "key" in found or "value" in found:
                return _entry(found)
            self._check_last(found)
        except DumpError as error:
            self._sound = False
            if self.lines == 1:
                raise DumpError(f"not a storeconf dump: {error}", fatal=True) from None
            raise
        return None

    def missing(self) -> str | None:
        """Why a dump that ends here is not complete, or None."""
        if self.ended:
            return None
        return "it is empty" if not self.lines else "it was cut: its last line is missing"

    def _check_last(self, found: dict[str, Any]) -> None:
        entries, digest_then = found.get("entries"), found.get("sha256")
        if type(entries) is not int or not isinstance(digest_then, str):
            raise DumpError("it is neither an entry nor the last line of a dump")
        self.ended = True
        if entries != self.lines - 2:
            raise DumpError(f"the dump had {entries:,} entries, and {self.lines - 2:,} are here")
        if self._sound and digest_then != self._digest.hexdigest():
            raise DumpError("the lines before this one are not all as they were written")


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode() if line.startswith(b"{") else line)  # which guesses the encoding of bytes
    except (ValueError, RecursionError):  # the error may quote a value
        raise DumpError("the line is not JSON") from None
    if not isinstance(found, dict):
        raise DumpError("the line is not a JSON object")
    return found


def _check_first(found: dict[str, Any]) -> None:
    if found.get("storeconf") != _KIND:
        raise DumpError("its first line has another format")
    if found.get("version") != VERSION:
        raise DumpError(f"it has version {json.dumps(found.get('version'))}, and this storeconf reads {VERSION}")


def _entry(found: dict[str, Any]) -> DumpedEntry:
    key, names, expires, value = map(found.get, ("key", "namespaces", "expires", "value"))
    if not isinstance(key, str) or not isinstance(value, str):
        raise DumpError("the entry lacks its key or its value")
    if expires is not None and not (type(expires) is int and abs(expires) < _MOST_MILLISECONDS):
        raise DumpError("'expires' must be an integer (milliseconds)")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DumpError("'namespaces' is not a list of names")
    try:
        path = tuple(check_name(name) for name in names or ())
        entry = DumpedEntry(Address(path, key_text(key)), base64.b64decode(value, validate=True), expires)
    except binascii.Error:
        raise DumpError("the value is not Base64") from None
    except ValueError as error:
        raise DumpError(str(error)) from None
    if found.get("crc32") != entry.checksum():
        raise DumpError("the entry is damaged: its checksum does not fit")
    return entry


# ---------------------------------------------------------------- standard input and output


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
