"""Many keys in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storeconf.testing._checks import equal, raises, returns_none, told
from storeconf.testing._suite import LONG, Suite, all_keys, promise

if TYPE_CHECKING:
    from storeconf import Store


class Bulk(Suite):
    """Promises on get_many, set_many and delete_many."""

    @promise
    async def test_get_many_returns_the_hits(self, store: Store) -> None:
        """get_many returns a dict of those keys that are there, in a plain dict, and asks for each once."""
        await store.set("a", b"1")
        await store.set("b", b"")
        equal(await store.get_many(["a", "missing", "b"]), {"a": b"1", "b": b""}, "get_many returns the hits")
        equal(await store.get_many(["a", "a"]), {"a": b"1"}, "a key may be named twice")
        equal(await store.get_many(["missing"]), {}, "get_many of missing keys is empty")

    @promise
    async def test_many_of_nothing(self, store: Store) -> None:
        """Bulk calls without keys do nothing and do not fail."""
        await store.set("k", b"v")
        equal(await store.get_many([]), {}, "get_many of nothing")
        await returns_none(store.set_many({}), "set_many of nothing")
        await returns_none(store.set_many({}, expires_in=60), "set_many of nothing with an expiry")
        await returns_none(store.set_many({}, expires_in=0), "set_many of nothing that is over")
        told(await store.delete_many([]), 0, "delete_many of nothing")
        equal(await all_keys(store), {"k"}, "nothing changed")

    @promise
    async def test_any_iterable_of_keys(self, store: Store) -> None:
        """Keys may come as any iterable, but not as one str, which is a mistake."""
        await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
        expected = {"a": b"1", "b": b"2"}
        for keys in (["a", "b"], ("a", "b"), {"a", "b"}, {"a": 0, "b": 0}, (key for key in "ab"), iter(["a", "b"])):
            equal(await store.get_many(keys), expected, f"get_many of a {type(keys).__name__}")
        await store.delete_many(key for key in "ab")
        equal(await all_keys(store), {"c"}, "delete_many of a generator")
        await raises(TypeError, store.get_many, "ab")
        await raises(TypeError, store.delete_many, "c")
        await raises(TypeError, store.get_many, b"ab")
        equal(await all_keys(store), {"c"}, "the mistake changes nothing")

    @promise
    async def test_set_many_is_a_set_of_each(self, store: Store) -> None:
        """set_many replaces value and expiry of each key."""
        since = self.now()
        await store.set("a", b"old", expires_in=5)
        await returns_none(store.set_many({"a": "text", "b": bytearray(b"buffer")}), "set_many returns None")
        equal(await store.get_with_expiry("a"), (b"text", None), "set_many drops the old expiry")
        equal(await store.get("b"), b"buffer", "set_many takes what set takes")
        await store.set_many({"a": b"1", "b": b"2"}, expires_in=LONG)
        for key in ("a", "b"):
            await self.check_left(store, key, LONG, since, "set_many sets one expiry for all")

    @promise
    async def test_delete_many(self, store: Store) -> None:
        """delete_many removes its keys and no others, and returns how many were there (None if it cannot tell)."""
        await store.set_many(dict.fromkeys("abcd", b"v"))
        told(await store.delete_many(["a", "missing", "c", "a"]), 2, "delete_many counts the keys that were there")
        equal(await all_keys(store), {"b", "d"}, "delete_many removes its keys and no others")

    @promise
    async def test_a_thousand_keys_at_once(self, store: Store) -> None:
        """Bulk calls take more than a thousand keys."""
        items = {f"k{n}": str(n).encode() for n in range(1500)}
        await store.set_many(items)
        equal(await store.get_many(items), items, "get_many returns all of them")
        told(await store.delete_many([*items, "missing"]), len(items), "delete_many counts all of them")
        equal(await store.get_many(items), {}, "delete_many removes all of them")

    @promise
    async def test_large_values_at_once(self, store: Store) -> None:
        """Bulk calls take large values, too."""
        items = {f"k{n}": bytes([n]) * 500_000 for n in range(8)}
        await store.set_many(items)
        equal(await store.get_many(items), items, "get_many returns large values whole")
