"""Layouts with marks: ``⟦SC501:max_entrys⟧`` says that these characters, without the mark, are in error, and how."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storeconf.catalog import Catalog
from storeconf.layout import CheckResult, check_layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.diagnostics import Diagnostic

__all__ = ["Case", "place", "unmarked"]

_MARK = re.compile(r"⟦(SC\d+):|⟧")


def unmarked(file: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text without marks, and the code and place of each."""
    clean, after = "", 0
    begun: list[tuple[str, str]] = []
    found = []
    for match in _MARK.finditer(text):
        clean += text[after : match.start()]
        after = match.end()
        line, column = clean.count("\n") + 1, len(clean) - clean.rfind("\n")
        at = f"{line}:{column}"
        if match[1]:
            begun.append((match[1], f"{file}:{at}"))
        else:
            code, start = begun.pop()
            found.append((code, f"{start}-{at}"))
    return clean + text[after:], found


def place(each: Diagnostic) -> str:
    """Where a problem is: the span in a file, a file, ``$VARIABLE``, or nowhere."""
    if each.variable is not None:
        return f"${each.variable}"
    if each.file is None or each.line is None:
        return each.file or "nowhere"
    return f"{each.file}:{each.line}:{each.column}-{each.end_line}:{each.end_column}"


@dataclass
class Case:
    """A broken layout: its files (a text alone is ``storeconf.yaml``) and what is wrong.

    ``also`` are code and place of problems that stand in no file; ``says`` must appear in the diagnostics' text.
    """

    name: str
    files: str | dict[str, str]
    environ: Mapping[str, str] = field(default_factory=dict)
    also: tuple[tuple[str, str], ...] = ()
    says: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def examine(self, directory: Path, monkeypatch: Any) -> tuple[CheckResult, list[tuple[str, str]]]:
        """What is found in every environment, and what should be."""
        monkeypatch.chdir(directory)
        expected = list(self.also)
        files = {"storeconf.yaml": self.files} if isinstance(self.files, str) else self.files
        for name, text in files.items():
            clean, found = unmarked(name, text)
            expected += found
            os.makedirs(Path(name).parent, exist_ok=True)
            Path(name).write_bytes(clean.encode())
        report = check_layout(all_environments=True, environ=self.environ, catalog=Catalog.builtin(), **self.options)
        return report, expected
