"""The store on Valkey, by way of the package ``valkey``. Imports that package when a store is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.store import ServerStore

if TYPE_CHECKING:
    from storeconf.stores.resp.keys import Layout

__all__ = ["ValkeyStore"]


class ValkeyStore(ServerStore):
    """Keys and values on Valkey: one server, a Cluster, or a service that Sentinels watch.

    ``valkey`` is a client of ``valkey.asyncio``. Its settings are used, and calls from many tasks share one
    connection; a client of another class serves the calls itself. The client is borrowed, unless
    ``handle_client_shutdown`` says that the store closes it.

    ``namespace`` is ``LITESTAR`` unless another is given, as in Litestar; with None keys are raw, and the store can be
    no parent. Keys are storeconf's, whatever the namespace; ``key_layout="litestar"`` shares an existing deployment's.
    """

    driver = "valkey"
    default_url = "valkey://localhost:6379"

    def __init__(
        self,
        valkey: Any,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        key_layout: Layout = "storeconf",
    ) -> None:
        owned = valkey if handle_client_shutdown else None
        super().__init__(self.transport_factory_of(valkey), namespace=namespace, key_layout=key_layout, client=owned)
