"""The application of `workers_app` as Litestar has it: its own sessions on a store, and a counter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).parents[2] / "examples" / "starlette" / "storeconf.yaml"


@get("/login")
async def login(request: Request[Any, Any, Any]) -> int:
    request.session["user"] = "Ada"
    return os.getpid()


@get("/show")
async def show(request: Request[Any, Any, Any]) -> list[Any]:
    return [os.getpid(), request.session.get("user")]


@get("/count")
async def count() -> int:
    return await plugin.registry["pages"].increment("count")


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([login, show, count], plugins=[plugin], middleware=[ServerSideSessionConfig().middleware])
