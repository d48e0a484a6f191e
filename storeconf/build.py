"""Building: the steps of a plan become stores. Nothing is opened here; that is the registry's part."""

from __future__ import annotations

import difflib
import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from storeconf.errors import PluginError, StoreconfError, UnknownStoreError
from storeconf.plan import HIDDEN_ROOT
from storeconf.plugin import BuildContext
from storeconf.store import Store, check_name
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from storeconf.catalog import Part
    from storeconf.plan import Chain, FactoryStep, Plan, Step
    from storeconf.plugin import Backend, ValueSource

__all__ = ["Builder", "StoreFactory", "unknown_store"]

_logger = logging.getLogger("storeconf")
_MOST_NAMES = 10
_NO_SOURCES: Mapping[str, ValueSource] = MappingProxyType({})


class NamespaceTakenError(UnknownStoreError, ValueError):
    """The name would give a second way into the namespace of a listed store."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known names, else some of them."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return "no store is listed"
    return f"listed are: {', '.join(known[:_MOST_NAMES])}{', …' if len(known) > _MOST_NAMES else ''}"


def unknown_store(name: str, names: Iterable[str]) -> UnknownStoreError:
    """The error for a name that no store has."""
    return UnknownStoreError(f"unknown store {name!r}; {nearest(name, names)}")


class StoreFactory(Protocol):
    """Makes the stores of unlisted names. The registry calls it from one thread at a time."""

    root: Store | None
    """The root that its stores live on, once there is one."""

    declared: bool
    """Whether the layout has a default factory; without one, each name gets private memory."""

    def get(self, name: str) -> Store:
        """Return the store of that name, the same one as long as anyone holds it, or raise."""
        ...

    def holds(self, name: str) -> bool:
        """Whether somebody may be using a store of that name."""
        ...


class Builder:
    """Makes the stores of one plan, each once, and those that a chain calls before it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._steps = {step.name: step for step in plan.steps}
        self._bare: dict[str, Store] = {}
        self._stores: dict[str, Store] = {}
        self._making: list[str] = []
        self.called: set[str] = set()
        """The roots whose stores some chain calls."""

    def stores(self) -> dict[str, Store]:
        """All stores, by the names of the layout in its order."""
        for step in self._plan.steps:
            if step.name not in self._stores:
                self.store(step.name)
        return {name: self._stores[name] for name in self._plan.names}

    def roots(self) -> list[tuple[str, Store]]:
        """The roots with their names, in the order of opening."""
        return [(step.name, self._bare[step.name].root) for step in self._plan.steps if step.kind == "root"]

    def store(self, name: str) -> Store:
        """The store of a step, with the chain around it."""
        made = self._stores.get(name)
        if made is not None:
            return made
        step = self._steps[name]
        made = self.store(step.use) if step.use is not None else self.wrap(self.bare(step), step.chain, name)
        self._stores[name] = made
        return made

    def bare(self, step: Step) -> Store:
        """The store of a step without its chain: what the stores below it are namespaces of."""
        made = self._bare.get(step.name)
        if made is None:
            if step.parent is None:
                made = self.root(step.name, step.backend, step.sources)
            else:
                made = self.bare(self._steps[step.parent]).with_namespace(step.path[-1])
                made.name = step.name
            self._bare[step.name] = made
        return made

    def root(self, name: str, backend: Backend, sources: Mapping[str, ValueSource]) -> Store:
        """The store that a backend builds, in the backend's namespace."""
        made = _checked("backend", backend.type, name, backend.build, self._context(name, sources=sources))
        made.root.name = name
        if backend.namespace and not made.namespaces:
            made = made.with_namespace(backend.namespace)
        made.name = name
        return made

    def wrap(self, store: Store, chain: Chain, name: str) -> Store:
        """The store with a chain around it, made from the backend outwards."""
        if not chain:
            return store
        if name in self._making:
            circle = " -> ".join([*self._making[self._making.index(name) :], name])
            raise PluginError(f"circular references between chains of stores: {circle}", code="SC602")
        self._making.append(name)
        try:
            context = self._context(name, chain)
            for kind, link in reversed(chain):
                inner, root = store, store.root
                store = _checked("middleware", kind, name, link.wrap, inner, context)
                if store.root is not root:
                    raise PluginError(
                        f"the middleware {kind!r} gave store {name!r} another root than that of the store inside",
                        code="SC703",
                        hint="a store around another one is a storeconf.StoreWrapper",
                    )
        finally:
            self._making.remove(name)
        return store

    def factory(self, memory: Callable[[], Store] = MemoryStore) -> StoreFactory:
        """What the default factory does; where the layout has none, ``memory`` makes the root of unlisted names."""
        step = self._plan.default_factory
        if step is None:
            return _Unlisted(self._plan.names, memory)
        self.called.update(self._steps[name].root for name in step.needs)
        if step.use is not None:
            return _OneForAll(self.store(step.use))
        if step.kind == "forbid":
            return _Forbidden(self._plan.names)
        return _NamespacePerName(self, step)

    def under(self, step: FactoryStep) -> Store:
        """The store whose namespaces a default factory hands out."""
        if step.parent is not None:
            return self.bare(self._steps[step.parent])
        assert step.backend is not None
        return self.root(HIDDEN_ROOT, step.backend, step.sources)

    def _context(self, name: str, chain: Chain = (), sources: Mapping[str, ValueSource] = _NO_SOURCES) -> BuildContext:
        return BuildContext(name, self._plan.environment, self._call, _logger, dict(chain), sources)

    def _call(self, name: str) -> Store:
        step = self._steps.get(name)
        if step is None:
            raise unknown_store(name, self._plan.names)
        self.called.add(step.root)
        return self.store(name)


def _checked(part: Part, kind: str, name: str, build: Callable[..., object], *given: object) -> Store:
    """The store that a backend's or middleware's own code makes for that name; PluginError if it makes none."""
    try:
        made = build(*given)
    except StoreconfError:
        raise
    except Exception as error:
        text = f"the {part} {kind!r} could not make store {name!r}: {type(error).__name__}"
        raise PluginError(text, code="SC708") from error
    if not isinstance(made, Store):
        text = f"the {part} {kind!r} made no store for {name!r} but a {type(made).__name__}"
        raise PluginError(text, code="SC703")
    return made


class _Handles:
    """The stores of a factory: the most recently used ones, and all that somebody holds."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._recent: dict[str, Store] = {}
        self._alive: WeakValueDictionary[str, Store] = WeakValueDictionary()

    def get(self, name: str) -> Store | None:
        if self._most is None:
            return self._recent.get(name)
        store = self._alive.get(name)
        if store is not None:
            self.keep(name, store)
        return store

    def keep(self, name: str, store: Store) -> None:
        self._recent.pop(name, None)
        self._recent[name] = store
        if self._most is not None:
            self._alive[name] = store
            if len(self._recent) > self._most:
                del self._recent[next(iter(self._recent))]

    def __contains__(self, name: str) -> bool:
        return name in self._recent or name in self._alive


class _NamespacePerName:
    """Each name is a namespace of one store, with a chain of its own."""

    declared = True

    def __init__(self, builder: Builder, step: FactoryStep) -> None:
        self._builder = builder
        self._step = step
        self._parent = builder.under(step)
        self._handles = _Handles(step.max_stores)
        self.root: Store | None = self._parent.root

    def get(self, name: str) -> Store:
        made = self._handles.get(name)
        if made is None:
            made = self._make(name)
            self._handles.keep(name, made)
        return made

    def holds(self, name: str) -> bool:
        return name in self._handles

    def _make(self, name: str) -> Store:
        made = self._parent.with_namespace(name)
        listed = self._step.taken.get(name)
        if listed is not None:
            where = "/".join(made.namespaces)
            raise NamespaceTakenError(f"unknown store {name!r}, and its namespace {where} is that of store {listed!r}")
        made.name = name
        return self._builder.wrap(made, self._step.chain, name)


class _OneForAll:
    """Each name is the same store."""

    declared = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self.root: Store | None = store.root

    def get(self, name: str) -> Store:
        check_name(name)
        return self._store

    def holds(self, name: str) -> bool:
        return False


class _Forbidden:
    """No name has a store but those that are listed."""

    declared = True
    root: Store | None = None

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    def get(self, name: str) -> Store:
        raise unknown_store(name, self._names)

    def holds(self, name: str) -> bool:
        return False


class _Unlisted:
    """Where the layout has no default factory: each name is a namespace in memory, and is warned about."""

    declared = False

    def __init__(self, names: Iterable[str], memory: Callable[[], Store]) -> None:
        self._names = names
        self._memory = memory
        self._made: dict[str, Store] = {}
        self.root: Store | None = None

    def get(self, name: str) -> Store:
        made = self._made.get(name)
        if made is None:
            check_name(name)
            if self.root is None:
                self.root = self._memory()
            made = self._made[name] = self.root.with_namespace(name)
            made.name = name
            _logger.warning("store %r is not in the layout and is kept in memory; %s", name, nearest(name, self._names))
        return made

    def holds(self, name: str) -> bool:
        return name in self._made
