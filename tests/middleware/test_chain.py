"""What holds for every kind of middleware alike, beside the promises: many stay one call, and nothing is made up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest

import storeconf
from storeconf import Backend, BuildContext, Catalog, MemoryStore, Store, StoreWrapper, UnsupportedOperationError
from tests.conformance.plain import PlainStore
from tests.conformance.test_stores import CACHE, FULL_STACK, MIDDLEWARE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

CHAINS: dict[str, dict[str, Any]] = {**MIDDLEWARE, "Cache": CACHE, "FullStack": {**FULL_STACK, **CACHE}}


class Counting(MemoryStore):
    """A memory store that notes which public methods are called; its namespaces share the notes."""

    calls: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def do_attach(self, parent: Store) -> None:
        super().do_attach(parent)  # type: ignore[arg-type]  # it is one of this class
        self.calls = self.root.calls  # type: ignore[attr-defined]  # likewise

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        self.calls.append("get_many")
        return await super().get_many(keys)

    async def set_many(self, mapping: Mapping[str, Any], expires_in: Any = None) -> None:
        self.calls.append("set_many")
        await super().set_many(mapping, expires_in)

    async def delete_many(self, keys: Iterable[str]) -> int | None:
        self.calls.append("delete_many")
        return await super().delete_many(keys)

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        self.calls.append("get")
        return await super().get(key, renew_for)

    async def set(self, key: str, value: Any, expires_in: Any = None, *, keep_ttl: bool = False) -> None:
        self.calls.append("set")
        await super().set(key, value, expires_in, keep_ttl=keep_ttl)


class CountingBackend(Backend):
    type: Literal["counting"] = "counting"

    def build(self, context: BuildContext) -> Store:
        return Counting()


class PlainBackend(Backend):
    type: Literal["plain"] = "plain"

    def build(self, context: BuildContext) -> Store:
        return PlainStore()


CATALOG = Catalog.builtin().with_backend("counting", CountingBackend).with_backend("plain", PlainBackend)


def in_layout(kind: str, middleware: dict[str, Any], use: Callable[[Store, Any], Coroutine[Any, Any, None]]) -> None:
    stores = {
        "other": {"type": "memory"},
        "second": {"type": "memory"},
        "main": {"type": kind, "middleware": middleware},
    }

    async def main() -> None:
        layout = storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG)
        async with layout.compile() as registry:
            await use(registry["main"], registry["main"].root)

    asyncio.run(main())


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_many_stay_one_call_also_in_namespaces(chain: dict[str, Any]) -> None:
    async def use(store: Store, root: Any) -> None:
        below = store.with_namespace("below").with_namespace("further")
        keys = [f"k{number}" for number in range(100)]  # of fewer a near cache asks for each with its expiry
        # With every write and deletion, refresh removes its copies of the same keys: at once, so in no order.
        copies = ["delete_many"] if "refresh" in chain else []

        def called(*expected: str) -> None:
            assert sorted(root.calls) == sorted(expected)
            root.calls.clear()

        for each in (store, below):
            await each.set_many(dict.fromkeys(keys, b"v"))
            called("set_many", *copies)
            assert await each.get_many(keys) == dict.fromkeys(keys, b"v")
            called("get_many")
            await each.delete_many(keys)
            called("delete_many", *copies)

    in_layout("counting", chain, use)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_namespace_has_the_chain_of_its_store(chain: dict[str, Any]) -> None:
    def links(store: Any) -> list[str]:
        return [type(store).__name__, *(links(store.wrapped) if "wrapped" in vars(store) else [])]

    async def use(store: Store, root: Any) -> None:
        assert links(store.with_namespace("below")) == links(store)
        assert store.with_namespace("below").capabilities == store.capabilities

    in_layout("counting", chain, use)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_the_backend_has_not_the_chain_refuses(chain: dict[str, Any]) -> None:
    async def use(store: Store, root: Any) -> None:
        assert store.capabilities.atomic == root.capabilities.atomic
        await store.set("k", "1")
        for call in (
            lambda: store.add("n", b"1"),
            lambda: store.touch("k", 5),
            lambda: store.pop("k"),
            lambda: store.increment("k"),
            lambda: store.compare_and_set("k", b"1", b"2"),
        ):
            with pytest.raises(UnsupportedOperationError):
                await call()
        assert await store.get("k") == b"1"
        assert await store.get("n") is None

    in_layout("plain", chain, use)


def test_a_store_whose_constructor_raised_has_a_repr() -> None:
    class Refused(MemoryStore):
        def __init__(self) -> None:
            objects.append(self)
            raise ValueError("no")

    class RefusedWrapper(StoreWrapper):
        def __init__(self, inner: Store) -> None:
            objects.append(self)
            raise ValueError("no")

    objects: list[Any] = []
    with pytest.raises(ValueError, match="no"):
        Refused()
    with pytest.raises(ValueError, match="no"):
        RefusedWrapper(MemoryStore())
    assert [repr(each) for each in objects] == ["<Refused, not initialized>", "<RefusedWrapper, not initialized>"]
