"""The system calls that differ between platforms: swapping two names, locks, and reaching the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "NO_DISK",
    "FileLock",
    "Locks",
    "RangeLocks",
    "cached_open",
    "claim",
    "exchange",
    "exchange_at_once",
    "has_cached_open",
    "make_locks",
    "read_flags",
    "rename_at_once",
    "sync_data",
    "sync_directory",
    "unlink_at_once",
]

NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_AT_FDCWD = -100
_RENAME_EXCHANGE = _RENAME_SWAP = 2


def _c_function(name: str, *types: Any, at_once: bool = False) -> Any:
    """Return a function of the C library; one ``at_once`` does not let other threads run in the meantime."""
    try:
        function = getattr((ctypes.PyDLL if at_once else ctypes.CDLL)(None, use_errno=True), name)
    except (OSError, TypeError, AttributeError):  # TypeError: Windows knows no library without a name
        return None
    function.argtypes = types
    function.restype = ctypes.c_int
    return function


_renameat2 = _c_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_renamex_np = _c_function("renamex_np", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)


_statfs = _c_function("statfs", ctypes.c_char_p, ctypes.c_void_p)


def _exchange_linux(one: bytes, other: bytes) -> None:
    if _renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE):
        raise _failure(other)


def _exchange_macos(one: bytes, other: bytes) -> None:
    if _renamex_np(one, other, _RENAME_SWAP):
        raise _failure(other)


exchange: Callable[[bytes, bytes], None] | None = None
"""Swap the files of two names in one step; None where the platform can't. File systems may still refuse."""

if _renameat2 is not None:
    exchange = _exchange_linux
elif _renamex_np is not None:
    exchange = _exchange_macos


_renameat2_at_once = _c_function("renameat2", at_once=True)
_unlink_at_once = _c_function("unlink", at_once=True)

# Arguments that are C values already need no conversion at each call.
_HERE = ctypes.c_int(_AT_FDCWD)
_EXCHANGING, _REPLACING = ctypes.c_uint(_RENAME_EXCHANGE), ctypes.c_uint(0)


def _exchange_at_once(one: bytes, other: bytes) -> None:
    if _renameat2_at_once(_HERE, one, _HERE, other, _EXCHANGING):
        raise _failure(other)


exchange_at_once: Callable[[bytes, bytes], None] | None = None if _renameat2_at_once is None else _exchange_at_once
"""As `exchange`, for event loops and where nothing waits for a disk; Linux only."""


def rename_at_once(one: bytes, other: bytes) -> None:
    """Rename a file where nothing waits for a disk."""
    if _renameat2_at_once(_HERE, one, _HERE, other, _REPLACING):
        raise _failure(other)


def unlink_at_once(path: bytes) -> None:
    """Remove a file's name where nothing waits for a disk."""
    if _unlink_at_once(path):
        raise _failure(path)


def _failure(path: bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)


_OPENAT2 = 437  # the same number on every architecture that counts
_RESOLVE_CACHED = 0x20
_RWF_NOWAIT = 0x8
_QUIET = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

NO_DISK = 0
"""The flags of `read_flags` where no disk is behind the files, so that nothing has to wait for one."""

_TMPFS = 0x01021994
_PAGE_CACHED = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010})
"""ext2 to ext4, XFS, Btrfs and F2FS: local file systems whose data in memory the kernel can tell from the rest."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _cached_open(flags: int) -> Callable[[bytes], int] | None:
    """Return a function that opens a file unless looking up its path needs a disk: a descriptor or -errno."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or not hasattr(os, "preadv"):
        return None
    # A call that never waits need not let other threads run in the meantime: they may be slow to let it go on.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    how = ctypes.byref(_OpenHow(flags, 0, _RESOLVE_CACHED))
    number, at, size = ctypes.c_long(_OPENAT2), ctypes.c_long(_AT_FDCWD), ctypes.c_size_t(ctypes.sizeof(_OpenHow))

    def cached_open(path: bytes) -> int:
        fd: int = call(number, at, path, how, size)
        return fd if fd >= 0 else -ctypes.get_errno()

    return cached_open


cached_open: Callable[[bytes], int] | None = _cached_open(_QUIET | getattr(os, "O_NOATIME", 0))
"""Open a file for reading unless looking up its path would wait for a disk: its descriptor, or the negative errno,
which is EAGAIN if the disk is needed. The time of access is not noted, because that may wait for the journal; so it is
EPERM for another user's file. None where the platform, the kernel or a sandbox has no such call."""


def has_cached_open() -> bool:
    """Whether `cached_open` works: in Linux since 5.12, unless a sandbox forbids it. A refusal is permanent."""
    global cached_open
    if cached_open is not None:
        probe = _cached_open(_QUIET | os.O_DIRECTORY)
        fd = -errno.ENOSYS if probe is None else probe(b"/")
        if fd >= 0:
            os.close(fd)
        elif fd != -errno.EAGAIN:
            cached_open = None
    return cached_open is not None


def read_flags(directory: bytes) -> int | None:
    """Return the flags with which preadv reads files of a directory without waiting for a disk; None if none do.

    tmpfs has no such flag and no disk. Of network file systems, and unknown ones, nothing is certain.
    """
    path = directory
    while True:
        status = ctypes.create_string_buffer(512)
        if _statfs is None:
            return None
        if not _statfs(path, status):
            break
        if ctypes.get_errno() != errno.ENOENT or path in {b"", b"/"}:
            return None
        path = os.path.dirname(path)  # the directory does not exist yet
    kind = int.from_bytes(status.raw[:8], sys.byteorder)
    if kind == _TMPFS:
        return NO_DISK
    return _RWF_NOWAIT if kind in _PAGE_CACHED else None


def sync_data(fd: int) -> None:
    """Wait until a file's data is on the disk, past the drive's own cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_directory(path: bytes) -> None:
    """Wait until a directory's names are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)
    finally:
        os.close(fd)


def claim(fd: int) -> bool:
    """Lock an open directory, as long as it is open, if nobody else has it; whether it was locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Locks:
    """Exclusive locks by number, between all that open the same file, in this process or another.

    None of them waits. They end with the process, however it ends. For one thread.
    """

    SWEEPER = 1 << 60
    """The lock of the sweeping process; keys have smaller numbers."""

    def __init__(self, path: bytes, mode: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self.fd: int = os.open(path, flags, mode)
        status = os.fstat(self.fd)
        if status.st_uid == os.geteuid() and status.st_mode & 0o777 != mode:
            os.fchmod(self.fd, mode)

    def acquire(self, number: int) -> bool:
        """Take a lock if nobody has it; whether it was taken."""
        raise NotImplementedError

    def release(self, number: int) -> None:
        """Give a lock back, if it was taken."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back. In a forked child this leaves the parent's locks alone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class RangeLocks(Locks):
    """Locks on single bytes of the file (Linux): as many as there are keys, at no cost while nobody holds them."""

    _REQUEST = struct.Struct("hhqqi4x")

    def acquire(self, number: int) -> bool:  # noqa: D102
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, self._REQUEST.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0))
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as POSIX leaves open
            return False
        return True

    def release(self, number: int) -> None:  # noqa: D102
        if self.fd >= 0:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, self._REQUEST.pack(fcntl.F_UNLCK, os.SEEK_SET, number, 1, 0))


class FileLock(Locks):
    """One lock for all numbers, on the file as a whole: for platforms without locks on ranges that suit."""

    def __init__(self, path: bytes, mode: int) -> None:
        super().__init__(path, mode)
        self._held: set[int] = set()

    def acquire(self, number: int) -> bool:  # noqa: D102
        if number == self.SWEEPER:
            return True  # it is held for long, and several sweepers only waste time
        if not self._held:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        self._held.add(number)
        return True

    def release(self, number: int) -> None:  # noqa: D102
        if number in self._held:
            self._held.remove(number)
            if not self._held and self.fd >= 0:
                fcntl.flock(self.fd, fcntl.LOCK_UN)


def make_locks(path: bytes, mode: int) -> Locks:
    """Open the lock file with the best kind of locks that the platform has."""
    if hasattr(fcntl, "F_OFD_SETLK") and sys.platform == "linux" and struct.calcsize("P") == 8:
        locks = RangeLocks(path, mode)
        try:
            locks.release(0)
        except OSError:  # the kernel, or its substitute, has none
            locks.close()
        else:
            return locks
    return FileLock(path, mode)
