"""Two integrations share one store, because the layout gives both of their names to it."""

from itertools import count
from pathlib import Path

from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("shared.yaml")
calls = count(1)


@get("/", cache=60)
async def index() -> int:
    return next(calls)


@get("/login")
async def login(request: Request) -> None:
    request.session["user"] = "Ada"


@get("/kept")
async def kept() -> int:
    return len([key async for key in plugin.registry["web"].keys()])


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([index, login, kept], plugins=[plugin], middleware=[ServerSideSessionConfig().middleware])
