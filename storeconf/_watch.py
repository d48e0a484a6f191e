"""Watching the files of a layout, and reloading its registry when their content changes.

Contents are compared, not times: Kubernetes swaps symbolic links to directories, editors replace files, and a file that
is being written has several contents, of which only one that stays for two looks counts.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from storeconf._pace import OwnThread
from storeconf.config.document import look
from storeconf.registry import looks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import TypeAlias

    from storeconf.registry import StoreRegistry

    Contents: TypeAlias = dict[tuple[Path, bool], object]

__all__ = ["check_watch", "watch"]

_logger = logging.getLogger("storeconf")


def watch(registry: StoreRegistry, interval: float = 1, *, sighup: bool = False) -> AbstractAsyncContextManager[None]:
    """Reload the registry, while the context lasts, whenever a file of its layout has changed.

    Every ``interval`` seconds it compares the contents of all files that were read or looked for: extended files,
    overlays and secret files too. It reloads once two looks agree, and when it begins. With ``sighup`` it also reloads
    when the process receives SIGHUP, even if nothing has changed; that needs the main thread (else RuntimeError).

    A layout that can't be read, built or opened is logged as an error, once per content, and the one before stays.

    Raises TypeError for a registry that was made without a layout.
    """
    _check_layout(registry)
    if interval <= 0:
        raise ValueError(f"interval must be above zero, not {interval}")
    return _watching(registry, interval, sighup)


def check_watch(registry: StoreRegistry, *, watch: bool, sighup: bool) -> None:
    """Raise if an integration can't watch as it was asked to: TypeError without a layout, ValueError for SIGHUP."""
    if sighup and not watch:
        raise ValueError("sighup=True needs watch=True: without it nothing reloads the layout")
    if watch:
        _check_layout(registry)


def _check_layout(registry: StoreRegistry) -> None:
    if looks_of(registry) is None:
        raise TypeError("this registry was made without a layout, so there is nothing to watch")


@asynccontextmanager
async def _watching(registry: StoreRegistry, interval: float, sighup: bool) -> AsyncIterator[None]:
    asked = asyncio.Event()
    with _hangups(asked.set) if sighup else nullcontext():
        watcher = _Watcher(registry)
        await watcher.begin()
        task = asyncio.get_running_loop().create_task(watcher.run(interval, asked))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


class _Watcher:
    """Knows the contents for which the registry was reloaded last."""

    def __init__(self, registry: StoreRegistry) -> None:
        self._registry = registry
        self._known: Contents = {}
        self._looking = OwnThread(self._look, "storeconf-watch")

    def _look(self) -> Contents:
        return {(path, beside): look(path, beside=beside) for path, beside in self._known}

    async def begin(self) -> None:
        """Reload, as the files may have changed since they were read."""
        self._known = looks_of(self._registry) or {}
        await self.reload(await self._looking.run())

    async def run(self, interval: float, asked: asyncio.Event) -> None:
        """Look every ``interval`` seconds; ``asked`` is set if there is to be a reload at once."""
        seen: Contents = {}
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await asked.wait()
            now = await self._looking.run()
            if asked.is_set() or (now == seen and now != self._known):
                asked.clear()
                await self.reload(now)
            seen = now

    async def reload(self, now: Contents) -> None:
        """Reload; a failure is logged. ``now`` has the contents that the files had a moment before."""
        in_force = looks_of(self._registry) or {}
        try:
            result = await self._registry.reload()
        except Exception as error:  # noqa: BLE001  # also a plugin's; the layout before stays
            _logger.error(
                "the layout could not be reloaded, and the one before stays: %s", error
            )  # the error says it all
        else:
            changes = {"changed": result.changed, "added": result.added, "removed": result.removed}
            said = "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names)
            _logger.info("the layout was reloaded; %s", said or "no store has changed")
        # A file that a failed attempt did not reach may be the one that has to change: it counts as it was seen.
        tried = {place: content for place, content in (looks_of(self._registry) or {}).items() if content is not None}
        self._known = {place: now.get(place) for place in in_force} | tried


@contextmanager
def _hangups(asked: Callable[[], None]) -> Iterator[None]:
    """Call ``asked`` for each SIGHUP."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread receives signals: watch without sighup, or in the main thread")
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, asked)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)
