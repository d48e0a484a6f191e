"""From the parts of a layout to its layers, lowest first, and what is wrong with how they are divided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from storeconf.config.language import NOT_HERE
from storeconf.config.layers import Layer, problem
from storeconf.config.merge import Merge
from storeconf.config.reporter import NAME_RULE
from storeconf.config.tree import Removals, TreePath, parse_path, valid_name
from storeconf.config.variables import FORBIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf._location import Diagnostic
    from storeconf.config.merge import Rules
    from storeconf.config.sources import Files, Part

__all__ = ["Layering", "environments_of"]

_HANDLED: Final = frozenset({"$schema", "extends", "environments", "unset"})
"""The top-level keys that say nothing of the layout itself."""


def environments_of(parts: list[Part]) -> tuple[str, ...]:
    """Return all environments that the parts declare, by section or overlay, in the order of their first mention."""
    names: dict[str, None] = {}
    for part in parts:
        sections = part.value.get("environments")
        if isinstance(sections, dict):
            names |= dict.fromkeys(filter(valid_name, sections))
        names |= dict.fromkeys(sorted(part.overlays))
    return tuple(names)


class Layering:
    """Makes layers of parts; what is wrong goes to ``problems``."""

    def __init__(self, rules: Rules, problems: list[Diagnostic]) -> None:
        self._merge = Merge(rules)
        self._problems = problems

    def layers(self, parts: list[Part], files: Files, environment: str | None) -> Iterator[Layer]:
        """All plain parts, then all of the environment's sections, then all of its overlays, in the parts' order."""
        for part in parts:
            self._check_sections(part)
            yield self._layer("mapping" if part.document is None else "file", part, part.value)
        if environment is None:
            return
        for part in parts:
            sections = part.value.get("environments")
            section = sections.get(environment) if isinstance(sections, dict) else None
            if isinstance(section, dict):
                yield self._layer("environment", part, section, ("environments", environment))
        for part in parts:
            overlay = files.overlay(part, environment)
            if overlay is not None:
                yield self._layer("overlay", overlay, overlay.value)

    def _check_sections(self, part: Part) -> None:
        sections = part.value.get("environments")
        if sections is not None and not isinstance(sections, dict):
            message = "environments must be a mapping from names to what they change"
            self._problems.append(problem("SC207", message, ("environments",), part.place(("environments",))))
            return
        for name, section in (sections or {}).items():
            path = ("environments", name)
            if not valid_name(name):
                message = f"{name!r} can't name an environment"
                self._problems.append(problem("SC509", message, path, part.place(path, key=True), hint=NAME_RULE))
            if section is not None and not isinstance(section, dict):
                message = f"what environment {name!r} changes must be a mapping"
                self._problems.append(problem("SC207", message, path, part.place(path)))

    def _layer(self, kind: str, part: Part, value: dict[str, Any], prefix: TreePath = ()) -> Layer:
        misplaced = NOT_HERE.get(kind, frozenset())
        data = {}
        for key, said in value.items():
            if key in misplaced:
                where = "an environment" if kind == "environment" else "an overlay"
                place = part.place((*prefix, key), key=True) | {"layer": kind}
                self._problems.append(problem("SC208", f"{where} can't hold {key!r}", (*prefix, key), place))
            elif key not in _HANDLED and key[:2] != "x-":
                data[key] = said
        layer = Layer(kind, data, part.directory, part.document, prefix)
        if value.get("unset") is not None:
            self._unset(layer, value["unset"])
        return layer

    def _unset(self, layer: Layer, entries: Any) -> None:
        """Put the removals that ``unset`` names below the layer's other values."""
        if not isinstance(entries, list):
            message = "unset must be a list of dotted paths"
            self._problems.append(problem("SC210", message, (*layer.prefix, "unset"), layer.place(("unset",))))
            return
        removals: Any = Removals()
        unset: dict[TreePath, int] = {}
        for number, entry in enumerate(entries):
            path = parse_path(entry) if isinstance(entry, str) else None
            if path is None or path[0] in FORBIDDEN:
                message = "what is unset must be a dotted path, such as stores.main.tls"
                if path is not None:
                    message = f"{path[0]!r} can't be unset"
                where = ("unset", number)
                self._problems.append(problem("SC210", message, (*layer.prefix, *where), layer.place(where)))
                continue
            unset[path] = number
            said: Any = None
            for step in reversed(path):
                said = Removals({step: said})
            removals = self._merge.combine(removals, said, one_layer=True)
        layer.data = dict(self._merge.combine(removals, layer.data, one_layer=True))
        layer.unset = unset
        layer.plain = False
