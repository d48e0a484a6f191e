"""Starlette: the registry for the application's lifetime, stores for requests, and sessions kept on a store.

app = Starlette(routes=routes, lifespan=lifespan("storeconf.yaml"))
"""

from __future__ import annotations

import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Literal

from storeconf.registry import StoreRegistry, load

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from storeconf.store import Store

__all__ = ["SessionMiddleware", "lifespan", "registry_of", "store_of"]

_STATE = "storeconf_registry"


def lifespan(
    source: str | os.PathLike[str] | Mapping[str, Any] | StoreRegistry | None = None,
    *,
    environment: str | None = None,
    then: Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
) -> Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens the layout's registry with the application and closes it with it.

    ``source`` is what `storeconf.load` takes, or a registry; it is read now, so that a wrong layout keeps the
    application from starting. ``then`` is a lifespan of your own that runs while the registry is open.
    """
    registry = source if isinstance(source, StoreRegistry) else load(source, environment=environment)

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(registry)
            setattr(app.state, _STATE, registry)
            state = None
            if then is not None:
                state = await stack.enter_async_context(then(app))
            yield state or {}

    return run


def registry_of(connection: HTTPConnection) -> StoreRegistry:
    """Return the registry of the application that serves a request or WebSocket."""
    registry = getattr(connection.app.state, _STATE, None)
    if registry is None:
        raise RuntimeError(
            "this application has no registry: give it lifespan=storeconf.integrations.starlette.lifespan(…), and in "
            "tests enter the client as a context manager, because only that runs a lifespan"
        )
    return registry  # type: ignore[no-any-return]  # the state of an application is untyped


def store_of(connection: HTTPConnection, name: str) -> Store:
    """Return the store of that name for a request or WebSocket."""
    return registry_of(connection).get(name)


class SessionMiddleware:
    """Keep ``request.session`` on a store; the browser holds only a random identifier.

    The session is a dict of what JSON can hold. It is written when it has changed, renewed for ``max_age`` seconds by
    each request that has it, and deleted when it is emptied. The identifier changes when a new session begins, so an
    identifier that somebody planted is never taken over.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: str = "sessions",
        cookie: str = "session",
        max_age: int = 14 * 24 * 60 * 60,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.cookie = cookie
        self.max_age = max_age
        self._attributes = f"Path={path}; HttpOnly; SameSite={same_site}"
        if https_only:
            self._attributes += "; Secure"
        if domain is not None:
            self._attributes += f"; Domain={domain}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket with its session."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        store: Store = getattr(scope["app"].state, _STATE).get(self.store)
        identifier = self._identifier(scope)
        stored = None if identifier is None else await store.get(identifier, renew_for=self.max_age)
        session: MutableMapping[str, Any] = {} if stored is None else json.loads(stored)
        scope["session"] = session

        async def send_with_session(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                cookie = await self._save(store, identifier, stored, scope["session"])
                if cookie is not None:
                    message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", cookie.encode())]}
            await send(message)

        await self.app(scope, receive, send_with_session)

    async def _save(
        self, store: Store, identifier: str | None, stored: bytes | None, session: Mapping[str, Any]
    ) -> str | None:
        """Store the session if it has changed, and return the cookie to set, if any."""
        if not session:
            if stored is None or identifier is None:
                return None
            await store.delete(identifier)
            return f"{self.cookie}=; {self._attributes}; Max-Age=0"
        data = json.dumps(session, separators=(",", ":")).encode()
        if stored is None or identifier is None:
            identifier = secrets.token_urlsafe(32)
            await store.set(identifier, data, self.max_age)
        elif data != stored:
            await store.set(identifier, data, self.max_age)
        return f"{self.cookie}={identifier}; {self._attributes}; Max-Age={self.max_age}"

    def _identifier(self, scope: Scope) -> str | None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                try:
                    morsel = SimpleCookie(value.decode("latin-1")).get(self.cookie)
                except CookieError:
                    continue
                if morsel is not None and morsel.value:
                    return morsel.value
        return None
