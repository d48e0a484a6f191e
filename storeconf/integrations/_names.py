"""The stores that an application of Starlette or FastAPI will ask for, found before its first request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotations at run time
from starlette.routing import BaseRoute, Router

from storeconf.integrations._sessions import DEFAULT_STORE, SessionMiddleware, registry_in
from storeconf.store import Store  # noqa: TC001 - FastAPI reads the annotations at run time

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StoreDependency", "names_of"]

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
