"""An existing subclass of Litestar's ``Store`` as a store of ours, so that it becomes a backend in a few lines."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from storeconf.errors import StoreError, StoreUnavailableError, StoreValueError, UnsupportedOperationError
from storeconf.store import Capabilities, StoreBase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from litestar.stores.base import Store as LitestarStore

__all__ = ["LitestarBacked"]

T = TypeVar("T")

_TOO_LONG = "the expiry is too long for a store that was written for Litestar"


class LitestarBacked(StoreBase):
    """Keeps its entries in a store that was written for Litestar, whose values and plain keys stay as they are.

    Operations that such a store lacks raise `UnsupportedOperationError`: all atomic operations, ``keys``, and
    ``delete_all`` of a namespace. Expiries are rounded up to whole seconds, ``set(keep_ttl=True)`` reads before it
    writes, and several event loops are as welcome as they are to the store inside.
    """

    def __init__(self, inner: LitestarStore, *, persistent: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.wrapped = inner
        self.capabilities: Capabilities = Capabilities(
            persistent=persistent, shared=shared, resolution=1.0, lists=type(self).do_keys is not LitestarBacked.do_keys
        )

    async def do_open(self) -> None:
        """Enter the store inside."""
        await self._ask("open", self.wrapped.__aenter__())

    async def do_close(self) -> None:
        """Leave the store inside."""
        await self._ask("close", self.wrapped.__aexit__(None, None, None))

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """See `Store.get`."""
        name = _name(path, key)
        if renew is None:
            return await self._ask("get", self.wrapped.get(name))
        if renew > 0:
            return await self._ask("get", self.wrapped.get(name, _span(renew)))
        value = await self._ask("get", self.wrapped.get(name))
        if value is not None and await self._left("get", name) != -1:
            await self._ask("get", self.wrapped.delete(name))
        return value

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """See `Store.set`."""
        name = _name(path, key)
        if keep_ttl:
            left = await self._left("set", name)
            expiry = None if left is None or left < 0 else left
        await self._ask("set", self.wrapped.set(name, value, None if expiry is None else _span(expiry)), write=True)

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        """See `Store.delete`."""
        await self._ask("delete", self.wrapped.delete(_name(path, key)), write=True)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """See `Store.exists`."""
        # Not all of Litestar's own `exists` look at the expiry; all `get` do.
        return await self._ask("exists", self.wrapped.get(_name(path, key))) is not None

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """See `Store.expires_in`."""
        return await self._left("expires_in", _name(path, key))

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """See `Store.delete_all`."""
        if path:
            raise self._unsupported("delete_all", "has no delete_all() for one namespace")
        await self._ask("delete_all", self.wrapped.delete_all(), write=True)

    def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """See `Store.keys`."""
        raise self._unsupported("keys", "can't list its keys")

    async def _left(self, operation: str, name: str) -> int | None:
        seconds = await self._ask(operation, self.wrapped.expires_in(name))
        if seconds is not None and seconds >= 0:
            return (seconds + 1) * 1000  # Litestar's stores drop fractions of a second
        # For a key that never expires some return None, some -1; for a missing key some return -2.
        return None if await self._ask(operation, self.wrapped.get(name)) is None else -1

    async def _ask(self, operation: str, call: Awaitable[T], *, write: bool = False) -> T:
        try:
            return await call
        except StoreError:
            raise
        except OverflowError as error:  # as Litestar's stores do with a date after the year 9999
            raise StoreValueError(_TOO_LONG, operation=operation) from error
        except Exception as error:
            raise StoreUnavailableError(
                f"{type(self.wrapped).__name__} failed: {type(error).__name__}",
                operation=operation,
                outcome_unknown=write,
            ) from error

    def _unsupported(self, operation: str, why: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            f"store {self.name!r} can't do {operation}(): {type(self.wrapped).__name__}, written for Litestar, {why}",
            store=self.name,
            operation=operation,
        )


def _name(path: tuple[str, ...], key: str) -> str:
    """The key for the wrapped store: names contain no ':', so two pairs never collide."""
    if not path and "::" not in key:
        return key
    return f"{':'.join(path)}::{key}"


def _span(milliseconds: int) -> timedelta:
    try:
        return timedelta(seconds=-(-milliseconds // 1000))
    except OverflowError as error:
        raise StoreValueError(_TOO_LONG) from error
