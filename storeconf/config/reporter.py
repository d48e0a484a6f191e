"""Collects the problems of one run: each is located when it is found, and never shows a secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from storeconf._location import Diagnostic, Note
from storeconf.config.tree import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from storeconf._location import Severity
    from storeconf.config.tree import TreePath

__all__ = ["MOST_SOUGHT", "Problems", "listed", "merged", "ordered", "shown"]

_LONGEST: Final = 40

MOST_SOUGHT: Final = 50
"""Unknown stores for which near ones are sought: beyond it a layout is not misspelt, and time would be lost."""


class Problems:
    """Diagnostics on their way: ``place`` tells where a path stands, and is asked only when there is a problem.

    Unless the layout is ``complete``, because a file could not be read, only what is wrong all the same is kept.
    """

    def __init__(self, place: Callable[..., dict[str, Any]], *, complete: bool = True) -> None:
        self.found: list[Diagnostic] = []
        self._place = place
        self._complete = complete

    def add(
        self,
        code: str,
        message: str,
        path: TreePath,
        *,
        key: bool = False,
        hint: str | None = None,
        severity: Severity = "error",
        notes: Iterable[Note] = (),
        lacking: bool = False,
    ) -> None:
        """Add a problem of the value at ``path``, or of its key.

        ``lacking``: more that is said elsewhere could mend it, so it is none while that can't be known.
        """
        if lacking and not self._complete:
            return
        self.found.append(
            Diagnostic(
                code,
                message,
                severity,
                dotted(path) or None,
                hint=hint,
                notes=tuple(notes),
                **self._place(path, key=key),
            )
        )

    def place(self, path: TreePath, *, key: bool = False) -> Mapping[str, Any]:
        """Where the value at a path, or its key, stands, with its ``layer``."""
        return self._place(path, key=key)

    def note(self, message: str, path: TreePath, *, key: bool = False) -> Note:
        """A further place of a problem."""
        place = self._place(path, key=key)
        return Note(message, place.get("file"), place.get("line"), place.get("column"), place.get("variable"))


def listed(names: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *rest, end = names
    return f"{', '.join(rest)} {last} {end}" if rest else end


def shown(value: object) -> str:
    """A value as a message shows it: texts quoted, long ones cut, and never more than a scalar."""
    if isinstance(value, str):
        text = json.dumps(str(value), ensure_ascii=False)
        return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}…"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def ordered(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sort by file and line, what stands in no file last; what was found twice at one place comes once."""
    found: dict[tuple[object, ...], Diagnostic] = {}
    for each in diagnostics:
        at_one_place = each.path if each.line is None else None  # an anchor's content is one place with many paths
        place = (each.file, each.line, each.column, each.variable, at_one_place)
        found.setdefault((each.code, each.message, *place), each)
    return sorted(found.values(), key=_by_place)


def merged(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Show what several environments have in common once, with all their names."""
    found: dict[Diagnostic, list[str]] = {}
    for each in diagnostics:
        found.setdefault(replace(each, environments=()), []).extend(each.environments)
    return sorted(
        (replace(each, environments=tuple(dict.fromkeys(names))) for each, names in found.items()), key=_by_place
    )


def _by_place(each: Diagnostic) -> tuple[object, ...]:
    return (
        each.file is None,
        each.file or "",
        each.line or 0,
        each.column or 0,
        each.variable or "",
        each.path or "",
        each.code,
    )
