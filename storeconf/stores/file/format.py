"""The contents and names of the files: version 1 of the on-disk format. Does no I/O.

docs/explanation/file-format.md describes the same for people; a change here is a new format version.
"""

from __future__ import annotations

import re
from binascii import hexlify
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple
from zlib import adler32, crc32

__all__ = [
    "COMMITTED",
    "COMMITTED_AT",
    "ENTRY_NAME",
    "FORMAT_FILE",
    "FORMAT_TEXT",
    "HEADER_SIZE",
    "LOCK_FILE",
    "NAMESPACE_NAME",
    "ONE_PAGE",
    "PENDING",
    "SPARE_DIRECTORY",
    "START_SIZE",
    "Header",
    "Record",
    "check_format",
    "entry_hash",
    "entry_name",
    "file_times",
    "key_prefix",
    "lock_number",
    "name_in",
    "namespace_name",
    "pack",
    "parse",
    "parse_committed",
    "parse_header",
    "parse_key",
]

FORMAT_FILE = b"storeconf.format"
FORMAT_TEXT = b"storeconf file store, format 1\n"
LOCK_FILE = b"storeconf.lock"
SPARE_DIRECTORY = b"storeconf.spare"
ENTRY_NAME = re.compile(r"[0-9a-f]{40}\.kv\Z")
NAMESPACE_NAME = re.compile(r"[0-9a-z_+-]+\.ns\Z")

MAGIC = b"\xabSC"
VERSION = 1
COMMITTED = b"C"
PENDING = b"P"
COMMITTED_AT = 3
"""Offset of the byte that tells whether the record is the key's own beyond doubt; the checksums leave it out."""

# Of values there are two checksums: the other one finds an error that one lets pass by chance. Magic, state and the
# header's checksum share the first eight bytes, aligned: a reader that looks on while a spare is overwritten sees all
# three of the old record or all three of the new one.
_START = Struct("<3scI")
_REST = Struct("<BBHIQQII")
_HEADER = Struct("<4sI4sIQQII")
HEADER_SIZE = _HEADER.size
START_SIZE = _START.size

_COMMITTED_START = MAGIC + COMMITTED
_PENDING_START = MAGIC + PENDING
_FIXED = bytes((VERSION, HEADER_SIZE, 0, 0))

ONE_PAGE = 4096
"""Bytes of the largest record of which both checksums of the value are looked at.

A file is overwritten page after page. So in a larger one the first bytes change before the rest does: a reader that
finds them the same after reading has not read while it was overwritten, and the slower checksum is not needed for
that."""

_LONGEST_NAME = 200
_FAR_AHEAD = 2**31 * 1_000_000_000
_FORMAT = re.compile(rb"storeconf file store, format (\d+)\n")


class Header(NamedTuple):
    """The header of a record that is whole as far as the header and the key go."""

    committed: bool
    expiry: int  # the milliseconds since the epoch at which it has expired; 0 for never
    key: bytes


class Record(NamedTuple):
    """One entry as stored in its file; ``expiry`` as in the header."""

    value: bytes
    expiry: int
    committed: bool


def check_format(text: bytes) -> str | None:
    """Return the fault of the format file's text, or None."""
    if text == FORMAT_TEXT:
        return None
    found = _FORMAT.match(text)
    if found is None:
        return f"its {FORMAT_FILE.decode()} is not one of storeconf's"
    return f"it has format {found[1].decode()}, and this version of storeconf knows format 1 only"


def key_prefix(path: tuple[str, ...]) -> bytes:
    """Return the prefix of a namespace's keys: a name holds no colon, so the first two end the path."""
    return ":".join(path).encode() + b"::"


def entry_hash(prefix: bytes) -> blake2b:
    """Return the hash that names entries, for all keys with a prefix."""
    return blake2b(prefix, digest_size=20)


def entry_name(key: bytes) -> bytes:
    """Return the name of the file of a key with its prefix: distinct also where case is ignored."""
    return blake2b(key, digest_size=20).hexdigest().encode() + b".kv"


def name_in(hash_: blake2b, key: bytes) -> bytes:
    """Return the name of the file of a key, which comes after the prefix that is in the hash."""
    hash_ = hash_.copy()  # half as dear as a new one
    hash_.update(key)
    return hexlify(hash_.digest()) + b".kv"


def lock_number(name: bytes) -> int:
    """Return the number of the lock that guards an entry's file: a part of its hash."""
    return int(name[:14], 16)


def namespace_name(name: str) -> str:
    """Return the name of the directory of a namespace: distinct also where case is ignored.

    An upper-case letter becomes ``+`` and the lower-case one; a name that is too long is cut and marked by a hash.
    """
    plain = name if name.islower() else re.sub("[A-Z]", lambda letter: "+" + letter[0].lower(), name)
    if len(plain) > _LONGEST_NAME:
        plain = f"{plain[:150]}++{blake2b(name.encode(), digest_size=20).hexdigest()}"
    return plain + ".ns"


def file_times(expiry: int, clock: int) -> tuple[int, int]:
    """Return the access and modification times, in nanoseconds, of an entry's file that is written at ``clock``.

    The modification time is the expiry, as a hint to sweepers; for a permanent entry, and at most, it is 2**31 seconds
    after the clock. The access time is later still, so that reading need not update it (relatime).
    """
    hint = clock + _FAR_AHEAD
    if expiry:
        hint = min(hint, expiry * 1_000_000)
    return hint + 1_000_000_000, hint


def pack(key: bytes, value: bytes, expiry: int, state: bytes) -> bytes:
    """Return a record but for its value: the header and the key."""
    rest = _REST.pack(VERSION, HEADER_SIZE, 0, len(key), expiry, len(value), crc32(value), adler32(value)) + key
    return _START.pack(MAGIC, state, crc32(rest)) + rest


def _unpack(data: bytes, size: int) -> tuple[bool, int, int, int, int, int] | None:
    """Return whether it is committed, end of the key, expiry, size of the value and its checksums; None if damaged."""
    if len(data) < HEADER_SIZE:
        return None
    start, checksum, fixed, key_size, expiry, value_size, crc, adler = _HEADER.unpack_from(data)
    end = HEADER_SIZE + key_size
    if (
        (start != _COMMITTED_START and start != _PENDING_START)
        or fixed != _FIXED
        or len(data) < end
        or size < end + value_size
        or crc32(data[8:end]) != checksum
    ):
        return None
    return start == _COMMITTED_START, end, expiry, value_size, crc, adler


def _fits(value: bytes, end: int, crc: int, adler: int) -> bool:
    return crc32(value) == crc and (end + len(value) > ONE_PAGE or adler32(value) == adler)


def parse_header(data: bytes, size: int) -> Header | None:
    """Return the header that ``data``, the beginning of a file of ``size`` bytes, holds, or None if it is damaged.

    ``data`` may end before the key does; then the header is not whole, which also gives None. A value that ``data``
    holds as a whole is checked too.
    """
    found = _unpack(data, size)
    if found is None:
        return None
    committed, end, expiry, value_size, crc, adler = found
    if value_size and len(data) >= end + value_size and not _fits(data[end : end + value_size], end, crc, adler):
        return None
    return Header(committed, expiry, data[HEADER_SIZE:end])


def parse(data: bytes, key: bytes) -> Record | None:
    """Return the record that a file's whole content holds, or None if it is damaged or another key's.

    Where it is larger than `ONE_PAGE`, the file's first bytes have to be the same before and after ``data`` was read.
    """
    found = _unpack(data, len(data))
    if found is None:
        return None
    committed, end, expiry, value_size, crc, adler = found
    value = data[end : end + value_size]
    if data[HEADER_SIZE:end] != key or not _fits(value, end, crc, adler):
        return None
    return Record(value, expiry, committed)


def parse_key(data: bytes, size: int) -> tuple[bytes, int] | None:
    """Return key and expiry as `parse_header` does, of the beginning of a file; None also if it is not committed.

    For loops over many files, with nothing in it but that.
    """
    if len(data) < HEADER_SIZE:
        return None
    start, checksum, fixed, key_size, expiry, value_size, crc, adler = _HEADER.unpack_from(data)
    end = HEADER_SIZE + key_size
    last = end + value_size
    if start != _COMMITTED_START or fixed != _FIXED or last > size or end > len(data) or crc32(data[8:end]) != checksum:
        return None
    if last <= len(data):
        value = data[end:last]
        if crc32(value) != crc or (last <= ONE_PAGE and adler32(value) != adler):
            return None
    return data[HEADER_SIZE:end], expiry


def parse_committed(buffer: bytearray, view: memoryview, size: int, key: bytes) -> tuple[bytes, int] | None:
    """Return value and expiry as `parse` does, of a record of ``size`` bytes in a buffer; None also if not committed.

    For event loops: it copies nothing but the value.
    """
    start, checksum, fixed, key_size, expiry, value_size, crc, adler = _HEADER.unpack_from(buffer)
    end = HEADER_SIZE + key_size
    last = end + value_size
    if (
        start != _COMMITTED_START
        or fixed != _FIXED
        or key_size != len(key)
        or last > size
        or not buffer.startswith(key, HEADER_SIZE)
        or crc32(view[8:end]) != checksum
    ):
        return None
    value = bytes(view[end:last])
    if crc32(value) != crc or (last <= ONE_PAGE and adler32(value) != adler):
        return None
    return value, expiry
