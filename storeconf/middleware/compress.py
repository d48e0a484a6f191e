"""``compress``: store large values smaller."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from storeconf.errors import PluginError
from storeconf.middleware.coded import CodedStore, NotCoded
from storeconf.plugin import BuildContext, Middleware, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.store import Store

__all__ = ["Compress"]

MAGIC = b"\x93SCc"
VERSION = 1
# After the magic and the version: how the rest is packed.
RAW, GZIP, ZSTD, LZ4 = range(4)
_CODES = {"gzip": GZIP, "zstd": ZSTD, "lz4": LZ4}

Codec = tuple["Callable[[bytes], bytes]", "Callable[[bytes], bytes]"]


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
    accept_plain: bool = Field(
        default=False,
        description="Read values that were stored before compression was switched on.",
        examples=[True],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that compresses."""
        return CompressStore(inner, self, context)


def _codec(code: int) -> Codec:
    """The pair of functions for a code; imports the library only now."""
    if code == GZIP:
        return (lambda data: zlib.compress(data, 6, 31)), _gunzip
    name = "zstandard" if code == ZSTD else "lz4.frame"
    try:
        if code == ZSTD:
            import zstandard

            packer, unpacker = zstandard.ZstdCompressor(), zstandard.ZstdDecompressor()
            return packer.compress, lambda data: unpacker.decompress(data)
        import lz4.frame

        return lz4.frame.compress, lz4.frame.decompress
    except ImportError as error:
        extra = "zstd" if code == ZSTD else "lz4"
        raise PluginError(f"this needs the package of {name}: pip install 'storeconf[{extra}]'") from error


def _gunzip(data: bytes) -> bytes:
    return zlib.decompress(data, 31)


class CompressStore(CodedStore):
    """Packs values of at least ``min_size`` bytes, if that makes them smaller."""

    def __init__(self, inner: Store, settings: Compress, context: BuildContext) -> None:
        self._min_size = settings.min_size
        self._code = _CODES[settings.algorithm]
        self._codecs: dict[int, Codec] = {self._code: _codec(self._code)}
        self._heads = {code: MAGIC + bytes((VERSION, code)) for code in (RAW, GZIP, ZSTD, LZ4)}
        super().__init__(inner, accept_plain=settings.accept_plain, logger=context.logger)

    def plain(self, data: bytes) -> bool:
        """Whether the data were stored without this middleware."""
        return not data.startswith(MAGIC)

    def encode(self, key: str, value: bytes) -> bytes:
        """Pack the value, or store it as it is where that is no longer."""
        if len(value) >= self._min_size:
            packed = self._codecs[self._code][0](value)
            if len(packed) < len(value):
                return self._heads[self._code] + packed
        return self._heads[RAW] + value

    def decode(self, key: str, data: bytes) -> bytes:
        """Unpack."""
        if self.plain(data):
            raise NotCoded("it was not stored by this middleware (accept_plain: true would read it)")
        if len(data) < 6 or data[4] != VERSION or data[5] not in self._heads:
            raise NotCoded("it is of a form that this version does not know")
        code, body = data[5], data[6:]
        if code == RAW:
            return body
        if code not in self._codecs:
            self._codecs[code] = _codec(code)
        try:
            return self._codecs[code][1](body)
        except Exception as error:
            # Each library has errors of its own for damaged data; what they share is that the data are damaged.
            raise NotCoded(f"it is damaged ({type(error).__name__})") from error
