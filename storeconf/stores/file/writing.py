"""Changing entries, so that everybody sees the old record or the new one, whoever dies when.

A record is written to a spare file, which then swaps names with the entry's file. What was the entry becomes the next
spare: making and freeing files is what costs most. A record in a file that had been an entry is marked as committed
only after the swap, so that nobody who still holds that file open takes it for the entry's too early. Writers of one
key exclude each other by a lock, in this process and in others.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, NoReturn, Self

from storeconf.stores.file import system
from storeconf.stores.file.format import COMMITTED, COMMITTED_AT, HEADER_SIZE, PENDING, entry_name, lock_number, pack
from storeconf.stores.file.reading import NO_FOLLOW, Busy, Reader, lives, read_record, warn

if TYPE_CHECKING:
    from storeconf.stores.file.directory import Directory, Place
    from storeconf.stores.file.format import Record
    from storeconf.stores.file.group import Group
    from storeconf.stores.file.system import Locks

__all__ = ["Entry", "Writer"]

_WRITE = os.O_WRONLY | NO_FOLLOW
_CREATE = _WRITE | os.O_CREAT | os.O_EXCL

_LARGE = 65536
"""Bytes of a value beyond which it gets a new file each time: writing it costs more than making the file then."""

_SPINS = 20
"""Times that a writer asks for a lock before he does something else; holders are brief."""

Draft = tuple["Place", bytes, bytes, int, int, bool, bool]
"""A record that lies in a spare file, whole, and has not taken its place: the arguments of `Writer.publish`."""


class Writer(Reader):
    """Changes entries, each under its lock. For one thread.

    With a ``group``, changes are staged there and take effect, and their locks are freed, when the group is settled.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self.group: Group | None = None
        self._exchange = system.exchange
        self._warm: set[int] = set()  # the spare files that may be overwritten, by number
        self._plain = stat.S_IFREG | directory.file_mode

    def entry(self, path: tuple[str, ...], key: str) -> Entry:
        """Return the entry of a key, to be locked with ``with``, which raises Busy."""
        place = self.directory.place(path)
        return Entry(self, place, place.prefix + key.encode())

    def locks(self) -> Locks:
        """The locks that the directory keeps for the one who writes."""
        return self.directory.locks

    def close(self) -> None:
        """Remove the spare files, close what is open, and end the threads."""
        if self.group is not None:
            self.group.close()
        self.directory.close()

    def forget(self) -> None:
        """In a forked child: close what is open, and leave the disk and the threads alone."""
        self.directory.forget()

    def lock(self, number: int) -> None:
        """Take the lock of an entry."""
        if self.group is not None and number in self.group.held:
            self.group.settle()
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
        if self.group is None or number not in self.group.held:
            self.directory.release(number)

    def put(self, entry: Entry, value: bytes, expiry: int) -> None:
        """Make a record the entry's; its lock is held."""
        slot = 0 if self.group is None else len(self.group)
        try:
            spare = self.directory.home() + b"/%d" % slot
        except FileNotFoundError:
            self._restore()
        large = len(value) > _LARGE
        fd, size = self._reopen(slot, spare, large)
        pending = fd >= 0
        try:
            if not pending:
                fd = self._create(spare)
            head = pack(entry.key, value, expiry, PENDING if pending else COMMITTED)
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
                discard(spare)
            raise
        if self.group is None:
            self.publish(entry.place, entry.target, spare, slot, fd, pending, large)
        else:
            draft = (entry.place, entry.target, spare, slot, fd, pending, large)
            self.group.stage(entry.number, entry.place.directory, draft)

    def remove(self, directory: bytes, name: bytes) -> bool:
        """Remove the entry's file; its lock is held. Whether it was there."""
        try:
            os.unlink(directory + b"/" + name)
        except FileNotFoundError:
            return False
        if self.group is not None:
            self.group.stage(lock_number(name), directory, None)
        return True

    def put_header(self, entry: Entry, record: Record, expiry: int) -> bool:
        """Overwrite the header of the entry's file, where that is as good as a new record; its lock is held."""
        if self.group is not None:
            return False  # a torn sector would lose what has been promised to survive
        try:
            fd = os.open(entry.target, _WRITE)
        except PermissionError:
            return False
        try:
            if os.fstat(fd).st_nlink != 1:
                return False  # somebody's backup is made of hard links
            os.pwrite(fd, pack(entry.key, record.value, expiry, COMMITTED)[:HEADER_SIZE], 0)
        finally:
            os.close(fd)
        return True

    # ------------------------------------------------------------------ taking effect

    def publish(
        self, place: Place, target: bytes, spare: bytes, slot: int, fd: int, pending: bool, large: bool
    ) -> None:
        """Let a draft take its place."""
        try:
            if self._swap(spare, target):
                if large:
                    discard(spare)
                else:
                    self._warm.add(slot)
            else:
                self._move(place, spare, target)
            if pending:
                with suppress(OSError):  # the record is in its place; without the mark readers have to look for that
                    os.pwrite(fd, COMMITTED, COMMITTED_AT)
        except BaseException:
            discard(spare)
            raise
        finally:
            os.close(fd)

    def withdraw(self, draft: Draft) -> None:
        """Give up a draft."""
        _, _, spare, _, fd, _, _ = draft
        os.close(fd)
        discard(spare)

    def _swap(self, spare: bytes, target: bytes) -> bool:
        if self._exchange is None:
            return False
        try:
            self._exchange(spare, target)
        except OSError as error:
            if error.errno in system.NOT_SUPPORTED:
                self._exchange = None
            elif error.errno not in {errno.ENOENT, errno.EPERM}:  # where a sandbox forbids the call, rename tells
                raise
            return False
        return True

    def _move(self, place: Place, spare: bytes, target: bytes) -> None:
        try:
            os.rename(spare, target)
        except FileNotFoundError:
            os.lstat(spare)
        else:
            return
        for last in (False, False, False, True):  # others may remove an empty namespace meanwhile
            try:
                self.directory.make_place(place)
                os.rename(spare, target)
            except FileNotFoundError:
                if last:
                    raise
            else:
                return

    # ------------------------------------------------------------------ spare files

    def _reopen(self, slot: int, spare: bytes, large: bool) -> tuple[int, int]:
        """Open a spare file that may be overwritten; its descriptor and size, or (-1, 0) when a new file is needed."""
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
                    status.st_mode == self._plain
                    and status.st_nlink == 1
                    and status.st_uid == os.geteuid()
                    and status.st_size <= 2 * _LARGE
                ):
                    return fd, status.st_size
                os.close(fd)
        discard(spare)
        return -1, 0

    def _create(self, spare: bytes) -> int:
        mode = self.directory.file_mode
        try:
            try:
                fd = os.open(spare, _CREATE, mode)
            except FileExistsError:
                discard(spare)
                fd = os.open(spare, _CREATE, mode)
        except FileNotFoundError:
            self._restore()
        if os.fstat(fd).st_mode != self._plain:  # the umask's doing
            os.fchmod(fd, mode)
        return fd

    def _restore(self) -> NoReturn:
        self._warm.clear()
        self.directory.restore()
        raise Busy

    def tidy(self) -> None:
        """Remove spare files that are large: they are not used again."""
        for slot in sorted(self._warm):
            spare = self.directory.home() + b"/%d" % slot
            with suppress(FileNotFoundError):
                if os.lstat(spare).st_size > _LARGE:
                    self._warm.discard(slot)
                    discard(spare)

    def drop_spares(self) -> None:
        """Remove all spare files: they hold what was deleted or replaced."""
        while self._warm:
            discard(self.directory.home() + b"/%d" % self._warm.pop())

    def probe(self) -> None:
        """Make, write and remove a file: what a write needs."""
        spare = self.directory.home() + b"/probe"
        fd = self._create(spare)
        try:
            os.write(fd, b"storeconf")
            if self.group is not None:
                system.sync_data(fd)
        finally:
            os.close(fd)
            os.unlink(spare)


class Entry:
    """One key's entry, locked between enter and exit, as far as writers go."""

    __slots__ = ("key", "name", "number", "place", "target", "writer")

    def __init__(self, writer: Writer, place: Place, key: bytes) -> None:
        self.writer = writer
        self.place = place
        self.key = key
        self.name = name = entry_name(key)
        self.target = place.directory + b"/" + name
        self.number = lock_number(name)

    def __enter__(self) -> Self:
        self.writer.lock(self.number)
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.unlock(self.number)

    def read(self) -> Record | None:
        """Return the record, or None if there is none or it has expired."""
        try:
            record = read_record(self.target, self.key, alone=True)
        except FileNotFoundError:
            return None
        if record is None:
            warn(self.target)
            return None
        return record if lives(record.expiry) else None

    def put(self, value: bytes, expiry: int) -> None:
        """Replace the record."""
        self.writer.put(self, value, expiry)

    def renew(self, record: Record, expiry: int) -> None:
        """Give the record that was read another expiry."""
        if not self.writer.put_header(self, record, expiry):
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


def discard(path: bytes) -> None:
    """Free a spare's name; what is no file, planted where an entry was, only steps aside."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        os.rename(path, path + b"." + token_hex(4).encode())
