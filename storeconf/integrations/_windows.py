"""Windows in which hits are counted, exactly, by everyone who shares a store: fixed ones and sliding ones.

A fixed window is a counter that expires. A sliding window is one entry with the counts of the current window and of the
one before, changed by compare-and-set; the time that it has left tells the two apart, so that only the store's clock
counts: a window that is current has more than its length left, one that is the previous has less.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from storeconf.errors import StoreError, StoreValueError

if TYPE_CHECKING:
    from storeconf.store import Store

__all__ = ["SlidingWindow", "check_span", "hit_fixed", "hit_sliding", "read_fixed", "read_sliding"]

_MOST_TRIES = 10_000
"""Far more than a hit of a window that everybody wants at once has to try; a store that never takes it is broken."""

_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Store, tuple[str, ...], str], asyncio.Lock]
_turns = WeakValueDictionary()
"""Those in one event loop who want the same window queue here, so that only processes take it from each other."""


def check_span(store: Store, seconds: float) -> None:
    """Raise StoreValueError if the layout lets no entry live that long, as a window would end too early."""
    longest = store.expiry_rules.max
    if longest is not None and longest < seconds:
        raise StoreValueError(
            f"store {store.name!r} keeps no entry longer than {longest:g} s (middleware ttl.max); "
            f"this rate limit needs {seconds:g} s",
            store=store.name,
        )


async def hit_fixed(store: Store, key: str, seconds: float, amount: int = 1) -> int:
    """Count a hit in the window that the first hit began ``seconds`` ago at most; return the hits in it."""
    check_span(store, seconds)
    return await store.increment(key, amount, seconds)


async def read_fixed(store: Store, key: str) -> tuple[int, float]:
    """Return the hits in the window and the seconds that are left of it."""
    # Reads that renew (`ttl.renew_on_get`) are `get` and `get_many` alone.
    found = await store.get_with_expiry(key)
    if found is None:
        return 0, 0.0
    try:
        return int(found[0]), found[1] or 0.0
    except ValueError:
        raise StoreValueError(
            f"the value of a rate limit in store {store.name!r} is not a number", store=store.name
        ) from None


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """What a store knows of a sliding window; the seconds are those until a count loses its last weight."""

    previous: int
    previous_left: float
    current: int
    current_left: float

    def weighted(self, seconds: float) -> int:
        """The hits of the last ``seconds``, those of the previous window by the part of it that is among them."""
        return int(self.previous * self.previous_left / seconds) + self.current


_EMPTY = SlidingWindow(0, 0.0, 0, 0.0)


async def read_sliding(store: Store, key: str, seconds: float) -> SlidingWindow:
    """Return the state of the window; changes nothing."""
    return (await _look(store, key, seconds))[1]


async def hit_sliding(store: Store, key: str, seconds: float, limit: int, amount: int = 1) -> bool:
    """Count a hit if that keeps the window within the limit; return whether it did.

    Whoever has to try again has lost to a hit that was counted, so it tries at most ``limit`` times in a window.
    """
    check_span(store, 2 * seconds)
    if amount > limit:
        return False
    place = (asyncio.get_running_loop(), store.root, store.namespaces, key)
    turn = _turns.get(place)
    if turn is None:
        turn = _turns[place] = asyncio.Lock()
    async with turn:
        return await _hit_sliding(store, key, seconds, limit, amount)


async def _hit_sliding(store: Store, key: str, seconds: float, limit: int, amount: int) -> bool:
    for _ in range(_MOST_TRIES):
        looked = time.monotonic()
        stored, window = await _look(store, key, seconds)
        if window.weighted(seconds) + amount > limit:
            return False
        begins = not (stored and window.current)
        # A name of its own for each window: the same counts of a later one are not the same entry.
        name = secrets.token_hex(4) if begins else stored.partition(b":")[0].decode()  # type: ignore[union-attr]
        new = f"{name}:{window.previous}:{window.current + amount}".encode()
        if begins:
            left = (window.current_left or 2 * seconds) - (time.monotonic() - looked)
            counted = await store.compare_and_set(key, stored, new, left)
        else:
            counted = await store.compare_and_set(key, stored, new, keep_ttl=True)
        if counted:
            return True
    raise StoreError(f"the rate limit {key!r} in store {store.name!r} changes too often", store=store.name)


async def _look(store: Store, key: str, seconds: float) -> tuple[bytes | None, SlidingWindow]:
    """The entry as it is, and what it says now."""
    found = await store.get_with_expiry(key)
    if found is None:
        return None, _EMPTY
    stored, left = found
    try:
        _, previous, current = stored.split(b":")
        counts = int(previous), int(current)
    except ValueError:
        return stored, _EMPTY
    if left is None:  # somebody has made it permanent: it would never end
        return stored, _EMPTY
    # Backends round up to the millisecond what is left; a window that has just begun has less than its whole length.
    left = min(left, 2 * seconds) - 0.001
    if left > seconds:
        return stored, SlidingWindow(counts[0], left - seconds if counts[0] else 0.0, counts[1], left)
    return stored, SlidingWindow(counts[1], left, 0, left + seconds)
