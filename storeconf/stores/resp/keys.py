"""How a namespace path and a key become a server's key, and which of a server's keys are ours."""

from __future__ import annotations

import re
from typing import Literal

from storeconf._arguments import OWN_NAMES, STALE

__all__ = ["KeyLayout", "Layout", "key_layout"]

Layout = Literal["storeconf", "litestar"]

MOST_JOINS = 8
"""Places at which a key of Litestar's may join two names, or not: each doubles the ways to read it."""

_SPECIAL = re.compile(rb"([*?\[\]\\^])")
_NAME = rb"[A-Za-z0-9][A-Za-z0-9_-]*"


def _literal(text: bytes) -> bytes:
    """The glob that matches exactly ``text``."""
    return _SPECIAL.sub(rb"\\\1", text)


class KeyLayout:
    """The names of the path joined by ``:``, then ``::``, then the key; without a path the key alone.

    Names hold no ``:``, so the first ``::`` ends the path.
    """

    joiner = b":"
    end = b"::"
    below = b":*"
    """What follows a path in the keys in and below it, as a glob."""

    rest: bytes = rb"(?::" + _NAME + rb")*(?::" + STALE.encode() + rb")?::"
    """What follows a path in the keys in and below it, exactly; not in storeconf's own namespaces that stay."""

    def prefix(self, path: tuple[str, ...]) -> bytes:
        """Return what stands in front of every key of that namespace."""
        return self.joiner.join(name.encode() for name in path) + self.end if path else b""

    def glob(self, path: tuple[str, ...], prefix: str) -> bytes:
        """Return the glob that matches the keys of exactly that namespace which begin with ``prefix``."""
        return _literal(self.prefix(path) + prefix.encode()) + b"*"

    def tree_glob(self, path: tuple[str, ...]) -> bytes:
        """Return a glob that matches at least the keys in and below that namespace."""
        return _literal(self.joiner.join(name.encode() for name in path)) + self.below

    def tree_prefix(self, path: tuple[str, ...]) -> bytes:
        """Return what the keys in and below that namespace begin with, and perhaps others."""
        return self.joiner.join(name.encode() for name in path) + self.joiner if path else b""

    def paths(self, head: bytes) -> list[tuple[str, ...]] | None:
        """Return the namespace paths that may stand before the end of the path in a server's key; None: too many."""
        return [tuple(head.decode("utf-8", "replace").split(":"))]

    def tree(self, path: tuple[str, ...]) -> re.Pattern[bytes]:
        """Return what the keys in and below that namespace, and no others, begin with."""
        return re.compile(re.escape(self.joiner.join(name.encode() for name in path)) + self.rest)

    def split(self, name: bytes, path: tuple[str, ...], end: int) -> tuple[tuple[str, ...], str]:
        """Return the names that follow ``path`` in a server's key, whose beginning up to ``end`` `tree` matches."""
        start = len(self.prefix(path)) - len(self.end)
        return tuple(name[start : end - len(self.end)].decode().split(":")[1:]), name[end:].decode()


class LitestarLayout(KeyLayout):
    """Litestar's: the names joined by ``_``, then ``:``. A name that holds ``_`` looks like two."""

    joiner = b"_"
    end = b":"
    below = b"[_:]*"
    # A name may hold "_-lock", so only looking back tells; not directly after the path, which may be such a namespace.
    rest: bytes = rb"(?:(?:_%(name)b)+(?:_%(stale)b)?(?<!_-lock)(?<!_-lease)|(?:_%(stale)b)?):" % {
        b"name": _NAME,
        b"stale": STALE.encode(),
    }

    def tree_prefix(self, path: tuple[str, ...]) -> bytes:
        """See `KeyLayout`; what follows is the end or another name."""
        return self.joiner.join(name.encode() for name in path)

    def paths(self, head: bytes) -> list[tuple[str, ...]] | None:
        """See `KeyLayout`; each ``_`` may join two names, or be part of one."""
        first, *others = head.decode("utf-8", "replace").split("_")
        if len(others) > MOST_JOINS:
            return None
        paths: list[tuple[str, ...]] = [(first,)]
        for other in others:
            paths = [path for p in paths for path in ((*p, other), (*p[:-1], f"{p[-1]}_{other}"))]
        return paths

    def split(self, name: bytes, path: tuple[str, ...], end: int) -> tuple[tuple[str, ...], str]:
        """See `KeyLayout`; what may be one name or several counts as one."""
        start = len(self.prefix(path)) - len(self.end)
        names = name[start : end - len(self.end)].decode()
        own = next((own for own in OWN_NAMES if names.endswith(f"_{own}")), "")
        above = names[1:].removesuffix(own).removesuffix("_")
        return tuple(filter(None, (above, own))), name[end:].decode()


_LAYOUTS: dict[str, KeyLayout] = {"storeconf": KeyLayout(), "litestar": LitestarLayout()}


def key_layout(name: Layout) -> KeyLayout:
    """Return the layout of that name, or raise ValueError."""
    if name not in _LAYOUTS:
        raise ValueError(f"unknown key layout {name!r}; known: {', '.join(_LAYOUTS)}")
    return _LAYOUTS[name]
