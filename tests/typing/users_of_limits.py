"""What type checkers see of the integration of limits, and of exact rate limits for Litestar."""

from typing import assert_type

import limits.aio.storage
import limits.storage
from limits import parse
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.strategies import FixedWindowRateLimiter
from litestar import Litestar

import storeconf
from storeconf.integrations.limits import AsyncStoreconfStorage, StoreconfStorage
from storeconf.integrations.litestar import RateLimitConfig

storage: limits.storage.Storage = StoreconfStorage("storeconf://rates", layout="storeconf.yaml", environment="a")
shared: limits.aio.storage.Storage = AsyncStoreconfStorage("async+storeconf://rates", layout=storeconf.StoreRegistry())
assert_type(FixedWindowRateLimiter(storage).hit(parse("1/minute"), "ada"), bool)
app = Litestar(middleware=[RateLimitConfig(rate_limit=("minute", 10), store="rates").middleware])


async def use(given: AsyncStoreconfStorage) -> None:
    async with given as opened:
        assert_type(opened, AsyncStoreconfStorage)
        assert_type(await SlidingWindowCounterRateLimiter(opened).hit(parse("1/minute")), bool)
    assert_type(given.store, storeconf.Store)
