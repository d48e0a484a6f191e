"""The suite over storeconf's stores and middleware: as root, as child, through layouts, and on both event loops.

To hold something else to the promises, add it to a table: the test classes are made from them. The servers' own
classes, version by version, stand beside the servers' tests.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import storeconf
from storeconf import BuildContext, FileStore, MemoryStore, Store
from storeconf.middleware.cache import Cache
from storeconf.testing import StoreConformance
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Callable

    Settings = dict[str, Any]

STORES: dict[str, Callable[[StoreConformance], Store]] = {
    "Memory": lambda suite: MemoryStore(),
    "File": lambda suite: FileStore(suite.directory / "data", create_directories=True),
}
"""Stores made directly; each is tested as root, and as child on uvloop."""

BACKENDS: dict[str, Callable[[StoreConformance], Settings]] = {
    "Memory": lambda suite: {"type": "memory"},
    "File": lambda suite: {"type": "file", "path": str(suite.directory / "data")},
    "Redis": lambda suite: {"type": "redis", "url": shared("redis-8.2").url, "namespace": suite.unique},
    "Valkey": lambda suite: {"type": "valkey", "url": shared().url, "namespace": suite.unique},
}
"""Backends as a layout writes them; each is tested as a child, and under all of the middleware."""

MIDDLEWARE: dict[str, Settings] = {
    "ReadOnly": {"read_only": False},
    "Limit": {"limit": {"key_size": "1MB", "value_size": "1GB"}},
    "Ttl": {"ttl": {"jitter": 0.1}},
    "OnError": {"on_error": "miss"},
    "Fallback": {"fallback": "other"},
    "Refresh": {"refresh": {"stale_if_error": "1d", "wait": "20ms", "shared": "30s"}},
    "Mirror": {"mirror": {"store": "second", "percent": 50}},
    "CompressGzip": {"compress": {"algorithm": "gzip", "min_size": 0}},
    "CompressLz4": {"compress": {"algorithm": "lz4", "min_size": 0}},
    "CompressZstd": {"compress": {"algorithm": "zstd", "min_size": 0}},
    "Encrypt": {"encrypt": {"keys": ["4f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b5826"]}},
    "Breaker": {"breaker": 5},
    "Retry": {"retry": 3},
    "Timeout": {"timeout": "30s"},
    "Metrics": {"metrics": True},
}
"""Middleware that, with these settings, takes away no promise; each is tested alone."""

CACHE: Settings = {"cache": {"max_age": "1h", "max_entries": 50}}
"""A near cache takes away that others' writes are seen at once, so it stands apart: it is no longer `shared`."""

FULL_STACK: Settings = {kind: settings for one in MIDDLEWARE.values() for kind, settings in one.items()}


class _Loaded(StoreConformance):
    """The store ``s`` of a layout."""

    model_examples = 10
    on_disk = False
    """Whether files are on the disk; what is around stores is tested on any, and one in memory is quick."""

    @pytest.fixture(autouse=True)
    def _place_of_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not self.on_disk and Path("/dev/shm").is_dir():
            monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")

    def layout(self) -> Settings:
        raise NotImplementedError

    def make_store(self) -> Store:
        stores = {"other": {"type": "memory"}, "second": {"type": "memory"}, **self.layout()}
        return storeconf.load({"stores": stores}, environ={}).get("s")


def _on_uvloop(suite: StoreConformance) -> asyncio.Runner:
    return asyncio.Runner(debug=False, loop_factory=uvloop.new_event_loop)


def _suite(name: str, base: type[StoreConformance], **members: Any) -> None:
    globals()[f"Test{name}"] = type(f"Test{name}", (base,), {"__module__": __name__, **members})


def _cached(store: Store) -> Store:
    return Cache(**CACHE["cache"]).wrap(store, BuildContext("s", None, lambda name: store))


def _child(
    root: Callable[[StoreConformance], Settings], middleware: Settings
) -> Callable[[StoreConformance], Settings]:
    def layout(suite: StoreConformance) -> Settings:
        return {"main": root(suite), "s": {"parent": "main", "namespace": "s_1", "middleware": middleware}}

    return layout


for _name, _make in STORES.items():
    _suite(f"{_name}Store", StoreConformance, make_store=_make)
    _suite(f"{_name}ChildOnUvloop", StoreConformance, make_store=_make, namespaces=("a", "b"), runner=_on_uvloop)
for _name, _root in BACKENDS.items():
    _suite(f"{_name}Child", _Loaded, layout=_child(_root, {}), on_disk=True)
    if _name != "Redis":  # which is Valkey's implementation with another client library
        _suite(f"{_name}FullStack", _Loaded, layout=_child(_root, FULL_STACK))
for _name, _middleware in MIDDLEWARE.items():
    _suite(f"Memory{_name}", _Loaded, layout=_child(BACKENDS["Memory"], _middleware))


class _Far(MemoryStore):
    """A memory store that a near cache does not take for near: it keeps what it reads here as well."""


_suite("FileRefresh", _Loaded, layout=_child(BACKENDS["File"], MIDDLEWARE["Refresh"]))
_suite("ValkeyRefreshOfCache", _Loaded, layout=_child(BACKENDS["Valkey"], {**MIDDLEWARE["Refresh"], **CACHE}))
_suite("MemoryCache", StoreConformance, make_store=lambda suite: _cached(_Far()))
_suite("FileCache", _Loaded, layout=_child(BACKENDS["File"], CACHE))
_suite("RedisCache", _Loaded, layout=_child(BACKENDS["Redis"], CACHE))
_suite("ValkeyFullStackWithCache", _Loaded, layout=_child(BACKENDS["Valkey"], {**FULL_STACK, **CACHE}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_declares_what_its_store_can(backend: str) -> None:
    suite = StoreConformance()
    with tempfile.TemporaryDirectory() as directory:
        suite.directory, suite.unique = Path(directory), "declared"
        settings = BACKENDS[backend](suite)
        store = storeconf.load({"stores": {"s": settings}}, environ={}).get("s")
        declared = storeconf.Catalog.builtin().backend(settings["type"]).capabilities
        assert store.capabilities == declared
