"""limits: a store of a layout as the storage of its rate limits, so that slowapi, Flask-Limiter and others use one.

storage = storage_from_string("storeconf://rates?layout=storeconf.yaml")

Importing this module registers the schemes ``storeconf`` and ``async+storeconf``.
"""

from __future__ import annotations

import time
import weakref
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

from limits.aio.storage import SlidingWindowCounterSupport as AsyncSlidingWindowCounterSupport
from limits.aio.storage import Storage as AsyncStorage
from limits.errors import ConfigurationError
from limits.storage import SlidingWindowCounterSupport, Storage

from storeconf._background import check_thread, run_in_background
from storeconf.errors import StoreError
from storeconf.integrations import hit_fixed, hit_sliding, read_fixed, read_sliding
from storeconf.integrations._sessions import registry_from
from storeconf.registry import StoreRegistry
from storeconf.sync.stores import close_at_exit, close_unused

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from storeconf.integrations._sessions import Source
    from storeconf.store import Store

__all__ = ["AsyncStoreconfStorage", "StoreconfStorage"]

T = TypeVar("T")

_SLIDING = "/sliding"
"""The end of the keys of sliding windows: it sets them apart from those of fixed windows with the same limit."""

_AT_ONCE = 1000
"""Keys that a reset deletes in one step."""


class _Counters:
    """The operations of both storages, awaited."""

    def __init__(self, uri: str | None, layout: Source, environment: str | None) -> None:
        name, layout, environment = _parts(uri, layout, environment)
        self.registry = registry_from(layout, environment)
        self.owned = not isinstance(layout, StoreRegistry)
        self.store = self.registry.require(name)

    async def hit(self, key: str, expiry: float, amount: int) -> int:
        return await hit_fixed(self.store, key, expiry, amount)

    async def count(self, key: str) -> int:
        return (await read_fixed(self.store, key))[0]

    async def end(self, key: str) -> float:
        return time.time() + (await read_fixed(self.store, key))[1]

    async def check(self) -> bool:
        return (await self.store.ping()).ok

    async def reset(self) -> int | None:
        deleted: int | None = 0
        keys = [key async for key in self.store.keys()]
        for start in range(0, len(keys), _AT_ONCE):
            count = await self.store.delete_many(keys[start : start + _AT_ONCE])
            deleted = None if count is None or deleted is None else deleted + count
        return deleted

    async def clear(self, key: str) -> None:
        # Older versions of limits clear sliding windows in this way, too.
        await self.store.delete_many([key, key + _SLIDING])

    async def hit_sliding(self, key: str, limit: int, expiry: float, amount: int) -> bool:
        return await hit_sliding(self.store, key + _SLIDING, expiry, limit, amount)

    async def sliding(self, key: str, expiry: float) -> tuple[int, float, int, float]:
        window = await read_sliding(self.store, key + _SLIDING, expiry)
        return window.previous, window.previous_left, window.current, window.current_left

    async def clear_sliding(self, key: str) -> None:
        await self.store.delete(key + _SLIDING)


class AsyncStoreconfStorage(AsyncStorage, AsyncSlidingWindowCounterSupport):
    """A store as the storage of limits in an application with an event loop.

    ``uri`` is ``async+storeconf://STORE?layout=…&environment=…``; ``layout`` (a source of `storeconf.load`, or a
    registry) and ``environment`` may be given as arguments instead. It opens at its first use, and with ``async with``
    for as long as the application runs.
    """

    STORAGE_SCHEME: ClassVar[list[str] | None] = ["async+storeconf"]  # type: ignore[misc]  # a class variable there too

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        layout: Source = None,
        environment: str | None = None,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._counters = _Counters(uri, layout, environment)

    @property
    def store(self) -> Store:
        """The store that keeps the counters."""
        return self._counters.store

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The errors that ``wrap_exceptions`` wraps."""
        return StoreError

    async def __aenter__(self) -> Self:
        await self._counters.registry.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._counters.registry.__aexit__(kind, error, trace)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in a fixed window, which the first hit begins; return the hits in it."""
        return await self._counters.hit(key, expiry, amount)

    async def get(self, key: str) -> int:
        """Return the hits in a fixed window."""
        return await self._counters.count(key)

    async def get_expiry(self, key: str) -> float:
        """Return when a fixed window ends, in seconds since 1970."""
        return await self._counters.end(key)

    async def check(self) -> bool:
        """Whether the store answers."""
        return await self._counters.check()

    async def reset(self) -> int | None:
        """Delete every key of the store's namespace; return how many there were."""
        return await self._counters.reset()

    async def clear(self, key: str) -> None:
        """End the windows of a key."""
        await self._counters.clear(key)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count in a sliding window if the limit allows it; return whether it does."""
        return await self._counters.hit_sliding(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the hits and the seconds left of the previous and of the current window."""
        return await self._counters.sliding(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """End a sliding window."""
        await self._counters.clear_sliding(key)


class StoreconfStorage(Storage, SlidingWindowCounterSupport):
    """A store as the storage of limits in an application without an event loop, and of slowapi in one with a loop.

    ``uri`` is ``storeconf://STORE?layout=…&environment=…``; ``layout`` (a source of `storeconf.load`, or a registry)
    and ``environment`` may be given as arguments instead. All threads share the connections of one event loop in a
    background thread. In a thread with a running event loop a call blocks it for as long as the store takes, as limits'
    own storages do. A storage that was made from a layout is closed with the process, or by ``close``.
    """

    STORAGE_SCHEME: ClassVar[list[str] | None] = ["storeconf"]  # type: ignore[misc]  # a class variable there too

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        layout: Source = None,
        environment: str | None = None,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._counters = _Counters(uri, layout, environment)
        if self._counters.owned:
            close_at_exit(self._counters.registry)
            weakref.finalize(self, close_unused, self._counters.registry).atexit = False

    @property
    def store(self) -> Store:
        """The store that keeps the counters; its methods are awaited."""
        return self._counters.store

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The errors that ``wrap_exceptions`` wraps."""
        return StoreError

    def close(self) -> None:
        """Close the registry of the store now."""
        _wait(self._counters.registry.aclose())

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in a fixed window, which the first hit begins; return the hits in it."""
        return _wait(self._counters.hit(key, expiry, amount))

    def get(self, key: str) -> int:
        """Return the hits in a fixed window."""
        return _wait(self._counters.count(key))

    def get_expiry(self, key: str) -> float:
        """Return when a fixed window ends, in seconds since 1970."""
        return _wait(self._counters.end(key))

    def check(self) -> bool:
        """Whether the store answers."""
        return _wait(self._counters.check())

    def reset(self) -> int | None:
        """Delete every key of the store's namespace; return how many there were."""
        return _wait(self._counters.reset())

    def clear(self, key: str) -> None:
        """End the windows of a key."""
        _wait(self._counters.clear(key))

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count in a sliding window if the limit allows it; return whether it does."""
        return _wait(self._counters.hit_sliding(key, limit, expiry, amount))

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the hits and the seconds left of the previous and of the current window."""
        return _wait(self._counters.sliding(key, expiry))

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """End a sliding window."""
        _wait(self._counters.clear_sliding(key))


def _wait(work: Coroutine[Any, Any, T]) -> T:
    if _get_running_loop() is None:
        try:
            check_thread()
        except RuntimeError:
            work.close()
            raise
    return run_in_background(work)


def _parts(uri: str | None, layout: Source, environment: str | None) -> tuple[str, Source, str | None]:
    """The store's name, the layout and the environment, from the URI and from arguments."""
    address = urlsplit(uri or "")
    if not address.netloc or address.path.strip("/") or address.fragment:
        raise ConfigurationError(f"the URI of a storage is storeconf://STORE?layout=PATH&environment=NAME, not {uri!r}")
    given = parse_qs(address.query, keep_blank_values=True)
    for name, values in given.items():
        if name not in ("layout", "environment") or len(values) > 1:
            raise ConfigurationError(f"the URI of a storage takes layout and environment, once each; not {name!r}")
    if "layout" in given:
        if layout is not None:
            raise ConfigurationError("a layout is given both in the URI and as an argument")
        layout = given["layout"][0]
    if "environment" in given:
        if environment is not None:
            raise ConfigurationError("an environment is given both in the URI and as an argument")
        environment = given["environment"][0]
    return address.netloc, layout, environment
