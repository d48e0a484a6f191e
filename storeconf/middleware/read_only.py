"""``read_only``: a handle that reads and never writes. It guards the handle, not the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from storeconf.errors import StoreReadOnlyError
from storeconf.middleware.wrapper import GuardedStore, pass_through
from storeconf.operations import named
from storeconf.plugin import BuildContext, Middleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from storeconf.store import Expiry, Store, Value

__all__ = ["ReadOnly"]


class ReadOnly(Middleware):
    """Refuse everything that would change data."""

    kind: ClassVar[str] = "read_only"
    shorthand_field: ClassVar[str | None] = "enabled"

    enabled: bool = Field(default=True, description="Whether writes are refused.", examples=[True])

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that refuses writes."""
        return ReadOnlyStore(inner) if self.enabled else inner


@pass_through(*named(lambda operation: operation.effect == "read" and operation.name != "get"))
class ReadOnlyStore(GuardedStore):
    """Raises `StoreReadOnlyError` for every write, and for renewing, which changes an expiry."""

    _runs_without_loop: ClassVar[bool] = True

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Let plain reads through; most of them don't come this way."""
        if operation == "get":
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
