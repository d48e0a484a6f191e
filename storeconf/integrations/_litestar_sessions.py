"""The lifetime of Litestar's sessions: from the layout, or a warning that it differs."""

from __future__ import annotations

import logging
import math
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from litestar.middleware.base import DefineMiddleware
from litestar.middleware.session.server_side import ServerSideSessionBackend, ServerSideSessionConfig

from storeconf.errors import UnknownStoreError
from storeconf.integrations._sessions import DEFAULT_AGE
from storeconf.store import ExpiryRules, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Litestar
    from litestar.connection import ASGIConnection
    from litestar.stores.base import Store as LitestarStore
    from litestar.types import Message, ScopeSession

    from storeconf.registry import StoreRegistry

__all__ = ["SessionConfig", "warn_of_lifetimes"]

_logger = logging.getLogger("storeconf")


class _LayoutBackend(ServerSideSessionBackend):
    """Litestar's backend, with the lifetime that the store has now."""

    async def get(self, session_id: str, store: LitestarStore) -> bytes | None:
        """Return the stored session; with ``renew_on_access`` it gets the whole lifetime again."""
        self._use_lifetime_of(store)
        return await super().get(session_id, store)

    async def store_in_message(
        self, scope_session: ScopeSession, message: Message, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> None:
        """Store the session and set its cookie, both for the lifetime."""
        self._use_lifetime_of(self.config.get_store_from_app(connection.scope["litestar_app"]))
        await super().store_in_message(scope_session, message, connection)

    def _use_lifetime_of(self, store: LitestarStore) -> None:
        """Litestar reads the lifetime from its configuration; a layout that is read again may change it."""
        expiry = store.default_expiry if isinstance(store, Store) else None
        max_age = DEFAULT_AGE if expiry is None else math.ceil(expiry)
        if max_age != self.config.max_age:
            self.config = copy(self.config)
            self.config.max_age = max_age


@dataclass
class SessionConfig(ServerSideSessionConfig):
    """Litestar's configuration of sessions, whose lifetime is the layout's instead of ``max_age``.

    The lifetime, of the cookie too, is the store's ``ttl.default``, else its ``ttl.max``, else 14 days.
    """

    _backend_class = _LayoutBackend

    max_age: int = field(default=DEFAULT_AGE, init=False)


def warn_of_lifetimes(application: Litestar, registry: StoreRegistry) -> None:
    """Log a warning for each session configuration of Litestar's whose ``max_age`` differs from its store's ``ttl``."""
    seen: set[tuple[str, int]] = set()
    for config in _configs(application):
        if isinstance(config, SessionConfig) or (config.store, config.max_age) in seen:
            continue
        seen.add((config.store, config.max_age))
        try:
            rules = _rules_of(registry.require(config.store))
        except (UnknownStoreError, ValueError):
            continue  # the first request for this store raises it
        if rules.max is not None and config.max_age > rules.max:
            name, value = "ttl.max", rules.max
        elif rules.default is not None and config.max_age != rules.default:
            name, value = "ttl.default", rules.default
        else:
            continue
        _logger.warning(
            "Litestar's session configuration has max_age=%d, which differs from the %s of store %r, %g s; "
            "storeconf.integrations.litestar.SessionConfig takes the lifetime of sessions from the layout",
            config.max_age,
            name,
            config.store,
            value,
        )


def _configs(application: Litestar) -> Iterator[ServerSideSessionConfig]:
    """The session configurations of all routes, whether they are middleware of their own or part of SessionAuth."""
    for route in application.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            for layer in [] if handler is None else handler.resolve_middleware():
                if isinstance(layer, DefineMiddleware):
                    for given in (*layer.args, *layer.kwargs.values()):
                        config = getattr(given, "session_backend_config", None) or getattr(given, "config", None)
                        if isinstance(config, ServerSideSessionConfig):
                            yield config


def _rules_of(store: object) -> ExpiryRules:
    return store.expiry_rules if isinstance(store, Store) else ExpiryRules()
