"""Damage: entries that are stored but can't be read, reported to whoever listens, else logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["Damage", "report"]


@dataclass(frozen=True, slots=True)
class Damage:
    """A stored entry that can't be read, and so counts as missing.

    ``store`` is the name of the store that found it, ``namespaces`` its path. Where the damage hides the key, ``key``
    is None. ``raw_key`` is what the backend calls the entry, a file's path for example, if that is known. ``removed``:
    the entry has been removed with the expired ones.
    """

    store: str
    namespaces: tuple[str, ...]
    reason: str
    key: str | None = None
    raw_key: str | None = None
    removed: bool = False

    def __str__(self) -> str:
        if self.removed:
            return f"{self.raw_key} was damaged and has been removed"
        if self.key is None:
            return f"{self.raw_key} is damaged and counts as missing"
        return f"store {self.store!r}: a value reads as missing: {self.reason}"


def report(damage: Damage, listener: Callable[[Damage], None] | None, logger: logging.Logger) -> None:
    """Hand a damaged entry to the listener of its root, or log it where there is none."""
    if listener is None:
        logger.warning("%s", damage)
    else:
        listener(damage)
