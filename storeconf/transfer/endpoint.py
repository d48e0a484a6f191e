"""An endpoint: a store of a layout with everything below it, and the middleware of each of its namespaces.

Values go through the middleware of both endpoints: a value that one compresses or encrypts arrives readable and is
stored in the other's form. Middleware that would make a transfer inexact is left out: see `LEFT_OUT`.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Final, Self

from storeconf.errors import UnknownStoreError, UnsupportedOperationError
from storeconf.middleware import GuardedStore, StoreWrapper
from storeconf.middleware.encrypt import EncryptStore
from storeconf.registry import compile_plan
from storeconf.store import Store, StoreBase
from storeconf.transfer.dump_format import Address

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from storeconf.layout import Layout
    from storeconf.plan import Chain, Plan
    from storeconf.registry import StoreRegistry

__all__ = ["LEFT_OUT", "Endpoint", "overlap"]

Names = tuple[str, ...]
"""The namespaces from the store of an endpoint down to one below it."""

LEFT_OUT: Final = frozenset({"cache", "fallback", "mirror", "on_error", "refresh", "ttl"})
"""Middleware that would change an expiry, answer for the store, hide an outage, load another store, or have nothing
to do."""

_MOST_STORES = 4096


class Endpoint:
    """A store of a layout as source or target of a transfer, on a registry of its own or that of ``beside``.

    ``beside`` is the other endpoint; if both are of one layout, they share their connections. Its stores open at their
    first use. ``async with`` closes them. Raises UnknownStoreError if the layout has no such store.
    """

    def __init__(self, layout: Layout, name: str, *, beside: Endpoint | None = None) -> None:
        self.layout = layout
        self.name = name
        self.label: str = name
        """The name of the store in messages."""

        self.listed_only: list[Names] | None = None
        """After `addresses`, if the backend can't list its namespaces: those of the layout, which were searched."""

        self._plan: Plan = _exact(layout.plan())
        self.registry: StoreRegistry = (
            compile_plan(self._plan) if beside is None or beside.layout is not layout else beside.registry
        )
        self.store: Store = self.registry.require(name)
        top = self.store.namespaces
        listed = {each.namespaces: each for each in map(self.registry.__getitem__, self.registry.names())
                  if each.root is self.store.root}  # fmt: skip
        self._listed = {path[len(top) :]: each for path, each in listed.items() if path[: len(top)] == top}
        self._listed[()] = self.store
        # Two paths may be the same keys, as in Litestar's layout; then a listed one is preferred.
        self._known = {raw: names for names, each in self._listed.items() if (raw := each.raw_key("")) is not None}
        self._stores: dict[Names, Store] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.registry.aclose()

    def name_with_environment(self) -> None:
        """Distinguish the stores of this endpoint in messages from those of another environment."""
        environment = self.layout.environment or "no environment"
        stores = {id(store): store for store in map(self.registry.__getitem__, self.registry)}
        for store in (*stores.values(), *([self.store] if id(self.store) not in stores else [])):
            store.name = f"{environment}:{store.name}"
        self.label = f"{environment}:{self.name}"

    # ------------------------------------------------------------------ stores

    def at(self, names: Names) -> Store:
        """The store of a namespace, with the middleware that the layout gives it, or the nearest namespace above."""
        store = self._stores.get(names)
        if store is None:
            if len(self._stores) >= _MOST_STORES:
                self._stores.clear()
            store = self._stores[names] = self._make(names)
        return store

    def _make(self, names: Names) -> Store:
        for depth in range(len(names), -1, -1):
            above = self._listed.get(names[:depth]) or self._by_factory(names[:depth])
            if above is not None:
                for name in names[depth:]:
                    above = above.with_namespace(name)
                return above
        raise AssertionError("the store itself is listed")

    def _by_factory(self, names: Names) -> Store | None:
        """The default factory's store in that namespace, if it is one of its."""
        factory = self._plan.default_factory
        path = (*self.store.namespaces, *names)
        if factory is None or factory.kind not in ("namespace", "root") or not names or names[-1] in self.registry:
            return None
        if path[:-1] != factory.path:
            return None
        with suppress(UnknownStoreError):
            made = self.registry.get(path[-1])
            if made.root is self.store.root:
                return made
        return None

    # ------------------------------------------------------------------ listing

    async def addresses(self) -> AsyncGenerator[Address]:
        """The live keys of the store and of the namespaces below it, each that lives throughout at least once."""
        seen: dict[Names, Names | None] = {}
        peculiar: set[Names] = set()
        try:
            async with aclosing(self.store.walk()) as found:
                async for names, key in found:
                    if names not in seen:
                        seen[names] = here = self._meant(names)
                        if any(map(_changes_keys, _chain(self.at(here)))):
                            seen[names] = None
                            peculiar.add(here)
                    meant = seen[names]
                    if meant is not None:
                        yield Address(meant, key)
        except UnsupportedOperationError:
            if seen:
                raise
            peculiar.update(self._listed)
            self.listed_only = sorted(names for names in self._listed if names)
        for names in peculiar:
            async for key in self.at(names).keys():
                yield Address(names, key)

    async def count(self) -> int:
        """How many keys there are, for a progress bar."""
        async with aclosing(self.addresses()) as addresses:
            return sum([1 async for _ in addresses])

    def _meant(self, names: Names) -> Names:
        if names in self._listed:
            return names
        path = (*self.store.namespaces, *names)
        root = self.store.root
        assert isinstance(root, StoreBase)  # as every root is
        raw = root.do_raw_key(path, "")
        return names if raw is None else self._known.get(raw, names)

    def called(self, names: Names) -> str:
        """The name of one of its namespaces in messages."""
        return "/".join((self.label, *names))

    def encrypted(self) -> list[str]:
        """The names of the namespaces that were in use and whose values are encrypted."""
        return sorted(
            self.called(names)
            for names, store in self._stores.items()
            if any(isinstance(link, EncryptStore) for link in _chain(store))
        )

    # ------------------------------------------------------------------ location

    def locations(self) -> list[tuple[object, ...]]:
        """The locations of its keys, to compare with those of another endpoint: the root's, with the namespaces."""
        root, factory = self.store.root, self._plan.default_factory
        roots = [step for step in self._plan.steps if step.kind == "root"]
        backends = [step.backend for step in roots if self.registry[step.name].root is root]
        if not backends and factory is not None and factory.backend is not None:
            backends = [factory.backend]
        locations: Sequence[tuple[object, ...]] = backends[0].locations() if backends else ()
        return [(*location, *self.store.namespaces) for location in locations or [(id(root),)]]


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether one of the two is the other, or a part of it."""
    return any(
        all(step == other_step for step, other_step in zip(first, second, strict=False))
        for first, second in product(one.locations(), other.locations())
    )


def _exact(plan: Plan) -> Plan:
    """The plan without the middleware that a transfer leaves out."""

    def kept(chain: Chain) -> Chain:
        return tuple((kind, link) for kind, link in chain if kind not in LEFT_OUT)

    steps = tuple(replace(step, chain=kept(step.chain)) for step in plan.steps)
    factory = plan.default_factory
    return replace(
        plan, steps=steps, default_factory=None if factory is None else replace(factory, chain=kept(factory.chain))
    )


def _chain(store: Store) -> Iterator[StoreWrapper]:
    """The links around a store, from the caller inwards."""
    while isinstance(store, StoreWrapper):
        yield store
        store = store.wrapped


def _changes_keys(link: StoreWrapper) -> bool:
    """Whether a middleware may yield other keys than the backend knows: one that overrides `keys` without a promise."""
    kind = type(link)
    if kind.keeps_keys:
        return False
    guards = isinstance(link, GuardedStore) and type(link).around_keys is not GuardedStore.around_keys
    return guards or kind.keys not in (Store.keys, GuardedStore.keys)
