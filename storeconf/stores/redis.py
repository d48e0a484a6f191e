"""The store on Redis, by way of the package ``redis``. Imports that package when a store is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.store import ServerStore

if TYPE_CHECKING:
    from storeconf.stores.resp.keys import Layout

__all__ = ["RedisStore"]


class RedisStore(ServerStore):
    """Keys and values on Redis: one server, a Cluster, or a service that Sentinels watch.

    ``redis`` is a client of ``redis.asyncio``. Its settings are used, and calls from many tasks share one
    connection; a client of another class serves the calls itself. The client is borrowed, unless
    ``handle_client_shutdown`` says that the store closes it.

    ``namespace`` is ``LITESTAR`` unless another is given, as in Litestar; with None keys are raw, and the store can be
    no parent. Keys are storeconf's, whatever the namespace; ``key_layout="litestar"`` shares an existing deployment's.
    """

    driver = "redis"
    default_url = "redis://localhost:6379"

    def __init__(
        self,
        redis: Any,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        key_layout: Layout = "storeconf",
    ) -> None:
        owned = redis if handle_client_shutdown else None
        super().__init__(self.transport_factory_of(redis), namespace=namespace, key_layout=key_layout, client=owned)
