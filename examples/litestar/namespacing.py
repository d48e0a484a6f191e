"""Namespaces: `delete_all` removes one with what is below it, and nothing beside it."""

from pathlib import Path

from litestar import Litestar, delete, get, put
from litestar.params import FromPath

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")


@put("/{area:str}/{name:str}")
async def write(area: FromPath[str], name: FromPath[str]) -> None:
    await plugin.registry["notes"].with_namespace(area).set(name, "here")


@get("/{area:str}/{name:str}")
async def read(area: FromPath[str], name: FromPath[str]) -> bool:
    return await plugin.registry["notes"].with_namespace(area).exists(name)


@delete("/{area:str}")
async def clear_area(area: FromPath[str]) -> None:
    await plugin.registry["notes"].with_namespace(area).delete_all()


@delete("/")
async def clear() -> None:
    await plugin.registry["notes"].delete_all()


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([write, read, clear_area, clear], plugins=[plugin])
