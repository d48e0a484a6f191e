"""A registry with stores that the code gives it, beside those of the layout, and one that is made on demand."""

from pathlib import Path

from litestar import Litestar, Request, get

from storeconf import MemoryStore
from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("default_factory_with_namespaces.yaml")


@get("/")
async def show(request: Request) -> dict[str, bool]:
    stores = request.app.stores
    await stores.get("on_demand").set("k", "v")
    return {
        "given": stores.get("given") is given,
        "the same every time": stores.get("on_demand") is stores.get("on_demand"),
        "kept": await stores.get("on_demand").exists("k"),
        "open": plugin.registry["given"].is_open,
    }


given = MemoryStore()
plugin = StoreconfPlugin(LAYOUT)
app = Litestar([show], stores={"given": given}, plugins=[plugin])
