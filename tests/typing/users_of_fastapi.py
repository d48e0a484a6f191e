"""What type checkers see of the FastAPI integration."""

from typing import Annotated, assert_type

from fastapi import FastAPI, Request

from storeconf import Store, StoreRegistry
from storeconf.integrations.fastapi import (
    SessionMiddleware,
    lifespan,
    registry,
    registry_of,
    rotate_session,
    store,
    store_of,
)

Sessions = Annotated[Store, store("sessions")]
Registry = Annotated[StoreRegistry, registry()]

app = FastAPI(lifespan=lifespan("storeconf.yaml", environment="production"))
app.add_middleware(SessionMiddleware, store="sessions", max_age=3600, same_site="strict", https_only=True)


@app.get("/")
async def index(request: Request, sessions: Sessions, registry: Registry) -> bool:
    assert_type(sessions, Store)
    assert_type(registry, StoreRegistry)
    assert_type(await sessions.increment("n"), int)
    assert_type(await sessions.add("n", "1"), bool)
    assert_type(store_of(request, "sessions").default_expiry, float | None)
    assert_type(registry_of(request).require("sessions"), Store)
    rotate_session(request)
    return (await registry.ping())["sessions"].ok
