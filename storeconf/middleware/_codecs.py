"""How ``compress`` packs values: one codec for each algorithm.

Every store of a process shares them, so each may be used from several threads at once. Unpacking is bounded: a few KiB
can claim to be gigabytes, and nobody has to have those in memory to find out.

Imports nothing of storeconf but its errors.
"""

from __future__ import annotations

import threading
import zlib
from functools import cache
from typing import TYPE_CHECKING, Protocol

from storeconf.errors import PluginError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Codec", "TooLargeError", "gzip_codec", "lz4_codec", "zstd_codec"]


class TooLargeError(Exception):
    """The data unpack to more bytes than the caller allows."""


class Codec(Protocol):
    """One way to pack bytes. Threads may use it at once."""

    def pack(self, data: bytes) -> bytes:
        """Return the packed form."""
        ...

    def unpack(self, packed: bytes, limit: int) -> bytes:
        """Return the data; `TooLargeError` for more than ``limit`` bytes, any other exception for damaged data."""
        ...


class _Gzip:
    """RFC 1952, from the standard library."""

    def pack(self, data: bytes) -> bytes:
        return zlib.compress(data, 6, 31)

    def unpack(self, packed: bytes, limit: int) -> bytes:
        unpacker = zlib.decompressobj(31)
        data = unpacker.decompress(packed, limit + 1)
        if len(data) > limit:
            raise TooLargeError
        if not unpacker.eof:
            raise ValueError("the data end too early")
        return data


class _Lz4:
    """LZ4 frames. The functions of the library make a context for each call, so there is nothing to share."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def pack(self, data: bytes) -> bytes:
        return self._library.compress(data)  # type: ignore[no-any-return]  # the library has no types

    def unpack(self, packed: bytes, limit: int) -> bytes:
        # As much as is asked for is allocated, so that asking for what the frame announces is much faster.
        announced = self._library.get_frame_info(packed)["content_size"] or limit
        if announced > limit:
            raise TooLargeError
        unpacker = self._library.LZ4FrameDecompressor()
        data: bytes = unpacker.decompress(packed, max_length=announced + 1)
        if len(data) > announced:
            raise TooLargeError
        if not unpacker.eof:
            raise ValueError("the data end too early")
        return data


class _ZstdContexts(threading.local):
    """Compressor and decompressor: expensive to make, and not for two threads at once, so each has its own."""

    def __init__(self, library: Any) -> None:
        self.pack = library.ZstdCompressor().compress
        self.unpack = library.ZstdDecompressor().decompress


class _Zstd:
    """Zstandard."""

    def __init__(self, library: Any) -> None:
        self._announced_size = library.frame_content_size
        self._own = _ZstdContexts(library)

    def pack(self, data: bytes) -> bytes:
        return self._own.pack(data)  # type: ignore[no-any-return]  # the library has no types

    def unpack(self, packed: bytes, limit: int) -> bytes:
        size = self._announced_size(packed)
        if size > limit:
            raise TooLargeError
        # The library takes a bound only where the frame announces no size, and 0 for none.
        return self._own.unpack(packed) if size >= 0 else self._own.unpack(packed, max_output_size=limit or 1)  # type: ignore[no-any-return]  # as above


@cache
def gzip_codec() -> Codec:
    """The codec for gzip."""
    return _Gzip()


@cache
def lz4_codec() -> Codec:
    """The codec for LZ4; imports its library only now."""
    try:
        import lz4.frame
    except ImportError:
        raise PluginError("this needs the package of lz4.frame: pip install 'storeconf[lz4]'", code="SC702") from None
    return _Lz4(lz4.frame)


@cache
def zstd_codec() -> Codec:
    """The codec for Zstandard; imports its library only now."""
    try:
        import zstandard
    except ImportError:
        raise PluginError("this needs the package of zstandard: pip install 'storeconf[zstd]'", code="SC702") from None
    return _Zstd(zstandard)
