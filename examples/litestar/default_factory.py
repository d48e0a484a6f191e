"""A default factory: one store for every name that nobody listed."""

from pathlib import Path

from litestar import Litestar, Request, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("default_factory.yaml")


@put("/{store:str}/{name:str}")
async def write(store: FromPath[str], name: FromPath[str], request: Request) -> None:
    await request.app.stores.get(store).set(name, await request.body())


@get("/{store:str}/{name:str}")
async def read(store: FromPath[str], name: FromPath[str], request: Request) -> str:
    value = await request.app.stores.get(store).get(name)
    return value.decode() if value is not None else "nothing"


app = Litestar([write, read], plugins=[StoreconfPlugin(LAYOUT)])
