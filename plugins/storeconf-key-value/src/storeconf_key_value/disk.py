"""py-key-value's disk store, which can also list its keys: the cache below it can."""

from __future__ import annotations

from key_value.aio.stores.base import BaseCullStore, BaseEnumerateKeysStore
from key_value.aio.stores.disk import DiskStore

__all__ = ["ListedDiskStore"]


class ListedDiskStore(DiskStore, BaseEnumerateKeysStore, BaseCullStore):
    """A disk store with `keys` and `cull`."""

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        prefix = f"{collection}::"  # how the library joins them; our collections hold no ':'
        found = []
        for name in self._cache.iterkeys():
            if name.startswith(prefix):
                found.append(name[len(prefix) :])
                if len(found) == limit:
                    break
        return found

    async def _cull(self) -> None:
        self._cache.expire()
