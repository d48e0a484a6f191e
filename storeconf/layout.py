"""The layout: the validated description of all stores for one environment, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from storeconf._collection import collection_paused
from storeconf.catalog import BUILT_IN, Catalog
from storeconf.config.dump import dump, masked
from storeconf.config.layers import problem
from storeconf.config.pipeline import Assembly, Source, assemble
from storeconf.config.relations import check_structure
from storeconf.config.reporter import Problems, merged, ordered
from storeconf.config.secrets import Masks, secret_paths
from storeconf.config.specs import AliasSpec
from storeconf.config.tree import Placeholder, dotted, item_index, lookup
from storeconf.config.validate import validate
from storeconf.config.variables import Variable, iter_variables
from storeconf.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storeconf._location import Diagnostic, Origin
    from storeconf.catalog import Part
    from storeconf.config.specs import DefaultFactorySpec, StoreSpec
    from storeconf.config.tree import TreePath
    from storeconf.config.variables import Overrides
    from storeconf.plan import Plan
    from storeconf.plugin import Settings
    from storeconf.registry import StoreRegistry

__all__ = ["Layout", "Report", "examine", "examine_all", "read_layout"]


@dataclass(frozen=True, slots=True, repr=False)
class Layout:
    """The validated description of all stores for one environment.

    ``stores`` holds what was said of each by name, ``warnings`` what is allowed but deserves a second thought,
    ``kinds`` the backends and middleware that the layout names. Where placeholders are taken, ``unknown`` has those for
    kinds and stores, which keep a layout from being planned. Two layouts are equal when they describe the same
    stores, wherever that was said.
    """

    environment: str | None
    stores: Mapping[str, StoreSpec]
    default_factory: DefaultFactorySpec | None = None
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)
    assembly: Assembly = field(kw_only=True, compare=False)
    catalog: Catalog = field(kw_only=True, compare=False)
    kinds: Mapping[tuple[Part, str], type[Settings]] = field(kw_only=True, default_factory=dict, compare=False)
    unknown: Mapping[str, TreePath] = field(kw_only=True, default_factory=dict, compare=False)

    def __repr__(self) -> str:
        environment = f" for {self.environment!r}" if self.environment is not None else ""
        return f"<Layout{environment} of {len(self.stores)} stores>"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, in that order, as shown to people."""
        return self.assembly.files

    def origin(self, path: str) -> Origin | None:
        """Where the value at a dotted path (``stores.main.url``) came from, and, as ``shadowed``, what it shadowed.

        None when no layer sets it. Secrets are masked in every value.
        """
        return self.assembly.history(self._parsed(path), lambda path, value: masked(self, path, value))

    def variables(self) -> tuple[Variable, ...]:
        """Every variable that could override something, by path, whether it is set or not."""
        return tuple(iter_variables(self.assembly.tree, self.catalog))

    def dump(self, *, masked: bool = True) -> dict[str, Any]:
        """The effective layout as plain data in the language's own shape; with ``masked=False`` secrets too."""
        return dump(self, masked=masked)

    def plan(self) -> Plan:
        """In which order the stores are made, each with its chain: pure data.

        Raises ConfigError where placeholders stand for kinds or names of stores.
        """
        from storeconf.plan import Plan

        if self.unknown:
            raise ConfigError(_shown([_not_known(self.assembly, *each) for each in self.unknown.items()], self))
        return Plan.of(self.stores, self.default_factory, self.environment)

    def compile(self) -> StoreRegistry:
        """Make the registry. Connects to nothing: that begins when it is opened."""
        from storeconf.registry import compile_plan

        with collection_paused():
            return compile_plan(self.plan())

    def _parsed(self, path: str) -> TreePath:
        here: Any = self.assembly.tree
        steps: list[str | int] = []
        for part in path.split("."):
            index = item_index(part) if isinstance(here, list) else None
            step: str | int = part if index is None else index
            steps.append(step)
            if isinstance(here, dict):
                here = here.get(step)
            else:
                here = here[step] if isinstance(here, list) and isinstance(step, int) and step < len(here) else None
        return tuple(steps)


@dataclass(frozen=True, slots=True)
class Report:
    """What an examination found: the layouts that could be made, and every problem, ordered by place.

    ``environments`` were examined; it is empty where only the base was. ``files`` were looked at, in any of them.
    """

    diagnostics: tuple[Diagnostic, ...]
    layouts: Mapping[str | None, Layout]
    environments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout | None:
        """The layout of the one environment that was examined, None if it has errors."""
        return next(iter(self.layouts.values()), None)


def read_layout(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> Layout:
    """Read and validate a layout: a file, a mapping, or what discovery finds.

    ``environment`` comes from STORECONF_ENV when None; ``overrides`` are dotted paths or nested; ``environ`` replaces
    the process's variables (``{}``: none); ``catalog`` holds the kinds that may be named, by default all installed.

    Raises ConfigError with every problem that was found.
    """
    report = examine(source, environment=environment, overrides=overrides, environ=environ, catalog=catalog)
    if report.layout is None:
        raise ConfigError(report.diagnostics)
    return report.layout


def examine(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
    without_secrets: bool = False,
) -> Report:
    """Read and validate a layout, and report instead of raising.

    ``overrides`` may also be pairs of dotted path and text, as a command line gives them; there ``null`` removes.
    ``without_secrets`` takes placeholders for unset variables and missing secret files; such a layout is good for a
    look, not for use.
    """
    with collection_paused():
        reader = _Reader(source, overrides, os.environ if environ is None else environ, catalog, without_secrets)
        return reader.check(reader.assemble(environment))


def examine_all(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
    without_secrets: bool = False,
) -> Report:
    """Examine every environment that the layout declares (the base where there is none), or one.

    A problem that several environments have comes once, with all their names. STORECONF_ENV does not matter.
    """
    given = os.environ if environ is None else environ
    environ = {name: value for name, value in given.items() if name != "STORECONF_ENV"}
    reader = _Reader(source, overrides, environ, catalog, without_secrets)
    first = reader.assemble(environment)
    if environment is not None or not first.environments:
        return reader.check(first)
    reports = [reader.check(reader.assemble(name)) for name in first.environments]
    layouts = {name: layout for report in reports for name, layout in report.layouts.items()}
    found = merged(each for report in reports for each in report.diagnostics)
    files = tuple(dict.fromkeys(file for report in reports for file in report.files))
    return Report(tuple(found), MappingProxyType(layouts), first.environments, files)


class _Reader:
    """What one reading is given, apart from the environment."""

    def __init__(
        self,
        source: Source,
        overrides: Overrides | None,
        environ: Mapping[str, str],
        catalog: Catalog | None,
        without_secrets: bool,
    ) -> None:
        self._source = source
        self._overrides = overrides
        self._environ = environ
        self._catalog = (catalog or Catalog.installed()).without_plugins(environ.get("STORECONF_DISABLE_PLUGINS"))
        self._without_secrets = without_secrets

    def assemble(self, environment: str | None) -> Assembly:
        return assemble(
            self._source,
            environment=environment,
            overrides=self._overrides,
            environ=self._environ,
            catalog=self._catalog,
            without_secrets=self._without_secrets,
        )

    def check(self, assembly: Assembly) -> Report:
        problems = Problems(assembly.place, complete=assembly.complete)
        problems.found += assembly.problems
        validated = validate(assembly, self._catalog, problems)
        declared = assembly.tree.get("stores", {})
        if isinstance(declared, dict):
            check_structure(validated, declared, problems)
        layout = Layout(
            assembly.environment,
            MappingProxyType(validated.stores),
            validated.default_factory,
            assembly=assembly,
            catalog=self._catalog,
            kinds=validated.models,
            unknown=MappingProxyType(dict(validated.unknown)),
        )
        failed = any(each.severity == "error" for each in problems.found)
        if not failed and not layout.unknown:
            failed = _chains_contradict(layout, problems)
        found = tuple(_shown(problems.found, layout))
        names = () if assembly.environment is None else (assembly.environment,)
        if failed:
            return Report(found, MappingProxyType({}), names, assembly.files)
        layouts = {assembly.environment: replace(layout, warnings=found)}
        return Report(found, MappingProxyType(layouts), names, assembly.files)


def _chains_contradict(layout: Layout, problems: Problems) -> bool:
    """Whether plugins' middleware can't agree on places; the plan finds that, so it is asked only where it can be."""
    foreign = {kind for part, kind in layout.kinds if part == "middleware"}.difference(BUILT_IN["middleware"])
    for name, spec in layout.stores.items() if foreign else ():
        if not isinstance(spec, AliasSpec) and not foreign.isdisjoint(spec.middleware):
            try:
                layout.plan()
            except PluginError as error:
                problems.add(error.code, str(error.args[0]), ("stores", name, "middleware"), key=True, hint=error.hint)
                return True
            return False
    return False


def _not_known(assembly: Assembly, text: str, path: TreePath) -> Diagnostic:
    message = f"{dotted(path)} is {text}, which is not known here, so the stores can't be put in order"
    return problem("SC402", message, path, assembly.place(path), hint="give it a value")


def _shown(found: list[Diagnostic], layout: Layout) -> Iterator[Diagnostic]:
    """The diagnostics as people see them: in order, for this environment, with excerpts, without secrets."""
    if not found:
        return
    assembly = layout.assembly
    paths = tuple(secret_paths(assembly.tree, layout.kinds))
    values = (lookup(assembly.tree, path) for path in paths)
    texts = {str(value) for value in values if value.__class__ is not Placeholder} | assembly.secret_texts()
    masks = Masks(texts, assembly.documents, paths)
    names = () if assembly.environment is None else (assembly.environment,)
    for each in ordered(found):
        yield replace(masks.diagnostic(each), environments=names)
