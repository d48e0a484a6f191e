"""What type checkers see of the FastAPI integration."""

from typing import Annotated, assert_type

from fastapi import FastAPI, Request

from storeconf import Store, StoreRegistry
from storeconf.integrations.fastapi import SessionMiddleware, lifespan, registry, rotate_session, store

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
    rotate_session(request)
    return (await registry.ping())["sessions"].ok
