"""The directory of a file store: making it, checking its format, places of namespaces, and files of dead processes."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

from storeconf.errors import StoreError, StoreReadOnlyError, StoreUnavailableError, StoreValueError
from storeconf.stores.file import system
from storeconf.stores.file.format import (
    FORMAT_FILE,
    FORMAT_TEXT,
    LOCK_FILE,
    SPARE_DIRECTORY,
    check_format,
    entry_hash,
    key_prefix,
    namespace_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import blake2b

    from storeconf.stores.file.system import Locks

__all__ = ["OPEN_DIRECTORY", "Directory", "NamespacePlace", "translate"]

_HOME = re.compile(rb"[0-9a-f]{16}\Z")
_MOST_PLACES = 4096
OPEN_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


_KINDS: dict[int, type[StoreError]] = {
    errno.EROFS: StoreReadOnlyError,
    errno.ENAMETOOLONG: StoreValueError,  # by namespaces too deep in each other
}
"""Errors for failed system calls, where the failure does not mean that the directory can't be used."""


class NamespacePlace(NamedTuple):
    """Where a namespace's entries are: their directory, and the prefix of the key in the header.

    ``read_flags`` are those with which preadv reads files there without waiting for a disk; None if that is impossible.
    ``hash`` is the beginning of the hash that names an entry: its state after the prefix.
    """

    directory: bytes
    prefix: bytes
    read_flags: int | None
    hash: blake2b

    @classmethod
    def at(cls, directory: bytes, prefix: bytes) -> NamespacePlace:
        """Return a namespace's place; looks which file system it is on."""
        return cls(directory, prefix, system.read_flags(directory), entry_hash(prefix))


def translate(error: OSError, directory: Directory) -> StoreError:
    """Return the caller's error for a failed system call."""
    name = error.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes) else directory.shown
    why = error.strerror or type(error).__name__
    failure = _KINDS.get(error.errno or 0, StoreUnavailableError)(f"{where}: {why}")
    failure.__cause__ = error
    return failure


class Directory:
    """The files' half of a store that does not depend on a key. Its methods block.

    A missing directory is made if it may be (``create``), with those above it if those may be too (``parents``).
    ``mode`` is that of directories; files get the same without the right to execute. One thread writes (`home`,
    `locks`); `place` is for any.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool,
        parents: bool = True,
        fsync: bool,
        mode: int,
        on_damage: Callable[[str, bool], None] = lambda path, removed: None,
    ) -> None:
        self.shown = path
        self._on_damage = on_damage
        self.root: bytes = os.fsencode(path)
        self.create = create
        self.parents = parents
        self.fsync = fsync
        self.mode = mode
        self.file_mode: int = mode & 0o666
        self.spares: bytes = self.root + b"/" + SPARE_DIRECTORY
        self.places: dict[tuple[str, ...], NamespacePlace] = {}
        """The results of `place`, for which the disk need not be looked at again."""
        self._locks: Locks | None = None
        self._home: bytes | None = None
        self._home_fd = -1

    def report_damage(self, target: bytes, removed: bool = False) -> None:
        """Report that the file of an entry is damaged, or was and has been removed."""
        self._on_damage(os.fsdecode(target), removed)

    # ------------------------------------------------------------------ opening and closing

    def open(self) -> None:
        """Make the directory if it may be made, and check that it is one that this format describes."""
        try:
            status = os.stat(self.root)
        except FileNotFoundError:
            if not self.create:
                raise StoreUnavailableError(
                    f"the directory {self.shown} is missing; make it, or let the store make it: `create: true` in a "
                    "layout, no must_exist=True in code"
                ) from None
            above = os.path.dirname(self.root)
            if not self.parents and not os.path.isdir(above):
                raise StoreUnavailableError(
                    f"the directory {os.fsdecode(above)} is missing; make it, or let the store make it: "
                    "create_directories=True"
                ) from None
            for changed in self._make_missing(self.root):
                system.sync_directory(changed)
        else:
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.root)
        if not self._check():
            self.home()
        self.sweep()

    def _check(self) -> bool:
        """Whether the directory has a format file; raises StoreError if that names another format."""
        try:
            with open(self.root + b"/" + FORMAT_FILE, "rb") as file:
                problem = check_format(file.read(256))
        except FileNotFoundError:
            return False
        if problem is not None:
            raise StoreError(f"the directory {self.shown} can't be used: {problem}")
        return True

    def close(self) -> None:
        """Remove the files that only this opening needed."""
        home, self._home = self._home, None
        fd, self._home_fd = self._home_fd, -1
        if home is not None:
            with suppress(OSError):  # the rest is debris, which the next opening removes
                self._remove_home(home)
            os.close(fd)
        self.forget()

    def forget(self) -> None:
        """Let go of the files without a trace on the disk."""
        self._home = None
        fd, self._home_fd = self._home_fd, -1
        if fd >= 0:
            os.close(fd)
        locks, self._locks = self._locks, None
        if locks is not None:
            locks.close()

    # ------------------------------------------------------------------ for the writer

    def home(self) -> bytes:
        """Return the directory for the spare files of this opening alone; make it at the first call.

        It is locked as long as this opening lives, which tells its files from debris.
        """
        home = self._home
        if home is None:
            while home is None:
                self._make(self.spares)
                home = self._claim_home(self.spares + b"/" + token_hex(8).encode())
            if not self._check():
                self._write_format(home)
        return home

    def _claim_home(self, path: bytes) -> bytes | None:
        # Until it is locked, a sweeper may take the new directory for debris; then another one is needed.
        try:
            self._make(path)
            fd = os.open(path, OPEN_DIRECTORY | _NO_FOLLOW)
        except FileNotFoundError:
            return None
        if system.claim(fd) and _is_at(fd, path):
            self._home, self._home_fd = path, fd
            return path
        os.close(fd)
        return None

    def _write_format(self, home: bytes) -> None:
        draft = home + b"/format"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | _NO_FOLLOW, self.file_mode)
        try:
            os.fchmod(fd, self.file_mode)
            os.write(fd, FORMAT_TEXT)
            if self.fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, self.root + b"/" + FORMAT_FILE)
        if self.fsync:
            system.sync_directory(self.root)

    @property
    def locks(self) -> Locks:
        """The locks of the writer."""
        if self._locks is None:
            self._locks = self.new_locks()
        return self._locks

    def release(self, number: int) -> None:
        """Give one of the locks back, unless they have gone with the directory."""
        if self._locks is not None:
            self._locks.release(number)

    def new_locks(self) -> Locks:
        """Open the lock file once more: two openings exclude each other."""
        return system.make_locks(self.root + b"/" + LOCK_FILE, self.file_mode)

    def restore(self) -> None:
        """Make files and directories again that someone else has removed while the store was open."""
        self.places.clear()
        self.forget()
        self.open()
        self.home()

    # ------------------------------------------------------------------ namespaces

    def place(self, path: tuple[str, ...]) -> NamespacePlace:
        """Return the place of a namespace's entries; its directory need not exist yet."""
        place = self.places.get(path)
        if place is None:
            directory = self.root
            for name in path:
                directory += b"/" + namespace_name(name).encode()
                with suppress(FileNotFoundError):
                    if stat.S_ISLNK(os.lstat(directory).st_mode):
                        raise OSError(errno.ELOOP, "a namespace's directory must not be a symbolic link", directory)
            if len(self.places) >= _MOST_PLACES:
                self.places.clear()
            place = self.places[path] = NamespacePlace.at(directory, key_prefix(path))
        return place

    def refuse_read_flags(self, path: tuple[str, ...]) -> None:
        """Remember that the file system does not know the flags of a place."""
        place = self.place(path)
        self.places[path] = NamespacePlace(place.directory, place.prefix, read_flags=None, hash=place.hash)

    def make_place(self, place: NamespacePlace) -> list[bytes]:
        """Make the directories of a namespace; those in which there is a new name now, which no crash may undo.

        They are not synchronized yet: that takes long, and other processes may remove an empty namespace.
        """
        return self._make_missing(place.directory) if place.directory != self.root else []

    def _make_missing(self, path: bytes) -> list[bytes]:
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for made in reversed(missing):
            self._make(made)
        return [os.path.dirname(made) or b"/" for made in reversed(missing)] if self.fsync else []

    def _make(self, path: bytes) -> None:
        try:
            os.mkdir(path, self.mode)
        except FileExistsError:
            return
        if os.stat(path).st_mode & 0o777 != self.mode:  # the umask's doing
            os.chmod(path, self.mode)

    # ------------------------------------------------------------------ debris

    def sweep(self) -> None:
        """Remove the spare files of processes that died without closing.

        Files that can't be removed stay: they do no harm, and a process may have the right to read the directory only.
        """
        with suppress(OSError):
            for name in os.listdir(self.spares):
                path = self.spares + b"/" + name
                if path != self._home and _HOME.match(name) is not None:
                    with suppress(OSError):
                        self._sweep_home(path)

    def _sweep_home(self, path: bytes) -> None:
        fd = os.open(path, OPEN_DIRECTORY | _NO_FOLLOW)
        try:
            if system.claim(fd):
                self._remove_home(path)
        finally:
            os.close(fd)

    def _remove_home(self, path: bytes) -> None:
        for name in os.listdir(path):
            with suppress(FileNotFoundError):
                os.unlink(path + b"/" + name)
        os.rmdir(path)


def _is_at(fd: int, path: bytes) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
