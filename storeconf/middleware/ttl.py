"""``ttl``: default and greatest expiries, and renewing on every read, kept out of application code."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from storeconf.errors import StoreRefusedError
from storeconf.middleware import StoreWrapper
from storeconf.operations import read_each
from storeconf.plugin import BuildContext, Duration, Middleware
from storeconf.store import Expiry, ExpiryRules, Store, Value, milliseconds

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

__all__ = ["Ttl"]


class Ttl(Middleware):
    """Default and greatest expiries, and renewing on read."""

    kind: ClassVar[str] = "ttl"
    shorthand_field: ClassVar[str | None] = "default"

    default: Duration | None = Field(
        default=None, description="The expiry of what is stored without one.", examples=["14d"]
    )
    max: Duration | None = Field(
        default=None,
        description="The longest expiry: longer ones are cut to it, and what would never expire gets it.",
        examples=["30d"],
    )
    jitter: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Each default expiry is shortened by up to this part of it, at random, so that entries stored "
        "together don't expire together.",
        examples=[0.1],
    )
    renew_on_get: Duration | bool = Field(
        default=False,
        description="Reading gives what has an expiry this new one; `true`: the default.",
        examples=[True, "30m"],
    )

    @field_validator("default", "max", "renew_on_get")
    @classmethod
    def _positive(cls, value: timedelta | bool | None) -> timedelta | bool | None:
        if isinstance(value, timedelta) and value <= timedelta(0):
            raise ValueError("must be greater than zero")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give default, max, or renew_on_get")
        if self.renew_on_get is True and self.default is None:
            raise ValueError("renew_on_get: true renews by the default, and there is none; give default, or a duration")
        return self

    def warnings(self) -> list[tuple[str, str]]:
        """Spans that the greatest expiry cuts."""
        if self.max is None:
            return []
        message = "{} is longer than max, which cuts it"
        return [
            (name, message.format(name))
            for name, span in (("default", self.default), ("renew_on_get", self.renew_on_get))
            if isinstance(span, timedelta) and span > self.max
        ]

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store with these expiries."""
        return TtlStore(inner, self)


def _seconds(span: timedelta | None) -> float | None:
    """Seconds as an int where possible: a store converts an int fastest."""
    if span is None:
        return None
    seconds = span.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


class TtlStore(StoreWrapper):
    """Fills in and caps expiries on their way to the store inside."""

    _runs_without_loop: ClassVar[bool] = True

    def __init__(self, inner: Store, settings: Ttl) -> None:
        self._max = _seconds(settings.max)
        self._max_ms = None if self._max is None else milliseconds(self._max)
        default = settings.default
        if settings.max is not None and (default is None or default > settings.max):
            default = settings.max if default is not None else None
        self._default = _seconds(default)
        # An entry that would never expire gets the greatest expiry.
        self._absent = self._default if self._default is not None else self._max
        self._jitter = settings.jitter if self._default is not None else 0.0
        renew = settings.default if settings.renew_on_get is True else settings.renew_on_get
        self._renew: float | None = self._capped(_seconds(renew)) if isinstance(renew, timedelta) else None
        self._rules = ExpiryRules(self._default, self._max, self._renew)
        super().__init__(inner)

    def on_bind(self) -> None:
        """Leave reading alone where there is nothing to renew or to cut."""
        if self._renew is None and self._max is None:
            self.pass_through("get", "get_many")

    @property
    def expiry_rules(self) -> ExpiryRules:
        """The settings, each expiry cut to the longest one."""
        return self._rules

    def _capped(self, span: Any) -> Any:
        if self._max_ms is not None and span is not None and milliseconds(span) > self._max_ms:
            return self._max
        return span

    def _expiry(self, span: Expiry | None) -> Expiry | None:
        if span is not None:
            return self._capped(span)  # type: ignore[no-any-return]  # the store refuses other values than spans
        if self._jitter and self._absent is not None:
            return self._absent * (1 - self._jitter * random.random())
        return self._absent

    def get(self, key: str, renew_for: Expiry | None = None) -> Coroutine[Any, Any, bytes | None]:
        """Read, renewing as the settings say; an explicit ``renew_for`` goes first."""
        if renew_for is not None:
            return self._get(key, self._capped(renew_for))
        return self._get(key) if self._renew is None else self._renewed(key)

    async def _renewed(self, key: str) -> bytes | None:
        try:
            return await self._get(key, self._renew)
        except StoreRefusedError:  # of writes; the value can be read
            return await self._get(key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Read several keys, renewing as the settings say, in one round trip where the backend pipelines."""
        if self._renew is None:
            return await self.wrapped.get_many(keys)
        if isinstance(keys, str | bytes):
            raise TypeError("give an iterable of keys, not one key")
        return await read_each(list(dict.fromkeys(keys)), self._renewed, self.wrapped.get_many)

    def set(
        self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Store with the default where no expiry is given, and never longer than the greatest."""
        if keep_ttl:
            return self._set_keeping(key, value, expires_in)
        return self._set(key, value, self._expiry(expires_in))

    async def _set_keeping(self, key: str, value: Value, expires_in: Expiry | None) -> None:
        if expires_in is None and self._max_ms is not None:
            found = await self.wrapped.get_with_expiry(key)
            if found is None or self._too_long(found[1]):
                await self._set(key, value, self._expiry(None) if found is None else self._max)
                return
        elif expires_in is None and self._default is not None and not await self.wrapped.exists(key):
            await self._set(key, value, self._expiry(None))
            return
        await self._set(key, value, expires_in, keep_ttl=True)

    def _too_long(self, left: float | None) -> bool:
        """Whether an entry with so many seconds left would outlive the greatest expiry."""
        return self._max_ms is not None and (left is None or milliseconds(left) > self._max_ms)

    def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> Coroutine[Any, Any, None]:
        """As `set`, with one expiry for all."""
        return self.wrapped.set_many(mapping, self._expiry(expires_in))

    def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> Coroutine[Any, Any, bool]:
        """As `set`."""
        return self.wrapped.add(key, value, self._expiry(expires_in))

    def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> Coroutine[Any, Any, int]:
        """The default applies if the call creates the counter."""
        return self.wrapped.increment(key, by, self._expiry(expires_in))

    def touch(self, key: str, expires_in: Expiry | None) -> Coroutine[Any, Any, bool]:
        """None asks for no expiry, which is the greatest one where there is one."""
        return self.wrapped.touch(key, self._max if expires_in is None else self._capped(expires_in))

    def compare_and_set(
        self,
        key: str,
        old: Value | None,
        new: Value | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> Coroutine[Any, Any, bool]:
        """As `set`. A new entry has no expiry to keep, so it gets the default."""
        if not keep_ttl or (old is None and expires_in is None):
            return self.wrapped.compare_and_set(key, old, new, self._expiry(expires_in))
        return self._compare_and_set_keeping(key, old, new, expires_in)

    async def _compare_and_set_keeping(
        self, key: str, old: Value | None, new: Value | None, expires_in: Expiry | None
    ) -> bool:
        if self._max_ms is not None and expires_in is None:
            found = await self.wrapped.get_with_expiry(key)
            if found is not None and self._too_long(found[1]):
                return await self.wrapped.compare_and_set(key, old, new, self._max)
        return await self.wrapped.compare_and_set(key, old, new, expires_in, keep_ttl=True)
