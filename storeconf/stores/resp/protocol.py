"""RESP 2 and 3: bytes to replies, by hiredis where it is installed; commands to bytes; and scripts."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha1
from importlib import import_module
from typing import Any, Protocol

from storeconf.stores.resp.errors import ProtocolError, ReplyError

hiredis: Any = None
with suppress(ImportError):
    hiredis = import_module("hiredis")

__all__ = [
    "ADD_NUMBERED",
    "GET_AND_RENEW",
    "GET_WITH_EXPIRY",
    "INCREMENT",
    "MORE",
    "PERSIST",
    "POP",
    "PUSH",
    "REPLACE",
    "Push",
    "PythonReader",
    "Reader",
    "Script",
    "make_reader",
    "pack",
    "unpack",
]

MORE: Any = object()
"""The value that `Reader.gets` returns when the bytes at hand end before the reply does."""


class Push(list[Any]):
    """A message of RESP 3 that answers no command."""


PUSH: tuple[type, ...] = (Push,)
if hiredis is not None:
    PUSH = (Push, hiredis.PushNotification)


class Reader(Protocol):
    """Turns bytes into replies."""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""

    def gets(self) -> Any:
        """Return the next reply, or `MORE`; raise `ProtocolError` for anything but RESP."""


def make_reader() -> Reader:
    """Return the fastest reader there is. libvalkey's can't be used: it does not distinguish pushes from replies."""
    if hiredis is None:
        return PythonReader()
    reader: Reader = hiredis.Reader(protocolError=ProtocolError, replyError=ReplyError, notEnoughData=MORE)
    return reader


class PythonReader:
    """A reader without compiled code."""

    __slots__ = ("_at", "_buffer", "_more", "_need")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        # A long reply arrives in many pieces; they are joined when it can be complete, not each time.
        self._more: list[bytes] = []
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        if self._need > 0:
            self._more.append(data)
            self._need -= len(data)
            return
        self._buffer = bytes(data) if self._at >= len(self._buffer) else self._buffer[self._at :] + data
        self._at = 0

    def gets(self) -> Any:
        """Return the next reply, or `MORE`; raise `ProtocolError` for anything but RESP."""
        if self._more:
            if self._need > 0:
                return MORE
            self._buffer = b"".join((self._buffer[self._at :], *self._more))
            self._at = 0
            self._more.clear()
        elif self._need > 0:
            return MORE
        self._need = 0
        try:
            value, end = self._parse(self._at)
        except (ValueError, UnicodeDecodeError) as error:
            raise ProtocolError("a reply is malformed") from error
        if end < 0:
            return MORE
        self._at = end
        return value

    def _parse(self, start: int) -> tuple[Any, int]:
        """Return the reply that begins at ``start`` and where it ends, or -1 when it is not all there."""
        buffer = self._buffer
        stop = buffer.find(b"\r\n", start)
        if stop < 0:
            return None, -1
        kind, head, after = buffer[start], buffer[start + 1 : stop], stop + 2
        if kind in b"$=!":
            return self._bulk(kind, int(head), after)
        if kind == 0x2B:  # +
            return head, after
        if kind == 0x3A or kind == 0x28:  # : (
            return int(head), after
        if kind == 0x2D:  # -
            return ReplyError(head.decode("utf-8", "replace")), after
        if kind in b"*~>":
            return self._array(kind, int(head), after)
        if kind in b"%|":
            pairs, after = self._items(2 * int(head), after)
            if after < 0:
                return None, -1
            if kind == 0x7C:  # an attribute: the reply itself follows
                return self._parse(after)
            return dict(zip(pairs[::2], pairs[1::2], strict=True)), after
        if kind == 0x5F:  # _
            return None, after
        if kind == 0x23:  # #
            return head == b"t", after
        if kind == 0x2C:  # ,
            return float(head), after
        raise ProtocolError("a reply begins with an unknown type byte")

    def _bulk(self, kind: int, size: int, after: int) -> tuple[Any, int]:
        if size < 0:
            return None, after
        end = after + size
        missing = end + 2 - len(self._buffer)
        if missing > 0:
            self._need = missing
            return None, -1
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("a reply's length is wrong")
        value = self._buffer[after:end]
        if kind == 0x3D:  # =, with three letters of format and a colon in front
            return value[4:], end + 2
        if kind == 0x21:  # !
            return ReplyError(value.decode("utf-8", "replace")), end + 2
        return value, end + 2

    def _array(self, kind: int, size: int, after: int) -> tuple[Any, int]:
        if size < 0:
            return None, after
        items, after = self._items(size, after)
        return (Push(items) if kind == 0x3E else items), after

    def _items(self, count: int, after: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        for _ in range(count):
            item, after = self._parse(after)
            if after < 0:
                return items, -1
            items.append(item)
        return items, after


def pack(*words: bytes | str | int) -> bytes:
    """Return a command as the server reads it."""
    parts = [word if word.__class__ is bytes else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def unpack(data: bytes) -> list[bytes]:
    """Return the words of a command that `pack` made."""
    words, at = [], data.index(b"\r\n") + 2
    while at < len(data):
        stop = data.index(b"\r\n", at)
        size = int(data[at + 1 : stop])
        words.append(data[stop + 2 : stop + 2 + size])
        at = stop + 4 + size
    return words


class Script:
    """A script on one key, or on several of one server, of which the others are the first arguments.

    It returns the values that it reads and never computes with them: Lua's numbers have 53 bits.
    """

    __slots__ = ("_keys", "alone", "hash", "text")

    def __init__(self, text: str, keys: int = 1) -> None:
        self._keys = keys
        self.text: bytes = text.strip().encode()
        self.hash: bytes = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self.alone: bytes = b"*4\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n" % self.hash
        """The bytes that `by_hash` puts before one key without arguments."""

    def by_hash(self, key: bytes, *arguments: bytes | int) -> bytes:
        """Return the call that servers understand which have seen the script."""
        if not arguments:
            return self.alone + b"$%d\r\n%b\r\n" % (len(key), key)
        return pack(b"EVALSHA", self.hash, self._keys, key, *arguments)

    def by_text(self, key: bytes, *arguments: bytes | int) -> bytes:
        """Return the call that every server understands, and learns the script from."""
        return pack(b"EVAL", self.text, self._keys, key, *arguments)


GET_AND_RENEW = Script("""
local value = redis.call('GET', KEYS[1])
if value and redis.call('PTTL', KEYS[1]) >= 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return value
""")
"""GETEX would give a permanent key an expiry. PEXPIRE with zero or less deletes."""

GET_WITH_EXPIRY = Script("""
local value = redis.call('GET', KEYS[1])
if value then
  return {value, redis.call('PTTL', KEYS[1])}
end
return false
""")

ADD_NUMBERED = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
redis.call('INCRBY', KEYS[2], 1)
local number = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1] .. number, 'PX', ARGV[2])
return number
""",
    keys=2,
)
"""SET NX of a value to which the next number of a counter is appended. INCRBY comes first: it may be refused."""

POP = Script("""
local value = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return value
""")
"""GETDEL for servers older than 6.2."""

PERSIST = Script("""
if redis.call('PERSIST', KEYS[1]) == 1 then
  return 1
end
return redis.call('EXISTS', KEYS[1])
""")
"""PERSIST tells a missing key and a permanent one by the same reply."""

INCREMENT = Script("""
local missing = redis.call('EXISTS', KEYS[1]) == 0
if missing and ARGV[3] == '1' then
  return ARGV[1]
end
redis.call('INCRBY', KEYS[1], ARGV[1])
if missing then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
""")
"""INCRBY with an expiry on creation; with ARGV[3] 1 that expiry is over already."""

REPLACE = Script("""
local value = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then
  if value then return 0 end
elseif value ~= ARGV[2] then
  return 0
end
if ARGV[3] == 'delete' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == 'keep' then
  redis.call('SET', KEYS[1], ARGV[4], 'KEEPTTL')
elseif ARGV[3] == 'expire' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
else
  redis.call('SET', KEYS[1], ARGV[4])
end
return 1
""")
