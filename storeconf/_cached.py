"""`cached`: a decorator that keeps what an async function returns in a store, by its arguments."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import json
import sys
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, get_type_hints, overload

from storeconf._arguments import milliseconds
from storeconf._typed import TypedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from storeconf.registry import StoreRegistry
    from storeconf.store import Expiry, Store

__all__ = ["ArgumentKeys", "CachedFunction", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

MOST_BYTES: Final = 200
"""The longest key that spells out the arguments; longer ones hold their hash."""

_encode: Final = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":")).encode

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def cached(
    store: Store | str,
    registry: StoreRegistry | None = None,
    *,
    expires_in: Expiry | None = None,
    key: Callable[..., str] | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], CachedFunction[P, R]]:
    """Return a decorator that keeps the results of an async function in a store.

    Concurrent calls with the same arguments share one run. Values are of the type that the function is annotated to
    return, None included, and stored as JSON; one that does not validate is computed again. ``expires_in`` is as for
    `Store.set`. A ``store`` may be the name of one in a ``registry``, looked up at the first call.

    ``key`` makes the key from the arguments. Without it, the key is the function's qualified name and the arguments as
    JSON, bound to their names with defaults applied, or their hash if they are long; arguments that are not JSON raise
    TypeError. Methods need ``key``, because an object is not JSON.
    """
    if isinstance(store, str) and registry is None:
        raise TypeError(f"a store's name needs its registry: cached({store!r}, registry)")
    if expires_in is not None:
        milliseconds(expires_in)

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> CachedFunction[P, R]:
        return CachedFunction(function, store, registry, expires_in, key)

    return decorate


class CachedFunction(Generic[P, R]):
    """An async function whose results are kept in a store; see `cached`."""

    __wrapped__: Callable[P, Coroutine[Any, Any, R]]
    __name__: str
    __qualname__: str

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        store: Store | str,
        registry: StoreRegistry | None,
        expires_in: Expiry | None,
        key: Callable[..., str] | None,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"cached() decorates async functions, and {_called(function)} is not one")
        if "return" not in getattr(function, "__annotations__", {}):
            raise TypeError(f"annotate what {_called(function)} returns: cached values are validated by that type")
        functools.update_wrapper(self, function)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001  # what asyncio has for it before 3.12
        self._function = function
        self._store, self._registry, self._expires_in = store, registry, expires_in
        self._key = ArgumentKeys(function) if key is None else key
        self._object: tuple[Any, ...] = ()  # that a method is bound to
        self._origin: CachedFunction[..., R] = self
        self._typed: TypedStore[R] | None = None

    @overload
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> CachedFunction[..., R]:
        if instance is None:
            return self
        bound: CachedFunction[..., R] = CachedFunction.__new__(CachedFunction)
        bound.__dict__.update(self.__dict__)
        bound._object = (instance,)  # of this class
        return bound

    @property
    def values(self) -> TypedStore[R]:
        """The store in which the results are, as values of the type that the function returns."""
        origin = self._origin
        values = origin._typed  # noqa: SLF001  # of this class
        if values is None:
            store = self._store
            if isinstance(store, str):
                assert self._registry is not None
                store = self._registry.get(store)
            returns = get_type_hints(self._function, include_extras=True)["return"]
            values = origin._typed = TypedStore(store, returns, invalid="miss")  # noqa: SLF001  # of this class
        return values

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result that is in the store, or run the function."""
        values = self._origin._typed or self.values  # noqa: SLF001  # of this class
        if self._object:
            return await values.get_or_set(
                self._key(*self._object, *args, **kwargs),
                functools.partial(self._function, *self._object, *args, **kwargs),
                self._expires_in,
                background=True,
            )
        return await values.get_or_set(
            self._key(*args, **kwargs),
            functools.partial(self._function, *args, **kwargs),
            self._expires_in,
            background=True,
        )

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments."""
        return self._key(*self._object, *args, **kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool | None:
        """Delete the result for these arguments; return whether there was one, as `Store.delete` does."""
        return await self.values.delete(self.key(*args, **kwargs))


class ArgumentKeys:
    """The default keys of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        outer = function.__qualname__.rpartition(".")[0]
        if outer and not outer.endswith("<locals>"):
            raise TypeError(f"{_called(function)} is a method: give cached() a key=, made of the arguments that matter")
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        # Positional arguments for all parameters, or defaults for the rest, need no binding.
        plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)
        self._names = tuple(self._signature.parameters) if plain else None
        self._defaults = {each.name: each.default for each in parameters if each.default is not each.empty}

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        names = self._names
        if names is not None and not kwargs and len(args) == len(names):
            bound = dict(zip(names, args, strict=True))
        else:
            arguments = self._signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            bound = dict(arguments.arguments)
        try:
            for name, value in bound.items():
                if value.__class__ not in _SCALARS:
                    self._check(name, value)
            key = f"{self._name}:{_encode(bound)}"
        except (TypeError, ValueError, RecursionError) as error:
            raise self._not_json(error) from None
        if len(key) <= MOST_BYTES:
            return key
        digest = hashlib.sha256(key.encode()).hexdigest()
        return f"{self._name[: MOST_BYTES - len(digest) - 1]}#{digest}"

    def _check(self, name: str, value: Any) -> None:
        """Raise TypeError for a mapping that JSON would confuse with another one."""
        if isinstance(value, dict):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{name!r} has a key of class {type(key).__name__}")
                self._check(name, each)
        elif isinstance(value, list | tuple):
            for each in value:
                self._check(name, each)

    def _not_json(self, reason: object) -> TypeError:
        return TypeError(f"the arguments of {self._name} are not JSON ({reason}): give cached() a key=")


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
