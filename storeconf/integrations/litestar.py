"""Litestar: our registry as ``app.stores``, and our stores wherever Litestar expects its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from litestar.stores.base import NamespacedStore as LitestarNamespacedStore
from litestar.stores.base import Store as LitestarStore
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

from storeconf.store import Store

if TYPE_CHECKING:
    from storeconf.registry import StoreRegistry

__all__ = ["LitestarRegistry"]

LitestarStore.register(Store)
LitestarNamespacedStore.register(Store)


class LitestarRegistry(LitestarStoreRegistry):
    """What Litestar takes as ``stores=``: every name leads to our registry, which opens and closes with the app."""

    def __init__(self, registry: StoreRegistry) -> None:
        super().__init__()
        self._registry = registry
        # Litestar enters the values of this mapping when the application starts and leaves them when it stops.
        self._stores = cast("dict[str, Any]", {"": registry})

    def get(self, name: str) -> LitestarStore:
        """See `StoreRegistry.get`."""
        return cast("LitestarStore", self._registry.get(name))

    def register(self, name: str, store: LitestarStore | Store, allow_override: bool = False) -> None:
        """See `StoreRegistry.register`."""
        self._registry.register(name, cast("Store", store), allow_override)
