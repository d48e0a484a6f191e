"""What can be stored: bytes and text anywhere, any object in a memory store that allows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Litestar, get

from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("objects.yaml")


@dataclass
class Basket:
    items: list[str]


@get("/")
async def show() -> dict[str, Any]:
    texts, objects = plugin.registry["bytes"], plugin.registry["objects"]
    basket: Any = Basket(["lamp"])
    await texts.set("text", "größe")
    await texts.set("bytes", b"\x00\xff")
    await objects.set("basket", basket)
    return {
        "text": (await texts.get("text") or b"").decode(),
        "bytes": list(await texts.get("bytes") or b""),
        "same object": await objects.get("basket") is basket,
    }


plugin = StoreconfPlugin(LAYOUT)
app = Litestar([show], plugins=[plugin])
