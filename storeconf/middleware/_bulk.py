"""Reading many keys one by one, and keeping what was found if the backend fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from storeconf._lifecycle import require_asyncio
from storeconf.errors import StoreTimeoutError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["read_each"]

_AT_ONCE = 250
"""Keys that are read at once where each is read by a call of its own."""


async def read_each(
    keys: Sequence[str],
    read: Callable[[str], Awaitable[bytes | None]],
    read_many: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]],
) -> dict[str, bytes]:
    """Return the values that ``read`` finds for these keys, each of which occurs once.

    If the backend is unavailable for some of them, its error carries the values of the others as ``partial``. Keys that
    were not asked for by then are read by ``read_many``, so that no further one waits for the backend.
    """
    require_asyncio()
    found: dict[str, bytes] = {}
    unavailable: StoreUnavailableError | StoreTimeoutError | None = None
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for key, result in zip(some, await asyncio.gather(*map(read, some), return_exceptions=True), strict=True):
            if isinstance(result, StoreUnavailableError | StoreTimeoutError):
                unavailable = unavailable or result
            elif isinstance(result, BaseException):
                raise result
            elif result is not None:
                found[key] = result
        if unavailable is not None:
            rest = keys[start + _AT_ONCE :]
            try:
                found |= await read_many(rest) if rest else {}
            except (StoreUnavailableError, StoreTimeoutError) as error:
                found |= error.partial if isinstance(error.partial, dict) else {}
            unavailable.partial = found or None
            raise unavailable
    return found
