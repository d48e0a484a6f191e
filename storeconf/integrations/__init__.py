"""Adapters for frameworks; none imports another. This module has the code that several of them share.

**Windows** in which hits are counted, exactly, by everyone who shares a store. A fixed window is a counter that
expires. A sliding window is one entry with the counts of the current window and of the one before, changed by
compare-and-set; the time that it has left tells the two apart, so that only the store's clock counts: a window that is
current has more than its length left, one that is the previous has less.

**Ends of sessions** before their lifetime is over: the greatest age of all sessions, and revoking those of one user.
Ages are measured by the store's clock, so that the clocks of the application's hosts need not agree: a session that is
stored notes the seconds that it may still live and the expiry that it was given; when it is read, the rest of that
expiry gives the time since. A user's sessions are revoked by one entry, which contains the time of doing so. A session
notes the entry of its user as it was at the login, and is valid while that has not changed.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

from storeconf.errors import StoreError, StoreValueError
from storeconf.middleware import without_policies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from storeconf.store import Store

__all__ = [
    "MARK",
    "SessionBounds",
    "SlidingWindow",
    "check_age",
    "check_span",
    "check_user",
    "hit_fixed",
    "hit_sliding",
    "read_fixed",
    "read_sliding",
    "revoke_sessions",
]


# ---------------------------------------------------------------- ends of sessions


MARK: Final = "-storeconf"
"""The key of storeconf's own data in a stored session; applications never see it."""

_MOST_REVOCATIONS: Final = 100


class _Sessions(Protocol):
    def get(self, key: str, /) -> Awaitable[bytes | None]: ...
    def delete(self, key: str, /) -> Awaitable[object]: ...


def check_age(absolute_max_age: float | None) -> float | None:
    """Return the age if it is one, else raise ValueError."""
    if absolute_max_age is not None and absolute_max_age <= 0:
        raise ValueError(f"absolute_max_age must be above zero, not {absolute_max_age}")
    return absolute_max_age


def check_user(user: object) -> str:
    """Return the key of the entry that revokes a user's sessions; TypeError for a value that can't identify a user."""
    if isinstance(user, bool) or not isinstance(user, str | int | UUID):
        raise TypeError(f"a user is identified by a str, an int or a UUID, not by {type(user).__name__}")
    return f"revoked:{user}"


async def revoke_sessions(store: Store, user: str | int | UUID) -> None:
    """End all sessions of a user that began before now, on every device; ``store`` is the one that has the sessions.

    ``user`` is the value that the application keeps under the ``user_key`` of its session middleware. Call it when a
    password was changed or an account was locked. A session that gets a new identifier afterwards (``rotate_session``)
    stays, and so does the one of a login.

    Bypasses the policies of the store's middleware: an error is raised even with ``on_error: miss``.
    """
    key = check_user(user)
    store = without_policies(store)
    seen = set()
    for _ in range(_MOST_REVOCATIONS):
        before = await store.get(key)
        # Later than the last one, even by a wrong clock of this host: so it differs.
        now = repr(max(time.time(), _time(before) + 0.001)).encode()
        if "compare_and_set" not in store.capabilities.atomic:
            await store.set(key, now)
            return
        if await store.compare_and_set(key, before, now):
            return
        seen.add(before)
    if len(seen) == 1:
        raise StoreError(f"store {store.name!r} refuses every change: sessions were not revoked", store=store.name)
    # Others have revoked them all the time, after this was called.


def _time(entry: bytes | str | None) -> float:
    try:
        return 0.0 if entry is None else float(entry)
    except ValueError:
        return 0.0


class SessionBounds:
    """The bounds of one session while a request uses it."""

    def __init__(self, store: _Sessions, absolute: float | None, user_key: str | None) -> None:
        self._store = store
        self._absolute = absolute
        self._user_key = user_key
        self._rest = absolute
        self._since = time.monotonic()
        self._user: Any = None
        self._decided = False  # whether this request decides about the user, and the time of the login
        self._revoked: str | None = None

    @property
    def are_set(self) -> bool:
        """Whether there are any."""
        return self._absolute is not None or self._user_key is not None

    @property
    def rest(self) -> float | None:
        """The seconds that the session may still live, however it is used; None without a greatest age.

        Rounded down to the millisecond, because stores round up.
        """
        if self._rest is None:
            return None
        return math.floor((self._rest - (time.monotonic() - self._since)) * 1000) / 1000

    def within(self, lifetime: float) -> float:
        """The lifetime, cut to the seconds that are left."""
        rest = self.rest
        return lifetime if rest is None else min(lifetime, rest)

    async def admit(self, identifier: str, values: dict[str, Any], left: float | None) -> bool:
        """Take a session that was read, with the seconds that its entry has left; return whether it is still valid.

        One that has ended is deleted.
        """
        noted = values.pop(MARK, None)
        self._note(noted, left)
        ended = self._rest is not None and self._rest <= 0
        if not ended:
            self._user = None if self._user_key is None else values.get(self._user_key)
            if self._user is None or (entry := await self._entry(self._user)) == self._revoked:
                return True
            # One that is missing, but was there at the login, may be back after an outage.
            ended = entry is not None
        if ended:
            await self._store.delete(identifier)
        self._rest, self._since, self._user, self._revoked = self._absolute, time.monotonic(), None, None
        return False

    def follow(self, values: dict[str, Any]) -> None:
        """Take over the bounds that another request has noted in the session meanwhile, unless this one decides."""
        noted = values.pop(MARK, None)
        if self._decided or noted is None:
            return
        user, rest = None if self._user_key is None else values.get(self._user_key), self.rest
        self._note(noted, None)
        if user == self._user and rest is not None and self._rest is not None:
            self._rest = min(self._rest, rest)  # it may have been noted long ago
        self._user = user

    def _note(self, noted: Any, left: float | None) -> None:
        rest, expiry, self._revoked = noted if isinstance(noted, list) and len(noted) == 3 else (None, None, None)
        self._since = time.monotonic()
        if self._absolute is None or rest is None:
            return
        if left is not None and expiry is not None:
            rest -= max(0.0, expiry - left)
        self._rest = min(rest, self._absolute)

    async def prepare(self, values: Mapping[str, Any], rotated: float | None) -> bool:
        """Note new bounds before the session is stored; return whether it is still valid.

        ``rotated`` is the time at which a new identifier was asked for. A login counts as a new beginning.
        """
        if self._user_key is not None and (user := values.get(self._user_key)) is not None:
            check_user(user)
            login = user != self._user
            if login or rotated is not None:
                entry = await self._entry(user)
                if not login and rotated is not None and entry != self._revoked and _time(entry) >= rotated:
                    return False  # revoked after it was read and asked for a new identifier
                self._user, self._revoked, self._decided = user, entry, True
            if login:
                self._rest, self._since = self._absolute, time.monotonic()
        rest = self.rest
        return rest is None or rest > 0

    def noted(self, expiry: float) -> dict[str, Any]:
        """The fields to store with the session, for the expiry that it is given."""
        if not self.are_set:
            return {}
        return {MARK: [self.rest, expiry, self._revoked]}

    async def _entry(self, user: Any) -> str | None:
        entry = await self._store.get(check_user(user))
        return None if entry is None else entry.decode("ascii", "replace")


# ---------------------------------------------------------------- windows in which hits are counted


_MOST_TRIES = 10_000
"""Far more than a hit of a window that everybody wants at once has to try; a store that never takes it is broken."""

_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Store, tuple[str, ...], str], asyncio.Lock]
_turns = WeakValueDictionary()
"""Callers in one event loop that want the same window queue here, so that only processes take it from each other."""


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
    """The state of a sliding window in a store; the seconds are those until a count loses its last weight."""

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

    A caller that has to try again has lost to a hit that was counted, so it tries at most ``limit`` times in a window.
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
    """The entry as it is, and the window that it describes now."""
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
    # Backends round the rest up to the millisecond; a window that has just begun has less than its whole length.
    left = min(left, 2 * seconds) - 0.001
    if left > seconds:
        return stored, SlidingWindow(counts[0], left - seconds if counts[0] else 0.0, counts[1], left)
    return stored, SlidingWindow(counts[1], left, 0, left + seconds)
