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
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from storeconf.stores.file import system
from storeconf.stores.file.directory import translate
from storeconf.stores.file.format import (
    COMMITTED,
    COMMITTED_AT,
    HEADER_SIZE,
    PENDING,
    entry_name,
    file_times,
    lock_number,
    pack,
)
from storeconf.stores.file.reading import NO_FOLLOW, Busy, Reader, lives, read_header, read_record

if TYPE_CHECKING:
    from storeconf.errors import StoreError
    from storeconf.stores.file.directory import Directory, Place
    from storeconf.stores.file.format import Record
    from storeconf.stores.file.system import Locks

__all__ = ["Entry", "Group", "LoopWriter", "Writer"]

_WRITE = os.O_WRONLY | NO_FOLLOW
_CREATE = _WRITE | os.O_CREAT | os.O_EXCL

_LARGE = 65536
"""Bytes of a value beyond which it gets a new file each time: writing it costs more than making the file then."""

_SPINS = 20
"""Times that a writer asks for a lock before he does something else; holders are brief."""

_MOVES = 100
"""Attempts to move a new entry into a namespace whose directory others remove, because it is empty, meanwhile."""

_MOST = 64
"""Changes that wait for each other at most."""

_SYNCERS = 8
"""Threads that wait for the disk: it does several requests at once for little more than the price of one."""


class Draft(NamedTuple):
    """A whole record in a spare file that has not taken its place yet."""

    place: Place
    target: bytes
    spare: bytes
    slot: int
    fd: int
    pending: bool
    large: bool
    expiry: int


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

    def lock(self, number: int, target: bytes | None = None) -> None:
        """Take the lock of an entry, whose file is ``target``."""
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
            _set_times(fd, expiry)
        finally:
            os.close(fd)
        return True

    def collect(self, directory: bytes, name: bytes, due: bool) -> bool:
        """Remove the entry's file if the record has expired or is damaged; whether it is gone.

        A live entry that was ``due`` by its modification time gets the right one. Without a sync: what comes back
        after a crash is removed again. Raises Busy.
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
                with suppress(OSError):  # the record is in its place; without the mark readers have to look for that
                    os.pwrite(fd, COMMITTED, COMMITTED_AT)
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

    def _move(self, place: Place, spare: bytes, target: bytes) -> set[bytes]:
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
            except OSError:  # gone, or what was planted in the entry's place; a new file will do, or say why not
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
            and status.st_size <= 2 * _LARGE
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


class LoopWriter(Writer):
    """Overwrites small entries where no disk is behind the files, so that an event loop can do it. For one thread.

    All else raises Busy before anything is done: entries that are new, large or to be removed, and any as long as it is
    not ``ready``; a thread makes it so by `prepare`.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self.ready: bool = False

    def prepare(self) -> None:
        """Make and open what it takes, unless somebody was quicker; nobody uses this writer meanwhile."""
        if self.ready:
            return
        try:
            os.stat(self.directory.home())
        except FileNotFoundError:
            self._warm.clear()
            self.directory.restore()
        if 0 not in self._warm:
            discard(self.directory.home() + b"/0")
        self.directory.locks.release(0)  # opened now, not when it is needed
        self.ready = True

    def lock(self, number: int, target: bytes | None = None) -> None:
        """Take the lock of an entry that can be overwritten here."""
        if not self.ready or self._exchange is None or target is None:
            raise Busy
        super().lock(number)
        try:
            if os.lstat(target).st_size <= _LARGE:
                return
        except OSError:  # it does not exist; or else a thread finds out
            pass
        self.unlock(number)
        raise Busy

    def put(self, entry: Entry, value: bytes, expiry: int) -> None:
        """Make a record the entry's if it is small; its lock is held."""
        if len(value) > _LARGE:
            raise Busy
        super().put(entry, value, expiry)

    def put_header(self, entry: Entry, record: Record, expiry: int) -> bool:
        """Nothing: only one who needs the spare file notices when the directory, and its locks, have been replaced."""
        return False

    def remove(self, directory: bytes, name: bytes) -> bool:
        """Leave it to a thread."""
        raise Busy

    def _move(self, place: Place, spare: bytes, target: bytes) -> set[bytes]:
        raise Busy

    def _drop(self, spare: bytes) -> None:
        self._restore()  # a thread removes it

    def _restore(self) -> NoReturn:
        self.ready = False
        raise Busy


class Entry:
    """One key's entry, locked between enter and exit, as far as writers go."""

    __slots__ = ("key", "name", "number", "place", "target", "writer")

    def __init__(self, writer: Writer, place: Place, key: bytes) -> None:
        self.writer: Writer = writer
        self.place: Place = place
        self.key: bytes = key
        self.name: bytes = entry_name(key)
        self.target: bytes = place.directory + b"/" + self.name
        self.number: int = lock_number(self.name)

    def __enter__(self) -> Self:
        self.writer.lock(self.number, self.target)
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


def _set_times(fd: int, expiry: int) -> None:
    """Tell sweepers when to look at a file; its lock is held. Without it they look each time."""
    with suppress(OSError, OverflowError):  # a file system, or a clock, that can't express them
        os.utime(fd, ns=file_times(expiry, time.time_ns()))


def _correct_times(target: bytes, expiry: int) -> None:
    with suppress(OSError):  # it belongs to another user, say
        fd = os.open(target, os.O_RDONLY | NO_FOLLOW)
        try:
            if os.fstat(fd).st_nlink == 1:  # else somebody's backup is made of hard links
                _set_times(fd, expiry)
        finally:
            os.close(fd)


class _Change(NamedTuple):
    """A draft, or None for a removal; the directory whose names change, the lock held, and on whose behalf it is."""

    number: int
    directory: bytes
    draft: Draft | None
    ticket: Any


class Group:
    """Changes that are not on the disk yet. For one thread.

    Drafts go to the disk first, all at once; then they take their places, and then the directories go to the disk. So
    after a crash each key has its old record or its new one, and the new one if anybody was told of it.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.ticket: Any = None
        """On whose behalf the present changes are; `failures` returns it."""
        self.held: set[int] = set()
        self._changes: list[_Change] = []
        self._failures: list[tuple[Any, StoreError]] = []
        self._syncers = _Syncers()

    def __len__(self) -> int:
        return len(self._changes)

    def stage(self, number: int, directory: bytes, draft: Draft | None) -> None:
        """Add a change."""
        self._changes.append(_Change(number, directory, draft, self.ticket))
        self.held.add(number)
        if len(self._changes) >= _MOST:
            self.settle()

    def failures(self) -> list[tuple[Any, StoreError]]:
        """Settle what is left, and return what failed since the last time."""
        if self._changes:
            self.settle()
        failures, self._failures = self._failures, []
        return failures

    def settle(self) -> None:
        """Bring the changes to the disk, let them take effect, and free their locks."""
        changes, self._changes = self._changes, []
        try:
            drafts = [change.draft for change in changes if change.draft is not None]
            errors = dict(zip(drafts, self._syncers.sync([draft.fd for draft in drafts]), strict=True))
            done: dict[bytes, list[_Change]] = {}
            for change in changes:
                if change.draft is None:
                    changed: list[bytes] | None = []
                else:
                    changed = self._publish(change, change.draft, errors[change.draft])
                if changed is not None:
                    for directory in (*changed, change.directory):
                        done.setdefault(directory, []).append(change)
            for directory, finished in done.items():
                self._sync_names(directory, finished)
        finally:
            self.held.clear()
            for change in changes:
                self.writer.directory.release(change.number)

    def close(self) -> None:
        """End the threads."""
        self._syncers.close()

    def _publish(self, change: _Change, draft: Draft, error: OSError | None) -> list[bytes] | None:
        try:
            if error is not None:
                self.writer.withdraw(draft)
                raise error
            return sorted(self.writer.publish(draft))
        except OSError as failure:
            self._failures.append((change.ticket, translate(failure, self.writer.directory)))
            return None

    def _sync_names(self, directory: bytes, changes: list[_Change]) -> None:
        try:
            with suppress(FileNotFoundError):  # the namespace is gone, and its entries with it
                system.sync_directory(directory)
        except OSError as error:
            for change in changes:
                failure = translate(error, self.writer.directory)
                failure.outcome_unknown = True
                self._failures.append((change.ticket, failure))


class _Syncers:
    """Threads that bring files to the disk, started when there are several files for the first time."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, OSError | None]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def sync(self, fds: list[int]) -> list[OSError | None]:
        """Bring all files to the disk; what failed, file by file."""
        results: list[OSError | None] = [None] * len(fds)
        if len(fds) == 1:
            results[0] = _sync(fds[0])
            return results
        while len(self._threads) < min(_SYNCERS, len(fds)):
            thread = threading.Thread(target=self._run, name="storeconf-file-sync", daemon=True)
            thread.start()
            self._threads.append(thread)
        for place, fd in enumerate(fds):
            self._work.put((place, fd))
        for _ in fds:
            place, error = self._done.get()
            results[place] = error
        return results

    def close(self) -> None:
        for _ in self._threads:
            self._work.put(None)
        while self._threads:
            self._threads.pop().join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            place, fd = work
            self._done.put((place, _sync(fd)))


def _sync(fd: int) -> OSError | None:
    try:
        system.sync_data(fd)
    except OSError as error:
        return error
    return None
