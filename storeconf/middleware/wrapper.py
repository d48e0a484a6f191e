"""The bases of middleware stores: pass everything through, or send every call through one guard.

A middleware store holds the store inside it and shares its root: life cycle, namespaces and single flight work as if
the middleware were not there. What a class does not override costs nothing, because the methods of the store inside
are put in its place when they are first asked for.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from storeconf._flights import is_storing
from storeconf.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from storeconf.store import Capabilities, Expiry, ExpiryRules, Store, Value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping

__all__ = ["CatchingStore", "GuardedStore", "StoreWrapper", "pass_through"]

OPERATIONS = (
    "add",
    "delete",
    "delete_all",
    "delete_expired",
    "delete_many",
    "exists",
    "expires_in",
    "get",
    "get_many",
    "get_with_expiry",
    "increment",
    "keys",
    "ping",
    "pop",
    "compare_and_set",
    "set",
    "set_many",
    "touch",
)

W = TypeVar("W", bound="StoreWrapper")


class _Passed:
    """An operation that is left as it is: the method of the store inside, which the handle keeps once it was asked for.

    Most handles are asked for few of theirs, and a layout may have thousands of handles.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, handle: StoreWrapper | None, kind: type[StoreWrapper]) -> Any:
        own = getattr(Store, self._name)
        if handle is None:
            return own
        method = getattr(handle.wrapped, self._name)
        if getattr(kind, self._name) is own:  # not so where an override asks for ``super()``'s
            setattr(handle, self._name, method)
        return method


def pass_through(*operations: str) -> Callable[[type[W]], type[W]]:
    """Return a decorator for wrappers that leave these operations as they are, whatever their bases do."""

    def decorate(kind: type[W]) -> type[W]:
        for name in operations:
            setattr(kind, name, _Passed(name))
        return kind

    return decorate


@pass_through(*OPERATIONS)
class StoreWrapper(Store):
    """A store around another one. Override the operations that the middleware changes, and call ``self.wrapped``'s.

    ``get_or_set`` needs no override: it is made of the outermost store's ``get``, ``add``, ``compare_and_set`` and
    ``set``.
    """

    wrapped: Store

    keeps_keys: ClassVar[bool] = False
    """Whether a class that overrides `keys` yields the keys of the store inside as they are."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Not the base's: of changes the store inside tells, when it is asked for them.
        super(Store, cls).__init_subclass__(**kwargs)

    def __init__(self, inner: Store) -> None:
        self._bind(inner)

    def _bind(self, inner: Store) -> None:
        if hasattr(self, "wrapped"):  # a copy, which has kept methods of another store
            for name in OPERATIONS:
                self.__dict__.pop(name, None)
        self.wrapped = inner
        self._root = inner.root
        self._path = inner.namespaces
        self.capabilities: Capabilities = inner.capabilities
        self.tolerates_outages: bool = type(self).tolerates_outages or inner.tolerates_outages
        self.on_bind()

    def on_bind(self) -> None:
        """Prepare this handle: ``wrapped`` is set. Called at making, and again for the handle of each namespace."""

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, with the same middleware around it."""
        child = copy.copy(self)
        child._bind(self.wrapped.with_namespace(namespace))
        return child

    async def _pop_nothing(self, key: str) -> None:
        """What ``pop`` does that finds nothing, and asks the wrapped store for nothing: it counts as a deletion."""
        for root, path in self._targets():
            await root._flights.overtake(path, (key,))

    def _targets(self) -> list[tuple[Store, tuple[str, ...]]]:
        return self.wrapped._targets()

    @property
    def expiry_rules(self) -> ExpiryRules:
        """Those of the store inside."""
        return self.wrapped.expiry_rules

    @property
    def name(self) -> str:
        """The name of the store inside."""
        return self.wrapped.name

    @name.setter
    def name(self, name: str) -> None:
        self.wrapped.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self.wrapped!r}>"


class _Methods(dict[str, Any]):
    """The methods of the store inside, each taken when it is first called: most handles use few of them."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __missing__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self._inner, name)
        self[name] = method
        return method


class GuardedStore(StoreWrapper):
    """A wrapper that treats all operations alike: each call goes through `around`, ``keys`` through `around_keys`."""

    async def around(self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Run ``call(*args)``, the operation of that name on the store inside."""
        raise NotImplementedError

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Iterate over the keys of the store inside."""
        async for key in keys:
            yield key

    def on_bind(self) -> None:
        """Take the methods of the store inside once, not at each call."""
        self._at = _Methods(self.wrapped)

    def get(self, key: str, renew_for: Expiry | None = None) -> Coroutine[Any, Any, bytes | None]:
        """See `Store.get`."""
        if renew_for is None:
            return self.around("get", self._at["get"], key)
        return self.around("renew", self._at["get"], key, renew_for)

    def set(
        self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False
    ) -> Coroutine[Any, Any, None]:
        """See `Store.set`."""
        if keep_ttl:
            return self.around("set", self._set_keeping, key, value, expires_in)
        return self.around("set", self._at["set"], key, value, expires_in)

    def _set_keeping(self, key: str, value: Value, expires_in: Expiry | None) -> Coroutine[Any, Any, None]:
        return self.wrapped.set(key, value, expires_in, keep_ttl=True)

    def delete(self, key: str) -> Coroutine[Any, Any, bool | None]:  # type: ignore[override]  # as in `Store`
        """See `Store.delete`."""
        return self.around("delete", self._at["delete"], key)

    def exists(self, key: str) -> Coroutine[Any, Any, bool]:
        """See `Store.exists`."""
        return self.around("exists", self._at["exists"], key)

    def expires_in(self, key: str) -> Coroutine[Any, Any, int | None]:
        """See `Store.expires_in`."""
        return self.around("expires_in", self._at["expires_in"], key)

    def delete_all(self) -> Coroutine[Any, Any, None]:
        """See `Store.delete_all`."""
        return self.around("delete_all", self._at["delete_all"])

    def delete_expired(self) -> Coroutine[Any, Any, None]:
        """See `Store.delete_expired`."""
        return self.around("delete_expired", self._at["delete_expired"])

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `Store.keys`."""
        return self.around_keys(self.wrapped.keys(prefix))

    def get_many(self, keys: Iterable[str]) -> Coroutine[Any, Any, dict[str, bytes]]:
        """See `Store.get_many`."""
        # A list, because a guard may need the keys a second time.
        return self.around("get_many", self._at["get_many"], keys if isinstance(keys, str | bytes) else list(keys))

    def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> Coroutine[Any, Any, None]:
        """See `Store.set_many`."""
        return self.around("set_many", self._at["set_many"], mapping, expires_in)

    def delete_many(self, keys: Iterable[str]) -> Coroutine[Any, Any, int | None]:
        """See `Store.delete_many`."""
        return self.around(
            "delete_many", self._at["delete_many"], keys if isinstance(keys, str | bytes) else list(keys)
        )

    def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> Coroutine[Any, Any, bool]:
        """See `Store.add`."""
        return self.around("add", self._at["add"], key, value, expires_in)

    def touch(self, key: str, expires_in: Expiry | None) -> Coroutine[Any, Any, bool]:
        """See `Store.touch`."""
        return self.around("touch", self._at["touch"], key, expires_in)

    def pop(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        """See `Store.pop`."""
        return self.around("pop", self._at["pop"], key)

    def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> Coroutine[Any, Any, int]:
        """See `Store.increment`."""
        return self.around("increment", self._at["increment"], key, by, expires_in)

    def get_with_expiry(self, key: str) -> Coroutine[Any, Any, tuple[bytes, float | None] | None]:
        """See `Store.get_with_expiry`."""
        return self.around("get_with_expiry", self._at["get_with_expiry"], key)

    def compare_and_set(
        self,
        key: str,
        old: bytes | None,
        new: bytes | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> Coroutine[Any, Any, bool]:
        """See `Store.compare_and_set`."""
        if keep_ttl:
            return self.around("compare_and_set", self._compare_and_set_keeping, key, old, new, expires_in)
        return self.around("compare_and_set", self._at["compare_and_set"], key, old, new, expires_in)

    def _compare_and_set_keeping(
        self, key: str, old: bytes | None, new: bytes | None, expires_in: Expiry | None
    ) -> Coroutine[Any, Any, bool]:
        return self.wrapped.compare_and_set(key, old, new, expires_in, keep_ttl=True)


class CatchingStore(GuardedStore):
    """A wrapper that acts only when the backend was unavailable: see `on_unavailable`.

    If it ``tolerates_outages``, a value that `get_or_set` stores by ``add`` is treated as one that is set.
    """

    async def on_unavailable(
        self, operation: str, error: StoreError, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Any:
        """Return what ``call(*args)``, which has just raised ``error``, is to return instead, or raise."""
        raise NotImplementedError

    async def around(self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Run the call; what to do about a failure is `on_unavailable`'s to say."""
        try:
            return await call(*args)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if operation == "add" and type(self).tolerates_outages and is_storing():
                return await self.on_unavailable("set", error, self._at["set"], *args)
            return await self.on_unavailable(operation, error, call, *args)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`."""
        try:
            return await self._at["get"](key, renew_for)  # type: ignore[no-any-return]  # methods are kept untyped
        except (StoreUnavailableError, StoreTimeoutError) as error:
            operation = "get" if renew_for is None else "renew"
            return await self.on_unavailable(operation, error, self._at["get"], key, renew_for)  # type: ignore[no-any-return]  # likewise

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        try:
            if keep_ttl:
                await self._set_keeping(key, value, expires_in)
            else:
                await self._at["set"](key, value, expires_in)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            call = self._set_keeping if keep_ttl else self._at["set"]
            await self.on_unavailable("set", error, call, key, value, expires_in)
