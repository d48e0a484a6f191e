"""When which key expires: found in the order of time without sorting, at a cost that does not grow with live keys.

Imports nothing of storeconf, and knows no store: what it keeps for a key is opaque to it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Deadlines"]

T = TypeVar("T")

_REMEMBERED = 1024
"""Spans whose lane is remembered: most applications use few."""


class _DeadlineLane(deque[Any]):
    """A queue of deadlines whose spans, when they were queued, differed by less than ``slack`` seconds.

    It holds (place, key, due) flat, three items each: a tuple per deadline would take three times the memory.
    """

    __slots__ = ("slack",)

    def __init__(self, slack: float) -> None:
        super().__init__()
        self.slack = slack


class Deadlines:
    """A queue of deadlines, cheaper than a heap.

    Deadlines of like span wait in one lane, first in, first out: what was queued later is due later, give or take the
    lane's slack, an eighth of the span. So a lane needs a look only when its head is due within the slack. The head
    is then taken out; whoever takes it and finds it still in the future queues it again, now in the lane of the time
    that is left. In all, a deadline moves once per eightfold of its span.

    A deadline can't be withdrawn: who takes one out knows by identity of the float whether it still stands. Not
    thread-safe.
    """

    __slots__ = ("_lane_of", "_lanes", "_rounds", "queued")

    def __init__(self) -> None:
        self.queued = 0
        self._lanes: dict[int, _DeadlineLane] = {}
        self._lane_of: dict[float, _DeadlineLane] = {}
        self._rounds = self._endless_rounds()

    def add(self, place: object, key: str, due: float, span: float) -> None:
        """Queue a deadline that is ``span`` seconds away."""
        lane = self._lane_of.get(span)
        if lane is None:
            lane = self._lane(span)
            if len(self._lane_of) >= _REMEMBERED:
                self._lane_of.clear()
            self._lane_of[span] = lane
        lane.extend((place, key, due))
        self.queued += 1

    def again(self, place: object, key: str, due: float, span: float) -> None:
        """Queue a deadline that was taken out; ``span`` seconds are left, a number that nobody will see twice."""
        self._lane(span).extend((place, key, due))
        self.queued += 1

    def due(self, now: float) -> Iterator[tuple[Any, str, float]]:
        """Take out, one by one, all that is due or must be queued again because it soon is."""
        for floor, lane in tuple(self._lanes.items()):
            horizon = now + lane.slack
            while lane and lane[2] <= horizon:
                yield self._take(lane)
            if not lane:
                del self._lanes[floor]
                self._lane_of.clear()

    def any(self) -> tuple[Any, str, float]:
        """Take out some deadline; going on so comes by all that were queued. There must be one."""
        return self._take(next(self._rounds))

    def _take(self, lane: _DeadlineLane) -> tuple[Any, str, float]:
        self.queued -= 1
        return lane.popleft(), lane.popleft(), lane.popleft()

    def _lane(self, span: float) -> _DeadlineLane:
        milliseconds = int(span * 1000)
        shift = max(0, milliseconds.bit_length() - 4)
        floor = milliseconds >> shift << shift
        lane = self._lanes.get(floor)
        if lane is None:
            lane = self._lanes[floor] = _DeadlineLane((1 << shift) / 1000 if shift else 0.0)
        return lane

    def _endless_rounds(self) -> Iterator[_DeadlineLane]:
        while True:
            for lane in tuple(self._lanes.values()):
                for _ in range(len(lane) // 3):
                    if not lane:
                        break
                    yield lane
