"""Reads the files that hold secrets: those of ``${file:…}`` and of variables that end in ``_FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SecretFileError", "read_secret"]

_MAX_BYTES: Final = 1 << 20


class SecretFileError(Exception):
    """The file can't be read; ``missing`` tells that there is none."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def read_secret(path: Path) -> str:
    """Return the file's text without one trailing newline, or raise `SecretFileError`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
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
