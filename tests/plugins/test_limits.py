"""What a store declares that it can't do, or not at any size, is enforced, announced, and what the suite goes by."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest

import storeconf
from storeconf import Capabilities, MemoryStore, Store, StoreBase, StoreValueError, UnsupportedOperationError
from storeconf.catalog import Catalog
from storeconf.config.schema import build_schema
from storeconf.store import OversizeError
from storeconf.testing import StoreConformance, run_conformance
from tests.cli import running as commands

if TYPE_CHECKING:
    from pathlib import Path


class Small(StoreBase):
    """A store that has only the hooks which need no list, over a memory store."""

    capabilities = Capabilities(
        persistent=False,
        shared=True,
        atomic=frozenset({"add", "pop", "renew"}),
        lists=False,
        max_key_size=60,
        max_value_size=5000,
    )
    warn_if_left_open = False

    def __init__(self) -> None:
        super().__init__()
        self.inner = MemoryStore()
        for name in ("get", "set", "delete", "exists", "expires_in", "add", "pop"):
            setattr(self, f"do_{name}", getattr(self.inner, f"do_{name}"))


class SmallBackend(storeconf.Backend):
    type: Literal["small"] = "small"
    capabilities: ClassVar[Capabilities] = Small.capabilities

    def build(self, context: storeconf.BuildContext) -> Store:
        return Small()


class TestSmall(StoreConformance):
    """All that the store does not declare is left out; all else is checked."""

    model_examples = 2

    def make_store(self) -> Store:
        return Small()

    def capabilities(self, store: Store) -> Capabilities:
        return replace(store.capabilities, shared=False)  # it is in memory, in truth


def test_what_is_not_there_refuses() -> None:
    async def main() -> None:
        store = Small().with_namespace("child")
        for operation, call in (
            ("keys", lambda: anext(store.keys())),
            ("walk", lambda: anext(store.walk())),
            ("delete_all", store.delete_all),
        ):
            with pytest.raises(UnsupportedOperationError, match="can't list its keys") as caught:
                await call()
            assert (caught.value.store, caught.value.operation) == ("Small/child", operation)

    asyncio.run(main())


def test_sizes_above_the_limits_are_value_errors_before_anything_happens() -> None:
    async def main() -> None:
        store = Small().with_namespace("child")
        longest = "é" * 26 + "k"  # 53 bytes, and 7 of the namespace
        await store.set(longest, b"v" * 5000)
        long, large = longest + "k", b"v" * 5001
        calls: dict[str, Any] = {
            "get": lambda: store.get(long),
            "set": lambda: store.set("k", large),
            "exists": lambda: store.exists(long),
            "delete": lambda: store.delete(long),
            "expires_in": lambda: store.expires_in(long),
            "get_many": lambda: store.get_many(["k", long]),
            "set_many": lambda: store.set_many({"k": b"v", "l": large}),
            "delete_many": lambda: store.delete_many([longest, long]),
            "add": lambda: store.add("k", large),
            "pop": lambda: store.pop(long),
            "get_with_expiry": lambda: store.get_with_expiry(long),
        }
        for operation, call in calls.items():
            with pytest.raises(StoreValueError, match=r"store 'Small/child' takes (60|5000)") as caught:
                await call()
            assert isinstance(caught.value, OversizeError)
            assert (caught.value.store, caught.value.operation) == ("Small/child", operation)
            assert not caught.value.outcome_unknown
        assert await store.get_many(["k", longest]) == {longest: b"v" * 5000}

    asyncio.run(main())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    file = tmp_path / "storeconf.yaml"
    file.write_text("stores:\n  main: {type: small}\n  part: {parent: main}\n  other: {type: memory}\n")
    catalog = Catalog.builtin().with_backend("small", SmallBackend)
    monkeypatch.setattr("storeconf.catalog._INSTALLED", catalog)
    monkeypatch.chdir(tmp_path)

    return commands.run


def test_the_commands_announce_it(run: Any) -> None:
    about = "keys up to 60 bytes, values up to 5000 bytes"
    missing = "without touch, increment, compare_and_set, delete_all, keys, walk"
    done = run("validate")
    assert done.status == 0
    assert f"note: 'main' and the stores below it (small): {about}, {missing}" in done.err
    shown = run("tree").out
    assert about in shown
    assert missing in shown
    nodes = {each["name"]: each for each in run("tree", "--format", "json").json["tree"]}
    assert nodes["part"]["unsupported"][-3:] == ["delete_all", "keys", "walk"]
    assert (nodes["part"]["max_key_size"], nodes["other"].get("max_key_size")) == (60, None)
    [small] = [each for each in run("plugins", "--format", "json").json["plugins"] if each["name"] == "small"]
    assert small["capabilities"]["lists"] is False
    assert small["capabilities"]["max_value_size"] == 5000
    assert about in run("plugins").out
    catalog = Catalog.builtin().with_backend("small", SmallBackend)
    assert f"It has {about}, {missing}." in str(build_schema(catalog))


def test_copying_from_it_ends_at_once(run: Any) -> None:
    for arguments in (("copy", "main", "other"), ("dump", "main")):
        done = run(*arguments)
        assert done.status == 1
        assert "'main' can't list its keys" in done.err
        assert "again" not in done.err


def test_a_shared_store_is_not_said_to_be_in_memory(run: Any) -> None:
    assert "in-memory" not in run("set", "main", "k", "v").err
    assert "in-memory" in run("set", "other", "k", "v").err


class Cuts(Small):
    async def do_set(self, path: Any, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await self.inner.do_set(path, key, value[:4000], expiry, keep_ttl)


class IgnoresCase(Small):
    async def do_set(self, path: Any, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await self.inner.do_set(path, key.lower(), value, expiry, keep_ttl)

    async def do_get(self, path: Any, key: str, renew: int | None) -> bytes | None:
        return await self.inner.do_get(path, key.lower(), renew)


class DeletesMore(Small):
    async def do_delete_many(self, path: Any, keys: list[str]) -> int:
        await self.inner.do_delete(path, "b")
        return await super().do_delete_many(path, keys) or 0


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Cuts, "test_large_values"),
        (IgnoresCase, "test_hostile_keys_are_distinct"),
        (DeletesMore, "test_delete_many"),
    ],
)
def test_a_limit_hides_no_fault_of_anything_else(kind: type[Small], test: str) -> None:
    class Suite(StoreConformance):
        def make_store(self) -> Store:
            store = kind()
            for name in {"do_set", "do_get"} & vars(kind).keys():
                delattr(store, name)
            return store

    assert [each.test for each in run_conformance(Suite, only=[test], output=None).failures] == [test]


class Narrow(MemoryStore):
    """A store that lists its keys, and takes only small ones with small values."""

    capabilities = replace(MemoryStore.capabilities, max_key_size=20, max_value_size=100)
    get, set, delete, exists = StoreBase.get, StoreBase.set, StoreBase.delete, StoreBase.exists  # type: ignore[assignment]  # those check sizes


class TestNarrow(StoreConformance):
    model_examples = 5

    def make_store(self) -> Store:
        return Narrow()
