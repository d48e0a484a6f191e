"""`typed`: what is stored, what comes back, and what happens to values that are not valid."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from storeconf import MemoryStore, StoreValueError, TypedStore, typed
from tests.above.backends import BACKENDS, KEY, in_loop, layout, load
from tests.conformance.plain import PlainStore

if TYPE_CHECKING:
    from pathlib import Path


class Colour(Enum):
    RED = "red"


class Item(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    sku: str = Field(alias="SKU")
    price: Decimal = Field(validation_alias="Price")
    when: datetime = Field(serialization_alias="When")

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def label(self) -> str:
        return f"{self.sku} {self.price}"


@dataclass
class Point:
    x: int
    y: tuple[float, ...] = ()


class Pair(NamedTuple):
    a: int
    b: str


class Options(TypedDict, total=False):
    size: int


ITEM = Item.model_validate({"SKU": "a", "Price": "1.10", "when": "2026-01-01T00:00:00Z"})

VALUES: list[tuple[Any, Any]] = [
    (int, 7),
    (bool, False),
    (str, "é\n"),
    (bytes, b"bytes"),
    (float, 1.5),
    (int | None, None),
    (list[int], []),
    (dict[str, set[int]], {"a": {1, 2}}),
    (date, date(2026, 1, 2)),
    (Colour, Colour.RED),
    (Literal["a", "b"], "b"),
    (Annotated[int, Field(gt=3)], 4),
    (Item, ITEM),
    (Point, Point(1, (2.0,))),
    (Pair, Pair(1, "b")),
    (Options, {"size": 1}),
    (tuple[int, str] | Point, Point(1)),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
@pytest.mark.parametrize("backend", BACKENDS)
@in_loop
async def test_every_type_comes_back(backend: str, kind: Any, value: Any, tmp_path: Path) -> None:
    async with load(
        layout(backend, tmp_path, encrypt={"keys": [KEY]}, compress={"min_size": 0, "algorithm": "gzip"})
    ) as registry:
        store: TypedStore[Any] = typed(registry["s"], kind)
        assert await store.get("k") is None
        await store.set("k", value, 60)
        assert await store.get("k") == value
        assert await store.get_many(["k", "other"]) == {"k": value}
        assert await store.get_or_set("k", lambda: pytest.fail("it is there")) == value
        assert await store.get_or_set("made", lambda: value) == value
        assert await store.add("k", value) is False
        assert await store.add("added", value) is True
        if value is not None:
            assert await store.compare_and_set("k", value, value, keep_ttl=True)
            assert await store.compare_and_set("k", value, None)
        assert await store.pop("made") == value
        assert await store.pop("made") is None
        await store.set_many({"a": value, "b": value})
        assert {key async for key in store.keys()} >= {"a", "b"}
        assert await store.delete_many(["a", "b"]) == 2
        child = store.with_namespace("below")
        await child.set("k", value)
        assert await child.get("k") == value
        assert {place async for place in store.walk()} >= {(("below",), "k")}
        await store.delete_all()
        assert await child.exists("k") is False


@in_loop
async def test_the_stored_form_is_json_under_the_fields_own_names() -> None:
    store = MemoryStore()
    await typed(store, Item).set("k", ITEM)
    assert await store.get("k") == b'{"sku":"a","price":"1.10","when":"2026-01-01T00:00:00Z"}'
    # What another version stored under aliases can be read too.
    await store.set("k", '{"SKU": "a", "Price": 1, "when": "2026-01-01T00:00:00Z"}')
    read = await typed(store, Item).get("k")
    assert read is not None
    assert (read.sku, read.price, read.when) == ("a", Decimal(1), ITEM.when)
    counter = typed(store, int)
    await counter.set("n", 5)
    assert await counter.increment("n", 2) == 7
    assert await counter.get("n") == 7


def stored_wrongly() -> list[tuple[Any, bytes]]:
    return [
        (int, b"secret"),
        (int, b'"secret"'),
        (dict[str, int], b'{"secret": "secret"}'),
        (Item, b"{}"),
        (str, b"\xff"),
    ]


@pytest.mark.parametrize(("kind", "data"), stored_wrongly())
@in_loop
async def test_what_is_not_valid_raises_and_stays(kind: Any, data: bytes) -> None:
    store = MemoryStore()
    await store.set("k", data)
    values: TypedStore[Any] = typed(store, kind)

    async def made() -> Any:
        pytest.fail("it is there")

    calls = (
        lambda: values.get("k"), lambda: values.get("k", 60), lambda: values.pop("k"), lambda: values.get_many(["k"]),
        lambda: values.get_or_set("k", made),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(StoreValueError) as raised:
            await call()
        text = f"{raised.value} {raised.value!r} {raised.value.__cause__}"
        assert "'k'" in text
        assert "secret" not in text
        assert raised.value.__suppress_context__
        assert raised.value.store == "MemoryStore"
    assert await store.get("k") == data


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "data"), stored_wrongly())
@in_loop
async def test_what_is_not_valid_can_be_a_miss(backend: str, kind: Any, data: bytes, tmp_path: Path) -> None:
    made = {int: 1, str: "made", Item: ITEM}.get(kind, {"a": 1})
    async with load(layout(backend, tmp_path)) as registry:
        store = registry["s"]
        await store.set_many({"k": data, "other": data})
        values: TypedStore[Any] = typed(store, kind, invalid="miss")
        assert await values.get("k") is None
        assert await values.get_many(["k"]) == {}
        assert await values.pop("k") is None
        assert await store.get("k") == data
        runs = 0

        async def factory() -> Any:
            nonlocal runs
            runs += 1
            await asyncio.sleep(0.01)
            return made

        results = await asyncio.gather(*(values.get_or_set("k", factory, 60) for _ in range(5)))
        assert (results, runs) == ([made] * 5, 1)
        assert await values.get("k") == made
        assert (await store.expires_in("k") or 0) > 50


@in_loop
async def test_a_newer_valid_value_is_not_replaced() -> None:
    """A process that computes instead of what is not valid finds that another one was first."""
    atomic = MemoryStore()
    await atomic.set("k", b"old form")

    async def factory() -> int:
        await atomic.do_set((), "k", b"5", None, False)  # past this process, as another one would
        return 4

    assert await typed(atomic, int, invalid="miss").get_or_set("k", factory) == 5
    assert await typed(atomic, int).get("k") == 5


@pytest.mark.parametrize(("kind", "value"), [(int, "secret"), (Item, {"sku": 1}), (list[int], ["secret"])])
@in_loop
async def test_values_of_another_type_are_not_stored(kind: Any, value: Any) -> None:
    store: TypedStore[Any] = typed(MemoryStore(), kind)
    calls = (
        lambda: store.set("k", value), lambda: store.add("k", value), lambda: store.set_many({"k": value}),
        lambda: store.get_or_set("k", lambda: value), lambda: store.compare_and_set("k", None, value),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(StoreValueError) as raised:
            await call()
        assert "secret" not in f"{raised.value}{raised.value.__cause__}"
    assert not await store.exists("k")


def test_types_that_pydantic_does_not_know() -> None:
    class Unknown:
        pass

    with pytest.raises(TypeError, match="Pydantic can't validate Unknown"):
        typed(MemoryStore(), Unknown)
    with pytest.raises(ValueError, match="invalid is 'raise' or 'miss'"):
        typed(MemoryStore(), int, invalid="ignore")  # type: ignore[call-overload]  # that is the test


@in_loop
async def test_only_one_pops() -> None:
    values = typed(MemoryStore(), int)
    await values.set("k", 1)
    popped = await asyncio.gather(*(values.pop("k") for _ in range(10)))
    assert sorted(popped, key=str) == [1] + [None] * 9


@in_loop
async def test_a_store_without_atomic_operations() -> None:
    values = typed(PlainStore(), float, invalid="miss")
    await values.store.set("k", b"wrong")
    assert await values.get_or_set("k", lambda: math.pi) == math.pi
    assert await values.get("k") == math.pi
