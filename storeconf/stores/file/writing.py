"""Changing entries, so that every reader sees the old record or the new one, even if processes die.

A record is written to a spare file, which then swaps names with the entry's file. The former entry becomes the next
spare: making and freeing files costs most. A record in a file that had been an entry is marked as committed
only after the swap, so that no reader that still holds that file open takes it for the entry's too early. Writers of
one key exclude each other by a lock, in this process and in others.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, NoReturn, Self

from storeconf.stores.file import system
from storeconf.stores.file.format import (
    COMMITTED,
    COMMITTED_AT,
    HEADER_SIZE,
    PENDING,
    file_times,
    lock_number,
    name_in,
    pack,
)
from storeconf.stores.file.reading import NO_FOLLOW, Busy, EntryReader, lives, read_header, read_record
from storeconf.stores.file.syncing import Draft

if TYPE_CHECKING:
    from storeconf.stores.file.directory import Directory, NamespacePlace
    from storeconf.stores.file.format import Record
    from storeconf.stores.file.syncing import SyncGroup
    from storeconf.stores.file.system import Locks

__all__ = ["LARGE", "EntryWriter", "LockedEntry", "discard"]

_WRITE = os.O_WRONLY | NO_FOLLOW
_CREATE = _WRITE | os.O_CREAT | os.O_EXCL

LARGE = 65536
"""Bytes of a value beyond which it gets a new file each time: writing it costs more than making the file then."""

_COPIED = 4096
"""Bytes of a value up to which joining it and the header is quicker than writing two parts."""

_SPINS = 20
"""Times that a writer asks for a lock before it does something else; holders are brief."""

_MOVES = 100
"""Attempts to move a new entry into a namespace whose directory others remove, because it is empty, meanwhile."""


class EntryWriter(EntryReader):
    """Changes entries, each under its lock. For one thread.

    With a ``group``, changes are staged there and take effect, and their locks are freed, when the group is settled.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self.group: SyncGroup | None = None
        self._exchange = system.exchange
        self._warm: set[int] = set()  # the spare files that may be overwritten, by number
        self._plain = stat.S_IFREG | directory.file_mode

    def entry(self, path: tuple[str, ...], key: str) -> LockedEntry:
        """Return the entry of a key, to be locked with ``with``, which raises Busy."""
        return LockedEntry(self, self.directory.place(path), key)

    def locks(self) -> Locks:
        """The locks that the directory keeps for the writer."""
        return self.directory.locks

    def close(self) -> None:
        """Remove the spare files, close the open files, and end the threads."""
        if self.group is not None:
            self.group.close()
        self.directory.close()

    def forget(self) -> None:
        """In a forked child: close the open files, and leave the disk and the threads alone."""
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

    def read(self, target: bytes, key: bytes) -> Record | None:
        """Return the record in a file, or None if it is damaged or another key's; its lock is held."""
        return read_record(target, key, alone=True)

    def put(self, entry: LockedEntry, value: bytes, expiry: int) -> None:
        """Make a record the entry's; its lock is held."""
        slot = 0 if self.group is None else len(self.group)
        try:
            spare = b"%b/%d" % (self.directory.home(), slot)
        except FileNotFoundError:
            self._restore()
        large = len(value) > LARGE
        fd, size = self._reopen(slot, spare, large)
        pending = fd >= 0
        try:
            if not pending:
                fd = self._create(spare)
            head = pack(entry.key, value, expiry, PENDING if pending else COMMITTED)
            if len(value) > _COPIED:
                _write_both(fd, head, value)
            else:
                _write(fd, head + value)
            if size > len(head) + len(value):
                os.ftruncate(fd, len(head) + len(value))
        except BaseException:
            if fd >= 0:
                os.close(fd)
                self._drop(spare)
            raise
        draft = Draft(entry.place, entry.target, spare, slot, fd, pending, large, expiry)
        if self.group is None:
            self.publish(draft)
        else:
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

    def put_header(self, entry: LockedEntry, record: Record, expiry: int) -> bool:
        """Overwrite the header of the entry's file, where that is as good as a new record; its lock is held."""
        if self.group is not None:
            return False  # a torn sector would lose a record that must survive
        try:
            fd = os.open(entry.target, _WRITE)
        except PermissionError:
            return False
        try:
            if os.fstat(fd).st_nlink != 1:
                return False  # somebody's backup is made of hard links
            os.pwrite(fd, pack(entry.key, record.value, expiry, COMMITTED)[:HEADER_SIZE], 0)
            _set_times(fd, expiry)
        finally:
            os.close(fd)
        return True

    def collect(self, directory: bytes, name: bytes, due: bool) -> bool:
        """Remove the entry's file if the record has expired or is damaged; whether it is gone.

        A live entry that was ``due`` by its modification time gets the right one. Without a sync: an entry that comes
        back after a crash is removed again. Raises Busy.
        """
        target = directory + b"/" + name
        try:
            header = read_header(target, b"")
            if header is not None and lives(header.expiry) and not due:
                return False
            number = lock_number(name)
            self.lock(number)
            try:
                header = read_header(target, b"", alone=True)
                if header is not None and lives(header.expiry):
                    if due:
                        _correct_times(target, header.expiry)
                    return False
                os.unlink(target)
                if header is None:
                    self.directory.report_damage(target, removed=True)
            finally:
                self.unlock(number)
        except FileNotFoundError:
            pass
        return True

    # ------------------------------------------------------------------ taking effect

    def publish(self, draft: Draft) -> set[bytes]:
        """Let a draft take its place. Returns the directories above its own that have to reach the disk too."""
        place, target, spare, slot, fd, pending, large, expiry = draft
        changed: set[bytes] = set()
        try:
            if self._swap(spare, target):
                if large:
                    self._drop(spare)
                else:
                    self._warm.add(slot)
            else:
                changed = self._move(place, spare, target)
            if pending:
                try:  # noqa: SIM105  # `suppress` takes as long as the call
                    os.pwrite(fd, COMMITTED, COMMITTED_AT)
                except OSError:  # the record is in its place; without the mark readers have to look for that
                    pass
            _set_times(fd, expiry)  # last, because writing sets them too
        except BaseException:
            self._drop(spare)
            raise
        finally:
            os.close(fd)
        return changed

    def withdraw(self, draft: Draft) -> None:
        """Give up a draft."""
        os.close(draft.fd)
        discard(draft.spare)

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

    def _move(self, place: NamespacePlace, spare: bytes, target: bytes) -> set[bytes]:
        try:
            os.rename(spare, target)
        except FileNotFoundError:
            os.lstat(spare)
        else:
            return set()
        changed: set[bytes] = set()
        for attempt in range(_MOVES):
            try:
                changed.update(self.directory.make_place(place))
                os.rename(spare, target)
            except FileNotFoundError:
                if attempt == _MOVES - 1:
                    raise
            else:
                break
        return changed

    # ------------------------------------------------------------------ spare files

    def _reopen(self, slot: int, spare: bytes, large: bool) -> tuple[int, int]:
        """Open a spare file that may be overwritten; its descriptor and size, or (-1, 0) when a new file is needed."""
        if slot not in self._warm:
            return -1, 0
        self._warm.discard(slot)
        if not large:
            try:
                fd = os.open(spare, _WRITE)
            except OSError:  # gone, or something was planted in its place; a new file will do, or fail with the reason
                pass
            else:
                status = os.fstat(fd)
                if self._may_overwrite(status):
                    return fd, status.st_size
                os.close(fd)
        self._drop(spare)
        return -1, 0

    def _drop(self, spare: bytes) -> None:
        discard(spare)

    def _may_overwrite(self, status: os.stat_result) -> bool:
        return (
            status.st_mode == self._plain
            and status.st_nlink == 1
            and status.st_uid == os.geteuid()
            and status.st_size <= 2 * LARGE
        )

    def _create(self, spare: bytes) -> int:
        mode = self.directory.file_mode
        try:
            try:
                fd = os.open(spare, _CREATE, mode)
            except FileExistsError:
                self._drop(spare)
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
        """Remove spare files that are large: they are not used again. Any thread may: no entry has a spare's name."""
        for slot in sorted(self._warm):
            spare = self.directory.home() + b"/%d" % slot
            with suppress(FileNotFoundError):
                if os.lstat(spare).st_size > LARGE:
                    discard(spare)

    def drop_spares(self) -> None:
        """Remove all spare files: they hold deleted or replaced records."""
        while self._warm:
            discard(self.directory.home() + b"/%d" % self._warm.pop())

    def probe(self) -> None:
        """Make, write and remove a file, as every write has to."""
        spare = self.directory.home() + b"/probe"
        fd = self._create(spare)
        try:
            os.write(fd, b"storeconf")
            if self.group is not None:
                system.sync_data(fd)
        finally:
            os.close(fd)
            os.unlink(spare)


class LockedEntry:
    """One key's entry, locked between enter and exit, as far as writers go."""

    __slots__ = ("key", "name", "number", "place", "target", "writer")

    def __init__(self, writer: EntryWriter, place: NamespacePlace, key: str) -> None:
        raw = key.encode()
        self.writer: EntryWriter = writer
        self.place: NamespacePlace = place
        self.key: bytes = place.prefix + raw
        self.name: bytes = name_in(place.hash, raw)
        self.target: bytes = place.directory + b"/" + self.name
        self.number: int = lock_number(self.name)

    def __enter__(self) -> Self:
        self.writer.lock(self.number)
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.unlock(self.number)

    def read(self) -> Record | None:
        """Return the record, or None if there is none or it has expired."""
        try:
            record = self.writer.read(self.target, self.key)
        except FileNotFoundError:
            return None
        if record is None:
            self.writer.directory.report_damage(self.target)
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


def _write(fd: int, data: bytes | memoryview) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _write_both(fd: int, head: bytes, value: bytes) -> None:
    """Write both with one call, if it can write so much, and without joining them before."""
    rest = os.writev(fd, (head, value)) - len(head)
    if rest < len(value):
        if rest < 0:
            _write(fd, head[rest:])
        _write(fd, memoryview(value)[max(rest, 0) :])


def discard(path: bytes) -> None:
    """Free a spare's name; anything but a file, planted where an entry was, is only moved aside."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        os.rename(path, path + b"." + token_hex(4).encode())


def _set_times(fd: int, expiry: int) -> None:
    """Tell sweepers when to look at a file; its lock is held. Without it they look each time."""
    try:  # noqa: SIM105  # `suppress` takes as long as the call
        os.utime(fd, ns=file_times(expiry, time.time_ns()))
    except (OSError, OverflowError):  # a file system, or a clock, that can't express them
        pass


def _correct_times(target: bytes, expiry: int) -> None:
    with suppress(OSError):  # it belongs to another user, say
        fd = os.open(target, os.O_RDONLY | NO_FOLLOW)
        try:
            if os.fstat(fd).st_nlink == 1:  # else somebody's backup is made of hard links
                _set_times(fd, expiry)
        finally:
            os.close(fd)
