"""A registry with given stores, without any layout, and a store that is made on demand."""

from litestar import Litestar, Request, get

from storeconf import MemoryStore, StoreRegistry


@get("/")
async def show(request: Request) -> dict[str, bool]:
    stores = request.app.stores
    await stores.get("on_demand").set("k", "v")
    return {
        "given": stores.get("given") is given,
        "the same every time": stores.get("on_demand") is stores.get("on_demand"),
        "kept": await stores.get("on_demand").exists("k"),
    }


given = MemoryStore()
app = Litestar([show], stores=StoreRegistry({"given": given}).to_litestar())
