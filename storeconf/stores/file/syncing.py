"""Bringing changes to the disk before anybody is told of them (``durability: fsync``), many at the price of one."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from storeconf.stores.file import system
from storeconf.stores.file.directory import translate

if TYPE_CHECKING:
    from storeconf.errors import StoreError
    from storeconf.stores.file.directory import Directory, NamespacePlace

__all__ = ["Draft", "SyncGroup"]

_MOST = 64
"""Changes that wait for each other at most."""

_SYNCERS = 8
"""Threads that wait for the disk: it does several requests at once for little more than the price of one."""


class Draft(NamedTuple):
    """A whole record in a spare file that has not taken its place yet."""

    place: NamespacePlace
    target: bytes
    spare: bytes
    slot: int
    fd: int
    pending: bool
    large: bool
    expiry: int


class _Publisher(Protocol):
    """The interface of the writer that a group needs."""

    directory: Directory

    def publish(self, draft: Draft) -> set[bytes]: ...

    def withdraw(self, draft: Draft) -> None: ...


class _StagedChange(NamedTuple):
    """A draft, or None for a removal; the directory whose names change, the lock held, and on whose behalf it is."""

    number: int
    directory: bytes
    draft: Draft | None
    ticket: Any


class SyncGroup:
    """Changes that are not on the disk yet. For one thread.

    Drafts go to the disk first, all at once; then they take their places, and then the directories go to the disk. So
    after a crash each key has its old record or its new one, and the new one if anybody was told of it.
    """

    def __init__(self, writer: _Publisher) -> None:
        self.writer = writer
        self.ticket: Any = None
        """On whose behalf the present changes are; `failures` returns it."""
        self.held: set[int] = set()
        self._changes: list[_StagedChange] = []
        self._failures: list[tuple[Any, StoreError]] = []
        self._syncers = _Syncers()

    def __len__(self) -> int:
        return len(self._changes)

    def stage(self, number: int, directory: bytes, draft: Draft | None) -> None:
        """Add a change."""
        self._changes.append(_StagedChange(number, directory, draft, self.ticket))
        self.held.add(number)
        if len(self._changes) >= _MOST:
            self.settle()

    def failures(self) -> list[tuple[Any, StoreError]]:
        """Settle the rest, and return the failures since the last time."""
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
            done: dict[bytes, list[_StagedChange]] = {}
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

    def _publish(self, change: _StagedChange, draft: Draft, error: OSError | None) -> list[bytes] | None:
        try:
            if error is not None:
                self.writer.withdraw(draft)
                raise error
            return sorted(self.writer.publish(draft))
        except OSError as failure:
            self._failures.append((change.ticket, translate(failure, self.writer.directory)))
            return None

    def _sync_names(self, directory: bytes, changes: list[_StagedChange]) -> None:
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
        """Bring all files to the disk; return the failures, file by file."""
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
