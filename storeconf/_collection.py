"""Pausing the cyclic garbage collector while many objects are created that all stay.

Reading a large layout creates tens of thousands of objects at once. The collector would traverse all of them, and the
objects of the whole application, several times in vain (docs/decisions/0009-pausing-the-garbage-collector.md has the
figures). Imports nothing of storeconf.
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["collection_paused"]

_lock = threading.Lock()
_pausing = 0
_resume = False


@contextmanager
def collection_paused(wanted: bool = True) -> Iterator[None]:
    """Pause the collector if ``wanted``; the last of those who pause it at one time resumes it, if it ran before."""
    global _pausing, _resume
    if not wanted:
        yield
        return
    with _lock:
        if not _pausing:
            _resume = gc.isenabled()
            gc.disable()
        _pausing += 1
    try:
        yield
    finally:
        with _lock:
            _pausing -= 1
            if not _pausing and _resume:
                gc.enable()
