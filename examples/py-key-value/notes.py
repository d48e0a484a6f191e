"""py-key-value: an application that knows only its protocol, on whatever store the layout says."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from key_value.aio.adapters.pydantic import PydanticAdapter
from pydantic import BaseModel

from storeconf.integrations.key_value import StoreconfKeyValue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Note(BaseModel):
    text: str
    stars: int = 0


storage = StoreconfKeyValue("notes", Path(__file__).with_name("storeconf.yaml"))
notes = PydanticAdapter(storage, Note, default_collection="user:ada")


@asynccontextmanager
async def lifespan(_: FastAPI) -> "AsyncIterator[None]":
    async with storage:
        yield


app = FastAPI(lifespan=lifespan)


@app.put("/notes/{name}")
async def write(name: str, note: Note, seconds: float | None = None) -> None:
    await notes.put(name, note, ttl=seconds)


@app.get("/notes/{name}")
async def read(name: str) -> Note:
    note, _ = await notes.ttl(name)
    if note is None:
        raise HTTPException(404)
    return note


@app.delete("/notes/{name}")
async def remove(name: str) -> bool:
    return await notes.delete(name)


@app.get("/collections")
async def collections() -> list[str]:
    return await storage.collections()
