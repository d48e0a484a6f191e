"""What servers announce unasked: which keys have changed, so that near caches drop them at once.

A connection of its own is told of all keys below some prefixes, whoever changes them, also when they expire. Nothing
is lost without a sign: while there is no such connection, and when there is one again, everything near is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storeconf._backoff import backoff
from storeconf.stores.resp.errors import LinkError, LoginRefusedError, ReplyError, is_temporary, reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from storeconf._watch import Watch
    from storeconf.stores.resp.connect import Talk
    from storeconf.stores.resp.keys import KeyLayout

__all__ = ["Ear", "Listener"]

log = logging.getLogger("storeconf.stores")

HEARTBEAT = 2.0
"""Seconds of silence after which a server is asked whether it is still there."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two attempts to listen to a server that is gone: after the first failure, and at most."""

PAUSE_AFTER_REFUSAL = 60.0
"""Seconds after which a server is asked again that refused to announce anything."""

MOST_PREFIXES = 8
"""Prefixes asked for; where more namespaces are cached, all that the root holds is announced."""


class Ear:
    """Turns the announcements of the servers of one root into what its near caches drop."""

    def __init__(self, watch: Watch, layout: KeyLayout, root: tuple[str, ...]) -> None:
        self._watch = watch
        self._layout = layout
        self._root = root
        self._cached: frozenset[tuple[str, ...]] = frozenset()
        self._prefixes: tuple[bytes, ...] = ()

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """What the names of those keys begin with that anybody wants to hear of; none begins like another one."""
        cached = self._watch.cached
        if cached is not self._cached:
            found: list[bytes] = []
            for prefix in sorted(map(self._layout.tree_prefix, cached)):
                if not (found and prefix.startswith(found[-1])):
                    found.append(prefix)
            if len(found) > MOST_PREFIXES:
                found = [self._layout.tree_prefix(self._root)]
            self._prefixes, self._cached = tuple(found), cached
        return self._prefixes

    def hear(self, message: list[Any]) -> None:
        """Drop what a server says has changed."""
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
                self._watch.changed(path, keys)

    def _read(self, names: list[bytes]) -> Iterator[tuple[list[tuple[str, ...]] | None, list[str]]]:
        """Yield what namespaces a server's keys may be of, and the keys. What is none of ours matches nothing near."""
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
        self._watch.all_changed()


class Listener:
    """Listens to one server, or to whichever is the primary now, until it is told to stop. Times are in seconds."""

    def __init__(self, ear: Ear, talk: Callable[[], Awaitable[Talk]], *, label: str, timeout: float) -> None:
        self._ear = ear
        self._talk = talk
        self._label = label
        self._timeout = timeout
        self._connection: Talk | None = None
        self._asked: tuple[bytes, ...] = ()
        self._seen: tuple[bytes, ...] | None = None
        self._told_of_refusal = False
        self._task = asyncio.get_running_loop().create_task(self._work())

    def see_to_it(self) -> None:
        """Listen anew if there is more to hear of than was asked for, or if somebody has cancelled the task."""
        if self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())
        wanted = self._ear.prefixes
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
                "%s does not announce what changes, so near caches see what others write only after max_age: %s",
                self._label,
                reason(error),
            )
        return PAUSE_AFTER_REFUSAL

    async def _listen(self) -> bool:
        """Listen as long as the connection lives; whether there was one. Raise `ReplyError` if the server refuses."""
        try:
            talk = self._connection = await self._talk()
        except Exception as error:  # a credential provider may raise anything, and the calls tell of it
            if isinstance(error.__cause__, ReplyError) and not isinstance(error, LoginRefusedError):
                raise error.__cause__ from error
            log.debug("nothing is announced by %s: %s", self._label, reason(error))
            return False
        heard = False
        try:
            self._asked = self._seen = self._ear.prefixes
            talk.hear(self._ear.hear)
            async with asyncio.timeout(self._timeout):
                await talk.ask("CLIENT", "TRACKING", "ON", "BCAST", *(w for p in self._asked for w in ("PREFIX", p)))
            self._ear.drop_all()  # others may have changed it before they were listened to
            heard = True
            log.info("%s announces what changes", self._label)
            while not await talk.is_gone(HEARTBEAT):
                # Any reply will do: a server that can't save answers with an error.
                async with asyncio.timeout(self._timeout):
                    with suppress(ReplyError):
                        await talk.ask("PING")
        except (OSError, LinkError) as error:
            log.debug("lost the announcements of %s: %s", self._label, reason(error))
        finally:
            self._connection = None
            talk.abort()
            if heard:
                self._ear.drop_all()
        return heard
