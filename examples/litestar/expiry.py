"""Expiry: a value that is gone after a while."""

from pathlib import Path

from litestar import Litestar, Request, get, put

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


@put("/notes/{name:str}/{milliseconds:int}")
async def write(name: str, milliseconds: int, request: Request) -> None:
    await request.app.stores.get("notes").set(name, await request.body(), expires_in=milliseconds / 1000)


@get("/notes/{name:str}")
async def read(name: str, request: Request) -> dict[str, str | int | None]:
    notes = request.app.stores.get("notes")
    value = await notes.get(name)
    return {"value": value.decode() if value else None, "expires_in": await notes.expires_in(name)}


app = Litestar([write, read], plugins=[StoreconfPlugin(LAYOUT)])
