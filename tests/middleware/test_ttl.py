"""``ttl``: which expiry an entry gets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from storeconf import MemoryStore, Store, StoreRefusedError, StoreValueError
from storeconf.middleware.ttl import Ttl
from tests.middleware.making import longest_step, made, run, wrapped
from tests.middleware.unreliable import Unreliable


def test_ttl_default_is_used_by_everything_that_stores_without_an_expiry() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, default="100s"))
        await store.set("set", "v")
        await store.set_many({"many": "v"})
        assert await store.add("add", "v")
        assert await store.get_or_set("made", lambda: "v") == b"v"
        assert await store.increment("counter") == 1
        assert await store.compare_and_set("compared", None, b"v")
        assert await store.compare_and_set("kept", None, b"v", keep_ttl=True)
        await store.set("new", "v", keep_ttl=True)
        for key in ("set", "many", "add", "made", "counter", "compared", "kept", "new"):
            assert await store.expires_in(key) == 100
        await store.set("set", "v", 7)
        assert await store.expires_in("set") == 7
        assert await store.touch("set", None)
        assert await store.expires_in("set") == -1
        await store.increment("counter", expires_in=5)
        assert await store.expires_in("counter") == 100
        await store.set("set", "w", keep_ttl=True)
        assert await store.compare_and_set("set", b"w", b"x", keep_ttl=True)
        assert await store.expires_in("set") == -1
        assert await store.compare_and_set("set", b"x", b"y")
        assert await store.expires_in("set") == 100
        assert await store.compare_and_set("set", b"y", b"z", 7)
        assert await store.expires_in("set") == 7

    run(check())


def test_ttl_max_caps_every_expiry_and_ends_for_ever() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, max="60s"))
        await store.set("given", "v", 1000)
        await store.set("none", "v")
        await store.set("short", "v", 5)
        assert [await store.expires_in(key) for key in ("given", "none", "short")] == [60, 60, 5]
        await store.get("short", renew_for=timedelta(days=1))
        assert await store.expires_in("short") == 60
        await store.touch("short", None)
        assert await store.expires_in("short") == 60
        await store.wrapped.set("permanent", "v")
        await store.set("permanent", "w", keep_ttl=True)
        assert await store.expires_in("permanent") == 60
        await store.set("short", "v", 5)
        await store.set("short", "w", keep_ttl=True)
        assert await store.expires_in("short") == 5
        assert await wrapped(made(Ttl, default="100s", max="60s")).get("x") is None

    run(check())


def test_ttl_max_leaves_nothing_for_ever_that_is_compared_and_set() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, max="60s"))
        assert await store.compare_and_set("new", None, b"v", keep_ttl=True)
        await store.wrapped.set("permanent", "v")
        assert await store.compare_and_set("permanent", b"v", b"w", keep_ttl=True)
        await store.wrapped.set("long", "v", 1000)
        assert await store.compare_and_set("long", b"v", b"w", keep_ttl=True)
        await store.set("short", "v", 5)
        assert await store.compare_and_set("short", b"v", b"w", keep_ttl=True)
        expiries = [await store.expires_in(key) for key in ("new", "permanent", "long", "short")]
        assert expiries == [60, 60, 60, 5]
        assert not await store.compare_and_set("missing", b"v", b"w", keep_ttl=True)
        assert not await store.compare_and_set("short", None, b"x", keep_ttl=True)
        assert await store.compare_and_set("short", b"w", None, keep_ttl=True)
        assert not await store.exists("short")
        with pytest.raises(StoreValueError):
            await store.compare_and_set("new", b"v", b"w", 5, keep_ttl=True)

    run(check())


def test_ttl_jitter_only_shortens_defaults() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, default="1000s", jitter=0.5))
        for number in range(50):
            await store.set(str(number), "v")
        lives = [await store.expires_in(str(number)) for number in range(50)]
        assert all(500 <= life <= 1000 for life in lives)
        assert len(set(lives)) > 5
        await store.set("given", "v", 1000)
        assert await store.expires_in("given") == 1000

    run(check())


def test_ttl_renews_on_get_what_has_an_expiry() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, default="100s", renew_on_get=True))
        await store.set("a", "v", 5)
        await store.wrapped.set("permanent", "v")
        assert await store.get("a") == b"v"
        assert await store.expires_in("a") == 100
        await store.set("a", "v", 5)
        assert await store.get_many(["a", "permanent", "missing"]) == {"a": b"v", "permanent": b"v"}
        assert await store.expires_in("a") == 100
        assert await store.expires_in("permanent") == -1
        await store.get("a", renew_for=30)
        assert await store.expires_in("a") == 30

    run(check())


@pytest.mark.parametrize(
    "settings", [{"default": 0}, {"max": "-5s"}, {"renew_on_get": True}, {"jitter": 1.5}, {"default": True}, {"x": 1}]
)
def test_ttl_refuses_what_makes_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(Ttl, **settings)


class Replica(MemoryStore):
    """A store that refuses writes once told to."""

    refuses = False
    synchronous_operations = frozenset()
    get = Store.get
    get_many = Store.get_many

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        if renew is not None and self.refuses:
            raise StoreRefusedError("this is a replica", code="READONLY")
        return await super().do_get(path, key, renew)


@pytest.mark.parametrize("kind", [Replica, Unreliable])
def test_ttl_reads_though_renewing_is_refused(kind: type[MemoryStore]) -> None:
    async def check() -> None:
        inner: Any = kind()
        store = wrapped(made(Ttl, default="100s", renew_on_get=True), inner)
        await store.set("k", "v", 50)
        if kind is Replica:
            inner.refuses = True
            assert await inner.get("k", renew_for=60) == b"v"
            with pytest.raises(StoreRefusedError):
                await inner.get("k", renew_for=0)
        else:
            inner.line.refuses = "READONLY"
        assert await store.get("k") == b"v"
        assert await store.get_many(["k", "missing"]) == {"k": b"v"}
        assert await store.expires_in("k") == 50

    run(check())


def test_ttl_renews_many_keys_without_holding_the_event_loop() -> None:
    async def check() -> None:
        store = wrapped(made(Ttl, default="100s", renew_on_get=True))
        keys = [f"k{number}" for number in range(20_000)]
        await store.set_many(dict.fromkeys(keys, b"v"), expires_in=10)
        found, longest = await longest_step(store.get_many(keys))
        assert len(found) == len(keys)
        assert longest < 0.25  # it was half a second, and garbage collection has its share
        assert await store.expires_in(keys[-1]) == 100

    run(check())
