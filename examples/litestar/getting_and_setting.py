"""Set and get: a value outlives the request that set it."""

from pathlib import Path

from litestar import Litestar, Request, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


@put("/notes/{name:str}")
async def write(name: FromPath[str], request: Request) -> None:
    await request.app.stores.get("notes").set(name, await request.body())


@get("/notes/{name:str}")
async def read(name: FromPath[str], request: Request) -> str:
    value = await request.app.stores.get("notes").get(name)
    return value.decode() if value is not None else "nothing"


app = Litestar([write, read], plugins=[StoreconfPlugin(LAYOUT)])
