"""Integrations told by name which store to use."""

from itertools import count
from pathlib import Path

from litestar import Litestar, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.middleware.rate_limit import RateLimitConfig

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("by_name.yaml")
calls = count(1)


@get("/", cache=60)
async def index() -> int:
    return next(calls)


@get("/stored", sync_to_thread=False)
def stored() -> list[str]:
    return plugin.registry.names()


plugin = StoreconfPlugin(LAYOUT)
app = Litestar(
    [index, stored],
    plugins=[plugin],
    middleware=[RateLimitConfig(("minute", 3), store="counters").middleware],
    response_cache_config=ResponseCacheConfig(store="pages"),
)
