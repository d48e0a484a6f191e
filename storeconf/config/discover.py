"""Finds the layout when no file is named."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storeconf.config.layers import problem, working_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storeconf._location import Diagnostic

__all__ = ["CANDIDATES", "Discovered", "discover"]

CANDIDATES: Final = ("storeconf.yaml", "storeconf.yml", "storeconf.toml", "storeconf.json", "pyproject.toml")
"""What is looked for in the working directory; the last only counts with a table ``[tool.storeconf]``."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """A file, and its name as shown to people."""

    path: Path
    shown: str


def discover(environ: Mapping[str, str]) -> Discovered | Diagnostic:
    """Return the file that ``STORECONF_FILE`` names, else the only one in the working directory, else why not."""
    directory = working_directory()
    named = environ.get("STORECONF_FILE")
    if named:
        path = directory / named
        if "\0" in named or not path.exists():
            message = f"STORECONF_FILE names {named!r}, which does not exist"
            return problem("SC101", message, place={"variable": "STORECONF_FILE"}, hint=f"it was looked for at {path}")
        return Discovered(path, named)
    found = [name for name in CANDIDATES if _counts(directory / name)]
    if len(found) == 1:
        return Discovered(directory / found[0], found[0])
    if found:
        message = f"{' and '.join(found)} could each be the layout in {directory}"
        return problem("SC202", message, hint="name one of them, or set STORECONF_FILE")
    looked = f"{', '.join(CANDIDATES[:-1])}, and {CANDIDATES[-1]} with [tool.storeconf]"
    message = f"no layout was named, STORECONF_FILE is not set, and {directory} holds none of {looked}"
    return problem("SC201", message, hint="name a file, or write one: storeconf init")


def _counts(path: Path) -> bool:
    if path.name != CANDIDATES[-1]:
        return path.is_file() or path.is_symlink()
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if b"storeconf" not in data:
        return False
    try:
        tool = tomllib.loads(data.decode()).get("tool")
    except (ValueError, RecursionError):
        return b"tool.storeconf" in data  # reading it will say what is wrong
    return isinstance(tool, dict) and "storeconf" in tool
