"""The plan: in which order the stores of a layout are made, each from what and with which chain around it.

Pure data: making a plan imports no driver, opens nothing, and always gives the same for the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from storeconf.catalog import BUILT_IN
from storeconf.config import AliasSpec, ChildSpec, DefaultFactorySpec, RootSpec, StoreSpec
from storeconf.config.fields import store_fields
from storeconf.config.tree import Tainted
from storeconf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from storeconf.config import Links
    from storeconf.plugin import Backend, Middleware, ValueSource
    from storeconf.store import Capabilities

__all__ = ["HIDDEN_ROOT", "Chain", "FactoryStep", "Plan", "Step"]

Chain: TypeAlias = tuple[tuple[str, "Middleware"], ...]
"""The middleware around one store, by kind, from the caller inwards."""

HIDDEN_ROOT: Final = "default_factory"
"""The name in messages of the hidden root of a default factory with a ``type``."""


@dataclass(frozen=True, slots=True)
class Step:
    """How one store is made.

    ``root`` names the root whose resource it uses, ``path`` is its namespace path there, and ``backend`` holds that
    root's settings. ``chain`` is around it, inherited links included. A namespace has a ``parent``; an alias has
    its store as ``use``, never another alias. ``needs`` names the stores that its chain calls. A
    root has the ``sources`` of its settings: how those that came from files are read again.
    """

    name: str
    kind: Literal["root", "namespace", "alias"]
    root: str
    path: tuple[str, ...]
    backend: Backend
    chain: Chain = ()
    parent: str | None = None
    use: str | None = None
    needs: tuple[str, ...] = ()
    description: str | None = None
    sources: Mapping[str, ValueSource] = field(default_factory=dict, repr=False, compare=False)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the backend; a chain may reduce them, as the store itself shows."""
        return self.backend.capabilities

    def to_dict(self) -> dict[str, Any]:
        """The step as plain data, without settings, which may hold secrets."""
        return _said(
            name=self.name,
            kind=self.kind,
            root=self.root,
            type=self.backend.type,
            path=list(map(_shown, self.path)),
            parent=self.parent,
            use=self.use,
            middleware=[kind for kind, _ in self.chain],
            needs=list(self.needs),
            description=self.description,
        )


@dataclass(frozen=True, slots=True)
class FactoryStep:
    """The store for a name without a step: a namespace of a ``parent`` or of a hidden root, one store for all, or none.

    ``taken`` has the namespaces there that belong to listed stores. The other fields are as in `Step`.
    """

    kind: Literal["namespace", "root", "use", "forbid"]
    root: str | None = None
    path: tuple[str, ...] = ()
    backend: Backend | None = None
    chain: Chain = ()
    parent: str | None = None
    use: str | None = None
    needs: tuple[str, ...] = ()
    max_stores: int | None = None
    taken: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, ValueSource] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The step as plain data, without settings, which may hold secrets."""
        return _said(
            kind=self.kind,
            root=self.root,
            type=None if self.backend is None else self.backend.type,
            path=list(map(_shown, self.path)),
            parent=self.parent,
            use=self.use,
            middleware=[kind for kind, _ in self.chain],
            needs=list(self.needs),
            max_stores=self.max_stores,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that make a layout's stores, each after everything that it needs, and the default factory's.

    ``names`` are the stores' names as declared. Roots are opened in the order of their steps and closed in reverse.
    """

    steps: tuple[Step, ...]
    names: tuple[str, ...]
    default_factory: FactoryStep | None = None
    environment: str | None = None

    @classmethod
    def of(
        cls,
        stores: Mapping[str, StoreSpec],
        default_factory: DefaultFactorySpec | None = None,
        environment: str | None = None,
    ) -> Plan:
        """Make the plan of a valid layout: its references exist and are not circular.

        Raises PluginError when kinds of middleware have a conflicting order.
        """
        drafts = _draft(stores)
        factory = None if default_factory is None else _factory(default_factory, drafts)
        return cls(tuple(_in_order(stores, drafts, factory)), tuple(stores), factory, environment)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
        return {
            "environment": self.environment,
            "steps": [step.to_dict() for step in self.steps],
            "default_factory": None if self.default_factory is None else self.default_factory.to_dict(),
        }

    def __str__(self) -> str:
        rows: list[tuple[str, str, str, Chain]] = [
            (step.kind, step.name, _what(step), step.chain) for step in self.steps
        ]
        factory = self.default_factory
        rows.append(("default", "*", _what(factory), factory.chain) if factory else ("default", "*", "memory: *", ()))
        widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
        lines = [f"environment: {self.environment or 'none'}"]
        for number, (kind, name, what, chain) in enumerate(rows, 1):
            links = " | ".join(kind for kind, _ in chain)
            line = (
                f"{number:>{len(str(len(rows)))}}  {kind:{widths[0]}}  {name:{widths[1]}}  {what:{widths[2]}}  {links}"
            )
            lines.append(line.rstrip())
        return "\n".join(lines)


# ---------------------------------------------------------------------- steps


def _draft(stores: Mapping[str, StoreSpec]) -> dict[str, Step]:
    """The steps by name, each made after the one that it builds on."""
    drafts: dict[str, Step] = {}
    for declared in stores:
        line = []
        name: str | None = declared
        while name is not None and name not in drafts:
            line.append(name)
            name = _builds_on(stores[name])
        for each in reversed(line):
            spec = stores[each]
            if isinstance(spec, RootSpec):
                drafts[each] = _root(spec)
            elif isinstance(spec, ChildSpec):
                drafts[each] = _namespace(spec, drafts[spec.parent])
            else:
                drafts[each] = _alias(spec, drafts[spec.use])
    return drafts


def _builds_on(spec: StoreSpec) -> str | None:
    if isinstance(spec, ChildSpec):
        return spec.parent
    return spec.use if isinstance(spec, AliasSpec) else None


def _root(spec: RootSpec) -> Step:
    chain = _chain(spec.middleware)
    return Step(
        spec.name, "root", spec.name, _path(spec.backend), spec.backend, chain,
        needs=_needs(chain), description=spec.description, sources=spec.sources,
    )  # fmt: skip


def _namespace(spec: ChildSpec, parent: Step) -> Step:
    chain, needs = parent.chain, parent.needs
    if spec.middleware:
        chain = _chain({**dict(chain), **spec.middleware})
        needs = _needs(chain)
    return Step(
        spec.name, "namespace", parent.root, (*parent.path, spec.namespace), parent.backend, chain,
        parent=parent.use or parent.name, needs=needs, description=spec.description,
    )  # fmt: skip


def _alias(spec: AliasSpec, target: Step) -> Step:
    return Step(
        spec.name, "alias", target.root, target.path, target.backend, target.chain,
        use=target.use or target.name, needs=target.needs, description=spec.description,
    )  # fmt: skip


def _path(backend: Backend) -> tuple[str, ...]:
    return (backend.namespace,) if backend.namespace else ()


def _factory(spec: DefaultFactorySpec, drafts: Mapping[str, Step]) -> FactoryStep:
    if spec.use is not None:
        target = drafts[spec.use]
        return FactoryStep(
            "use", target.root, target.path, target.backend, target.chain,
            use=target.use or target.name, needs=target.needs,
        )  # fmt: skip
    if spec.parent is not None:
        parent = drafts[spec.parent]
        chain = _chain({**dict(parent.chain), **spec.middleware})
        taken = {
            step.path[-1]: step.name
            for step in drafts.values()
            if step.kind == "namespace" and step.root == parent.root and step.path[:-1] == parent.path
        }
        return FactoryStep(
            "namespace", parent.root, parent.path, parent.backend, chain,
            parent=parent.use or parent.name, needs=_needs(chain), max_stores=spec.max_stores, taken=taken,
        )  # fmt: skip
    if spec.backend is not None:
        chain = _chain(spec.middleware)
        return FactoryStep(
            "root", HIDDEN_ROOT, _path(spec.backend), spec.backend, chain,
            needs=_needs(chain), max_stores=spec.max_stores, sources=spec.sources,
        )  # fmt: skip
    return FactoryStep("forbid")


# ---------------------------------------------------------------------- order


def _in_order(names: Iterable[str], drafts: Mapping[str, Step], factory: FactoryStep | None) -> Iterable[Step]:
    """Roots, then namespaces, then aliases, each kind as declared, but a step after those that it needs."""
    parts: dict[str, list[str]] = {"root": [], "namespace": [], "alias": []}
    for name in names:
        parts[drafts[name].kind].append(name)

    def after(name: str) -> Iterable[str]:
        step = drafts[name]
        return filter(None, (step.parent, step.use, *step.needs))

    roots = _root_order(parts["root"], drafts, factory)
    return (drafts[name] for name in _sorted([*roots, *parts["namespace"], *parts["alias"]], after))


def _root_order(roots: Iterable[str], drafts: Mapping[str, Step], factory: FactoryStep | None) -> list[str]:
    """A root comes after those whose stores its own stores call, so that it is closed before them."""
    calls: dict[str, list[str]] = {name: [] for name in roots}
    for step in (*drafts.values(), *((factory,) if factory else ())):
        if step.needs and step.root in calls:
            calls[step.root].extend(drafts[name].root for name in step.needs)
    return _sorted(calls, calls.__getitem__)


def _sorted(names: Iterable[str], after: Callable[[str], Iterable[str]]) -> list[str]:
    """The names in their order, but each after those that it comes ``after``; a cycle is entered at its first name."""
    order: list[str] = []
    met: set[str] = set()
    for start in names:
        if start in met:
            continue
        met.add(start)
        if met.issuperset(after(start)):
            order.append(start)
            continue
        waiting = [(start, iter(after(start)))]
        while waiting:
            name, rest = waiting[-1]
            first = next((each for each in rest if each not in met), None)
            if first is None:
                order.append(name)
                waiting.pop()
            else:
                met.add(first)
                waiting.append((first, iter(after(first))))
    return order


# ---------------------------------------------------------------------- chains

_PLACES: Final[Mapping[str, int]] = {kind: place for place, kind in enumerate(BUILT_IN["middleware"])}


def _chain(links: Links) -> Chain:
    """The links that are switched on, from the caller inwards."""
    chain = [(kind, link) for kind, link in links.items() if link is not False]
    if len(chain) > 1:
        places = _PLACES
        if not links.keys() <= _PLACES.keys():
            places = _places(frozenset((kind, type(link)) for kind, link in chain if kind not in _PLACES))
        chain.sort(key=lambda each: places[each[0]])
    return tuple(chain)


@lru_cache(maxsize=256)
def _places(foreign: frozenset[tuple[str, type[Middleware]]]) -> Mapping[str, int]:
    """The positions of the built-in kinds with these among them.

    A kind is right behind those that it comes ``after``, else right in front of those that it comes ``before``, else
    next to the caller.
    """
    kinds = dict(sorted(foreign, key=lambda each: each[0]))
    behind: dict[str, set[str]] = {kind: set() for kind in (*_PLACES, *kinds)}
    for outer, inner in pairwise(_PLACES):
        behind[inner].add(outer)
    for kind, link in kinds.items():
        behind[kind].update(each for each in link.after if each in behind)
        for each in link.before:
            if each in behind:
                behind[each].add(kind)
    order: list[str] = []

    def place(kind: str, trail: tuple[str, ...] = ()) -> None:
        if kind in order:
            return
        if kind in trail:
            raise _contradiction(kinds, trail)
        for each in sorted(behind[kind]):
            place(each, (*trail, kind))
        order.append(kind)

    early = [kind for kind, link in kinds.items() if link.after or not link.before]
    for kind in (*(each for each in early if not behind[each]), *_PLACES, *kinds):
        place(kind)
        while ready := [each for each in early if each not in order and behind[each].issubset(order)]:
            place(ready[0])
    return {kind: number for number, kind in enumerate(order)}


def _contradiction(kinds: Mapping[str, type[Middleware]], trail: Iterable[str]) -> PluginError:
    stated = []
    for kind in trail:
        if kind in kinds:
            wishes = [f"after {each!r}" for each in kinds[kind].after] + [
                f"before {each!r}" for each in kinds[kind].before
            ]
            stated.append(f"{kind!r} must come {' and '.join(wishes)}")
    return PluginError(
        f"conflicting middleware order: {'; '.join(stated)}",
        code="SC709",
        hint=f"the order of the built-in kinds is {', '.join(_PLACES)}",
    )


def _needs(chain: Chain) -> tuple[str, ...]:
    """The stores that a chain calls, as its settings name them."""
    named = [getattr(link, name) for _, link in chain for name in store_fields(type(link))]
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str)))


# ---------------------------------------------------------------------- text


def _shown(name: str) -> str:
    """The name of a namespace; that can come from a secret file, too."""
    return name.shown if isinstance(name, Tainted) else name


def _said(**parts: Any) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if value not in (None, [])}


def _what(step: Step | FactoryStep) -> str:
    if step.kind == "forbid":
        return "an error"
    if step.use is not None:
        return f"the same as {step.use}"
    kind = "" if step.backend is None else step.backend.type
    names = list(map(_shown, step.path))
    where = " > ".join(names)
    if isinstance(step, FactoryStep):
        return f"{kind}: {' > '.join([*names, '*'])}" + (f" in {step.root}" if step.kind == "namespace" else "")
    return f"{kind}: {where} in {step.root}" if step.kind == "namespace" else kind + (f": {where}" if where else "")
