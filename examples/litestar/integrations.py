"""Sessions, response caching and rate limiting, each on the store that the layout gives its name."""

from itertools import count
from pathlib import Path

from litestar import Litestar, Request, get
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("integrations.yaml")
calls = count(1)


@get("/visits")
async def visits(request: Request) -> int:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return int(request.session["visits"])


@get("/cached", cache=60)
async def cached() -> int:
    return next(calls)


@get("/kept")
async def kept(request: Request) -> int:
    # A middleware's store is in the registry like any other.
    return len([key async for key in plugin.registry["sessions"].keys()])


plugin = StoreconfPlugin(LAYOUT)
limit = RateLimitConfig(("minute", 5), exclude=["/visits", "/kept"])
app = Litestar(
    [visits, cached, kept], plugins=[plugin], middleware=[ServerSideSessionConfig().middleware, limit.middleware]
)
