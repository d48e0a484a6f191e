"""storeconf's own suite over stores of py-key-value, and what is this backend's alone."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from key_value.aio.errors import StoreConnectionError
from key_value.aio.stores.base import BaseStore
from key_value.aio.stores.memory import MemoryStore
from storeconf_key_value import KeyValueBackend
from storeconf_key_value.kinds import KINDS
from storeconf_key_value.store import PAGE, KeyValueStore, _collection, _name

import storeconf
from storeconf import BuildContext, StoreError, StoreUnavailableError, UnsupportedOperationError
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


def built(**settings: Any) -> KeyValueStore:
    context = BuildContext(name="tested", environment=None, store=lambda name: storeconf.MemoryStore())
    store = KeyValueBackend(**settings).build(context)
    assert isinstance(store, KeyValueStore)
    return store


class TestMemoryAsChild(StoreConformance):
    namespaces = ("parent", "Child_2")
    threads = False  # the library's stores serve one event loop at a time
    model_examples = 10

    def make_store(self) -> KeyValueStore:
        return built(store="memory")


class TestDisk(StoreConformance):
    threads = False
    model_examples = 10

    def make_store(self) -> KeyValueStore:
        return built(store="disk", path=self.directory / "data")


def run(work: Callable[[KeyValueStore], Coroutine[Any, Any, None]], library: BaseStore) -> None:
    async def main() -> None:
        async with KeyValueStore(lambda: library) as store:
            await work(store)

    asyncio.run(main())


def test_every_kind_is_offered_and_leads_to_a_store_of_the_library() -> None:
    schema = KeyValueBackend.model_json_schema()
    assert set(schema["properties"]["store"]["enum"]) == set(KINDS)
    for name, kind in KINDS.items():
        module = kind.target.partition(":")[0]
        assert importlib.util.find_spec(module) is not None, name


def test_names_are_short_plain_and_different() -> None:
    keys = ["", "a", "A", "a:b", "a" * 48, "a" * 49, "k_a", "ä", "x" * 100_000, "h_", "a\0"]
    names = {_name(key).lower() for key in keys}
    assert len(names) == len(keys)
    assert all(len(name) <= 66 and name.replace("_", "").isalnum() for name in names)
    paths = [(), ("a",), ("a", "b"), ("a_b",), ("A", "b"), ("a-b",), ("a",) * 60, ("a" * 60,)]
    collections = {_collection(path).lower() for path in paths}
    assert len(collections) == len(paths)
    assert all(len(name) <= 60 for name in collections)


def test_delete_all_goes_on_where_a_list_ends_and_keys_says_that_it_ends() -> None:
    async def work(store: KeyValueStore) -> None:
        await store.set_many({f"k{number}": b"" for number in range(PAGE + 5)})
        with pytest.raises(StoreError, match=f"{PAGE:,} keys or more"):
            [key async for key in store.keys()]
        await store.delete_all()
        assert [key async for key in store.keys()] == []

    run(work, MemoryStore())


class Down(MemoryStore):
    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        raise StoreConnectionError("no route with password=hunter2")

    async def put_many(self, *args: Any, **named: Any) -> None:
        raise OSError("the line is cut")


def test_errors_are_translated_without_secrets() -> None:
    async def main() -> None:
        async with KeyValueStore(Down, secrets=["hunter2"]) as store:
            with pytest.raises(StoreUnavailableError, match=r"StoreConnectionError: .*\*\*\*") as caught:
                await store.get("k")
            assert isinstance(caught.value.__cause__, StoreConnectionError)
            assert not caught.value.outcome_unknown
            with pytest.raises(StoreUnavailableError, match="the line is cut") as caught:
                await store.set("k", "v")
            assert caught.value.outcome_unknown

    asyncio.run(main())


class Unlisted(BaseStore):
    """As most stores of the library: nothing but get, put and delete."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Any] = {}
        super().__init__(stable_api=True)

    async def _get_managed_entry(self, *, collection: str, key: str) -> Any:
        return self.entries.get((collection, key))

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: Any) -> None:
        self.entries[collection, key] = managed_entry

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return self.entries.pop((collection, key), None) is not None


def test_what_cannot_list_its_keys_says_so() -> None:
    async def work(store: KeyValueStore) -> None:
        await store.with_namespace("a").set("k", "v", expires_in=60)
        assert await store.with_namespace("a").get("k") == b"v"
        with pytest.raises(UnsupportedOperationError, match="Unlisted of py-key-value can't list its keys"):
            await store.delete_all()
        with pytest.raises(UnsupportedOperationError, match=r"can't do keys\(\)"):
            [key async for key in store.keys()]
        with pytest.raises(UnsupportedOperationError):
            await store.increment("n")
        assert await store.with_namespace("a").get("k") == b"v"

    run(work, Unlisted())


def test_no_text_with_nul_reaches_the_library() -> None:
    """PostgreSQL takes it in no text of JSON."""

    async def work(store: KeyValueStore) -> None:
        for key in ("a\0b", "\0", "ab"):
            await store.set(key, key)
            assert await store.get(key) == key.encode()
        assert sorted([key async for key in store.keys()]) == ["\0", "a\0b", "ab"]
        found = await library.get_many([_name(key) for key in ("a\0b", "\0", "ab")], collection=_collection(()))
        assert "\\u0000" not in json.dumps(found)
        assert [set(each or {}) for each in found] == [{"b", "v", "e"}, {"b", "v", "e"}, {"k", "v", "e"}]

    library = MemoryStore()
    run(work, library)


def test_a_damaged_entry_is_a_miss_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    library = MemoryStore()

    async def work(store: KeyValueStore) -> None:
        await store.set("k", "v")
        for damaged in ({"k": "other", "v": "", "e": None}, {"k": "k", "v": "%", "e": None}, {"v": ""}):
            await library.put("k_k", damaged, collection="n")
            with caplog.at_level(logging.WARNING):
                assert await store.get("k") is None
            assert "is damaged and counts as missing" in caplog.text
            assert [key async for key in store.keys()] == []
            caplog.clear()

    run(work, library)


def problems(stores: dict[str, Any]) -> str:
    with pytest.raises(storeconf.ConfigError) as caught:
        storeconf.read_layout({"stores": stores}, environ={})
    return str(caught.value)


def test_a_layout_names_it(tmp_path: Path) -> None:
    (tmp_path / "storeconf.yaml").write_text(
        "stores:\n"
        "  kept: {type: key-value, store: disk, path: deep/kept, options: {max_size: 1000000}}\n"
        "  sessions: {parent: kept}\n"
    )

    async def use() -> None:
        async with storeconf.load(tmp_path / "storeconf.yaml", environ={}) as registry:
            await registry["sessions"].set("k", "v")
            result = (await registry.ping())["sessions"]
            assert result.ok
            assert result.server == "py-key-value ListedDiskStore"

    asyncio.run(use())
    assert (tmp_path / "deep/kept").is_dir()


def test_mistakes_are_found_when_the_layout_is_read() -> None:
    disk = {"type": "key-value", "store": "disk", "path": "/tmp/x"}
    assert "did you mean 'max_size'" in problems({"a": {**disk, "options": {"max_siez": 1}}})
    assert "is given as `path`" in problems({"a": {**disk, "options": {"directory": "/tmp"}}})
    assert "has no option 'disk_cache'" in problems({"a": {**disk, "options": {"disk_cache": "x"}}})
    assert "needs a path" in problems({"a": {"type": "key-value", "store": "disk"}})
    assert "takes no path" in problems({"a": {"type": "key-value", "store": "memory", "path": "/tmp"}})
    assert "os:system" in problems({"a": {"type": "key-value", "store": "os:system"}})
    assert "use" in problems({"a": disk, "b": disk})


def test_secrets_are_masked() -> None:
    shown = repr(KeyValueBackend.model_validate({"store": "redis", "secrets": {"password": "hunter2"}}))
    assert "hunter2" not in shown


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "key_value.aio.stores.dynamodb", None)
    with pytest.raises(storeconf.PluginError, match=r"pip install 'py-key-value-aio\[dynamodb\]'"):
        built(store="dynamodb", options={"table_name": "t"})
