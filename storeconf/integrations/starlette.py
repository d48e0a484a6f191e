"""Starlette: the registry for the application's lifetime, stores for requests, and sessions kept on a store.

app = Starlette(routes=routes, lifespan=lifespan("storeconf.yaml"))
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from storeconf.integrations._names import names_of
from storeconf.integrations._session_ends import revoke_sessions
from storeconf.integrations._sessions import STATE, Session, SessionMiddleware, registry_in
from storeconf.integrations._source import registry_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import HTTPConnection

    from storeconf.integrations._source import Source
    from storeconf.registry import StoreRegistry
    from storeconf.store import Store

__all__ = ["SessionMiddleware", "lifespan", "registry_of", "revoke_sessions", "rotate_session", "store_of"]


def lifespan(
    source: Source = None,
    *,
    environment: str | None = None,
    then: Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens the layout's registry with the application and closes it with it.

    ``source`` is a source of `storeconf.load`, or a registry; it is read now, so that a wrong layout keeps the
    application from starting. ``then`` is a lifespan of your own that runs while the registry is open; it may register
    stores.

    The application does not start (UnknownStoreError) if ``store("…")`` or `SessionMiddleware` names a store that is
    neither listed nor registered, unless there is a default factory.
    """
    registry = registry_from(source, environment)

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(registry)
            setattr(app.state, STATE, registry)
            state = None if then is None else await stack.enter_async_context(then(app))
            for name in names_of(app):
                registry.require(name)
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
