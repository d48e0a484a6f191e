"""One file of configuration: read within bounds, parsed into plain data, and every place in it known when asked for.

Also reads the files that hold secrets: those of ``${file:…}`` and of variables that end in ``_FILE``. A value that came
from such files keeps how it was made, as `SecretText`, so that it can be read again.

Longer than other modules, because all files, those of secrets too, are read within the same bounds.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import math
import os
import re
import select
import stat
import threading
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from storeconf._arguments import format_size
from storeconf._text import nearest, printable
from storeconf.config.language import SUFFIXES
from storeconf.config.readers import Problem, SourceText, find
from storeconf.config.tree import dotted
from storeconf.diagnostics import Diagnostic, Fault
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storeconf.config.language import Format
    from storeconf.config.readers import Entry, ReaderResult
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Location

__all__ = [
    "Document",
    "Looks",
    "MAX_BYTES",
    "SecretFile",
    "SecretResolution",
    "SecretText",
    "Unsuitable",
    "parse",
    "read",
    "read_secret",
    "read_start",
]

MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest file that is read: room for some 18,000 stores."""

_PYPROJECT: Final = "pyproject.toml"
_OVERLAY: Final = re.compile(r"pyproject\..+\.toml")
_TABLE: Final = ("tool", "storeconf")

BYTE_ORDER_MARK: Final = "\ufeff"
MARKED: Final = "begins with a byte order mark, which becomes part of the secret"
_MAX_LISTED: Final = 1_000  # names of a directory that are searched for a similar one
_BOMS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip


class Document:
    """A parsed file: plain data in ``value``, whose parts may be shared between places and are not to be changed.

    ``file`` is the file's name as shown to people, ``path`` its absolute path, None for a text that is not from a file.
    """

    def __init__(
        self, source: SourceText, path: Path | None, value: dict[str, Any], reading: ReaderResult, base: TreePath
    ) -> None:
        self.path = path
        self.value = value
        self._source = source
        self._reading = reading
        self._base = base

    def __repr__(self) -> str:
        return f"Document({self.file!r})"

    @property
    def file(self) -> str:
        """The file's name as shown to people."""
        return self._source.file

    @property
    def text(self) -> str:
        """The whole text."""
        return self._source.text

    @cached_property
    def _root(self) -> Entry:
        return self._reading.places()

    def location(self, path: Sequence[str | int], *, key: bool = False) -> Location | None:
        """The location of the value at ``path``, or of its key; if there is none, of the key of the nearest ancestor.

        The span of a list or mapping without brackets is its part in its first line.
        """
        entry, named, exact = find(self._root, (*self._base, *path))
        key = named and (key or not exact)
        start = entry[0] if key else entry[1]
        end = self._reading.end(entry, key)
        if end == start and entry[2] is not None and not key:
            line, _ = self._source.position(start)
            end = self._source.starts[line] if line < len(self._source.starts) else len(self.text)
        return self._source.location(start, end)

    def lines(self, first: int, last: int) -> tuple[tuple[int, str], ...]:
        """The lines from ``first`` to ``last`` that there are, each with its number, unchanged."""
        return self._source.lines(first, last)

    def keys(self, number: int) -> Sequence[tuple[TreePath, tuple[int, int]]]:
        """The paths of the keys that begin in a line, each with its columns, up to its value, counted from 0."""
        return self._keys.get(number, ())

    @cached_property
    def _keys(self) -> dict[int, list[tuple[TreePath, tuple[int, int]]]]:
        keys: dict[int, list[tuple[TreePath, tuple[int, int]]]] = {}
        stack: list[tuple[TreePath, Entry]] = [((), find(self._root, self._base).entry)]
        while stack:
            path, entry = stack.pop()
            inside = entry[2]
            for step, each in inside.items() if isinstance(inside, dict) else enumerate(inside or ()):
                if isinstance(step, str):
                    line, column = self._source.position(each[0])
                    keys.setdefault(line, []).append(((*path, step), (column - 1, column - 1 + each[1] - each[0])))
                stack.append(((*path, step), each))
        return keys

    def excerpt(self, *numbers: int, masked: bool = True) -> tuple[tuple[int, str], ...]:
        """Lines for a diagnostic; unless the redactor does that, apparent secrets are ``masked``."""
        return self._source.excerpt(*numbers, masked=masked)


def read(path: Path, shown: str | None = None) -> Document:
    """Read a file; raises `ConfigError` with every problem that can be found.

    ``shown`` is the name to show to people instead of ``path``.
    """
    name = str(path) if shown is None else shown
    name = name if name.isprintable() else printable(name)
    data = _load(path, name)
    if path.name == _PYPROJECT or (_OVERLAY.fullmatch(path.name) and _has_table(data)):
        return _build(data, "toml", name, path.absolute(), _TABLE)
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        hint = f"give it a name that ends in {', '.join(SUFFIXES)}"
        raise _refusal("SC104", "the file's name does not show its format", name, hint)
    return _build(data, form, name, path.absolute())


def _has_table(data: bytes) -> bool:
    """Whether an overlay of pyproject.toml is written like that, below ``[tool.storeconf]``; it need not be."""
    if b"storeconf" not in data:
        return False
    try:
        value = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return b"tool.storeconf" in data
    return value.keys() == {"tool"}


def parse(data: bytes, format: Format, file: str) -> Document:
    """Parse data that were read elsewhere; ``file`` is the name to show to people."""
    return _build(data, format, printable(file), None)


def _refusal(code: str, message: str, name: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Diagnostic(code, message, file=name, hint=hint)])


# ---------------------------------------------------------------------- files


class Unsuitable(OSError):  # noqa: N818 - its caller makes a problem of it
    """The file is not a regular one: ``mode`` is its mode, ``silent`` that it gave nothing in time."""

    def __init__(self, mode: int, *, silent: bool = False) -> None:
        super().__init__("not a regular file")
        self.mode = mode
        self.silent = silent


def read_start(path: Path, most: int, *, patience: float | None = None) -> bytes:
    """Return the first ``most`` bytes of a file and one more, if there are so many; raise OSError.

    With ``patience``, a file that is not regular, such as the pipe of a shell's ``<(…)``, may take that many seconds
    for each part; without, it is refused. Opening itself never waits, not even for a pipe without a writer.
    """
    flags = os.O_RDONLY
    for each in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, each, 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        regular = stat.S_ISREG(mode)
        if not regular and patience is None:
            raise Unsuitable(mode)
        data = b""
        while len(data) <= most:
            if not regular and not select.select([descriptor], [], [], patience)[0]:
                raise Unsuitable(mode, silent=True)
            part = os.read(descriptor, most + 1 - len(data))
            if not part:
                break
            data += part
        return data
    finally:
        os.close(descriptor)


def _load(path: Path, name: str) -> bytes:
    """The bytes of a regular file, if they are not too many."""
    try:
        data = read_start(path, MAX_BYTES)
        size = len(data) if len(data) <= MAX_BYTES else path.stat().st_size
    except Unsuitable as error:
        raise _not_a_file(path, name, error.mode) from None
    except OSError as error:
        raise _unreadable(path, name, error) from None
    except ValueError:
        raise _refusal("SC101", "a file name can't contain a NUL character", name) from None
    if size > MAX_BYTES:
        raise _too_large(name, size)
    return data


def _too_large(name: str, size: int) -> ConfigError:
    message = f"the file has {size:,} bytes, and at most {format_size(MAX_BYTES)} are read"
    return _refusal("SC105", message, name, "split it with 'extends'")


def _not_a_file(path: Path, name: str, mode: int) -> ConfigError:
    if stat.S_ISDIR(mode):
        inside = [each for suffix in SUFFIXES if (path / (each := f"storeconf{suffix}")).is_file()]
        hint = f"name the file in it: {Path(name, inside[0])}" if inside else "name a file"
        return _refusal("SC102", "this is a directory", name, hint)
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return _refusal("SC102", f"this is {kinds.get(stat.S_IFMT(mode), 'a special file')}, not a regular file", name)


def _unreadable(path: Path, name: str, error: OSError) -> ConfigError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        if path.is_symlink():
            return _refusal("SC101", "broken symbolic link", name)
        return _refusal("SC101", "the file does not exist", name, _meant(path))
    if error.errno == errno.ELOOP:
        return _refusal("SC103", "symbolic link loop", name)
    with suppress(OSError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return _not_a_file(path, name, mode)
    reason = (error.strerror or type(error).__name__).lower()
    return _refusal("SC103", f"the file can't be read: {reason}", name)


def _meant(path: Path) -> str | None:
    """A hint to a file with a similar name."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, _MAX_LISTED)]
    except FileNotFoundError:
        return f"the directory does not exist: {printable(str(path.parent))!r}"
    except OSError:
        return None
    near = nearest(path.name, names)
    return None if near is None else f"did you mean {printable(near)!r}?"


# ---------------------------------------------------------------------- text


def _decode(data: bytes, name: str) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            raise _not_text(data, name, 0, f"the file is {encoding}", "save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if (at := data.find(0)) >= 0:
        wide = at < 4 and len(data) > 3 and data.count(0) >= len(data) // 3
        message = "the file is UTF-16 or UTF-32" if wide else "the file contains a NUL byte, so it is not a text"
        raise _not_text(data, name, 0 if wide else at, message, "save it as UTF-8" if wide else None)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8"
        raise _not_text(data, name, error.start, message, "save the file as UTF-8", shown=True) from None


def _not_text(data: bytes, name: str, at: int, message: str, hint: str | None, *, shown: bool = False) -> ConfigError:
    source = SourceText(name, data.decode(errors="replace"))
    problem = Problem("SC106", message, len(data[:at].decode(errors="replace")), hint=hint)
    diagnostic = source.diagnostic(problem)
    return ConfigError([diagnostic if shown else replace(diagnostic, excerpt=())])


def _build(data: bytes, form: Format, name: str, path: Path | None, base: TreePath = ()) -> Document:
    if len(data) > MAX_BYTES:
        raise _too_large(name, len(data))
    source = SourceText(name, _decode(data, name))
    reading = _reading(source.text, form, base)
    if reading.problems:
        raise ConfigError(map(source.diagnostic, reading.problems))
    value = reading.value
    for step in base:
        if value is None or (isinstance(value, dict) and step not in value):
            raise _refusal("SC118", f"missing table [{dotted(base)}]", name)
        value = value[step] if isinstance(value, dict) else value
    if value is None:
        value = {}
    if not isinstance(value, dict):
        entry = find(reading.places(), base).entry
        what = f"[{dotted(base)}]" if base else "the outermost value"
        kind = "a list" if isinstance(value, list) else "a single value"
        hint = "begin with the key 'stores'"
        end = max(reading.end(entry, False), entry[1] + 1)
        problem = Problem("SC117", f"{what} must be a mapping, and this is {kind}", entry[1], end, hint=hint)
        raise ConfigError([source.diagnostic(problem)])
    return Document(source, path, value, reading, base)


def _reading(text: str, form: Format, base: TreePath) -> ReaderResult:
    # Each parser is imported when the first file of its format is read.
    if form == "yaml":
        from storeconf.config.readers.yaml_reader import read_yaml

        return read_yaml(text)
    if form == "toml":
        from storeconf.config.readers.toml_reader import read_toml

        return read_toml(text, base)
    from storeconf.config.readers.json_reader import read_json

    return read_json(text)


# ---------------------------------------------------------------- files that contain secrets


_MAX_BYTES: Final = 1 << 20
_RESOLVER_PAUSE: Final = 1.0  # seconds between two questions to a resolver
_PATIENCE: Final = 1.0  # seconds, for the writer at a pipe's other end


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

    def __str__(self) -> str:
        return f"the file {str(self.path)!r}"

    def read(self) -> str:
        """Return the file's text now, or raise OSError, which names the file."""
        try:
            text = read_secret(self.path)
        except Fault as error:
            if self.default is not None and error.absent:
                return self.default
            raise OSError(f"{self} {error.reason}") from None
        return self.default if self.default is not None and not text else text


class SecretResolution:
    """A value that a resolver gives, and the text that counts where there is none or it is empty, if there is one.

    It is asked for at most once a second, however many connections are made.
    """

    def __init__(self, reference: str, resolve: Callable[[], str], default: str | None = None) -> None:
        self.reference = reference
        self.default = default
        self._resolve = resolve
        self._lock = threading.Lock()
        self._asked = -math.inf
        self._answer: str | OSError = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretResolution) and (self.reference, self.default) == (
            other.reference,
            other.default,
        )

    def __hash__(self) -> int:
        return hash((self.reference, self.default))

    def __str__(self) -> str:
        return self.reference

    def read(self) -> str:
        """Return the value, or raise OSError, whose text does not hold it."""
        with self._lock:
            if time.monotonic() >= self._asked + _RESOLVER_PAUSE:
                self._answer = self._ask()
                self._asked = time.monotonic()
            if isinstance(self._answer, OSError):
                raise OSError(str(self._answer))
            return self._answer

    def _ask(self) -> str | OSError:
        try:
            text: object = self._resolve()
        except LookupError:
            return OSError(f"there is no {self.reference}") if self.default is None else self.default
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way; its text may hold the secret
            return OSError(f"the resolver of {self.reference} failed: {type(error).__name__}")
        if not isinstance(text, str):
            return OSError(f"the resolver of {self.reference} returned a {type(text).__name__}, not a str")
        return self.default if self.default is not None and not text else str(text)


@dataclass(frozen=True, slots=True, repr=False)
class SecretText:
    """How a value is made: of fixed texts, secret files and resolvers. A `ValueSource` of `storeconf.plugin`.

    A text from a file or resolver must contain none of the ``reserved`` characters.
    """

    parts: tuple[str | SecretFile | SecretResolution, ...]
    reserved: frozenset[str] = frozenset()

    def read(self) -> str:
        """Return the value as it is now; raise OSError, which names the place, if a part can't be read."""
        return "".join(part if isinstance(part, str) else self._now(part) for part in self.parts)

    def __str__(self) -> str:
        files = [repr(str(part.path)) for part in self.parts if isinstance(part, SecretFile)]
        shown = [f"the file{'s' if len(files) > 1 else ''} {' and '.join(files)}"] if files else []
        shown += [part.reference for part in self.parts if isinstance(part, SecretResolution)]
        return " and ".join(shown)

    def _now(self, part: SecretFile | SecretResolution) -> str:
        text = part.read()
        if not self.reserved.isdisjoint(text) and text != part.default:
            raise OSError(f"{part} holds a character that has a meaning of its own in a URL")
        return text


# ---------------------------------------------------------------- the files that a reading has looked at


@dataclass(eq=False)
class Looks:
    """The files that a reading has read or looked for, and the files beside which it has looked for overlays.

    With ``digests`` each is looked at right before it is read, so that a change in between is noticed later.
    """

    digests: bool = field(default=False, kw_only=True)
    found: dict[tuple[Path, bool], object] = field(default_factory=dict, init=False)

    def at(self, path: Path, *, beside: bool = False) -> None:
        """Note that a file is about to be read or looked for, or that files are looked for whose names begin as its."""
        if (path, beside) not in self.found:
            self.found[path, beside] = look(path, beside=beside) if self.digests else None


def look(path: Path, *, beside: bool = False) -> object:
    """Return a value that is equal as long as a file has the same content, or as the same files are beside it.

    Other than regular files are not read: reading a pipe would take something away from it.
    """
    try:
        if beside:
            return sorted(each.name for each in path.parent.iterdir() if each.name.startswith(f"{path.stem}."))
        return hashlib.sha256(read_start(path, MAX_BYTES)).digest()
    except Unsuitable:
        return "not a regular file"
    except OSError as error:
        return error.errno
    except ValueError:
        return "no name of a file"
