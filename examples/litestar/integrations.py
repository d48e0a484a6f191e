"""Sessions, response caching and rate limiting, each on the store that the layout gives its name."""

from itertools import count
from pathlib import Path

from litestar import Litestar, Request, get

from storeconf.integrations.litestar import RateLimitConfig, SessionConfig, StoreconfPlugin

LAYOUT = Path(__file__).with_name("integrations.yaml")
calls = count(1)


@get("/visits")
async def visits(request: Request) -> int:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return int(request.session["visits"])


@get("/cached", cache=60)
async def cached() -> int:
    return next(calls)


app = Litestar(
    [visits, cached],
    plugins=[StoreconfPlugin(LAYOUT)],
    middleware=[
        SessionConfig().middleware,
        RateLimitConfig(("minute", 5), exclude=["/visits"]).middleware,
    ],
)
