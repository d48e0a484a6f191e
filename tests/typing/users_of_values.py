"""What type checkers see of typed stores, cached functions and locks."""

from typing import assert_type

import storeconf
from storeconf import CachedFunction, MemoryStore, StoreLock, TypedStore, cached, lock, typed

store = MemoryStore()


@cached(store, expires_in=60)
async def price(sku: str, amount: int = 1) -> float | None:
    return None


def key_of(shop: object, sku: str) -> str:
    return sku


class Shop:
    @cached("prices", storeconf.StoreRegistry(), key=key_of)
    async def find(self, sku: str) -> list[int]:
        return []


async def use() -> None:
    counts = typed(store, dict[str, int])
    assert_type(counts, TypedStore[dict[str, int]])
    assert_type(await counts.get("k"), dict[str, int] | None)
    assert_type(await counts.pop("k"), dict[str, int] | None)
    assert_type(await counts.get_many(["k"]), dict[str, dict[str, int]])
    assert_type(await counts.get_or_set("k", lambda: {"a": 1}, background=True), dict[str, int])
    assert_type(await counts.compare_and_set("k", None, {}), bool)
    assert_type(await counts.delete("k"), bool | None)
    assert_type(await counts.increment("k"), int)
    assert_type(counts.with_namespace("a"), TypedStore[dict[str, int]])
    optional: TypedStore[int | None] = typed(store, int | None, invalid="miss")
    assert_type(await optional.get("k"), int | None)
    await counts.set("k", 5)  # type: ignore[arg-type]
    async with lock(store, "job", lease=10, wait=None) as held:
        assert_type(held, StoreLock)
        assert_type(held.token, int)
    assert_type(await price("a", amount=2), float | None)
    assert_type(price.key("a"), str)
    assert_type(await price.invalidate("a"), bool | None)
    await price(5)  # type: ignore[arg-type]
    assert_type(price.values, TypedStore[float | None])
    shop = Shop()
    assert_type(await shop.find("a"), list[int])
    assert_type(shop.find.key("a"), str)
    function: CachedFunction[[Shop, str], list[int]] = Shop.find
    assert_type(await function(shop, "a"), list[int])
