"""Middleware for storeconf that logs every write: the operation, its keys, and how it went; never a value."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from storeconf import BuildContext, GuardedStore, Middleware, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Audit"]

READS: Final = ("exists", "expires_in", "get_many", "get_with_expiry", "keys", "ping", "delete_expired")
MANY: Final = frozenset({"delete_many", "set_many"})


class Audit(Middleware):
    """Log every write, without values."""

    kind: ClassVar[str] = "audit"
    shorthand_field: ClassVar[str | None] = "logger"
    # What these refuse was never done; and what a call asks for is logged before `ttl` and the rest change it.
    after: ClassVar[tuple[str, ...]] = ("read_only", "limit")
    before: ClassVar[tuple[str, ...]] = ("ttl",)

    logger: str = Field(
        default="storeconf.audit",
        min_length=1,
        description="The logger that is told, at INFO.",
        examples=["audit.store"],
    )
    keys: Literal["hash", "plain", "none"] = Field(
        default="hash",
        description="How keys are shown: the beginning of their SHA-256 (a key may be a session's secret), as they "
        "are, or not at all.",
        examples=["plain"],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that logs its writes."""
        return AuditStore(inner, logging.getLogger(self.logger), self.keys)


class AuditStore(GuardedStore):
    """Logs each write after it was done, or failed."""

    def __init__(self, inner: Store, logger: logging.Logger, keys: Literal["hash", "plain", "none"]) -> None:
        self._logger = logger
        self._keys = keys
        super().__init__(inner)

    def on_bind(self) -> None:
        """Reads go straight to the store inside, and cost nothing."""
        self.pass_through(*READS)

    def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Log what changes something; a get that renews is "renew"."""
        return call(*args) if operation == "get" else self._logged(operation, call, *args, **kwargs)

    async def _logged(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        outcome = "cancelled"
        try:
            result = await call(*args, **kwargs)
            outcome = "done" if result is not False else "not done"
            return result
        except Exception as error:
            outcome = f"failed with {type(error).__name__}"
            raise
        finally:
            keys = args[0] if operation in MANY else args[:1]
            self._logger.info(
                "%s of %s: %s %s", operation, self.name, outcome, " ".join(self._shown(key) for key in keys)
            )

    def _shown(self, key: object) -> str:
        if self._keys == "none":
            return "-"
        if self._keys == "plain" or not isinstance(key, str):
            return repr(key)
        return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
