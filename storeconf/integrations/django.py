"""Django: a store of a layout as a backend of its cache framework.

CACHES = {
    "default": {
        "BACKEND": "storeconf.integrations.django.StoreconfCache",
        "LOCATION": "pages",
        "OPTIONS": {"layout": BASE_DIR / "storeconf.yaml"},
    }
}
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends import base
from django.core.exceptions import ImproperlyConfigured

from storeconf._background import background_loop, factories_here
from storeconf._pace import paced
from storeconf._single_flight import standing_still
from storeconf.errors import StoreError
from storeconf.integrations._sessions import registry_from
from storeconf.registry import StoreRegistry
from storeconf.sync.stores import SyncStore, close_at_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from storeconf.integrations._sessions import Source
    from storeconf.store import Store

    class _DjangosCache:
        """The members that a cache has from Django, which is not typed."""

        default_timeout: float | None
        key_prefix: str
        version: int
        key_func: Callable[[Any, str, int], str]

        def __init__(self, params: dict[str, Any]) -> None: ...
        def make_and_validate_key(self, key: Any, version: int | None = None) -> str: ...
        def make_key(self, key: Any, version: int | None = None) -> str: ...
        def decr(self, key: Any, delta: int = 1, version: int | None = None) -> Any: ...
        async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> Any: ...
        async def aget_or_set(self, key: Any, default: Any, timeout: Any = ..., version: int | None = None) -> Any: ...
        def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int: ...
        async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int: ...
        def decr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int: ...
        async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int: ...
        def __contains__(self, key: Any) -> bool: ...
        def close(self, **kwargs: Any) -> None: ...
        async def aclose(self, **kwargs: Any) -> None: ...
else:
    _DjangosCache = base.BaseCache

__all__ = ["StoreconfCache"]

DEFAULT_TIMEOUT: Any = base.DEFAULT_TIMEOUT

_OPTIONS: Final = ("layout", "environment", "serializer")
_CULLING: Final = ("MAX_ENTRIES", "CULL_FREQUENCY")
"""Options of Django's own backends that have no effect: the layout bounds a store."""

_MISSING: Final[Any] = object()

_MOST_TRIES: Final = 10_000
"""Far more than a counter that everybody wants at once needs."""

_logger = logging.getLogger("storeconf")


class StoreconfCache(_DjangosCache):
    """A cache on the store that ``LOCATION`` names.

    ``OPTIONS``: ``layout`` (a source of `storeconf.load`, or a registry; else discovery finds the file),
    ``environment``, and ``serializer``: ``pickle`` as in Django's own backends, or ``json``. Anyone who can write to a
    store can run code in every process that unpickles its values.

    Without ``TIMEOUT`` the store's ``ttl.default`` applies, else Django's 300 seconds. All caches of one layout share
    its registry, and all threads its connections; it is closed with the process. The methods for coroutines block no
    event loop and use no thread of their own.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options: Mapping[str, Any] = params.get("OPTIONS") or {}
        unknown = [name for name in options if name not in _OPTIONS + _CULLING]
        if unknown:
            raise ImproperlyConfigured(f"StoreconfCache has no option {unknown[0]!r}; it takes {', '.join(_OPTIONS)}")
        if not location or not isinstance(location, str):
            raise ImproperlyConfigured("the LOCATION of a StoreconfCache is the name of a store")
        serializer = options.get("serializer", "pickle")
        if serializer not in _SERIALIZERS:
            raise ImproperlyConfigured(f"the serializer of a StoreconfCache is pickle or json, not {serializer!r}")
        self._dumps, self._loads = _SERIALIZERS[serializer]
        self._entries = _Entries(_registry(options.get("layout"), options.get("environment")).require(location))
        if "TIMEOUT" not in params and "timeout" not in params and self.store.expiry_rules.default is not None:
            self.default_timeout: float | None = None

    @property
    def store(self) -> Store:
        """The store that keeps the values; its methods are awaited."""
        return self._entries.wrapped

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Return the seconds that an entry lives; None: as long as the layout lets it."""
        return self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout

    def _load(self, key: str, data: bytes | None) -> Any:
        """The value of an entry; one that the other serializer wrote counts as missing."""
        if data is None:
            return _MISSING
        value = self._loads(data)
        if value is _MISSING:
            _logger.warning("store %r: the value of %r was written by another serializer", self.store.name, key)
        return value

    # ------------------------------------------------------------------ one key

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or ``default`` if the key is missing."""
        key = self.make_and_validate_key(key, version=version)
        value = self._load(key, self._entries.get(key))
        return default if value is _MISSING else value

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """See `get`."""
        key = self.make_and_validate_key(key, version=version)
        value = self._load(key, await self._entries.awaited("get", key))
        return default if value is _MISSING else value

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store the value; a timeout of zero or less removes the key."""
        key = self.make_and_validate_key(key, version=version)
        self._entries.set(key, self._dumps(value), self.get_backend_timeout(timeout))

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """See `set`."""
        key = self.make_and_validate_key(key, version=version)
        await self._entries.awaited("set", key, self._dumps(value), self.get_backend_timeout(timeout))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store the value only if the key is missing; return whether it was. Atomic among all processes."""
        key = self.make_and_validate_key(key, version=version)
        return self._entries.add(key, self._dumps(value), self.get_backend_timeout(timeout))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """See `add`."""
        key = self.make_and_validate_key(key, version=version)
        return bool(await self._entries.awaited("add", key, self._dumps(value), self.get_backend_timeout(timeout)))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give the key a new timeout; return whether it was there."""
        key = self.make_and_validate_key(key, version=version)
        return self._entries.touch(key, self.get_backend_timeout(timeout))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """See `touch`."""
        key = self.make_and_validate_key(key, version=version)
        return bool(await self._entries.awaited("touch", key, self.get_backend_timeout(timeout)))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove the key; return whether it was there."""
        return bool(self._entries.delete(self.make_and_validate_key(key, version=version)))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """See `delete`."""
        key = self.make_and_validate_key(key, version=version)
        return bool(await self._entries.awaited("delete", key))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether the key is there."""
        return self._entries.exists(self.make_and_validate_key(key, version=version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """See `has_key`."""
        key = self.make_and_validate_key(key, version=version)
        return bool(await self._entries.awaited("exists", key))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Add to a number and return the sum; the timeout stays. Atomic among all processes.

        Raises ValueError if the key is missing.
        """
        key = self.make_and_validate_key(key, version=version)
        for _ in range(_MOST_TRIES):
            stored = self._entries.get(key)
            value = self._sum(key, stored, delta)
            if self._entries.compare_and_set(key, stored, self._dumps(value), keep_ttl=True):
                return value
        raise self._contended(key)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """See `incr`."""
        key = self.make_and_validate_key(key, version=version)
        for _ in range(_MOST_TRIES):
            stored = await self._entries.awaited("get", key)
            value = self._sum(key, stored, delta)
            if await self._entries.awaited("compare_and_set", key, stored, self._dumps(value), keep_ttl=True):
                return value
        raise self._contended(key)

    def _sum(self, key: str, stored: bytes | None, delta: int) -> Any:
        value = self._load(key, stored)
        if value is _MISSING:
            raise ValueError(f"Key {key!r} not found")
        return value + delta

    def _contended(self, key: str) -> StoreError:
        return StoreError(f"the counter {key!r} in store {self.store.name!r} changes too often", store=self.store.name)

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> Any:
        """Return the value; if the key is missing, store and return ``default``, or its result if it is callable.

        Threads that want the same key at once call it once; with the middleware ``refresh`` processes do, too.
        """
        key, span = self.make_and_validate_key(key, version=version), self.get_backend_timeout(timeout)
        made = self._maker(default)
        value = self._load(key, self._entries.get_or_set(key, made, span))
        if value is _MISSING:
            data = made()
            self._entries.set(key, data, span)
            value = self._loads(data)
        return value

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """See `get_or_set`. ``default`` is a plain function here too, and is called in this event loop."""
        key, span = self.make_and_validate_key(key, version=version), self.get_backend_timeout(timeout)
        made = self._maker(default)
        value = self._load(key, await self._entries.computed(key, made, span))
        if value is _MISSING:
            data = made()
            await self._entries.awaited("set", key, data, span)
            value = self._loads(data)
        return value

    def _maker(self, default: Any) -> Callable[[], bytes]:
        return lambda: self._dumps(default() if callable(default) else default)

    # ------------------------------------------------------------------ many keys

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values of those keys that are there, in one round trip."""
        names = {self.make_and_validate_key(key, version=version): key for key in keys}
        values = {names[name]: self._load(name, data) for name, data in self._entries.get_many(names).items()}
        return {key: value for key, value in values.items() if value is not _MISSING}

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """See `get_many`."""
        names = dict(await paced(keys, lambda key: (self.make_and_validate_key(key, version=version), key)))
        found = await self._entries.awaited("get_many", list(names))
        values = await paced(found.items(), lambda item: (names[item[0]], self._load(*item)))
        return {key: value for key, value in values if value is not _MISSING}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store several values in one round trip; the list of failed keys that Django asks for is empty."""
        items = dict(map(self._dumped(version), data.items()))
        self._entries.set_many(items, self.get_backend_timeout(timeout))
        return []

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """See `set_many`."""
        items = dict(await paced(data.items(), self._dumped(version)))
        await self._entries.awaited("set_many", items, self.get_backend_timeout(timeout))
        return []

    def _dumped(self, version: int | None) -> Callable[[tuple[Any, Any]], tuple[str, bytes]]:
        return lambda item: (self.make_and_validate_key(item[0], version=version), self._dumps(item[1]))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Remove several keys in one round trip."""
        self._entries.delete_many([self.make_and_validate_key(key, version=version) for key in keys])

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """See `delete_many`."""
        names = await paced(keys, lambda key: self.make_and_validate_key(key, version=version))
        await self._entries.awaited("delete_many", names)

    def clear(self) -> None:
        """Remove every key of the store and of the namespaces below it, with any prefix and version, and no others."""
        self._entries.delete_all()

    async def aclear(self) -> None:
        """See `clear`."""
        await self._entries.awaited("delete_all")


class _Entries(SyncStore):
    """The store for threads, and for coroutines of any event loop that a request has.

    A thread with a running event loop waits too, as with Django's own backends: a session that an asynchronous view
    reads without ``await`` would be an error otherwise.
    """

    def _run(self, operation: str, *args: Any, **options: Any) -> Any:
        with _as_without_loop():
            return super()._run(operation, *args, **options)

    def _run_with(self, key: str, operation: str, *args: Any) -> Any:
        with _as_without_loop():
            return super()._run_with(key, operation, *args)

    def _get_or_set(self, key: str, factory: Callable[[], Any], span: Any) -> Any:
        if _get_running_loop() is None:
            return super()._get_or_set(key, factory, span)
        reach = self._now()
        if reach.here and reach.computes_here and (found := self._run("get", key)) is not None:
            return found
        return factories_here().wait(lambda asked: reach.callee.get_or_set(key, asked, span), factory)

    async def awaited(self, operation: str, *args: Any, **options: Any) -> Any:
        """Await a call in the loop in which threads call the store, unless it waits for nothing.

        Django makes an event loop per request where it has to, and a connection of each would not outlive it.
        """
        reach = self._now()
        work = getattr(reach.callee, operation)(*args, **options)
        if reach.here:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_coroutine(work), background_loop().loop))

    async def computed(self, key: str, factory: Callable[[], bytes], span: float | None) -> bytes:
        """Await ``get_or_set``; ``factory`` runs in this event loop, also where threads and other loops wait for it.

        If another loop runs its factory for the same key and leaves before it has ended, this one computes instead.
        """
        reach = self._now()
        if reach.here and reach.computes_here and (found := await reach.callee.get(key)) is not None:
            return found  # type: ignore[no-any-return]
        call = reach.callee.get_or_set
        return await factories_here().get_or_set(lambda asked: call(key, asked, span), factory)


@contextmanager
def _as_without_loop() -> Iterator[None]:
    """Make calls as threads without an event loop do: calls that have to wait do so in the background loop."""
    loop = _get_running_loop()
    if loop is None:
        yield
        return
    _set_running_loop(None)
    try:
        with standing_still(loop):
            yield
    finally:
        _set_running_loop(loop)


async def _coroutine(work: Awaitable[Any]) -> Any:
    return await work


# ---------------------------------------------------------------------- values


def _pickled(value: Any) -> bytes:
    # Whole numbers as text, so that they are counters for other users of the store, too; as Django has them on Redis.
    return b"%d" % value if type(value) is int else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _unpickled(data: bytes) -> Any:
    if data[:1] == b"\x80":  # the beginning of every pickle since protocol 2
        return pickle.loads(data)  # noqa: S301 - the documentation names the risk, and the alternative
    try:
        return int(data)
    except ValueError:
        return _MISSING


def _as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return _MISSING


_SERIALIZERS: Final[dict[object, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    "pickle": (_pickled, _unpickled),
    "json": (_as_json, _from_json),
}


# ---------------------------------------------------------------------- registries


_registries: dict[tuple[object, ...], tuple[StoreRegistry, Source]] = {}
"""The registry of each layout in use, with its source: Django makes a cache per thread and task."""


def _registry(layout: Source, environment: str | None) -> StoreRegistry:
    if isinstance(layout, StoreRegistry):
        return registry_from(layout, environment)
    if layout is None or isinstance(layout, Mapping):
        place: object = (id(layout), str(Path.cwd()))
    else:
        place = str(Path(layout).absolute())
    name = (place, environment, os.environ.get("STORECONF_ENV"), os.environ.get("STORECONF_FILE"))
    known = _registries.get(name)
    if known is None:
        # Two threads may both read it; the second registry connects to nothing and is dropped.
        known = _registries.setdefault(name, (registry_from(layout, environment), layout))
        close_at_exit(known[0])
    return known[0]
