"""Integrations told by name which store to use: two of them share one."""

from itertools import count
from pathlib import Path

from litestar import Litestar, Request, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig

from storeconf.integrations.litestar import RateLimitConfig, StoreconfPlugin

LAYOUT = Path(__file__).with_name("by_name.yaml")
calls = count(1)


@get("/", cache=60)
async def index(request: Request) -> int:
    request.session["seen"] = True
    return next(calls)


@get("/kept")
async def kept() -> dict[str, int]:
    stores = plugin.registry
    return {name: len([key async for key in stores[name].keys()]) for name in stores.names()}


plugin = StoreconfPlugin(LAYOUT)
app = Litestar(
    [index, kept],
    plugins=[plugin],
    middleware=[
        ServerSideSessionConfig(store="visitors").middleware,
        RateLimitConfig(("minute", 3), store="web", exclude=["/kept"]).middleware,
    ],
    response_cache_config=ResponseCacheConfig(store="web"),
)
