"""Reading and writing one entry's file, so that everybody sees the old record or the new one, whoever dies when.

A record is written to a spare file, which then swaps names with the entry's file; what was the entry becomes the next
spare, as making and freeing files is what costs most. So one who has opened an entry may find it overwritten under
his hands: the checksums tell, and he opens it again. One who sees a whole record that is not marked as committed looks
whether it is in its place yet. Writers of one key exclude each other by a lock; readers need none.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, TypeVar

from storeconf.stores.file import system
from storeconf.stores.file.directory import translate
from storeconf.stores.file.format import (
    COMMITTED,
    COMMITTED_AT,
    PENDING,
    Header,
    Record,
    checksums,
    entry_name,
    lock_number,
    pack,
    pack_header,
    parse,
    parse_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.errors import StoreError
    from storeconf.stores.file.directory import Directory, Place
    from storeconf.stores.file.system import Locks

__all__ = ["Busy", "Entry", "Reader", "Writer", "has_expired", "now"]

logger = logging.getLogger("storeconf.file")

# No link is followed, and a pipe that lies where an entry should be makes nobody wait.
_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_READ = _SAFE | os.O_RDONLY
_WRITE = _SAFE | os.O_WRONLY
_CREATE = _WRITE | os.O_CREAT | os.O_EXCL

_CHUNK = 8192
_LARGE = 65536
"""Bytes from which on a value gets a new file each time: writing it costs more than making the file then."""

_TRIES = 3
"""Times that a reader opens a file again before he asks for the lock."""

_SPINS = 20
"""Times that a writer asks for a lock before he does something else; holders are brief."""

_GROUP = 64
"""The most writes that reach the disk together."""

_NOT_A_RECORD = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EAGAIN, errno.EINVAL})
"""What opening or reading says of a symbolic link, a directory, a socket, a pipe."""

T = TypeVar("T", Header, Record)


class Busy(Exception):  # noqa: N818  # an answer, not an error
    """Somebody else is at work on the key; nothing was done."""


def now() -> int:
    """Return the wall time in milliseconds since the epoch, rounded down."""
    return time.time_ns() // 1_000_000


def _read_record(target: bytes, key: bytes) -> Record | None:
    """Return the record in a file, or None if it is damaged, another key's, or not in its place."""
    try:
        fd = os.open(target, _READ)
        try:
            data = os.read(fd, _CHUNK)
            if len(data) == _CHUNK:
                data = _read_rest(fd, data)
            record = parse(data, key)
            if record is not None and not record.committed and not _is_at(fd, target):
                return None
            return record
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_A_RECORD:
            return None
        raise


def _read_header(target: bytes, prefix: bytes) -> Header | None:
    """Return the header in a file, or None if it is damaged, another entry's, or not in its place.

    Of values, only the small ones are checked.
    """
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
            if size == len(data) and parse(data, header.key) is None:
                return None
            return header if header.committed or _is_at(fd, target) else None
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_A_RECORD:
            return None
        raise


def _read_rest(fd: int, data: bytes) -> bytes:
    parts = [data]
    while part := os.read(fd, max(_CHUNK, os.fstat(fd).st_size - _CHUNK)):
        parts.append(part)
    return b"".join(parts)


def _is_at(fd: int, target: bytes) -> bool:
    there, here = os.lstat(target), os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def has_expired(target: bytes) -> bool:
    """Whether an entry's file holds an expired record; certain only for one who holds the entry's lock."""
    try:
        header = _read_header(target, b"")
    except FileNotFoundError:
        return False
    return header is not None and 0 < header.expiry < now()


class Reader:
    """Reads entries without a lock. For one thread, which has its own ``locks`` for what it can't settle otherwise."""

    def __init__(self, directory: Directory, locks: Callable[[], Locks]) -> None:
        self.directory = directory
        self.locks = locks

    def find(self, path: tuple[str, ...], key: str) -> Record | None:
        """Return the record of a key, or None if there is none or it has expired. Raises Busy."""
        place = self.directory.place(path)
        qualified = place.prefix + key.encode()
        name = entry_name(qualified)
        record = self._settled(_read_record, place.directory + b"/" + name, name, qualified)
        return record if record is None or not record.expiry or record.expiry >= now() else None

    def header(self, place: Place, name: bytes) -> Header | None:
        """Return the header in one of the place's files, or None if it is gone, damaged or expired. Raises Busy."""
        header = self._settled(_read_header, place.directory + b"/" + name, name, place.prefix)
        return header if header is None or not header.expiry or header.expiry >= now() else None

    def _settled(
        self, read: Callable[[bytes, bytes], T | None], target: bytes, name: bytes, expected: bytes
    ) -> T | None:
        try:
            for _ in range(_TRIES):
                found = read(target, expected)
                if found is not None:
                    return found
            found = self._alone(read, target, name, expected)
        except FileNotFoundError:
            return None
        if found is None:
            logger.warning("%s is damaged and counts as missing", os.fsdecode(target))
        return found

    def _alone(self, read: Callable[[bytes, bytes], T | None], target: bytes, name: bytes, expected: bytes) -> T | None:
        try:
            locks = self.locks()
        except OSError:  # one who may not write can't lock either
            return None
        number = lock_number(name)
        if not locks.acquire(number):
            raise Busy
        try:
            return read(target, expected)
        finally:
            locks.release(number)


class _Write(NamedTuple):
    """A record that lies in a spare file, whole, and has not taken its place."""

    place: Place
    target: bytes
    spare: bytes
    slot: int
    fd: int
    pending: bool
    large: bool


class _Staged(NamedTuple):
    """A change that has not reached the disk: a write, or else a removal; what it holds, and whose it is."""

    directory: bytes
    write: _Write | None
    number: int
    ticket: Any


class Writer(Reader):
    """Changes entries, each under its lock. For one thread.

    Where changes must reach the disk they are staged: they take effect, and their locks are freed, with `settle`.
    ``ticket`` says on whose behalf the present change is made; `settle` returns it with what failed.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory, lambda: directory.locks)
        self.ticket: Any = None
        self._exchange = system.exchange
        self._warm: set[int] = set()
        self._staged: list[_Staged] = []
        self._held: set[int] = set()
        self._failures: list[tuple[Any, StoreError]] = []

    def entry(self, path: tuple[str, ...], key: str) -> Entry:
        """Return the entry of a key, to be locked with ``with``, which raises Busy."""
        place = self.directory.place(path)
        qualified = place.prefix + key.encode()
        return Entry(self, place, entry_name(qualified), qualified)

    def lock(self, number: int) -> None:
        """Take the lock of an entry."""
        if number in self._held:
            self._settle()
        try:
            locks = self.directory.locks
        except FileNotFoundError:
            self._restore()
        for _ in range(_SPINS):
            if locks.acquire(number):
                return
        raise Busy

    def unlock(self, number: int) -> None:
        """Give the lock of an entry back, unless a staged change needs it."""
        if number not in self._held:
            self.directory.locks.release(number)

    def put(self, place: Place, name: bytes, key: bytes, value: bytes, expiry: int) -> None:
        """Make a record the entry's; its lock is held."""
        slot = len(self._staged)
        spare = self.directory.home() + b"/%d" % slot
        large = len(value) > _LARGE
        fd, size = self._reopen(slot, spare, large)
        pending = fd >= 0
        try:
            if not pending:
                fd = self._create(spare)
            head = pack(key, value, expiry, PENDING if pending else COMMITTED)
            if large:
                _write(fd, head)
                _write(fd, value)
            else:
                _write(fd, head + value)
            if size > len(head) + len(value):
                os.ftruncate(fd, len(head) + len(value))
        except BaseException:
            if fd >= 0:
                os.close(fd)
                _discard(spare)
            raise
        write = _Write(place, place.directory + b"/" + name, spare, slot, fd, pending, large)
        if self.directory.fsync:
            self._stage(place.directory, write, lock_number(name))
        else:
            self._publish(write)

    def remove(self, directory: bytes, name: bytes) -> bool:
        """Remove the entry's file; its lock is held. Whether it was there."""
        try:
            os.unlink(directory + b"/" + name)
        except FileNotFoundError:
            return False
        if self.directory.fsync:
            self._stage(directory, None, lock_number(name))
        return True

    def put_header(self, place: Place, name: bytes, key: bytes, record: Record, expiry: int) -> bool:
        """Overwrite the header of the entry's file, where that is as good as a new record; its lock is held."""
        if self.directory.fsync:
            return False  # a torn sector would lose what has been promised to survive
        try:
            fd = os.open(place.directory + b"/" + name, _WRITE)
        except PermissionError:
            return False
        try:
            if os.fstat(fd).st_nlink != 1:
                return False  # somebody's backup is made of hard links
            header = pack_header(key, expiry, len(record.value), checksums(record.value), COMMITTED)
            os.pwrite(fd, header, 0)
        finally:
            os.close(fd)
        return True

    # ------------------------------------------------------------------ spare files

    def probe(self) -> None:
        """Make, write and remove a file: what a write needs."""
        spare = self.directory.home() + b"/probe"
        fd = self._create(spare)
        try:
            os.write(fd, b"storeconf")
            if self.directory.fsync:
                system.sync_data(fd)
        finally:
            os.close(fd)
            os.unlink(spare)

    def tidy(self) -> None:
        """Remove spare files that are large: they are not used again."""
        for slot in sorted(self._warm):
            spare = self.directory.home() + b"/%d" % slot
            with suppress(FileNotFoundError):
                if os.lstat(spare).st_size > _LARGE:
                    self._warm.discard(slot)
                    _discard(spare)

    def drop_spares(self) -> None:
        """Remove all spare files: they hold what was deleted or replaced."""
        while self._warm:
            _discard(self.directory.home() + b"/%d" % self._warm.pop())

    def _reopen(self, slot: int, spare: bytes, large: bool) -> tuple[int, int]:
        """Open a spare file that may be overwritten; its descriptor and size, or (-1, 0)."""
        if slot not in self._warm:
            return -1, 0
        self._warm.discard(slot)
        if not large:
            try:
                fd = os.open(spare, _WRITE)
            except OSError:  # gone, or what was planted in the entry's place; a new file will do, or say why not
                pass
            else:
                status = os.fstat(fd)
                if (
                    stat.S_ISREG(status.st_mode)
                    and status.st_mode & 0o7777 == self.directory.file_mode
                    and status.st_nlink == 1
                    and status.st_uid == os.geteuid()
                    and status.st_size <= 2 * _LARGE
                ):
                    return fd, status.st_size
                os.close(fd)
        _discard(spare)
        return -1, 0

    def _create(self, spare: bytes) -> int:
        mode = self.directory.file_mode
        try:
            try:
                fd = os.open(spare, _CREATE, mode)
            except FileExistsError:
                _discard(spare)
                fd = os.open(spare, _CREATE, mode)
        except FileNotFoundError:
            self._restore()
        if os.fstat(fd).st_mode & 0o777 != mode:
            os.fchmod(fd, mode)
        return fd

    def _restore(self) -> NoReturn:
        self._warm.clear()
        self.directory.restore()
        raise Busy

    # ------------------------------------------------------------------ taking effect

    def _publish(self, write: _Write) -> None:
        try:
            self._move(write)
            if write.pending:
                with suppress(OSError):  # the record is in its place; without the mark readers have to look for that
                    os.pwrite(write.fd, COMMITTED, COMMITTED_AT)
        except BaseException:
            _discard(write.spare)
            raise
        finally:
            os.close(write.fd)

    def _move(self, write: _Write) -> None:
        if self._exchange is not None:
            try:
                self._exchange(write.spare, write.target)
            except OSError as error:
                if error.errno in system.NOT_SUPPORTED:
                    self._exchange = None
                elif error.errno != errno.ENOENT:
                    raise
            else:
                if write.large:
                    _discard(write.spare)
                else:
                    self._warm.add(write.slot)
                return
        try:
            os.rename(write.spare, write.target)
        except FileNotFoundError:
            os.lstat(write.spare)
            self._move_to_new(write)

    def _move_to_new(self, write: _Write) -> None:
        for last in (False, False, False, True):  # others may remove an empty namespace meanwhile
            self.directory.make_place(write.place)
            try:
                os.rename(write.spare, write.target)
            except FileNotFoundError:
                if last:
                    raise
            else:
                return

    def _stage(self, directory: bytes, write: _Write | None, number: int) -> None:
        self._staged.append(_Staged(directory, write, number, self.ticket))
        self._held.add(number)
        if len(self._staged) >= _GROUP:
            self._settle()

    def settle(self) -> list[tuple[Any, StoreError]]:
        """Bring staged changes to the disk and make them take effect; what failed since the last time."""
        if self._staged:
            self._settle()
        failures, self._failures = self._failures, []
        return failures

    def _settle(self) -> None:
        staged, self._staged = self._staged, []
        try:
            for change in staged:
                if change.write is not None:
                    system.start_writing(change.write.fd)
            done: dict[bytes, list[_Staged]] = {}
            for change in staged:
                if change.write is None or self._take_effect(change.write, change.ticket):
                    done.setdefault(change.directory, []).append(change)
            for directory, changes in done.items():
                self._sync(directory, changes)
        finally:
            self._held.clear()
            for change in staged:
                self.directory.locks.release(change.number)

    def _take_effect(self, write: _Write, ticket: Any) -> bool:
        try:
            try:
                system.sync_data(write.fd)
            except OSError:
                os.close(write.fd)
                _discard(write.spare)
                raise
            self._publish(write)
        except OSError as error:
            self._failures.append((ticket, translate(error, self.directory)))
            return False
        return True

    def _sync(self, directory: bytes, changes: list[_Staged]) -> None:
        try:
            with suppress(FileNotFoundError):  # the namespace is gone, and its entries with it
                system.sync_directory(directory)
        except OSError as error:
            for change in changes:
                failure = translate(error, self.directory)
                failure.outcome_unknown = True
                self._failures.append((change.ticket, failure))


class Entry:
    """One key's entry, locked between enter and exit, as far as writers go."""

    __slots__ = ("key", "name", "number", "place", "writer")

    def __init__(self, writer: Writer, place: Place, name: bytes, key: bytes) -> None:
        self.writer = writer
        self.place = place
        self.name = name
        self.key = key
        self.number = lock_number(name)

    def __enter__(self) -> Self:
        self.writer.lock(self.number)
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.unlock(self.number)

    def read(self) -> Record | None:
        """Return the record, or None if there is none or it has expired."""
        target = self.place.directory + b"/" + self.name
        try:
            record = _read_record(target, self.key)
        except FileNotFoundError:
            return None
        if record is None:
            logger.warning("%s is damaged and counts as missing", os.fsdecode(target))
            return None
        return record if not record.expiry or record.expiry >= now() else None

    def put(self, value: bytes, expiry: int) -> None:
        """Replace the record."""
        self.writer.put(self.place, self.name, self.key, value, expiry)

    def renew(self, record: Record, expiry: int) -> None:
        """Give the record that was read another expiry."""
        if not self.writer.put_header(self.place, self.name, self.key, record, expiry):
            self.put(record.value, expiry)

    def remove(self) -> bool:
        """Remove the entry; whether there was one."""
        return self.writer.remove(self.place.directory, self.name)


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _discard(path: bytes) -> None:
    """Free a spare's name; what is no file, planted where an entry was, only steps aside."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        os.rename(path, path + b"." + token_hex(4).encode())
