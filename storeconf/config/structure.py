"""What only all stores together can get wrong: unknown names, circles, and stores that would share their keys."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from storeconf.config.fields import fields_of
from storeconf.config.models import AliasSpec, ChildSpec, RootSpec
from storeconf.config.problems import listed
from storeconf.config.tree import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from storeconf.config.models import Links, StoreSpec
    from storeconf.config.problems import Problems
    from storeconf.config.tree import TreePath
    from storeconf.config.validate import Validated
    from storeconf.plugin import Backend, Middleware

__all__ = ["check_structure"]

FACTORY: Final[TreePath] = ("default_factory",)
_MOST_NAMES: Final = 10


def check_structure(validated: Validated, declared: Collection[str], problems: Problems) -> None:
    """Check the references between stores and where their keys lie. ``declared`` holds also the stores in error."""
    _Structure(validated, declared, problems).check()


class _Structure:
    def __init__(self, validated: Validated, declared: Collection[str], problems: Problems) -> None:
        self._validated = validated
        self._stores: Mapping[str, StoreSpec] = validated.stores
        self._declared = declared
        self._problems = problems
        self._circular: set[str] = set()

    def check(self) -> None:
        for name, spec in self._stores.items():
            if isinstance(spec, ChildSpec):
                self._known(spec.parent, ("stores", name, "parent"))
            elif isinstance(spec, AliasSpec):
                self._known(spec.use, ("stores", name, "use"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._known(factory.parent, (*FACTORY, "parent"))
        if factory is not None and factory.use is not None:
            self._known(factory.use, (*FACTORY, "use"))
        self._circles()
        self._namespaces()
        self._locations()
        self._links()

    def _known(self, name: str, path: TreePath) -> None:
        if name in self._declared:
            return
        near = nearest(name, self._declared)
        if near is None:
            names = list(self._declared)
            shown = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
            self._problems.add("SC601", f"there is no store {name!r}", path, hint=f"declared are: {shown}")
        else:
            note = self._problems.note(f"{near!r} is declared here", ("stores", near), key=True)
            self._problems.add(
                "SC601", f"there is no store {name!r}", path, hint=f"did you mean {near!r}?", notes=[note]
            )

    # ------------------------------------------------------------------ circles

    def _circles(self) -> None:
        """Every store leads to at most one other, so each walk ends at a root, at a known end, or in a circle."""
        done: set[str] = set()
        for start in self._stores:
            trail: dict[str, None] = {}
            name: str | None = start
            while name is not None and name not in done and name not in trail:
                trail[name] = None
                name = _leads_to(self._stores.get(name))
            if name is not None and name in trail:
                steps = list(trail)
                self._circle(steps[steps.index(name) :])
            if name is not None and (name in trail or name in self._circular):
                self._circular.update(trail)
            done.update(trail)

    def _circle(self, names: list[str]) -> None:
        notes = []
        for name in names:
            field = "use" if isinstance(self._stores[name], AliasSpec) else "parent"
            verb = "uses" if field == "use" else "has parent"
            leads_to = _leads_to(self._stores[name])
            notes.append(self._problems.note(f"{name!r} {verb} {leads_to!r}", ("stores", name, field)))
        first = names[0]
        field = "use" if isinstance(self._stores[first], AliasSpec) else "parent"
        text = f"stores lead in a circle: {' -> '.join([*names, first])}"
        self._problems.add("SC602", text, ("stores", first, field), notes=notes, hint="one of them must be a root")

    # ------------------------------------------------------------------ shared keys

    def _target(self, name: str) -> str:
        """The store that a name stands for, through aliases."""
        spec = self._stores.get(name)
        while isinstance(spec, AliasSpec) and name not in self._circular:
            name = spec.use
            spec = self._stores.get(name)
        return name

    def _namespaces(self) -> None:
        taken: dict[tuple[str, str], str] = {}
        for name, spec in self._stores.items():
            if not isinstance(spec, ChildSpec):
                continue
            target = self._target(spec.parent)
            first = taken.setdefault((target, spec.namespace), name)
            if first is not name:
                text = f"{first!r} and {name!r} are the same namespace {spec.namespace!r} of {target!r}"
                self._problems.add(
                    "SC603", f"{text}, so they would share their keys", ("stores", name, "namespace"), key=True,
                    notes=[self._problems.note(f"{first!r} is declared here", ("stores", first), key=True)],
                    hint=f"if they should, write {name}: {{use: {first}}}; if not, give one of them another namespace",
                )  # fmt: skip
            self._may_have_namespaces(target, ("stores", name, "parent"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._may_have_namespaces(self._target(factory.parent), (*FACTORY, "parent"))

    def _may_have_namespaces(self, name: str, path: TreePath) -> None:
        root = self._stores.get(name)
        if isinstance(root, RootSpec) and _keeps_raw_keys(root.backend):
            note = self._problems.note(f"{name!r} is declared here", ("stores", name), key=True)
            self._problems.add(
                "SC605", f"{name!r} has no namespace of its own, so it can't have namespaces below it", path,
                notes=[note], hint=f"give {name!r} a namespace",
            )  # fmt: skip

    def _locations(self) -> None:
        """Sorted, everything that lies in a place follows that place."""
        places: list[tuple[tuple[str, ...], int, TreePath, str]] = []
        for name, spec in self._stores.items():
            if isinstance(spec, RootSpec) and name not in self._validated.vague:
                self._locate(places, spec.backend, ("stores", name), repr(name))
        factory = self._validated.default_factory
        if factory is not None and factory.backend is not None:
            self._locate(places, factory.backend, FACTORY, "default_factory")
        places.sort()
        outer = None
        for place in places:
            if outer is None or place[0][: len(outer[0])] != outer[0]:
                outer = place
                continue
            first, second = (outer, place) if outer[1] < place[1] else (place, outer)
            inside = "keep their keys in the same place" if outer[0] == place[0] else "would share keys"
            if outer[0] != place[0]:
                inside = f"would share keys: {place[3]} lies in {outer[3]}"
            use = f", write {second[2][-1]}: {{use: {first[2][-1]}}}" if FACTORY not in (first[2], second[2]) else ""
            self._problems.add(
                "SC604", f"{first[3]} and {second[3]} {inside}", second[2], key=True,
                notes=[self._problems.note(f"{first[3]} is declared here", first[2], key=True)],
                hint=f"if they should be one store{use}; if not, give one of them another place or namespace",
            )  # fmt: skip

    def _locate(
        self, places: list[tuple[tuple[str, ...], int, TreePath, str]], backend: Backend, path: TreePath, shown: str
    ) -> None:
        try:
            location, warnings = backend.location(), backend.warnings()
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way; reading must not
            text = f"{type(backend).__name__} could not tell where it keeps its keys: {type(error).__name__}: {error}"
            self._problems.add("SC708", text, path, key=True, hint="tell the plugin's author")
            return
        if location is not None:
            places.append((tuple(map(str, location)), len(places), path, shown))
        for field, message in warnings:
            self._problems.add("SC801", message, (*path, *field.split(".")), severity="warning")

    # ------------------------------------------------------------------ middleware that needs other stores

    def _links(self) -> None:
        named: dict[str, dict[str, str]] = {}
        for name, spec in self._stores.items():
            if not isinstance(spec, AliasSpec) and spec.middleware:
                found = self._named(spec.middleware, ("stores", name, "middleware"))
                if found:
                    named[name] = found
        factory = self._validated.default_factory
        if factory is not None and factory.middleware:
            self._named(factory.middleware, (*FACTORY, "middleware"))
        if named:
            self._fallback_circles(named)

    def _named(self, links: Links, path: TreePath) -> dict[str, str]:
        """The stores that a chain names, by kind; unknown ones are reported and left out."""
        found = {}
        for kind, link in links.items():
            for field in _store_fields(type(link)) if link else ():
                name = getattr(link, field)
                if isinstance(name, str):
                    self._known(name, (*path, kind, field))
                    if name in self._stores:
                        found[kind] = name
        return found

    def _fallback_circles(self, named: Mapping[str, Mapping[str, str]]) -> None:
        """No store may need itself through its own or an inherited chain."""
        needs: dict[str, dict[str, tuple[str, str]]] = {}
        for name, spec in self._stores.items():
            self._needs(name, named, needs)
            fallback = needs.get(name, {}).get("fallback")
            # There it uses namespaces of the same names.
            if fallback is not None and (
                isinstance(spec, ChildSpec) or (isinstance(spec, RootSpec) and spec.backend.namespace)
            ):
                self._may_have_namespaces(
                    self._target(fallback[0]), ("stores", fallback[1], "middleware", "fallback", "store")
                )
        done: set[str] = set()
        for start in needs:
            trail = [start]
            branches = [iter(needs[start].values())]
            while branches and start not in done:
                step = next(branches[-1], None)
                if step is None:
                    branches.pop()
                    done.add(trail.pop())
                    continue
                target = self._target(step[0])
                if target in trail:
                    self._needs_itself([*trail[trail.index(target) :]], needs)
                    done.update(trail)
                    break
                if target not in done and needs.get(target):
                    trail.append(target)
                    branches.append(iter(needs[target].values()))

    def _needs(
        self, name: str, named: Mapping[str, Mapping[str, str]], needs: dict[str, dict[str, tuple[str, str]]]
    ) -> None:
        """Work out, from the root down, what each store on the way to ``name`` needs: kind to (store, who says so)."""
        line: list[str] = []
        here: str | None = name
        while here is not None and here not in needs and here not in self._circular:
            line.append(here)
            here = _leads_to(self._stores.get(here))
        for each in reversed(line):
            spec = self._stores.get(each)
            inherited = needs.get(_leads_to(spec) or "", {})
            if spec is None or isinstance(spec, AliasSpec):
                needs[each] = inherited if isinstance(spec, AliasSpec) else {}
                continue
            own = named.get(each, {})
            needs[each] = {kind: need for kind, need in inherited.items() if kind not in spec.middleware}
            needs[each].update({kind: (target, each) for kind, target in own.items()})

    def _needs_itself(self, names: list[str], needs: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        notes = []
        for name, following in zip(names, [*names[1:], names[0]], strict=True):
            kind, (target, says) = next(
                (kind, need) for kind, need in needs[name].items() if self._target(need[0]) == following
            )
            path = ("stores", says, "middleware", kind)
            inherits = "" if says == name else f", which it inherits from {says!r}"
            notes.append(self._problems.note(f"{name!r} needs {target!r} for its {kind}{inherits}", path))
        kind, (_, says) = next(iter(needs[names[0]].items()))
        text = (
            f"{names[0]!r} would need itself for its {kind}"
            if len(names) == 1
            else f"stores need one another in a circle: {' -> '.join([*names, names[0]])}"
        )
        inheriting = [name for name in names if all(need[1] != name for need in needs[name].values())]
        hint = f"switch it off there: {listed(inheriting)}: {{middleware: {{{kind}: false}}}}" if inheriting else None
        self._problems.add("SC602", text, ("stores", says, "middleware", kind), notes=notes, hint=hint)


def _leads_to(spec: StoreSpec | None) -> str | None:
    if isinstance(spec, ChildSpec):
        return spec.parent
    return spec.use if isinstance(spec, AliasSpec) else None


def _keeps_raw_keys(backend: Backend) -> bool:
    """Whether a root without namespace has nothing that could separate its namespaces' keys from its own."""
    return backend.namespace == "" and type(backend).model_fields["namespace"].is_required()


@cache
def _store_fields(model: type[Middleware]) -> tuple[str, ...]:
    fields = fields_of(model)
    return tuple(name for name, expect in fields.expects.items() if expect.store)
