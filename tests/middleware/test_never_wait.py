"""What a store's class declares as never waiting, `timeout` lets pass; what a subclass makes of it is bounded again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest

from storeconf import Backend, Catalog, MemoryStore, Store, StoreTimeoutError, read_layout

if TYPE_CHECKING:
    from storeconf import BuildContext, StoreRegistry

OPERATIONS = ("get", "set", "delete", "exists")
ARGUMENTS = {"get": ("k",), "set": ("k", "v"), "delete": ("k",), "exists": ("k",)}


class Gated(MemoryStore):
    """Waits in `get` and `exists` until someone opens the gate, whatever it declares."""

    gate: ClassVar[asyncio.Event]
    reached: ClassVar[asyncio.Event]

    async def _wait(self) -> None:
        self.reached.set()
        await self.gate.wait()

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        await self._wait()
        return await super().get(key, renew_for)

    async def exists(self, key: str) -> bool:
        await self._wait()
        return await super().exists(key)


class Declared(Gated):
    """Declares `get` alone, and does not keep its word: so one sees which limit holds."""

    synchronous_operations = frozenset({"get"})


class Heir(Declared):
    """Inherits a declaration that it does not make."""


def registry(kind: type[Store], middleware: dict[str, Any]) -> StoreRegistry:
    """A store of that class in a layout, with a child below it."""

    class Custom(Backend):
        type: Literal["custom"] = "custom"

        def build(self, context: BuildContext) -> Store:
            return kind()

    stores = {"main": {"type": "custom", "middleware": middleware}, "child": {"parent": "main"}}
    catalog = Catalog.builtin().with_backend("custom", Custom)
    return read_layout({"stores": stores}, environ={}, catalog=catalog).compile()


@pytest.mark.parametrize("name", ["main", "child"])
def test_what_is_declared_has_no_limit_and_everything_else_has(name: str) -> None:
    async def check() -> None:
        Gated.gate, Gated.reached = asyncio.Event(), asyncio.Event()
        async with registry(Declared, {"timeout": "10ms"}) as stores:
            store = stores[name]
            await store.set("k", "v")
            declared = asyncio.create_task(store.get("k"))
            await Gated.reached.wait()
            with pytest.raises(StoreTimeoutError):  # begun later, and ended by the same limit
                await store.exists("k")
            assert not declared.done()
            Gated.gate.set()
            assert await declared == b"v"

    asyncio.run(check())


@pytest.mark.parametrize("kind", [Heir, Gated])
@pytest.mark.parametrize("name", ["main", "child"])
def test_a_subclass_that_does_not_declare_it_is_bounded(kind: type[Store], name: str) -> None:
    async def check() -> None:
        Gated.gate, Gated.reached = asyncio.Event(), asyncio.Event()
        async with registry(kind, {"timeout": "10ms"}) as stores:
            with pytest.raises(StoreTimeoutError) as caught:
                await stores[name].get("k")
            assert (caught.value.store, caught.value.operation) == (name, "get")

    asyncio.run(check())


@pytest.mark.parametrize("above", [{}, {"retry": 2}, {"limit": 8}])
def test_the_memory_store_keeps_its_word_under_a_limit(above: dict[str, Any]) -> None:
    """Each call that it declares ends at the first step of its coroutine, so that no other task ran."""

    async def check() -> None:
        assert MemoryStore.synchronous_operations == set(OPERATIONS)
        async with registry(MemoryStore, {**above, "timeout": "1h"}) as stores:
            for name in ("main", "child"):
                for operation in OPERATIONS:
                    running = getattr(stores[name], operation)(*ARGUMENTS[operation])
                    with pytest.raises(StopIteration):
                        running.send(None)

    asyncio.run(check())


@pytest.mark.parametrize("name", ["main", "child"])
def test_what_passes_the_limit_by_is_still_the_same_store(name: str) -> None:
    async def check() -> None:
        async with registry(MemoryStore, {"ttl": "1h", "timeout": "1s"}) as stores:
            store = stores[name]
            await store.set("k", "v")
            assert await store.get("k", renew_for=60) == b"v"
            assert await store.expires_in("k") == 60
            await store.delete("k")
            assert not await store.exists("k")
            assert await store.with_namespace("below").get("k") is None

    asyncio.run(check())
