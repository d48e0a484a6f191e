"""The atomic operations: the effect of each alone, and that it is one step among many. Undeclared ones refuse."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from storeconf import Capabilities, StoreError, StoreValueError, UnsupportedOperationError
from storeconf.testing._expiry import OVER
from storeconf.testing._suite import LONG, SHORT, Suite, all_keys, check_keys, equal, holds, promise, raises
from storeconf.testing._values import optional_calls

if TYPE_CHECKING:
    from storeconf import Store

MAX, MIN = (1 << 63) - 1, -(1 << 63)

NO_NUMBERS = (
    *(b"", b"abc", b"1.0", b" 1", b"1 ", b"1\n", b"+1", b"01", b"-01", b"-0", b"00", b"--1", b"-", b"1e3", b"0x1"),
    *(b"1_000", b"1,000", "\u0661".encode(), b"\x00", b"1\x00", b"None", b"NaN", b"\xff"),
    *(str(MAX + 1).encode(), str(MIN - 1).encode(), b"9" * 100, b"-" + b"9" * 100),
)
"""Values that are not canonical signed 64-bit decimal, though some parsers take them for one."""


class Atomic(Suite):
    """Promises on add, touch, pop, increment, compare_and_set, and renewing."""

    def _offers(self, store: Store, operation: str) -> bool:
        return operation in self.capabilities(store).atomic

    @promise
    async def test_undeclared_operations_refuse(self, store: Store) -> None:
        """An atomic operation that the store does not declare raises UnsupportedOperationError and changes nothing."""
        await store.set("k", b"1", expires_in=LONG)
        known = self.capabilities(store).atomic - Capabilities.ALL_ATOMIC
        equal(known, frozenset[str](), "only operations that exist are declared")
        for operation, call in optional_calls(store).items():
            if self._offers(store, operation):
                continue
            error = await raises(UnsupportedOperationError, call, "k")
            equal(error.operation, operation, "the error names the operation")
            equal(error.store, store.name, "the error names the store")
            await check_keys(store, {"k"}, f"a refused {operation} changes nothing")
            equal(await store.get("k"), b"1", f"a refused {operation} changes nothing")
            holds(await store.expires_in("k") != -1, f"a refused {operation} changes nothing")

    @promise
    async def test_a_store_that_can_not_list_refuses(self, store: Store) -> None:
        """Where listing is not declared, keys and walk raise UnsupportedOperationError, and all else works."""
        if self.lists(store):
            return
        await store.set_many({"a": b"1", "b": b"2"})
        error = await raises(UnsupportedOperationError, lambda: all_keys(store))
        equal(error.operation, "keys", "the error names the operation")

        async def walk() -> list[object]:
            return [place async for place in store.walk()]

        error = await raises(UnsupportedOperationError, walk)
        equal(error.operation, "walk", "the error names the operation")
        equal(await store.get_many(["a", "b", "c"]), {"a": b"1", "b": b"2"}, "get_many needs no list")
        equal(await store.delete_many(["a", "c"]) in (1, None), True, "delete_many needs no list")
        equal(await store.get("a"), None, "delete_many needs no list")

    @promise
    async def test_declared_sizes_hold(self, store: Store) -> None:
        """A key or value of the largest declared size is stored; a larger one is StoreValueError, without effect."""
        capabilities = self.capabilities(store)
        if (most := capabilities.max_key_size) is not None:
            key = "k" * (most - len(f"{store.namespace}::" if store.namespace else ""))
            await store.set(key, b"v")
            equal(await store.get(key), b"v", "a key of the largest size is stored")
            longer = f"{key}k"
            for call in (
                lambda: store.set(longer, b"v"),
                lambda: store.set_many({longer: b"v"}),
                lambda: store.get(longer),
                lambda: store.get_many([longer]),
                lambda: store.delete(longer),
                lambda: store.exists(longer),
                lambda: store.with_namespace("n").set(key, b"v"),
            ):
                await raises(StoreValueError, call)
        if (most := capabilities.max_value_size) is not None:
            value = bytes(most)
            await store.set("k", value)
            equal(await store.get("k") == value, True, "a value of the largest size is stored")
            await raises(StoreValueError, lambda: store.set("k", value + b"v"))
            await raises(StoreValueError, lambda: store.set_many({"k": value + b"v"}))
            if self._offers(store, "add"):
                await raises(StoreValueError, lambda: store.add("new", value + b"v"))
                equal(await store.exists("new"), False, "a refused add stores nothing")
            equal(await store.get("k") == value, True, "a refused value changes nothing")

    # ------------------------------------------------------------------ add

    @promise
    async def test_add_stores_only_what_is_missing(self, store: Store) -> None:
        """Add stores a missing key and says True; a key that is there stays as it is, and add says False."""
        if not self._offers(store, "add"):
            return
        equal(await store.add("k", b"v"), True, "add of a missing key stores")
        equal(await store.get_with_expiry("k"), (b"v", None), "without expires_in it never expires")
        equal(await store.add("k", b"w", expires_in=5), False, "add of a key that is there does not")
        equal(await store.get_with_expiry("k"), (b"v", None), "neither value nor expiry change")
        since = self.now()
        equal(await store.add("e", "text", expires_in=timedelta(hours=1)), True, "add takes what set takes")
        equal(await store.get("e"), b"text", "add stores a str as UTF-8")
        await self.check_left(store, "e", LONG, since, "add sets the expiry")
        equal(await store.add("e", b"w"), False, "add of a key that expires later does not store")
        await self.check_left(store, "e", LONG, since, "add leaves the expiry")
        await store.delete("k")
        equal(await store.add("k", b""), True, "add after delete stores, also an empty value")
        equal(await store.add("k", b"w"), False, "an empty value is there")

    @promise
    async def test_add_with_expiry_that_is_over(self, store: Store) -> None:
        """Add with an expiry of zero or less only tells whether the key is missing."""
        if not self._offers(store, "add"):
            return
        await store.set("there", b"old")
        for span in OVER:
            equal(await store.add("k", b"v", expires_in=span), True, "add tells that the key is missing")
            equal(await store.exists("k"), False, "and stores nothing")
            equal(await store.add("there", b"v", expires_in=span), False, "add tells that the key is there")
            equal(await store.get("there"), b"old", "and leaves it")

    @promise
    async def test_add_is_atomic(self, store: Store) -> None:
        """Of many concurrent adds exactly one stores."""
        if not self._offers(store, "add"):
            return
        for turn in range(5):
            key = f"k{turn}"
            won = await asyncio.gather(*(store.add(key, str(n)) for n in range(20)))
            equal(sum(won), 1, "exactly one of the concurrent adds stores")
            equal(await store.get(key), str(won.index(True)).encode(), "and its value is there")

    # ------------------------------------------------------------------ touch

    @promise
    async def test_touch_sets_the_expiry(self, store: Store) -> None:
        """Touch gives a key that is there a new expiry, None for never, and leaves the value."""
        if not self._offers(store, "touch"):
            return
        equal(await store.touch("k", 60), False, "touch of a missing key says so")
        equal(await store.touch("k", None), False, "touch of a missing key says so")
        equal(await store.exists("k"), False, "touch creates nothing")
        await store.set("k", b"v")
        since = self.now()
        equal(await store.touch("k", LONG), True, "touch of a permanent key")
        await self.check_left(store, "k", LONG, since, "gives it an expiry")
        equal(await store.touch("k", timedelta(days=1)), True, "touch of a key that expires")
        await self.check_left(store, "k", 86_400, since, "gives it another one")
        equal(await store.touch("k", None), True, "touch with None")
        equal(await store.get_with_expiry("k"), (b"v", None), "makes it permanent, with its value")

    @promise
    async def test_touch_with_expiry_that_is_over(self, store: Store) -> None:
        """Touch with an expiry of zero or less ends the key and says that it was there."""
        if not self._offers(store, "touch"):
            return
        for span in OVER:
            await store.set("k", b"v")
            equal(await store.touch("k", span), True, f"touch({span!r}) tells that the key was there")
            equal(await store.exists("k"), False, "and ends it")
            equal(await store.touch("k", span), False, "once")

    # ------------------------------------------------------------------ pop

    @promise
    async def test_pop_removes_and_returns(self, store: Store) -> None:
        """Pop returns the value and removes the key with its expiry, or gives None."""
        if not self._offers(store, "pop"):
            return
        equal(await store.pop("k"), None, "pop of a missing key gives None")
        for value in (b"v", b"", b"\x00" * self.fitting(store, 70_000)):
            await store.set("k", value, expires_in=LONG)
            equal(await store.pop("k"), value, "pop returns the value")
            equal(await store.exists("k"), False, "pop removes the key")
            equal(await store.pop("k"), None, "once")
        await store.set("k", b"v", keep_ttl=True)
        equal(await store.expires_in("k"), -1, "pop removes the expiry, too")

    @promise
    async def test_pop_is_atomic(self, store: Store) -> None:
        """Of many concurrent pops exactly one gets the value."""
        if not self._offers(store, "pop"):
            return
        for turn in range(5):
            await store.set("k", str(turn))
            got = await asyncio.gather(*(store.pop("k") for _ in range(20)))
            equal([value for value in got if value is not None], [str(turn).encode()], "exactly one pop gets the value")

    # ------------------------------------------------------------------ increment

    @promise
    async def test_increment_counts(self, store: Store) -> None:
        """Increment adds and returns the new number; a missing key counts as 0; the value is decimal ASCII."""
        if not self._offers(store, "increment"):
            return
        equal(await store.increment("k"), 1, "a missing key counts as 0, by is 1")
        equal(await store.get_with_expiry("k"), (b"1", None), "the counter is ASCII and permanent")
        equal(await store.increment("k", 41), 42, "increment by 41")
        equal(await store.increment("k", by=-43), -1, "increment by -43")
        equal(await store.get("k"), b"-1", "negative numbers have a minus")
        equal(await store.increment("k"), 0, "back to zero")
        equal(await store.get("k"), b"0", "zero is 0")
        equal(await store.increment("zero", 0), 0, "increment by 0 of a missing key")
        equal(await store.get("zero"), b"0", "creates it")
        await store.set("set", "10")
        equal(await store.increment("set"), 11, "a decimal that set stored is a counter")

    @promise
    async def test_increment_to_the_limits(self, store: Store) -> None:
        """Counters are signed 64-bit; an overflow is a StoreValueError and changes nothing."""
        if not self._offers(store, "increment"):
            return
        equal(await store.increment("max", MAX), MAX, "the largest step")
        equal(await store.increment("min", MIN), MIN, "the smallest step")
        for key, limit, over in (("max", MAX, 1), ("max", MAX, MAX), ("min", MIN, -1), ("min", MIN, MIN)):
            await raises(StoreValueError, store.increment, key, over)
            equal(await store.get(key), str(limit).encode(), "an overflow changes nothing")
            equal(await store.increment(key, 0), limit, "a counter at its limit still counts")
        equal(await store.increment("max", MIN), -1, "from one limit towards the other")
        for by in (MAX + 1, MIN - 1, 1 << 200):
            await raises(StoreValueError, store.increment, "k", by)
        equal(await store.exists("k"), False, "a step that does not fit creates nothing")

    @promise
    async def test_increment_takes_only_whole_numbers(self, store: Store) -> None:
        """A step that is not an int, or is a bool, raises TypeError."""
        if not self._offers(store, "increment"):
            return
        for by in (True, False, 1.0, "1", b"1", None):
            await raises(TypeError, store.increment, "k", by)
        equal(await store.exists("k"), False, "a wrong step creates nothing")

    @promise
    async def test_increment_of_what_is_no_number(self, store: Store) -> None:
        """A value that is not a canonical 64-bit decimal is a StoreValueError; value and expiry stay."""
        if not self._offers(store, "increment"):
            return
        for value in NO_NUMBERS:
            since = self.now()
            await store.set("k", value, expires_in=LONG)
            error = await raises(StoreValueError, store.increment, "k")
            equal(error.store, store.name, "the error names the store")
            equal(error.operation, "increment", "the error names the operation")
            equal(error.outcome_unknown, False, "nothing has changed, and the error says so")
            equal(await store.get("k"), value, "the value is unchanged")
            await self.check_left(store, "k", LONG, since, "the expiry is unchanged")
        await store.set("k", b"canary-value")
        holds("canary" not in str(await raises(StoreError, store.increment, "k")), "an error shows no value")

    @promise
    async def test_increment_sets_expiry_only_on_creation(self, store: Store) -> None:
        """Increment's expires_in applies if the call creates the key, and never afterwards."""
        if not self._offers(store, "increment"):
            return
        since = self.now()
        equal(await store.increment("k", expires_in=LONG), 1, "the call that creates")
        await self.check_left(store, "k", LONG, since, "sets the expiry")
        equal(await store.increment("k", expires_in=5), 2, "a later one")
        await self.check_left(store, "k", LONG, since, "does not")
        equal(await store.increment("k"), 3, "nor one without expires_in")
        await self.check_left(store, "k", LONG, since, "which keeps the expiry")
        equal(await store.increment("k", expires_in=0), 4, "nor one whose expiry is over")
        await store.set("permanent", b"1")
        equal(await store.increment("permanent", expires_in=5), 2, "a permanent counter")
        equal(await store.expires_in("permanent"), -1, "stays permanent")

        async def count(span: float) -> None:
            await store.delete("ends")
            await store.increment("ends", expires_in=span)
            await store.increment("ends", expires_in=LONG)

        await self.outlive(store, await self.within_span(SHORT, count))
        equal(await store.exists("ends"), False, "the first expiry ends the counter")

    @promise
    async def test_increment_with_expiry_that_is_over(self, store: Store) -> None:
        """A creating increment with an expiry of zero or less returns the number and stores nothing."""
        if not self._offers(store, "increment"):
            return
        for span in OVER:
            equal(await store.increment("k", 3, expires_in=span), 3, "the caller gets the number")
            equal(await store.exists("k"), False, f"increment(expires_in={span!r}) stores nothing")

    @promise
    async def test_increment_is_atomic(self, store: Store) -> None:
        """Concurrent increments lose nothing, and each returns its own number."""
        if not self._offers(store, "increment"):
            return
        numbers = await asyncio.gather(*(store.increment("k") for _ in range(200)))
        equal(sorted(numbers), list(range(1, 201)), "200 concurrent increments give 1 to 200")
        await asyncio.gather(*(store.increment("sum", by) for by in range(-100, 201)))
        equal(await store.get("sum"), str(sum(range(-100, 201))).encode(), "concurrent steps add up")

    # ------------------------------------------------------------------ replace

    @promise
    async def test_replace_compares_and_sets(self, store: Store) -> None:
        """Replace changes the value only if it is the old one; None means missing, on either side."""
        if not self._offers(store, "compare_and_set"):
            return
        equal(await store.compare_and_set("k", b"v", b"w"), False, "a missing key has no value")
        equal(await store.compare_and_set("k", None, None), True, "a missing key is missing")
        equal(await store.exists("k"), False, "nothing was created")
        equal(await store.compare_and_set("k", None, b"v"), True, "a missing key can be created")
        equal(await store.compare_and_set("k", None, b"w"), False, "once")
        equal(await store.compare_and_set("k", b"other", b"w"), False, "another value is not replaced")
        equal(await store.compare_and_set("k", b"other", None), False, "nor deleted")
        equal(await store.get_with_expiry("k"), (b"v", None), "it stays")
        equal(await store.compare_and_set("k", b"v", b""), True, "the old value is replaced")
        equal(await store.get("k"), b"", "by the new one, also an empty one")
        equal(await store.compare_and_set("k", None, b"w"), False, "an empty value is there")
        equal(await store.compare_and_set("k", b"", None), True, "the old value can be deleted")
        equal(await store.exists("k"), False, "and is gone")

    @promise
    async def test_replace_and_expiry(self, store: Store) -> None:
        """Replace sets the expiry that it is given, or keeps it with keep_ttl; over means deleted."""
        if not self._offers(store, "compare_and_set"):
            return
        since = self.now()
        equal(await store.compare_and_set("k", None, b"1", expires_in=LONG), True, "created with an expiry")
        await self.check_left(store, "k", LONG, since, "compare_and_set sets the expiry")
        equal(await store.compare_and_set("k", b"1", b"2", keep_ttl=True), True, "replaced with keep_ttl")
        await self.check_left(store, "k", LONG, since, "which keeps the expiry")
        equal(await store.compare_and_set("k", b"other", b"3", expires_in=5), False, "not replaced")
        await self.check_left(store, "k", LONG, since, "which leaves the expiry")
        equal(await store.compare_and_set("k", b"2", b"3"), True, "replaced without an expiry")
        equal(await store.get_with_expiry("k"), (b"3", None), "which makes it permanent")
        equal(await store.compare_and_set("k", b"3", b"4", keep_ttl=True), True, "keep_ttl of a permanent key")
        equal(await store.get_with_expiry("k"), (b"4", None), "keeps it permanent")
        equal(await store.compare_and_set("new", None, b"1", keep_ttl=True), True, "keep_ttl of a missing key")
        equal(await store.get_with_expiry("new"), (b"1", None), "makes it permanent")
        for span in OVER:
            await store.set("k", b"v")
            equal(
                await store.compare_and_set("k", b"w", b"x", expires_in=span), False, "an expiry that is over compares"
            )
            equal(await store.compare_and_set("k", b"v", b"w", expires_in=span), True, "and ends the key")
            equal(await store.exists("k"), False, f"compare_and_set(expires_in={span!r}) stores nothing")
        await raises(ValueError, store.compare_and_set, "new", b"1", b"2", expires_in=60, keep_ttl=True)
        equal(await store.get("new"), b"1", "the refused call changes nothing")

    @promise
    async def test_replace_is_atomic(self, store: Store) -> None:
        """Counters built on compare_and_set are exact."""
        if not self._offers(store, "compare_and_set"):
            return

        async def add_one() -> None:
            while True:
                old = await store.get("k")
                if await store.compare_and_set("k", old, b"%d" % (int(old or 0) + 1)):
                    return

        await asyncio.gather(*(add_one() for _ in range(12)))
        equal(await store.get("k"), b"12", "every compare_and_set that returned True took effect once")

    # ------------------------------------------------------------------ renewing

    @promise
    async def test_renewing_is_atomic(self, store: Store) -> None:
        """A renewing get never revives a value deleted meanwhile, nor gives an expiry to a permanent value."""
        if not self._offers(store, "renew"):
            return
        for _ in range(20):
            await store.set("deleted", b"v", expires_in=LONG)
            await store.set("replaced", b"old", expires_in=LONG)
            await asyncio.gather(
                *(store.get(key, renew_for=60) for key in ("deleted", "replaced") for _ in range(3)),
                store.delete("deleted"),
                store.set("replaced", b"new"),
                *(store.get(key, renew_for=60) for key in ("deleted", "replaced") for _ in range(3)),
            )
            equal(await store.exists("deleted"), False, "renewing revives nothing that was deleted")
            equal(await store.get_with_expiry("replaced"), (b"new", None), "renewing undoes no set")
