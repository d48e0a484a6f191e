"""The built-in middleware; here the bases: pass everything through, or send every call through one guard.

A middleware store holds the store inside it and shares its root: life cycle, namespaces and single flight work as if
the middleware were not there. Methods that a class does not override cost nothing, because those of the store inside
are put in their place when they are first asked for.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from storeconf._contract import check_store_class
from storeconf._root import TRANSLATED, hook_of, life_of, taken_over, targets_of, translated
from storeconf._single_flight import is_storing
from storeconf.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from storeconf.operations import METHODS, OPERATIONS, Operation
from storeconf.store import Capabilities, Expiry, ExpiryRules, Store, Value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType

    from storeconf._root import RootLife

__all__ = [
    "CatchingStore",
    "GuardedStore",
    "StoreWrapper",
    "Wrapped",
    "bind_again",
    "pass_through",
    "within_guards",
    "without_policies",
]

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W", bound="StoreWrapper")

_FREE: Final = frozenset(
    {
        "_kept",
        "capabilities",
        "default_expiry",
        "expiry_rules",
        "is_policy",
        "keeps_keys",
        "max_size",
        "tolerates_outages",
    }
)
"""The attributes that a wrapper may set as it likes."""


class Wrapped(Generic[P, R]):
    """An attribute of a handle that is a method of the store inside, bound when it is first asked for, then kept.

    As ``_get = Wrapped(Store.get)`` it is how a class calls the store inside without a look-up at each call; under the
    method's own name it leaves that operation as it is. Most handles are asked for few of theirs, and a layout may have
    thousands of handles.
    """

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    @overload
    def __get__(self, handle: None, kind: type) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def __get__(self, handle: StoreWrapper, kind: type) -> Callable[P, R]: ...
    def __get__(self, handle: StoreWrapper | None, kind: type) -> Any:
        if handle is None:
            return self._method
        method = getattr(handle.wrapped, self._method.__name__)
        if getattr(kind, self._attribute) is self._method:  # not so where an override asks for ``super()``'s
            setattr(handle, self._attribute, method)
        return method


def pass_through(*operations: str) -> Callable[[type[W]], type[W]]:
    """Return a decorator for wrappers that leave these operations as they are, even if their bases change them."""

    def decorate(kind: type[W]) -> type[W]:
        for name in operations:
            _add(kind, name, Wrapped(getattr(Store, name)))
        return kind

    return decorate


def _add(kind: type, name: str, wrapped: Wrapped[..., Any]) -> None:
    wrapped.__set_name__(kind, name)
    setattr(kind, name, wrapped)


@pass_through(*METHODS)
class StoreWrapper(Store):
    """A store around another one. Override the operations that the middleware changes, and call ``self.wrapped``'s.

    ``get_or_set`` needs no override: it is made of the outermost store's ``get``, ``add``, ``compare_and_set`` and
    ``set``.
    """

    wrapped: Store

    is_policy: ClassVar[bool] = True
    """Whether a class restricts the calls or their results, and not only how the backend is reached and read."""

    keeps_keys: ClassVar[bool] = False
    """Whether a class that overrides `keys` yields the keys of the store inside as they are."""

    _kept: ClassVar[frozenset[str]] = frozenset({*METHODS, *(f"_wrapped_{method}" for method in METHODS)})
    """The attributes that may hold methods of the store inside."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_store_class(cls, Store, _FREE)
        for name, method in taken_over(cls, TRANSLATED):
            setattr(cls, name, translated(name, method))
        cls._kept |= {name for name, attribute in vars(cls).items() if isinstance(attribute, Wrapped)}

    def __init__(self, inner: Store) -> None:
        self._bind(inner)

    def _bind(self, inner: Store) -> None:
        self.wrapped = inner
        if (on_wrap := inner._on_wrap) is not None:  # noqa: SLF001  # an attribute of every store
            self._on_wrap = on_wrap
            on_wrap(self)
        # The two that must be fast are taken at once: an attribute that the class has as well is slower.
        self._get, self._set = inner.get, inner.set
        self._life = life_of(inner)
        self._root = inner.root
        self._hooks = inner.root  # type: ignore[assignment]  # the root of every store is a StoreBase
        self._path = inner.namespaces
        if (refresh := inner._refresh) is not None:  # noqa: SLF001  # an attribute of every store
            self._refresh = refresh
        self.capabilities: Capabilities = inner.capabilities
        self.tolerates_outages: bool = type(self).tolerates_outages or inner.tolerates_outages
        self.on_bind()

    def on_bind(self) -> None:
        """Prepare this handle: ``wrapped`` is set.

        Called at making, again for the handle of each namespace, and after a reload that has given the handle inside,
        one that a registry gave out, another store.
        """

    def pass_through(self, *operations: str) -> None:
        """Leave these operations of this handle as they are; to be called in `on_bind`."""
        for name in operations:
            setattr(self, name, getattr(self.wrapped, name))

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace below this one, with the same middleware around it."""
        inner = self.wrapped.with_namespace(namespace)
        with hook_of(self, "with_namespace"):
            return self.around_another(inner)

    def around_another(self, inner: Store) -> Self:
        """Return this middleware around another store of the same root."""
        link = type(self).__new__(type(self))
        state = object.__getstate__(self)
        for values in state if isinstance(state, tuple) else (state,):  # those of slots are apart
            for name, value in list(values.items()):  # in one step: another thread may keep a method meanwhile
                if name not in self._kept:
                    setattr(link, name, value)  # by setattr: an object whose ``__dict__`` is used becomes slower
        link._bind(inner)  # noqa: SLF001  # of this class
        return link

    async def __aenter__(self) -> Self:  # type: ignore[override]  # as in `Store`
        if self._on_wrap is None:
            return await super().__aenter__()
        await self.wrapped.__aenter__()  # which a reload lets hold another root
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_wrap is None:
            await super().__aexit__(kind, error, trace)
        else:
            await self.wrapped.__aexit__(kind, error, trace)

    async def _pop_nothing(self, key: str) -> None:
        """Count a ``pop`` that finds nothing, and does not call the wrapped store, as a deletion."""
        for life, path in self._targets():
            await life.overtake(self, path, (key,), "pop")

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]:
        return targets_of(self.wrapped)

    @property
    def expiry_rules(self) -> ExpiryRules:
        """The rules of the store inside."""
        return self.wrapped.expiry_rules

    @property
    def name(self) -> str:
        """The name of the store inside."""
        return self.wrapped.name

    @name.setter
    def name(self, name: str) -> None:
        self.wrapped.name = name

    def __repr__(self) -> str:
        if not hasattr(self, "wrapped"):
            return super().__repr__()
        return f"<{type(self).__name__} around {self.wrapped!r}>"


def bind_again(wrapper: StoreWrapper) -> None:
    """Let a wrapper take its kept attributes from the store inside again, because that leads to another one now."""
    for name in wrapper._kept | {"_refresh"}:  # noqa: SLF001  # of this module
        with suppress(AttributeError):  # it has not been asked for; using ``__dict__`` makes objects slower
            delattr(wrapper, name)
    wrapper._bind(wrapper.wrapped)  # noqa: SLF001  # of this module


def without_policies(store: Store) -> Store:
    """Return a store without its middleware, except for the links that are needed to reach and to read its backend."""
    if not isinstance(store, StoreWrapper):
        return store
    inner = without_policies(store.wrapped)
    if store.is_policy:
        return inner
    return store if inner is store.wrapped else store.around_another(inner)


def within_guards(
    store: Store, operation: str, call: Callable[[Store], Callable[..., Coroutine[Any, Any, R]]]
) -> Callable[..., Coroutine[Any, Any, R]] | None:
    """Return a call on the store below all middleware, each of which guards it as it does that operation.

    The arguments begin with those of the operation. Return None if one of them does more than to guard the operation.
    """
    if not isinstance(store, StoreWrapper):
        return call(store)
    method = OPERATIONS[operation].method
    if not isinstance(store, GuardedStore) or getattr(type(store), method) is not getattr(GuardedStore, method):
        return None
    inner = within_guards(store.wrapped, operation, call)
    return None if inner is None else partial(store.around, operation, inner)


class GuardedStore(StoreWrapper):
    """A wrapper that treats all operations alike: each call goes through `around`, ``keys`` through `around_keys`.

    Its methods follow from the table of operations; those that must be fast are written out.
    """

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run ``call(*args, **kwargs)``, the operation of that name on the store inside.

        ``args`` are the positional arguments in the order of the method, however the caller gave them; ``kwargs`` is
        ``keep_ttl=True`` or empty.
        """
        raise NotImplementedError

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Iterate over the keys of the store inside."""
        async for key in keys:
            yield key

    def get(self, key: str, renew_for: Expiry | None = None) -> Coroutine[Any, Any, bytes | None]:
        """See `Store.get`; with ``renew_for`` the operation is ``renew``."""
        if renew_for is None:
            return self.around("get", self._get, key)
        return self.around("renew", self._get, key, renew_for)

    def set(
        self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False
    ) -> Coroutine[Any, Any, None]:
        """See `Store.set`."""
        if keep_ttl:
            return self.around("set", self._set, key, value, expires_in, keep_ttl=True)
        return self.around("set", self._set, key, value, expires_in)

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `Store.keys`."""
        return self.around_keys(self.wrapped.keys(prefix))


def _guarded(operation: Operation) -> Callable[..., Any]:
    """Return the method of `GuardedStore` for an operation, with the signature of `Store`'s."""
    name, inner = operation.name, f"_wrapped_{operation.method}"
    method = getattr(Store, operation.method)
    code = method.__code__
    names = code.co_varnames[1 : code.co_argcount]
    defaults = method.__defaults__ or ()
    needed = len(names) - len(defaults)
    of_many = operation.target == "keys" and names[0] == "keys"

    def in_order(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Move named arguments to their places, so that a guard finds each by its position."""
        try:
            given = [kwargs.pop(name) for name in names[len(args) : needed]]
        except KeyError:
            inspect.signature(method).bind(None, *args, **kwargs)  # raises as the method itself would
            raise
        given += [
            kwargs.pop(name, default)
            for name, default in zip(names[needed:], defaults, strict=True)
            if name not in names[: len(args)]
        ]
        if not kwargs.get("keep_ttl", True):
            del kwargs["keep_ttl"]
        return (*args, *given)

    @wraps(method)
    def guarded(self: GuardedStore, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        if kwargs or not needed <= len(args) <= len(names):
            args = in_order(args, kwargs)
        if of_many and not isinstance(args[0], str | bytes):
            args = (list(args[0]),)  # because a guard may need the keys a second time
        return self.around(name, getattr(self, inner), *args, **kwargs)

    return guarded


for _method, _operation in METHODS.items():
    if _method not in vars(GuardedStore):
        _add(GuardedStore, f"_wrapped_{_method}", Wrapped(getattr(Store, _method)))
        setattr(GuardedStore, _method, _guarded(_operation))


class CatchingStore(GuardedStore):
    """A wrapper that acts only when the backend was unavailable: see `on_unavailable`.

    If it ``tolerates_outages``, a value that `get_or_set` stores by ``add`` is treated as one that is set.
    """

    async def on_unavailable(
        self,
        operation: str,
        error: StoreError,
        call: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return the result for a call that has just raised ``error``, or raise; the rest is as for `around`."""
        raise NotImplementedError

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call; `on_unavailable` decides about a failure."""
        try:
            return await call(*args, **kwargs)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if operation == "add" and type(self).tolerates_outages and is_storing():
                return await self.on_unavailable("set", error, self._set, *args)
            return await self.on_unavailable(operation, error, call, *args, **kwargs)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps."""
        try:
            return await self._get(key, renew_for)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if renew_for is None:
                return await self.on_unavailable("get", error, self._get, key)  # type: ignore[no-any-return]  # results of all operations are untyped
            return await self.on_unavailable("renew", error, self._get, key, renew_for)  # type: ignore[no-any-return]  # as above

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """As `around` does, in fewer steps."""
        try:
            if keep_ttl:
                await self._set(key, value, expires_in, keep_ttl=True)
            else:
                await self._set(key, value, expires_in)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            kwargs = {"keep_ttl": True} if keep_ttl else {}
            await self.on_unavailable("set", error, self._set, key, value, expires_in, **kwargs)
