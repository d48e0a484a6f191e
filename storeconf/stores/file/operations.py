"""The operations of a file store on its files. They block, so a worker runs them.

Those that may take long are generators: they yield after each slice, so that other calls get their turn, and say how
many seconds they have nothing to do.

Longer than other modules, because every operation is here once, as it blocks.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from storeconf._arguments import STALE
from storeconf.errors import StoreError, StoreTimeoutError
from storeconf.store import next_counter
from storeconf.stores.file.directory import OPEN_DIRECTORY
from storeconf.stores.file.format import ENTRY_NAME, NAMESPACE_NAME, entry_hash, lock_number
from storeconf.stores.file.reading import Busy, EntryReader, now
from storeconf.stores.file.system import Locks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from storeconf.stores.file.directory import NamespacePlace
    from storeconf.stores.file.writing import EntryWriter

__all__ = ["ReadOperations", "WriteOperations", "milliseconds_left", "patiently"]

logger: logging.Logger = logging.getLogger("storeconf.file")

NamespacePath = tuple[str, ...]

T = TypeVar("T")

_NO_PREFIX = entry_hash(b"")

_NEVER = 1 << 64
"""The first millisecond that a header can't express."""

_SLICE = 0.002
"""Seconds after which a long operation lets others have their turn."""

_SWEEP_SLICE = 0.001
_SWEEP_SHARE = 0.01
"""The part of one processor that sweeping may take."""

SWEEP_DELAY = 1.0
"""Seconds between opening and the first sweep."""

SWEEP_INTERVAL = 5.0
"""Seconds between sweeps, at least; where one takes longer than that, as long as it took."""

_PATIENCE = 5.0
"""Seconds that an operation waits for a lock which somebody else, most likely stopped, does not give back."""

_SURVIVES = re.compile(rf"-(?!{STALE[1:]}\.)")
"""The beginning of the name of a directory that `survives_delete_all`."""

_PAUSE = 0.0002
"""Seconds between two looks at a lock."""


def patiently(work: Callable[..., Any], *arguments: Any) -> Generator[float, None, Any]:
    """Repeat an operation that raised Busy until it does not."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return work(*arguments)
        except Busy:
            if time.monotonic() > deadline:
                raise StoreTimeoutError(
                    f"another process has not given back the lock on a key within {_PATIENCE:g} s"
                ) from None
        yield _PAUSE


_PLAIN_CHECKS = 4096
_PARTS = 256
"""Entries that a sweep opens though they are not due by their modification times, which may be wrong: so many, and one
part in so many of the others, another one each time."""


def _deadline(expiry: int | None) -> int:
    """The millisecond in which a span that begins now is over; 0 for None: never."""
    if expiry is None:
        return 0
    deadline = now() + expiry
    if not 0 < deadline < _NEVER:
        raise StoreError(
            "an expiry can't be stored, because the clock of this machine is wrong: "
            + ("it is before 1970" if deadline <= 0 else "it is too far in the future")
        )
    return deadline


def milliseconds_left(expiry: int) -> int | None:
    """The milliseconds that a live record with that expiry in its header has left; None for never."""
    return max(1, expiry - now()) if expiry else None


class ReadOperations:
    """The operations that change nothing."""

    def __init__(self, reader: EntryReader) -> None:
        self.reader = reader

    def find(self, path: NamespacePath, key: str) -> tuple[bytes, int] | None:
        """Value and expiry."""
        return self.reader.find(path, key)

    def get_many(self, path: NamespacePath, keys: list[str]) -> Generator[float, None, dict[str, bytes]]:
        """The values that are there."""
        found = {}
        due = time.monotonic() + _SLICE
        for key in keys:
            try:
                entry = self.reader.find(path, key)
            except Busy:
                entry = yield from patiently(self.reader.find, path, key)
            if entry is not None:
                found[key] = entry[0]
            if time.monotonic() > due:
                yield 0.0
                due = time.monotonic() + _SLICE
        return found

    def pages(self, path: NamespacePath, prefix: str) -> Iterator[list[str]]:
        """The live keys of a namespace that begin with ``prefix``, a page for each step."""
        place = self.reader.directory.place(path)
        return self._paged([place.directory], partial(self._matching, place, prefix), downwards=False)

    def tree(self, path: NamespacePath) -> Iterator[list[tuple[NamespacePath, str]]]:
        """The live keys of a namespace and of those below it, each with the names that follow, a page for each step."""
        top = self.reader.directory.place(path).directory
        return self._paged([top], partial(self._placed, len(path)), downwards=True)

    def _paged(
        self, directories: list[bytes], look: Callable[[bytes, bytes, int | None], T | None], *, downwards: bool
    ) -> Iterator[list[T]]:
        """The results of ``look`` for the files of directories, with ``downwards`` also of directories in them."""
        waiting: list[tuple[bytes, bytes]] = []
        page: list[T] = []
        due = time.monotonic() + _SLICE
        for directory in directories:
            for below, entry in _scan(directory):
                if ENTRY_NAME.match(entry.name) is not None:
                    name = entry.name.encode()
                    try:
                        found = look(directory, name, below)
                    except Busy:
                        waiting.append((directory, name))
                    else:
                        if found is not None:
                            page.append(found)
                elif downwards and _is_namespace(entry):
                    directories.append(directory + b"/" + entry.name.encode())
                if time.monotonic() > due:
                    yield page
                    page = []
                    due = time.monotonic() + _SLICE
        for directory, name in waiting:
            attempts = patiently(look, directory, name, None)
            while True:
                try:
                    next(attempts)
                except StopIteration as done:
                    if done.value is not None:
                        page.append(done.value)
                    break
                yield page
                page = []
        yield page

    def _matching(
        self, place: NamespacePlace, prefix: str, directory: bytes, name: bytes, below: int | None
    ) -> str | None:
        key = self.reader.key(directory, place.prefix, place.hash, name, below)
        return shown if key is not None and (shown := key.decode()).startswith(prefix) else None

    def _placed(self, depth: int, directory: bytes, name: bytes, below: int | None) -> tuple[NamespacePath, str] | None:
        qualified = self.reader.key(directory, b"", _NO_PREFIX, name, below)
        if qualified is None:
            return None
        names, _, key = qualified.decode().partition("::")
        path = tuple(names.split(":")) if names else ()
        if self.reader.directory.place(path).directory != directory:  # moved here from elsewhere: nobody finds it
            return None
        return path[depth:], key


class WriteOperations:
    """The operations that change entries. For one thread.

    Sweeps also remove the large spare files of the writers ``tidied``, which other threads use.
    """

    def __init__(self, writer: EntryWriter, tidied: tuple[EntryWriter, ...] = ()) -> None:
        self.writer = writer
        self._tidied = (writer, *tidied)
        self._part = secrets.randbelow(_PARTS)

    # ------------------------------------------------------------------ one key

    def set(self, path: NamespacePath, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry."""
        with self.writer.entry(path, key) as entry:
            record = entry.read() if keep_ttl else None
            entry.put(value, record.expiry if record is not None else _deadline(expiry))

    def renew(self, path: NamespacePath, key: str, expiry: int) -> bytes | None:
        """The value; an entry that has an expiry gets a new one."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if record is None:
                return None
            if record.expiry:
                if expiry > 0:
                    entry.renew(record, _deadline(expiry))
                else:
                    entry.remove()
            return record.value

    def delete(self, path: NamespacePath, key: str) -> bool:
        """Remove the key; return whether it was there."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            entry.remove()
            return record is not None

    def add(self, path: NamespacePath, key: str, value: bytes, expiry: int | None) -> bool:
        """Store the value only if the key is missing."""
        with self.writer.entry(path, key) as entry:
            if entry.read() is not None:
                return False
            if expiry is None or expiry > 0:
                entry.put(value, _deadline(expiry))
            return True

    def touch(self, path: NamespacePath, key: str, expiry: int | None) -> bool:
        """Give the key another expiry."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if record is None:
                return False
            if expiry is None or expiry > 0:
                entry.renew(record, _deadline(expiry))
            else:
                entry.remove()
            return True

    def pop(self, path: NamespacePath, key: str) -> bytes | None:
        """Remove the key and return its value."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if record is None:
                return None
            entry.remove()
            return record.value

    def increment(self, path: NamespacePath, key: str, by: int, expiry: int | None) -> int:
        """Add to a counter."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if record is None:
                if expiry is None or expiry > 0:
                    entry.put(b"%d" % by, _deadline(expiry))
                return by
            number = next_counter(record.value, by)
            entry.put(b"%d" % number, record.expiry)
            return number

    def compare_and_set(
        self, path: NamespacePath, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        """Compare and set."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if (None if record is None else record.value) != old:
                return False
            if new is None:
                entry.remove()
            else:
                entry.put(new, record.expiry if keep_ttl and record is not None else _deadline(expiry))
            return True

    # ------------------------------------------------------------------ several keys

    def set_many(self, path: NamespacePath, items: dict[str, bytes], expiry: int | None) -> Generator[float, None, int]:
        """Set one key after another."""
        return self._one_by_one((self.set, path, key, value, expiry, False) for key, value in items.items())

    def delete_many(self, path: NamespacePath, keys: list[str]) -> Generator[float, None, int]:
        """Delete one key after another; return how many were there."""
        return self._one_by_one((self.delete, path, key) for key in keys)

    def _one_by_one(self, calls: Iterator[tuple[Any, ...]]) -> Generator[float, None, int]:
        """Make one call after another; return how many of them returned True."""
        count = 0
        due = time.monotonic() + _SLICE
        for work, *arguments in calls:
            try:
                done = work(*arguments)
            except Busy:
                done = yield from patiently(work, *arguments)
            count += done is True
            if time.monotonic() > due:
                yield 0.0
                due = time.monotonic() + _SLICE
        return count

    def delete_all(self, path: NamespacePath) -> Generator[float, None, None]:
        """Remove the entries of a namespace and of those below it, and the directories that this empties."""
        top = self.writer.directory.place(path).directory
        yield from self._each(top, self._erase, _SLICE, spared=_SURVIVES)
        self.writer.drop_spares()

    def delete_expired(self, path: NamespacePath) -> Generator[float, None, None]:
        """Remove the expired and damaged entries of a namespace and of those below it, and the debris of the dead."""
        self.writer.directory.sweep()
        top = self.writer.directory.place(path).directory
        yield from self._each(top, self._sweeping(), _SLICE)

    def sweep(self) -> Generator[float, None, None]:
        """Remove expired entries, and files that dead processes left; never returns. One process at a time does it."""
        pause = SWEEP_DELAY
        while True:
            yield pause
            start = time.monotonic()
            try:
                yield from self._sweep_once()
            except FileNotFoundError:  # somebody has removed the directory
                pass
            except OSError as error:
                if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                    return  # a process that may only read leaves sweeping to others
                logger.warning("sweeping %s failed: %s", self.writer.directory.shown, error)
            pause = max(SWEEP_INTERVAL, time.monotonic() - start)

    def _sweep_once(self) -> Generator[float, None, None]:
        directory = self.writer.directory
        locks = directory.locks
        if not locks.acquire(Locks.SWEEPER):
            return
        try:
            directory.sweep()
            for writer in self._tidied:
                writer.tidy()
            for _ in self._each(directory.root, self._sweeping(), _SWEEP_SLICE):
                yield _SWEEP_SLICE / _SWEEP_SHARE
        finally:
            locks.release(Locks.SWEEPER)

    def ping(self) -> None:
        """See whether the directory can be written."""
        self.writer.probe()

    def _each(
        self,
        top: bytes,
        act: Callable[[bytes, os.DirEntry[str]], bool],
        slice_: float,
        *,
        spared: re.Pattern[str] | None = None,
    ) -> Generator[float, None, None]:
        """Call ``act``, which tells whether an entry is gone, on all in and below a directory; remove those left empty.

        Directories below it whose names are ``spared`` are left out.

        A failure does not keep the others from their turn. Others may write meanwhile: a directory that is not empty
        stays, and a writer that finds the directory gone makes it again.
        """
        directories = [top]
        occupied: set[bytes] = set()
        waiting: list[tuple[bytes, os.DirEntry[str]]] = []
        failure: OSError | None = None
        due = time.monotonic() + slice_
        for directory in directories:
            for _, entry in _scan(directory):
                gone = False
                if ENTRY_NAME.match(entry.name) is not None:
                    try:
                        gone = act(directory, entry)
                    except Busy:
                        waiting.append((directory, entry))
                        gone = True  # perhaps; else removing the directory fails
                    except OSError as error:
                        failure = error
                elif _is_namespace(entry) and not (spared and spared.match(entry.name)):
                    directories.append(directory + b"/" + entry.name.encode())
                    gone = True  # perhaps, too
                if not gone:
                    occupied.add(directory)
                if time.monotonic() > due:
                    yield 0.0
                    due = time.monotonic() + slice_
        for directory, entry in waiting:
            yield from patiently(act, directory, entry)
        for directory in reversed(directories):
            if directory not in occupied and directory != self.writer.directory.root:
                with suppress(OSError):
                    os.rmdir(directory)
            if time.monotonic() > due:
                yield 0.0
                due = time.monotonic() + slice_
        if failure is not None:
            raise failure

    def _erase(self, directory: bytes, entry: os.DirEntry[str]) -> bool:
        name = entry.name.encode()
        number = lock_number(name)
        self.writer.lock(number)
        try:
            self.writer.remove(directory, name)
        finally:
            self.writer.unlock(number)
        return True

    def _sweeping(self) -> Callable[[bytes, os.DirEntry[str]], bool]:
        """The action of one sweep on each entry."""
        checks = _PLAIN_CHECKS
        self._part = (self._part + 1) % _PARTS
        part = f"{self._part:02x}"

        def collect(directory: bytes, entry: os.DirEntry[str]) -> bool:
            nonlocal checks
            try:  # the entry remembers its status, should this be asked again when the directory is not open any more
                due = entry.stat(follow_symlinks=False).st_mtime_ns <= time.time_ns()
            except FileNotFoundError:
                return True
            if not due:
                checks -= 1
                if checks < 0 and not entry.name.startswith(part):
                    return False
            if entry.is_dir(follow_symlinks=False):  # planted; its content is not the store's
                return False
            return self.writer.collect(directory, entry.name.encode(), due)

        return collect


def _is_namespace(entry: os.DirEntry[str]) -> bool:
    return NAMESPACE_NAME.match(entry.name) is not None and entry.is_dir(follow_symlinks=False)


def _scan(directory: bytes) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """The contents of a directory, each with the directory's descriptor, from which looking up is quicker."""
    try:
        below = os.open(directory, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        with os.scandir(below) as found:
            for entry in found:
                yield below, entry
    except FileNotFoundError:
        return
    finally:
        os.close(below)
