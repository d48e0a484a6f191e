"""A lock for critical sections of a microsecond. Imports nothing of storeconf."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Latch"]


class Latch(deque[None]):
    """A lock that costs 50 ns where `threading.Lock` costs 120, so that being thread-safe does not show in a write.

    It holds one token: ``pop`` takes the latch and ``append(None)`` gives it back, both one atomic step in C. Where
    speed matters these are called directly, with ``wait`` for the rare IndexError that says another thread has it;
    everywhere else ``with latch:`` does the same.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((None,))

    def wait(self) -> None:
        """Take the latch from a thread that was interrupted while it had it, letting that thread run on."""
        while True:
            try:
                return self.pop()
            except IndexError:
                time.sleep(0)

    def __enter__(self) -> None:
        try:
            self.pop()
        except IndexError:
            self.wait()

    def __exit__(self, *error: object) -> None:
        self.append(None)
