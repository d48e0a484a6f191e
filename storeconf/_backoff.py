"""How long to wait before the next attempt: one formula, for every place that tries again."""

from __future__ import annotations

import random

__all__ = ["backoff"]

_MOST_DOUBLINGS = 64
"""After so many failures any pause has reached its cap. More doublings would overflow a float, at 1,024 failures."""


def backoff(failures: int, *, first: float, longest: float, jitter: float = 0.5) -> float:
    """Return the seconds to wait after ``failures`` earlier failures: ``first``, doubled for each, at most ``longest``.

    ``jitter`` is the share of the pause that is random, so that clients which failed together do not return together.
    """
    limit = min(longest, first * 2.0 ** min(failures, _MOST_DOUBLINGS))
    return limit * (1 - jitter * random.random())
