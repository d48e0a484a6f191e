"""Bytes to replies: the reader in Python gives what hiredis gives, however the bytes arrive."""

from __future__ import annotations

import random
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.stores.resp.errors import ProtocolError, ReplyError
from storeconf.stores.resp.protocol import MORE, Push, PythonReader, make_reader, pack, unpack

TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.encode)
REPLIES = st.recursive(
    st.one_of(
        st.binary(max_size=300).map(lambda b: b"$%d\r\n%b\r\n" % (len(b), b)),
        TEXTS.map(lambda t: b"+%b\r\n" % t),
        TEXTS.map(lambda t: b"-ERR %b\r\n" % t),
        st.integers(-(1 << 63), (1 << 63) - 1).map(lambda n: b":%d\r\n" % n),
        st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b"=7\r\ntxt:abc\r\n"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(lambda items: b"*%d\r\n%b" % (len(items), b"".join(items))),
        st.lists(st.tuples(TEXTS, inner), max_size=3, unique_by=lambda pair: pair[0]).map(
            lambda pairs: b"%%%d\r\n%b" % (len(pairs), b"".join(b"+%b\r\n%b" % pair for pair in pairs))
        ),
    ),
    max_leaves=12,
)


def read_all(reader: Any, pieces: list[bytes]) -> list[Any]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.gets()) is not MORE:
            found.append(reply)
    return found


def comparable(reply: Any) -> Any:
    if isinstance(reply, ReplyError):
        return ("error", str(reply))
    if isinstance(reply, list):
        return [comparable(item) for item in reply]
    if isinstance(reply, dict):
        return {comparable(key): comparable(value) for key, value in reply.items()}
    return reply


@settings(max_examples=300)
@given(st.lists(REPLIES, min_size=1, max_size=5), st.integers(0, 1 << 32))
def test_both_readers_read_alike(replies: list[bytes], seed: int) -> None:
    data = b"".join(replies)
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    ours = read_all(PythonReader(), pieces)
    theirs = read_all(make_reader(), pieces)
    assert comparable(ours) == comparable(theirs)
    assert len(ours) == len(replies)


def test_byte_by_byte() -> None:
    data = b"*2\r\n$5\r\nhello\r\n*1\r\n:7\r\n$0\r\n\r\n"
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert read_all(PythonReader(), pieces) == [[b"hello", [7]], b""]


def test_pushes_are_told_from_replies() -> None:
    data = b">2\r\n+invalidate\r\n_\r\n*2\r\n+invalidate\r\n_\r\n"
    push, reply = read_all(PythonReader(), [data])
    assert (type(push), type(reply)) == (Push, list)
    push, reply = read_all(make_reader(), [data])
    assert (type(push), type(reply)) == (hiredis.PushNotification, list)


@pytest.mark.parametrize("data", [b"HTTP/1.1\r\n", b"$abc\r\n", b"*x\r\n", b":1x\r\n", b"$3\r\nabcde\r\n", b"\x00\r\n"])
def test_what_is_no_resp(data: bytes) -> None:
    reader = PythonReader()
    reader.feed(data)
    with pytest.raises(ProtocolError):
        reader.gets()


def test_a_long_reply_in_many_pieces_is_joined_once() -> None:
    piece = b"x" * 65536
    reader = PythonReader()
    reader.feed(b"$%d\r\n" % (len(piece) * 800))
    for _ in range(800):
        assert reader.gets() is MORE
        reader.feed(piece)
    reader.feed(b"\r\n+next\r\n")
    assert len(reader.gets()) == len(piece) * 800
    assert reader.gets() == b"next"
    assert reader.gets() is MORE


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=10))
def test_what_is_packed_can_be_unpacked(words: list[bytes]) -> None:
    assert unpack(pack(*words)) == words
