"""A layer: what one part of one file, the variables, or a call says, and where it says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storeconf._location import Diagnostic
from storeconf.config.tree import MISSING, TreePath, dotted, is_middleware_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf._location import Note, Severity
    from storeconf.config.document import Document
    from storeconf.config.merge import Rules

__all__ = ["Layer", "Place", "place_of", "problem", "working_directory"]

Place = dict[str, Any]
"""Where something stands, as keyword arguments of a `Diagnostic`."""


@dataclass(eq=False, repr=False, slots=True)
class Layer:
    """One layer; ``kind`` is an origin's ``layer``.

    ``prefix`` leads from the document's top to this layer's data, and relative paths in it are relative to
    ``directory``. ``unset`` has the number of the entry that removes a path; ``variables`` has the name of the
    variable that sets one, and ``secrets`` the paths whose values a variable read from a file. A ``plain`` layer
    holds only what files can hold, no marks.
    """

    kind: str
    data: dict[str, Any]
    directory: Path
    document: Document | None = None
    prefix: TreePath = ()
    unset: Mapping[TreePath, int] = field(default_factory=dict)
    variables: Mapping[TreePath, str] = field(default_factory=dict)
    secrets: frozenset[TreePath] = frozenset()
    plain: bool = True

    def says(self, path: TreePath, rules: Rules) -> Any:
        """Return what the layer itself says at ``path``: a value, None where it removes it, or `MISSING`."""
        here: Any = self.data
        for depth, step in enumerate(path):
            if isinstance(here, dict):
                here = here.get(step, MISSING)
            elif isinstance(here, list) and isinstance(step, int) and -1 < step < len(here):
                here = here[step]
            else:
                before = path[:depth]
                expanded = rules.expanded(before[-1], here) if is_middleware_path(before) else None
                if expanded is None:
                    return MISSING
                here = expanded.get(str(step), MISSING)
            if here is MISSING:
                return MISSING
        return here

    def is_unset(self, path: TreePath) -> bool:
        """Whether an entry of the layer's ``unset`` removes this value."""
        return any(path[:length] in self.unset for length in range(1, len(path) + 1))

    def place(self, path: TreePath, *, key: bool = False, removal: bool = False) -> Place:
        """Return where the layer says something about ``path`` (removes it), or about what is nearest to it."""
        place: Place = {"layer": self.kind}
        for length in range(len(path), 0, -1):
            if (name := self.variables.get(path[:length])) is not None:
                return {**place, "variable": name}
            if removal and (number := self.unset.get(path[:length])) is not None:
                return place | place_of(self.document, (*self.prefix, "unset", number))
        for inner, name in sorted(self.variables.items(), key=lambda each: len(each[0])):
            if inner[: len(path)] == path:  # a mapping or list of which only parts are set
                return {**place, "variable": name}
        return place | place_of(self.document, (*self.prefix, *self.written(path)), key=key)

    def written(self, path: TreePath) -> TreePath:
        """Return the path as the layer writes it: that of a shorthand, where it stands for a mapping."""
        if len(path) < 2 or not is_middleware_path(path[:-1]):
            return path
        here: Any = self.data
        for step in path[:-1]:
            here = here.get(step) if isinstance(here, dict) else None
        return path if here is None or isinstance(here, dict) else path[:-1]

    def is_secret(self, path: TreePath) -> bool:
        """Whether a variable read this value from a file."""
        return bool(self.secrets) and any(path[:length] in self.secrets for length in range(1, len(path) + 1))


def working_directory() -> Path:
    """Return the working directory; where it has been deleted, the relative ``.``, in which nothing is found."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def place_of(document: Document | None, path: TreePath, *, key: bool = False) -> Place:
    """Return where ``path`` stands in a document; nothing when there is none."""
    if document is None:
        return {}
    location = document.location(path, key=key)
    if location is None:
        return {"file": document.file}
    return {
        "file": location.file,
        "line": location.line,
        "column": location.column,
        "end_line": location.end_line,
        "end_column": location.end_column,
    }


def problem(
    code: str,
    message: str,
    path: TreePath = (),
    place: Place | None = None,
    *,
    hint: str | None = None,
    severity: Severity = "error",
    notes: tuple[Note, ...] = (),
) -> Diagnostic:
    """Make a diagnostic."""
    return Diagnostic(code, message, severity, dotted(path) or None, hint=hint, notes=notes, **(place or {}))
