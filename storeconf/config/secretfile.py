"""Reads the files that hold secrets: those of ``${file:…}`` and of variables that end in ``_FILE``."""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SecretFileError", "read_secret"]

_MAX_BYTES: Final = 1 << 20
_PATIENCE: Final = 1.0  # seconds, for what a pipe's other end is still working on


class SecretFileError(Exception):
    """The file can't be read; ``missing`` tells that there is none."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def read_secret(path: Path) -> str:
    """Return the file's text without one trailing newline, or raise `SecretFileError`."""
    try:
        data = _load(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SecretFileError("does not exist", missing=True) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not one"
        raise SecretFileError(f"can't be read: {reason}") from error
    if len(data) > _MAX_BYTES:
        raise SecretFileError(f"can't be read: it holds more than {_MAX_BYTES:,} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The cause would show the file's bytes.
        raise SecretFileError(f"is not UTF-8 (byte {error.start + 1})") from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _load(path: Path) -> bytes:
    """The file's first bytes; a pipe, as the shell's ``<(…)`` makes it, must answer within a moment."""
    flags = os.O_RDONLY
    for each in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, each, 0)
    descriptor = os.open(path, flags)
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        data = b""
        while len(data) <= _MAX_BYTES:
            if not regular and not select.select([descriptor], [], [], _PATIENCE)[0]:
                raise SecretFileError("can't be read: it is no regular file, and nothing comes out of it")
            part = os.read(descriptor, _MAX_BYTES + 1 - len(data))
            if not part:
                break
            data += part
        return data
    finally:
        os.close(descriptor)
