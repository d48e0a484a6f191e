"""`typed`: stores whose values are of one type, validated by Pydantic; `cached`: functions whose results are kept.

Longer than other modules, because functions keep their results by the same rules as stores of one type.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import json
import sys
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, TypeVar, cast, get_type_hints, overload

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from storeconf._arguments import milliseconds
from storeconf._get_or_set import computed_instead
from storeconf._pace import Pace
from storeconf.errors import StoreError, StoreValueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
    from typing import Concatenate

    from storeconf.registry import StoreRegistry
    from storeconf.store import Expiry, PingResult, Store

__all__ = ["ArgumentKeys", "CachedFunction", "TypedStore", "cached", "typed"]

T = TypeVar("T")

_MOST_TRIES: Final = 100
"""Times that `pop` reads and removes before it gives up because others change the value all the time."""

_MOST_ERRORS: Final = 3


@overload
def typed(store: Store, type_: type[T], *, invalid: Literal["raise", "miss"] = "raise") -> TypedStore[T]: ...
@overload
def typed(store: Store, type_: Any, *, invalid: Literal["raise", "miss"] = "raise") -> TypedStore[Any]: ...
def typed(store: Store, type_: Any, *, invalid: Literal["raise", "miss"] = "raise") -> TypedStore[Any]:
    """Return a view of a store whose values are of one type: any that Pydantic's ``TypeAdapter`` accepts.

    A stored value that does not validate raises StoreValueError; with ``invalid="miss"`` it reads as missing, and
    ``get_or_set`` replaces it. Raises TypeError for a type that Pydantic can't validate. For a union, which is not a
    class, annotate the result: ``prices: TypedStore[int | None] = typed(store, int | None)``.
    """
    return TypedStore(store, type_, invalid=invalid)


class TypedStore(Generic[T]):
    """Values of one type in a store of bytes; see `typed`. All operations are those of `Store`.

    A value of None is stored like any other, but ``get``, ``pop`` and ``compare_and_set`` use None for a missing one.
    """

    def __init__(self, store: Store, type_: Any, *, invalid: Literal["raise", "miss"] = "raise") -> None:
        if invalid not in ("raise", "miss"):
            raise ValueError(f"invalid is 'raise' or 'miss', not {invalid!r}")
        self.store: Store = store
        """The store of bytes."""
        self._misses = invalid == "miss"
        self._type = type_
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise TypeError(f"Pydantic can't validate {_name(type_)}: {error}") from error
        # Fields are stored under their own names, and read by any: so every alias that a model may have comes back.
        self._validate: Callable[[bytes], T] = functools.partial(
            self._adapter.validate_json, by_alias=True, by_name=True
        )

    def __repr__(self) -> str:
        return f"<TypedStore of {_name(self._type)} in {self.store!r}>"

    def with_namespace(self, namespace: str) -> TypedStore[T]:
        """Return the typed store of a namespace below this one; see `Store.with_namespace`."""
        child = TypedStore.__new__(TypedStore)
        child.__dict__.update(self.__dict__)
        child.store = self.store.with_namespace(namespace)
        return cast("TypedStore[T]", child)

    # ------------------------------------------------------------------ values

    def _dump(self, operation: str, value: T) -> bytes:
        try:
            return self._adapter.dump_json(value, by_alias=False, round_trip=True, warnings="error")
        except (PydanticSerializationError, ValueError) as error:
            raise StoreValueError(
                f"a value of class {type(value).__name__} can't be stored as {_name(self._type)}",
                store=self.store.name,
                operation=operation,
            ) from (error if isinstance(error, RecursionError) else None)

    def _invalid(self, operation: str, key: str, error: ValidationError) -> StoreValueError:
        # Neither the value nor a part of it may be in the message.
        kinds = [each["type"] for each in error.errors(include_url=False, include_context=False, include_input=False)]
        shown = ", ".join(list(dict.fromkeys(kinds))[:_MOST_ERRORS])
        return StoreValueError(
            f"the value of {key!r} is not valid as {_name(self._type)}: {shown}",
            store=self.store.name,
            operation=operation,
        )

    def _load(self, operation: str, key: str, data: bytes | None) -> T | None:
        if data is None:
            return None
        try:
            return self._validate(data)
        except ValidationError as error:
            if self._misses:
                return None
            raise self._invalid(operation, key, error) from None

    def _accepts(self, data: bytes) -> bool:
        try:
            self._validate(data)
        except ValidationError:
            return False
        return True

    async def get(self, key: str, renew_for: Expiry | None = None) -> T | None:
        """See `Store.get`."""
        return self._load("get", key, await self.store.get(key, renew_for))

    async def set(self, key: str, value: T, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        await self.store.set(key, self._dump("set", value), expires_in, keep_ttl=keep_ttl)

    async def add(self, key: str, value: T, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        return await self.store.add(key, self._dump("add", value), expires_in)

    async def pop(self, key: str) -> T | None:
        """See `Store.pop`. A value that is not valid stays where it is."""
        if "compare_and_set" not in self.store.capabilities.atomic:
            return self._load("pop", key, await self.store.pop(key))
        for _ in range(_MOST_TRIES):
            data = await self.store.get(key)
            value = self._load("pop", key, data)
            if data is None or (value is None and not self._accepts(data)):
                return None
            if await self.store.compare_and_set(key, data, None):
                return value
        raise StoreError(
            f"the value changed during each of {_MOST_TRIES} tries", store=self.store.name, operation="pop"
        )

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """See `Store.get_many`."""
        values: dict[str, T] = {}
        found = await self.store.get_many(keys)
        pace = Pace()
        for key, data in found.items():
            try:
                values[key] = self._validate(data)
            except ValidationError as error:
                if not self._misses:
                    raise self._invalid("get_many", key, error) from None
            if pace.due():
                await pace.rest()
        return values

    async def set_many(self, mapping: Mapping[str, T], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        items: dict[str, bytes] = {}
        pace = Pace()
        for key, value in list(mapping.items()):
            items[key] = self._dump("set_many", value)
            if pace.due():
                await pace.rest()
        await self.store.set_many(items, expires_in)

    async def get_or_set(
        self,
        key: str,
        factory: Callable[[], T | Awaitable[T]],
        expires_in: Expiry | None = None,
        *,
        background: bool = False,
    ) -> T:
        """See `Store.get_or_set`. With ``invalid="miss"`` a value that is not valid is replaced."""
        dumping = _Dumping(self._dump, factory)
        data = await self.store.get_or_set(key, dumping, expires_in, background=background)
        try:
            return self._validate(data)
        except ValidationError as error:
            if not self._misses:
                raise self._invalid("get_or_set", key, error) from None
        data = await computed_instead(self.store, key, dumping, expires_in, self._accepts, background)
        try:
            return self._validate(data)
        except ValidationError as error:
            raise self._invalid("get_or_set", key, error) from None

    async def compare_and_set(
        self,
        key: str,
        old: T | None,
        new: T | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`. The stored JSON is compared."""
        before = None if old is None else self._dump("compare_and_set", old)
        after = None if new is None else self._dump("compare_and_set", new)
        return await self.store.compare_and_set(key, before, after, expires_in, keep_ttl=keep_ttl)

    # ------------------------------------------------------------------ the same for all types

    async def delete(self, key: str) -> bool | None:
        """See `Store.delete`."""
        return await self.store.delete(key)

    async def delete_many(self, keys: Iterable[str]) -> int | None:
        """See `Store.delete_many`."""
        return await self.store.delete_many(keys)

    async def delete_all(self) -> None:
        """See `Store.delete_all`."""
        await self.store.delete_all()

    async def delete_expired(self) -> None:
        """See `Store.delete_expired`."""
        await self.store.delete_expired()

    async def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        return await self.store.exists(key)

    async def expires_in(self, key: str) -> int | None:
        """See `Store.expires_in`."""
        return await self.store.expires_in(key)

    async def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """See `Store.touch`."""
        return await self.store.touch(key, expires_in)

    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`: a counter is an integer in JSON, too."""
        return await self.store.increment(key, by, expires_in)

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `Store.keys`."""
        return self.store.keys(prefix)

    def walk(self) -> AsyncGenerator[tuple[tuple[str, ...], str]]:
        """See `Store.walk`."""
        return self.store.walk()

    def raw_key(self, key: str) -> str | None:
        """See `Store.raw_key`."""
        return self.store.raw_key(key)

    async def ping(self) -> PingResult:
        """See `Store.ping`."""
        return await self.store.ping()


class _Dumping(Generic[T]):
    """A factory of bytes for a factory of values."""

    def __init__(self, dump: Callable[[str, T], bytes], factory: Callable[[], T | Awaitable[T]]) -> None:
        self._dump = dump
        self._factory = factory

    def __call__(self) -> bytes | Awaitable[bytes]:
        made = self._factory()
        return self._awaited(made) if inspect.isawaitable(made) else self._dump("get_or_set", made)

    async def _awaited(self, made: Awaitable[T]) -> bytes:
        return self._dump("get_or_set", await made)


def _name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else str(type_)


# ---------------------------------------------------------------- cached functions


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
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio's mark for it before 3.12
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
