"""A default factory with namespacing: any name gives a store of its own, all on one backend."""

from pathlib import Path

from litestar import Litestar, Request, delete, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("default_factory_with_namespaces.yaml")


@put("/{store:str}/{name:str}")
async def write(store: FromPath[str], name: FromPath[str], request: Request) -> None:
    await request.app.stores.get(store).set(name, "here")


@get("/{store:str}/{name:str}")
async def read(store: FromPath[str], name: FromPath[str], request: Request) -> int | None:
    return await request.app.stores.get(store).expires_in(name)


@delete("/")
async def clear() -> None:
    await plugin.registry["main"].delete_all()


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([write, read, clear], plugins=[plugin])
