"""Expiry: how long a value lives, what ends it, what renews it, and that nobody ever meets it afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from storeconf.testing._suite import (
    LONG,
    SHORT,
    Suite,
    all_keys,
    check_keys,
    equal,
    holds,
    promise,
    raises,
    returns_none,
)
from storeconf.testing._values import key_calls

if TYPE_CHECKING:
    from storeconf import Store

OVER = (0, -1, 0.0, -0.0, -0.5, -LONG, timedelta(0), timedelta(days=-1), timedelta(microseconds=-1))
"""Spans that are over before they begin."""


TINY: tuple[float | timedelta, ...] = (1e-9, 0.0001, timedelta(microseconds=1))


class Expiry(Suite):
    """Promises on expiry."""

    async def _left(self, store: Store, key: str) -> float:
        """Return the seconds left of a key that must have an expiry."""
        found = await store.get_with_expiry(key)
        if found is None or not isinstance(found[1], float):
            raise AssertionError(f"get_with_expiry gives the seconds left as a float; it gave {found!r}")
        return found[1]

    @promise
    async def test_entry_lives_exactly_as_long_as_its_expiry(self, store: Store) -> None:
        """An entry is there until its expiry is over, and not longer; fractions of a second count."""
        await self.expires(store, "float", SHORT)
        await self.expires(store, "timedelta", timedelta(milliseconds=80).total_seconds())
        await self.expires(store, "a millisecond", 0.001)

    @promise
    async def test_tiny_expiry_is_rounded_up(self, store: Store) -> None:
        """A span below a millisecond counts as one millisecond."""
        for number, span in enumerate(TINY):
            await store.set(f"k{number}", b"v", expires_in=span)
        await self.outlive(store, 0.002)
        await check_keys(store, set(), "a tiny expiry ends")

    @promise
    async def test_set_with_expiry_that_is_over(self, store: Store) -> None:
        """Set with an expiry of zero or less removes the key: the new value never exists, the old one is gone."""
        for span in OVER:
            await returns_none(store.set("k", b"v", expires_in=span), "set with an expiry that is over does not fail")
            equal(await store.get("k"), None, f"set(expires_in={span!r}) stores nothing")
            await store.set("k", b"old")
            await store.set("k", b"v", expires_in=span)
            equal(await store.exists("k"), False, f"set(expires_in={span!r}) ends the old value")
            await store.set_many({"k": b"old", "m": b"old"})
            await store.set_many({"k": b"v", "n": b"v"}, expires_in=span)
            await check_keys(store, {"m"}, f"set_many(expires_in={span!r}) removes its keys and no others")

    @promise
    async def test_get_or_set_with_expiry_that_is_over(self, store: Store) -> None:
        """get_or_set with an expiry of zero or less returns the factory's value and stores nothing."""
        for span in OVER:
            equal(await store.get_or_set("k", lambda: b"made", expires_in=span), b"made", "the caller gets the value")
            equal(await store.exists("k"), False, f"get_or_set(expires_in={span!r}) stores nothing")

    @promise
    async def test_expires_in_is_rounded_up(self, store: Store) -> None:
        """expires_in tells whole seconds rounded up: 0.5 s are 1, 1.5 s are 2."""
        for span in (0.5, 1, 1.5, 10, 59.001, LONG, 1e6):
            since = self.now()
            await store.set("k", b"v", expires_in=span)
            await self.check_left(store, "k", span, since, f"expires_in after set(expires_in={span})")

    @promise
    async def test_days_count_as_days(self, store: Store) -> None:
        """Timedeltas are taken whole: days, and fractions of seconds."""
        for span in (timedelta(days=14), timedelta(days=1), timedelta(days=1, seconds=1), timedelta(seconds=2.5)):
            seconds = span.total_seconds()
            since = self.now()
            await store.set("k", b"v", expires_in=span)
            await self.check_left(store, "k", seconds, since, f"set(expires_in={span!r})")
            await store.set("k", b"v", expires_in=5)
            since = self.now()
            equal(await store.get("k", renew_for=span), b"v", "a renewing get returns the value")
            await self.check_left(store, "k", seconds, since, f"get(renew_for={span!r})")

    @promise
    async def test_get_with_expiry_gives_the_seconds_left(self, store: Store) -> None:
        """get_with_expiry gives the seconds left, to the millisecond, and None for a key that never expires."""
        late = self.capabilities(store).resolution
        for span in (0.5, 2, LONG):
            since = self.now()
            await store.set("k", b"v", expires_in=span)
            left = await self._left(store, "k")
            passed = self.now() - since
            holds(span - passed - 0.002 <= left <= span + late, f"{left} s are left of {span} s after {passed} s")
            equal(left, round(left, 3), "the seconds left are whole milliseconds")
        await store.set("k", b"v")
        equal(await store.get_with_expiry("k"), (b"v", None), "what never expires has None")

    @promise
    async def test_expired_key_does_not_exist(self, store: Store) -> None:
        """Every operation takes an expired key for a missing one, also one that nobody has touched since."""
        calls, child = key_calls(self, store), store.with_namespace("child")
        for number in range(len(calls)):
            await store.set(f"old{number}", b"41", expires_in=SHORT)
        await child.set("k", b"old", expires_in=SHORT)
        await self.outlive(store)
        for number, (name, call) in enumerate(calls.items()):
            outcomes = []
            for key in (f"old{number}", f"new{number}"):
                await store.delete("fine")  # which the calls of several keys name, too
                outcomes.append((await call(key), await store.get_with_expiry(key)))
            equal(
                outcomes[0], outcomes[1], f"{name} does to an expired key, and returns, what it does to a missing one"
            )
        await check_keys(child, set(), "keys lists no expired key")
        if self.lists(store):
            equal(await all_keys(child, "k"), set(), "keys with a prefix lists no expired key")

    @promise
    async def test_expired_key_is_missing_to_writers(self, store: Store) -> None:
        """Operations that depend on the stored value or expiry find neither of an expired key."""
        atomic = self.capabilities(store).atomic
        for name in ("keep", "touch", "compare_and_set"):
            await store.set(name, b"old", expires_in=SHORT)
        await self.outlive(store)
        await store.set("keep", b"new", keep_ttl=True)
        equal(await store.get_with_expiry("keep"), (b"new", None), "no expiry is left to keep after expiry")
        if "touch" in atomic:
            equal(await store.touch("touch", None), False, "touch finds no expired key")
            equal(await store.exists("touch"), False, "touch revives nothing")
        if "compare_and_set" in atomic:
            changed = await store.compare_and_set("compare_and_set", b"old", b"new")
            equal(changed, False, "compare_and_set finds no expired value")
            equal(await store.exists("compare_and_set"), False, "compare_and_set revives nothing")

    @promise
    async def test_set_drops_the_old_expiry(self, store: Store) -> None:
        """Set replaces value and expiry: without expires_in the key becomes permanent, even if it had an expiry."""
        await store.set("k", b"v", expires_in=SHORT)
        await store.set("k", b"w")
        await store.set("m", b"v", expires_in=SHORT)
        await store.set_many({"m": b"w"})
        for key in ("k", "m"):
            equal(await store.expires_in(key), -1, "a set without expires_in drops the old expiry")
        await self.outlive(store)
        await store.delete_expired()
        for key in ("k", "m"):
            equal(await store.get_with_expiry(key), (b"w", None), "the old expiry has no effect on the new value")

    @promise
    async def test_longer_expiry_replaces_a_shorter_one(self, store: Store) -> None:
        """After a set, a renewal or a touch only the newest expiry counts, for sweeps too."""
        touches = "touch" in self.capabilities(store).atomic
        keys = ["set", "renewed", "touched", "permanent"] if touches else ["set", "renewed"]
        since = self.now()

        async def change(span: float) -> None:
            nonlocal since
            since = self.now()
            for key in keys:
                await store.set(key, b"v", expires_in=span)
            await store.set("set", b"v", expires_in=LONG)
            await store.get("renewed", renew_for=LONG)
            if touches:
                await store.touch("touched", LONG)
                await store.touch("permanent", None)

        await self.outlive(store, await self.within_span(0.2, change))
        await store.delete_expired()
        for key in keys:
            equal(await store.get(key), b"v", f"what was {key} outlives its first expiry")
            if key == "permanent":
                equal(await store.expires_in(key), -1, "touch(None) makes permanent")
            else:
                await self.check_left(store, key, LONG, since, "the newest expiry counts")

    @promise
    async def test_shorter_expiry_replaces_a_longer_one(self, store: Store) -> None:
        """A shorter expiry ends the key, whichever operation gave it."""
        for key in ("set", "renewed", "touched", "many"):
            await store.set(key, b"v", expires_in=LONG)
        await store.set("set", b"v", expires_in=SHORT)
        await store.set_many({"many": b"v"}, expires_in=SHORT)
        await store.get("renewed", renew_for=SHORT)
        if "touch" in self.capabilities(store).atomic:
            await store.touch("touched", SHORT)
        else:
            await store.delete("touched")
        await self.outlive(store)
        await check_keys(store, set(), "the newest expiry ends the key")

    @promise
    async def test_keep_ttl_keeps_the_expiry(self, store: Store) -> None:
        """Set with keep_ttl replaces the value and keeps the key's expiry, or its lack of one."""
        since = self.now()
        await store.set("k", b"v", expires_in=LONG)
        await store.set("k", b"w", keep_ttl=True)
        equal(await store.get("k"), b"w", "keep_ttl replaces the value")
        await self.check_left(store, "k", LONG, since, "keep_ttl keeps the expiry")
        await store.set("permanent", b"v")
        await store.set("permanent", b"w", keep_ttl=True)
        equal(await store.get_with_expiry("permanent"), (b"w", None), "keep_ttl keeps a permanent key permanent")
        await store.set("missing", b"w", keep_ttl=True)
        equal(await store.get_with_expiry("missing"), (b"w", None), "keep_ttl on a missing key stores a permanent one")

        async def change(span: float) -> None:
            await store.set("ends", b"v", expires_in=span)
            await store.set("ends", b"w", keep_ttl=True)

        await self.outlive(store, await self.within_span(SHORT, change))
        equal(await store.get("ends"), None, "the kept expiry ends the new value")

    @promise
    async def test_keep_ttl_and_expires_in_exclude_each_other(self, store: Store) -> None:
        """Set with both keep_ttl and expires_in is a ValueError and changes nothing."""
        await store.set("k", b"v")
        for span in (60, 0, timedelta(days=1)):
            await raises(ValueError, store.set, "k", b"w", span, keep_ttl=True)
        equal(await store.get_with_expiry("k"), (b"v", None), "the refused call changes nothing")

    @promise
    async def test_get_renews_only_what_expires(self, store: Store) -> None:
        """get(renew_for) gives a key that expires a new expiry, and leaves a permanent key permanent."""
        await store.set("k", b"v", expires_in=5)
        since = self.now()
        equal(await store.get("k", renew_for=LONG), b"v", "a renewing get returns the value")
        await self.check_left(store, "k", LONG, since, "a renewing get sets the expiry")
        await store.get("k")
        await self.check_left(store, "k", LONG, since, "a plain get renews nothing")
        await store.set("permanent", b"v")
        equal(await store.get("permanent", renew_for=LONG), b"v", "a renewing get returns a permanent value")
        equal(await store.expires_in("permanent"), -1, "a permanent key stays permanent")
        equal(await store.get("missing", renew_for=LONG), None, "a renewing get of a missing key gives None")
        equal(await store.exists("missing"), False, "a renewing get creates nothing")

    @promise
    async def test_renewing_with_what_is_over_ends_the_entry(self, store: Store) -> None:
        """Get with a renew_for of zero or less returns the value and ends the entry if it expires at all."""
        await store.set("permanent", b"v")
        for span in OVER:
            await store.set("k", b"v", expires_in=LONG)
            equal(await store.get("k", renew_for=span), b"v", f"get(renew_for={span!r}) still returns the value")
            equal(await store.exists("k"), False, f"get(renew_for={span!r}) ends the entry")
            equal(await store.get("permanent", renew_for=span), b"v", "a permanent value is returned")
            equal(await store.expires_in("permanent"), -1, "a permanent key has no expiry that could end")

    @promise
    async def test_writes_to_one_key_leave_other_expiries(self, store: Store) -> None:
        """An expiry belongs to one key of one namespace."""
        child = store.with_namespace("child")
        since = self.now()
        await store.set("k", b"v", expires_in=LONG)
        await child.set("k", b"v")
        await store.set("other", b"v", expires_in=5)
        await store.delete("other")
        await self.check_left(store, "k", LONG, since, "the expiry of k stays")
        equal(await child.expires_in("k"), -1, "the child's key of the same name has its own")

    @promise
    async def test_delete_expired_drops_nothing_that_lives(self, store: Store) -> None:
        """delete_expired leaves live and permanent keys everywhere, and does not fail when nothing has expired."""
        child = store.with_namespace("child")
        await store.delete_expired()
        for handle in (store, child):
            await handle.set("permanent", b"v")
            await handle.set("lives", b"v", expires_in=LONG)
            await handle.set("ends", b"v", expires_in=SHORT)
        await self.outlive(store)
        await child.delete_expired()
        await store.delete_expired()
        for handle in (store, child):
            await check_keys(handle, {"permanent", "lives"}, "delete_expired leaves what lives")
            equal(await handle.get("lives"), b"v", "delete_expired leaves the values")

    @promise
    async def test_many_expiries_end_together(self, store: Store) -> None:
        """Hundreds of keys expire, each when it should, while others live."""
        await store.set_many({f"short-{n}": b"v" for n in range(300)}, expires_in=SHORT)
        await store.set_many({f"long-{n}": b"v" for n in range(300)}, expires_in=LONG)
        await self.outlive(store)
        await check_keys(store, {f"long-{n}" for n in range(300)}, "the short ones are gone, the long ones live")
        found = await store.get_many([f"{kind}-{n}" for n in range(300) for kind in ("short", "long")])
        holds(len(found) == 300, "get_many finds exactly the live ones")
