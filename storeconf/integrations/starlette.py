"""Starlette: the registry for the application's lifetime, stores for requests, and sessions kept on a store.

app = Starlette(routes=routes, lifespan=lifespan("storeconf.yaml"))
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotations at run time
from starlette.routing import BaseRoute, Router

from storeconf._watch import check_watch
from storeconf._watch import watch as watching
from storeconf.integrations import revoke_sessions
from storeconf.integrations._sessions import (
    DEFAULT_STORE,
    STATE,
    Session,
    SessionMiddleware,
    registry_from,
    registry_in,
)
from storeconf.store import Store  # noqa: TC001 - FastAPI reads the annotations at run time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from storeconf.integrations._sessions import Source
    from storeconf.registry import StoreRegistry

__all__ = [
    "SessionMiddleware",
    "lifespan",
    "registry_of",
    "revoke_sessions",
    "rotate_session",
    "store_of",
]

_MOST_LAYERS = 100
"""Middleware around a mounted application that is looked through."""


@dataclass(frozen=True)
class StoreDependency:
    """A dependency of FastAPI that gives the store of a name."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> Store:
        """Return the store for a request or WebSocket; raise UnknownStoreError if it is not declared."""
        return registry_in(connection.scope).require(self.name)


def names_of(application: object) -> Iterator[str]:
    """The names of the stores that an application depends on, those of mounted applications and routers included.

    It finds `StoreDependency` wherever FastAPI takes dependencies, and `SessionMiddleware` wherever Starlette
    takes middleware. A name that a function asks for while it runs is not found.
    """
    seen: dict[int, object] = {}
    waiting: list[Any] = [application]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, SessionMiddleware):
            yield part.store
        if isinstance(part, Starlette):
            for layer in part.user_middleware:
                if isinstance(layer.cls, type) and issubclass(layer.cls, SessionMiddleware):
                    yield str(layer.kwargs.get("store", DEFAULT_STORE))
        if isinstance(part, Starlette | Router):
            waiting.extend(part.routes)
        elif isinstance(part, BaseRoute):
            waiting.extend(_layers(getattr(part, "app", None)))
            # FastAPI's own routes are known by their attributes: the class of a router that was included is private.
            waiting.append(getattr(part, "original_router", None))
            yield from _names_in(getattr(part, "dependant", None))
            for dependency in getattr(getattr(part, "include_context", None), "dependencies", ()):
                yield from _names_in(dependency)


def _names_in(dependant: Any) -> Iterator[str]:
    """The names that FastAPI's tree of dependencies asks for, from a ``Depends`` or FastAPI's own record of one."""
    call = getattr(dependant, "dependency", None) or getattr(dependant, "call", None)
    if isinstance(call, StoreDependency):
        yield call.name
    for dependency in getattr(dependant, "dependencies", ()):
        yield from _names_in(dependency)


def _layers(app: Any) -> Iterator[Any]:
    """A mounted application, and the middleware around it."""
    for _ in range(_MOST_LAYERS):
        yield app
        if app is None or isinstance(app, Starlette | Router):
            return
        app = getattr(app, "app", None)


# ---------------------------------------------------------------- the lifespan


def lifespan(
    source: Source = None,
    *,
    environment: str | None = None,
    then: Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
    watch: bool = False,
    sighup: bool = False,
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens the layout's registry with the application and closes it with it.

    ``source`` is a source of `storeconf.load`, or a registry; it is read now, so that a wrong layout keeps the
    application from starting. ``then`` is a lifespan of your own that runs while the registry is open; it may register
    stores. With ``watch`` the layout is reloaded when its files change, with ``sighup``, too, also when the process
    receives SIGHUP; see `storeconf.watch`.

    The application does not start (UnknownStoreError) if ``store("…")`` or `SessionMiddleware` names a store that is
    neither listed nor registered, unless there is a default factory.
    """
    registry = registry_from(source, environment)
    check_watch(registry, watch=watch, sighup=sighup)

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(registry)
            setattr(app.state, STATE, registry)
            state = None if then is None else await stack.enter_async_context(then(app))
            for name in names_of(app):
                registry.require(name)
            if watch:
                await stack.enter_async_context(watching(registry, sighup=sighup))
            yield {**(state or {}), STATE: registry}

    return run


def registry_of(connection: HTTPConnection) -> StoreRegistry:
    """Return the registry of the application that serves a request or WebSocket, mounted applications included."""
    return registry_in(connection.scope)


def store_of(connection: HTTPConnection, name: str) -> Store:
    """Return the store of that name for a request or WebSocket.

    Raises UnknownStoreError if it is neither listed nor registered, unless there is a default factory.
    """
    return registry_of(connection).require(name)


def rotate_session(connection: HTTPConnection) -> None:
    """Give the session a new identifier with the response; the old one is invalid from then on.

    Call it at login, so that an identifier that somebody planted or saw before is useless (session fixation).
    """
    session = connection.scope.get("session")
    if not isinstance(session, Session):
        raise RuntimeError("this request has no session of storeconf's SessionMiddleware")
    session.rotated, session.rotated_at = True, time.time()
