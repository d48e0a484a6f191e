"""``compress``: store large values smaller, by one codec for each algorithm.

Every store of a process shares the codecs, so each may be used from several threads at once. Unpacking is bounded: a
few KiB can claim to be gigabytes, and nobody has to have those in memory to find out.
"""

from __future__ import annotations

import threading
import zlib
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from storeconf.errors import PluginError, StoreError, StoreValueError
from storeconf.middleware.coded import CodecStore, NotCoded
from storeconf.middleware.refusal import Limit
from storeconf.plugin import BuildContext, Middleware, Size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from storeconf.store import Store

__all__ = ["Codec", "Compress", "TooLargeError", "gzip_codec", "lz4_codec", "zstd_codec"]


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
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("the data end too early, or more follow")
        return data


class _Lz4:
    """LZ4 frames. The functions of the library make a context for each call, so there is nothing to share."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def pack(self, data: bytes) -> bytes:
        return self._library.compress(data)  # type: ignore[no-any-return]  # the library has no types

    def unpack(self, packed: bytes, limit: int) -> bytes:
        # As much as is asked for is allocated, so that asking for the size in the frame is much faster.
        announced = self._library.get_frame_info(packed)["content_size"] or limit
        if announced > limit:
            raise TooLargeError
        unpacker = self._library.LZ4FrameDecompressor()
        data: bytes = unpacker.decompress(packed, max_length=announced + 1)
        if len(data) > announced:
            raise TooLargeError
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("the data end too early, or more follow")
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
        if size == 0:  # the library looks no further, and nothing that is empty is packed
            raise ValueError("the frame is empty")
        # The library takes a bound only where the frame announces no size, and 0 for none.
        bound = 0 if size > 0 else limit or 1
        return self._own.unpack(packed, max_output_size=bound, allow_extra_data=False)  # type: ignore[no-any-return]  # as above


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


# ---------------------------------------------------------------- the middleware


MAGIC = b"\x93SCc"
VERSION = 1
# After the magic and the version: how the rest is packed.
RAW, GZIP, ZSTD, LZ4 = range(4)
_CODES = {"gzip": GZIP, "zstd": ZSTD, "lz4": LZ4}
_LOAD = {GZIP: gzip_codec, ZSTD: zstd_codec, LZ4: lz4_codec}
_PACKAGES = {"zstd": {"zstandard": "storeconf[zstd]"}, "lz4": {"lz4.frame": "storeconf[lz4]"}}
_HEADS = {code: MAGIC + bytes((VERSION, code)) for code in (RAW, GZIP, ZSTD, LZ4)}
_HEAD = len(MAGIC) + 2
_RAW_HEAD = _HEADS[RAW]


class Compress(Middleware):
    """Compress values above a size."""

    kind: ClassVar[str] = "compress"
    shorthand_field: ClassVar[str | None] = "algorithm"
    requires_bytes: ClassVar[bool] = True

    algorithm: Literal["zstd", "gzip", "lz4"] = Field(
        default="gzip",
        description="How values are packed; values packed otherwise stay readable. zstd and lz4 need the extra of "
        "that name.",
        examples=["zstd"],
    )
    min_size: Size = Field(default=1024, description="Smaller values are stored as they are.", examples=["1KiB"])
    max_size: Annotated[Size, Field(gt=0)] = Field(
        default=64 << 20,
        description="The greatest size of a value before it is packed: a larger one is refused, and one that would "
        "unpack to more counts as damaged. A smaller `value_size` of `limit` applies here too.",
        examples=["64MiB"],
    )
    accept_plain: bool = Field(
        default=False,
        description="Read values that were stored before compression was switched on.",
        examples=[True],
    )

    def required_packages(self) -> Mapping[str, str]:
        """The library of the algorithm; gzip comes with Python."""
        return dict(_PACKAGES.get(self.algorithm, ()))

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that compresses."""
        return CompressStore(inner, self, context)


class CompressStore(CodecStore):
    """Packs values of at least ``min_size`` bytes, if that makes them smaller."""

    _runs_without_loop: ClassVar[bool] = True

    def __init__(self, inner: Store, settings: Compress, context: BuildContext) -> None:
        self._min_size = settings.min_size
        self._largest = self.max_size = settings.max_size
        limit = context.chain.get("limit")
        if isinstance(limit, Limit) and limit.value_size is not None:
            self.max_size: Size = min(self.max_size, limit.value_size)
        self._code = _CODES[settings.algorithm]
        self._packer = _LOAD[self._code]()
        self._accept_plain = settings.accept_plain
        self._logger = context.logger
        super().__init__(inner)

    def on_bind(self) -> None:
        """Apply `limit` to the application's values alone: locks, leases and copies are not written through it."""
        super().on_bind()
        if any(name.startswith("-") for name in self.namespaces):
            self.max_size = self._largest

    def encode(self, key: str, value: bytes) -> bytes:
        """Pack the value, or store it as it is if that is not longer."""
        size = len(value)
        if size > self.max_size:
            raise StoreValueError(
                f"the value has {size} bytes; compress in store {self.name!r} takes {self.max_size}", store=self.name
            )
        if size >= self._min_size:
            packed = self._packer.pack(value)
            if len(packed) < size:
                return _HEADS[self._code] + packed
        return _RAW_HEAD + value

    def decode(self, key: str, value: bytes) -> bytes:
        """Unpack, but never more than ``max_size`` bytes."""
        if value[:_HEAD] == _RAW_HEAD and len(value) - _HEAD <= self.max_size:
            return value[_HEAD:]
        if not value.startswith(MAGIC):
            if self._accept_plain:
                return value
            raise NotCoded("it was not stored by this middleware (accept_plain: true would read it)")
        if len(value) < _HEAD or value[4] != VERSION or value[5] not in _HEADS:
            raise NotCoded("it has a format that this version does not know")
        code = value[5]
        if code == RAW:
            raise NotCoded(f"it has more than {self.max_size} bytes")
        try:
            return _LOAD[code]().unpack(value[_HEAD:], self.max_size)
        except PluginError as error:
            raise StoreError(f"store {self.name!r}: a value can't be unpacked: {error}", store=self.name) from error
        except TooLargeError as error:
            raise NotCoded(f"it unpacks to more than {self.max_size} bytes") from error
        except Exception as error:
            # Each library has errors of its own for damaged data; they all mean that the data are damaged.
            raise NotCoded(f"it is damaged ({type(error).__name__})") from error
