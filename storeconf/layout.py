"""The layout: the validated description of all stores for one environment, and how it is read."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from storeconf.catalog import BUILT_IN, Catalog
from storeconf.config import AliasSpec, Request
from storeconf.config.dump import dump, masked
from storeconf.config.pipeline import run
from storeconf.config.reporter import merged, report_unused, silence
from storeconf.config.tree import MISSING, dotted, lookup, path_in
from storeconf.config.variables import Variable, iter_variables
from storeconf.errors import ConfigError, PluginError
from storeconf.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storeconf.config import DefaultFactorySpec, Links, Overrides, Source, StoreSpec
    from storeconf.config.document import Looks
    from storeconf.config.layers import Place
    from storeconf.config.pipeline import Assembly
    from storeconf.config.reporter import Acknowledged, Reporter
    from storeconf.config.secrets import Redactor
    from storeconf.config.tree import TreePath
    from storeconf.config.validate import Validated
    from storeconf.diagnostics import Diagnostic, Origin
    from storeconf.plugin import Backend
    from storeconf.registry import StoreRegistry

__all__ = ["CheckResult", "Layout", "check_layout", "collection_paused", "read_layout", "working_directory"]


@dataclass(frozen=True, slots=True, repr=False)
class Layout:
    """The validated description of all stores for one environment.

    ``stores`` has the specification of each store by name, ``warnings`` problems that are allowed but deserve a second
    thought, ``catalog`` the kinds that could be named. Two layouts are equal when they describe the same stores, in any
    files.
    """

    environment: str | None
    stores: Mapping[str, StoreSpec]
    default_factory: DefaultFactorySpec | None = None
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)
    catalog: Catalog = field(kw_only=True, compare=False)
    _assembly: Assembly = field(kw_only=True, compare=False)
    _validated: Validated = field(kw_only=True, compare=False)

    def __repr__(self) -> str:
        environment = f" for {self.environment!r}" if self.environment is not None else ""
        return f"<Layout{environment} of {len(self.stores)} stores>"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, in that order, as shown to people."""
        return self._assembly.files

    def path(self, text: str) -> TreePath:
        """The steps of a dotted path, such as ``stores.main.url``; those into lists are indices."""
        return path_in(self._assembly.tree, text)

    def contains(self, path: TreePath) -> bool:
        """Whether any layer sets the value at a path."""
        return lookup(self._assembly.tree, path) is not MISSING

    def origin(self, path: str) -> Origin | None:
        """The origin of the value at a dotted path (``stores.main.url``), and, as ``shadowed``, the next lower one.

        None when no layer sets it. Secrets are masked in every value.
        """
        steps = self.path(path)
        if not steps:
            return None
        return self._assembly.history.of(
            steps, lambda path, value: masked(self._assembly, self._validated, path, value)
        )

    def variables(self) -> tuple[Variable, ...]:
        """Every variable that could override something, by path, whether it is set or not."""
        return tuple(iter_variables(self._assembly.tree, self.catalog))

    def dump(self, *, masked: bool = True) -> dict[str, Any]:
        """The effective layout as plain data in the language's own shape; with ``masked=False`` secrets too."""
        return dump(self._assembly, self._validated, masked=masked)

    @property
    def redact(self) -> Redactor:
        """Call it with a text of other code, such as an exception's: it removes all parts of the layout's secrets."""
        return self._assembly.report.redactor

    def plan(self) -> Plan:
        """The stores in the order in which they are created, each with its chain: pure data.

        Raises ConfigError if placeholders replace kinds or names of stores.
        """
        if self._validated.unknown:
            report = self._assembly.report
            for text, path in self._validated.unknown.items():
                message = f"{dotted(path)} is {text}, which is not known here, so the stores can't be put in order"
                report.add("SC402", message, path, hint="give it a value")
            raise ConfigError([each for each in report.diagnostics(self.environment) if each.severity == "error"])
        return Plan.of(self.stores, self.default_factory, self.environment)

    def compile(self, *, pause_gc: bool = True) -> StoreRegistry:
        """Create the registry. Connects to nothing until it is opened. ``pause_gc``: as in `read_layout`."""
        from storeconf.registry import compile_plan

        with collection_paused(pause_gc):
            return compile_plan(self.plan(), self._assembly.report.redactor, layout=self)

    @property
    def looks(self) -> Looks:
        """Which files were read or looked for."""
        return self._assembly.request.looks

    def read_again(self, looks: Looks) -> Layout:
        """Read the sources of this layout again, as they are now; ``looks`` takes down which files are looked at.

        Raises ConfigError with every problem that was found.
        """
        request = replace(self._assembly.request, looks=looks)
        with collection_paused(request.pause_gc):
            examined = _examined(*run(request), packages=False)
            _report_unused([examined], every=False)
            result = _checked(examined[0])
        if result.layout is None:
            raise ConfigError(result.diagnostics)
        return result.layout


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: the valid layouts, and every problem, ordered by location.

    ``environments`` were checked; it is empty where only the base was. ``files`` were read, in any of them.
    """

    diagnostics: tuple[Diagnostic, ...]
    layouts: Mapping[str | None, Layout]
    environments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout | None:
        """The layout of the one environment that was checked, None if it has errors."""
        return next(iter(self.layouts.values()), None)


def read_layout(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
    pause_gc: bool = True,
) -> Layout:
    """Read and validate a layout: a file, a mapping, or the file that discovery finds.

    ``environment`` comes from STORECONF_ENV when None; ``overrides`` are dotted paths or nested; ``environ`` replaces
    the process's variables (``{}``: none); ``catalog`` holds the kinds that may be named, by default all installed.
    ``pause_gc=False`` leaves Python's cyclic garbage collector alone, which is paused meanwhile for all threads.

    Raises ConfigError with every problem that was found.
    """
    result = check_layout(
        source,
        environment=environment,
        overrides=overrides,
        environ=environ,
        catalog=catalog,
        pause_gc=pause_gc,
    )
    if result.layout is None:
        raise ConfigError(result.diagnostics)
    return result.layout


def check_layout(
    source: Source = None,
    *,
    environment: str | None = None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
    without_secrets: bool = False,
    all_environments: bool = False,
    packages: bool = False,
    pause_gc: bool = True,
) -> CheckResult:
    """Read and validate a layout, and return every problem instead of raising.

    ``overrides`` may also be pairs of dotted path and text, as a command line gives them; there ``null`` removes.
    ``without_secrets`` takes placeholders for unset variables and missing secret files; such a layout is good for a
    look, not for use. ``all_environments``: without ``environment``, every environment that the layout declares is
    checked (the base where there is none), and STORECONF_ENV is ignored; a problem of several comes once, with all
    names. ``packages`` warns of optional packages that the layout needs and that are not installed.
    """
    variables = os.environ if environ is None else environ
    if all_environments:
        variables = {name: value for name, value in variables.items() if name != "STORECONF_ENV"}
    kinds = catalog or Catalog.installed()
    if "STORECONF_DISABLE_PLUGINS" in variables:
        kinds = kinds.without_plugins(variables["STORECONF_DISABLE_PLUGINS"])
    request = Request(source, environment, overrides, variables, kinds, working_directory(), without_secrets, pause_gc)
    with collection_paused(pause_gc):
        first = run(request)
        known = first[0].environments
        every = all_environments and environment is None and bool(known)
        runs = [run(replace(request, environment=name)) for name in known] if every else [first]
        examined = [_examined(*each, packages=packages) for each in runs]
        _report_unused(examined, every=every)
        results = [_checked(layout) for layout, _ in examined]
    if not every:
        return results[0]
    layouts = {name: layout for result in results for name, layout in result.layouts.items()}
    found = merged(each for result in results for each in result.diagnostics)
    files = tuple(dict.fromkeys(file for result in results for file in result.files))
    return CheckResult(tuple(found), MappingProxyType(layouts), known, files)


def working_directory() -> Path:
    """The working directory; where it has been deleted, the relative ``.``, in which nothing is found."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def _examined(assembly: Assembly, validated: Validated, *, packages: bool) -> tuple[Layout, dict[Acknowledged, Place]]:
    """A layout that may have problems, and its acknowledgements without effect; the report then has every problem."""
    report = assembly.report
    layout = Layout(
        assembly.environment,
        MappingProxyType(validated.stores),
        validated.default_factory,
        catalog=assembly.request.catalog,
        _assembly=assembly,
        _validated=validated,
    )
    if not validated.unknown:
        _check_chains(layout, report)
    if packages:
        _check_packages(layout, report)
    return layout, silence(assembly.tree, report) if "acknowledge" in assembly.tree else {}


def _report_unused(examined: list[tuple[Layout, dict[Acknowledged, Place]]], *, every: bool) -> None:
    """Warn of acknowledged warnings that do not occur.

    Those that a layout with environments acknowledges in general need occur in one of them, so all must be known.
    """
    for layout, unused in (each for each in examined if each[1]):
        assembly = layout._assembly  # noqa: SLF001  # of this module
        if assembly.environments:
            unused = {
                entry: place
                for entry, place in unused.items()
                if place.get("layer") not in ("file", "mapping")
                or (every and all(entry in others for _, others in examined))
            }
        report_unused(unused, assembly.report)


def _checked(layout: Layout) -> CheckResult:
    environment, assembly = layout.environment, layout._assembly  # noqa: SLF001  # of this module
    report = assembly.report
    names = (environment,) if environment else ()
    if not report.found:
        return CheckResult((), MappingProxyType({environment: layout}), names, assembly.files)
    found = report.diagnostics(environment)
    layouts = {} if report.failed() else {environment: replace(layout, warnings=found)}
    return CheckResult(found, MappingProxyType(layouts), names, assembly.files)


def _check_packages(layout: Layout, report: Reporter) -> None:
    """Warn of optional packages that stores need and that are not installed."""
    named = [(("stores", name), spec) for name, spec in layout.stores.items()]
    for path, spec in (*named, (("default_factory",), layout.default_factory)):
        backend: Backend | None = getattr(spec, "backend", None)
        links: Links = getattr(spec, "middleware", None) or {}
        parts = {(*path, "type"): backend, **{(*path, "middleware", kind): link for kind, link in links.items()}}
        for place, part in parts.items():
            for module, requirement in part.required_packages().items() if part else ():
                if not _is_installed(module):
                    message = f"{dotted(path)} needs the package {module.partition('.')[0]!r}, which is not installed"
                    hint = f"pip install '{requirement}'"
                    report.add("SC807", message, place, severity="warning", hint=hint)


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of a package above it, or one that can't be imported
        return False


def _check_chains(layout: Layout, report: Reporter) -> None:
    """Report plugins' middleware that can't agree on places; only the plan finds that."""
    kinds = layout._validated.models  # noqa: SLF001  # of this module
    foreign = {kind for part, kind in kinds if part == "middleware"}.difference(BUILT_IN["middleware"])
    for name, spec in layout.stores.items() if foreign and not report.failed() else ():
        if not isinstance(spec, AliasSpec) and not foreign.isdisjoint(spec.middleware):
            try:
                layout.plan()
            except PluginError as error:
                report.add(error.code, str(error.args[0]), ("stores", name, "middleware"), key=True, hint=error.hint)
            return


# ---------------------------------------------------------------------- the garbage collector

_LOCK = threading.Lock()
_pausing = 0
_resume = False


@contextmanager
def collection_paused(wanted: bool = True) -> Iterator[None]:
    """Pause the cyclic garbage collector, if ``wanted``, while many objects are created that all stay.

    Reading a large layout creates tens of thousands of objects at once. The collector would traverse all of them, and
    the objects of the whole application, several times in vain (docs/decisions/0009-pausing-the-garbage-collector.md
    has the figures). The last of several simultaneous pauses resumes it, if it ran before.
    """
    global _pausing, _resume
    if not wanted:
        yield
        return
    with _LOCK:
        if not _pausing:
            _resume = gc.isenabled()
            gc.disable()
        _pausing += 1
    try:
        yield
    finally:
        with _LOCK:
            _pausing -= 1
            if not _pausing and _resume:
                gc.enable()
