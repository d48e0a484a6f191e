"""A memory store that takes time to answer, and a near cache around it, for tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from storeconf import (
    BuildContext,
    MemoryStore,
    Store,
    StoreUnavailableError,
)
from storeconf.middleware.cache import Cache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine


class Far(MemoryStore):
    """A backend that counts the readings that reach it, and that can be held up before or after it does its work."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.held: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self.down = False

    def hold(self, step: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Hold up the next call at a step; return what is set when it is there, and what to set to let it go on."""
        self.held[step] = (asyncio.Event(), asyncio.Event())
        return self.held[step]

    async def pass_by(self, step: str) -> None:
        if step in self.held:
            there, go_on = self.held.pop(step)
            there.set()
            await go_on.wait()

    async def do_get_with_expiry(self, path: Any, key: str) -> Any:
        self.reads[key] += 1
        if self.down:
            raise StoreUnavailableError("the line is cut")
        await self.pass_by("before reading")
        found = await super().do_get_with_expiry(path, key)
        await self.pass_by("after reading")
        return found

    async def do_get(self, path: Any, key: str, renew: int | None) -> Any:
        self.reads[key] += 1
        return await super().do_get(path, key, renew)

    async def do_get_many(self, path: Any, keys: list[str]) -> dict[str, bytes]:
        self.reads.update(keys)
        return await super().do_get_many(path, keys)

    async def do_set(self, path: Any, key: str, value: bytes, expiry: Any, keep_ttl: bool) -> None:
        await self.pass_by("before writing")
        await super().do_set(path, key, value, expiry, keep_ttl)
        await self.pass_by("after writing")

    async def do_delete_all(self, path: Any) -> None:
        await self.pass_by("before emptying")
        await super().do_delete_all(path)
        await self.pass_by("after emptying")

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        if renew_for is None:
            self.root.reads[key] += 1  # type: ignore[attr-defined]  # the root is of this class
        return await super().get(key, renew_for)


def cached(inner: Store, **settings: Any) -> Any:
    context = BuildContext(name="tested", environment=None, store=lambda name: inner)
    return Cache(**{"max_age": 3600, **settings}).wrap(inner, context)


def run(work: Callable[[Far], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with Far() as far:
            await work(far)

    asyncio.run(main())


async def counted(far: Far, call: Awaitable[Any]) -> tuple[Any, int]:
    """The reply of a call, and how many readings of the backend it took."""
    before = far.reads.total()
    return await call, far.reads.total() - before


@asynccontextmanager
async def under_way(
    far: Far, step: str, call: Coroutine[Any, Any, Any]
) -> AsyncIterator[tuple[asyncio.Task[Any], asyncio.Event]]:
    """A call that has come to a step and waits there; it goes on at the end, if not sooner."""
    there, go_on = far.hold(step)
    task = asyncio.ensure_future(call)
    await there.wait()
    try:
        yield task, go_on
    finally:
        go_on.set()
        await asyncio.wait([task])
