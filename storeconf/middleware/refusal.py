"""``limit`` and ``read_only``: calls that are refused before they reach the backend.

``limit`` refuses keys and values that are too large, and reads no larger ones; a handle with ``read_only`` reads and
never writes: it guards the handle, not the data.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf._pace import Pace
from storeconf.errors import (
    Damage,
    StoreError,
    StoreReadOnlyError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    report,
)
from storeconf.middleware import GuardedStore, pass_through
from storeconf.operations import METHODS, OPERATIONS, Operation, named
from storeconf.plugin import BuildContext, Middleware, Size
from storeconf.store import Expiry, Store, Value, key_text, milliseconds, value_bytes

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Limit", "ReadOnly"]


class Limit(Middleware):
    """The greatest sizes of keys and values."""

    kind: ClassVar[str] = "limit"
    shorthand_field: ClassVar[str | None] = "value_size"

    value_size: Size | None = Field(
        default=None,
        description="The greatest size of a value: a larger one is refused, and one that is stored already counts as "
        "damaged.",
        examples=["1MiB"],
    )
    key_size: Size | None = Field(
        default=None, description="The greatest size of a key in UTF-8; longer ones are refused.", examples=[512]
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.value_size is None and self.key_size is None:
            raise ValueError("give value_size, key_size, or both")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that refuses larger keys and values."""
        # `compress` applies this limit while it unpacks, so that no larger value comes from there.
        read_size = None if "compress" in context.chain else self.value_size
        return LimitStore(inner, self.key_size, self.value_size, read_size, context.logger)


_WITHOUT_VALUES = named(
    lambda operation: operation.target != "tree" and not (operation.stores or operation.gives_values)
)

_READING = named(lambda operation: operation.gives_values and operation.name == operation.method)


@pass_through(*named(lambda operation: operation.target == "tree"))
class LimitStore(GuardedStore):
    """Checks sizes on the way in, where a refused call has changed nothing, and those of values on the way out."""

    _runs_without_loop: ClassVar[bool] = True

    def __init__(
        self,
        inner: Store,
        key_size: int | None,
        value_size: int | None,
        read_size: int | None,
        logger: logging.Logger,
    ) -> None:
        self._key_size = key_size
        self._value_size = value_size
        self._read_size = read_size
        self._logger = logger
        # A character takes at most four bytes: keys of so few need no encoding to be known as short enough.
        self._short = sys.maxsize if key_size is None else key_size // 4
        self._small = sys.maxsize if value_size is None else value_size
        super().__init__(inner)

    def on_bind(self) -> None:
        """Pass operations through that have nothing to check."""
        if self._key_size is None:
            self.pass_through(*_WITHOUT_VALUES, *(_READING if self._read_size is None else ()))

    def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Check the arguments of the operation, then let it through as it is; a refusal comes when it is awaited."""
        row = OPERATIONS[operation]
        if row.target == "keys":
            return self._guard_many(row, call, *args)
        try:
            self._check_key(args[0], operation)
            if row.stores and (value := row.stored(args)) is not None:
                self._check_value(value, operation)
        except Exception as error:  # noqa: BLE001  # the arguments may be wrong in any way
            return _refused(error)
        if self._read_size is not None:
            if row.effect == "take":
                return self._popped(call, *args)
            if row.result == "entry":
                return self._with_expiry(call, *args)
        return call(*args, **kwargs)

    async def _guard_many(self, row: Operation, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        pace = Pace()
        if row.stores:
            for key, value in list(args[0].items()):
                self._check_key(key, row.name)
                self._check_value(value, row.name)
                if pace.due():
                    await pace.rest()
        elif self._key_size is not None:
            for key in args[0]:
                self._check_key(key, row.name)
                if pace.due():
                    await pace.rest()
        if row.result != "values" or self._read_size is None:
            return await call(*args)
        try:
            return await self._fitting_of(await call(*args))
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if isinstance(error.partial, dict):
                error.partial = await self._fitting_of(error.partial)
            raise

    async def _fitting_of(self, found: dict[str, bytes]) -> dict[str, bytes]:
        pace = Pace()
        fitting = {}
        for key, value in found.items():
            if self._fitting(key, value) is not None:
                fitting[key] = value
            if pace.due():
                await pace.rest()
        return fitting

    async def _with_expiry(
        self, call: Callable[..., Coroutine[Any, Any, Any]], key: str
    ) -> tuple[bytes, int | None] | None:
        found = await call(key)
        return None if found is None or self._fitting(key, found[0]) is None else found

    async def _popped(self, call: Callable[..., Coroutine[Any, Any, Any]], key: str) -> Any:
        # Looked at first: an entry that counts as damaged is not removed.
        try:
            value = self._fitting(key, await self._get(key))
        except StoreError as error:
            error.operation = "pop"
            raise
        if value is None:
            await self._pop_nothing(key)
            return None
        return self._fitting(key, await call(key))

    async def _renewed(self, key: str, renew_for: Expiry) -> Any:
        ends = self._check("get", milliseconds, renew_for) <= 0
        if ends and self._fitting(key, await self._get(key)) is None:
            await self._pop_nothing(key)
            return None
        return self._fitting(key, await self._get(key, renew_for))

    def _fitting(self, key: str, value: Any) -> Any:
        """Return a value that was read, or None, with a warning, for one that is too large."""
        limit = self._read_size
        if limit is None or not isinstance(value, str | bytes):  # an object has no size
            return value
        size = len(value) if isinstance(value, bytes) else len(value.encode())
        if size <= limit:
            return value
        reason = f"it has {size} bytes, and {limit} are allowed"
        report(Damage(self.name, self.namespaces, reason, key), self.root.on_damage, self._logger)
        return None

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps."""
        if key.__class__ is not str or len(key) > self._short:
            self._check_key(key, "get")
        if renew_for is not None:
            return await self._renewed(key, renew_for)  # type: ignore[no-any-return]  # values are untyped here
        value = await self._get(key)
        if value.__class__ is bytes and len(value) <= self._small:
            return value
        return self._fitting(key, value)  # type: ignore[no-any-return]  # as above

    def set(
        self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False
    ) -> Coroutine[Any, Any, None]:
        """As `around` does, in fewer steps."""
        if (
            key.__class__ is not str
            or len(key) > self._short
            or value.__class__ is not bytes
            or len(value) > self._small
        ):
            try:
                self._check_key(key, "set")
                self._check_value(value, "set")
            except Exception as error:  # noqa: BLE001  # as in `around`
                return _refused(error)
        if keep_ttl:
            return self._set(key, value, expires_in, keep_ttl=True)
        return self._set(key, value, expires_in)

    def _check_key(self, key: str, operation: str) -> None:
        limit = self._key_size
        if limit is None:
            return
        if len(self._check(operation, key_text, key)) > self._short and (size := len(key.encode())) > limit:
            raise StoreValueError(
                f"the key has {size} bytes, {self.name!r} takes {limit}", store=self.name, operation=operation
            )

    def _check_value(self, value: Value, operation: str) -> None:
        limit = self._value_size
        if limit is None or (self.capabilities.objects and not isinstance(value, str | bytes)):
            return
        size = len(value) if value.__class__ is bytes else len(self._check(operation, value_bytes, value))
        if size > limit:
            raise StoreValueError(
                f"the value has {size} bytes, {self.name!r} takes {limit}", store=self.name, operation=operation
            )


async def _refused(error: Exception) -> Any:
    raise error


# ---------------------------------------------------------------- writes


class ReadOnly(Middleware):
    """Refuse everything that would change data."""

    kind: ClassVar[str] = "read_only"
    shorthand_field: ClassVar[str | None] = "enabled"

    enabled: bool = Field(default=True, description="Whether writes are refused.", examples=[True])

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that refuses writes."""
        return ReadOnlyStore(inner) if self.enabled else inner


@pass_through(*named(lambda operation: operation.effect == "read" and METHODS[operation.method] is operation))
class ReadOnlyStore(GuardedStore):
    """Raises `StoreReadOnlyError` for every write, and for renewing, which changes an expiry."""

    _runs_without_loop: ClassVar[bool] = True

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Let plain reads through; most of them don't come this way."""
        if OPERATIONS[operation].effect == "read":
            return await call(*args, **kwargs)
        raise self._refusal(operation)

    async def get_or_set(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        expires_in: Expiry | None = None,
        *,
        background: bool = False,
    ) -> bytes:
        """Return the value; a missing one is refused before the factory works for nothing."""
        value = await self.get(key)
        if value is None:
            raise self._refusal("get_or_set")
        return value

    def _refusal(self, operation: str) -> StoreReadOnlyError:
        return StoreReadOnlyError(f"store {self.name!r} is read-only here", store=self.name, operation=operation)
