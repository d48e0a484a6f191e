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
    "FileLock",
    "Locks",
    "RangeLocks",
    "claim",
    "exchange",
    "make_locks",
    "sync_data",
    "sync_directory",
]

NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_AT_FDCWD = -100
_RENAME_EXCHANGE = _RENAME_SWAP = 2


def _c_function(name: str, *types: Any) -> Any:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, TypeError, AttributeError):  # TypeError: Windows knows no library without a name
        return None
    function.argtypes = types
    function.restype = ctypes.c_int
    return function


_renameat2 = _c_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_renamex_np = _c_function("renamex_np", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)


def _exchange_linux(one: bytes, other: bytes) -> None:
    if _renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), other)


def _exchange_macos(one: bytes, other: bytes) -> None:
    if _renamex_np(one, other, _RENAME_SWAP):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), other)


exchange: Callable[[bytes, bytes], None] | None = None
"""Swap what two names stand for in one step; None where the platform can't. File systems may still refuse."""

if _renameat2 is not None:
    exchange = _exchange_linux
elif _renamex_np is not None:
    exchange = _exchange_macos


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
    """The lock of the one who sweeps; keys have smaller numbers."""

    def __init__(self, path: bytes, mode: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self.fd = os.open(path, flags, mode)
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
        except OSError:  # the kernel, or what stands in for one, has none
            locks.close()
        else:
            return locks
    return FileLock(path, mode)
