"""What type checkers see of the integration of Django."""

from typing import Any, assert_type

import storeconf
from storeconf.integrations.django import StoreconfCache

cache = StoreconfCache("pages", {"OPTIONS": {"layout": "storeconf.yaml", "serializer": "json"}, "TIMEOUT": 60})
assert_type(cache.get("k"), Any)
assert_type(cache.add("k", 1, timeout=None), bool)
assert_type(cache.get_many(["a"]), dict[Any, Any])
assert_type(cache.incr_version("k"), int)
assert_type(cache.store, storeconf.Store)


async def use() -> None:
    assert_type(await cache.aadd("k", 1), bool)
    assert_type(await cache.aget_or_set("k", 1), Any)
