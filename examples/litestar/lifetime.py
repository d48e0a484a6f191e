"""The lifetime of stores: a client of our own stays ours to close; a managed one is closed with the application."""

import os

from litestar import Litestar, get
from redis.asyncio import Redis

from storeconf import RedisStore, StoreRegistry

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")


async def close_client() -> None:
    await client.aclose()


@get("/")
async def show() -> dict[str, str]:
    for store in (borrowed, owned):
        await store.set("k", f"in {store.name}")
    return {"borrowed": str(await borrowed.get("k")), "owned": str(await owned.get("k"))}


client: Redis = Redis.from_url(URL)
borrowed = RedisStore(redis=client, namespace="borrowed")
owned = RedisStore.with_client(url=URL, namespace="owned")
registry = StoreRegistry({"borrowed": borrowed, "owned": owned})
app = Litestar([show], stores=registry.to_litestar(), on_shutdown=[close_client])
