"""Pausing the cyclic garbage collector while many objects are made that all stay.

Reading a large layout makes tens of thousands of objects at once; the collector would look through all of them, and
through the whole application, several times for nothing: that is half of the time. Imports nothing of storeconf.
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
def collection_paused() -> Iterator[None]:
    """Pause the collector; the last of those who pause it at one time resumes it, if it ran before."""
    global _pausing, _resume
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
