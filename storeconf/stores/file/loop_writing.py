"""Changing entries in an event loop, where no disk is behind the files (tmpfs), so that nothing has to wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from storeconf.stores.file import system
from storeconf.stores.file.reading import Busy, read_record
from storeconf.stores.file.writing import LARGE, EntryWriter, discard

if TYPE_CHECKING:
    from storeconf.stores.file.directory import Directory, NamespacePlace
    from storeconf.stores.file.format import Record
    from storeconf.stores.file.writing import LockedEntry

__all__ = ["LoopWriter"]

_LARGEST = LARGE + 8192
"""Bytes of the largest file that is read here."""


class LoopWriter(EntryWriter):
    """Changes small entries where no disk is behind the files, so that an event loop can do it. For one thread.

    Everything else raises Busy before anything is done: large entries, those of a new namespace, and all as long as it
    is not ``ready``; a thread makes it so by `prepare`. Names change by calls that do not let other threads run in the
    meantime: such a call takes less time than the thread might then have to wait for the interpreter.
    """

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory)
        self.ready: bool = False
        self._exchange = system.exchange_at_once

    def prepare(self) -> None:
        """Create and open what it needs, unless that was done before; nobody uses this writer in the meantime."""
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

    def lock(self, number: int) -> None:
        """Take the lock of an entry."""
        if not self.ready or self._exchange is None:
            raise Busy
        super().lock(number)

    def read(self, target: bytes, key: bytes) -> Record | None:
        """Return the record of a small file; its lock is held."""
        return read_record(target, key, alone=True, most=_LARGEST)

    def put(self, entry: LockedEntry, value: bytes, expiry: int) -> None:
        """Make a record the entry's if it is small; its lock is held."""
        if len(value) > LARGE:
            raise Busy
        super().put(entry, value, expiry)

    def put_header(self, entry: LockedEntry, record: Record, expiry: int) -> bool:
        """Overwrite the header; its lock is held."""
        self._check_locks()
        return super().put_header(entry, record, expiry)

    def remove(self, directory: bytes, name: bytes) -> bool:
        """Remove the entry's file, which was read before and so is small; its lock is held."""
        self._check_locks()
        try:
            system.unlink_at_once(directory + b"/" + name)
        except FileNotFoundError:
            return False
        return True

    def _check_locks(self) -> None:
        """Leave it to a thread if the directory has been replaced, and with it the file of the locks.

        One who writes a record notices that the spare file is missing.
        """
        if not os.fstat(self.directory.locks.fd).st_nlink:
            self._restore()

    def _move(self, place: NamespacePlace, spare: bytes, target: bytes) -> set[bytes]:
        try:
            system.rename_at_once(spare, target)
        except FileNotFoundError:  # a thread creates the namespace
            raise Busy from None
        return set()

    def _drop(self, spare: bytes) -> None:
        self._restore()  # a thread removes it

    def _restore(self) -> NoReturn:
        self.ready = False
        raise Busy
