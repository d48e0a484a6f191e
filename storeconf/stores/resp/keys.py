"""How a namespace path and a key become a server's key, which of a server's keys are ours, and which have changed.

Servers report which keys have changed, so that near caches drop them at once (invalidation). A connection of its own
is notified of all keys below some prefixes, whichever client changes them, also when they expire. Nothing is lost
without a sign: everything near is dropped as soon as that connection is lost, and again when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal

from storeconf._arguments import OWN_NAMES, STALE
from storeconf._pace import backoff
from storeconf.stores.resp.errors import LoginRefusedError, ReplyError, TransportError, is_temporary, reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from storeconf._coherence import Coherence
    from storeconf.stores.resp.connect import RawConnection

__all__ = ["InvalidationFilter", "InvalidationListener", "KeyLayout", "Layout", "key_layout"]

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
    """A glob for the text that follows a path in the keys in and below it."""

    rest: bytes = rb"(?::" + _NAME + rb")*(?::" + STALE.encode() + rb")?::"
    """A pattern for exactly that text; it leaves out storeconf's own namespaces that stay."""

    def prefix(self, path: tuple[str, ...]) -> bytes:
        """Return the prefix of every key of that namespace."""
        return self.joiner.join(name.encode() for name in path) + self.end if path else b""

    def glob(self, path: tuple[str, ...], prefix: str) -> bytes:
        """Return the glob that matches the keys of exactly that namespace which begin with ``prefix``."""
        return _literal(self.prefix(path) + prefix.encode()) + b"*"

    def tree_glob(self, path: tuple[str, ...]) -> bytes:
        """Return a glob that matches at least the keys in and below that namespace."""
        return _literal(self.joiner.join(name.encode() for name in path)) + self.below

    def tree_prefix(self, path: tuple[str, ...]) -> bytes:
        """Return the beginning of the keys in and below that namespace, and perhaps of others."""
        return self.joiner.join(name.encode() for name in path) + self.joiner if path else b""

    def paths(self, head: bytes) -> list[tuple[str, ...]] | None:
        """Return the namespace paths that the text before ``end`` in a server's key may mean; None: too many."""
        return [tuple(head.decode("utf-8", "replace").split(":"))]

    def tree(self, path: tuple[str, ...]) -> re.Pattern[bytes]:
        """Return a pattern for the beginning of the keys in and below that namespace, and of no others."""
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
        """See `KeyLayout`; the end or another name follows."""
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
        """See `KeyLayout`; a text that may be one name or several counts as one."""
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


# ---------------------------------------------------------------- announced changes of keys


log: logging.Logger = logging.getLogger("storeconf.stores")

HEARTBEAT = 2.0
"""Seconds of silence after which a server is asked whether it is still there."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two attempts to listen to a server that is gone: after the first failure, and at most."""

PAUSE_AFTER_REFUSAL = 60.0
"""Seconds after which a server is asked again that refused to announce anything."""

MOST_PREFIXES = 8
"""Prefixes asked for; where more namespaces are cached, all that the root holds is announced."""


class InvalidationFilter:
    """Turns the reports of the servers of one root into the keys that its near caches drop."""

    def __init__(self, coherence: Coherence, layout: KeyLayout, root: tuple[str, ...]) -> None:
        self.coherence: Coherence = coherence
        self._layout = layout
        self._root = root
        self._cached: frozenset[tuple[str, ...]] = frozenset()
        self._prefixes: tuple[bytes, ...] = ()

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """The beginnings of the keys that near caches hold; none begins like another one."""
        cached = self.coherence.cached
        if cached is not self._cached:
            found: list[bytes] = []
            for prefix in sorted(map(self._layout.tree_prefix, cached)):
                if not (found and prefix.startswith(found[-1])):
                    found.append(prefix)
            if len(found) > MOST_PREFIXES:
                found = [self._layout.tree_prefix(self._root)]
            self._prefixes, self._cached = tuple(found), cached
        return self._prefixes

    def on_push(self, message: list[Any]) -> None:
        """Drop the entries that a server reports as changed."""
        if message[0] != b"invalidate":
            return
        names: list[bytes] | None = message[1]
        if names is None:  # the whole database was emptied
            self.drop_all()
            return
        for paths, keys in self._read(names):
            if paths is None:
                self.drop_all()
                return
            for path in paths:
                self.coherence.changed(path, keys)

    def _read(self, names: list[bytes]) -> Iterator[tuple[list[tuple[str, ...]] | None, list[str]]]:
        """Yield the possible namespaces of a server's keys, and the keys. Foreign keys match nothing near."""
        if not self._root:
            yield [()], [name.decode("utf-8", "replace") for name in names]
            return
        by_head: dict[bytes, list[str]] = {}
        for name in names:
            head, _, key = name.partition(self._layout.end)
            by_head.setdefault(head, []).append(key.decode("utf-8", "replace"))
        for head, keys in by_head.items():
            yield self._layout.paths(head), keys

    def drop_all(self) -> None:
        """Drop everything, for changes may have been missed."""
        self.coherence.all_changed()


class InvalidationListener:
    """Listens to one server, or to whichever is the primary now, until it is told to stop. Times are in seconds."""

    def __init__(
        self,
        invalidations: InvalidationFilter,
        connect: Callable[[], Awaitable[RawConnection]],
        *,
        label: str,
        timeout: float,
    ) -> None:
        self._invalidations = invalidations
        self._connect = connect
        self._label = label
        self._timeout = timeout
        self._connection: RawConnection | None = None
        self._asked: tuple[bytes, ...] = ()
        self._seen: tuple[bytes, ...] | None = None
        self._seen_cached: frozenset[tuple[str, ...]] | None = None
        self._told_of_refusal = False
        self._task = self._started()

    def _started(self) -> asyncio.Task[None]:
        """Begin to listen, without the variables of the caller who happened to come first."""
        return Context().run(asyncio.get_running_loop().create_task, self._work())

    def ensure_running(self) -> None:
        """Listen again if more keys are cached than were asked for, or if somebody has cancelled the task."""
        if self._task.done():
            self._task = self._started()
        cached = self._invalidations.coherence.known_cached
        if cached is not None and cached is self._seen_cached:
            return
        self._seen_cached = self._invalidations.coherence.cached  # first: another thread may add a cache meanwhile
        wanted = self._invalidations.prefixes
        if wanted is not self._seen:
            self._seen = wanted
            if not all(prefix.startswith(self._asked) for prefix in wanted):
                self.drop()

    def drop(self) -> None:
        """Give the connection up and make another one."""
        if self._connection is not None:
            self._connection.abort()

    def abort(self) -> None:
        """Stop listening, now."""
        self._task.cancel()
        self.drop()

    async def close(self) -> None:
        """Stop listening, and wait for that."""
        self.abort()
        await asyncio.wait([self._task])

    async def _work(self) -> None:
        failures = 0
        while True:
            try:
                if await self._listen():
                    failures = 0
                pause = backoff(failures, first=SHORTEST_PAUSE, longest=LONGEST_PAUSE)
            except ReplyError as error:
                pause = LONGEST_PAUSE if is_temporary(error) else self._refused(error)
            failures += 1
            await asyncio.sleep(pause)

    def _refused(self, error: ReplyError) -> float:
        if not self._told_of_refusal:
            self._told_of_refusal = True
            log.warning(
                "%s does not support client tracking; cached values may be stale for up to max_age: %s",
                self._label,
                reason(error),
            )
        return PAUSE_AFTER_REFUSAL

    async def _listen(self) -> bool:
        """Listen as long as the connection lives; whether there was one. Raise `ReplyError` if the server refuses."""
        try:
            raw = self._connection = await self._connect()
        except Exception as error:  # a credential provider may raise anything, and the calls tell of it
            if isinstance(error.__cause__, ReplyError) and not isinstance(error, LoginRefusedError):
                raise error.__cause__ from error
            log.debug("no tracking of changes at %s: %s", self._label, reason(error))
            return False
        tracking = False
        try:
            self._asked = self._seen = self._invalidations.prefixes
            raw.on_push(self._invalidations.on_push)
            async with asyncio.timeout(self._timeout):
                await raw.ask("CLIENT", "TRACKING", "ON", "BCAST", *(w for p in self._asked for w in ("PREFIX", p)))
            self._invalidations.drop_all()  # others may have changed it before they were listened to
            tracking = True
            log.info("tracking changes at %s", self._label)
            while not await raw.is_gone(HEARTBEAT):
                # Any reply will do: a server that can't save answers with an error.
                async with asyncio.timeout(self._timeout):
                    with suppress(ReplyError):
                        await raw.ask("PING")
        except (OSError, TransportError) as error:
            log.debug("lost the tracking of changes at %s: %s", self._label, reason(error))
        finally:
            self._connection = None
            raw.abort()
            if tracking:
                self._invalidations.drop_all()
        return tracking
