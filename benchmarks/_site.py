"""The application that benchmarks/frameworks.py serves: sessions and a cached response, on our stores or Litestar's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.memory import MemoryStore
from litestar.stores.redis import RedisStore

from storeconf.integrations.litestar import StoreconfPlugin

if TYPE_CHECKING:
    from litestar.stores.base import Store

NAMES = ("sessions", "response_cache")
URL = os.environ.get("BENCH_URL", "")  # empty: memory


@get("/session")
async def session(request: Request[Any, Any, Any]) -> int:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return int(request.session["visits"])


@get("/cached", cache=600)
async def cached() -> dict[str, list[int]]:
    return {"numbers": list(range(200))}


def theirs() -> dict[str, Store]:
    if not URL:
        return {name: MemoryStore() for name in NAMES}
    return {name: RedisStore.with_client(URL, namespace=f"theirs_{name}") for name in NAMES}


def ours() -> StoreconfPlugin:
    root = {"type": "redis", "url": URL, "namespace": "ours"} if URL else {"type": "memory"}
    return StoreconfPlugin({"stores": {"main": root, **{name: {"parent": "main"} for name in NAMES}}})


handlers: list[Any] = [session, cached]
sessions = ServerSideSessionConfig(exclude=["^/cached"]).middleware
if os.environ["BENCH_STORES"] == "ours":
    app = Litestar(handlers, middleware=[sessions], plugins=[ours()], logging_config=None)
else:
    app = Litestar(handlers, middleware=[sessions], stores=theirs(), logging_config=None)
