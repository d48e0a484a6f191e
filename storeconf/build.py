"""Building: the steps of a plan become stores. Nothing is opened here; that is the registry's part.

Longer than other modules, because making stores and taking over those of an earlier layout are one walk over a plan.
"""

from __future__ import annotations

import difflib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakValueDictionary

from storeconf._root import Maker, described, hides
from storeconf.errors import PluginError, StoreconfError, UnknownStoreError
from storeconf.middleware import StoreWrapper
from storeconf.plan import HIDDEN_ROOT
from storeconf.plugin import BuildContext, unchanged
from storeconf.plugin import maker as maker_name
from storeconf.store import Store, check_name, taken_name
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from storeconf.plan import Chain, FactoryStep, Plan, Step
    from storeconf.plugin import Backend, Middleware, ValueSource

__all__ = ["NO_HANDLES", "Builder", "Handles", "ReloadResult", "StoreFactory", "unknown_store"]

R = TypeVar("R")

_logger = logging.getLogger("storeconf")
_MOST_NAMES = 10
_MOST_OF_ONE = 10_000
"""Names that are remembered to lead to the one store that all of them have."""
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


class Handles:
    """The stores that a factory has returned by name: the ``most`` most recently used ones, and all that are held.

    Code that finds a store in ``recent`` without a lock calls ``used``, where there is one; it raises KeyError if
    another thread has just dropped the name. With ``one_store``, all names have the same one, which is there anyway.
    """

    def __init__(self, most: int | None = None, *, one_store: bool = False) -> None:
        self._most = most
        self._alive: WeakValueDictionary[str, Store] | None = None
        if most is not None and not one_store:
            self._alive = WeakValueDictionary()
        self.recent: dict[str, Store] = {} if most is None else OrderedDict()
        """The least recently used first, if their number is bounded."""
        self.used: Callable[[str], object] | None = getattr(self.recent, "move_to_end", None)

    def get(self, name: str) -> Store | None:
        """Return the store of that name, which counts as use."""
        store = self.recent.get(name) if self._alive is None else self._alive.get(name)
        if store is not None:
            self.keep(name, store)
        return store

    def keep(self, name: str, store: Store) -> None:
        """Keep a store that is used now; the one that was used least recently may have to go."""
        self.recent[name] = store
        if self._most is None or self.used is None:
            return
        self.used(name)
        if self._alive is not None:
            self._alive[name] = store
        if len(self.recent) > self._most:
            cast("OrderedDict[str, Store]", self.recent).popitem(last=False)  # in one step, for others use names

    def __contains__(self, name: str) -> bool:
        return name in self.recent or (self._alive is not None and name in self._alive)


NO_HANDLES: Final = Handles()
"""The handles of a registry that has no factory."""


class StoreFactory(Protocol):
    """Makes the stores of unlisted names. The registry calls it from one thread at a time."""

    root: Store | None
    """The root that its stores live on, once there is one."""

    declared: bool
    """Whether the layout has a default factory; without one, each name gets private memory."""

    handles: Handles
    """The handles that `get` has returned, for a registry that looks there before it takes its lock."""

    def get(self, name: str) -> Store:
        """Return the object for that name that the registry gives out, the same while anyone holds it, or raise."""
        ...

    def find(self, name: str) -> Store:
        """Return the store that a handle of that name leads to, or raise; where none is declared, only one that is."""
        ...

    def holds(self, name: str) -> bool:
        """Whether somebody may be using a store of that name."""
        ...

    def follow(self, before: StoreFactory) -> bool:
        """Take the place of another one, and its data where that is kept; whether its stores are still the same."""
        ...


Publish: TypeAlias = "Callable[[str, Store], Store]"
"""Returns the object that the registry gives out for a name and its store."""


def _as_it_is(name: str, store: Store) -> Store:
    return store


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """The effect of a reload on the stores of a layout, by name: in their order, the ``removed`` ones in the former.

    ``kept``: the same as before. ``changed``: the same name, but other settings, middleware, or another location.
    """

    kept: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


class Builder:
    """Makes the stores of one plan, each once, and those that a chain calls before it."""

    def __init__(self, plan: Plan, before: Builder | None = None, redact: Callable[[str], str] = str) -> None:
        self.plan = plan
        self._redact = redact
        self._steps = {step.name: step for step in plan.steps}
        self._bare: dict[str, Store] = {}
        self._stores: dict[str, Store] = {}
        self._making: list[str] = []
        self.called: set[str] = set()
        """The roots whose stores some chain calls."""
        self._roots: dict[str, _Root] = {}
        self._before = before
        self.adjustments: dict[str, Callable[[], None]] = {}
        """For roots that were taken over and that get other settings: the functions that apply these."""

    def forget_before(self) -> None:
        """Let go of the stores that this plan has replaced."""
        self._before = None

    def stores(self) -> dict[str, Store]:
        """All stores, by the names of the layout in its order."""
        for step in self.plan.steps:
            if step.name not in self._stores:
                self.store(step.name)
        return {name: self._stores[name] for name in self.plan.names}

    def roots(self) -> list[tuple[str, Store]]:
        """The roots with their names, in the order of opening."""
        return [(step.name, self._bare[step.name].root) for step in self.plan.steps if step.kind == "root"]

    def store(self, name: str) -> Store:
        """The store of a step, with the chain around it."""
        made = self._stores.get(name)
        if made is not None:
            return made
        step = self._steps[name]
        if step.use is not None:
            made = self.store(step.use)
        else:
            bare = self.bare(step)
            made = self._as_before(step) or self.wrap(bare, step.chain, name)
        self._stores[name] = made
        return made

    def _as_before(self, step: Step) -> Store | None:
        """The same store in the plan before, if nothing of it has changed but perhaps settings of its root.

        So the state that its middleware keeps, such as near caches and breakers, outlives the change.
        """
        before = self._before
        if before is None or step.name in self._making:
            return None
        old = before._steps.get(step.name)  # noqa: SLF001  # of this class
        if old is None or (old.kind, old.path, old.chain, old.needs) != (step.kind, step.path, step.chain, step.needs):
            return None
        made = before._stores.get(step.name)  # noqa: SLF001  # as above
        if made is None or made.root is not self.bare(step).root or not self.needs_as_before(step.name, step.needs):
            return None
        self.called.update(self._steps[each].root for each in step.needs)
        return made

    def needs_as_before(self, name: str, needs: Iterable[str]) -> bool:
        """Whether the stores that a chain calls are those of the plan before."""
        before = self._before
        self._making.append(name)
        try:
            return before is not None and all(
                each not in self._making and before._stores.get(each) is self.store(each)  # noqa: SLF001  # of this class
                for each in needs
            )
        finally:
            self._making.pop()

    def bare(self, step: Step) -> Store:
        """The store of a step without its chain; the stores below it are namespaces of this one."""
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
        """The store that a backend builds, in the backend's namespace; that of the plan before, if it will do."""
        context = self._context(name, sources=sources)
        made = self._root_before(name, backend, context)
        if made is None:
            made = self._new_root(name, backend, context)
        self._roots[name] = _Root(made, backend, context)
        return made

    def _root_before(self, name: str, backend: Backend, context: BuildContext) -> Store | None:
        old = None if self._before is None else self._before._roots.get(name)  # noqa: SLF001  # of this class
        if old is None or type(old.backend) is not type(backend) or old.backend.namespace != backend.namespace:
            return None
        maker, root = Maker(partial(maker_name, type(backend)), self._redact), old.store.root
        adjust = _own_code(maker, f"adjust {name!r}", backend.adopt, root, context, old.backend, old.context)
        if adjust is None:
            return None
        if adjust is not unchanged:
            self.adjustments[name] = adjust
        return old.store

    def _new_root(self, name: str, backend: Backend, context: BuildContext) -> Store:
        maker = Maker(partial(maker_name, type(backend)), self._redact)
        made = _checked(maker, name, backend.build, context)
        owner = made.root
        owner.name, owner._maker = name, maker  # noqa: SLF001  # nobody else knows its maker
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
            for _, link in reversed(chain):
                inner, root = store, store.root
                maker = Maker(partial(maker_name, type(link)), self._redact)
                store = _checked(maker, name, link.wrap, inner, context)
                if store is not inner and isinstance(store, StoreWrapper):
                    store._maker = maker  # noqa: SLF001  # nobody else knows it
                if store.root is not root:
                    raise PluginError(
                        f"{maker.describe()} gave store {name!r} another root than that of the store inside",
                        code="SC703",
                        hint="a store around another one is a storeconf.StoreWrapper",
                    )
        finally:
            self._making.remove(name)
        return store

    def factory(self, memory: Callable[[], Store] = MemoryStore, publish: Publish = _as_it_is) -> StoreFactory:
        """Return the default factory; where the layout has none, ``memory`` makes the root of unlisted names."""
        step = self.plan.default_factory
        if step is None:
            return _Unlisted(self.plan.names, memory, publish)
        self.called.update(self._steps[name].root for name in step.needs)
        if step.use is not None:
            return _OneForAll(step.use, self.store(step.use), publish)
        if step.kind == "forbid":
            return _Forbidden(self.plan.names)
        return _NamespacePerName(self, step, publish)

    def lists(self, name: str) -> bool:
        """Whether the plan has a store of that name."""
        return name in self._steps

    def targets(self) -> dict[str, str]:
        """The names of all stores, each with that of the store which an alias names, of any other store its own."""
        return {name: self._steps[name].use or name for name in self.plan.names}

    def changes(self, before: Builder) -> ReloadResult:
        """Compare the stores of this plan with those of the plan before."""
        old, new = before.plan.names, self.plan.names
        kept = {name for name in new if name in before._stores and self._is_kept(name, before)}
        return ReloadResult(
            kept=tuple(name for name in new if name in kept),
            changed=tuple(name for name in new if name in before._stores and name not in kept),
            added=tuple(name for name in new if name not in before._stores),
            removed=tuple(name for name in old if name not in self._stores),
        )

    def _is_kept(self, name: str, before: Builder) -> bool:
        return (
            self._stores[name] is before._stores[name]
            and self._steps[name].use == before._steps[name].use
            and self._steps[name].root not in self.adjustments
        )

    def under(self, step: FactoryStep) -> Store:
        """The store whose namespaces a default factory hands out."""
        if step.parent is not None:
            return self.bare(self._steps[step.parent])
        assert step.backend is not None
        return self.root(HIDDEN_ROOT, step.backend, step.sources)

    def _context(self, name: str, chain: Chain = (), sources: Mapping[str, ValueSource] = _NO_SOURCES) -> BuildContext:
        below = partial(self._names_below, name)
        return BuildContext(name, self.plan.environment, self._call, _logger, dict(chain), sources, below)

    def _names_below(self, name: str, link: Middleware | None) -> tuple[str, ...]:
        """The names of the namespaces from the store that names a link of its chain to the store of that name.

        Without a link: those from the root.
        """
        step, factory = self._steps.get(name), self.plan.default_factory
        if link is None:
            made = step or factory
            assert made is not None
            root = self._steps.get(made.root or "")  # not that of a hidden root
            own = made.path if root is None else root.path
            return (*made.path[len(own) :], *(() if step is not None else (name,)))
        names: tuple[str, ...] = ()
        parent: str | None = None if factory is None else factory.parent
        last: tuple[str, ...] = (name,)
        if step is not None:
            parent, last = step.parent, step.path[-1:]
        elif factory is not None and (parent is None or all(each is not link for _, each in self._steps[parent].chain)):
            return last  # the default factory names it for all its stores, each of which has a namespace of its own
        while parent is not None and any(each is link for _, each in self._steps[parent].chain):
            names = (*last, *names)
            above = self._steps[parent]
            parent, last = above.parent, above.path[-1:]
        return names

    def _call(self, name: str) -> Store:
        step = self._steps.get(name)
        if step is None:
            raise unknown_store(name, self.plan.names)
        self.called.add(step.root)
        return self.store(name)


@dataclass(frozen=True, slots=True)
class _Root:
    """The store of a root, and the backend and context that it was built from."""

    store: Store
    backend: Backend
    context: BuildContext


def _own_code(maker: Maker, what: str, code: Callable[..., R], *given: Any) -> R:
    """Call a plugin's own code; its errors become a PluginError that names the plugin."""
    try:
        return code(*given)
    except StoreconfError:
        raise
    except Exception as error:  # noqa: BLE001  # it may fail in any way
        text = f"{maker.describe()} could not {what}: {maker.redact(described(error))}"
        cause = error if hides(error, maker.redact) else None
        raise PluginError(text, code="SC708") from cause


def _checked(maker: Maker, name: str, build: Callable[..., object], *given: object) -> Store:
    """The store that a backend's or middleware's own code makes for that name; PluginError if it makes none."""
    made = _own_code(maker, f"make store {name!r}", build, *given)
    if not isinstance(made, Store):
        raise PluginError(f"{maker.describe()} made no store for {name!r} but a {type(made).__name__}", code="SC703")
    taken = None if type(made).__module__.startswith("storeconf.") else taken_name(made)
    if taken is not None:
        text = (
            f"{maker.describe()} made a {type(made).__name__} for store {name!r}, which has set its attribute {taken!r}"
        )
        raise PluginError(text, code="SC703", hint="storeconf uses that name itself")
    return made


class _NamespacePerName:
    """Each name is a namespace of one store, with a chain of its own."""

    declared = True

    def __init__(self, builder: Builder, step: FactoryStep, publish: Publish) -> None:
        self._builder = builder
        self._step = step
        self._publish = publish
        self._parent = builder.under(step)
        self.handles = Handles(step.max_stores)
        self._same_needs = builder.needs_as_before(HIDDEN_ROOT, step.needs)
        self.root: Store | None = self._parent.root

    def get(self, name: str) -> Store:
        made = self.handles.get(name)
        if made is None:
            made = self._publish(name, self.find(name))
            self.handles.keep(name, made)
        return made

    def holds(self, name: str) -> bool:
        return name in self.handles

    def follow(self, before: StoreFactory) -> bool:
        if not isinstance(before, _NamespacePerName):
            return False
        old, new = before._step, self._step  # noqa: SLF001  # of this class
        return (
            self._same_needs
            and self.root is before.root
            and (old.path, old.chain, old.needs, old.taken) == (new.path, new.chain, new.needs, new.taken)
        )

    def find(self, name: str) -> Store:
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

    def __init__(self, target: str, store: Store, publish: Publish) -> None:
        self._target = target
        self._store = store
        self._publish = publish
        self.handles = Handles(_MOST_OF_ONE, one_store=True)
        self.root: Store | None = store.root

    def get(self, name: str) -> Store:
        made = self.handles.get(name)
        if made is None:
            check_name(name)
            made = self._publish(self._target, self._store)
            self.handles.keep(name, made)
        return made

    def find(self, name: str) -> Store:
        return self._store

    def holds(self, name: str) -> bool:
        return False

    def follow(self, before: StoreFactory) -> bool:
        return isinstance(before, _OneForAll) and self._store is before._store  # noqa: SLF001  # of this class


class _Forbidden:
    """No name has a store but those that are listed."""

    declared = True
    root: Store | None = None

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names
        self.handles = Handles()

    def get(self, name: str) -> Store:
        raise unknown_store(name, self._names)

    find = get

    def holds(self, name: str) -> bool:
        return False

    def follow(self, before: StoreFactory) -> bool:
        return isinstance(before, _Forbidden)


class _Unlisted:
    """Where the layout has no default factory: each name is a namespace in memory, and is warned about."""

    declared = False

    def __init__(self, names: Iterable[str], memory: Callable[[], Store], publish: Publish) -> None:
        self._names = names
        self._memory = memory
        self._publish = publish
        self._made: dict[str, Store] = {}
        self.handles = Handles()
        self.root: Store | None = None

    def get(self, name: str) -> Store:
        made = self.handles.get(name)
        if made is None:
            if name not in self._made:
                check_name(name)
                if self.root is None:
                    self.root = self._memory()
                store = self._made[name] = self.root.with_namespace(name)
                store.name = name
                _logger.warning(
                    "store %r is not in the layout and is kept in memory; %s", name, nearest(name, self._names)
                )
            made = self._publish(name, self._made[name])
            self.handles.keep(name, made)
        return made

    def find(self, name: str) -> Store:
        if name not in self._made:
            raise unknown_store(name, self._names)
        return self._made[name]

    def holds(self, name: str) -> bool:
        return name in self._made

    def follow(self, before: StoreFactory) -> bool:
        if not isinstance(before, _Unlisted):
            return False
        self._made, self.handles = before._made, before.handles  # noqa: SLF001  # of this class
        self.root = before.root
        return True
