"""The stores themselves. They know nothing of configuration and can be used alone; each is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storeconf.stores.file import FileStore as FileStore
    from storeconf.stores.memory import MemoryStore as MemoryStore
    from storeconf.stores.resp.store import RedisStore as RedisStore
    from storeconf.stores.resp.store import ValkeyStore as ValkeyStore

__all__ = ["FileStore", "MemoryStore", "RedisStore", "ValkeyStore"]

_MODULE_OF = {
    "FileStore": "storeconf.stores.file",
    "MemoryStore": "storeconf.stores.memory",
    "RedisStore": "storeconf.stores.resp.store",
    "ValkeyStore": "storeconf.stores.resp.store",
}


if not TYPE_CHECKING:  # a type checker that saw it would accept every misspelt name

    def __getattr__(name: str) -> Any:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value
