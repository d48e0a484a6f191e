"""Outages and refusals under ``on_error``, ``breaker`` and ``retry``, operation by operation."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import StoreRefusedError, StoreTimeoutError, StoreUnavailableError, StoreValueError
from tests.middleware.unreliable import CATALOG, Line, line_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

CODES = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"]

CALLS: dict[str, Callable[[storeconf.Store], Awaitable[Any]]] = {
    "get": lambda store: store.get("k"),
    "renew": lambda store: store.get("k", renew_for=60),
    "end": lambda store: store.get("k", renew_for=0),
    "get_with_expiry": lambda store: store.get_with_expiry("k"),
    "get_many": lambda store: store.get_many(["k"]),
    "exists": lambda store: store.exists("k"),
    "expires_in": lambda store: store.expires_in("k"),
    "pop": lambda store: store.pop("k"),
    "set": lambda store: store.set("k", "w"),
    "set_keeping": lambda store: store.set("k", "w", keep_ttl=True),
    "set_many": lambda store: store.set_many({"k": "w"}),
    "touch": lambda store: store.touch("k", 5),
    "delete": lambda store: store.delete("k"),
    "delete_many": lambda store: store.delete_many(["k"]),
    "add": lambda store: store.add("n", "w"),
    "increment": lambda store: store.increment("n"),
    "compare_and_set": lambda store: store.compare_and_set("k", b"v", b"w"),
    "delete_all": lambda store: store.delete_all(),
    "keys": lambda store: anext(store.keys()),
}

MISSES: dict[str, Any] = {
    "get": None, "renew": None, "end": None, "get_with_expiry": None, "get_many": {}, "exists": False,
    "expires_in": None, "pop": None, "set": None, "set_keeping": None, "set_many": None, "touch": False,
    "delete": False, "delete_many": 0,
}  # fmt: skip
"""What each call returns under `on_error: miss` while the backend is unavailable; all others raise."""

REFUSED: dict[str, Any] = {"renew": b"v", "set": None, "set_keeping": None, "set_many": None, "touch": False}
"""What each call returns under `on_error: miss` if the server refuses it; all others that write raise."""

WRITES = CALLS.keys() - {"get", "get_with_expiry", "get_many", "exists", "expires_in", "keys"}


def run(middleware: dict[str, Any], check: Callable[[storeconf.Store, Line], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        stores = {"main": {"type": "unreliable"}, "s": {"parent": "main", "middleware": middleware}}
        async with storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile() as registry:
            store = registry["s"]
            await store.set("k", b"v", expires_in=600)
            line = line_of(store)
            line.calls.clear()
            await check(store, line)

    asyncio.run(main())


@pytest.mark.parametrize("error", [StoreUnavailableError, StoreTimeoutError])
@pytest.mark.parametrize("call", CALLS)
def test_what_misses_in_an_outage_and_what_raises(call: str, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def check(store: Any, line: Line) -> None:
        line.down = error
        if call in MISSES:
            assert await CALLS[call](store) == MISSES[call]
            assert store.misses == 1
        else:
            with pytest.raises(error):
                await CALLS[call](store)
            assert store.misses == 0
        line.down = None
        assert await store.get("k") == b"v"

    with caplog.at_level(logging.WARNING, "storeconf"):
        run({"on_error": "miss"}, check)
    assert len(caplog.records) == (1 if call in MISSES else 0)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", sorted(WRITES))
def test_what_a_refusal_does_under_on_error(call: str, code: str) -> None:
    async def check(store: Any, line: Line) -> None:
        line.refuses = code
        if call in REFUSED:
            assert await CALLS[call](store) == REFUSED[call]
            assert store.misses == 1
        else:
            with pytest.raises(StoreRefusedError):
                await CALLS[call](store)
            assert store.misses == 0
        assert await store.get("k") == b"v"
        assert await store.expires_in("k") == 600

    run({"on_error": "miss"}, check)


@pytest.mark.parametrize("above", [{}, {"limit": "1MiB"}, {"ttl": {"default": "1h", "renew_on_get": True}}])
@pytest.mark.parametrize("below", [{}, {"breaker": 1}, {"retry": 2}, {"compress": "gzip"}])
def test_reading_goes_on_while_renewals_are_refused(above: dict[str, Any], below: dict[str, Any]) -> None:
    async def check(store: Any, line: Line) -> None:
        line.refuses = "OOM"
        for _ in range(5):
            assert await store.get("k") == b"v"
            assert await store.get("k", renew_for=60) == b"v"
            assert await store.get_many(["k"]) == {"k": b"v"}

    run({**above, "on_error": "miss", **below}, check)


@pytest.mark.parametrize("code", CODES)
def test_the_breaker_counts_a_refusal_as_an_answer(code: str) -> None:
    async def check(store: Any, line: Line) -> None:
        line.refuses = code
        for _ in range(5):
            with pytest.raises(StoreRefusedError):
                await store.set("k", "w")
        assert await store.get("k") == b"v"
        line.fails_next = [StoreUnavailableError("1"), StoreRefusedError("2", code=code), StoreUnavailableError("3")]
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store.set("k", "w")
        assert await store.get("k") == b"v"  # not twice in a row

    run({"breaker": 2}, check)


def test_an_iteration_that_the_breaker_lets_through_is_an_answer_with_its_first_key() -> None:
    async def check(store: Any, line: Line) -> None:
        for _ in range(2):
            line.fails_next = [StoreUnavailableError("down")]
            with pytest.raises(StoreUnavailableError, match="down"):
                await store.set("k", "w")
        keys = store.keys()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await anext(keys) == "k"
                    break
                except StoreUnavailableError:
                    keys = store.keys()
                    await asyncio.sleep(0)
        assert await store.get("k") == b"v"
        await keys.aclose()

    run({"breaker": {"failures": 2, "reset_after": "1ms"}}, check)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", sorted(WRITES))
def test_retry_repeats_after_readonly_alone(call: str, code: str) -> None:
    async def check(store: Any, line: Line) -> None:
        line.fails_next = [StoreRefusedError("refused", code=code)]
        if code == "READONLY":
            await CALLS[call](store)
        else:
            with pytest.raises(StoreRefusedError):
                await CALLS[call](store)
        assert len(line.calls) == (2 if code == "READONLY" else 1)

    run({"retry": {"attempts": 3, "backoff": "1ms"}}, check)


@pytest.mark.parametrize(
    "last",
    [
        StoreUnavailableError("no connection"),
        StoreTimeoutError("no answer"),
        StoreRefusedError("refused", code="OOM"),
        StoreValueError("not a counter"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unknown_outcome_of_any_attempt_is_told(last: storeconf.StoreError) -> None:
    async def check(store: Any, line: Line) -> None:
        line.fails_next = [
            StoreUnavailableError("lost", outcome_unknown=True), StoreUnavailableError("no connection"), last
        ]  # fmt: skip
        with pytest.raises(type(last)) as caught:
            await store.set("k", "w")
        assert caught.value is last
        assert caught.value.outcome_unknown
        last.outcome_unknown = False
        line.fails_next = [StoreUnavailableError("no connection"), StoreUnavailableError("no connection"), last]
        with pytest.raises(type(last)) as caught:
            await store.set("k", "w")
        assert not caught.value.outcome_unknown

    run({"retry": {"attempts": 3, "backoff": "1ms"}}, check)


def test_a_renewal_is_repeated_unless_it_ends_the_entry() -> None:
    async def check(store: Any, line: Line) -> None:
        line.fails_next = [StoreUnavailableError("lost", outcome_unknown=True)]
        assert await store.get("k", renew_for=60) == b"v"
        line.fails_next = [StoreUnavailableError("lost", outcome_unknown=True)]
        with pytest.raises(StoreUnavailableError):
            await store.get("k", renew_for=0)

    run({"retry": {"attempts": 2, "backoff": "1ms"}}, check)


PARTIAL: dict[str, dict[str, Any]] = {
    "alone": {},
    "retry": {"retry": {"attempts": 2, "backoff": "1ms"}},
    "coded": {"compress": {"min_size": 0}, "encrypt": {"keys": ["k" * 32]}},
    "limit": {"limit": "1KiB"},
    "metrics": {"metrics": True, "timeout": "10s", "breaker": 5},
}


@pytest.mark.parametrize("chain", PARTIAL.values(), ids=PARTIAL)
def test_bulk_calls_use_the_reachable_part(chain: dict[str, Any]) -> None:
    async def check(store: Any, line: Line) -> None:
        await store.set_many({"a": "1", "b": "2", "c": "3"})
        line.down, line.reachable = StoreUnavailableError, ["a", "b"]
        assert await store.get_many(["a", "b", "c", "d"]) == {"a": b"1", "b": b"2"}
        assert await store.delete_many(["a", "c"]) == 1
        line.down = None
        assert await store.get_many(["a", "b", "c", "d"]) == {"b": b"2", "c": b"3"}

    run({"on_error": "miss", **chain}, check)


def test_a_near_cache_adds_what_it_has_and_keeps_nothing_that_was_not_found() -> None:
    async def check(store: Any, line: Line) -> None:
        keys = [f"k{number}" for number in range(100)]
        await store.set_many(dict.fromkeys(keys, "v"))
        assert await store.get("k0") == b"v"
        line.down, line.reachable = StoreUnavailableError, keys[10:20]
        assert await store.get_many(keys) == dict.fromkeys(["k0", *keys[10:20]], b"v")
        assert await store.get_many(["k0", "k1"]) == {"k0": b"v"}
        line.down = None
        assert await store.get_many(keys) == dict.fromkeys(keys, b"v")

    run({"on_error": "miss", "cache": "1m"}, check)


def test_renewing_many_finds_those_that_answer() -> None:
    async def check(store: Any, line: Line) -> None:
        await store.set_many({"a": "1", "b": "2"})
        line.fails_next = [StoreUnavailableError("one node is down")]
        assert await store.get_many(["a", "b"]) == {"b": b"2"}

    run({"ttl": {"default": "1h", "renew_on_get": True}, "on_error": "miss"}, check)
