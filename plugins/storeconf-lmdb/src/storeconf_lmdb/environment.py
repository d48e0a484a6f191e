"""One LMDB environment per database and process, which all stores on it share, and the thread that writes to it.

LMDB allows one environment per database in a process, reads from any thread, and one writer among all processes.
Reading takes microseconds and is done where it is asked for. Writing may wait for other processes, so a thread does
it: all that is waiting for it goes into one transaction.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import lmdb

from storeconf import StoreError, StoreRefusedError, StoreUnavailableError
from storeconf_lmdb.transaction import Transaction, change_nothing, remove_expired

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Environment"]

T = TypeVar("T")

MAX_READERS = 1024
"""Reads that all processes together may have under way."""

BATCH = 1_000
"""Writes in one transaction at most."""

OPENING = 5.0
"""Seconds for which opening is tried again while other processes let the map grow."""

RESERVE = 1 << 20
"""Bytes beyond the largest size that removing something may need for a moment."""


class Settings(NamedTuple):
    """The settings that the first store on a database decides for all of this process."""

    map_size: int
    max_size: int | None
    durability: str


class Change(NamedTuple):
    """The work of a write transaction; ``frees``: it only removes something."""

    work: Callable[[Transaction], Any]
    frees: bool


class Write(NamedTuple):
    """A change that waits for its turn, and who waits for it."""

    change: Change
    result: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Environment:
    """A database that is open in this process. Locks are taken in the order ``writing``, ``reading``."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.users = 0
        self.writing = threading.Lock()
        """Held while a write transaction is open."""
        self.reading = threading.Lock()
        """Held while a read transaction is open, and while the map is moved, which no transaction survives."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lmdb = self._open()
        try:
            self.lmdb.reader_check()  # gives back the slots of processes that have died
            while self._adopts(self._open_tables):
                pass
        except BaseException:
            self.lmdb.close()
            raise
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storeconf-lmdb")
        self._waiting: deque[Write] = deque()
        self._scheduled = False
        self._schedule = threading.Lock()

    def _open(self) -> lmdb.Environment:
        deadline = time.monotonic() + OPENING
        while True:
            try:
                return lmdb.open(
                    str(self.path),
                    map_size=self.settings.map_size,
                    max_dbs=3,
                    max_readers=MAX_READERS,
                    mode=0o600,
                    sync=self.settings.durability == "fsync",
                    readahead=False,
                    max_spare_txns=0,  # a kept one would be freed by a forked child, though the parent uses it
                )
            except lmdb.MapResizedError as error:
                # Another process has let it grow at that moment; the next attempt reads its size again.
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(f"{self.path}: {error}") from error
                time.sleep(0.001)

    def _open_tables(self) -> None:
        self.entries = self.lmdb.open_db(b"entries")
        self.expiries = self.lmdb.open_db(b"expiries")
        self.paths = self.lmdb.open_db(b"paths")

    def close(self) -> None:
        """End the thread, and close the database."""
        self._thread.shutdown()
        with self.writing, self.reading:
            self.lmdb.close()

    # ------------------------------------------------------------------ reading

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` in a read transaction, at once."""
        while True:
            try:
                with self.reading, self.lmdb.begin(buffers=True) as transaction:
                    return work(Transaction(self, transaction))
            except lmdb.MapResizedError:
                with self.writing:
                    self._adopt()
            except lmdb.ReadersFullError as error:
                if not self.lmdb.reader_check():
                    raise StoreUnavailableError(f"{self.path}: {error}") from error

    # ------------------------------------------------------------------ writing

    async def write(self, work: Callable[[Transaction], T], *, frees: bool = False) -> T:
        """Do ``work`` in a write transaction, in the thread. It must not have changed anything when it raises.

        It is done again if the map was full. What ``frees`` space may for that moment have more than there is: LMDB
        writes a changed page to another place.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._waiting.append(Write(Change(work, frees), result, loop))
        with self._schedule:
            if not self._scheduled:
                self._scheduled = True
                self._thread.submit(self._write_waiting)
        return await result

    def _write_waiting(self) -> None:
        while True:
            batch: list[Write] = []
            with suppress(IndexError):
                while len(batch) < BATCH:
                    each = self._waiting.popleft()
                    if not each.result.cancelled():
                        batch.append(each)
            if batch:
                self._deliver(batch, self._results([each.change for each in batch]))
                continue
            with self._schedule:
                if not self._waiting:
                    self._scheduled = False
                    return

    def _results(self, changes: list[Change]) -> list[Any]:
        """The result or error of each of them; if the transaction failed, that error for all."""
        frees, swept = all(each.frees for each in changes), False
        while True:
            try:
                with self.writing, self.lmdb.begin(write=True, buffers=True) as transaction:
                    done = Transaction(self, transaction)
                    results = [_outcome(each.work, done) for each in changes]
            except lmdb.MapFullError:
                if self._grows(frees):
                    continue
                if not frees and not swept:
                    self._sweep()
                    swept = True
                    continue
                if len(changes) > 1:  # what fits, fits
                    return [result for each in changes for result in self._results([each])]
                text = f"{self.path} is full: it has reached its max_size of {self.settings.max_size:,} bytes"
                return [StoreRefusedError(text, code="OOM")]
            except lmdb.MapResizedError:
                with self.writing:
                    self._adopt()
            except Exception as error:  # noqa: BLE001 - raised by all of them
                return [error] * len(changes)
            else:
                if frees and (limit := self.settings.max_size) is not None and self._size() > limit:
                    self._resize(limit)  # nobody else gets the reserve; LMDB keeps the part in use
                return results

    def _grows(self, frees: bool) -> bool:
        """After the map was full: whether it has grown."""
        size, limit = self._size(), self.settings.max_size
        if limit is None or size < limit:
            self._resize(2 * size if limit is None else min(2 * size, limit))
        elif frees and size < limit + RESERVE:
            self._resize(limit + RESERVE)
        else:
            return False
        return True

    def _sweep(self) -> None:
        """Remove expired entries, and let LMDB use the freed pages: it does so in the next transaction but one."""
        while self._results([Change(remove_expired, frees=True)]) == [True]:
            pass
        self._results([Change(change_nothing, frees=True)])

    def _size(self) -> int:
        size: int = self.lmdb.info()["map_size"]
        return size

    def _resize(self, size: int) -> None:
        with self.writing, self.reading:
            self.lmdb.set_mapsize(size)

    def _adopt(self) -> None:
        """Take over the size that another process has given the map; ``writing`` is held."""
        with self.reading:
            self.lmdb.set_mapsize(0)

    def _adopts(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except lmdb.MapResizedError:
            self.lmdb.set_mapsize(0)
            return True
        return False

    def _deliver(self, batch: list[Write], results: list[Any]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for each, result in zip(batch, results, strict=True):
            by_loop.setdefault(each.loop, []).append((each.result, result))
        for loop, outcomes in by_loop.items():
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_hand_over, outcomes)

    # ------------------------------------------------------------------ one per database

    @classmethod
    def enter(cls, path: Path, settings: Settings) -> Environment:
        """Return the environment of this database, and count a user more. Blocks while it is opened."""
        path = path.resolve()
        with _opening:
            environment = _environments.get(path)
            if environment is None:
                environment = _environments[path] = cls(path, settings)
            elif environment.settings != settings:
                raise StoreError(f"{path} is open in this process with other settings")
            environment.users += 1
            return environment

    def leave(self) -> None:
        """Count a user less; the last one closes it. Blocks meanwhile."""
        with _opening:
            self.users -= 1
            if self.users == 0 and _environments.pop(self.path, None) is not None:  # else a forked child has closed it
                self.close()


def _outcome(work: Callable[[Transaction], Any], transaction: Transaction) -> Any:
    try:
        return work(transaction)
    except StoreError as error:
        return error


def _hand_over(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in outcomes:
        if future.done():  # cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


_environments: WeakValueDictionary[Path, Environment] = WeakValueDictionary()
_opening = threading.Lock()
_held = ExitStack()


def _before_fork() -> None:
    """Let no transaction be open, and no lock be taken, that a child would inherit without the thread that ends it."""
    _held.enter_context(_opening)
    for environment in list(_environments.values()):
        _held.enter_context(environment.writing)
        _held.enter_context(environment.reading)


def _in_child() -> None:
    """Close what the parent has opened, which LMDB allows and without which a child can't open it again."""
    inherited = list(_environments.values())
    _held.close()
    _environments.clear()
    for environment in inherited:
        environment.lmdb.close()


os.register_at_fork(before=_before_fork, after_in_parent=_held.close, after_in_child=_in_child)
