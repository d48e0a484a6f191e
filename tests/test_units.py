"""Durations and sizes: what is accepted, what is refused with which words, and that shown texts read back."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeconf._arguments import format_duration, format_size, parse_duration, parse_size


class Marked(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (90, 90),
        (1.5, 1.5),
        (timedelta(days=14), 14 * 86_400),
        ("90", 90),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("14d", 14 * 86_400),
        ("2w", 14 * 86_400),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        (" 90s\n", 90),
        ("PT15M", 900),
        ("P14D", 14 * 86_400),
        ("P2W", 14 * 86_400),
        ("P1DT2H", 26 * 3600),
        ("PT1.5S", 1.5),
        (Marked("1h"), 3600),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


def test_a_positive_duration_never_becomes_zero() -> None:
    assert parse_duration(1e-300) == timedelta(microseconds=1)
    assert parse_duration("0.0000001ms") == timedelta(microseconds=1)


def test_a_duration_is_exact_in_decimal() -> None:
    assert parse_duration(0.1) == timedelta(milliseconds=100)
    assert parse_duration("0.000001") == timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "not a duration"),
        ("soon", "not a duration"),
        ("1h30", "not a duration"),
        ("30m1h", "not a duration"),
        ("1h1h", "not a duration"),
        ("1M", "not a duration"),
        ("P", "not a duration"),
        ("PT", "not a duration"),
        ("P1DT", "not a duration"),
        ("nan", "not a duration"),
        ("1_000", "not a duration"),
        ("\uff11s", "not a duration"),
        ("9" * 5000, "not a duration"),
        ("P1M", "length varies"),
        ("P1Y2D", "length varies"),
        (-1, "negative"),
        (-0.5, "negative"),
        ("-5s", "negative"),
        (timedelta(-1), "negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (10**400, "longer than"),
        (1e300, "longer than"),
        ("1e300", "longer than"),
        ("9" * 20 + "d", "longer than"),
        (True, "boolean"),
        (None, "null"),
        ([1], "list"),
        ({}, "mapping"),
    ],
)
def test_what_is_no_duration(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(value)


def test_the_message_says_what_is_accepted_and_shows_no_endless_text() -> None:
    with pytest.raises(ValueError, match=r"write seconds \(90\), units .* ISO 8601") as caught:
        parse_duration("x" * 5000)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (65_536, 65_536),
        (1e6, 1_000_000),
        ("65536", 65_536),
        ("5B", 5),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("64kib", 65_536),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("1.5GiB", 3 * 2**29),
        ("0.5B", 1),
        ("1PiB", 2**50),
        (Marked("1MB"), 1_000_000),
    ],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size
    assert type(parse_size(value)) is int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "not a size"),
        ("big", "not a size"),
        ("10Mbit", "not a size"),
        ("1.5", "not a size"),
        ("9" * 5000, "not a size"),
        ("10M", "10MB .* or 10MiB"),
        ("1k", "1kB .* or 1KiB"),
        (-1, "negative"),
        ("-1B", "negative"),
        (1.5, "whole number"),
        (float("nan"), "whole number"),
        (float("inf"), "whole number"),
        (2**63, "larger than"),
        (10**400, "larger than"),
        ("99999999PiB", "larger than"),
        (True, "boolean"),
        (None, "null"),
    ],
)
def test_what_is_no_size(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=1), "1h"),
        (timedelta(days=14), "14d"),
        (timedelta(hours=1, seconds=1), "1h1s"),
        (timedelta(days=1, microseconds=1), "1d0.000001s"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(microseconds=1), "0.001ms"),
        (timedelta(seconds=1.5), "1.5s"),
    ],
)
def test_durations_are_shown_short(value: timedelta, text: str) -> None:
    assert format_duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0B"), (1, "1B"), (1000, "1kB"), (1024, "1KiB"), (65_536, "64KiB"), (10**7, "10MB"), (3 * 2**29, "1536MiB")],
)
def test_sizes_are_shown_short(value: int, text: str) -> None:
    assert format_size(value) == text


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_shown_duration_reads_back(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@given(st.integers(0, 2**63 - 1) | st.integers(0, 2**13).map(lambda count: count * 2**50))
def test_a_shown_size_reads_back(value: int) -> None:
    size = min(value, 2**63 - 1)
    assert parse_size(format_size(size)) == size


@given(st.text("0123456789.wdhmsPTHMSkKBi eE-+", max_size=120) | st.floats() | st.integers() | st.text())
def test_anything_is_read_or_refused_with_value_error(value: object) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            parse(value)


@given(
    st.tuples(*[st.integers(0, 999)] * 6).filter(any),
)
def test_compound_durations_add_up(parts: tuple[int, ...]) -> None:
    units = ("w", "d", "h", "m", "s", "ms")
    text = "".join(f"{count}{unit}" for count, unit in zip(parts, units, strict=True) if count)
    weeks, days, hours, minutes, seconds, milliseconds = parts
    assert parse_duration(text) == timedelta(days, seconds, 0, milliseconds, minutes, hours, weeks)
