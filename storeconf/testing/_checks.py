"""Assertions that work under any runner, also with ``python -O``: they say what was promised and what came instead.

``__tracebackhide__`` keeps these functions themselves out of pytest's reports.
"""

from __future__ import annotations

import inspect
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

E = TypeVar("E", bound=BaseException)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxdict = _short.maxset = _short.maxlist = 12


def equal(actual: object, expected: object, promise: str) -> None:
    """Fail unless ``actual`` equals ``expected`` and is of the same type: 1 is not True, a bytearray not bytes."""
    __tracebackhide__ = True
    if type(actual) is not type(expected) or actual != expected:
        raise AssertionError(f"{promise}: expected {_short.repr(expected)}, got {_short.repr(actual)}")


def within(actual: object, low: float, high: float, promise: str) -> None:
    """Fail unless ``actual`` is a whole number from ``low`` to ``high``."""
    __tracebackhide__ = True
    if not isinstance(actual, int) or isinstance(actual, bool) or not low <= actual <= high:
        raise AssertionError(f"{promise}: expected an int from {low:g} to {high:g}, got {_short.repr(actual)}")


def holds(condition: object, promise: str) -> None:
    """Fail unless ``condition`` is true."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(f"{promise}: it does not")


def told(actual: object, expected: object, promise: str) -> None:
    """Fail unless ``actual`` equals ``expected``, or is None because the backend cannot tell."""
    __tracebackhide__ = True
    if actual is not None:
        equal(actual, expected, promise)


async def returns_none(call: Awaitable[object], promise: str) -> None:
    """Fail unless what is awaited is None."""
    __tracebackhide__ = True
    equal(await call, None, promise)


async def raises(expected: type[E], call: Callable[..., Any], *arguments: object, **named: object) -> E:
    """Call, await what comes back, and return the error; fail if it is another one or none."""
    __tracebackhide__ = True
    shown = [*map(_short.repr, arguments), *(f"{name}={_short.repr(value)}" for name, value in named.items())]
    text = f"{getattr(call, '__name__', 'the call')}({', '.join(shown)})"
    try:
        result = call(*arguments, **named)
        if inspect.isawaitable(result):
            result = await result
    except expected as error:
        return error
    except Exception as error:
        raise AssertionError(f"{text}: expected {expected.__name__}, got {error!r}") from error
    raise AssertionError(f"{text}: expected {expected.__name__}, got the result {_short.repr(result)}")
