"""Reads the files that hold secrets: those of ``${file:…}`` and of variables that end in ``_FILE``.

A value that came from such files keeps how it was made, as `SecretText`, so that it can be read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storeconf.config.document import Unsuitable, read_start
from storeconf.diagnostics import Fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SecretFile", "SecretText", "read_secret"]

_MAX_BYTES: Final = 1 << 20
_PATIENCE: Final = 1.0  # seconds, for what a pipe's other end is still working on


def read_secret(path: Path) -> str:
    """Return the file's text without one trailing newline, or raise a `Fault` whose reason follows the file's name."""
    try:
        data = read_start(path, _MAX_BYTES, patience=_PATIENCE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Fault("SC403", "does not exist", absent=True) from error
    except Unsuitable as error:
        raise Fault("SC403", "can't be read: it is not a regular file, and no data arrives") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not one"
        raise Fault("SC403", f"can't be read: {reason}") from error
    if len(data) > _MAX_BYTES:
        raise Fault("SC403", f"can't be read: it holds more than {_MAX_BYTES:,} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The cause would show the file's bytes.
        raise Fault("SC403", f"is not UTF-8 (byte {error.start + 1})") from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that holds a secret, and the text that counts where it is missing or empty, if there is one."""

    path: Path
    default: str | None = None

    @property
    def is_lasting(self) -> bool:
        """Whether it can be read more than once, as the pipe of a shell's ``<(…)`` can't."""
        return not self.path.is_fifo()


@dataclass(frozen=True, slots=True, repr=False)
class SecretText:
    """How a value is made: of fixed texts and secret files. A `ValueSource` of `storeconf.plugin`.

    What comes from a file must hold none of the ``reserved`` characters.
    """

    parts: tuple[str | SecretFile, ...]
    reserved: frozenset[str] = frozenset()

    def read(self) -> str:
        """Return the value that the files give now; raise OSError, which names the file, if one can't be read."""
        return "".join(part if isinstance(part, str) else self._now(part) for part in self.parts)

    def __str__(self) -> str:
        files = [repr(str(part.path)) for part in self.parts if isinstance(part, SecretFile)]
        return f"the file{'s' if len(files) > 1 else ''} {' and '.join(files)}"

    def _now(self, file: SecretFile) -> str:
        try:
            text = read_secret(file.path)
        except Fault as error:
            if file.default is not None and error.absent:
                return file.default
            raise OSError(f"the file {str(file.path)!r} {error.reason}") from None
        if not self.reserved.isdisjoint(text):
            raise OSError(f"the file {str(file.path)!r} holds a character that has a meaning of its own in a URL")
        return file.default if file.default is not None and not text else text
