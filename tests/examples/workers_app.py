"""The application whose workers the tests run: sessions on a store, and a counter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storeconf.integrations.starlette import SessionMiddleware, lifespan, store_of

if TYPE_CHECKING:
    from starlette.requests import Request

LAYOUT = Path(__file__).parents[2] / "examples" / "starlette" / "storeconf.yaml"


async def login(request: Request) -> Response:
    request.session["user"] = "Ada"
    return JSONResponse(os.getpid())


async def show(request: Request) -> Response:
    return JSONResponse([os.getpid(), request.session.get("user")])


async def count(request: Request) -> Response:
    return JSONResponse(await store_of(request, "pages").increment("count"))


app = Starlette(
    routes=[Route("/login", login), Route("/show", show), Route("/count", count)],
    middleware=[Middleware(SessionMiddleware)],
    lifespan=lifespan(LAYOUT),
)
