"""Commands to bytes, and the scripts for what has no native command."""

from __future__ import annotations

from hashlib import sha1

__all__ = ["GET_AND_RENEW", "GET_WITH_EXPIRY", "INCREMENT", "PERSIST", "POP", "REPLACE", "Script", "pack", "unpack"]


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
    """A script on one key. It returns what it reads, never computes with it: Lua's numbers have 53 bits."""

    __slots__ = ("_alone", "hash", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip().encode()
        self.hash = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self._alone = b"*4\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n" % self.hash

    def by_hash(self, key: bytes, *arguments: bytes | int) -> bytes:
        """Return the call that servers understand which have seen the script."""
        if not arguments:
            return self._alone + b"$%d\r\n%b\r\n" % (len(key), key)
        return pack(b"EVALSHA", self.hash, 1, key, *arguments)

    def by_text(self, key: bytes, *arguments: bytes | int) -> bytes:
        """Return the call that every server understands, and learns the script from."""
        return pack(b"EVAL", self.text, 1, key, *arguments)


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
