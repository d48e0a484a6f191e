"""`CodecStore`: middleware of two methods, whose values go through them whatever the operation."""

from __future__ import annotations

import asyncio
import base64

import pytest

from storeconf import CodecStore, MemoryStore, Store, StoreError, StoreValueError
from storeconf.testing import StoreConformance


class Marked(CodecStore):
    """Values are signed with their place, and kept in base 64."""

    def encode(self, key: str, value: bytes) -> bytes:
        if value == b"never":
            raise StoreValueError("this one is refused")
        if value == b"broken":
            raise RuntimeError("no luck")
        return b"%s:%s" % (":".join((*self.namespaces, key)).encode(), base64.b64encode(value))

    def decode(self, key: str, value: bytes) -> bytes:
        if value == b"broken":
            raise RuntimeError("no luck")
        place, _, data = value.rpartition(b":")
        if place != ":".join((*self.namespaces, key)).encode():
            raise ValueError("it belongs to another key")
        return base64.b64decode(data, validate=True)


class TestMarked(StoreConformance):
    model_examples = 3

    def make_store(self) -> Store:
        return Marked(MemoryStore())


def test_every_operation_uses_the_two_methods() -> None:
    async def main() -> None:
        inner = MemoryStore()
        store = Marked(inner)
        await store.set_many({"a": "1", "b": "2"})
        await store.set("c", "3", expires_in=60)
        assert await store.add("d", "4")
        assert await store.increment("n", 5) == 5
        assert await store.get_or_set("e", lambda: b"6") == b"6"
        assert await store.compare_and_set("a", b"1", b"7", keep_ttl=True)
        stored = {key: await inner.get(key) async for key in inner.keys()}
        assert stored == {key: store.encode(key, value) for key, value in (
            ("a", b"7"), ("b", b"2"), ("c", b"3"), ("d", b"4"), ("n", b"5"), ("e", b"6"),
        )}  # fmt: skip
        assert await store.get_many(["a", "b", "n"]) == {"a": b"7", "b": b"2", "n": b"5"}
        assert await store.get_with_expiry("d") == (b"4", None)
        assert await store.get("c", renew_for=60) == b"3"
        assert await store.pop("a") == b"7"
        assert await inner.get("a") is None
        child = store.with_namespace("child")
        await child.set("k", "v")
        assert await inner.with_namespace("child").get("k") == b"child:k:dg=="

    asyncio.run(main())


def test_damage_is_a_miss_and_every_other_error_keeps_the_entry(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        inner = MemoryStore()
        store = Marked(inner)
        await inner.set_many({"moved": b"other:dg==", "odd": b"odd:****", "broken": b"broken"})
        assert await store.get("moved") is None
        assert await store.get_many(["moved", "odd"]) == {}
        assert await store.pop("odd") is None
        for call in (store.get("broken"), store.pop("broken"), store.increment("broken"), store.get_many(["broken"])):
            with pytest.raises(StoreError, match=r"RuntimeError: no luck") as caught:
                await call
            assert not caught.value.outcome_unknown
        with pytest.raises(StoreError, match=r"failed in set_many: RuntimeError: no luck") as caught:
            await store.set_many({"x": "broken"})
        assert not caught.value.outcome_unknown
        with pytest.raises(StoreValueError, match="refused") as refused:
            await store.set("x", "never")
        assert (refused.value.store, refused.value.operation) == ("MemoryStore", "set")
        with pytest.raises(TypeError, match="str or bytes-like"):
            await store.set("x", 3)  # type: ignore[arg-type]  # on purpose
        assert sorted([key async for key in inner.keys()]) == ["broken", "moved", "odd"]

    asyncio.run(main())
    assert "it belongs to another key" in caplog.text
    assert "it can't be decoded (Error)" in caplog.text
    assert "****" not in caplog.text
