"""Expired entries: an open registry drops them by itself; these explicit calls work, too."""

from pathlib import Path

from litestar import Litestar, Request, get, put

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


async def sweep_on_startup(app: Litestar) -> None:
    await plugin.registry.delete_expired()


async def sweep_after_response(request: Request) -> None:
    await plugin.registry["notes"].delete_expired()


@put("/notes/{name:str}")
async def write(name: str, request: Request) -> None:
    await request.app.stores.get("notes").set(name, await request.body(), expires_in=0.05)


@get("/notes")
async def names(request: Request) -> list[str]:
    return sorted([key async for key in plugin.registry["notes"].keys()])


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([write, names], on_startup=[sweep_on_startup], after_response=sweep_after_response, plugins=[plugin])
