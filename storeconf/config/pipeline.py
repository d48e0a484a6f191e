"""From a source to one merged, interpolated tree that knows where everything in it came from.

Nothing is raised for bad input: all problems are collected, each with its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf._location import Diagnostic, Note
from storeconf.config.interpolate import Interpolation
from storeconf.config.layers import MASK, Origins, problem, working_directory
from storeconf.config.merge import Merge, Rules
from storeconf.config.sources import Files, Layering, Part, discover, environments_of
from storeconf.config.suggest import nearest
from storeconf.config.tree import MISSING, TreePath, dotted, lookup
from storeconf.config.variables import Overrides, at, declared, parse_overrides, read_overrides, read_variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storeconf._location import Origin
    from storeconf.catalog import Catalog
    from storeconf.config.document import Document
    from storeconf.config.layers import Layer, Place
    from storeconf.plugin import ValueSource

__all__ = ["Assembly", "Source", "assemble"]

_UNFITTING: Final = frozenset({"SC301", "SC302", "SC305", "SC308", "SC806"})
"""What variables and overrides are told by the stores that are known."""

_UNSET: Final = frozenset({"SC402", "SC403", "SC404", "SC405"})
"""What is said of a substitution that a higher layer may replace."""

_NO_SOURCES: Final[Mapping[str, ValueSource]] = MappingProxyType({})

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | None
"""A layout's file, a mapping that says the same, or None: the file is to be found."""


@dataclass(eq=False, repr=False, slots=True)
class Assembly:
    """The merged tree and what it was made of.

    ``tree`` holds ``version``, ``stores``, ``default_factory`` and whatever else was said at the top that nobody
    knows. ``environments`` are all known ones, by section or overlay. ``files`` are the
    names of all files that are there, ``documents`` those that could be read. ``complete``: all of them could.
    """

    environment: str | None
    environments: tuple[str, ...]
    tree: dict[str, Any]
    problems: list[Diagnostic]
    documents: tuple[Document, ...]
    files: tuple[str, ...]
    complete: bool
    _origins: Origins
    _secrets: frozenset[str]
    _secret_paths: Mapping[TreePath, str]
    _sources: Mapping[TreePath, Mapping[str, ValueSource]]

    def history(self, path: TreePath, mask: Callable[[TreePath, Any], object] | None = None) -> Origin | None:
        """Return what every layer did at ``path``, highest first and linked by ``shadowed``; None if none did.

        ``mask`` is given each value as its layer wrote it and returns what to show.
        """
        return self._origins.history(path, mask) if path else None

    def place(self, path: TreePath, key: bool = False) -> Place:
        """Return where the value at ``path``, or its key, was set, as keyword arguments of a `Diagnostic`."""
        return self._origins.place(path, key=key)

    def written(self, path: TreePath) -> TreePath:
        """Return the path as the layer writes it that set the value: a shorthand's, where that stands for a mapping."""
        layer = self._origins.layer(path)
        return path if layer is None else layer.written(path)

    def directory(self, path: TreePath) -> Path:
        """Return the directory that a relative path at ``path`` is relative to."""
        layer = self._origins.layer(path)
        return working_directory() if layer is None else layer.directory

    def secret_texts(self) -> frozenset[str]:
        """Return the texts that came from files and resolvers, to be masked wherever they appear."""
        return self._secrets

    def is_secret(self, path: TreePath) -> bool:
        """Whether the value at ``path``, or a part of it, came from a file or a resolver."""
        return path in self._secret_paths or self._origins.is_secret(path)

    def sources(self, path: TreePath) -> Mapping[str, ValueSource]:
        """Return what in the store at ``path`` came from files, by dotted path in its settings, to be read again."""
        return self._sources.get(path, _NO_SOURCES)

    def masked(self, path: TreePath) -> str:
        """Return what may be shown of a secret value: the text around what came from files and resolvers."""
        return self._secret_paths.get(path, MASK)


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
        known = environments_of(parts)
        chosen, variable = environment, None
        if chosen is None and self._environ.get("STORECONF_ENV"):
            chosen, variable = self._environ["STORECONF_ENV"], "STORECONF_ENV"
        self._check_environment(chosen, variable, known, parts, files)
        tree: dict[str, Any] = {}
        for layer in Layering(self._rules, self._problems).layers(parts, files, chosen):
            tree = self._over(tree, layer)
        self._check_versions()
        parsed = parse_overrides(overrides, self._problems)
        before = len(self._problems)
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
        if not files.complete:
            self._forget(before, _UNFITTING)
        tree = self._exclusive(tree)
        interpolation = Interpolation(
            self._origins,
            self._environ,
            self._catalog,
            chosen,
            self._problems,
            without_secrets=self._without_secrets,
        )
        before = len(self._problems)
        tree = interpolation.mapping(tree)
        if not files.overlays_complete:
            self._forget(before, _UNSET)
        self._report_clashes(tree)
        if files.complete:
            self._report_futile(interpolation.futile)
        return Assembly(
            chosen,
            known,
            tree,
            self._problems,
            tuple(files.documents),
            tuple(files.names),
            files.complete,
            self._origins,
            secrets | interpolation.secrets,
            interpolation.secret_paths,
            self._by_store(variables, interpolation.sources),
        )

    def _by_store(
        self, variables: Layer | None, found: Mapping[TreePath, ValueSource]
    ) -> dict[TreePath, dict[str, ValueSource]]:
        """Return the sources of values by the store, or default factory, whose settings they are."""
        given = {} if variables is None else variables.sources
        standing = {path: source for path, source in given.items() if self._origins.layer(path) is variables}
        by_store: dict[TreePath, dict[str, ValueSource]] = {}
        for path, source in {**standing, **found}.items():
            depth = 2 if path[0] == "stores" else 1
            by_store.setdefault(path[:depth], {})[dotted(path[depth:])] = source
        return by_store

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
        if not shown:
            self._problems.append(problem("SC101", "the file's name is empty", hint="name a file"))
            files.complete = False
            return []
        return files.file(working_directory() / shown, shown)

    def _forget(self, start: int, codes: frozenset[str]) -> None:
        """Drop what was found from ``start`` on with these codes: what can't be read may be what mends it."""
        self._problems[start:] = [each for each in self._problems[start:] if each.code not in codes]

    def _check_environment(
        self, chosen: str | None, variable: str | None, known: tuple[str, ...], parts: list[Part], files: Files
    ) -> None:
        place: Place = {} if variable is None else {"variable": variable}
        if chosen is not None and chosen not in known and files.complete:
            near = nearest(chosen, known)
            there = f"there are {', '.join(known)}" if known else "the layout declares none, by section or overlay"
            hint = f"did you mean {near!r}? {there[0].upper()}{there[1:]}" if near else there
            self._problems.append(problem("SC206", f"there is no environment {chosen!r}", place=place, hint=hint))
        if chosen is None and known:
            message = f"no environment is chosen, and the layout declares {', '.join(known)}"
            hint = "give one (--env, environment=, or STORECONF_ENV); only what is said in general holds now"
            declaring = next((part for part in reversed(parts) if part.value.get("environments")), None)
            place = {"file": parts[-1].shown} if declaring is None else declaring.place(("environments",), key=True)
            self._problems.append(problem("SC803", message, place=place, hint=hint, severity="warning"))

    # ------------------------------------------------------------------ layers

    def _check_versions(self) -> None:
        """Check what only lower layers say of the version; the highest is in the tree, and checked there."""
        for layer in [layer for layer in self._layers if "version" in layer.data][:-1]:
            version = layer.data["version"]
            if type(version) is not int or version != 1:
                message = "this storeconf reads version 1 of its language"
                self._problems.append(problem("SC505", message, ("version",), layer.place(("version",))))

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
                given = [name for name in group if node.get(name) is not None]
                if len(given) > 1:
                    tree = self._only_first(tree, path, [name for name in node if name in given])
        return tree

    def _only_first(self, tree: dict[str, Any], path: TreePath, given: list[str]) -> dict[str, Any]:
        first, second = given[0], given[1]
        place = self._origins.place((*path, first), key=True)
        note = Note(f"{first!r} is here", *(place.get(key) for key in ("file", "line", "column", "variable")))
        message = f"{dotted(path)} has {' and '.join(map(repr, given))}, which exclude each other"
        place = self._origins.place((*path, second), key=True)
        self._problems.append(problem("SC510", message, (*path, second), place, hint="keep one", notes=(note,)))
        return self._merge.apply(tree, at(path, dict.fromkeys(given[1:])))

    def _report_futile(self, futile: list[TreePath]) -> None:
        for path in dict.fromkeys([*self._merge.doubtful, *futile]):
            for layer in self._origins.futile(path):
                message = f"no lower layer has {dotted(path)}, so this removes nothing"
                place = layer.place(path, key=True, removal=True)
                unset = layer.is_unset(path)
                hint = None if unset else "null, or nothing where a value is expected, removes what lower layers say"
                self._problems.append(problem("SC802", message, path, place, hint=hint, severity="warning"))

    def _report_clashes(self, tree: dict[str, Any]) -> None:
        for path in dict.fromkeys(self._merge.clashes):
            highest = None if isinstance(lookup(tree, path), dict) else self._origins.layer(path)
            hint = "write the store's fields below its name" if len(path) > 1 else None
            for layer in self._layers:
                if layer is highest:
                    continue  # what it says is in the tree, and checked there
                said = layer.says(path, self._rules)
                if said is not None and said is not MISSING and not isinstance(said, dict):
                    message = f"{dotted(path)} must be a mapping"
                    self._problems.append(problem("SC211", message, path, layer.place(path), hint=hint))
