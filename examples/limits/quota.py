"""limits: a quota per user that all workers count together, on whatever store the layout says."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from limits import parse
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from storeconf.integrations.limits import AsyncStoreconfStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LAYOUT = Path(__file__).with_name("storeconf.yaml")

storage = AsyncStoreconfStorage(f"async+storeconf://rates?layout={LAYOUT}")
questions = SlidingWindowCounterRateLimiter(storage)
reports = FixedWindowRateLimiter(storage)


@asynccontextmanager
async def lifespan(_: FastAPI) -> "AsyncIterator[None]":
    async with storage:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/questions/{user}")
async def ask(user: str) -> int:
    """Take a question, and return how many more the user may ask."""
    limit = parse("3/minute")
    if not await questions.hit(limit, user):
        raise HTTPException(429)
    return (await questions.get_window_stats(limit, user)).remaining


@app.post("/reports/{user}")
async def report(user: str) -> str:
    if not await reports.hit(parse("1/day"), user):
        raise HTTPException(429)
    return "a report"
