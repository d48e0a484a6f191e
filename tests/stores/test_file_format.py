"""The on-disk format: what records and names are made of."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeconf import FileStore
from storeconf.stores.file.format import (
    COMMITTED,
    COMMITTED_AT,
    ENTRY_NAME,
    HEADER_SIZE,
    NAMESPACE_NAME,
    PENDING,
    check_format,
    entry_name,
    lock_number,
    namespace_name,
    pack,
    parse,
    parse_header,
)

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]*", fullmatch=True)
CASES = st.text(alphabet="aAbB_-", min_size=1, max_size=4).map(lambda rest: "n" + rest)


def test_the_first_format_stays_as_it_is() -> None:
    """What older releases have written must be read for ever: these bytes are the format."""
    written = pack(b"shop:cache::k", b"value", 1_700_000_000_123, COMMITTED) + b"value"
    assert (
        written.hex()
        == (
            "ab534343" + "445fdcd8"  # magic, state, CRC-32 of the rest of the header and the key
            "01" + "28" + "0000" + "0d000000"  # version, size of the header, reserved, size of the key
            "7b68e5cf8b010000" + "0500000000000000"  # expiry, size of the value
            "3458771d" + "1e026a06"  # CRC-32 and Adler-32 of the value
            "73686f703a63616368653a3a6b" + "76616c7565"
        )
    )
    assert entry_name(b"shop:cache::k") == b"ca4d17665db574f29dfd4b90f5cd7080acd6a223.kv"
    assert namespace_name("Shop_A-1") == "+shop_+a-1.ns"
    assert namespace_name("a" * 300) == "a" * 150 + "++c9c4a2f8df7d9546fad021510f72ee0ae1b15058.ns"
    assert check_format(b"storeconf file store, format 1\n") is None


@given(st.binary(max_size=40), st.binary(max_size=80), st.integers(0, 1 << 63), st.booleans())
def test_what_is_packed_is_parsed(key: bytes, value: bytes, expiry: int, committed: bool) -> None:
    data = pack(key, value, expiry, COMMITTED if committed else PENDING) + value
    assert parse(data, key) == (value, expiry, committed)
    assert parse_header(data[: HEADER_SIZE + len(key)], len(data)) == (committed, expiry, key)
    assert parse(data, key + b"x") is None


def test_no_damage_goes_unnoticed() -> None:
    key, value = b"::key", b"a value of some length"
    data = pack(key, value, 123, COMMITTED) + value
    for length in range(len(data)):
        assert parse(data[:length], key) is None
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            assert parse(bytes(damaged), key) is None, (place, bit)
    pending = data[:COMMITTED_AT] + PENDING + data[COMMITTED_AT + 1 :]
    assert parse(pending, key) == (value, 123, False)
    assert parse(data + b"what a longer record has left", key) == (value, 123, True)


@given(st.one_of(NAMES, CASES), st.one_of(NAMES, CASES))
def test_names_of_namespaces_differ_where_case_is_ignored(one: str, other: str) -> None:
    made = namespace_name(one)
    assert made == made.lower()
    assert NAMESPACE_NAME.match(made) is not None
    assert len(made) <= 255
    assert (made == namespace_name(other)) == (one == other)


@given(st.integers(100, 400), st.integers(100, 400), st.sampled_from("aA"), st.sampled_from("aA"))
def test_long_names_of_namespaces_differ(one: int, other: int, first: str, second: str) -> None:
    assert len(namespace_name(first * one)) <= 255
    assert (namespace_name(first * one) == namespace_name(second * other)) == ((first, one) == (second, other))


@given(st.binary(), st.binary())
def test_names_of_entries_differ_where_case_is_ignored(one: bytes, other: bytes) -> None:
    made = entry_name(one)
    assert ENTRY_NAME.match(made.decode()) is not None
    assert (made.lower() == entry_name(other).lower()) == (one == other)
    assert 0 <= lock_number(made) < 1 << 56


def test_formats_of_others_are_told() -> None:
    assert check_format(b"storeconf file store, format 2\n") == (
        "it has format 2, and this version of storeconf knows format 1 only"
    )
    for text in (b"", b"storeconf file store, format 1", b"\xff\xfe"):
        assert check_format(text) == "its storeconf.format is not one of storeconf's"


@pytest.mark.parametrize("fraction", [0, 1, 999_999], ids="{} ns into a millisecond".format)
def test_an_entry_lives_its_whole_span_and_not_a_millisecond_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: int
) -> None:
    begin = 1_800_000_000_000_000_000 + fraction
    wall = [begin]
    monkeypatch.setattr(time, "time_ns", lambda: wall[0])

    async def main() -> None:
        async with FileStore(tmp_path / "data", create_directories=True) as store:
            await store.set("k", b"v", expires_in=1)
            assert await store.expires_in("k") == 1
            wall[0] = begin + 1_000_000_000 - 1
            assert await store.get("k") == b"v"
            wall[0] = begin + 1_000_000_000 + (1_000_000 if fraction else 0)
            assert await store.get("k") is None
            assert await store.expires_in("k") is None

    asyncio.run(main())
