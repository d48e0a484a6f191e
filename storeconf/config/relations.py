"""Checks of all stores together: unknown names, cycles, and stores that would share their keys.

Three parts: the relations of stores (`_Relations`), the checks of their declarations, and those of middleware that
calls other stores.

Longer than other modules, because all these checks ask the same questions about one set of relations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from storeconf._text import nearest
from storeconf.config import AliasSpec, ChildSpec, RootSpec
from storeconf.config.fields import fields_of, store_fields
from storeconf.config.reporter import MOST_SOUGHT, listed
from storeconf.config.tree import dotted
from storeconf.plugin import Settings, maker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from storeconf.config import DefaultFactorySpec, Links, StoreSpec
    from storeconf.config.reporter import Reporter
    from storeconf.config.tree import TreePath
    from storeconf.config.validate import Validated
    from storeconf.diagnostics import Note
    from storeconf.plugin import Backend

__all__ = ["check_relations"]

FACTORY: Final[TreePath] = ("default_factory",)

_Place = tuple[str, tuple[str, ...]]
"""A root's name, and the names of a namespace path in it."""

_MOST_NAMES: Final = 10


def check_relations(
    validated: Validated, declared: Collection[str], report: Reporter, *, several: bool = False
) -> None:
    """Check the references between stores and the places of their keys.

    ``declared`` includes stores in error. ``several``: there are environments, and this is the view of one of them.
    """
    relations = _Relations(validated.stores, declared, validated.unknown, report)
    _Structure(validated, relations, report, several=several).check()
    _NeedsCheck(relations, report).check(validated.default_factory)


def _leads_to(spec: StoreSpec | None) -> str | None:
    """The store that a store refers to by its kind, None for a root."""
    if isinstance(spec, ChildSpec):
        return spec.parent
    return spec.use if isinstance(spec, AliasSpec) else None


class _Relations:
    """The relations of the stores; stores in error are only ``declared``, and ``circular`` ones refer to each other.

    ``unknown`` are placeholders for names.
    """

    def __init__(
        self,
        stores: Mapping[str, StoreSpec],
        declared: Collection[str],
        unknown: Collection[str],
        report: Reporter,
    ) -> None:
        self.stores = stores
        self.circular: set[str] = set()
        self._declared = declared
        self._unknown = unknown
        self._report = report
        self._places: dict[str, _Place | None] = {}
        self._near: dict[str, str | None] = {}

    def check_known(self, name: str, path: TreePath) -> None:
        """Report a reference at ``path`` to a store that is not declared."""
        if name in self._declared or name in self._unknown:
            return
        text = f"unknown store {name!r}"
        removal = self._report.removal(("stores", name), f"{name!r} is removed here")
        if removal is not None:
            hint = f"keep {name!r}, or refer to another store"
            self._report.add("SC601", text, path, hint=hint, notes=[removal], lacking=True)
            return
        if name not in self._near:
            self._near[name] = nearest(name, self._declared) if len(self._near) < MOST_SOUGHT else None
        near = self._near[name]
        if near is not None:
            note = self._report.note(f"{near!r} is declared here", ("stores", near), key=True)
            self._report.add("SC601", text, path, hint=f"did you mean {near!r}?", notes=[note], lacking=True)
        else:
            names = list(self._declared)
            more = ", …" if len(names) > _MOST_NAMES else ""
            known = f"declared stores: {', '.join(names[:_MOST_NAMES])}{more}"
            self._report.add(
                "SC601", text, path, hint=known if names else "the layout declares no stores", lacking=True
            )

    def check_divisible(self, name: str, path: TreePath) -> None:
        """Report the use, at ``path``, of namespaces of a root that keeps raw keys."""
        root = self.stores.get(name)
        if isinstance(root, RootSpec) and _keeps_raw_keys(root.backend):
            self._report.add(
                "SC605", f"{name!r} has no namespace of its own, so it can't have namespaces below it", path,
                notes=[self._report.note(f"{name!r} is declared here", ("stores", name), key=True)],
                hint=f"give {name!r} a namespace",
            )  # fmt: skip

    def target(self, name: str) -> str:
        """The store of a name, through aliases."""
        spec = self.stores.get(name)
        while isinstance(spec, AliasSpec) and name not in self.circular:
            name = spec.use
            spec = self.stores.get(name)
        return name

    def place(self, name: str) -> _Place | None:
        """Where a store keeps its keys; None when that can't be known."""
        line: list[str] = []
        here: str | None = name
        while here is not None and here not in self._places and here not in self.circular:
            line.append(here)
            here = _leads_to(self.stores.get(here))
        place = None if here is None else self._places.get(here)
        for each in reversed(line):
            spec = self.stores.get(each)
            if isinstance(spec, RootSpec):
                place = (each, (spec.backend.namespace,) if spec.backend.namespace else ())
            elif spec is None:
                place = None
            elif isinstance(spec, ChildSpec) and place is not None:
                place = (place[0], (*place[1], spec.namespace))
            self._places[each] = place
        return place


def _keeps_raw_keys(backend: Backend) -> bool:
    """Whether a root without namespace has nothing that could separate its namespaces' keys from its own."""
    return backend.namespace == "" and type(backend).model_fields["namespace"].is_required()


def _location(location: Any) -> tuple[str, ...]:
    if isinstance(location, str):
        raise TypeError(f"a location must be a tuple of texts, not {location!r}")
    return tuple(map(str, location))


# ---------------------------------------------------------------------- declarations


class _Structure:
    def __init__(self, validated: Validated, relations: _Relations, report: Reporter, *, several: bool) -> None:
        self._several = several
        self._validated = validated
        self._stores: Mapping[str, StoreSpec] = validated.stores
        self._relations = relations
        self._report = report

    def check(self) -> None:
        for name, spec in self._stores.items():
            if isinstance(spec, ChildSpec):
                self._relations.check_known(spec.parent, ("stores", name, "parent"))
            elif isinstance(spec, AliasSpec):
                self._relations.check_known(spec.use, ("stores", name, "use"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._relations.check_known(factory.parent, (*FACTORY, "parent"))
        if factory is not None and factory.use is not None:
            self._relations.check_known(factory.use, (*FACTORY, "use"))
        self._cycles()
        self._namespaces()
        self._locations()
        self._objects()
        self._warnings()

    # ------------------------------------------------------------------ cycles

    def _cycles(self) -> None:
        """Every store refers to at most one other, so each walk ends at a root, at a visited store, or in a cycle."""
        done: set[str] = set()
        for start in self._stores:
            trail: dict[str, None] = {}
            name: str | None = start
            while name is not None and name not in done and name not in trail:
                trail[name] = None
                name = _leads_to(self._stores.get(name))
            if name is not None and name in trail:
                steps = list(trail)
                self._cycle(steps[steps.index(name) :])
            if name is not None and (name in trail or name in self._relations.circular):
                self._relations.circular.update(trail)
            done.update(trail)

    def _cycle(self, names: list[str]) -> None:
        notes = []
        for name in names:
            field = "use" if isinstance(self._stores[name], AliasSpec) else "parent"
            verb = "uses" if field == "use" else "has parent"
            other = _leads_to(self._stores[name])
            notes.append(self._report.note(f"{name!r} {verb} {other!r}", ("stores", name, field)))
        first = names[0]
        field = "use" if isinstance(self._stores[first], AliasSpec) else "parent"
        text = f"circular store references: {' -> '.join([*names, first])}"
        self._report.add("SC602", text, ("stores", first, field), notes=notes, hint="one of them must be a root")

    # ------------------------------------------------------------------ shared keys

    def _namespaces(self) -> None:
        taken: dict[tuple[str, str], str] = {}
        for name, spec in self._stores.items():
            if not isinstance(spec, ChildSpec):
                continue
            target = self._relations.target(spec.parent)
            first = taken.setdefault((target, spec.namespace), name)
            if first is not name:
                text = f"{first!r} and {name!r} are the same namespace {spec.namespace!r} of {target!r}"
                self._report.add(
                    "SC603", f"{text}, so they would share their keys", ("stores", name, "namespace"), key=True,
                    notes=[self._report.note(f"{first!r} is declared here", ("stores", first), key=True)],
                    hint=f"if they should, write {name}: {{use: {first}}}; if not, give one of them another namespace",
                )  # fmt: skip
            self._relations.check_divisible(target, ("stores", name, "parent"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._relations.check_divisible(self._relations.target(factory.parent), (*FACTORY, "parent"))

    def _locations(self) -> None:
        """Sorted, everything inside a place follows that place. Two roots are reported once."""
        places: list[tuple[tuple[str, ...], int, TreePath, str]] = []
        for name, spec in self._stores.items():
            if isinstance(spec, RootSpec) and name not in self._validated.vague:
                self._locate(places, spec.backend, ("stores", name), repr(name))
        factory = self._validated.default_factory
        if factory is not None and factory.backend is not None:
            self._locate(places, factory.backend, FACTORY, "default_factory")
        places.sort()
        outer = None
        reported = set()
        for place in places:
            if outer is None or place[0][: len(outer[0])] != outer[0]:
                outer = place
                continue
            pair = frozenset((outer[1], place[1]))
            if len(pair) == 1 or pair in reported:
                continue
            reported.add(pair)
            first, second = (outer, place) if outer[1] < place[1] else (place, outer)
            inside = "keep their keys in the same place" if outer[0] == place[0] else "would share keys"
            if outer[0] != place[0]:
                inside = f"would share keys: {place[3]} is inside {outer[3]}"
            kind = "parent" if second[2] == FACTORY else "use"  # the default factory is looked at last
            use = f"write {second[2][-1]}: {{{kind}: {first[2][-1]}}}"
            self._report.add(
                "SC604", f"{first[3]} and {second[3]} {inside}", second[2], key=True,
                notes=[
                    self._report.note(f"{first[3]} is declared here", first[2], key=True),
                    *(note for _, _, path, name in (first, second) for note in self._from_elsewhere(path, name)),
                ],
                hint=f"if they should be one store, {use}; if not, give one of them another place or namespace",
                lacking=True,
            )  # fmt: skip

    def _locate(
        self, places: list[tuple[tuple[str, ...], int, TreePath, str]], backend: Backend, path: TreePath, shown: str
    ) -> None:
        asked = "give the location of its keys"
        try:
            locations = [_location(each) for each in backend.locations()]
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way; reading must not
            self._failed(backend, asked, error, path)
            return
        number = places[-1][1] + 1 if places else 0
        places += ((location, number, path, shown) for location in locations)

    # ------------------------------------------------------------------ warnings

    def _warnings(self) -> None:
        """Pass on the warnings of settings, and report disabled middleware that the chain does not have anyway."""
        for name, spec in self._stores.items():
            if isinstance(spec, AliasSpec):
                continue
            if isinstance(spec, RootSpec) and name not in self._validated.vague:
                self._ask(spec.backend, ("stores", name))
            if spec.middleware:
                self._links(spec.middleware, ("stores", name), spec.parent if isinstance(spec, ChildSpec) else None)
        factory = self._validated.default_factory
        if factory is not None:
            if factory.backend is not None:
                self._ask(factory.backend, FACTORY)
            self._links(factory.middleware, FACTORY, factory.parent)

    def _links(self, links: Links, path: TreePath, parent: str | None) -> None:
        for kind, link in links.items():
            place = (*path, "middleware", kind)
            if link:
                self._ask(link, place)
            elif (
                not self._names_stores(kind)
                and not self._is_inherited(kind, parent)
                and not self._may_be_elsewhere(place)
            ):
                message = f"{dotted(path)} inherits no {kind}, so false disables nothing"
                hint = "remove the line"
                self._report.add("SC802", message, place, severity="warning", hint=hint, lacking=True)

    def _is_inherited(self, kind: str, parent: str | None) -> bool:
        seen = set()
        while parent is not None and parent not in seen:
            seen.add(parent)
            spec = self._stores.get(self._relations.target(parent))
            if spec is None or isinstance(spec, AliasSpec):
                return True  # a store in error, or not known
            if kind in spec.middleware:
                return spec.middleware[kind] is not False
            parent = spec.parent if isinstance(spec, ChildSpec) else None
        return False

    def _may_be_elsewhere(self, path: TreePath) -> bool:
        """Whether a lower layer sets the middleware that this one disables, or another environment may."""
        origin = self._report.history.of(path)
        if origin is None or (origin.shadowed is not None and not origin.shadowed.removed):
            return True
        return self._several and origin.layer in ("file", "mapping")

    def _names_stores(self, kind: str) -> bool:
        """Whether it is middleware that calls other stores: false there may just show where such a chain ends."""
        model = self._validated.models.get(("middleware", kind))
        return model is None or any(expect.store for expect in fields_of(model).expects.values())

    def _ask(self, settings: Settings, path: TreePath) -> None:
        if type(settings).warnings is Settings.warnings:
            return
        try:
            found = [(str(field), str(message)) for field, message in settings.warnings()]
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way; reading must not
            self._failed(settings, "give its warnings", error, path)
            return
        if found and self._report.has_error(path):
            return
        for field, message in found:
            steps = (int(step) if step.isdecimal() else step for step in field.split(".") if step)
            self._report.add("SC801", message, (*path, *steps), severity="warning")

    def _failed(self, backend: Settings, asked: str, error: Exception, path: TreePath) -> None:
        text = f"{maker(type(backend))} failed to {asked}: {type(error).__name__}: {error}"
        self._report.add("SC708", text, path, key=True, hint="report this to the plugin's author")

    def _from_elsewhere(self, path: TreePath, shown: str) -> Iterator[Note]:
        """The settings that determine a root's place and come from another layer than the root itself."""
        spec = self._validated.default_factory if path == FACTORY else self._stores[str(path[-1])]
        backend: Backend | None = getattr(spec, "backend", None)
        if backend is None:
            return
        fields = fields_of(type(backend))
        home = self._report.history.place(path, key=True)
        deciding = {"namespace"}.union(*backend.exclusive_groups)
        for name, expect in fields.expects.items():
            if fields.attributes[name] in backend.model_fields_set and (expect.path or name in deciding):
                there = self._report.history.place((*path, name))
                if any(there.get(key) != home.get(key) for key in ("layer", "file", "variable")):
                    yield self._report.note(f"{shown} gets its {name} here", (*path, name))

    # ------------------------------------------------------------------ objects

    def _objects(self) -> None:
        """A chain is inherited within one root only, so it is enough to look where a kind is named."""
        for name, spec in self._stores.items():
            if not isinstance(spec, AliasSpec) and spec.middleware and name not in self._relations.circular:
                place = self._relations.place(name)
                self._bytes_only(spec.middleware, place and place[0], ("stores", name))
                if isinstance(spec, RootSpec):
                    self._with_namespaces(name, spec)
        factory = self._validated.default_factory
        if factory is not None and factory.middleware:
            place = None if factory.parent is None else self._relations.place(factory.parent)
            self._bytes_only(factory.middleware, place and place[0], FACTORY, factory.backend)

    def _with_namespaces(self, name: str, spec: RootSpec) -> None:
        """Report middleware that keeps something in namespaces below a root which can't have any."""
        for kind, link in spec.middleware.items():
            if link and link.needs_namespaces and _keeps_raw_keys(spec.backend):
                self._report.add(
                    "SC605", f"{kind} needs namespaces below {name!r}, which has no namespace of its own",
                    ("stores", name, "middleware", kind), key=True,
                    notes=[self._report.note(f"{name!r} is declared here", ("stores", name), key=True)],
                    hint=f"give {name!r} a namespace, or leave {kind} out",
                )  # fmt: skip

    def _bytes_only(self, links: Links, root: str | None, path: TreePath, backend: Backend | None = None) -> None:
        """Report middleware, named at ``path``, that can't be around the root's store or that of ``backend``."""
        spec = None if root is None else self._stores.get(root)
        backend = spec.backend if isinstance(spec, RootSpec) else backend
        kinds = [kind for kind, link in links.items() if link and link.requires_bytes]
        if not kinds or backend is None:
            return
        where = path if root is None else ("stores", root)
        try:
            if not backend.keeps_objects():
                return
        except Exception as error:  # noqa: BLE001  # as above
            self._failed(backend, "tell whether it keeps objects", error, where)
            return
        for kind in kinds:
            keeper = repr(root) if root is not None else "default_factory"
            text = f"{kind} works on bytes, and {keeper} keeps objects"
            self._report.add(
                "SC607", text, (*path, "middleware", kind), key=True,
                notes=[self._report.note(f"{keeper} keeps objects", (*where, "objects"))],
                hint=f"leave {kind} out, or let {keeper} keep bytes",
            )  # fmt: skip


# ---------------------------------------------------------------------- stores that chains call


class _Need(NamedTuple):
    """A store that another one's chain calls, and the store that names it: itself, or a parent."""

    store: str
    named_by: str


_REPEATING: Final = ("fallback", "moved_from", "mirror")
"""The kinds whose keys in another store are under the same namespace path there."""

_MOVING: Final = ("moved_from", "mirror")
"""The kinds that must not call a store on keys of its own."""

_WOULD: Final = {"mirror": "be mirrored on", "moved_from": "be moved from"}
_USES: Final = {"fallback": "falls back", "mirror": "is mirrored", "moved_from": "is moved from"}
_SHARED: Final = {"fallback": "fallback's", "mirror": "mirror's", "moved_from": "old store's"}
_TO: Final = {"fallback": "fall back to", "mirror": "be mirrored on", "moved_from": "be moved from"}

_Needs = dict[str, _Need]
"""The stores that one chain calls, by the kind of middleware."""


class _NeedsCheck:
    def __init__(self, relations: _Relations, report: Reporter) -> None:
        self._relations = relations
        self._report = report
        self._needs: dict[str, _Needs] = {}
        self._circular: set[str] = set()  # stores whose chains call each other, and those that name such middleware

    def check(self, factory: DefaultFactorySpec | None) -> None:
        named: dict[str, Mapping[str, str]] = {}
        for name, spec in self._relations.stores.items():
            if not isinstance(spec, AliasSpec) and spec.middleware:
                found = self._named(spec.middleware, ("stores", name, "middleware"))
                if found:
                    named[name] = found
        if factory is not None and factory.middleware:
            self._check_factory(factory)
        if named:
            for name in self._relations.stores:
                self._work_out(name, named)
            self._check_cycles()
            self._check_places()

    def _check_factory(self, factory: DefaultFactorySpec) -> None:
        """Each of its stores is a namespace, which the stores that its chain calls repeat."""
        relations, path = self._relations, (*FACTORY, "middleware")
        place = None if factory.parent is None else relations.place(factory.parent)
        for kind, store in self._named(factory.middleware, path).items():
            target = relations.target(store)
            if kind in _REPEATING:
                relations.check_divisible(target, (*path, kind, "store"))
            if kind not in _MOVING:
                continue
            there = relations.place(target)
            if place is not None and there is not None:
                rest = self._below_root(place) if kind == "mirror" else ()
                self._check_apart("default_factory", kind, place, (there[0], (*there[1], *rest)), (*path, kind))
            backends = {repr(root): self._backend(root) for root in (place and place[0], there and there[0]) if root}
            self._check_capable(kind, {"default_factory": factory.backend} | backends, (*path, kind))
            self._check_bytes(kind, there, (*path, kind))

    def _named(self, links: Links, path: TreePath) -> dict[str, str]:
        """The stores that a chain names, by kind; unknown ones are reported and left out."""
        found = {}
        for kind, link in links.items():
            for field in store_fields(type(link)) if link else ():
                name = getattr(link, field)
                if isinstance(name, str):
                    self._relations.check_known(name, (*path, kind, field))
                    if name in self._relations.stores:
                        found[kind] = name
        return found

    def _work_out(self, name: str, named: Mapping[str, Mapping[str, str]]) -> None:
        """Determine, from the root down, the stores that each store on the way to ``name`` calls."""
        stores = self._relations.stores
        line: list[str] = []
        here: str | None = name
        while here is not None and here not in self._needs and here not in self._relations.circular:
            line.append(here)
            here = _leads_to(stores.get(here))
        for each in reversed(line):
            spec = stores.get(each)
            inherited = self._needs.get(self._relations.target(_leads_to(spec) or ""), {})
            if spec is None or isinstance(spec, AliasSpec):
                self._needs[each] = {}  # an alias is its target, which is checked by its own name
                continue
            needs = {kind: need for kind, need in inherited.items() if kind not in spec.middleware}
            needs |= {kind: _Need(store, each) for kind, store in named.get(each, {}).items()}
            self._needs[each] = needs

    # ------------------------------------------------------------------ cycles

    def _check_cycles(self) -> None:
        done: set[str] = set()
        for start in self._needs:
            trail = [start]
            branches = [iter(self._needs[start].values())]
            while branches and start not in done:
                need = next(branches[-1], None)
                if need is None:
                    branches.pop()
                    done.add(trail.pop())
                    continue
                target = self._relations.target(need.store)
                if target in trail:
                    self._report_cycle(trail[trail.index(target) :])
                    done.update(trail)
                elif target not in done and self._needs.get(target):
                    trail.append(target)
                    branches.append(iter(self._needs[target].values()))

    def _report_cycle(self, names: list[str]) -> None:
        notes = []
        steps = []
        for name, following in zip(names, [*names[1:], names[0]], strict=True):
            kind, need = next(
                (kind, need)
                for kind, need in self._needs[name].items()
                if self._relations.target(need.store) == following
            )
            inherits = "" if need.named_by == name else f", which it inherits from {need.named_by!r}"
            path = ("stores", need.named_by, "middleware", kind)
            notes.append(self._report.note(f"{name!r} needs {need.store!r} for its {kind}{inherits}", path))
            steps.append((name, kind, need))
        self._circular.update(names, (need.named_by for _, _, need in steps))
        _, kind, need = steps[0]
        if len(names) == 1:
            text = f"{names[0]!r} would need itself for its {kind}"
        else:
            kinds = " and ".join(dict.fromkeys(kind for _, kind, _ in steps))
            text = f"circular {kinds}: {' -> '.join([*names, names[0]])}"
        heirs = [name for name, _, need in steps if need.named_by != name]
        hint = f"switch it off there: {listed(heirs)}: {{middleware: {{{kind}: false}}}}" if heirs else None
        self._report.add("SC602", text, ("stores", need.named_by, "middleware", kind), notes=notes, hint=hint)

    # ------------------------------------------------------------------ keys in the other store

    def _check_places(self) -> None:
        """The keys that a chain keeps or looks for in another store are there under the same namespace path."""
        relations = self._relations
        own: dict[_Place, str] = {}
        for name, spec in relations.stores.items():
            place = relations.place(name)
            if place is not None and not isinstance(spec, AliasSpec):
                own.setdefault(place, name)
        taken: dict[_Place, tuple[str, str]] = {}
        for kind in _REPEATING:
            for name, needs in self._needs.items():
                need, place = needs.get(kind), relations.place(name)
                if need is None or place is None:
                    continue
                target = relations.target(need.store)
                path = ("stores", need.named_by, "middleware", kind)
                there = relations.place(target)
                if need.named_by == name and kind in _MOVING:
                    roots = {root: self._backend(root) for root in (place[0], there and there[0]) if root}
                    self._check_capable(kind, {repr(root): backend for root, backend in roots.items()}, path)
                    self._check_bytes(kind, there, path)
                rest = self._names_there(kind, place, need)
                if rest:
                    relations.check_divisible(target, (*path, "store"))
                if there is None:
                    continue
                there = (there[0], (*there[1], *rest))
                if (
                    kind in _MOVING
                    and need.named_by == name
                    and name not in self._circular
                    and not self._check_apart(repr(name), kind, place, there, path)
                ):
                    continue
                first, other = taken.setdefault(there, (kind, name))
                if (first, other) != (kind, name):
                    # The keys that a fallback takes over have nothing to do with those that are moved from there.
                    if {first, kind} != {"fallback", "moved_from"}:
                        self._report_shared(name, kind, f"{other!r} {_USES[first]} there too", other, path)
                elif kind == "fallback" and place[1] and own.get(there, name) != name:
                    self._report_shared(name, kind, f"{own[there]!r} keeps its keys there", own[there], path)

    def _names_there(self, kind: str, place: _Place, need: _Need) -> tuple[str, ...]:
        """The names below the other store in which the keys of a place are."""
        if kind == "mirror":
            return self._below_root(place)
        if kind == "moved_from":
            named_by = self._relations.place(need.named_by)
            return place[1][len(named_by[1]) :] if named_by else ()
        return place[1]

    def _below_root(self, place: _Place) -> tuple[str, ...]:
        root = self._relations.place(place[0])
        return place[1][len(root[1]) :] if root else ()

    def _backend(self, root: str) -> Backend | None:
        spec = self._relations.stores.get(root)
        return spec.backend if isinstance(spec, RootSpec) else None

    def _check_apart(self, shown: str, kind: str, place: _Place, there: _Place, path: TreePath) -> bool:
        """Whether a store and the one that it calls have no keys in common; report it if they have."""
        length = min(len(place[1]), len(there[1]))
        if place[0] != there[0] or place[1][:length] != there[1][:length]:
            return True
        text = f"{shown} would {_WOULD[kind]} keys of its own"
        hint = "name a store in another place; one namespace must not be inside the other"
        self._report.add("SC608", text, path, hint=hint, lacking=True)
        return False

    def _check_capable(self, kind: str, backends: Mapping[str, Backend | None], path: TreePath) -> None:
        """Report a backend that does not offer the operations that `moved_from` is made of."""
        if kind != "moved_from":
            return
        for shown, backend in backends.items():
            if backend is None:
                continue
            missing = sorted({"add", "compare_and_set"} - backend.capabilities.atomic)
            if missing:
                text = f"moved_from needs atomic {' and '.join(missing)}, which {shown} ({backend.type}) does not offer"
                hint = "copy the data with storeconf copy while nobody uses the stores"
                self._report.add("SC609", text, path, hint=hint, key=True)
            elif not backend.capabilities.lists:
                text = f"{shown} ({backend.type}) can't list its keys, so storeconf move can't carry over the rest"
                self._report.add("SC801", text, path, severity="warning", key=True)

    def _check_bytes(self, kind: str, there: _Place | None, path: TreePath) -> None:
        """Report another store that keeps objects."""
        backend = None if there is None else self._backend(there[0])
        if there is None or backend is None:
            return
        try:
            objects = backend.keeps_objects()
        except Exception:  # noqa: BLE001  # which is reported where that store is checked, if it matters there
            return
        if objects:
            text = f"{kind} works on bytes, and {there[0]!r} keeps objects"
            note = self._report.note(f"{there[0]!r} keeps objects", ("stores", there[0], "objects"))
            self._report.add("SC607", text, path, key=True, notes=[note], hint=f"let {there[0]!r} keep bytes")

    def _report_shared(self, name: str, kind: str, why: str, other: str, path: TreePath) -> None:
        note = self._report.note(f"{other!r} is declared here", ("stores", other), key=True)
        text = f"{name!r} would share its {_SHARED[kind]} keys: {why}"
        hint = f"give {name!r} another store to {_TO[kind]}"
        self._report.add("SC606", text, path, notes=[note], hint=hint, lacking=True)
