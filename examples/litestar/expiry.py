"""Expiry: a value that is gone after a while."""

from datetime import timedelta
from pathlib import Path

from litestar import Litestar, Request, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


@put("/notes/{name:str}/{milliseconds:int}")
async def write(name: FromPath[str], milliseconds: FromPath[int], request: Request) -> None:
    span = timedelta(milliseconds=milliseconds)
    await request.app.stores.get("notes").set(name, await request.body(), expires_in=span)


@get("/notes/{name:str}")
async def read(name: FromPath[str], request: Request) -> dict[str, str | int | None]:
    notes = request.app.stores.get("notes")
    value = await notes.get(name)
    return {"value": value.decode() if value else None, "expires_in": await notes.expires_in(name)}


app = Litestar([write, read], plugins=[StoreconfPlugin(LAYOUT)])
