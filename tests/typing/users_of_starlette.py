"""What type checkers see of the Starlette integration."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, assert_type

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storeconf import Store, StoreRegistry
from storeconf.integrations.starlette import (
    SessionMiddleware,
    lifespan,
    registry_of,
    revoke_sessions,
    rotate_session,
    store_of,
)


async def index(request: Request) -> Response:
    assert_type(store_of(request, "sessions"), Store)
    assert_type(registry_of(request), StoreRegistry)
    assert_type(request.session, dict[str, Any])
    rotate_session(request)
    await revoke_sessions(store_of(request, "sessions"), "Ada")
    await revoke_sessions(store_of(request, "sessions"), None)  # type: ignore[arg-type]
    return JSONResponse(registry_of(request).names())


@asynccontextmanager
async def own(app: Starlette) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    yield {"mine": 1}


app = Starlette(
    routes=[Route("/", index)],
    middleware=[Middleware(SessionMiddleware, cookie="id")],
    lifespan=lifespan(StoreRegistry(), then=own),
)
