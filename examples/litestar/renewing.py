"""Renewing on get: an entry that is read lives on, by the call or by the layout."""

from pathlib import Path

from litestar import Litestar, Request, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("renewing.yaml")


@put("/{store:str}/{name:str}")
async def write(store: FromPath[str], name: FromPath[str], request: Request) -> None:
    await request.app.stores.get(store).set(name, await request.body(), expires_in=60)


@get("/{store:str}/{name:str}")
async def read(store: FromPath[str], name: FromPath[str], request: Request) -> int | None:
    found = request.app.stores.get(store)
    # The layout renews what is read from visits; for notes the call does.
    await found.get(name, renew_for=None if store == "visits" else 600)
    return await found.expires_in(name)


app = Litestar([write, read], plugins=[StoreconfPlugin(LAYOUT)])
