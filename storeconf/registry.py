"""The registry: named stores that are opened and closed together, and the stores of unlisted names.

Longer than other modules, because opening, reloading and closing share one lock and one state.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from concurrent.futures import Future as ThreadFuture
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakSet

from storeconf._handle import GoneStore, PublishedHandles
from storeconf._lifecycle import CLOSING, OPEN, STATES, LifeCycle, run_shielded, within
from storeconf._pace import OwnThread
from storeconf._root import CLOSE_LIMIT, OPEN_LIMIT, life_of
from storeconf.build import NO_HANDLES, Builder, unknown_store
from storeconf.config.document import Looks
from storeconf.errors import UnknownStoreError, UnsupportedOperationError
from storeconf.store import PingResult, Store
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

    from storeconf._root import RootLife
    from storeconf.build import Handles, ReloadResult, StoreFactory
    from storeconf.diagnostics import Diagnostic
    from storeconf.plan import Plan

__all__ = ["StoreRegistry", "compile_plan", "load"]

_logger = logging.getLogger("storeconf")


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    pause_gc: bool = True,
) -> StoreRegistry:
    """Read a layout and make its registry, which connects to nothing until it is opened.

    ``source`` is a path, a mapping, or None for the file that discovery finds. ``environment`` is by default the one
    that ``STORECONF_ENV`` names. ``overrides`` maps dotted or nested paths to values. ``environ`` replaces the
    process's variables; ``{}`` means none. Python's cyclic garbage collector is paused meanwhile, for all threads;
    ``pause_gc=False`` leaves it alone. The layout's warnings are logged as ``storeconf``.

    Raises ConfigError with every problem of the layout.
    """
    from storeconf.layout import read_layout

    layout = read_layout(source, environment=environment, overrides=overrides, environ=environ, pause_gc=pause_gc)
    for warning in layout.warnings:
        _logger.warning("%s", warning)
    return layout.compile(pause_gc=pause_gc)


class LayoutSource(Protocol):
    """The part of `storeconf.layout.Layout` that a registry uses; the module of `Layout` imports this one."""

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Problems that are allowed but deserve a second thought."""
        ...

    def plan(self) -> Plan:
        """Return the order in which the stores are made."""
        ...

    def redact(self, text: str) -> str:
        """Return a text without the secrets of the layout."""
        ...

    @property
    def looks(self) -> Looks:
        """Which files were read or looked for."""
        ...

    def read_again(self, looks: Looks) -> LayoutSource:
        """Read the sources of this layout again, as they are now; ``looks`` takes down which files are looked at."""
        ...


def compile_plan(
    plan: Plan,
    redact: Callable[[str], str] = str,
    memory: Callable[[], Store] = MemoryStore,
    layout: LayoutSource | None = None,
) -> StoreRegistry:
    """Make the stores of a plan and the registry that holds them. Opens nothing.

    ``redact`` hides the secrets of the layout in results of pings and in errors of plugins. ``memory`` makes the root
    of the stores that no layout lists, if it has no default factory. ``layout`` is the one that a reload reads again;
    None: it can't be reloaded.

    Raises PluginError when a backend or middleware fails to make its store.
    """
    return StoreRegistry._compiled(Builder(plan, redact=redact), redact, memory, layout)  # noqa: SLF001  # its own constructor of compiled registries


class StoreRegistry:
    """Named stores, opened and closed together.

    ``async with registry`` opens every store that it holds, in dependency order, and the last exit closes them in
    reverse; stores that it gets or makes while it is open are closed with the rest. If one can't be opened, those that
    are open already are closed again. If closing fails, every other store is closed all the same; then the error is
    raised, or one ExceptionGroup if there are several.

    ``default_factory`` makes the store of a name that nobody listed; the result is registered. By default that is a
    new memory store.
    """

    def __init__(
        self, stores: Mapping[str, Store] | None = None, default_factory: Callable[[str], Store] | None = None
    ) -> None:
        self._stores: dict[str, Store] = dict(stores or {})
        self._registered: dict[str, Store] = {}  # of a compiled registry
        self._default_factory = default_factory or _memory_store
        self._builder: Builder | None = None
        self._redact: Callable[[str], str] = str
        self._layout: LayoutSource | None = None
        self._looks: Looks | None = None  # of the last reload, also one that failed
        self._memory: Callable[[], Store] = MemoryStore
        self._handles = PublishedHandles()
        self._factory: StoreFactory | None = None
        self._found: Handles = NO_HANDLES  # of the factory
        self._life = LifeCycle(self._begin, self._end, self._reset)
        self._reset()

    @classmethod
    def _compiled(
        cls,
        builder: Builder,
        redact: Callable[[str], str],
        memory: Callable[[], Store],
        layout: LayoutSource | None,
    ) -> StoreRegistry:
        registry = cls()
        stores = builder.stores()
        registry._redact = redact
        registry._layout = layout
        registry._memory = memory
        registry._builder = builder
        if layout is None:
            registry._stores = stores
            registry._factory = builder.factory(memory)
        else:
            registry._factory = builder.factory(memory, registry._publish)
            registry._stores = registry._handles.of_all(builder.targets(), registry._find)
        registry._found = registry._factory.handles
        return registry

    def _reset(self) -> None:
        """Hold nothing, also in a forked child, whose stores forget for themselves."""
        # Guards the rest, and makes one store per name; a factory may call get(). Handles call back under it.
        self._lock = self._handles.lock = threading.RLock()
        self._live = False  # from the beginning of an opening to the beginning of the closing
        self._leaves: dict[int, Callable[[], Awaitable[object]]] = {}  # by the ids of the entered resources, in order
        self._abandoned: WeakSet[Store] = WeakSet()  # the roots of layouts before this one
        self._reloading: ThreadFuture[None] | None = None

    # ------------------------------------------------------------------ names

    def get(self, name: str) -> Store:
        """Return the store of that name; one that nobody listed comes from the default factory.

        The same object comes back as long as anyone holds it.
        """
        store = self._stores.get(name)
        if store is not None:
            return store
        found = self._found
        store = found.recent.get(name)
        if store is None or self._life.state >= CLOSING:
            return self._unlisted(name)
        used = found.used
        if used is not None:
            try:  # noqa: SIM105  # entering a context takes longer than all the rest
                used(name)
            except KeyError:
                pass  # another thread has just dropped it
        return store

    def require(self, name: str) -> Store:
        """Return the store of that name, as `get` does, but only if somebody has declared it.

        Raises UnknownStoreError if the name is neither listed nor registered, unless the layout, or the maker of the
        registry, has given a default factory.
        """
        store = self._stores.get(name)
        if store is not None:
            return store
        declared = self._default_factory is not _memory_store if self._factory is None else self._factory.declared
        if not declared:
            raise unknown_store(name, self._stores)
        try:
            return self._unlisted(name)
        except ValueError as error:
            if isinstance(error, UnknownStoreError) or self._factory is None:
                raise
            raise UnknownStoreError(f"unknown store {name!r}: {error}") from error

    def register(self, name: str, store: Store, allow_override: bool = False) -> None:
        """Add a store, which is opened and closed with the others from now on.

        Raises ValueError if the name is in use, unless ``allow_override``.
        """
        with self._lock:
            if not allow_override and (
                name in self._stores
                or (self._factory is not None and (self._factory.holds(name) or self._handles.known(name) is not None))
            ):
                raise ValueError(f"there is a store {name!r} already")
            self._stores[name] = self._registered[name] = store
            if self._live:
                self._take(store)

    def names(self) -> list[str]:
        """The names that are listed or registered, in that order."""
        return list(self._stores)

    def __getitem__(self, name: str) -> Store:
        """Return the listed or registered store of that name, else raise UnknownStoreError."""
        try:
            return self._stores[name]
        except KeyError:
            raise unknown_store(name, self._stores) from None

    def __contains__(self, name: object) -> bool:
        return name in self._stores

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._stores)} stores, {STATES[self._life.state]}>"

    def _unlisted(self, name: str) -> Store:
        with self._lock:
            made = self._stores.get(name)  # by another thread, meanwhile
            if made is None and self._factory is not None:
                made = self._factory.get(name)
            elif made is None:
                made = self._stores[name] = self._default_factory(name)
            if self._live:
                self._take(made)
            elif self._life.state >= CLOSING and isinstance(made, Store):
                life_of(made).retire()
            return made

    # ------------------------------------------------------------------ all stores at once

    async def ping(self, timeout: float = 10.0) -> dict[str, PingResult]:
        """Do one real round trip to every listed store, all at once, and return the results by name.

        Never raises: a failure, or no answer within ``timeout`` seconds, is told in the result.
        """
        stores = dict(self._stores)
        distinct = {id(store): store for store in stores.values()}
        results = await asyncio.gather(*(_ping(store, timeout) for store in distinct.values()))
        by_store = dict(zip(distinct, map(self._redacted, results), strict=True))
        return {name: by_store[id(store)] for name, store in stores.items()}

    def _redacted(self, result: PingResult) -> PingResult:
        return result if result.error is None else replace(result, error=self._redact(result.error))

    async def delete_expired(self) -> None:
        """Drop expired entries from every store; the failure of one does not keep the others from it.

        Registered handles whose store has left the layout are passed over.
        """
        roots = self._layout_roots()
        targets: dict[int, Any] = {id(root): root for root in roots}
        for store in dict(self._stores).values():
            if not isinstance(store, Store) or id(store.root) not in targets:
                targets[id(store)] = store
        calls = [
            target.delete_expired()
            for target in targets.values()
            if hasattr(target, "delete_expired") and not _is_gone(target)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        _raise("expired entries could not be deleted", [each for each in results if isinstance(each, BaseException)])

    # ------------------------------------------------------------------ reload

    def _publish(self, name: str, store: Store) -> Store:
        """Return the handle of a name that the default factory gives a store."""
        return self._handles.leading_to(name, store, partial(self._find, name))

    def _find(self, name: str) -> Store:
        """The store that a handle of that name leads to."""
        assert self._builder is not None
        assert self._factory is not None
        if self._builder.lists(name):
            return self._builder.store(name)
        try:
            return self._factory.find(name)
        except (UnknownStoreError, UnsupportedOperationError, ValueError) as error:
            return GoneStore(name, f"store {name!r} is not in the layout any more: {error}")

    async def reload(self) -> ReloadResult:
        """Read again the source that `load` was given, and let all handles lead to the stores that it describes now.

        All handles are switched in one step. Roots whose type, location and namespace are the same are kept, with
        their connections and contents; those that are gone close when the calls in progress have ended. Registered
        stores stay. A registry that is not open stays so. Returns the effect on the layout's stores.

        Raises the errors of `load`, and those of opening the new stores; then nothing has changed. Raises TypeError for
        a registry without a layout, and UnknownStoreError in calls of handles whose store is gone.
        """
        if self._layout is None:
            raise TypeError("this registry was made without a layout, so there is nothing to read again")
        while True:
            with self._lock:
                pending = self._reloading
                if pending is None:
                    mine = self._reloading = ThreadFuture()
                    break
            await asyncio.wait([asyncio.wrap_future(pending)])
        try:
            return await self._reload(self._layout)
        finally:
            with self._lock:
                self._reloading = None
            mine.set_result(None)

    async def _reload(self, before: LayoutSource) -> ReloadResult:
        layout, builder, factory = await OwnThread(self._rebuilt, "storeconf-reload").run()
        for warning in layout.warnings:
            if warning not in before.warnings:
                _logger.warning("%s", warning)
        opened: dict[int, RootLife] = {}
        try:
            if self._live:
                roots = [root for _, root in builder.roots()] + ([] if factory.root is None else [factory.root])
                for root in roots:
                    if id(root) not in self._leaves:
                        await life_of(root).acquire()
                        opened[id(root)] = life_of(root)
            result, gone = self._switch(layout, builder, factory, opened)
        except BaseException:
            for life in reversed(opened.values()):
                await _collect([], run_shielded(life.release()))
            raise
        for life in opened.values():  # left over because the registry was closed meanwhile
            await life.release()
        idle = [life_of(root).is_idle for root in gone]
        closing = [life_of(root).abandon() for root in gone]
        tasks = [task for task, waits in zip(closing, idle, strict=True) if task is not None and waits]
        if tasks:
            await asyncio.wait(tasks)
        return result

    def _rebuilt(self) -> tuple[LayoutSource, Builder, StoreFactory]:
        """Read the layout again and make its stores, in any thread."""
        assert self._layout is not None
        self._looks = Looks(digests=True)
        layout = self._layout.read_again(self._looks)
        builder = Builder(layout.plan(), self._builder, layout.redact)
        builder.stores()
        return layout, builder, builder.factory(self._memory, self._publish)

    def _switch(
        self, layout: LayoutSource, builder: Builder, factory: StoreFactory, opened: dict[int, RootLife]
    ) -> tuple[ReloadResult, list[Store]]:
        """Replace the layout in one step; return the result, and the removed roots. Takes its lives from ``opened``."""
        with self._lock:
            old_builder, old_factory, old_roots = self._builder, self._factory, self._layout_roots()
            assert old_builder is not None
            assert old_factory is not None
            same_unlisted = factory.follow(old_factory)
            for adjust in builder.adjustments.values():
                adjust()
            self._layout, self._redact, self._builder, self._factory = layout, layout.redact, builder, factory
            self._stores = self._handles.of_all(builder.targets(), self._find) | self._registered
            self._handles.switch(partial(self._moves, old_builder, same_unlisted))
            self._found = factory.handles
            resources = self._resources()
            there = {id(resource) for resource in resources}
            gone = [root for root in old_roots if id(root) not in there]
            if self._live:
                leaves, self._leaves = self._leaves, {}
                for resource in resources:
                    if id(resource) in leaves:
                        self._leaves[id(resource)] = leaves.pop(id(resource))
                    elif (life := opened.pop(id(resource), None)) is not None:
                        self._leaves[id(resource)] = life.release
                    else:
                        self._take(resource)
                for root in gone:
                    if leaves.pop(id(root), None) is not None:
                        life_of(root).let_go()
                self._leaves = leaves | self._leaves
            self._abandoned.update(gone)
            result = builder.changes(old_builder)
            builder.forget_before()
            return result, gone

    def _moves(self, before: Builder, same_unlisted: bool, name: str, store: Store) -> bool:
        """Whether the handle of that name led to another store before."""
        assert self._builder is not None
        if self._builder.lists(name):
            return self._builder.store(name) is not store
        return before.lists(name) or not same_unlisted

    # ------------------------------------------------------------------ life cycle

    async def __aenter__(self) -> Self:
        await self._life.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.release()

    async def aclose(self) -> None:
        """Close the registry and the layout's stores now, even if others hold them open.

        A registered store that others hold open, too, stays open for them.
        """
        await run_shielded(self._shut())

    @property
    def is_open(self) -> bool:
        """Whether the registry is open."""
        return self._life.state == OPEN

    async def _begin(self) -> None:
        with self._lock:
            self._live = True
            resources = self._resources()
        try:
            for resource in resources:
                await self._enter(resource)
        except BaseException as error:
            failures = await run_shielded(self._leave_all())
            if not failures:
                raise
            if isinstance(error, Exception):
                _raise("the registry could neither be opened nor closed again", [error, *failures])
            raise error from _together("what was open could not be closed", failures)

    async def _end(self) -> None:
        _raise("some stores could not be closed", await self._leave_all())

    async def _shut(self) -> None:
        failures: list[BaseException] = []
        await _collect(failures, self._life.close())
        roots = self._layout_roots()
        for root in reversed(roots):
            await _collect(failures, root.aclose())
        for resource in reversed(self._resources()):
            if isinstance(resource, Store) and resource not in roots:
                await _collect(failures, life_of(resource).close(unless_held=True))
        _raise("some stores could not be closed", failures)

    def _layout_roots(self) -> list[Store]:
        """The roots that the layout made, in the order of opening, without those that overrides have left unused."""
        if self._builder is None or self._factory is None:
            return []
        used = {id(store.root) for store in dict(self._stores).values() if isinstance(store, Store)}
        used.add(id(self._factory.root))
        roots = [root for name, root in self._builder.roots() if id(root) in used or name in self._builder.called]
        if self._factory.root is not None and self._factory.root not in roots:
            roots.append(self._factory.root)
        return roots

    def _resources(self) -> list[Any]:
        """Everything that opening enters, in that order, each once: roots, and the stores of other libraries."""
        found: dict[int, Any] = {id(root): root for root in self._layout_roots()}
        for store in dict(self._stores).values():
            if not _is_gone(store):
                resource = store.root if isinstance(store, Store) else store
                found.setdefault(id(resource), resource)
        return list(found.values())

    async def _enter(self, resource: Any) -> None:
        if isinstance(resource, Store):
            life = life_of(resource)
            await life.acquire()
            leave: Callable[[], Awaitable[object]] = life.release
        elif hasattr(resource, "__aenter__"):
            shown = self._shown(resource)
            await within(OPEN_LIMIT, resource.__aenter__(), f"opening store {shown}", operation="open")
            leave = partial(_leave, resource, shown)
        else:
            return
        with self._lock:
            self._leaves[id(resource)] = leave

    def _take(self, store: Any) -> None:
        """Hold a store that was added to the open registry. It opens at its first use: nothing can be awaited here."""
        resource = store.root if isinstance(store, Store) else store
        if id(resource) in self._leaves or _is_gone(store):
            return
        if isinstance(resource, Store):
            life = life_of(resource)
            life.hold()
            self._leaves[id(resource)] = life.release
        elif hasattr(resource, "__aenter__"):
            self._leaves[id(resource)] = partial(_enter_and_leave, resource, self._shown(resource))

    def _shown(self, resource: Any) -> str:
        """The name of a store of another library for messages: its own, or its class's."""
        names = [name for name, store in dict(self._stores).items() if store is resource]
        return repr(names[0]) if names else type(resource).__name__

    async def _leave_all(self) -> list[BaseException]:
        with self._lock:
            self._live = False
            leaves, self._leaves = self._leaves, {}
            abandoned = list(self._abandoned)
            self._abandoned.clear()
        failures: list[BaseException] = []
        for leave in reversed(leaves.values()):
            await _collect(failures, leave())
        for root in abandoned:
            life_of(root).refuse()
            await _collect(failures, life_of(root).close())
        return failures

    def __del__(self) -> None:
        if "_life" in self.__dict__ and self._life.state == OPEN:
            warnings.warn(f"{self!r} was left open", ResourceWarning, stacklevel=2, source=self)

    def to_litestar(self) -> LitestarStoreRegistry:
        """Return this registry in the form that Litestar takes as ``stores=``; it needs Litestar installed."""
        from storeconf.integrations.litestar import LitestarRegistry

        return LitestarRegistry(self)

    if not TYPE_CHECKING:  # type checkers shall report its use; ``__getattr__`` would make every attribute slower

        @property
        def values(self) -> Any:
            """The attribute that Litestar reads of any object given as stores=, except a registry of its own class."""
            raise _NoMappingError(
                "this registry is not a mapping of stores; give Litestar stores=registry.to_litestar(), "
                "or plugins=[StoreconfPlugin(registry)]"
            )


class _NoMappingError(AttributeError, TypeError):
    """A registry is used as a mapping; an AttributeError too, so that tools may look at all attributes."""


def looks_of(registry: StoreRegistry) -> dict[tuple[Path, bool], object] | None:
    """The files that the layout in force and the last reload, if there was one, read; None without a layout.

    The keys are those of `Looks.found`; the files that the last reload looked at have digests.
    """
    layout, last = registry._layout, registry._looks  # noqa: SLF001  # of this module
    if layout is None:
        return None
    return dict.fromkeys(layout.looks.found) | ({} if last is None else last.found)


def _is_gone(store: object) -> bool:
    """Whether a registered store leads to one that the layout no longer has: a handle, or a wrapper around one."""
    return isinstance(store, Store) and isinstance(store.root, GoneStore)


def _memory_store(name: str) -> Store:
    store = MemoryStore()
    store.name = name
    return store


async def _leave(store: Any, shown: str) -> None:
    """Leave a store of another library; it gets as much time as ours."""
    await within(CLOSE_LIMIT, store.__aexit__(None, None, None), f"closing store {shown}", operation="close")


async def _enter_and_leave(store: Any, shown: str) -> None:
    await within(OPEN_LIMIT, store.__aenter__(), f"opening store {shown}", operation="open")
    await _leave(store, shown)


async def _ping(store: Any, timeout: float) -> PingResult:
    start = time.perf_counter()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            if isinstance(store, Store):
                return await store.ping()
            await store.exists("storeconf-ping")
            return PingResult(ok=True, latency=time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001  # the result contains every failure
        if limit.expired():
            return PingResult(ok=False, error=f"no answer within {timeout:g} s")
        return PingResult(ok=False, error=f"{type(error).__name__}: {error}")


async def _collect(failures: list[BaseException], work: Awaitable[object]) -> None:
    """Await ``work`` and keep its error, so that it keeps nothing else from its turn."""
    try:
        await work
    except BaseException as error:  # noqa: BLE001
        failures.append(error)


def _together(message: str, failures: list[BaseException]) -> BaseException:
    return failures[0] if len(failures) == 1 else BaseExceptionGroup(message, failures)


def _raise(message: str, failures: list[BaseException]) -> None:
    """Raise all failures together, one alone as itself; a cancellation stays one, caused by the others."""
    cancelled = [each for each in failures if isinstance(each, asyncio.CancelledError)]
    others = [each for each in failures if not isinstance(each, asyncio.CancelledError)]
    if cancelled:
        raise cancelled[0] from (_together(message, others) if others else None)
    if others:
        raise _together(message, others)
