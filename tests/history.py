"""A checker of histories: could what several processes saw of one key have happened in some order, one after another?

Each call takes effect at one moment between its beginning and its end. The checker follows time and keeps every state
in which the key may be, with the calls in progress that have taken effect in it already (Lowe's just-in-time
linearization). A call whose end is not known, because its process died, may take effect at any later moment, or never.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = "unknown"
"""The result of a call that never ended."""


class Call(NamedTuple):
    """A call on a key, with its moments on the clock that all processes share, and its result."""

    begin: float
    end: float
    key: str
    operation: str
    arguments: tuple[Any, ...]
    result: Any


def unfinished(begin: float, key: str, operation: str, arguments: tuple[Any, ...]) -> Call:
    """Return a call of a process that died within it."""
    return Call(begin, math.inf, key, operation, arguments, UNKNOWN)


def effect(state: str | None, operation: str, arguments: tuple[Any, ...]) -> tuple[str | None, Any]:
    """What a call does to the value of a key, and its result."""
    if operation == "get":
        return state, state
    if operation == "set":
        return arguments[0], None
    if operation == "delete":
        return None, state is not None
    if operation == "pop":
        return None, state
    if operation == "add":
        return (arguments[0], True) if state is None else (state, False)
    if operation == "increment":
        number = int(state or 0) + 1
        return str(number), number
    if operation == "compare_and_set":
        before, after = arguments
        return (after, True) if state == before else (state, False)
    raise AssertionError(operation)


def violation(calls: Iterable[Call]) -> str | None:
    """Describe the first call on one key that no order explains; None if there is an order."""
    events: list[tuple[float, int, int]] = []
    known = list(calls)
    for number, call in enumerate(known):
        events.append((call.begin, 0, number))
        if call.end != math.inf:
            events.append((call.end, 1, number))
    open_calls: set[int] = set()
    states: set[tuple[str | None, frozenset[int]]] = {(None, frozenset())}
    for _, ends, number in sorted(events):
        if not ends:
            open_calls.add(number)
            continue
        reached = _with_effect_of(number, states, open_calls, known)
        if not reached:
            seen = sorted({str(state) for state, _ in states})
            return f"{known[number]}, although the value was one of {seen}; in progress: " + "; ".join(
                str(known[each]) for each in sorted(open_calls - {number})
            )
        open_calls.discard(number)
        states = {(state, done - {number}) for state, done in reached}
    return None


def _with_effect_of(
    number: int, states: set[tuple[str | None, frozenset[int]]], open_calls: set[int], known: list[Call]
) -> set[tuple[str | None, frozenset[int]]]:
    """The states in which a call has taken effect, after those that others in progress may bring about before it."""
    reached: set[tuple[str | None, frozenset[int]]] = set()
    seen = set(states)
    waiting = list(states)
    while waiting:
        state, done = waiting.pop()
        if number in done:
            reached.add((state, done))
            continue
        for each in open_calls - done:
            call = known[each]
            after, result = effect(state, call.operation, call.arguments)
            if call.result in (result, UNKNOWN) and type(call.result) in (type(result), str):
                found = (after, done | {each})
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return reached


def violations(calls: Iterable[Call]) -> list[str]:
    """Describe what no order explains, at most once for each key."""
    by_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_key[call.key].append(call)
    return [found for each in by_key.values() if (found := violation(each)) is not None]
