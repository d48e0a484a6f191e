"""The suite over every store of storeconf: as root, as child, through a layout, and in uvloop.

To hold another store to the promises, add it to one of the tables: the classes are made from them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvloop

import storeconf
from storeconf import FileStore, MemoryStore, Store
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import Callable

ROOTS: dict[str, Callable[[StoreConformance], Store]] = {
    "Memory": lambda suite: MemoryStore(),
    "File": lambda suite: FileStore(suite.directory / "data", create_directories=True),
}
"""Stores made directly, by the name of their kind."""

LAYOUTS: dict[str, Callable[[StoreConformance], dict[str, Any]]] = {
    "MemoryLayout": lambda suite: {"stores": {"s": {"type": "memory", "namespace": suite.unique}}},
    "MemoryChildLayout": lambda suite: {"stores": {"main": {"type": "memory"}, "s": {"parent": "main"}}},
    "FileLayout": lambda suite: {"stores": {"s": {"type": "file", "path": str(suite.directory / "data")}}},
    "FileChildLayout": lambda suite: {
        "stores": {
            "main": {"type": "file", "path": str(suite.directory / "data"), "namespace": "shop"},
            "inner": {"parent": "main"},
            "s": {"parent": "inner", "namespace": "s_1"},
        }
    },
}
"""Layouts of which the store ``s`` is tested."""


class _Uvloop(StoreConformance):
    def runner(self) -> asyncio.Runner:
        return asyncio.Runner(debug=False, loop_factory=uvloop.new_event_loop)


def _suite(
    name: str,
    make: Callable[[StoreConformance], Store],
    base: type[StoreConformance] = StoreConformance,
    **members: Any,
) -> None:
    globals()[f"Test{name}"] = type(f"Test{name}", (base,), {"make_store": make, "__module__": __name__, **members})


def _load(layout: Callable[[StoreConformance], dict[str, Any]]) -> Callable[[StoreConformance], Store]:
    return lambda suite: storeconf.load(layout(suite), environ={}).get("s")


for _name, _make in ROOTS.items():
    _suite(_name, _make)
    _suite(f"{_name}Child", _make, namespaces=("app", "app2"))
    _suite(f"{_name}Uvloop", _make, _Uvloop)
for _name, _layout in LAYOUTS.items():
    _suite(_name, _load(_layout))
