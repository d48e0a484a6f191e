"""Starlette: a session that requests and WebSockets share, and a lifespan of the application's own."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from storeconf.integrations.starlette import SessionMiddleware, lifespan, store_of


async def join(request: Request) -> Response:
    request.session["name"] = request.path_params["name"]
    return PlainTextResponse("welcome")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    messages = store_of(websocket, "pages")
    async for text in websocket.iter_text():
        number = await messages.increment("said")
        await websocket.send_text(f"{number}: {websocket.session['name']} says {text}")


@asynccontextmanager
async def greet(app: Starlette) -> AsyncGenerator[Mapping[str, Any] | None, None]:
    print("the stores are open")
    yield None
    print("and still are")


app = Starlette(
    routes=[Route("/join/{name}", join, methods=["POST"]), WebSocketRoute("/chat", chat)],
    middleware=[Middleware(SessionMiddleware, store="sessions")],
    lifespan=lifespan(Path(__file__).with_name("storeconf.yaml"), then=greet),
)
