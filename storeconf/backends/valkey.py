"""The backend ``valkey``: one Valkey server, a Cluster, or a service that Sentinels watch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from storeconf.backends.server import ServerBackend

if TYPE_CHECKING:
    from storeconf.plugin import BuildContext
    from storeconf.store import Store

__all__ = ["ValkeyBackend"]


class ValkeyBackend(ServerBackend):
    """Keys and values on Valkey, shared by all processes that use the same server, database and namespace."""

    type: Literal["valkey"] = Field(default="valkey", description="The kind of store.", examples=["valkey"])

    def build(self, context: BuildContext) -> Store:
        """Make the store; the package ``valkey`` must be installed."""
        from storeconf.stores.valkey import ValkeyStore

        return ValkeyStore.from_options(
            partial(self.options, context.sources), namespace=self.namespace or None, key_layout=self.key_layout
        )
