"""``limit``: refuse keys and values that are too large, before they travel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf.errors import StoreValueError
from storeconf.middleware.wrapper import GuardedStore, pass_through
from storeconf.plugin import BuildContext, Middleware, Size
from storeconf.store import Expiry, Store, Value, key_text, value_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


__all__ = ["Limit"]


class Limit(Middleware):
    """The greatest sizes of keys and values."""

    kind: ClassVar[str] = "limit"
    shorthand_field: ClassVar[str | None] = "value_size"

    value_size: Size | None = Field(
        default=None, description="The greatest size of a value; larger ones are refused.", examples=["1MiB"]
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
        """Return a store that refuses what is larger."""
        return LimitStore(inner, self.key_size, self.value_size)


@pass_through("delete_all", "delete_expired", "keys", "ping")
class LimitStore(GuardedStore):
    """Checks sizes on the way in; a refused call has changed nothing."""

    def __init__(self, inner: Store, key_size: int | None, value_size: int | None) -> None:
        self._key_size = key_size
        self._value_size = value_size
        # A character takes at most four bytes: keys of so few need no encoding to be known as short enough.
        self._short = sys.maxsize if key_size is None else key_size // 4
        self._small = sys.maxsize if value_size is None else value_size
        super().__init__(inner)

    def on_bind(self) -> None:
        """Where keys have no limit, only writes are looked at."""
        super().on_bind()
        self._get, self._set = self.wrapped.get, self.wrapped.set
        if self._key_size is None:
            for name in ("get", "delete", "exists", "expires_in", "get_many", "delete_many", "touch", "pop",
                         "get_with_expiry", "increment"):  # fmt: skip
                self.__dict__[name] = getattr(self.wrapped, name)

    def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Coroutine[Any, Any, Any]:
        """Check what the operation carries, then let it through as it is; a refusal comes when it is awaited."""
        try:
            self._check_call(operation, *args)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the arguments
            return _refused(error)
        return call(*args)

    def _check_call(self, operation: str, *args: Any) -> None:
        if operation in ("get_many", "delete_many"):
            for key in args[0]:
                self._check_key(key, operation)
        elif operation == "set_many":
            for key, value in args[0].items():
                self._check_key(key, operation)
                self._check_value(value, operation)
        else:
            self._check_key(args[0], operation)
            if operation in ("set", "add"):
                self._check_value(args[1], operation)
            elif operation == "compare_and_set" and args[2] is not None:
                self._check_value(args[2], operation)

    def get(self, key: str, renew_for: Expiry | None = None) -> Coroutine[Any, Any, bytes | None]:
        """As `around` does, in fewer steps."""
        if key.__class__ is not str or len(key) > self._short:
            try:
                self._check_key(key, "get")
            except Exception as error:  # noqa: BLE001  # as in `around`
                return _refused(error)
        return self._get(key, renew_for)

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
