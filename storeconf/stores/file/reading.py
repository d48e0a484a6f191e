"""Reading entries without a lock.

An entry's file may be swapped away and overwritten while a reader has it open (see `writing`). The checksums tell, and
the reader opens it again; if it sees a whole record that is not marked as committed, it looks whether that is in its
place yet. If that settles nothing, it reads once more under the entry's lock, and an entry that is still damaged really
is.

`CachedReader` does the same in an event loop with data that the kernel has in memory, and leaves all else to a thread.
"""

from __future__ import annotations

import errno
import os
import time
from binascii import hexlify
from typing import TYPE_CHECKING, TypeVar

from storeconf.stores.file.format import (
    ONE_PAGE,
    START_SIZE,
    Header,
    Record,
    entry_name,
    lock_number,
    name_in,
    parse,
    parse_committed,
    parse_header,
    parse_key,
)
from storeconf.stores.file.system import NO_DISK

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import blake2b

    from storeconf.stores.file.directory import Directory
    from storeconf.stores.file.system import Locks

__all__ = [
    "ELSEWHERE",
    "NO_FOLLOW",
    "Busy",
    "CachedReader",
    "Elsewhere",
    "EntryReader",
    "lives",
    "now",
    "read_header",
    "read_record",
]


NO_FOLLOW = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""No link is followed, and a pipe in the place of an entry blocks no reader."""

_READ = os.O_RDONLY | NO_FOLLOW
_CHUNK = 8192

_BUFFER = 65536 + _CHUNK
"""Bytes of the largest file that is read in an event loop: the checksums of more take too long."""

_MISSING = -errno.ENOENT

_TRIES = 3
"""Times that a file is opened before the lock is asked for."""

_NOT_A_RECORD = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EAGAIN, errno.EINVAL})
"""Error numbers of opening or reading a symbolic link, a directory, a socket or a pipe."""

T = TypeVar("T", Header, Record)


class Busy(Exception):  # noqa: N818  # an answer, not an error
    """Somebody else is at work on the key; nothing was done."""


def now() -> int:
    """Return the wall time in milliseconds since the epoch, rounded up."""
    return -(-time.time_ns() // 1_000_000)


def lives(expiry: int) -> bool:
    """Whether a record with that expiry in its header has not expired yet."""
    return not expiry or time.time_ns() < expiry * 1_000_000


def read_record(target: bytes, key: bytes, alone: bool = False, most: int | None = None) -> Record | None:
    """Return the record in a file, or None if it is damaged, another key's, or not in its place.

    A reader that is ``alone``, by the entry's lock, finds everything in its place. Raises Busy if there are more than
    ``most`` bytes.
    """
    try:
        fd = os.open(target, _READ)
        try:
            data = os.read(fd, _CHUNK)
            if len(data) == _CHUNK:
                if most is not None and os.fstat(fd).st_size > most:
                    raise Busy
                data = _read_rest(fd, data)
            record = parse(data, key)
            if record is None or alone:
                return record
            if len(data) > ONE_PAGE and os.pread(fd, START_SIZE, 0) != data[:START_SIZE]:
                return None
            return record if record.committed or _is_at(fd, target) else None
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_A_RECORD:
            return None
        raise


def read_header(target: bytes, prefix: bytes, alone: bool = False) -> Header | None:
    """Return the header in a file, as `read_record` does. Of values, only the small ones are checked."""
    try:
        fd = os.open(target, _READ)
        try:
            data = os.read(fd, _CHUNK)
            size = os.fstat(fd).st_size if len(data) == _CHUNK else len(data)
            header = parse_header(data, size)
            if header is None and len(data) == _CHUNK:
                data = _read_rest(fd, data)
                header = parse_header(data, len(data))
            if header is None or not header.key.startswith(prefix) or not target.endswith(entry_name(header.key)):
                return None
            return header if header.committed or alone or _is_at(fd, target) else None
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_A_RECORD:
            return None
        raise


def _read_key(name: bytes, below: int) -> tuple[bytes, int] | None:
    """Return key and expiry of the record in a file of an open directory; None if it takes a closer look.

    Most records are committed and whole: for them this takes three quarters of the time that `read_header` takes.
    """
    try:
        fd = os.open(name, _READ, dir_fd=below)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        data = os.read(fd, _CHUNK)
        size = os.fstat(fd).st_size if len(data) == _CHUNK else len(data)
    except OSError:
        return None
    finally:
        os.close(fd)
    return parse_key(data, size)


def _read_rest(fd: int, data: bytes) -> bytes:
    parts = [data]
    while part := os.read(fd, max(_CHUNK, os.fstat(fd).st_size - _CHUNK)):
        parts.append(part)
    return b"".join(parts)


def _is_at(fd: int, target: bytes) -> bool:
    there, here = os.lstat(target), os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


class Elsewhere:
    """The answer of a `CachedReader` that would have to wait: a thread has to read the entry."""


ELSEWHERE = Elsewhere()


class CachedReader:
    """Reads entries without ever waiting for a disk, so that an event loop can do it. For any thread.

    Path and contents come from the kernel's caches, or not at all: an entry that is not there, not committed, damaged
    or larger than the buffer is left to an `EntryReader`. One thing may still wait: closing a file that was deleted
    after it was opened, because that frees it.
    """

    def __init__(self, directory: Directory, open_: Callable[[bytes], int]) -> None:
        self._directory = directory
        self._open = open_
        self._buffers: list[tuple[bytearray, memoryview]] = []  # those that no thread uses at the moment

    def find(self, path: tuple[str, ...], key: str) -> tuple[bytes, int] | Elsewhere | None:
        """Return value and expiry of a key, or None if there is none or it has expired."""
        place = self._directory.places.get(path)
        if place is None:
            return ELSEWHERE
        directory, prefix, flags, hash_ = place
        if flags is None:
            return ELSEWHERE
        raw = key.encode()
        hash_ = hash_.copy()  # of the prefix: half as dear as a new one
        hash_.update(raw)
        target = directory + b"/" + hexlify(hash_.digest()) + b".kv"
        if flags != NO_DISK:
            fd = self._open(target)
            if fd < 0:
                return None if fd == _MISSING else ELSEWHERE
        else:
            try:
                fd = os.open(target, _READ)
            except FileNotFoundError:
                return None
            except OSError:
                return ELSEWHERE
        try:
            buffer, view = pair = self._buffers.pop()
        except IndexError:
            buffer = bytearray(_BUFFER)
            view = memoryview(buffer)
            pair = buffer, view
        try:
            size = os.preadv(fd, (buffer,), 0, flags)
            if size == _BUFFER:
                return ELSEWHERE
            found = parse_committed(buffer, view, size, prefix + raw)
            if found is not None and size > ONE_PAGE:
                start = bytearray(START_SIZE)
                if os.preadv(fd, (start,), 0, flags) != START_SIZE or not buffer.startswith(start):
                    return ELSEWHERE
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._directory.refuse_read_flags(path)
            return ELSEWHERE
        finally:
            os.close(fd)
            self._buffers.append(pair)
        if found is None:
            return ELSEWHERE
        expiry = found[1]
        return found if not expiry or time.time_ns() < expiry * 1_000_000 else None


class EntryReader:
    """Reads entries. For one thread, which has locks of its own for entries that it can't settle without."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._locks: Locks | None = None

    def locks(self) -> Locks:
        """The locks of this thread, opened when it needs them."""
        if self._locks is None:
            self._locks = self.directory.new_locks()
        return self._locks

    def close(self) -> None:
        """Close the open files."""
        locks, self._locks = self._locks, None
        if locks is not None:
            locks.close()

    def forget(self) -> None:
        """In a forked child: close the open files."""
        self.close()

    def find(self, path: tuple[str, ...], key: str) -> tuple[bytes, int] | None:
        """Return value and expiry of a key, or None if there is none or it has expired. Raises Busy."""
        place = self.directory.place(path)
        qualified = place.prefix + key.encode()
        name = entry_name(qualified)
        target = place.directory + b"/" + name
        try:
            record = read_record(target, qualified)
            if record is None:
                record = self._settled(read_record, target, name, qualified)
        except FileNotFoundError:
            return None
        return (record.value, record.expiry) if record is not None and lives(record.expiry) else None

    def key(self, directory: bytes, prefix: bytes, hash_: blake2b, name: bytes, below: int | None) -> bytes | None:
        """Return the key of a directory's file without the prefix; None if the file is gone, damaged or expired.

        ``hash_`` is that of the prefix; ``below`` is the directory if it is open, which is quicker. Raises Busy.
        """
        try:
            if below is not None and (found := _read_key(name, below)) is not None:
                key, expiry = found
                if key.startswith(prefix) and name_in(hash_, key := key[len(prefix) :]) == name:
                    return key if not expiry or time.time_ns() < expiry * 1_000_000 else None
            header = self._settled(read_header, directory + b"/" + name, name, prefix)
        except FileNotFoundError:
            return None
        return header.key[len(prefix) :] if header is not None and lives(header.expiry) else None

    def _settled(self, read: Callable[..., T | None], target: bytes, name: bytes, want: bytes) -> T | None:
        for _ in range(_TRIES):
            found = read(target, want)
            if found is not None:
                return found
        found = self._alone(read, target, name, want)
        if found is None:
            self.directory.report_damage(target)
        return found

    def _alone(self, read: Callable[..., T | None], target: bytes, name: bytes, want: bytes) -> T | None:
        try:
            locks = self.locks()
        except OSError:  # a process that may not write can't lock either
            return None
        number = lock_number(name)
        if not locks.acquire(number):
            raise Busy
        try:
            return read(target, want, True)
        finally:
            locks.release(number)
