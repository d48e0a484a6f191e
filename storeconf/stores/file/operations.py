"""What the operations of a file store do to its files. They block, so a worker runs them.

Those that may take long are generators: they yield after each slice, so that other calls get their turn, and say how
many seconds they have nothing to do.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from storeconf.errors import StoreTimeoutError
from storeconf.store import next_counter
from storeconf.stores.file.directory import Place
from storeconf.stores.file.format import ENTRY_NAME, NAMESPACE_NAME, lock_number
from storeconf.stores.file.reading import Busy, Reader, has_expired, now
from storeconf.stores.file.system import Locks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from storeconf.stores.file.writing import Writer

__all__ = ["Reading", "Writing", "patiently"]

logger = logging.getLogger("storeconf.file")

Path = tuple[str, ...]

T = TypeVar("T")

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

_PAUSE = 0.0002
"""Seconds between two looks at a lock."""


def patiently(work: Callable[..., Any], *arguments: Any) -> Generator[float, None, Any]:
    """Do what raised Busy again until it does not."""
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


def _deadline(expiry: int | None) -> int:
    """The millisecond in which a span that begins now is over; 0 for None: never."""
    return 0 if expiry is None else now() + expiry


def _left(deadline: int) -> int | None:
    return max(1, deadline - now()) if deadline else None


class Reading:
    """The operations that change nothing."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def get(self, path: Path, key: str) -> bytes | None:
        """The value."""
        record = self.reader.find(path, key)
        return None if record is None else record.value

    def exists(self, path: Path, key: str) -> bool:
        """Whether the key is there."""
        return self.reader.find(path, key) is not None

    def get_with_expiry(self, path: Path, key: str) -> tuple[bytes, int | None] | None:
        """The value and the milliseconds left."""
        record = self.reader.find(path, key)
        return None if record is None else (record.value, _left(record.expiry))

    def expires_in(self, path: Path, key: str) -> int | None:
        """The milliseconds left, -1 for never, None when missing."""
        record = self.reader.find(path, key)
        return None if record is None else (_left(record.expiry) or -1)

    def get_many(self, path: Path, keys: list[str]) -> Generator[float, None, dict[str, bytes]]:
        """The values that are there."""
        found = {}
        due = time.monotonic() + _SLICE
        for key in keys:
            try:
                value = self.get(path, key)
            except Busy:
                value = yield from patiently(self.get, path, key)
            if value is not None:
                found[key] = value
            if time.monotonic() > due:
                yield 0.0
                due = time.monotonic() + _SLICE
        return found

    def pages(self, path: Path, prefix: str) -> Iterator[list[str]]:
        """The live keys of a namespace that begin with ``prefix``, a page for each step."""
        place = self.reader.directory.place(path)
        return self._paged([place.directory], partial(self._matching, place, prefix), downwards=False)

    def tree(self, path: Path) -> Iterator[list[tuple[Path, str]]]:
        """The live keys of a namespace and of those below it, each with the names that follow, a page for each step."""
        top = self.reader.directory.place(path).directory
        return self._paged([top], partial(self._placed, len(path)), downwards=True)

    def _paged(
        self, directories: list[bytes], look: Callable[[bytes, bytes], list[T]], *, downwards: bool
    ) -> Iterator[list[T]]:
        """What ``look`` finds in the files of directories, in ``downwards`` also of those in them."""
        waiting: list[tuple[bytes, bytes]] = []
        page: list[T] = []
        due = time.monotonic() + _SLICE
        for directory in directories:
            for entry in _scan(directory):
                if ENTRY_NAME.match(entry.name) is not None:
                    try:
                        page += look(directory, entry.name)
                    except Busy:
                        waiting.append((directory, entry.name))
                elif downwards and _is_namespace(entry):
                    directories.append(directory + b"/" + entry.name)
                if time.monotonic() > due:
                    yield page
                    page = []
                    due = time.monotonic() + _SLICE
        for directory, name in waiting:
            attempts = patiently(look, directory, name)
            while True:
                try:
                    next(attempts)
                except StopIteration as done:
                    page += done.value
                    break
                yield page
                page = []
        yield page

    def _matching(self, place: Place, prefix: str, directory: bytes, name: bytes) -> list[str]:
        header = self.reader.header(place, name)
        if header is None:
            return []
        key = header.key[len(place.prefix) :].decode()
        return [key] if key.startswith(prefix) else []

    def _placed(self, depth: int, directory: bytes, name: bytes) -> list[tuple[Path, str]]:
        header = self.reader.header(Place(directory, b""), name)
        if header is None:
            return []
        names, _, key = header.key.decode().partition("::")
        path = tuple(names.split(":")) if names else ()
        if self.reader.directory.place(path).directory != directory:  # moved here from elsewhere: nobody finds it
            return []
        return [(path[depth:], key)]


class Writing:
    """The operations that change entries. For one thread."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    # ------------------------------------------------------------------ one key

    def set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry."""
        with self.writer.entry(path, key) as entry:
            record = entry.read() if keep_ttl else None
            entry.put(value, record.expiry if record is not None else _deadline(expiry))

    def renew(self, path: Path, key: str, expiry: int) -> bytes | None:
        """The value; what has an expiry gets a new one."""
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

    def delete(self, path: Path, key: str) -> None:
        """Remove the key."""
        with self.writer.entry(path, key) as entry:
            entry.remove()

    def add(self, path: Path, key: str, value: bytes, expiry: int | None) -> bool:
        """Store the value only if the key is missing."""
        with self.writer.entry(path, key) as entry:
            if entry.read() is not None:
                return False
            if expiry is None or expiry > 0:
                entry.put(value, _deadline(expiry))
            return True

    def touch(self, path: Path, key: str, expiry: int | None) -> bool:
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

    def pop(self, path: Path, key: str) -> bytes | None:
        """Remove the key and return its value."""
        with self.writer.entry(path, key) as entry:
            record = entry.read()
            if record is None:
                return None
            entry.remove()
            return record.value

    def increment(self, path: Path, key: str, by: int, expiry: int | None) -> int:
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

    def replace(
        self, path: Path, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
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

    def set_many(self, path: Path, items: dict[str, bytes], expiry: int | None) -> Generator[float, None, None]:
        """Set one key after another."""
        return self._one_by_one((self.set, path, key, value, expiry, False) for key, value in items.items())

    def delete_many(self, path: Path, keys: list[str]) -> Generator[float, None, None]:
        """Delete one key after another."""
        return self._one_by_one((self.delete, path, key) for key in keys)

    def _one_by_one(self, calls: Iterator[tuple[Any, ...]]) -> Generator[float, None, None]:
        due = time.monotonic() + _SLICE
        for work, *arguments in calls:
            try:
                work(*arguments)
            except Busy:
                yield from patiently(work, *arguments)
            if time.monotonic() > due:
                yield 0.0
                due = time.monotonic() + _SLICE

    def delete_all(self, path: Path) -> Generator[float, None, None]:
        """Remove the entries of a namespace and of those below it, and the directories that this empties."""
        top = self.writer.directory.place(path).directory
        directories = yield from self._each(top, self._erase, _SLICE)
        for directory in reversed(directories):
            if directory != self.writer.directory.root:
                with suppress(OSError):  # not empty: somebody has written meanwhile, or keeps files of his own there
                    os.rmdir(directory)
        self.writer.drop_spares()

    def delete_expired(self, path: Path) -> Generator[float, None, None]:
        """Remove the expired entries of a namespace and of those below it, and the debris of the dead."""
        self.writer.directory.sweep()
        top = self.writer.directory.place(path).directory
        yield from self._each(top, self._expire, _SLICE)

    def sweep(self) -> Generator[float, None, None]:
        """Remove what has expired, and the debris of the dead, for ever; one process at a time does."""
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
                    return  # one who may only read leaves sweeping to others
                logger.warning("sweeping %s failed: %s", self.writer.directory.shown, error)
            pause = max(SWEEP_INTERVAL, time.monotonic() - start)

    def _sweep_once(self) -> Generator[float, None, None]:
        directory = self.writer.directory
        locks = directory.locks
        if not locks.acquire(Locks.SWEEPER):
            return
        try:
            directory.sweep()
            self.writer.tidy()
            for _ in self._each(directory.root, self._expire, _SWEEP_SLICE):
                yield _SWEEP_SLICE / _SWEEP_SHARE
        finally:
            locks.release(Locks.SWEEPER)

    def ping(self) -> None:
        """See whether the directory can be written."""
        self.writer.probe()

    def _each(
        self, top: bytes, act: Callable[[bytes, bytes], None], slice_: float
    ) -> Generator[float, None, list[bytes]]:
        """Do something to every entry at and below a directory; the directories, each after the one it lies in.

        What fails does not keep the others from their turn.
        """
        directories = [top]
        waiting: list[tuple[bytes, bytes]] = []
        failure: OSError | None = None
        due = time.monotonic() + slice_
        for directory in directories:
            for entry in _scan(directory):
                if ENTRY_NAME.match(entry.name) is not None:
                    try:
                        act(directory, entry.name)
                    except Busy:
                        waiting.append((directory, entry.name))
                    except OSError as error:
                        failure = error
                elif _is_namespace(entry):
                    directories.append(directory + b"/" + entry.name)
                if time.monotonic() > due:
                    yield 0.0
                    due = time.monotonic() + slice_
        for directory, name in waiting:
            yield from patiently(act, directory, name)
        if failure is not None:
            raise failure
        return directories

    def _erase(self, directory: bytes, name: bytes) -> None:
        number = lock_number(name)
        self.writer.lock(number)
        try:
            self.writer.remove(directory, name)
        finally:
            self.writer.unlock(number)

    def _expire(self, directory: bytes, name: bytes) -> None:
        target = directory + b"/" + name
        if has_expired(target):
            number = lock_number(name)
            self.writer.lock(number)
            try:
                if has_expired(target):
                    os.unlink(target)  # without a sync: what comes back is expired and is removed again
            finally:
                self.writer.unlock(number)


def _is_namespace(entry: os.DirEntry[bytes]) -> bool:
    return NAMESPACE_NAME.match(entry.name) is not None and entry.is_dir(follow_symlinks=False)


def _scan(directory: bytes) -> Iterator[os.DirEntry[bytes]]:
    try:
        found = os.scandir(directory)
    except FileNotFoundError:
        return
    with found:
        yield from found
