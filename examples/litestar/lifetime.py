"""The lifetime of stores: a client of our own stays ours to close; a managed one is closed with the application."""

import os
from pathlib import Path

from litestar import Litestar, get
from redis.asyncio import Redis

from storeconf import RedisStore
from storeconf.integrations.litestar import StoreconfPlugin

LAYOUT = Path(__file__).with_name("basics.yaml")
URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")


async def close_client() -> None:
    await client.aclose()


@get("/")
async def show() -> dict[str, str]:
    answers = {}
    for name in ("notes", "borrowing", "owning"):
        await plugin.registry[name].set("k", f"in {name}")
        answers[name] = str(await plugin.registry[name].get("k"))
    return answers


client: Redis = Redis.from_url(URL)
borrowing = RedisStore(redis=client, namespace="borrowing")
owning = RedisStore.with_client(url=URL, namespace="owning")
plugin = StoreconfPlugin(LAYOUT)  # its stores are managed, whatever backend they are on
app = Litestar(
    [show],
    plugins=[plugin],
    stores={"borrowing": borrowing, "owning": owning},
    on_shutdown=[close_client],
)
