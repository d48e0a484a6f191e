"""What each built-in middleware adds; that none takes away a promise is the conformance suite's to show."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import (
    BuildContext,
    MemoryStore,
    StoreError,
    StoreReadOnlyError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
)
from storeconf.middleware import encrypt
from storeconf.middleware.compress import Compress
from storeconf.middleware.encrypt import Encrypt
from storeconf.middleware.metrics import Metrics
from storeconf.middleware.outage import Fallback, MissStore, OnError
from storeconf.middleware.refusal import Limit, ReadOnly
from storeconf.middleware.resilience import Breaker, Retry, Timeout
from tests.middleware.making import made, run, wrapped
from tests.middleware.metering import metering, recorded
from tests.middleware.unreliable import Unreliable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def never() -> str:
    raise AssertionError("the factory ran for nothing")


# ---------------------------------------------------------------------- limit and read_only


def test_limit_refuses_large_keys_and_values_before_anything_changes() -> None:
    async def check() -> None:
        store = wrapped(made(Limit, value_size=4, key_size=3))
        await store.set("abc", "1234")
        refused: tuple[Callable[[], Any], ...] = (
            lambda: store.set("abc", "12345"),
            lambda: store.set("abcd", "1"),
            lambda: store.set("äö", "1"),
            lambda: store.add("x", "12345"),
            lambda: store.get("abcd"),
            lambda: store.delete("abcd"),
            lambda: store.touch("abcd", 1),
            lambda: store.pop("abcd"),
            lambda: store.increment("abcd"),
            lambda: store.get_many(["a", "abcd"]),
            lambda: store.set_many({"a": "1", "b": "12345"}),
            lambda: store.compare_and_set("abc", b"1234", b"12345"),
            lambda: store.get_or_set("x", lambda: "12345"),
            lambda: store.with_namespace("below").set("abc", "12345"),
        )
        for call in refused:
            with pytest.raises(StoreValueError):
                await call()
        assert await store.get_many(["a", "b", "abc"]) == {"abc": b"1234"}

    run(check())


def test_limit_refuses_when_awaited_and_names_itself() -> None:
    async def check() -> None:
        inner = MemoryStore()
        inner.name = "sessions"
        store = wrapped(made(Limit, value_size=4, key_size=3), inner)
        refused = (store.set("abc", "12345"), store.get("\ud800" * 4), store.set("abc", "\ud800"))
        for each in refused:
            with pytest.raises(StoreValueError) as caught:
                await each
            assert caught.value.store == "sessions"
            assert caught.value.operation in ("get", "set")
        wrong = store.set(5, "1")
        with pytest.raises(TypeError):
            await wrong

    run(check())


def test_read_only_reads_and_refuses_the_rest() -> None:
    async def check() -> None:
        inner = MemoryStore()
        await inner.set("k", "v", 100)
        store = wrapped(ReadOnly(), inner)
        assert await store.get("k") == b"v"
        assert await store.get_many(["k"]) == {"k": b"v"}
        assert await store.exists("k")
        assert await store.expires_in("k") == 100
        assert [key async for key in store.keys()] == ["k"]
        assert await store.get_or_set("k", lambda: "never") == b"v"
        calls: tuple[Callable[[], Any], ...] = (
            lambda: store.set("k", "w"),
            lambda: store.get("k", renew_for=5),
            lambda: store.delete("k"),
            lambda: store.delete_all(),
            lambda: store.set_many({"k": "w"}),
            lambda: store.delete_many(["k"]),
            lambda: store.add("n", "w"),
            lambda: store.touch("k", 5),
            lambda: store.pop("k"),
            lambda: store.increment("n"),
            lambda: store.compare_and_set("k", b"v", b"w"),
            lambda: store.get_or_set("n", lambda: never()),
            lambda: store.with_namespace("below").set("k", "w"),
        )
        for call in calls:
            with pytest.raises(StoreReadOnlyError):
                await call()
        assert await inner.get("k") == b"v"
        assert await inner.expires_in("k") == 100

    run(check())


# ---------------------------------------------------------------------- outages


def test_on_error_miss_reads_nothing_logs_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        inner = Unreliable()
        store = wrapped(made(OnError, action="miss"), inner)
        assert isinstance(store, MissStore)
        await store.set("k", "v")
        inner.line.down = StoreUnavailableError
        assert await store.get("k") is None
        assert await store.get("k", renew_for=5) is None
        assert await store.get_many(["k"]) == {}
        assert await store.pop("k") is None
        assert await store.touch("k", 5) is False
        await store.set("k", "w")
        assert await store.get_or_set("k", lambda: "made") == b"made"
        for call in (store.increment("n"), store.delete_all(), anext(store.keys())):
            with pytest.raises(StoreUnavailableError):
                await call
        assert store.misses >= 7
        assert await store.with_namespace("below").get("k") is None
        inner.line.down = None
        assert await store.get("k") == b"v"

    with caplog.at_level(logging.WARNING, "storeconf"):
        run(check())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "unavailable" in lines[0]


def test_on_error_raise_adds_nothing() -> None:
    inner = MemoryStore()
    assert wrapped(OnError(), inner) is inner


def test_fallback_takes_the_calls_in_a_namespace_of_its_own() -> None:
    async def check() -> None:
        inner, backup = Unreliable(), MemoryStore()
        below = inner.with_namespace("sessions")
        store = wrapped(made(Fallback, store="backup"), below, backup=backup)
        inner.line.down = StoreUnavailableError
        await store.set("k", "v", 50)
        assert await store.get("k") == b"v"
        assert await backup.with_namespace("sessions").get("k") == b"v"
        assert await backup.get("k") is None
        with pytest.raises(StoreUnavailableError):
            await store.increment("n")
        inner.line.down = None
        assert await store.get("k") is None

    run(check())


def test_timeout_ends_what_takes_too_long_and_nothing_else() -> None:
    class Slow(MemoryStore):
        async def get(self, key: str, renew_for: Any = None) -> bytes | None:
            if key == "slow":
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return await super().get(key, renew_for)

    async def check() -> None:
        store = wrapped(made(Timeout, per_attempt=0.05), Slow())
        await store.set("k", "v")
        assert await store.get("k") == b"v"
        with pytest.raises(StoreTimeoutError) as caught:
            await store.get("slow")
        assert caught.value.operation == "get"
        assert not caught.value.outcome_unknown
        waiting = asyncio.ensure_future(wrapped(made(Timeout, per_attempt=60), Slow()).get("slow"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(check())


def test_retry_repeats_what_is_safe() -> None:
    async def check() -> None:
        inner = Unreliable()
        store = wrapped(made(Retry, attempts=3, backoff=0.001), inner)
        inner.line.fails_next = [StoreUnavailableError("cut") for _ in range(2)]
        await store.set("k", "v")
        inner.line.fails_next = [StoreUnavailableError("cut") for _ in range(2)]
        assert await store.get("k") == b"v"
        inner.line.fails_next = [StoreUnavailableError("cut") for _ in range(3)]
        with pytest.raises(StoreUnavailableError):
            await store.get("k")
        inner.line.fails_next = [StoreUnavailableError("cut")]
        assert await store.increment("n") == 1
        inner.line.fails_next = [StoreUnavailableError("cut", outcome_unknown=True)]
        inner.line.calls.clear()
        with pytest.raises(StoreUnavailableError):
            await store.increment("n")
        assert len(inner.line.calls) == 1

    run(check())


def test_breaker_leaves_a_failing_backend_alone_and_tries_again() -> None:
    async def check() -> None:
        inner = Unreliable()
        store = wrapped(made(Breaker, failures=2, reset_after=0.05), inner)
        inner.line.down = StoreUnavailableError
        for _ in range(5):
            with pytest.raises(StoreUnavailableError):
                await store.get("k")
        assert len(inner.line.calls) == 2
        inner.line.down = None
        with pytest.raises(StoreUnavailableError):
            await store.with_namespace("below").get("k")
        while True:
            try:
                assert await store.get("k") is None
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.005)
        assert len(inner.line.calls) == 3

    run(check())


# ---------------------------------------------------------------------- coded values


@pytest.mark.parametrize("algorithm", ["gzip", "zstd", "lz4"])
def test_compress_stores_large_values_smaller(algorithm: Any) -> None:
    async def check() -> None:
        inner = MemoryStore()
        store = wrapped(made(Compress, algorithm=algorithm, min_size=100), inner)
        await store.set("large", b"abc" * 1000)
        await store.set("small", b"abc")
        assert len(await inner.get("large") or b"") < 500
        assert await store.get("large") == b"abc" * 1000
        assert await store.get_many(["large", "small"]) == {"large": b"abc" * 1000, "small": b"abc"}
        assert await store.increment("n", 5) == 5
        assert await store.increment("n") == 6
        assert await store.compare_and_set("small", b"abc", b"def")
        assert not await store.compare_and_set("small", b"abc", b"ghi")
        assert await store.pop("small") == b"def"
        # Values packed by another setting stay readable.
        assert await wrapped(made(Compress, algorithm="gzip"), inner).get("large") == b"abc" * 1000

    run(check())


def test_plain_and_damaged_values_are_misses_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        inner = MemoryStore()
        await inner.set("plain", "v")
        for settings in ({}, {"accept_plain": True}):
            expected = b"v" if settings else None
            assert await wrapped(made(Compress, **settings), inner).get("plain") == expected
            assert await wrapped(made(Encrypt, keys="k" * 32, **settings), inner).get("plain") == expected
        store = wrapped(made(Encrypt, keys="k" * 32), inner)
        await store.set("k", "v")
        whole = await inner.get("k") or b""
        for at in range(13, len(whole)):
            await inner.set("k", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert await store.get("k") is None
        for length in range(4, len(whole)):
            await inner.set("k", whole[:length])
            assert await store.get("k") is None

    with caplog.at_level(logging.WARNING, "storeconf"):
        run(check())
    assert "reads as missing" in caplog.text


def test_encrypt_rotates_keys_and_binds_values_to_their_place() -> None:
    async def check() -> None:
        inner = MemoryStore()
        old, both, new = (
            wrapped(made(Encrypt, keys=keys), inner) for keys in (["old-" * 8], ["new-" * 8, "old-" * 8], ["new-" * 8])
        )
        await old.set("k", "secret")
        assert b"secret" not in (await inner.get("k") or b"")
        assert await both.get("k") == b"secret"
        with pytest.raises(StoreError, match="not among the configured"):
            await new.get("k")
        await both.set("k", "again")
        assert await new.get("k") == b"again"
        await inner.set("moved", await inner.get("k") or b"")
        assert await new.get("moved") is None
        await inner.with_namespace("below").set("k", await inner.get("k") or b"")
        assert await new.with_namespace("below").get("k") is None
        assert await asyncio.gather(*[both.increment("n") for _ in range(20)]) is not None
        assert await both.get("n") == b"20"

    run(check())
    assert "old-" not in repr(made(Encrypt, keys=["old-" * 8]))


def test_encrypt_takes_new_salts_and_reads_those_of_any_number_of_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypt, "_VALUES_PER_SALT", 3)
    monkeypatch.setattr(encrypt, "_MOST_CIPHERS", 4)

    async def check() -> None:
        inner = MemoryStore()
        writers = [wrapped(made(Encrypt, keys="k" * 32), inner) for _ in range(4)]
        wanted = {}
        for number in range(40):
            wanted[f"k{number}"] = value = b"v"
            await writers[number % 4].set(f"k{number}", value)
        stored = [value async for value in _values(inner)]
        salts = Counter(value[13:29] for value in stored)
        assert len(salts) == 16
        assert max(salts.values()) == 3
        assert len({value[29:41] for value in stored}) == 40  # the nonces
        for store in writers:
            assert await store.get_many(wanted) == wanted

    run(check())


async def _values(store: MemoryStore) -> AsyncIterator[bytes]:
    async for key in store.keys():
        yield await store.get(key) or b""


def test_metrics_record_outcomes_and_never_keys() -> None:
    reader = metering()

    async def check() -> None:
        store = wrapped(Metrics())
        await store.set("the-key", "v")
        await store.get("the-key")
        await store.get("missing")
        assert [key async for key in store.keys()] == ["the-key"]

    run(check())
    data = reader.get_metrics_data()
    assert data is not None
    text = data.to_json()
    for outcome in ("hit", "miss", "ok"):
        assert f'"outcome": "{outcome}"' in text
    assert "the-key" not in text


class Breaking(MemoryStore):
    """Whose iterations give one key, and then raise ``error``, or wait for what never comes."""

    error: BaseException | None = None

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        yield "k"
        if self.error is None:
            await asyncio.Event().wait()
        else:
            raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StoreUnavailableError("gone"), "StoreUnavailableError"),
        (ZeroDivisionError(), "StoreError"),
        (None, "CancelledError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
    ids=["outage", "error of a plugin", "cancelled", "cancelled within"],
)
def test_metrics_record_what_ends_an_iteration(error: BaseException | None, outcome: str) -> None:
    name = f"iterated {outcome} {error!r}"
    metering()

    async def check() -> None:
        inner = Breaking()
        inner.error = error
        store = Metrics().wrap(inner, BuildContext(name=name, environment=None, store=lambda _: inner))
        found = store.keys()
        assert await anext(found) == "k"
        rest = asyncio.ensure_future(anext(found))
        await asyncio.sleep(0)
        if error is None:
            rest.cancel()
        with pytest.raises(StoreError if isinstance(error, Exception) else asyncio.CancelledError):
            await rest

    run(check())
    assert [each["outcome"] for each in recorded(name)] == [outcome]


def test_metrics_record_an_iteration_that_was_left_as_done() -> None:
    metering()

    async def check() -> None:
        inner = Breaking()
        store = Metrics().wrap(inner, BuildContext(name="left", environment=None, store=lambda _: inner))
        async with aclosing(store.keys()) as found:  # type: ignore[type-var]  # an async generator
            assert await anext(found) == "k"

    run(check())
    assert [each["outcome"] for each in recorded("left")] == ["ok"]
