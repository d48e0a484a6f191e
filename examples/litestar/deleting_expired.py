"""Expired entries: an open registry drops them by itself; these explicit calls work, too."""

from datetime import timedelta
from pathlib import Path

from litestar import Litestar, Request, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


async def delete_on_startup() -> None:
    await plugin.registry.delete_expired()


async def delete_after_response(request: Request) -> None:
    await plugin.registry["notes"].delete_expired()


@put("/notes/{name:str}")
async def write(name: FromPath[str], request: Request) -> None:
    await request.app.stores.get("notes").set(name, await request.body(), expires_in=timedelta(milliseconds=50))


@get("/notes")
async def names() -> list[str]:
    return sorted([key async for key in plugin.registry["notes"].keys()])


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([write, names], on_startup=[delete_on_startup], after_response=delete_after_response, plugins=[plugin])
