"""`cached`: one run per key, keys from arguments, and results of the annotated type."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from storeconf import MemoryStore, StoreRegistry, UnknownStoreError, cached
from tests.above.backends import BACKENDS, in_loop, layout, load

if TYPE_CHECKING:
    from pathlib import Path


class Price(BaseModel):
    amount: int
    currency: str = "EUR"


@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_one_run_per_arguments(backend: str, tmp_path: Path) -> None:
    runs: list[tuple[str, int]] = []
    async with load(layout(backend, tmp_path)) as registry:

        @cached(registry["s"], expires_in=60)
        async def price(sku: str, amount: int = 1) -> Price:
            """Look the price up."""
            runs.append((sku, amount))
            await asyncio.sleep(0.01)
            return Price(amount=amount)

        found = await asyncio.gather(
            *(price("a") for _ in range(5)), price("a", 1), price(sku="a"), price(amount=1, sku="a")
        )
        assert found == [Price(amount=1)] * 8
        assert runs == [("a", 1)]
        assert await price("a", 2) == Price(amount=2)
        assert (await registry["s"].expires_in(price.key("a")) or 0) > 50
        assert await price.invalidate(sku="a") is True
        assert await price.invalidate("a") is False
        await price("a")
        assert runs == [("a", 1), ("a", 2), ("a", 1)]
        assert price.__doc__ == "Look the price up."
        assert asyncio.iscoroutinefunction(price)
        assert price.__name__ == "price"


@in_loop
async def test_none_is_a_result_like_any_other() -> None:
    runs = 0

    @cached(MemoryStore())
    async def find(key: str) -> int | None:
        nonlocal runs
        runs += 1
        return None

    assert [await find("a"), await find("a")] == [None, None]
    assert runs == 1


@in_loop
async def test_an_error_is_not_kept() -> None:
    runs = 0

    @cached(MemoryStore())
    async def fail() -> int:
        nonlocal runs
        runs += 1
        raise KeyError("mine")

    for _ in range(2):
        with pytest.raises(KeyError):
            await fail()
    assert runs == 2


@in_loop
async def test_a_value_of_an_earlier_release_is_computed_again() -> None:
    store = MemoryStore()

    @cached(store, expires_in=60)
    async def price(sku: str) -> Price:
        return Price(amount=1)

    await store.set(price.key("a"), b'{"cents": 5}')
    assert await price("a") == Price(amount=1)
    assert await store.get(price.key("a")) == b'{"amount":1,"currency":"EUR"}'


async def module_level(a: int, b: list[Any] | None = None, *rest: int, c: Any = None, **more: int) -> int:
    return a


@pytest.mark.parametrize(
    ("args", "kwargs", "json"),
    [
        ((1,), {}, '{"a":1,"b":null,"c":null,"more":{},"rest":[]}'),
        (
            (True, [1, 2.5, "é"]),
            {"c": {"y": 1, "x": None}},
            '{"a":true,"b":[1,2.5,"\\u00e9"],"c":{"x":null,"y":1},"more":{},"rest":[]}',
        ),
        ((1, [], 3), {"z": 2}, '{"a":1,"b":[],"c":null,"more":{"z":2},"rest":[3]}'),
    ],
)
def test_keys(args: tuple[Any, ...], kwargs: dict[str, Any], json: str) -> None:
    function = cached(MemoryStore())(module_level)
    assert function.key(*args, **kwargs) == f"{__name__}.module_level:{json}"


def test_long_keys_are_hashed() -> None:
    function = cached(MemoryStore())(module_level)
    keys = {function.key(1, ["x" * length]) for length in (100, 300, 301, 10_000)}
    assert len(keys) == 4
    assert all(len(key) <= 200 and key.startswith(f"{__name__}.module_level") for key in keys)
    assert function.key(1, ["x" * 300]) == function.key(1, b=["x" * 300])


class Odd:
    pass


@pytest.mark.parametrize(
    "value", [Odd(), b"bytes", {1: "a"}, [{1: "a"}], {"a": {None: 1}}, float("nan"), [float("inf")], {1, 2}, object]
)
@in_loop
async def test_arguments_that_are_not_json_need_a_key(value: Any) -> None:
    @cached(MemoryStore())
    async def function(value: Any) -> int:
        return 1

    with pytest.raises(TypeError, match=r"are not JSON .*: give cached\(\) a key="):
        await function(value)
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(TypeError, match="are not JSON"):
        await function(circular)


def test_different_values_have_different_keys() -> None:
    @cached(MemoryStore())
    async def function(value: Any, other: Any = None) -> int:
        return 1

    values = [1, "1", True, None, "null", 1.5, [1], ["1"], {"1": 1}, {"1": "1"}, "", [], {}, [[]], "[]"]
    keys = [function.key(value) for value in values] + [function.key(None, value) for value in values[:3]]
    assert len(set(keys)) == len(keys)


@in_loop
async def test_methods_need_a_key_and_have_their_object() -> None:
    store = MemoryStore()
    with pytest.raises(TypeError, match=r"method: give cached\(\) a key="):

        class Wrong:
            @cached(store)
            async def find(self, key: str) -> str:
                return key

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name
            self.runs = 0

        @cached(store, key=lambda self, sku: f"{self.name}/{sku}")
        async def find(self, sku: str) -> str:
            self.runs += 1
            return f"{self.name} {sku}"

    one, other = Shop("one"), Shop("other")
    for _ in range(2):
        assert [await one.find("a"), await other.find("a")] == ["one a", "other a"]
    assert (one.runs, other.runs) == (1, 1)
    assert one.find.key("a") == "one/a"
    assert await one.find.invalidate("a")
    assert [await one.find("a"), await Shop.find(one, "a")] == ["one a", "one a"]
    assert one.runs == 2


@in_loop
async def test_a_store_by_name_is_looked_up_at_the_first_call() -> None:
    registry = StoreRegistry()

    @cached("prices", registry)
    async def price(sku: str) -> int:
        return 1

    registry.register("prices", MemoryStore())
    async with registry:
        assert await price("a") == 1
        assert await registry["prices"].get(price.key("a")) == b"1"
        with pytest.raises(TypeError, match="a store's name needs its registry"):
            cached("prices")
    forbidding = load({"stores": {}, "default_factory": "forbid"})

    @cached("prices", registry=forbidding)
    async def other(sku: str) -> int:
        return 1

    with pytest.raises(UnknownStoreError):
        await other("a")


def test_what_cannot_be_cached() -> None:
    def synchronous() -> int:
        return 1

    async def unannotated():  # type: ignore[no-untyped-def]  # that is the test
        return 1

    with pytest.raises(TypeError, match="decorates async functions"):
        cached(MemoryStore())(synchronous)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(TypeError, match="annotate what"):
        cached(MemoryStore())(unannotated)
    with pytest.raises(TypeError):
        cached(MemoryStore(), expires_in="60")  # type: ignore[arg-type]  # that is the test


@in_loop
async def test_the_function_itself_stays_in_reach() -> None:
    function = cached(MemoryStore())(module_level)
    assert function.__wrapped__ is module_level
    with pytest.raises(TypeError):
        await function()  # type: ignore[call-arg]  # that is the test
