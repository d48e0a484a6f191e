"""How entries are kept in the database, and what a transaction does with them.

The table ``entries`` has as its key the namespace path joined by ``:``, a zero byte, and the key; if that is too long
for LMDB, the byte one and a hash take the place of the last two. The value is the end in milliseconds since 1970, or
zero for never, in eight bytes; then for hashed keys their length in four bytes, and the key; then the value. Instead
of a path that is too long there are 0xFF and a hash, and the table ``paths`` has the path by the hash. The table
``expiries`` has a key for each entry that expires, its end and then its key, so that those which have expired are
found at once.
"""

from __future__ import annotations

import time
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from storeconf_lmdb.environment import Environment

__all__ = ["PAGE", "Entry", "Place", "Transaction", "change_nothing", "place", "remove_expired"]

Names = tuple[str, ...]

LONGEST = 511 - 8
"""Bytes of a key in ``entries``, so that with an end before it is one of ``expiries``."""

LONGEST_PATH = 400

PAGE = 500
"""Keys that are read or removed in one step, so that no step is long."""

PLAIN, HASHED, BEHIND = b"\0", b"\1", b"\2"
"""The bytes that follow a path before a key, before the hash of one, and behind all entries of the namespace."""

LONG_PATH = b"\xff"

unpack_end = Struct(">Q").unpack_from
"""The end of an entry, from the beginning of its value; zero for never."""


class Place(NamedTuple):
    """The key of an entry in the table, and the bytes that its value has before the caller's."""

    key: bytes
    name: bytes = b""


class Entry(NamedTuple):
    """A value, and the time when it ends, or None."""

    value: bytes
    end: int | None


def place(path: Names, key: str) -> Place:
    """Where the entry of this key is."""
    start, text = prefix(path) if path else b"", key.encode()
    found = start + PLAIN + text
    if len(found) <= LONGEST:
        return Place(found)
    return Place(start + HASHED + sha256(text).digest(), len(text).to_bytes(4) + text)


def prefix(path: Names) -> bytes:
    """How all keys of the namespace begin."""
    joined = ":".join(path).encode()
    return joined if len(joined) <= LONGEST_PATH else LONG_PATH + sha256(joined).digest()


def prefix_of(key: bytes) -> bytes:
    """How the keys begin of the namespace in which this one is."""
    if key[:1] == LONG_PATH:
        return key[:33]
    return key[: min(end for mark in (PLAIN, HASHED) if (end := key.find(mark)) >= 0)]


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Transaction:
    """Entries, as a transaction of LMDB sees and changes them."""

    __slots__ = ("environment", "lmdb", "now")

    def __init__(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        self.environment = environment
        self.lmdb = transaction
        self.now = now()

    def read(self, place: Place) -> Entry | None:
        """Return an entry that has not expired."""
        raw = self.lmdb.get(place.key, db=self.environment.entries)
        if raw is None:
            return None
        [end] = unpack_end(raw)
        if (end and end <= self.now) or (place.name and raw[8 : 8 + len(place.name)] != place.name):
            return None
        return Entry(bytes(raw[8 + len(place.name) :]), end or None)

    def write(self, path: Names, place: Place, value: bytes, end: int | None) -> None:
        """Replace the entry."""
        entries, put = self.environment.entries, self.lmdb.put
        raw = self.lmdb.get(place.key, db=entries)
        before = bytes(raw[:8]) if raw is not None else bytes(8)
        after = (end or 0).to_bytes(8)
        if before != after:
            if any(before):
                self.lmdb.delete(before + place.key, db=self.environment.expiries)
            if end is not None:
                put(after + place.key, b"", db=self.environment.expiries)
        put(place.key, b"".join((after, place.name, value)), db=entries)
        if place.key[:1] == LONG_PATH:
            put(place.key[1:33], ":".join(path).encode(), db=self.environment.paths)

    def remove(self, place: Place) -> Entry | None:
        """Remove the entry; return it if it had not expired."""
        found = self.read(place)
        raw = self.lmdb.pop(place.key, db=self.environment.entries)
        if raw is not None and any(raw[:8]):
            self.lmdb.delete(bytes(raw[:8]) + place.key, db=self.environment.expiries)
        return found

    def end(self, expiry: int | None) -> int | None:
        """The time when what expires in so many milliseconds ends."""
        return None if expiry is None else max(1, self.now + expiry)

    # ------------------------------------------------------------------ many

    def spans(self, path: Names) -> list[tuple[bytes, bytes]]:
        """Where the entries of the namespace are and of those below: pairs of a first key and one behind the last."""
        if not path:
            return [(b"", LONG_PATH * 2)]
        joined = ":".join(path).encode()
        spans = [(joined, joined + BEHIND), (joined + b":", joined + b";")] if len(joined) <= LONGEST_PATH else []
        for digest, long in self.lmdb.cursor(db=self.environment.paths):
            if bytes(long) == joined or bytes(long[: len(joined) + 1]) == joined + b":":
                start = LONG_PATH + bytes(digest)
                spans.append((start, start + BEHIND))
        return spans

    def names_of(self, start: bytes) -> Names:
        """The path of the namespace whose keys begin like this."""
        if start[:1] == LONG_PATH:
            long = self.lmdb.get(start[1:], db=self.environment.paths)
            start = b"" if long is None else bytes(long)
        return tuple(start.decode().split(":")) if start else ()

    def live(self, first: bytes, behind: bytes, count: int) -> Iterator[tuple[bytes, str | None]]:
        """Up to ``count`` keys of the table from ``first`` on, each with the caller's, or None if it has expired."""
        cursor = self.lmdb.cursor(db=self.environment.entries)
        more = cursor.set_range(first) if first else cursor.first()
        while more and count:
            key = bytes(cursor.key())
            if key >= behind:
                return
            raw = cursor.value()
            [end] = unpack_end(raw)
            yield key, None if end and end <= self.now else _text(key, raw)
            count -= 1
            more = cursor.next()


def remove_expired(transaction: Transaction) -> bool:
    """Remove the first that have expired, of all namespaces; return whether there were any."""
    cursor = transaction.lmdb.cursor(db=transaction.environment.expiries)
    due: list[bytes] = []
    more = cursor.first()
    while more and len(due) < PAGE:
        marked = bytes(cursor.key())
        if int.from_bytes(marked[:8]) > transaction.now:
            break
        due.append(marked[8:])
        more = cursor.next()
    for stored in due:
        transaction.remove(Place(stored))
    return bool(due)


def change_nothing(transaction: Transaction) -> None:
    """Let LMDB write a transaction all the same."""
    transaction.lmdb.put(b"-", b"", db=transaction.environment.paths)
    transaction.lmdb.delete(b"-", db=transaction.environment.paths)


def _text(key: bytes, raw: bytes | memoryview) -> str:
    start = len(prefix_of(key))
    if key[start : start + 1] == PLAIN:
        return key[start + 1 :].decode()
    return bytes(raw[12 : 12 + int.from_bytes(raw[8:12])]).decode()
