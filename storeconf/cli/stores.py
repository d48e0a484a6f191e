"""The stores of a layout for one command: found by name, closed after the work, failing readably."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from storeconf.build import Builder, nearest
from storeconf.cli.output import error, warning
from storeconf.errors import StoreconfError, describe
from storeconf.plan import HIDDEN_ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from storeconf.layout import Layout
    from storeconf.plan import Plan
    from storeconf.registry import StoreRegistry
    from storeconf.store import Store

__all__ = ["compile_possible", "failing", "readable", "run", "store_of", "warn_of", "with_store"]

T = TypeVar("T")


def with_store(layout: Layout, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do the work with one store."""
    registry, store = store_of(layout, name)
    return run(layout, registry, lambda: work(store))


def run(layout: Layout, registry: StoreRegistry, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, then close the registry.

    Stores open at their first use, so a broken store does not affect the others.
    """

    async def closing() -> T:
        try:
            return await work()
        finally:
            await registry.aclose()

    with readable(layout):
        return asyncio.run(closing())


def store_of(layout: Layout, name: str) -> tuple[StoreRegistry, Store]:
    """The layout's registry, and its store of that name; nothing is opened."""
    with readable(layout):
        registry = layout.compile()
        store = registry.require(name)
    warn_of(layout, name, registry, store)
    return registry, store


def compile_possible(plan: Plan, redact: Callable[[str], str]) -> tuple[StoreRegistry, dict[str, StoreconfError]]:
    """The registry of all stores that can be made, and why the others can't: a package is missing, a plugin fails."""
    from storeconf.registry import compile_plan

    failures: dict[str, StoreconfError] = {}
    builder = Builder(plan)
    for step in plan.steps:
        try:
            builder.store(step.name)
        except StoreconfError as failure:
            failures[step.name] = failure
    factory = plan.default_factory
    try:
        builder.factory()
    except StoreconfError as failure:
        factory, failures[HIDDEN_ROOT] = None, failure
    if failures:
        plan = replace(
            plan,
            steps=tuple(step for step in plan.steps if step.name not in failures),
            names=tuple(name for name in plan.names if name not in failures),
            default_factory=factory,
        )
    return compile_plan(plan, redact), failures


def warn_of(layout: Layout, name: str, registry: StoreRegistry, store: Store) -> None:
    """Warn of probable mistakes: a name that is not listed, and a store that exists in this process alone."""
    if name not in registry:
        warning(f"{name!r} is not listed; the default factory makes it; {nearest(name, registry)}", where(layout))
    capabilities = store.root.capabilities
    if not capabilities.persistent and not capabilities.shared:
        warning(f"{name!r} is an in-memory store; this process starts with an empty one", where(layout))


def where(layout: Layout) -> str | None:
    """The environment that messages begin with."""
    return layout.environment


def readable(layout: Layout) -> AbstractContextManager[None]:
    """Turn errors of stores into messages and the status 1."""
    return failing(where(layout))


@contextmanager
def failing(environment: str | None) -> Iterator[None]:
    """As `readable`, for more than one layout."""
    try:
        yield
    except StoreconfError as failure:
        failures: list[BaseException] = [failure]
    except BaseExceptionGroup as group:
        ours, others = group.split(StoreconfError)
        if ours is None or others is not None:
            raise
        failures = list(_flat(ours))
    else:
        return
    for each in failures:
        error(describe(each), environment)
    raise SystemExit(1)


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _flat(each)
        else:
            yield each
