"""The problems of a configuration: the location of each value, the layer that set it, and the value that it shadowed.

A problem begins as a `Fault` of a value, gets a location as a `Finding`, and the redactor makes it a `Diagnostic`.

Imports nothing of storeconf.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Diagnostic", "Fault", "Finding", "Location", "Note", "Origin", "Severity"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Location:
    """A span of text in a file; lines and columns count characters from 1, the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int | None = None
    end_column: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one layer set one value, and, as ``shadowed``, the next lower layer that had set it.

    ``layer`` is the kind of layer: ``file``, ``environment``, ``overlay``, ``variable``, ``override`` or ``mapping``
    (a mapping given as the source). ``variable`` is the name of the environment variable that set it, else None.
    ``value`` is the value as that layer wrote it, with secrets masked. ``removed`` tells that the layer removed it.
    """

    layer: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    variable: str | None = None
    value: object = None
    removed: bool = False
    shadowed: Origin | None = None

    @property
    def place(self) -> str | None:
        """``file:line:column``, ``$`` and the variable's name, or None for a value from a call or ``--set``."""
        return _place(self)

    def __str__(self) -> str:
        return self.place or self.layer


class Fault(Exception):  # noqa: N818 - callers turn it into a diagnostic
    """A problem of a value; the caller, which knows the location of the value, reports it.

    ``span`` is the invalid part of the text, ``path`` the longest part of a path that exists. ``absent``: the value
    does not exist, so a default applies.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        hint: str | None = None,
        *,
        span: tuple[int, int] = (0, 0),
        path: tuple[str | int, ...] = (),
        absent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint
        self.span = span
        self.path = path
        self.absent = absent


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a configuration, with its location, as it was found: its texts may contain secrets.

    Nothing prints it; only the redactor makes a `Diagnostic` of it.
    """

    code: str
    message: str
    severity: Severity = "error"
    path: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    variable: str | None = None
    layer: str | None = None
    hint: str | None = None
    notes: tuple[Note, ...] = ()

    @property
    def place(self) -> str | None:
        """``file:line:column``, ``$`` and the variable's name, or None."""
        return _place(self)


@dataclass(frozen=True, slots=True)
class Diagnostic(Finding):
    """One problem of a configuration, with its place.

    ``code`` is stable and documented, ``path`` is dotted (``stores.a.middleware.ttl.default``), lines and columns
    count from 1, ``layer`` is the kind of layer that set the value (see `Origin`). ``notes`` are further places that
    belong to the problem (the first of two duplicates, each step of a cycle). ``excerpt`` holds the source lines
    around the place, by line number, with secrets already masked.
    """

    environments: tuple[str, ...] = ()
    excerpt: tuple[tuple[int, str], ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        environments = f"{', '.join(self.environments)}: " if self.environments else ""
        head = f"{environments}{self.place}: " if self.place else environments
        path = f" [{self.path}]" if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{head}{self.severity} {self.code}: {self.message}{path}{hint}"


@dataclass(frozen=True, slots=True)
class Note:
    """A further place of a diagnostic, with a text about it."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    variable: str | None = None


def _place(of: Origin | Finding) -> str | None:
    if of.variable is not None:
        return f"${of.variable}"
    return of.file if of.file is None or of.line is None else f"{of.file}:{of.line}:{of.column}"
