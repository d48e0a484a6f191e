"""The settings of a memory root: what they accept, what they refuse and where, and the store that they build."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from storeconf import MemoryStore
from storeconf.backends import MemoryBackend
from storeconf.plugin import BuildContext

if TYPE_CHECKING:
    from storeconf.store import Store


def no_store(name: str) -> Store:
    raise LookupError(name)


CONTEXT = BuildContext(name="s", environment=None, store=no_store)


def test_settings_reach_the_store() -> None:
    async def run() -> None:
        store = MemoryBackend.model_validate({"max_entries": 2, "max_size": "1KiB"}).build(CONTEXT)
        await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
        assert await store.get_many(["a", "b", "c"]) == {"b": b"2", "c": b"3"}
        await store.set("large", b"v" * 1_000)
        assert await store.get_many(["b", "c", "large"]) == {"c": b"3", "large": b"v" * 1_000}
        objects: Any = MemoryBackend(objects=True).build(CONTEXT)
        assert objects.capabilities.objects
        await objects.set("k", [1])
        assert await objects.get("k") == [1]

    asyncio.run(run())


def test_a_plain_root_is_a_plain_store() -> None:
    store = MemoryBackend().build(CONTEXT)
    assert type(store) is MemoryStore
    assert store.capabilities == MemoryBackend.capabilities
    assert MemoryBackend().location() is None


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        ({"objects": True, "max_size": "1MB"}, "objects", "max_entries instead of max_size"),
        ({"max_entries": 0}, "max_entries", "greater than 0"),
        ({"max_size": 0}, "max_size", "greater than 0"),
        ({"max_size": "0B"}, "max_size", "greater than 0"),
        ({"max_size": "much"}, "max_size", ""),
        ({"maxsize": 1}, "maxsize", ""),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(settings: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MemoryBackend.model_validate(settings)
    (error,) = caught.value.errors()
    assert error["loc"][0] == place
    assert message in error["msg"]


def test_every_setting_is_described() -> None:
    properties = MemoryBackend.model_json_schema()["properties"]
    assert list(properties) == ["type", "namespace", "max_entries", "max_size", "objects"]
    assert all(field["description"] and field["examples"] for field in properties.values())
