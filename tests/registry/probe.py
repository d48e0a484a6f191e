"""Stores and layouts for the tests of the registry, and what happened to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from storeconf.config import ChildSpec, DefaultFactorySpec, RootSpec
from storeconf.plan import Plan
from storeconf.plugin import Backend, BuildContext
from storeconf.registry import StoreRegistry, compile_plan
from storeconf.store import StoreBase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf.config import StoreSpec
    from storeconf.store import Store


happened: list[str] = []
"""What the stores of one test did, in order."""


class Probe(StoreBase):
    """A store on a dict that tells what happens to it, and fails or waits where a test says so."""

    def __init__(self, label: str = "probe") -> None:
        super().__init__()
        self.label = label
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}
        self.at: dict[str, Callable[[], Awaitable[None]]] = {}

    async def _meet(self, step: str) -> None:
        happened.append(f"{step} {self.label}")
        if step in self.at:
            await self.at[step]()

    async def do_open(self) -> None:
        await self._meet("open")

    async def do_close(self) -> None:
        await self._meet("close")

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        await self._meet("exists")
        return (path, key) in self.data

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        await self._meet("/".join(("sweep", *path)))


class Box(Backend):
    """Its ``label`` is what the log calls the store."""

    type: Literal["box"] = "box"
    label: str = "box"

    def build(self, context: BuildContext) -> Store:
        return Probe(self.label)


class Foreign:
    """A store of another library: it shares nothing with ours but the names of some methods."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.inside = 0

    async def __aenter__(self) -> None:
        self.inside += 1
        happened.append(f"enter {self.label}")

    async def __aexit__(self, *error: object) -> None:
        self.inside -= 1
        happened.append(f"leave {self.label}")

    async def exists(self, key: str) -> bool:
        return False

    async def get(self, key: str) -> bytes | None:
        return None


def foreign(label: str) -> Any:
    return Foreign(label)


def root(name: str, **middleware: Any) -> RootSpec:
    return RootSpec(name, Box(label=name), middleware)


def child(name: str, parent: str, namespace: str | None = None, **middleware: Any) -> ChildSpec:
    return ChildSpec(name, parent, namespace or name, middleware)


def compiled(*specs: StoreSpec, factory: DefaultFactorySpec | None = None) -> StoreRegistry:
    return compile_plan(Plan.of({spec.name: spec for spec in specs}, factory))


def probe(registry: StoreRegistry, name: str) -> Probe:
    found = registry[name].root
    assert isinstance(found, Probe)
    return found


def is_open(thing: Store | StoreRegistry) -> bool:
    """A call, because a type checker takes an attribute for unchanged."""
    return thing.is_open


async def fail(error: BaseException) -> None:
    raise error


async def wait_for_ever() -> None:
    await asyncio.Event().wait()
