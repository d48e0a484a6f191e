"""What type checkers see of stores, typed stores, cached functions and locks without ``await``."""

from typing import assert_type

from storeconf import MemoryStore
from storeconf.sync import SyncLock, SyncRegistry, SyncStore, SyncTypedStore, cached, load, lock, typed

registry = load({"stores": {"main": {"type": "memory"}}})
assert_type(registry, SyncRegistry)
store = registry.get("main")
assert_type(store, SyncStore)


@cached(store, expires_in=60)
def price(sku: str, amount: int = 1) -> float | None:
    return None


def key_of(shop: object, sku: str) -> str:
    return sku


class Shop:
    @cached("main", registry, key=key_of)
    def find(self, sku: str) -> list[int]:
        return []


def use() -> None:
    assert_type(store.get("k"), bytes | None)
    assert_type(store.get_with_expiry("k"), tuple[bytes, float | None] | None)
    assert_type(store.get_or_set("k", lambda: "v"), bytes)
    assert_type(store.delete("k"), bool | None)
    assert_type(list(store.keys()), list[str])
    assert_type(SyncStore(MemoryStore()).with_namespace("a"), SyncStore)
    counts = typed(store, dict[str, int])
    assert_type(counts, SyncTypedStore[dict[str, int]])
    assert_type(counts.get("k"), dict[str, int] | None)
    assert_type(counts.get_many(["k"]), dict[str, dict[str, int]])
    assert_type(counts.get_or_set("k", lambda: {"a": 1}), dict[str, int])
    counts.set("k", 5)  # type: ignore[arg-type]
    with lock(store, "job", lease=10, wait=None) as held:
        assert_type(held, SyncLock)
        assert_type(held.token, int)
    assert_type(price("a", amount=2), float | None)
    assert_type(price.key("a"), str)
    assert_type(price.invalidate("a"), bool | None)
    price(5)  # type: ignore[arg-type]
    assert_type(Shop().find("a"), list[int])
    assert_type(Shop().find.invalidate("a"), bool | None)
