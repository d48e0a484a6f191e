"""FastAPI: a store as a dependency.

app = FastAPI(lifespan=lifespan("storeconf.yaml"))

@app.get("/")
async def index(sessions: Annotated[Store, store("sessions")]) -> str: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotations at run time

from storeconf.integrations.starlette import (
    SessionMiddleware,
    StoreDependency,
    lifespan,
    registry_of,
    revoke_sessions,
    rotate_session,
    store_of,
)

if TYPE_CHECKING:
    from storeconf.registry import StoreRegistry

__all__ = [
    "SessionMiddleware",
    "lifespan",
    "registry",
    "registry_of",
    "revoke_sessions",
    "rotate_session",
    "store",
    "store_of",
]


def store(name: str) -> Any:
    """Return the dependency that gives the store of that name; for use in ``Annotated``.

    With our `lifespan` the application does not start if the store is neither listed nor registered, unless there is a
    default factory.
    """
    return Depends(StoreDependency(name))


def registry() -> Any:
    """Return the dependency that gives the application's registry; for use in ``Annotated``."""

    async def dependency(connection: HTTPConnection) -> StoreRegistry:
        return registry_of(connection)

    return Depends(dependency)
