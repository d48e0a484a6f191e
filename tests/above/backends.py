"""The four backends as layouts write them, for tests of what is built above stores."""

from __future__ import annotations

import asyncio
import functools
import uuid
from typing import TYPE_CHECKING, Any, ParamSpec

import storeconf
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

P = ParamSpec("P")

BACKENDS = ("memory", "file", "redis", "valkey")
SHARED = BACKENDS[1:]
"""Those that several processes share."""

KEY = "4f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b5826"


def root(backend: str, directory: Path) -> dict[str, Any]:
    """A new root of that kind."""
    if backend == "file":
        return {"type": "file", "path": str(directory / "data")}
    if backend == "memory":
        return {"type": "memory"}
    url = shared("redis-8.2").url if backend == "redis" else shared().url
    return {"type": backend, "url": url, "namespace": f"t{uuid.uuid4().hex}"}


def layout(backend: str, directory: Path, **middleware: Any) -> dict[str, Any]:
    """A layout whose store ``s`` is a new root of that kind with this middleware."""
    return {"stores": {"s": root(backend, directory) | {"middleware": middleware}, "other": {"type": "memory"}}}


def load(settings: dict[str, Any]) -> storeconf.StoreRegistry:
    """The registry of a layout, whatever variables are set."""
    return storeconf.load(settings, environ={})


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in an event loop of its own, for 30 seconds at most."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run
