"""Known warnings: `acknowledge` at the top level of a layout silences them, by code and path.

An entry silences what is at its path and below it. Errors can't be acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storeconf._text import nearest
from storeconf.config.tree import TreePath, dotted, parse_path
from storeconf.diagnostics.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storeconf.config.layers import Place
    from storeconf.config.reporter import Reporter
    from storeconf.diagnostics import Finding

__all__ = ["Acknowledged", "report_unused", "silence"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged warning: ``at`` is where the layout lists it."""

    code: str
    path: str
    at: TreePath

    def covers(self, each: Finding) -> bool:
        """Whether it silences a problem."""
        if each.severity != "warning" or each.code != self.code or each.path is None:
            return False
        return each.path == self.path or each.path.startswith(f"{self.path}.")


def silence(tree: Mapping[str, Any], report: Reporter) -> dict[Acknowledged, Place]:
    """Remove the acknowledged warnings from the report; returns the entries that match none, with their places."""
    entries = list(_entries(tree["acknowledge"], report))
    found, kept = list(report.found), []
    used = set()
    for each in found:
        covering = [entry for entry in entries if entry.covers(each)]
        used.update(covering)
        if not covering:
            kept.append(each)
    report.found[:] = kept
    return {entry: report.history.place(entry.at) for entry in entries if entry not in used}


def report_unused(unused: Mapping[Acknowledged, Place], report: Reporter) -> None:
    """Warn of entries that match nothing."""
    for entry, place in unused.items():
        message = f"{entry.code} is acknowledged at {entry.path}, but does not occur there"
        report.add("SC808", message, entry.at, place=place, severity="warning", hint="remove the entry", lacking=True)


def _entries(node: Any, report: Reporter) -> Iterator[Acknowledged]:
    if not isinstance(node, dict):
        example = "write {SC801: [stores.main]}"
        report.wrong_type(("acknowledge",), "a mapping from codes to lists of paths", node, hint=example)
        return
    for code, paths in node.items():
        at: TreePath = ("acknowledge", code)
        hint: str | None
        if code not in CODES:
            near = nearest(str(code).upper(), CODES)
            hint = f"did you mean {near!r}?" if near else None
            report.add("SC501", f"unknown code {str(code)!r}", at, key=True, hint=hint)
            continue
        if not isinstance(paths, list):
            hint = f"write [{paths}]" if isinstance(paths, str) else None
            report.wrong_type(at, "a list of dotted paths", paths, hint=hint)
            continue
        for number, text in enumerate(paths):
            path = parse_path(text) if isinstance(text, str) else None
            if path is None:
                report.wrong_type((*at, number), "a dotted path, such as stores.main.tls", text)
            else:
                yield Acknowledged(code, dotted(path), (*at, number))
