"""What ``compress`` and ``encrypt`` share: values are decoded before they are removed, and every call ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import MemoryStore, Store, StoreError, UnsupportedOperationError
from storeconf.middleware import StoreWrapper
from storeconf.middleware.compress import Compress
from storeconf.middleware.encrypt import Encrypt
from storeconf.plugin import BuildContext, Middleware
from tests.conformance.plain import PlainStore
from tests.middleware.making import longest_step

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

NEW, OLD = "n" * 32, "o" * 32

CODED: dict[str, Callable[[], Middleware]] = {
    "compress": lambda: Compress(algorithm="zstd", min_size=0),
    "encrypt": lambda: Encrypt(keys=(NEW,)),  # type: ignore[arg-type]  # as a layout writes it
}


def wrapped(kind: str, inner: Store) -> Store:
    return CODED[kind]().wrap(inner, BuildContext("tested", None, lambda name: inner))


REMOVING: dict[str, Callable[[Store], Coroutine[Any, Any, bytes | None]]] = {
    "pop": lambda store: store.pop("job"),
    "get(renew_for=0)": lambda store: store.get("job", renew_for=0),
    "get(renew_for=-1)": lambda store: store.get("job", renew_for=-1),
}


READING: dict[str, Callable[[Store], Coroutine[Any, Any, Any]]] = {
    "get": lambda store: store.get("job"),
    "get_many": lambda store: store.get_many(["job"]),
    "get_with_expiry": lambda store: store.get_with_expiry("job"),
    "increment": lambda store: store.increment("job"),
    "compare_and_set": lambda store: store.compare_and_set("job", b"payload", None),
    "get_or_set": lambda store: store.get_or_set("job", lambda: b"another"),
}


@pytest.mark.parametrize("call", REMOVING)
@pytest.mark.parametrize("outer", [{}, {"cache": "10s"}, {"ttl": "1h"}, {"compress": "gzip"}, {"limit": "1MiB"}])
def test_a_value_under_an_unknown_key_stays(tmp_path: Path, call: str, outer: dict[str, Any]) -> None:
    def process(*keys: str) -> storeconf.StoreRegistry:
        store = {"type": "file", "path": str(tmp_path), "middleware": {"encrypt": {"keys": list(keys)}, **outer}}
        return storeconf.load({"stores": {"jobs": store}}, environ={})

    async def check() -> None:
        async with process(NEW, OLD) as ahead, process(OLD) as behind:
            await ahead["jobs"].set("job", b"payload", expires_in=600)
            with pytest.raises(StoreError, match="not among the configured") as caught:
                await REMOVING[call](behind["jobs"])
            assert not caught.value.outcome_unknown
            assert (caught.value.store, caught.value.operation) == ("jobs", call.partition("(")[0])
            for operation, read in READING.items():
                with pytest.raises(StoreError, match="not among the configured") as caught:
                    await read(behind["jobs"])
                assert caught.value.operation == {"get_or_set": "get"}.get(operation, operation)
            assert await ahead["jobs"].get("job") == b"payload"
            assert await REMOVING[call](ahead["jobs"]) == b"payload"
            assert await ahead["jobs"].get("job") is None

    asyncio.run(check())


@pytest.mark.parametrize("call", REMOVING)
@pytest.mark.parametrize("kind", CODED)
def test_a_damaged_value_is_a_miss_and_stays(kind: str, call: str, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        inner = MemoryStore()
        store = wrapped(kind, inner)
        await store.set("job", b"v" * 100)
        whole = await inner.get("job") or b""
        for damaged in (whole[:-1], b"plain"):
            await inner.set("job", damaged, expires_in=60)
            assert await REMOVING[call](store) is None
            assert await inner.get("job") == damaged

    with caplog.at_level(logging.WARNING, "storeconf"):
        asyncio.run(check())
    assert "reads as missing" in caplog.text


@pytest.mark.parametrize("kind", CODED)
def test_of_many_who_pop_one_gets_the_value(kind: str) -> None:
    async def check() -> None:
        store = wrapped(kind, MemoryStore())
        for _ in range(20):
            await store.set("job", b"v")
            got = await asyncio.gather(*(REMOVING["pop"](store) for _ in range(5)))
            assert sorted(value or b"" for value in got) == [b"", b"", b"", b"", b"v"]

    asyncio.run(check())


@pytest.mark.parametrize("kind", CODED)
def test_without_compare_and_set_a_renewal_ends_an_entry_and_pop_is_not_offered(kind: str) -> None:
    async def check() -> None:
        store = wrapped(kind, PlainStore())
        await store.set("job", b"v", expires_in=60)
        with pytest.raises(UnsupportedOperationError):
            await store.pop("job")
        assert await store.get("job", renew_for=0) == b"v"
        assert await store.get("job") is None

    asyncio.run(check())


class Refusing(StoreWrapper):
    """A store whose compare-and-set never succeeds."""

    async def compare_and_set(self, *args: Any, **options: Any) -> bool:
        return False


OF_TWO_STEPS: dict[str, Callable[[Store], Coroutine[Any, Any, Any]]] = {
    "increment": lambda store: store.increment("n"),
    "compare_and_set": lambda store: store.compare_and_set("n", b"5", b"6"),
    "pop": lambda store: store.pop("n"),
    "get": lambda store: store.get("n", renew_for=0),
}


@pytest.mark.parametrize("operation", OF_TWO_STEPS)
@pytest.mark.parametrize("kind", CODED)
def test_a_store_that_keeps_refusing_ends_the_call_and_blocks_nobody(kind: str, operation: str) -> None:
    async def check() -> None:
        store = wrapped(kind, Refusing(MemoryStore()))
        await store.set("n", b"5", expires_in=60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(OF_TWO_STEPS[operation](store), 0.05)
        with pytest.raises(StoreError, match="changed during each of") as caught:
            await OF_TWO_STEPS[operation](store)
        assert type(caught.value) is StoreError
        assert caught.value.operation == operation
        assert not caught.value.outcome_unknown
        assert await store.get("n") == b"5"

    asyncio.run(check())


def test_what_earlier_versions_encrypted_can_be_read() -> None:
    stored = bytes.fromhex(
        "935343650191164ba003c81ef1000102030405060708090a0b0c0d0e0f000102030405060708090a0ba22b3d5263a4469fd8c582b7"
        "4a0cec742139583844257a731a67822bea"
    )

    async def check() -> None:
        inner = MemoryStore().with_namespace("app")
        await inner.set("k", stored)
        store = Encrypt(keys=("a configured text",)).wrap(inner, BuildContext("s", None, lambda name: inner))  # type: ignore[arg-type]  # as a layout writes it
        assert await store.get("k") == b"stored before"

    asyncio.run(check())


@pytest.mark.parametrize("kind", CODED)
def test_many_values_leave_the_event_loop_to_others(kind: str) -> None:
    async def check() -> None:
        store = wrapped(kind, MemoryStore())
        values = {f"k{number}": b"v" * 2000 for number in range(20_000)}
        _, longest = await longest_step(store.set_many(values))
        assert longest < 0.1
        found, longest = await longest_step(store.get_many(values))
        assert found == values
        assert longest < 0.1

    asyncio.run(check())
