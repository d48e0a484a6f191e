"""What the tests of announcements share: clients of one server, and waiting for what they hear."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import TYPE_CHECKING, Any

from storeconf import BuildContext, Store
from storeconf.middleware.cache import Cache
from storeconf.stores import ValkeyStore
from storeconf.stores.resp.driver import load_driver
from storeconf.stores.resp.options import ServerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.servers import Server


LIMIT = 0.5
SOON = 5.0
"""Seconds within which what is promised within milliseconds has happened on the busiest machine."""

for _driver in ("redis", "valkey"):
    load_driver(_driver)  # importing reads files, which no loop may do

_names = (f"a{number}" for number in itertools.count())


class Counted(ValkeyStore):
    """Counts what is read of the server, and lets a test hold a reading up when it has its answer."""

    reads = 0
    hold: tuple[asyncio.Event, asyncio.Event] | None = None

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        self.reads += 1
        found = await super().do_get_with_expiry(path, key)
        if self.hold is not None:
            (there, go_on), self.hold = self.hold, None
            there.set()
            await go_on.wait()
        return found


def cached(store: Store, **settings: Any) -> Any:
    return Cache(**{"max_age": 3600, **settings}).wrap(store, BuildContext("tested", None, lambda name: store))


def pair(server: Server, kind: type[ValkeyStore] = Counted, **settings: Any) -> tuple[Any, Store]:
    """A store with a near cache, and another client's on the same keys."""
    namespace = settings.pop("namespace", next(_names))
    options = ServerOptions(**{"url": server.url, "command_timeout": LIMIT, "connect_timeout": LIMIT, **settings})
    one, two = (each.from_options(options, namespace=namespace) for each in (kind, ValkeyStore))
    return cached(one), two


async def seen(store: Store, key: str, value: bytes | None, within: float = SOON) -> None:
    """Wait until a key has that value."""
    async with asyncio.timeout(within):
        while await store.get(key) != value:
            await asyncio.sleep(0.001)


async def in_step(store: Store, other: Store) -> None:
    """Wait until the store has heard of all that the other client has done before."""
    value = b"%d" % next(_turns)
    assert await store.get("in step") != value
    await other.set("in step", value)
    await seen(store, "in step", value)


async def served_for_ever(store: Store, key: str, value: bytes) -> None:
    """Read until it fails, or until this has gone on for too long."""
    async with asyncio.timeout(SOON):
        while True:
            assert await store.get(key) == value
            await asyncio.sleep(0.001)


_turns = itertools.count()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it; nothing may fail in the background."""
    unseen: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        await work()

    asyncio.run(watched())
    assert not unseen


def listeners(server: Server) -> list[str]:
    """The connections that the server announces changes to."""
    clients = server.ask("CLIENT", "LIST").decode()
    return [m[1] for line in clients.splitlines() if (m := re.search(r"\bid=(\d+) .*\bflags=\w*t\w*B", line))]


async def the_listener(server: Server) -> str:
    """The one connection that the server announces changes to, as soon as there is one."""
    await until(lambda: len(listeners(server)) == 1)
    return listeners(server)[0]


async def until(condition: Callable[[], bool], within: float = SOON) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def all_in_step(store: Store, other: Store) -> None:
    """As `in_step`, with every node."""
    value = b"%d" % next(_turns)
    keys = [f"in step {number}" for number in range(20)]
    await other.set_many(dict.fromkeys(keys, value))
    for key in keys:
        await seen(store, key, value)
