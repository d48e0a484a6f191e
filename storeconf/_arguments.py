"""Names, keys, values, spans of time and counters as every store takes them; durations and sizes as texts.

Imports nothing of storeconf but its errors.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING

from storeconf.errors import StoreValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Expiry",
    "LEASES",
    "LOCKS",
    "OWN_NAMES",
    "OwnName",
    "STALE",
    "Value",
    "check_name",
    "check_step",
    "format_duration",
    "format_size",
    "key_list",
    "key_text",
    "milliseconds",
    "next_counter",
    "parse_duration",
    "parse_share",
    "parse_size",
    "survives_delete_all",
    "value_bytes",
]

Expiry = int | float | timedelta
"""A span of time: seconds as int or float, or a timedelta."""

Value = str | bytes | bytearray | memoryview
"""The values that a store accepts; a str is stored as UTF-8. Any other bytes-like object (an array, say) is accepted
too, but only Python 3.12 has a type for that."""

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
        # The subtraction makes up for rounding errors of binary floats: 0.07 s are 70 ms, not 71.
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
    """Return the value of a counter after a step from ``value``, where None counts as 0.

    Raises StoreValueError unless the value and the sum are canonical signed 64-bit decimals in ASCII.
    """
    before = b"0" if value is None else value
    if _INTEGER.match(before) is None or not _INT64_MIN <= int(before) <= _INT64_MAX:
        raise StoreValueError("the value is not a signed 64-bit decimal integer")
    after = int(before) + by
    if not _INT64_MIN <= after <= _INT64_MAX:
        raise StoreValueError("the counter would leave the range of signed 64-bit integers")
    return after


# ---------------------------------------------------------------- durations and sizes, as people write them


_MICROSECOND = timedelta(microseconds=1)
_LONGEST = timedelta.max // _MICROSECOND
_LARGEST = 2**63 - 1
_MAX_TEXT = 100  # characters: more are no number that anyone means, and long integers are slow to convert

_N = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_TERMS = re.compile("".join(rf"(?: *{_N} *{unit})?" for unit in ("w", "d", "h", "m", "s", "ms")))
_ISO = re.compile(rf"P(?:{_N}W)?(?:{_N}D)?(?:T(?=[0-9.])(?:{_N}H)?(?:{_N}M)?(?:{_N}S)?)?")
_FACTORS = (604_800_000_000, 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000)

_SIZE = re.compile(rf"{_N} *([A-Za-z]+)")
_UNITS = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50,
}  # fmt: skip
_FOLDED = {name.lower(): factor for name, factor in _UNITS.items()}

_DURATIONS = "seconds (90), units from w, d, h, m, s, ms (90s, 1h30m, 14d, 500ms), or ISO 8601 (PT15M)"
_SHARES = "a percentage (20%) or a part of one (0.2)"
_SIZES = "bytes (65536), or a unit of B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB, PiB (64KiB, 10MB)"


def parse_duration(value: object) -> timedelta:
    """Turn a number of seconds, a text such as ``1h30m`` or ``PT15M``, or a timedelta into a timedelta.

    Fractions of a microsecond are rounded up, so that only zero becomes zero. Raises ValueError.
    """
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return _duration(value)
    if isinstance(value, timedelta):
        return _checked_duration(value // _MICROSECOND, str(value))
    raise ValueError(f"a duration can't be a {_kind(value)}; write {_DURATIONS}")


@lru_cache(maxsize=1024, typed=True)  # a layout says the same few over and over
def _duration(value: str | float) -> timedelta:
    if isinstance(value, str):
        shown = _shown(value)
        return _checked_duration(_duration_text(value.strip(), shown), shown)
    if isinstance(value, int):
        return _checked_duration(value * 1_000_000, _shown_integer(value))
    if not isfinite(value):
        raise ValueError(f"a duration must be finite; write {_DURATIONS}")
    shown = float.__repr__(value)
    return _checked_duration(-1 if value < 0 else _scaled(shown, 1_000_000), shown)


def _checked_duration(microseconds: int, shown: str) -> timedelta:
    if microseconds < 0:
        raise ValueError(f"a duration can't be negative: {shown}")
    if microseconds > _LONGEST:
        raise ValueError(f"a duration can't be longer than {timedelta.max.days} days: {shown}")
    return timedelta(microseconds=microseconds)


def _duration_text(text: str, shown: str) -> int:
    if text.startswith("-"):
        return -1
    if text and len(text) <= _MAX_TEXT:
        if _NUMBER.fullmatch(text):
            return _scaled(text, 1_000_000)
        if match := _TERMS.fullmatch(text):
            return sum(_scaled(n, factor) for n, factor in zip(match.groups(), _FACTORS, strict=True) if n)
        if (match := _ISO.fullmatch(text)) and match.lastindex:
            return sum(_scaled(n, factor) for n, factor in zip(match.groups(), _FACTORS, strict=False) if n)
        if re.match(r"P[0-9.]+[YM]", text):
            raise ValueError(f"{shown} has years or months, whose length varies; write days (30d, P30D)")
    raise ValueError(f"{shown} is not a duration; write {_DURATIONS}")


def parse_share(value: object) -> float:
    """Turn a number such as 0.2 or a text such as ``20%`` into a part of one. Raises ValueError."""
    if isinstance(value, str):
        shown = _shown(value)
        text = value.strip()
        number = text.removesuffix("%").rstrip()
        if len(text) <= _MAX_TEXT and _NUMBER.fullmatch(number) is not None:
            return float(number) / 100 if text.endswith("%") else float(number)
        raise ValueError(f"{shown} is not a share; write {_SHARES}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if isinstance(value, float) or value.bit_length() < _MAX_TEXT else math.inf
    raise ValueError(f"a share can't be a {_kind(value)}; write {_SHARES}")


def parse_size(value: object) -> int:
    """Turn a number of bytes or a text such as ``64KiB`` into a number of bytes; part of a byte counts as one.

    Raises ValueError.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        size = int(value)
        shown = _shown_integer(size)
    elif isinstance(value, str):
        shown = _shown(value)
        size = _size_text(value.strip(), shown)
    elif isinstance(value, float):
        raise ValueError(f"a size must be a whole number of bytes; write {_SIZES}")
    else:
        raise ValueError(f"a size can't be a {_kind(value)}; write {_SIZES}")
    if size < 0:
        raise ValueError(f"a size can't be negative: {shown}")
    if size > _LARGEST:
        raise ValueError(f"a size can't be larger than {_LARGEST} bytes: {shown}")
    return size


@lru_cache(maxsize=1024)
def _size_text(text: str, shown: str) -> int:
    if text.startswith("-"):
        return -1
    if text and len(text) <= _MAX_TEXT:
        if re.fullmatch(r"[0-9]+", text):
            return int(text)
        if match := _SIZE.fullmatch(text):
            number, unit = match.groups()
            factor = _FOLDED.get(unit.lower())
            if factor is not None:
                return _scaled(number, factor)
            letter = unit.upper()
            if letter in ("K", "M", "G", "T", "P"):
                decimal = "kB" if letter == "K" else f"{letter}B"
                raise ValueError(
                    f"{shown} may mean two sizes; write {number}{decimal} (powers of 1000) "
                    f"or {number}{letter}iB (powers of 1024)"
                )
    raise ValueError(f"{shown} is not a size; write {_SIZES}")


def format_duration(value: timedelta) -> str:
    """The shortest readable text that `parse_duration` turns back into ``value``, which is not negative."""
    microseconds = value // _MICROSECOND
    if 0 < microseconds < 1_000_000:
        return f"{_decimal(microseconds, 3)}ms"
    candidates = [f"{_decimal(microseconds, 6)}s"]
    terms, rest = [], microseconds
    for unit, factor in zip("dhm", _FACTORS[1:4], strict=True):
        count, rest = divmod(rest, factor)
        if count:
            terms.append(f"{count}{unit}")
        if microseconds and microseconds % factor == 0:
            candidates.append(f"{microseconds // factor}{unit}")
    if rest:
        terms.append(f"{_decimal(rest, 6)}s")
    if terms:
        candidates.append("".join(terms))
    return min(reversed(candidates), key=len)


def format_size(value: int) -> str:
    """The shortest text with a unit that `parse_size` turns back into ``value``, which is not negative."""
    candidates = [f"{value // factor}{unit}" for unit, factor in _UNITS.items() if value % factor == 0 and value]
    return min(candidates, key=len, default="0B")


def _scaled(number: str, factor: int) -> int:
    """``number`` times ``factor`` in exact arithmetic, rounded up."""
    mantissa, _, exponent = number.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or 0) - len(fraction)
    product = int(whole + fraction) * factor
    power: int = 10 ** abs(shift)
    return product * power if shift >= 0 else -(-product // power)


def _decimal(value: int, places: int) -> str:
    whole, fraction = divmod(value, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0").rstrip(".")


def _shown(text: str) -> str:
    text = str(text)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _shown_integer(value: int) -> str:
    return str(int(value)) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


def _kind(value: object) -> str:
    names = {bool: "boolean", list: "list", tuple: "list", dict: "mapping", type(None): "null"}
    return names.get(type(value), type(value).__name__)
