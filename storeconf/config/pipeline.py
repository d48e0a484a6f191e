"""From a source to a validated layout: the stages in the order in which data flows.

    files, mappings ──read──▶ documents: plain values, and the location of each
             layers ──merge─▶ one tree; each value's history can be replayed
          variables ──apply─▶ the same tree
              ${…} ──expand─▶ the same tree; secrets tainted
             models ─validate▶ specs, or every problem

Nothing is raised for bad input: the reporter, which is made first, collects all problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storeconf.config.interpolate import Interpolation
from storeconf.config.layers import ValueHistory
from storeconf.config.merge import Merge, Rules
from storeconf.config.relations import check_relations
from storeconf.config.reporter import Reporter
from storeconf.config.secrets import Redactor
from storeconf.config.settings import NO_SPACE, SPACE_HINT
from storeconf.config.sources import Files, chosen_environment, environments_of, layers_of
from storeconf.config.tree import MISSING, TreePath, dotted, lookup
from storeconf.config.validate import Validated, validate
from storeconf.config.variables import OURS, at, declared, parse_overrides, read_overrides, read_variables

if TYPE_CHECKING:
    from storeconf.config import Request
    from storeconf.config.document import Document

__all__ = ["Assembly", "assemble", "run"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Assembly:
    """The merged and expanded tree, and the documents that it comes from.

    ``tree`` holds ``version``, ``stores``, ``default_factory`` and every unknown key at the top.
    ``environments`` are all known ones, by section or overlay. ``files`` are the names of all files that are there,
    ``documents`` those that could be read. ``report`` has the problems so far, and the history of each value.
    """

    request: Request
    environment: str | None
    environments: tuple[str, ...]
    tree: dict[str, Any]
    documents: tuple[Document, ...]
    files: tuple[str, ...]
    report: Reporter

    @property
    def history(self) -> ValueHistory:
        """The changes that each layer made."""
        return self.report.history


def run(request: Request) -> tuple[Assembly, Validated]:
    """Read, merge, expand and validate a layout for one environment."""
    assembly = assemble(request)
    validated = validate(request, assembly.tree, assembly.report)
    stores = assembly.tree.get("stores", {})
    if isinstance(stores, dict):
        check_relations(validated, stores, assembly.report, several=bool(assembly.environments))
    return assembly, validated


def assemble(request: Request) -> Assembly:
    """Read, merge and expand a layout for one environment."""
    merge = Merge(Rules(request.catalog, request.variables))
    history = ValueHistory(merge.rules)
    documents: list[Document] = []
    report = Reporter(history, Redactor(request.catalog, history.layers, documents))

    # files, mappings ──read──▶ documents
    files = Files(request, report, documents)
    parts = files.parts()
    environments = environments_of(parts)
    environment = chosen_environment(request, environments, parts, report)

    # layers ──merge─▶ one tree
    tree: dict[str, Any] = {}
    for layer in layers_of(parts, files, environment, merge, report):
        tree = merge.apply(tree, layer.data, plain=layer.plain)
        history.layers.append(layer)
    if len(history.layers) > 1:
        _check_versions(history, report)

    # variables ──apply─▶ the same tree
    overrides = parse_overrides(request.overrides, report) if request.overrides else []
    later = declared(overrides, merge) if overrides else {}
    ours = [name for name, value in request.variables.items() if value and name[: len(OURS)].upper() == OURS]
    variables = read_variables(request, ours, tree, later, merge, report) if ours else None
    if variables is not None:
        tree = merge.apply(tree, variables.data)
        history.layers.append(variables)
    highest = read_overrides(request, overrides, tree, merge, report) if overrides else None
    if highest is not None:
        tree = merge.apply(tree, highest.data)
        history.layers.append(highest)
    tree = _without_exclusive(tree, merge, report)

    # ${…} ──expand─▶ the same tree
    interpolation = Interpolation(request, environment, report)
    tree = interpolation.mapping(tree)
    report.redactor.tree = tree
    if merge.clashes:
        _report_clashes(tree, merge, report)
    if futile := [*merge.doubtful, *interpolation.futile]:
        _report_futile(futile, report)
    return Assembly(request, environment, environments, tree, tuple(documents), tuple(files.names), report)


# ---------------------------------------------------------------------- findings of the merge


def _check_versions(history: ValueHistory, report: Reporter) -> None:
    """Check the version in lower layers; that of the highest is in the tree, and checked there."""
    for layer in [layer for layer in history.layers if "version" in layer.data][:-1]:
        version = layer.data["version"]
        if type(version) is not int or version != 1:
            message = "this storeconf reads version 1 of its language"
            report.add("SC505", message, ("version",), place=layer.place(("version",)))


def _without_exclusive(tree: dict[str, Any], merge: Merge, report: Reporter) -> dict[str, Any]:
    """Report fields that exclude each other and were set in one layer; the first of them stays."""
    stores = tree.get("stores")
    nodes: list[tuple[TreePath, Any]] = [(("default_factory",), tree.get("default_factory"))]
    if isinstance(stores, dict):
        nodes += ((("stores", name), node) for name, node in stores.items())
    for path, node in nodes:
        if not isinstance(node, dict) or node.get("type") is None:
            continue
        for group in merge.rules.exclusive(node["type"]):
            if sum(node.get(name) is not None for name in group) > 1:
                given = [name for name in node if name in group and node[name] is not None]
                _report_exclusive(path, given, report)
                tree = merge.apply(tree, at(path, dict.fromkeys(given[1:])))
    return tree


def _report_exclusive(path: TreePath, given: list[str], report: Reporter) -> None:
    first, second = given[:2]
    note = report.note(f"{first!r} is here", (*path, first), key=True)
    message = f"{dotted(path)} has {' and '.join(map(repr, given))}, which exclude each other"
    report.add("SC510", message, (*path, second), key=True, hint="keep one", notes=(note,))


def _report_futile(paths: list[TreePath], report: Reporter) -> None:
    """Report removals of values that no lower layer has."""
    for path in dict.fromkeys(paths):
        for layer in report.history.futile(path):
            message = f"no lower layer has {dotted(path)}, so this removes nothing"
            place = layer.place(path, key=True, removal=True)
            unset = layer.is_unset(path)
            hint = None if unset else "null, or an empty value, removes the value set by lower layers"
            if not unset and NO_SPACE.match(str(path[-1])):
                hint = SPACE_HINT
            report.add("SC802", message, path, place=place, hint=hint, severity="warning", lacking=True)


def _report_clashes(tree: dict[str, Any], merge: Merge, report: Reporter) -> None:
    """Report values of layers where only a mapping is possible."""
    for path in dict.fromkeys(merge.clashes):
        highest = None if isinstance(lookup(tree, path), dict) else report.history.layer(path)
        hint = "write the store's fields below its name" if len(path) > 1 else None
        for layer in report.history.layers:
            if layer is highest:
                continue  # its value is in the tree, and checked there
            found = layer.value_at(path, merge.rules)
            if found is not None and found is not MISSING and not isinstance(found, dict):
                report.add("SC211", f"{dotted(path)} must be a mapping", path, place=layer.place(path), hint=hint)
