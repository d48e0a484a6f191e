"""Values and arguments, one at a time and many: values come back unchanged, wrong ones are refused before a change."""

from __future__ import annotations

import enum
import inspect
import math
import random
import sys
from array import array
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from storeconf import Store, StoreValueError
from storeconf.operations import LISTING, TABLE
from storeconf.testing._suite import (
    LONG,
    Suite,
    all_keys,
    check_keys,
    equal,
    holds,
    promise,
    raises,
    returns_none,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf.operations import Operation

LONE_SURROGATE = "\ud800"


class _Colour(str, enum.Enum):  # noqa: UP042 - StrEnum formats as its value, and this one, on purpose, does not
    RED = "red"


class _Number(int):
    pass


class _Blob(bytes):
    pass


StoreCall: TypeAlias = "Callable[[Store, Any], Awaitable[object]]"

CALLS: dict[str, StoreCall] = {
    "get": lambda store, key: store.get(key),
    "renew": lambda store, key: store.get(key, renew_for=60),
    "get_many": lambda store, key: store.get_many(["fine", key]),
    "get_with_expiry": lambda store, key: store.get_with_expiry(key),
    "exists": lambda store, key: store.exists(key),
    "expires_in": lambda store, key: store.expires_in(key),
    "set": lambda store, key: store.set(key, b"new"),
    "set_many": lambda store, key: store.set_many({"fine": b"new", key: b"new"}),
    "delete": lambda store, key: store.delete(key),
    "delete_many": lambda store, key: store.delete_many(["fine", key]),
    "add": lambda store, key: store.add(key, b"new"),
    "touch": lambda store, key: store.touch(key, 60),
    "pop": lambda store, key: store.pop(key),
    "increment": lambda store, key: store.increment(key),
    "compare_and_set": lambda store, key: store.compare_and_set(key, None, b"new"),
}
"""One call of each operation on keys; an operation of the table without one fails the suite."""

EXPIRING: dict[str, StoreCall] = {
    "renew": lambda store, span: store.get("k", renew_for=span),
    "set": lambda store, span: store.set("k", b"new", expires_in=span),
    "set_many": lambda store, span: store.set_many({"k": b"new"}, expires_in=span),
    "add": lambda store, span: store.add("missing", b"new", expires_in=span),
    "touch": lambda store, span: store.touch("k", span),
    "increment": lambda store, span: store.increment("missing", expires_in=span),
    "compare_and_set": lambda store, span: store.compare_and_set("k", b"old", b"new", expires_in=span),
}


def optional_calls(store: Store) -> dict[str, Callable[[Any], Awaitable[object]]]:
    """Every operation that a store need not offer, by name, as a function of the key."""
    return {row.name: partial(CALLS[row.name], store) for row in TABLE if row.optional}


def key_calls(suite: Suite, store: Store) -> dict[str, Callable[[Any], Awaitable[object]]]:
    """Every operation on one key that the store offers, by name, as a function of the key."""
    offered = [row.name for row in TABLE if row.target != "tree" and is_offered(row, suite, store)]
    calls: dict[str, Callable[[Any], Awaitable[object]]] = {name: partial(CALLS[name], store) for name in offered}
    calls["set, expired"] = lambda key: store.set(key, b"new", expires_in=0)
    calls["get_or_set"] = lambda key: store.get_or_set(key, lambda: b"new")
    if suite.lists(store):
        calls["keys"] = lambda key: all_keys(store, key)
    return calls


def expiry_calls(suite: Suite, store: Store) -> dict[str, Callable[[Any], Awaitable[object]]]:
    """Every operation that takes an expiry and that the store offers, as a function of it, on the key ``k``."""
    offered = [row.name for row in TABLE if takes_expiry(row) and is_offered(row, suite, store)]
    return {name: partial(EXPIRING[name], store) for name in offered} | {
        "get_or_set": lambda span: store.get_or_set("missing", lambda: b"new", expires_in=span),
    }


def takes_expiry(row: Operation) -> bool:
    """Whether calls of the operation give an expiry: a renewal, or an operation that stores with one."""
    return row.effect == "renew" or "expires_in" in inspect.signature(getattr(Store, row.method)).parameters


def is_offered(row: Operation, suite: Suite, store: Store) -> bool:
    """Whether the store declares that it has the operation."""
    if row.name in LISTING:
        return suite.lists(store)
    return not row.optional or row.name in suite.capabilities(store).atomic


class Values(Suite):
    """Promises on values, keys and arguments."""

    @promise
    async def test_missing_key_is_no_error(self, store: Store) -> None:
        """A missing key reads as None, does not exist, has no expiry, and can be deleted."""
        equal(await store.get("missing"), None, "get of a missing key gives None")
        equal(await store.get("missing", renew_for=60), None, "a renewing get of a missing key gives None")
        equal(await store.exists("missing"), False, "a missing key does not exist")
        equal(await store.expires_in("missing"), None, "expires_in of a missing key is None")
        equal(await store.get_with_expiry("missing"), None, "get_with_expiry of a missing key is None")
        told(await store.delete("missing"), False, "delete of a missing key returns False")
        await check_keys(store, set(), "asking creates nothing")

    @promise
    async def test_set_get_delete(self, store: Store) -> None:
        """A value reads back until it is replaced or deleted."""
        await returns_none(store.set("k", b"one"), "set returns None")
        equal(await store.get("k"), b"one", "get returns what was set")
        equal(await store.get("k"), b"one", "get leaves the value there")
        equal(await store.exists("k"), True, "what was set exists")
        equal(await store.expires_in("k"), -1, "expires_in is -1 for what never expires")
        await store.set("k", b"two")
        equal(await store.get("k"), b"two", "set replaces the value")
        told(await store.delete("k"), True, "delete returns True for a key that was there")
        told(await store.delete("k"), False, "delete returns False once the key is gone")
        equal(await store.get("k"), None, "what was deleted is gone")
        equal(await store.exists("k"), False, "what was deleted does not exist")
        await store.set("k", b"three")
        equal(await store.get("k"), b"three", "what was deleted can be set again")

    @promise
    async def test_any_bytes_are_a_value(self, store: Store) -> None:
        """Every sequence of bytes reads back as it is, the empty one and those that look like a format included."""
        values = [
            b"",
            b"\x00",
            bytes(range(256)),
            b"\r\n",
            b"null",
            b"None",
            b"-1",
            b"\xff" * 3,
            b"{}",
            b" padded ",
            b"\x80\x04N.",
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
        ]
        for number, value in enumerate(values):
            await store.set(f"k{number}", value)
        for number, value in enumerate(values):
            equal(await store.get(f"k{number}"), value, "a value reads back byte for byte")
            equal(await store.exists(f"k{number}"), True, "a value exists whatever its bytes")
            equal(await store.get_with_expiry(f"k{number}"), (value, None), "get_with_expiry gives value and None")

    @promise
    async def test_text_is_stored_as_utf8(self, store: Store) -> None:
        """A str value is stored as UTF-8 and read as bytes."""
        for text in ("", "plain", "grün", "日本語", "🗝\n", "\x00"):
            await store.set("k", text)
            equal(await store.get("k"), text.encode(), "a str reads back as its UTF-8 bytes")

    @promise
    async def test_bytes_like_values(self, store: Store) -> None:
        """Every bytes-like object is a value, and comes back as plain bytes."""
        values: tuple[tuple[Any, bytes], ...] = (
            (bytearray(b"abc"), b"abc"),
            (memoryview(b"abc"), b"abc"),
            (memoryview(b"a-b-c")[::2], b"abc"),
            (memoryview(array("H", [1, 2])), array("H", [1, 2]).tobytes()),
            (array("H", [1, 2]), array("H", [1, 2]).tobytes()),
            (_Blob(b"abc"), b"abc"),
        )
        for value, expected in values:
            await store.set("k", value)
            equal(await store.get("k"), expected, f"a {type(value).__name__} reads back as bytes")
            await store.set_many({"many": value})
            equal(await store.get_many(["many"]), {"many": expected}, "the same in set_many")
            if "add" in self.capabilities(store).atomic:
                await store.delete("k")
                equal(await store.add("k", value), True, "a deleted key can be added")
                equal(await store.get("k"), expected, "the same in add")
            if "compare_and_set" in self.capabilities(store).atomic:
                equal(await store.compare_and_set("k", value, "grün"), True, "compare_and_set compares the bytes")
                equal(await store.compare_and_set("k", "grün", value), True, "a str as its UTF-8 bytes")
                equal(await store.get("k"), expected, "the same in compare_and_set")

    @promise
    async def test_stored_value_is_a_copy(self, store: Store) -> None:
        """A change of the caller's bytearray after set changes nothing in the store."""
        value = bytearray(b"before")
        await store.set("k", value)
        value[:] = b"after!"
        equal(await store.get("k"), b"before", "the stored value does not change with the caller's buffer")
        if "compare_and_set" in self.capabilities(store).atomic:
            await store.compare_and_set("k", b"before", value)
            value[:] = b"other!"
            equal(await store.get("k"), b"after!", "the same in compare_and_set")

    @promise
    async def test_large_values(self, store: Store) -> None:
        """Values of a mebibyte and of five megabytes read back whole."""
        for size in (self.fitting(store, size) for size in (65_536, 1 << 20, 5_000_000)):
            value = random.Random(size).randbytes(size)
            await store.set("large", value)
            equal(await store.get("large"), value, f"a value of {size} bytes reads back whole")
        await store.set("large", b"small")
        equal(await store.get("large"), b"small", "a small value replaces a large one wholly")

    @promise
    async def test_other_value_types_are_errors(self, store: Store) -> None:
        """A value that is neither str nor bytes-like is a TypeError, and nothing changes."""
        if self.capabilities(store).objects:
            return
        await store.set("k", b"old")
        for value in (None, 1, 1.5, True, [b"a"], (b"a",), {"a": 1}, object()):
            await raises(TypeError, store.set, "k", value)
            await raises(TypeError, store.set, "k", value, expires_in=0)
            await raises(TypeError, store.set_many, {"fine": b"new", "k": value})
            await raises(TypeError, store.get_or_set, "fine", lambda value=value: value)
            if "add" in self.capabilities(store).atomic:
                await raises(TypeError, store.add, "fine", value)
            if value is not None and "compare_and_set" in self.capabilities(store).atomic:
                await raises(TypeError, store.compare_and_set, "k", b"old", value)
                await raises(TypeError, store.compare_and_set, "k", value, b"new")
        equal(await store.get("k"), b"old", "a refused value changes nothing")
        equal(await store.exists("fine"), False, "set_many stores nothing when it refuses a value")

    @promise
    async def test_keys_are_text(self, store: Store) -> None:
        """A key that is not a str raises TypeError in every operation, and nothing changes."""
        for name, call in key_calls(self, store).items():
            for key in (b"k", 1, None, ("k",)):
                error = await raises(TypeError, call, key)
                await check_keys(store, set(), f"{name} with a wrong key changes nothing ({error})")

    @promise
    async def test_keys_and_values_with_lone_surrogates(self, store: Store) -> None:
        """A key or a value that UTF-8 can't encode is a StoreValueError, and nothing changes."""
        for call in key_calls(self, store).values():
            await raises(StoreValueError, call, LONE_SURROGATE)
            await raises(StoreValueError, call, f"k{LONE_SURROGATE}k")
        await raises(StoreValueError, store.set, "k", LONE_SURROGATE)
        await raises(StoreValueError, store.set_many, {"fine": b"new", "k": LONE_SURROGATE})
        await raises(StoreValueError, store.get_or_set, "k", lambda: LONE_SURROGATE)
        if "compare_and_set" in self.capabilities(store).atomic:
            await raises(StoreValueError, store.compare_and_set, "k", None, LONE_SURROGATE)
        await check_keys(store, set(), "refused calls change nothing")

    @promise
    async def test_subclasses_of_str_are_keys(self, store: Store) -> None:
        """A key of a subclass of str is the text that it holds, however it formats itself."""
        await store.set(_Colour.RED, b"v")
        equal(await store.get("red"), b"v", "an enumerated str names its value")
        equal(await store.get_many([_Colour.RED]), {"red": b"v"}, "the same in get_many")
        await store.delete(_Colour.RED)
        equal(await store.exists("red"), False, "the same in delete")

    @promise
    async def test_other_expiry_types_are_errors(self, store: Store) -> None:
        """An expiry that is neither int, float nor timedelta is a TypeError, a bool too, and nothing changes."""
        await store.set("k", b"old")
        for call in expiry_calls(self, store).values():
            for span in (True, False, "60", b"60", [], Decimal(60), 1j, object()):
                await raises(TypeError, call, span)
        equal(await store.get_with_expiry("k"), (b"old", None), "a refused expiry changes nothing")
        equal(await store.exists("missing"), False, "a refused expiry creates nothing")

    @promise
    async def test_expiries_that_are_no_span_are_errors(self, store: Store) -> None:
        """NaN, infinity and numbers beyond all measure are a StoreValueError, and nothing changes."""
        await store.set("k", b"old")
        for call in expiry_calls(self, store).values():
            for span in (math.nan, math.inf, -math.inf, 10**40, 1e300):
                await raises(StoreValueError, call, span)
        equal(await store.get_with_expiry("k"), (b"old", None), "a refused expiry changes nothing")
        equal(await store.exists("missing"), False, "a refused expiry creates nothing")

    @promise
    async def test_very_long_expiries(self, store: Store) -> None:
        """An expiry of many years is taken, or is a StoreValueError; never an error of another kind."""
        for name, call in expiry_calls(self, store).items():
            for span in (timedelta.max, sys.float_info.max, 10**15, 10**18, timedelta(days=365 * 10_000)):
                await store.set("k", b"old", expires_in=60)
                await store.delete("missing")
                try:
                    await call(span)
                except StoreValueError:
                    continue
                equal(await store.exists("k"), True, f"{name} with an expiry of {span!r} does not end the entry")
            await store.delete("missing")
            await call(timedelta.min)
        await store.set("k", b"1", expires_in=timedelta(days=365 * 1000))
        left = await store.expires_in("k")
        holds(left is not None and left > 0, f"after a thousand years' expiry, expires_in gives {left!r}")

    @promise
    async def test_bad_arguments_never_run_the_factory(self, store: Store) -> None:
        """get_or_set refuses a bad key or expiry before it runs the factory, on a hit as on a miss."""
        runs = []

        def factory() -> bytes:
            runs.append(1)
            return b"new"

        await store.set("hit", b"old")
        for key in ("hit", "miss"):
            await raises(TypeError, store.get_or_set, key, factory, expires_in=True)
            await raises(StoreValueError, store.get_or_set, key, factory, expires_in=math.nan)
        await raises(TypeError, store.get_or_set, b"miss", factory)
        equal(runs, [], "the factory does not run")

    @promise
    async def test_numbers_of_many_kinds_are_expiries(self, store: Store) -> None:
        """Subclasses of int, floats, and timedeltas of a thousand years are expiries."""
        for span, seconds in (
            (_Number(60), 60),
            (60.0, 60),
            (timedelta(minutes=1), 60),
            (timedelta(days=365_000), 365_000 * 86_400),
            (365_000 * 86_400, 365_000 * 86_400),
        ):
            since = self.now()
            await store.set("k", b"v", expires_in=span)
            await self.check_left(store, "k", seconds, since, f"{span!r} is an expiry of {seconds} s")

    @promise
    async def test_ping_answers_and_leaves_no_trace(self, store: Store) -> None:
        """Ping does a round trip, tells its latency, and stores nothing."""
        result = await store.ping()
        equal(result.ok, True, f"ping of a store that works succeeds ({result.error})")
        equal(result.error, None, "a ping that succeeds has no error")
        equal(isinstance(result.latency, float) and result.latency >= 0, True, "ping tells the latency in seconds")
        await check_keys(store, set(), "ping stores nothing")

    @promise
    async def test_repr_shows_no_data(self, store: Store) -> None:
        """The repr of a store shows neither keys nor values."""
        await store.set("canary-key", b"canary-value")
        for handle in (store, store.root, store.with_namespace("child")):
            text = repr(handle)
            equal("canary" in text, False, f"a repr shows no data ({text})")


# ---------------------------------------------------------------- many keys in one call


class Bulk(Suite):
    """Promises on get_many, set_many and delete_many."""

    @promise
    async def test_get_many_returns_the_hits(self, store: Store) -> None:
        """get_many returns a dict of those keys that are there, in a plain dict, and asks for each once."""
        await store.set("a", b"1")
        await store.set("b", b"")
        equal(await store.get_many(["a", "missing", "b"]), {"a": b"1", "b": b""}, "get_many returns the hits")
        equal(await store.get_many(["a", "a"]), {"a": b"1"}, "a key may be named twice")
        equal(await store.get_many(["missing"]), {}, "get_many of missing keys is empty")

    @promise
    async def test_many_of_nothing(self, store: Store) -> None:
        """Bulk calls without keys do nothing and do not fail."""
        await store.set("k", b"v")
        equal(await store.get_many([]), {}, "get_many of nothing")
        await returns_none(store.set_many({}), "set_many of nothing")
        await returns_none(store.set_many({}, expires_in=60), "set_many of nothing with an expiry")
        await returns_none(store.set_many({}, expires_in=0), "set_many of nothing that is over")
        told(await store.delete_many([]), 0, "delete_many of nothing")
        await check_keys(store, {"k"}, "nothing changed")

    @promise
    async def test_any_iterable_of_keys(self, store: Store) -> None:
        """Keys may come as any iterable, but not as one str, which is a mistake."""
        await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
        expected = {"a": b"1", "b": b"2"}
        for keys in (["a", "b"], ("a", "b"), {"a", "b"}, {"a": 0, "b": 0}, (key for key in "ab"), iter(["a", "b"])):
            equal(await store.get_many(keys), expected, f"get_many of a {type(keys).__name__}")
        await store.delete_many(key for key in "ab")
        await check_keys(store, {"c"}, "delete_many of a generator")
        await raises(TypeError, store.get_many, "ab")
        await raises(TypeError, store.delete_many, "c")
        await raises(TypeError, store.get_many, b"ab")
        await check_keys(store, {"c"}, "the mistake changes nothing")

    @promise
    async def test_set_many_is_a_set_of_each(self, store: Store) -> None:
        """set_many replaces value and expiry of each key."""
        since = self.now()
        await store.set("a", b"old", expires_in=5)
        await returns_none(store.set_many({"a": "text", "b": bytearray(b"buffer")}), "set_many returns None")
        equal(await store.get_with_expiry("a"), (b"text", None), "set_many drops the old expiry")
        equal(await store.get("b"), b"buffer", "set_many takes what set takes")
        await store.set_many({"a": b"1", "b": b"2"}, expires_in=LONG)
        for key in ("a", "b"):
            await self.check_left(store, key, LONG, since, "set_many sets one expiry for all")

    @promise
    async def test_delete_many(self, store: Store) -> None:
        """delete_many removes its keys and no others, and returns how many were there (None if it cannot tell)."""
        await store.set_many(dict.fromkeys("abcd", b"v"))
        told(await store.delete_many(["a", "missing", "c", "a"]), 2, "delete_many counts the keys that were there")
        await check_keys(store, {"b", "d"}, "delete_many removes its keys and no others")

    @promise
    async def test_a_thousand_keys_at_once(self, store: Store) -> None:
        """Bulk calls take more than a thousand keys."""
        items = {f"k{n}": str(n).encode() for n in range(1500)}
        await store.set_many(items)
        equal(await store.get_many(items), items, "get_many returns all of them")
        told(await store.delete_many([*items, "missing"]), len(items), "delete_many counts all of them")
        equal(await store.get_many(items), {}, "delete_many removes all of them")

    @promise
    async def test_large_values_at_once(self, store: Store) -> None:
        """Bulk calls take large values, too."""
        items = {f"k{n}": bytes([n]) * self.fitting(store, 500_000) for n in range(8)}
        await store.set_many(items)
        equal(await store.get_many(items), items, "get_many returns large values whole")
