"""A store that keeps each key in a file of its own, below one directory that several processes may share.

`FileStore` is the half of it that runs in event loops; a worker thread touches the files.

Where the kernel can tell whether a read would wait, the event loop itself reads the data that are in memory.

Longer than other modules, because every hook is here once, as the event loop sees it.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self, TypeVar, TypeVarTuple

from storeconf._lifecycle import OPEN
from storeconf._root import sign
from storeconf.errors import Damage, StoreError, report
from storeconf.store import Capabilities, StoreBase, key_text
from storeconf.stores.file import system
from storeconf.stores.file.directory import Directory, translate
from storeconf.stores.file.format import entry_name, key_prefix, namespace_name
from storeconf.stores.file.operations import ReadOperations, WriteOperations, milliseconds_left
from storeconf.stores.file.reading import ELSEWHERE, Busy, CachedReader, Elsewhere, EntryReader
from storeconf.stores.file.syncing import SyncGroup
from storeconf.stores.file.worker import LoopWriter, Turns, Worker
from storeconf.stores.file.writing import EntryWriter

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from storeconf._root import Calls
    from storeconf.store import Expiry

__all__ = ["FileStore"]

_logger = logging.getLogger("storeconf.file")

_MOST_THREADS = 64
"""Threads with event loops whose turns are remembered."""

_NO_TURNS = Turns(-1)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(slots=True)
class _Pages:
    """The state of one iteration over keys."""

    path: tuple[str, ...]
    prefix: str
    steps: Iterator[list[str]] | None = None
    worker: Worker | None = None


class _Adjustable(NamedTuple):
    """The settings that a reload may change."""

    create_directories: bool
    durability: Literal["flush", "fsync"]
    mode: int
    must_exist: bool


class FileStore(StoreBase):
    """Keeps each key in a file of its own, below the directory ``path``, for all processes of one host.

    Args:
        path: The directory, on a local file system.
        create_directories: Create the directories above it too if they are missing; else that is an error.
        durability: A finished write survives the end of the process (``flush``) or of the machine (``fsync``).
        mode: The permissions of directories; files get the same without the right to execute.
        must_exist: A missing directory is an error, so that an unmounted volume is noticed; else it is created.
    """

    _root: FileStore

    capabilities: Capabilities = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)
    notifies: ClassVar[frozenset[str]] = frozenset({"get"})

    def __init__(
        self,
        path: str | os.PathLike[str],
        create_directories: bool = False,
        *,
        durability: Literal["flush", "fsync"] = "flush",
        mode: int = 0o700,
        must_exist: bool = False,
    ) -> None:
        if durability not in ("flush", "fsync"):
            raise ValueError(f"durability is 'flush' or 'fsync', not {durability!r}")
        if mode & ~0o077 != 0o700:
            raise ValueError(f"mode must give the owner every right, as 0o700 and 0o750 do, not {mode:#o}")
        if "\0" in os.fspath(path):
            raise ValueError("a path can't hold a NUL character")
        if must_exist and create_directories:
            raise ValueError("give create_directories or must_exist, not both")
        super().__init__()
        self.path: Path = Path(path).absolute()
        self._settings = _Adjustable(create_directories, durability, mode, must_exist)
        self._earlier: list[tuple[tuple[Worker, ...], tuple[EntryReader, ...]]] = []
        self._reset_workers()

    @property
    def create_directories(self) -> bool:
        """Whether the directories above it are created too."""
        return self._root._settings.create_directories

    @property
    def durability(self) -> Literal["flush", "fsync"]:
        """The failures that a finished write survives."""
        return self._root._settings.durability

    @property
    def mode(self) -> int:
        """The permissions of directories."""
        return self._root._settings.mode

    @property
    def must_exist(self) -> bool:
        """Whether a missing directory is an error."""
        return self._root._settings.must_exist

    def _reset_workers(self) -> None:
        self._readers: tuple[EntryReader, ...] = ()
        self._workers: tuple[Worker, ...] = ()
        self._cached = False
        self._find_cached: Callable[[tuple[str, ...], str], tuple[bytes, int] | Elsewhere | None] = _nothing_cached
        self._in_loop: LoopWriter | None = None
        self._home_thread: int | None = None
        self._turns = _NO_TURNS  # those of the thread that asked last
        self._all_turns: dict[int, Turns] = {}
        self._abandon: weakref.finalize[..., FileStore] | None = None

    def do_attach(self, parent: Self) -> None:
        """Give a namespace's handle its public attributes; its path is that of its directory."""
        self.path = parent.path / namespace_name(self._path[-1])

    # ------------------------------------------------------------------ life cycle

    async def do_open(self) -> None:
        """Start the worker; make and check the directory."""
        if sys.platform == "win32":
            raise StoreError("file stores need Linux or macOS; on Windows there are memory and server stores")
        opening = self._start()
        try:
            await opening
        except BaseException:
            if self._abandon is not None:
                self._abandon.detach()
            _stop(self._workers)
            self._reset_workers()
            raise

    def _start(self) -> Future[None]:
        """Start the worker, which opens the directory first; all that comes afterwards waits for its turn.

        Calls of other threads may come while this runs, so nothing is shown to them before it is complete.
        """
        fsync = self.durability == "fsync"
        directory = self._new_directory()
        writer, in_loop = EntryWriter(directory), LoopWriter(self._new_directory())
        name = f"storeconf-file-{self.path.name}"
        if fsync:
            writer.group = SyncGroup(writer)
            # Readers don't wait for the disk.
            reader = EntryReader(directory)
            for_reading = Worker(f"{name}-read", directory, None, reader.close)
        else:
            reader = writer
        for_writing = Worker(name, directory, writer.group, partial(_close, writer, in_loop))
        if not fsync:
            for_reading = for_writing
        for_reading.reading, for_writing.writing = ReadOperations(reader), WriteOperations(writer, (in_loop,))
        self._workers = (for_reading, for_writing) if fsync else (for_writing,)
        self._readers = (reader, writer, in_loop) if fsync else (writer, in_loop)
        self._abandon = weakref.finalize(self, _stop, self._workers)
        self._abandon.atexit = False
        if fsync:
            for_reading.start()
        for_writing.start(for_writing.writing.sweep())
        opening = for_writing.submit(directory.open)
        self._directory, self._reader, self._writer = directory, for_reading, for_writing
        if system.has_cached_open() and system.cached_open is not None:
            self._cached, self._find_cached = True, CachedReader(directory, system.cached_open).find
            if not fsync:
                self._overwriting, self._home_thread, self._in_loop = WriteOperations(in_loop), get_ident(), in_loop
        return opening

    def change_settings(self, like: FileStore) -> None:
        """Take the settings of another store of the same directory; calls in progress end as they have begun."""
        self.path, self._settings = like.path, like._settings
        if self._life.state != OPEN:
            return
        workers, readers, abandon = self._workers, self._readers, self._abandon
        assert abandon is not None
        self._reset_workers()
        self._start().add_done_callback(_log_failure)
        self._earlier.append((workers, readers))
        work = self._end_earlier(workers, abandon, (self._life.renew_calls(), self._life.renew_iterations()))
        self._life.run_in_background(work)

    async def _end_earlier(
        self, workers: tuple[Worker, ...], abandon: weakref.finalize[..., FileStore], calls: Iterable[Calls]
    ) -> None:
        for each in calls:
            await each.wait()
        abandon.detach()
        _stop(workers)
        for worker in workers:
            await worker.wait()
        self._earlier = [each for each in self._earlier if each[0] is not workers]

    def _new_directory(self) -> Directory:
        return Directory(
            os.fspath(self.path),
            create=not self.must_exist,
            parents=self.create_directories,
            fsync=self.durability == "fsync",
            mode=self.mode,
            on_damage=_reporter(weakref.ref(self)),
        )

    async def do_close(self) -> None:
        """End the worker; work that it has not begun by then fails."""
        workers = (*(worker for earlier, _ in self._earlier for worker in earlier), *self._workers)
        self._earlier = []
        if self._abandon is not None:
            self._abandon.detach()
        _stop(workers)  # not by the finalizer, which does nothing once the interpreter has run all that are left
        self._reset_workers()
        for worker in workers:
            await worker.wait()

    def do_forget(self) -> None:
        """Let go of the parent's files; its worker does not run here."""
        if self._abandon is not None:
            self._abandon.detach()
        for workers, readers in (*self._earlier, (self._workers, self._readers)):
            for worker in workers:
                worker.forget()
            for reader in readers:
                reader.forget()
        self._earlier = []
        self._reset_workers()

    # ------------------------------------------------------------------ operations

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """Return the value, or None when there is none or it has expired; see `Store.get`."""
        if renew_for is not None or key.__class__ is not str or not key.isascii():
            return await super().get(key, renew_for)
        root, life = self._root, self._life
        turns = root._turns
        # To ask for the running loop is a system call. Closing need not wait for a call that does not wait.
        if life.state == OPEN and turns.thread == get_ident() and monotonic() < turns.end:
            found = root._find_cached(self._path, key)
            if not isinstance(found, Elsewhere):
                return None if found is None else found[0]
            find = root._find_by_thread
        else:
            find = root._find
        calls = life.calls
        calls.count += 1  # see `Calls`
        try:
            if life.state != OPEN:
                await self._ready()
            found = await find(self._path, key)
            return None if found is None else found[0]
        except StoreError as error:
            sign(error, self, "get")
            raise
        finally:
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    def _keep_turns(self) -> Turns:
        """The turns of the running loop."""
        thread = get_ident()
        turns = self._turns
        if turns.thread != thread:
            if len(self._all_turns) >= _MOST_THREADS:  # most of them have ended
                self._all_turns = {}
            turns = self._turns = self._all_turns.setdefault(thread, Turns(thread))
        return turns

    async def _find(self, path: tuple[str, ...], key: str) -> tuple[bytes, int] | None:
        """Value and expiry of a key, read here if nothing has to be waited for."""
        if self._cached:
            turns = self._keep_turns()
            if monotonic() >= turns.end:
                await turns.give()
            found = self._find_cached(path, key)
            if not isinstance(found, Elsewhere):
                return found
        return await self._find_by_thread(path, key)

    async def _find_by_thread(self, path: tuple[str, ...], key: str) -> tuple[bytes, int] | None:
        return await (reader := self._reader).submit(reader.reading.find, path, key)

    async def _write(
        self, work: Callable[[WriteOperations, tuple[str, ...], *Ts], T], path: tuple[str, ...], *arguments: *Ts
    ) -> T:
        """Run one operation on one key. Where no disk is behind the files, the opening loop may run it itself.

        Loops of other threads may not, because a `LoopWriter` is for one thread.
        """
        in_loop = self._in_loop
        if in_loop is not None and get_ident() == self._home_thread:
            overwriting = self._overwriting
            place = self._directory.places.get(path)
            if place is not None and place.read_flags == system.NO_DISK:
                turns = self._keep_turns()
                if monotonic() >= turns.end:
                    await turns.give()
                if not in_loop.ready:
                    await self._writer.submit(in_loop.prepare)
                try:
                    return work(overwriting, path, *arguments)
                except Busy:
                    pass
                except StoreError:  # some of them are OSErrors too
                    raise
                except OSError as error:
                    raise translate(error, self._directory) from error
        return await (writer := self._writer).submit(work, writer.writing, path, *arguments)

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """Read, or, to renew, read under the key's lock."""
        if renew is not None:
            return await self._write(WriteOperations.renew, path, key, renew)
        found = await self._find(path, key)
        return None if found is None else found[0]

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Swap a new record into the key's place."""
        await self._write(WriteOperations.set, path, key, value, expiry, keep_ttl)

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        """Remove the key's file."""
        return await self._write(WriteOperations.delete, path, key)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """Read the record."""
        return await self._find(path, key) is not None

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """Read the record."""
        found = await self._find(path, key)
        return None if found is None else milliseconds_left(found[1]) or -1

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """Remove file after file, in slices; other calls get their turn."""
        await (writer := self._writer).submit(writer.writing.delete_all, path)
        in_loop = self._in_loop
        if in_loop is not None and get_ident() == self._home_thread:
            in_loop.ready = False
            await self._writer.submit(in_loop.drop_spares)

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        """Look at file after file, in slices."""
        await (writer := self._writer).submit(writer.writing.delete_expired, path)

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """Read the entries that are in memory, and all the rest in one hand-over."""
        if not self._cached:
            return await (reader := self._reader).submit(reader.reading.get_many, path, keys)
        turns = self._keep_turns()
        found, rest = {}, []
        for key in keys:
            if monotonic() >= turns.end:
                await turns.give()
            entry = self._find_cached(path, key)
            if isinstance(entry, Elsewhere):
                rest.append(key)
            elif entry is not None:
                found[key] = entry[0]
        if rest:
            found.update(await (reader := self._reader).submit(reader.reading.get_many, path, rest))
        return found

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """Set all in one hand-over."""
        await (writer := self._writer).submit(writer.writing.set_many, path, items, expiry)

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int:
        """Delete all in one hand-over."""
        return await (writer := self._writer).submit(writer.writing.delete_many, path, keys)

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """Read the record."""
        found = await self._find(path, key)
        return None if found is None else (found[0], milliseconds_left(found[1]))

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """Look and set under the key's lock."""
        return await self._write(WriteOperations.add, path, key, value, expiry)

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """Overwrite the header under the key's lock."""
        return await self._write(WriteOperations.touch, path, key, expiry)

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """Read and remove under the key's lock."""
        return await self._write(WriteOperations.pop, path, key)

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """Read and set under the key's lock."""
        return await self._write(WriteOperations.increment, path, key, by, expiry)

    async def do_compare_and_set(
        self, path: tuple[str, ...], key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        """Compare and set under the key's lock."""
        return await self._write(WriteOperations.compare_and_set, path, key, old, new, expiry, keep_ttl)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the live keys of this namespace alone; see `Store.keys`. Each page of them is one call."""
        root = self._root
        pages = _Pages(self._path, self._check("keys", key_text, prefix))
        with self._life.iterations:
            while (page := await self._call(root._next_page(pages), "keys")) is not None:
                for key in page:
                    yield key

    async def _next_page(self, pages: _Pages) -> list[str] | None:
        if pages.steps is None:  # only now the store is open
            pages.worker = self._reader
            pages.steps = pages.worker.reading.pages(pages.path, pages.prefix)
        assert pages.worker is not None
        return await pages.worker.submit(next, pages.steps, None)

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """Read file after file, a page in each hand-over."""
        pages = _Pages(path, prefix)
        while (page := await self._next_page(pages)) is not None:
            for key in page:
                yield key

    async def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """Read file after file of all directories, a page in each hand-over."""
        pages = (reader := self._reader).reading.tree(path)
        while (page := await reader.submit(next, pages, None)) is not None:
            for names, key in page:
                yield names, key

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str:
        """Return the path of the key's file."""
        name = entry_name(key_prefix(path) + key.encode()).decode()
        return str(self.path.joinpath(*map(namespace_name, path), name))

    async def do_ping(self, path: tuple[str, ...]) -> None:
        """Make, write and remove a file."""
        await (writer := self._writer).submit(writer.writing.ping)


def _nothing_cached(_path: tuple[str, ...], _key: str) -> Elsewhere:
    """Stands in for a `CachedReader` where there can't be one, and finds nothing."""
    return ELSEWHERE


def _reporter(reference: weakref.ref[FileStore]) -> Callable[[str, bool], None]:
    """Called by the worker for a damaged file; it keeps no store alive that everybody else has dropped."""

    def on_damage(path: str, removed: bool) -> None:
        store = reference()
        if store is not None:
            damage = Damage(store.name, (), "the file is damaged", raw_key=path, removed=removed)
            report(damage, store.on_damage, _logger)

    return on_damage


def _close(*readers: EntryReader) -> None:
    for reader in readers:
        reader.close()


def _log_failure(opening: Future[None]) -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        _logger.error("a file store could not use its directory with other settings: %s", error)


def _stop(workers: tuple[Worker, ...]) -> None:
    for worker in workers:
        worker.stop()
