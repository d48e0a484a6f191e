"""From a source to one merged, interpolated tree that knows where everything in it came from.

Nothing is raised for bad input: all problems are collected, each with its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf._location import Diagnostic, Note
from storeconf.config.discover import discover
from storeconf.config.files import Files, Part
from storeconf.config.interpolate import Interpolation
from storeconf.config.layers import Layer, problem
from storeconf.config.merge import Merge, Rules
from storeconf.config.origins import Origins
from storeconf.config.overrides import Overrides, declared, parse_overrides, read_overrides
from storeconf.config.texts import at
from storeconf.config.tree import MISSING, Removals, TreePath, dotted, nearest, parse_path, valid_name
from storeconf.config.variables import FORBIDDEN, read_variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf._location import Origin
    from storeconf.catalog import Catalog
    from storeconf.config.document import Document
    from storeconf.config.layers import Place

__all__ = ["Assembly", "Source", "assemble"]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | None
"""A layout's file, a mapping that says the same, or None: the file is to be found."""

_HANDLED: Final = frozenset({"$schema", "extends", "environments", "unset"})
"""The top-level keys that say nothing of the layout itself."""

_NOT_HERE: Final = {
    "environment": ("version", "extends", "environments"),
    "overlay": ("extends", "environments"),
}
"""The keys that a kind of layer can't hold."""


@dataclass(eq=False, repr=False, slots=True)
class Assembly:
    """The merged tree and what it was made of.

    ``tree`` holds ``version``, ``stores``, ``default_factory`` and whatever else was said at the top that nobody
    knows. ``environments`` are all known ones, by section or overlay. ``complete``: every file could be read.
    """

    environment: str | None = None
    environments: tuple[str, ...] = ()
    tree: dict[str, Any] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    documents: tuple[Document, ...] = ()
    complete: bool = True
    _origins: Origins = field(default_factory=lambda: Origins((), None))  # type: ignore[arg-type]
    _secrets: frozenset[str] = frozenset()
    _secret_paths: frozenset[TreePath] = frozenset()

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, as shown to people."""
        return tuple(document.file for document in self.documents)

    def history(self, path: TreePath, mask: Callable[[TreePath, Any], object] | None = None) -> Origin | None:
        """Return what every layer did at ``path``, highest first and linked by ``shadowed``; None if none did.

        ``mask`` is given each value as its layer wrote it and returns what to show.
        """
        return self._origins.history(path, mask) if path else None

    def place(self, path: TreePath, key: bool = False) -> Place:
        """Return where the value at ``path``, or its key, was set, as keyword arguments of a `Diagnostic`."""
        return self._origins.place(path, key=key)

    def directory(self, path: TreePath) -> Path:
        """Return the directory that a relative path at ``path`` is relative to."""
        layer = self._origins.layer(path)
        return Path.cwd() if layer is None else layer.directory

    def secret_texts(self) -> frozenset[str]:
        """Return the texts that came from files and resolvers, to be masked wherever they appear."""
        return self._secrets

    def is_secret(self, path: TreePath) -> bool:
        """Whether the value at ``path``, or a part of it, came from a file or a resolver."""
        if path in self._secret_paths:
            return True
        layer = self._origins.layer(path)
        return layer is not None and layer.is_secret(path)


def assemble(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog,
    without_secrets: bool = False,
) -> Assembly:
    """Read, merge and interpolate a layout for one environment.

    ``without_secrets`` lets names that are not set and secret files that are missing count as placeholders.
    """
    assembler = _Assembler(os.environ if environ is None else environ, catalog, without_secrets)
    return assembler.assemble(source, environment, overrides)


class _Assembler:
    def __init__(self, environ: Mapping[str, str], catalog: Catalog, without_secrets: bool) -> None:
        self._environ = environ
        self._without_secrets = without_secrets
        self._catalog = catalog
        self._problems: list[Diagnostic] = []
        self._rules = Rules(catalog, environ)
        self._merge = Merge(self._rules)
        self._layers: list[Layer] = []
        self._origins = Origins(self._layers, self._rules)

    def assemble(self, source: Source, environment: str | None, overrides: Overrides | None) -> Assembly:
        files = Files(self._problems)
        parts = self._parts(source, files)
        known = _environments(parts)
        chosen, variable = environment, None
        if chosen is None and self._environ.get("STORECONF_ENV"):
            chosen, variable = self._environ["STORECONF_ENV"], "STORECONF_ENV"
        self._check_environment(chosen, variable, known, parts)
        tree = self._merged(parts, files, chosen)
        self._check_versions()
        parsed = parse_overrides(overrides, self._problems)
        variables, secrets = read_variables(
            self._environ,
            tree,
            declared(parsed, self._rules) if parsed else {},
            self._rules,
            self._problems,
            without_secrets=self._without_secrets,
        )
        tree = self._over(tree, variables)
        tree = self._over(tree, read_overrides(parsed, tree, self._rules, self._problems))
        tree = self._exclusive(tree)
        interpolation = Interpolation(
            self._origins,
            self._environ,
            self._catalog,
            chosen,
            self._problems,
            without_secrets=self._without_secrets,
        )
        tree = interpolation.mapping(tree)
        self._report_merge(interpolation.futile)
        return Assembly(
            chosen,
            known,
            tree,
            self._problems,
            tuple(files.documents),
            files.complete,
            self._origins,
            secrets | interpolation.secrets,
            frozenset(interpolation.secret_paths),
        )

    # ------------------------------------------------------------------ files

    def _parts(self, source: Source, files: Files) -> list[Part]:
        if isinstance(source, Mapping):
            return files.mapping(source)
        if source is None:
            found = discover(self._environ)
            if isinstance(found, Diagnostic):
                self._problems.append(found)
                files.complete = False
                return []
            return files.file(found.path, found.shown)
        shown = os.fspath(source)
        if not isinstance(shown, str):
            raise TypeError(f"a path must be a str, not {type(shown).__name__}")
        return files.file(Path.cwd() / shown, shown)

    def _check_environment(
        self, chosen: str | None, variable: str | None, known: tuple[str, ...], parts: list[Part]
    ) -> None:
        place: Place = {} if variable is None else {"variable": variable}
        if chosen is not None and chosen not in known and parts:
            near = nearest(chosen, known)
            there = f"there are {', '.join(known)}" if known else "the layout declares none, by section or overlay"
            hint = f"did you mean {near!r}? {there[0].upper()}{there[1:]}" if near else there
            self._problems.append(problem("SC206", f"there is no environment {chosen!r}", place=place, hint=hint))
        if chosen is None and known:
            message = f"no environment is chosen, and the layout declares {', '.join(known)}"
            hint = "give one (--env, environment=, or STORECONF_ENV); only what is said in general holds now"
            place = parts[-1].place(("environments",), key=True)
            self._problems.append(problem("SC803", message, place=place, hint=hint, severity="warning"))

    # ------------------------------------------------------------------ layers

    def _merged(self, parts: list[Part], files: Files, environment: str | None) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for part in parts:
            kind = "mapping" if part.document is None else "file"
            tree = self._over(tree, self._layer(kind, part, part.value, ()))
            self._check_sections(part)
        if environment is None:
            return tree
        for part in parts:
            sections = part.value.get("environments")
            if isinstance(sections, dict) and sections.get(environment) is not None:
                prefix = ("environments", environment)
                tree = self._over(tree, self._layer("environment", part, sections[environment], prefix))
        for part in parts:
            overlay = files.overlay(part, environment)
            if overlay is not None:
                tree = self._over(tree, self._layer("overlay", overlay, overlay.value, ()))
        return tree

    def _check_versions(self) -> None:
        """Check what only lower layers say of the version; the highest is in the tree, and checked there."""
        for layer in [layer for layer in self._layers if "version" in layer.data][:-1]:
            version = layer.data["version"]
            if type(version) is not int or version != 1:
                message = "this storeconf reads version 1 of its language"
                self._problems.append(problem("SC505", message, ("version",), layer.place(("version",))))

    def _check_sections(self, part: Part) -> None:
        sections = part.value.get("environments")
        if sections is not None and not isinstance(sections, dict):
            message = "environments must be a mapping from names to what they change"
            self._problems.append(problem("SC207", message, ("environments",), part.place(("environments",))))
            return
        for name, section in (sections or {}).items():
            path = ("environments", name)
            if not valid_name(name):
                hint = "use letters, digits, '_' and '-', beginning and ending with a letter or digit, without '__'"
                message = f"{name!r} can't name an environment"
                self._problems.append(problem("SC509", message, path, part.place(path, key=True), hint=hint))
            if section is not None and not isinstance(section, dict):
                message = f"what environment {name!r} changes must be a mapping"
                self._problems.append(problem("SC207", message, path, part.place(path)))

    def _layer(self, kind: str, part: Part, value: Any, prefix: TreePath) -> Layer | None:
        if not isinstance(value, dict):
            return None
        for key in _NOT_HERE.get(kind, ()):
            if key in value:
                where = "an environment" if kind == "environment" else "an overlay"
                place = part.place((*prefix, key), key=True) | {"layer": kind}
                self._problems.append(problem("SC208", f"{where} can't hold {key!r}", (*prefix, key), place))
        data = {key: said for key, said in value.items() if key not in _HANDLED and key[:2] != "x-"}
        layer = Layer(kind, data, part.directory, part.document, prefix)
        if value.get("unset") is not None:
            self._unset(layer, value["unset"])
        return layer

    def _unset(self, layer: Layer, entries: Any) -> None:
        if not isinstance(entries, list):
            message = "unset must be a list of dotted paths"
            self._problems.append(problem("SC210", message, (*layer.prefix, "unset"), layer.place(("unset",))))
            return
        removals: Any = Removals()
        unset: dict[TreePath, int] = {}
        for number, entry in enumerate(entries):
            path = parse_path(entry) if isinstance(entry, str) else None
            if path is None or path[0] in FORBIDDEN:
                place = layer.place(("unset", number))
                message = "what is unset must be a dotted path, such as stores.main.tls"
                if path is not None:
                    message = f"{path[0]!r} can't be unset"
                self._problems.append(problem("SC210", message, (*layer.prefix, "unset", number), place))
                continue
            unset[path] = number
            said: Any = None
            for step in reversed(path):
                said = Removals({step: said})
            removals = self._merge.combine(removals, said, one_layer=True)
        layer.data = dict(self._merge.combine(removals, layer.data, one_layer=True))
        layer.unset = unset
        layer.plain = False

    def _over(self, tree: dict[str, Any], layer: Layer | None) -> dict[str, Any]:
        if layer is None:
            return tree
        self._layers.append(layer)
        return self._merge.apply(tree, layer.data, plain=layer.plain)

    # ------------------------------------------------------------------ what the merge found

    def _exclusive(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Report fields that exclude each other and were set in one layer; the first of them stays."""
        stores = tree.get("stores")
        nodes: list[tuple[TreePath, Any]] = [(("default_factory",), tree.get("default_factory"))]
        if isinstance(stores, dict):
            nodes += ((("stores", name), node) for name, node in stores.items())
        for path, node in nodes:
            if not isinstance(node, dict) or node.get("type") is None:
                continue
            for group in self._rules.exclusive(node["type"]):
                given = [name for name in node if name in group and node[name] is not None]
                if len(given) > 1:
                    tree = self._only_first(tree, path, given)
        return tree

    def _only_first(self, tree: dict[str, Any], path: TreePath, given: list[str]) -> dict[str, Any]:
        first, second = given[0], given[1]
        place = self._origins.place((*path, first), key=True)
        note = Note(f"{first!r} is here", *(place.get(key) for key in ("file", "line", "column", "variable")))
        message = f"{dotted(path)} has {' and '.join(map(repr, given))}, which exclude each other"
        place = self._origins.place((*path, second), key=True)
        self._problems.append(problem("SC510", message, (*path, second), place, hint="keep one", notes=(note,)))
        return self._merge.apply(tree, at(path, dict.fromkeys(given[1:])))

    def _report_merge(self, futile: list[TreePath]) -> None:
        for path in dict.fromkeys([*self._merge.doubtful, *futile]):
            for layer in self._origins.futile(path):
                message = f"there is no {dotted(path)} below this layer, so this removes nothing"
                place = layer.place(path, key=True)
                self._problems.append(problem("SC802", message, path, place, severity="warning"))
        for path in dict.fromkeys(self._merge.clashes):
            for layer in self._layers:
                said = layer.says(path, self._rules)
                if said is not None and said is not MISSING and not isinstance(said, dict):
                    message = f"{dotted(path)} must be a mapping"
                    self._problems.append(problem("SC211", message, path, layer.place(path)))


def _environments(parts: list[Part]) -> tuple[str, ...]:
    """All environments that the parts declare, in the order in which they are first named."""
    names: dict[str, None] = {}
    for part in parts:
        sections = part.value.get("environments")
        if isinstance(sections, dict):
            names |= dict.fromkeys(filter(valid_name, sections))
        names |= dict.fromkeys(sorted(part.overlays))
    return tuple(names)
