"""`typed`: a store whose values are of one type, validated by Pydantic and stored as JSON."""

from __future__ import annotations

from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast, overload

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from storeconf._get_or_set import computed_instead
from storeconf.errors import StoreError, StoreValueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from storeconf.store import Expiry, PingResult, Store

__all__ = ["TypedStore", "typed"]

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
        self._validate: Callable[[bytes], T] = partial(self._adapter.validate_json, by_alias=True, by_name=True)

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
        for key, data in (await self.store.get_many(keys)).items():
            try:
                values[key] = self._validate(data)
            except ValidationError as error:
                if not self._misses:
                    raise self._invalid("get_many", key, error) from None
        return values

    async def set_many(self, mapping: Mapping[str, T], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        await self.store.set_many({key: self._dump("set_many", value) for key, value in mapping.items()}, expires_in)

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
        """See `Store.compare_and_set`. What is compared is the stored JSON."""
        before = None if old is None else self._dump("compare_and_set", old)
        after = None if new is None else self._dump("compare_and_set", new)
        return await self.store.compare_and_set(key, before, after, expires_in, keep_ttl=keep_ttl)

    # ------------------------------------------------------------------ what is the same for all types

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
        return self._awaited(made) if isawaitable(made) else self._dump("get_or_set", made)

    async def _awaited(self, made: Awaitable[T]) -> bytes:
        return self._dump("get_or_set", await made)


def _name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else str(type_)
