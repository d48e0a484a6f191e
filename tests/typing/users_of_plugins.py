"""What type checkers see of a backend, written as the contract and the how-to show it."""

from collections.abc import AsyncIterator
from typing import Literal, assert_type

import storeconf
from storeconf import BuildContext, Capabilities, Store, StoreBase


class DictStore(StoreBase):
    capabilities = Capabilities(atomic=frozenset({"pop"}))
    warn_if_left_open = False

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        self.data.pop((path, key), None)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        return (path, key) in self.data

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        return -1 if (path, key) in self.data else None

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        self.data = {place: value for place, value in self.data.items() if place[0][: len(path)] != path}

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        for where, key in list(self.data):
            if where == path and key.startswith(prefix):
                yield key

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        return self.data.pop((path, key), None)


class DictBackend(storeconf.Backend):
    capabilities = DictStore.capabilities

    type: Literal["dict"] = "dict"
    path: storeconf.ConfigPath
    limit: storeconf.Size = 10
    secret: storeconf.Secret | None = None

    def build(self, context: BuildContext) -> Store:
        assert_type(context.name, str)
        assert_type(self.limit, int)
        return DictStore()

    def location(self) -> tuple[str, ...]:
        return ("dict", str(self.path))


catalog = storeconf.Catalog.installed().with_backend("dict", DictBackend)
layout = storeconf.read_layout({"stores": {"a": {"type": "dict", "path": "x"}}}, environ={}, catalog=catalog)
assert_type(layout, storeconf.Layout)
