"""Litestar: our registry as ``app.stores``, and our stores wherever Litestar expects its own.

app = Litestar(route_handlers, plugins=[StoreconfPlugin("storeconf.yaml")])
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from litestar.exceptions import TooManyRequestsException
from litestar.middleware.base import DefineMiddleware
from litestar.middleware.rate_limit import DURATION_VALUES, CacheObject, RateLimitMiddleware
from litestar.middleware.rate_limit import RateLimitConfig as LitestarRateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionBackend, ServerSideSessionConfig
from litestar.plugins import InitPlugin
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry
from litestar.types import Empty

from storeconf._watch import check_watch
from storeconf._watch import watch as watching
from storeconf.errors import UnknownStoreError
from storeconf.integrations import SessionBounds, check_age, hit_fixed, read_fixed, revoke_sessions
from storeconf.integrations._sessions import DEFAULT_AGE, registry_from
from storeconf.registry import StoreRegistry
from storeconf.store import ExpiryRules, Store, introduce_to_litestar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection, Request
    from litestar.handlers import BaseRouteHandler
    from litestar.stores.base import Store as LitestarStore
    from litestar.types import Message, Receive, Scope, ScopeSession, Send

    from storeconf.integrations._sessions import Source

__all__ = [
    "LitestarRegistry",
    "RateLimitConfig",
    "SessionConfig",
    "StoreconfPlugin",
    "revoke_sessions",
    "rotate_session",
]

_BOUNDS: Final = "storeconf_session_bounds"
_ROTATIONS: Final = "storeconf_session_rotations"
"""Where a request's scope has the bounds of its session, and the new identifiers that were asked for."""

_logger = logging.getLogger("storeconf")


class _LayoutBackend(ServerSideSessionBackend):
    """Litestar's backend, with the lifetime that the store has now, and with bounds of it."""

    config: SessionConfig

    async def get(self, session_id: str, store: LitestarStore) -> bytes | None:
        """Return the stored session; with ``renew_on_access`` it gets the whole lifetime again."""
        self._use_lifetime_of(store)
        return await super().get(session_id, store)

    async def load_from_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> dict[str, Any]:
        """Return the session of a request; one that has ended is deleted.

        An identifier without a session is not adopted: Litestar makes a new one if the request brings none.
        """
        config, key = self.config, self.config.key
        store = config.get_store_from_app(connection.scope["litestar_app"])
        bounds = SessionBounds(store, config.absolute_max_age, config.user_key)
        cast("dict[str, Any]", connection.scope)[_BOUNDS] = bounds
        if not (identifier := connection.cookies.get(key)):
            return {}
        left: float | None = None
        if config.absolute_max_age is None:
            data = await self.get(identifier, store)
        else:
            # Without renewing it: the notes in it go with its expiry, and each response stores it anyway.
            data, left = await _read(store, identifier)
        if data is not None:
            values = self.deserialize_data(data)
            if await bounds.admit(identifier, values, left):
                return values
        del connection.cookies[key]
        return {}

    async def store_in_message(
        self, scope_session: ScopeSession, message: Message, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> None:
        """Store the session and set its cookie, both for the lifetime."""
        self._use_lifetime_of(self.config.get_store_from_app(connection.scope["litestar_app"]))
        backend: ServerSideSessionBackend = self
        scope = cast("dict[str, Any]", connection.scope)
        bounds: SessionBounds | None = scope.get(_BOUNDS)
        if bounds is not None and bounds.are_set and scope_session is not Empty:
            values = scope_session
            if not isinstance(values, dict):
                values = self.deserialize_data(self.serialize_data(values, connection.scope))
            rotations: list[_Rotation] = scope.get(_ROTATIONS, [])
            if await bounds.prepare(values, rotations[-1].time if rotations else None):
                backend = copy(self)
                backend.config = copy(self.config)
                backend.config.max_age = math.ceil(bounds.within(self.config.max_age))
                scope_session = {**values, **bounds.noted(backend.config.max_age)}
            else:
                scope_session = Empty
        await ServerSideSessionBackend.store_in_message(backend, scope_session, message, connection)

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

    With ``absolute_max_age`` a session ends so many seconds after it began, however much it is used, measured by the
    store's clock. With ``user_key``, the key under which the application keeps the user's identifier (a str or an int),
    `revoke_sessions` ends all sessions of one user, which costs one more read of the store for each request of a user
    who is logged in; and a login counts as the beginning of a session.
    """

    _backend_class = _LayoutBackend

    max_age: int = field(default=DEFAULT_AGE, init=False)
    absolute_max_age: float | None = None
    user_key: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_age(self.absolute_max_age)


async def _read(store: LitestarStore, identifier: str) -> tuple[bytes | None, float | None]:
    """The stored session, and the seconds that its entry has left."""
    if isinstance(store, Store):
        return await store.get_with_expiry(identifier) or (None, None)
    return await store.get(identifier), await store.expires_in(identifier)


class _Rotation(NamedTuple):
    """A session that gets a new identifier with the response: in which cookie, when that was asked for, the old one."""

    config: ServerSideSessionConfig
    time: float
    old: str
    new: str


def rotate_session(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Give the session a new identifier with the response; the old one is invalid from then on.

    Call it at login, so that an identifier that somebody planted or saw before is useless (session fixation). It works
    for Litestar's own session configuration, too, in an application with `StoreconfPlugin` or with the registry's
    ``to_litestar()``. Raises RuntimeError without a session on a store, and for a WebSocket, whose session Litestar
    does not store.
    """
    scope = cast("dict[str, Any]", connection.scope)
    if scope["type"] != "http":
        raise RuntimeError("Litestar does not store the session of a WebSocket, so it can't get a new identifier")
    configs = list({config.key: config for config in _configs_of(scope["route_handler"])}.values())
    if "session" not in scope or not configs:
        raise RuntimeError("this request has no session that is kept on a store")
    if end_rotated_session not in connection.app.before_send:
        raise RuntimeError("rotate_session needs an application with StoreconfPlugin, or stores=registry.to_litestar()")
    rotations = scope.setdefault(_ROTATIONS, [])
    for config in configs:
        old = connection.cookies.get(config.key)
        if old:  # else it begins with this request
            new = secrets.token_hex(config.session_id_bytes)
            # In which Litestar looks for the identifier when it stores the session.
            connection.cookies[config.key] = new
            rotations.append(_Rotation(config, time.time(), old, new))


async def end_rotated_session(message: Message, scope: Scope) -> None:
    """Delete the session under the old identifier once the response has the new one: a hook for ``before_send``."""
    rotations: list[_Rotation] | None = cast("dict[str, Any]", scope).get(_ROTATIONS)
    if not rotations:
        return
    if message["type"] != "http.response.start":
        raise RuntimeError("a session needed a new identifier after the response had started: too late for a cookie")
    cookies = [value for name, value in message.get("headers", ()) if name.lower() == b"set-cookie"]
    while rotations:
        rotation = rotations[-1]
        stored = (f"{rotation.config.key}={rotation.new}".encode(), f"{rotation.config.key}=null".encode())
        if any(cookie.startswith(stored) for cookie in cookies):
            await rotation.config.get_store_from_app(scope["litestar_app"]).delete(rotation.old)
        rotations.pop()


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
    """The session configurations of all routes."""
    for route in application.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            if handler is not None:
                yield from _configs_of(handler)


def _configs_of(handler: BaseRouteHandler) -> Iterator[ServerSideSessionConfig]:
    """The session configurations of a route, whether they are middleware of their own or part of SessionAuth."""
    for layer in handler.resolve_middleware():
        if isinstance(layer, DefineMiddleware):
            for given in (*layer.args, *layer.kwargs.values()):
                config = getattr(given, "session_backend_config", None) or getattr(given, "config", None)
                if isinstance(config, ServerSideSessionConfig):
                    yield config


def _rules_of(store: object) -> ExpiryRules:
    return store.expiry_rules if isinstance(store, Store) else ExpiryRules()


# ---------------------------------------------------------------- the registry, and the plugin


introduce_to_litestar()  # those that were made before Litestar was imported


class LitestarRegistry(LitestarStoreRegistry):
    """The ``stores=`` of a Litestar application: looks up every name in our registry, and opens and closes it."""

    def __init__(self, registry: StoreRegistry) -> None:
        super().__init__()
        self._registry = registry
        # Litestar calls the values of this mapping with the application when it starts, enters what they return, and
        # leaves that when the application stops.
        self._stores = cast("dict[str, Any]", {"": self._start})

    @property
    def registry(self) -> StoreRegistry:
        """The registry in which names are looked up."""
        return self._registry

    def _start(self, application: Litestar) -> StoreRegistry:
        warn_of_lifetimes(application, self._registry)
        if end_rotated_session not in application.before_send:
            application.before_send.append(end_rotated_session)
        return self._registry

    def get(self, name: str) -> Store:
        """See `StoreRegistry.get`."""
        return self._registry.get(name)

    def register(self, name: str, store: LitestarStore, allow_override: bool = False) -> None:
        """See `StoreRegistry.register`."""
        self._registry.register(name, cast("Store", store), allow_override)


class StoreconfPlugin(InitPlugin):
    """Makes ``app.stores`` the registry of a layout, opened and closed with the application.

    The layout is read when the plugin is made, so that a wrong one keeps the application from starting. Sessions,
    response caching and rate limiting look their stores up by name: listed ones, or those of the default factory,
    which are closed with the others. With ``watch`` the layout is reloaded when its files change, with ``sighup``, too,
    also when the process receives SIGHUP; see `storeconf.watch`.
    """

    def __init__(
        self, source: Source = None, *, environment: str | None = None, watch: bool = False, sighup: bool = False
    ) -> None:
        self.registry: StoreRegistry = registry_from(source, environment)
        self._watch, self._sighup = watch, sighup
        check_watch(self.registry, watch=watch, sighup=sighup)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Give the application our registry; stores that it was given as well are registered there."""
        given = app_config.stores
        stores = self.registry.to_litestar()
        if isinstance(given, LitestarStoreRegistry | StoreRegistry):
            raise ValueError("pass Litestar either stores=… with a registry or StoreconfPlugin, not both")
        for name, store in (given or {}).items():
            stores.register(name, store)
        app_config.stores = stores
        # Litestar enters stores after the lifespans of the application, which may want to use them, and leaves them
        # before its listeners have come to their end and before its on_shutdown hooks, which may want to as well.
        lifetime = _RegistryLifetime(self.registry, watch=self._watch, sighup=self._sighup)
        app_config.lifespan.insert(0, lifetime)
        app_config.on_shutdown.append(lifetime.end)
        return app_config


class _RegistryLifetime(AbstractAsyncContextManager[None]):
    """Opens the registry before all else of an application, and closes it after all else.

    Litestar has no place that is left last, but runs the last of its on_shutdown hooks last, also after a start that
    failed. So leaving this only marks for the hook that there is something to close.
    """

    def __init__(self, registry: StoreRegistry, *, watch: bool, sighup: bool) -> None:
        self._registry = registry
        self._watch, self._sighup = watch, sighup
        self._watches: dict[asyncio.AbstractEventLoop, AbstractAsyncContextManager[None]] = {}
        self._left = 0  # how often it was entered and left; an application may run in several loops at once

    async def __aenter__(self) -> None:
        await self._registry.__aenter__()
        if self._watch:
            watch = self._watches[asyncio.get_running_loop()] = watching(self._registry, sighup=self._sighup)
            await watch.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        self._left += 1
        if (watch := self._watches.pop(asyncio.get_running_loop(), None)) is not None:
            await watch.__aexit__(None, None, None)

    async def end(self) -> None:
        """Close the registry, unless it was never opened; the last of the application's on_shutdown hooks."""
        if self._left:
            self._left -= 1
            await self._registry.__aexit__(None, None, None)


class _ExactRateLimit(RateLimitMiddleware):
    """Litestar's rate limiting with one atomic step per request, where Litestar's own reads a list and writes it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = scope["litestar_app"]
        request: Request[Any, Any, Any] = application.request_class(scope)
        if await self.should_check_request(request):
            store = self.config.get_store_from_app(application)
            if not isinstance(store, Store):
                raise TypeError(
                    f"the store {self.config.store!r} is of {type(store).__name__}; the RateLimitConfig of storeconf "
                    "needs a store of storeconf: give the application plugins=[StoreconfPlugin(…)]"
                )
            key, seconds = self.cache_key_from_request(request), DURATION_VALUES[self.unit]
            hits = await hit_fixed(store, key, seconds)
            counted: CacheObject | None = None
            if self.config.set_rate_limit_headers:
                left = (await read_fixed(store, key))[1] or seconds
                # The headers need its length alone, so no list is made.
                history = cast("list[int]", range(min(hits, self.max_requests)))
                counted = CacheObject(history, int(time.time()) + math.ceil(left))
            if hits > self.max_requests:
                headers = None if counted is None else self.create_response_headers(counted)
                raise TooManyRequestsException(headers=headers)
            if counted is not None:
                send = self.create_send_wrapper(send, counted)
        await self.app(scope, receive, send)


@dataclass
class RateLimitConfig(LitestarRateLimitConfig):
    """Litestar's configuration of rate limiting, which lets no request too many pass, however many workers there are.

    A window begins with a client's first request and lasts for the unit of ``rate_limit``. The store is one of
    storeconf that has ``increment``.
    """

    middleware_class: type[RateLimitMiddleware] = field(default=_ExactRateLimit)
