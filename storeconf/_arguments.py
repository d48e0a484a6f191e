"""What every store takes as a name, a key, a value, a span of time and a counter, and what it says of anything else.

Imports nothing of storeconf but its errors.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from storeconf.errors import StoreValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LEASES",
    "LOCKS",
    "OWN_NAMES",
    "STALE",
    "Expiry",
    "OwnName",
    "Value",
    "check_name",
    "check_step",
    "key_list",
    "key_text",
    "milliseconds",
    "next_counter",
    "survives_delete_all",
    "value_bytes",
]

Expiry = int | float | timedelta
"""A span of time: seconds as int or float, or a timedelta."""

Value = str | bytes | bytearray | memoryview
"""What a store accepts as a value; a str is stored as UTF-8. Whatever else is bytes-like (an array, say) is taken too,
but only Python 3.12 has a type for that."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_INTEGER = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_MAX_MILLISECONDS = 1 << 62
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


class OwnName(str):
    """The name of one of storeconf's own namespaces, which begins with ``-``: applications can't create it."""

    __slots__ = ()


STALE, LEASES, LOCKS = OwnName("-stale"), OwnName("-lease"), OwnName("-lock")
"""Copies that outlive their entries, leases on computations (both for the middleware ``refresh``), and locks."""

OWN_NAMES = (STALE, LEASES, LOCKS)


def survives_delete_all(names: tuple[str, ...]) -> bool:
    """Whether ``delete_all`` leaves a namespace below the one it is called on as it is; ``names`` lead from there.

    True for storeconf's own namespaces, which begin with ``-``, except for that of copies of deleted values.
    """
    return any(name.startswith("-") and name != STALE for name in names)


def check_name(name: str) -> str:
    """Return ``name`` if it can name a namespace, else raise ValueError."""
    if name.__class__ is OwnName:
        return str.__str__(name)
    if not isinstance(name, str):
        raise TypeError(f"a namespace name must be a str, not {type(name).__name__}")
    if _NAME.match(name) is None:
        raise ValueError(
            f"{name!r} can't name a namespace: use letters, digits, '_' and '-', beginning with a letter or digit"
        )
    return name


def key_text(key: str) -> str:
    """Return ``key`` as a plain str if UTF-8 can encode it; else StoreValueError, and TypeError if it is not a str."""
    if key.__class__ is not str:
        if not isinstance(key, str):
            raise TypeError(f"a key must be a str, not {type(key).__name__}")
        key = str.__str__(key)  # a subclass, an enumeration's say, may hash and format itself as something else
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise StoreValueError("a key must be encodable as UTF-8; this one holds lone surrogates") from error
    return key


def key_list(keys: Iterable[str]) -> list[str]:
    """Return several keys, each as `key_text` does; TypeError for one key in place of several."""
    if isinstance(keys, str | bytes):
        raise TypeError("give an iterable of keys, not one key")
    # Most keys need no look: a hundred thousand of them should not keep the event loop busy for long.
    return [key if key.__class__ is str and key.isascii() else key_text(key) for key in keys]


def value_bytes(value: Value) -> bytes:
    """Return ``value`` as bytes; a str becomes UTF-8. Anything but str and bytes-like is a TypeError."""
    if value.__class__ is bytes:
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise StoreValueError("a str value must be encodable as UTF-8; this one holds lone surrogates") from error
    try:
        return memoryview(value).tobytes()
    except TypeError:
        raise TypeError(f"a value must be str or bytes-like, not {type(value).__name__}") from None


def milliseconds(span: Expiry) -> int:
    """Return a span of time in whole milliseconds, rounded up; zero or less means already over.

    Raises TypeError for anything but int, float and timedelta (a bool is not a number of seconds), and StoreValueError
    for NaN, infinity, and spans that no backend can hold.
    """
    if isinstance(span, timedelta):
        # Whole numbers throughout: timedelta.max has no negative.
        result = -(-((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) // 1000)
    elif isinstance(span, bool) or not isinstance(span, int | float):
        raise TypeError(f"an expiry must be int, float or timedelta seconds, not {type(span).__name__}")
    elif isinstance(span, int):
        result = span * 1000
    elif not math.isfinite(span):
        raise StoreValueError(f"an expiry must be finite, not {span}")
    elif span >= _MAX_MILLISECONDS:  # times 1000 it may be infinite
        result = _MAX_MILLISECONDS + 1
    else:
        exact = span * 1000
        # The subtraction forgives what binary floats add: 0.07 s are 70 ms, not 71.
        result = max(1, math.ceil(exact - max(1e-6, exact * 4e-16))) if span > 0 else 0
    if result > _MAX_MILLISECONDS:
        raise StoreValueError("an expiry must be less than 146 million years")
    return result


def check_step(by: int) -> int:
    """Return ``by`` if a counter can go by it at once; TypeError if not an int, StoreValueError beyond 64 bits."""
    if not isinstance(by, int) or isinstance(by, bool):
        raise TypeError(f"by must be an int, not {type(by).__name__}")
    if not _INT64_MIN <= by <= _INT64_MAX:
        raise StoreValueError("by must fit in 64 bits")
    return by


def next_counter(value: bytes | None, by: int) -> int:
    """Return what a counter holds after a step from ``value``, where None counts as 0.

    Raises StoreValueError if the value is not a canonical signed 64-bit decimal in ASCII, or if the sum is none.
    """
    before = b"0" if value is None else value
    if _INTEGER.match(before) is None or not _INT64_MIN <= int(before) <= _INT64_MAX:
        raise StoreValueError("the value is not a signed 64-bit decimal integer")
    after = int(before) + by
    if not _INT64_MIN <= after <= _INT64_MAX:
        raise StoreValueError("the counter would leave the range of signed 64-bit integers")
    return after
