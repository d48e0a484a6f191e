"""Middleware that calls other stores: they must exist, must not need the caller in turn, and share no keys unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from storeconf.config.fields import store_fields
from storeconf.config.kinship import leads_to
from storeconf.config.reporter import listed
from storeconf.config.specs import AliasSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.config.kinship import Kinship, Place
    from storeconf.config.reporter import Problems
    from storeconf.config.specs import DefaultFactorySpec, Links
    from storeconf.config.tree import TreePath

__all__ = ["check_needs"]


class _Need(NamedTuple):
    """A store that another one's chain calls, and who says so: itself, or the parent that it inherits from."""

    store: str
    said_by: str


_Needs = dict[str, _Need]
"""What one chain needs, by the kind of middleware."""


def check_needs(kinship: Kinship, factory: DefaultFactorySpec | None, problems: Problems) -> None:
    """Check every store that a chain names, also an inherited chain."""
    _Check(kinship, problems).check(factory)


class _Check:
    def __init__(self, kinship: Kinship, problems: Problems) -> None:
        self._kinship = kinship
        self._problems = problems
        self._needs: dict[str, _Needs] = {}

    def check(self, factory: DefaultFactorySpec | None) -> None:
        named: dict[str, Mapping[str, str]] = {}
        for name, spec in self._kinship.stores.items():
            if not isinstance(spec, AliasSpec) and spec.middleware:
                found = self._named(spec.middleware, ("stores", name, "middleware"))
                if found:
                    named[name] = found
        own = {}
        if factory is not None and factory.middleware:
            own = self._named(factory.middleware, ("default_factory", "middleware"))
            if "fallback" in own:
                path = ("default_factory", "middleware", "fallback", "store")
                self._kinship.check_divisible(self._kinship.target(own["fallback"]), path)
        if named:
            for name in self._kinship.stores:
                self._work_out(name, named)
            self._check_circles()
            self._check_fallbacks()

    def _named(self, links: Links, path: TreePath) -> dict[str, str]:
        """The stores that a chain names, by kind; unknown ones are reported and left out."""
        found = {}
        for kind, link in links.items():
            for field in store_fields(type(link)) if link else ():
                name = getattr(link, field)
                if isinstance(name, str):
                    self._kinship.check_known(name, (*path, kind, field))
                    if name in self._kinship.stores:
                        found[kind] = name
        return found

    def _work_out(self, name: str, named: Mapping[str, Mapping[str, str]]) -> None:
        """Fill in, from the root down, what each store on the way to ``name`` needs."""
        stores = self._kinship.stores
        line: list[str] = []
        here: str | None = name
        while here is not None and here not in self._needs and here not in self._kinship.circular:
            line.append(here)
            here = leads_to(stores.get(here))
        for each in reversed(line):
            spec = stores.get(each)
            inherited = self._needs.get(self._kinship.target(leads_to(spec) or ""), {})
            if spec is None or isinstance(spec, AliasSpec):
                self._needs[each] = {}  # an alias is its target, which is checked by its own name
                continue
            needs = {kind: need for kind, need in inherited.items() if kind not in spec.middleware}
            needs |= {kind: _Need(store, each) for kind, store in named.get(each, {}).items()}
            self._needs[each] = needs

    # ------------------------------------------------------------------ circles

    def _check_circles(self) -> None:
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
                target = self._kinship.target(need.store)
                if target in trail:
                    self._report_circle(trail[trail.index(target) :])
                    done.update(trail)
                elif target not in done and self._needs.get(target):
                    trail.append(target)
                    branches.append(iter(self._needs[target].values()))

    def _report_circle(self, names: list[str]) -> None:
        notes = []
        steps = []
        for name, following in zip(names, [*names[1:], names[0]], strict=True):
            kind, need = next(
                (kind, need)
                for kind, need in self._needs[name].items()
                if self._kinship.target(need.store) == following
            )
            inherits = "" if need.said_by == name else f", which it inherits from {need.said_by!r}"
            path = ("stores", need.said_by, "middleware", kind)
            notes.append(self._problems.note(f"{name!r} needs {need.store!r} for its {kind}{inherits}", path))
            steps.append((name, kind, need))
        _, kind, need = steps[0]
        if len(names) == 1:
            text = f"{names[0]!r} would need itself for its {kind}"
        else:
            text = f"stores need one another in a circle: {' -> '.join([*names, names[0]])}"
        heirs = [name for name, _, need in steps if need.said_by != name]
        hint = f"switch it off there: {listed(heirs)}: {{middleware: {{{kind}: false}}}}" if heirs else None
        self._problems.add("SC602", text, ("stores", need.said_by, "middleware", kind), notes=notes, hint=hint)

    # ------------------------------------------------------------------ where fallbacks keep their keys

    def _check_fallbacks(self) -> None:
        """A fallback's keys lie in a namespace of the other store that repeats the names of this one's."""
        kinship = self._kinship
        own: dict[Place, str] = {}
        for name, spec in kinship.stores.items():
            place = kinship.place(name)
            if place is not None and not isinstance(spec, AliasSpec):
                own.setdefault(place, name)
        taken: dict[Place, str] = {}
        for name, needs in self._needs.items():
            need, place = needs.get("fallback"), kinship.place(name)
            if need is None or place is None:
                continue
            target = kinship.target(need.store)
            there = kinship.place(target)
            path = ("stores", need.said_by, "middleware", "fallback")
            if place[1]:
                kinship.check_divisible(target, (*path, "store"))
            if there is None:
                continue
            there = (there[0], (*there[1], *place[1]))
            other = taken.setdefault(there, name)
            if other != name:
                self._report_shared(name, f"{other!r} falls back there too", other, path)
            elif place[1] and own.get(there, name) != name:
                self._report_shared(name, f"{own[there]!r} keeps its keys there", own[there], path)

    def _report_shared(self, name: str, why: str, other: str, path: TreePath) -> None:
        note = self._problems.note(f"{other!r} is declared here", ("stores", other), key=True)
        text = f"{name!r} would share its fallback's keys: {why}"
        self._problems.add(
            "SC606", text, path, notes=[note], hint=f"give {name!r} another store to fall back to", lacking=True
        )
