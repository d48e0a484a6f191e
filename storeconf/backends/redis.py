"""The backend ``redis``: one Redis server, a Cluster, or a service that Sentinels watch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from storeconf.backends.server import ServerBackend

if TYPE_CHECKING:
    from storeconf.plugin import BuildContext
    from storeconf.store import Store

__all__ = ["RedisBackend"]


class RedisBackend(ServerBackend):
    """Keys and values on Redis, shared by all processes that use the same server, database and namespace."""

    type: Literal["redis"] = Field(default="redis", description="The kind of store.", examples=["redis"])

    def build(self, context: BuildContext) -> Store:
        """Make the store; the package ``redis`` must be installed."""
        from storeconf.stores.redis import RedisStore

        return RedisStore.from_options(
            partial(self.options, context.sources), namespace=self.namespace or None, key_layout=self.key_layout
        )
