"""The store on Valkey, by way of the package ``valkey``. Imports that package when a store is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from storeconf.stores.resp.options import ServerOptions
from storeconf.stores.resp.store import ServerStore
from storeconf.stores.resp.url import ServerUrl

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

    def __init__(
        self,
        valkey: Any,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        key_layout: Layout = "storeconf",
    ) -> None:
        owned = valkey if handle_client_shutdown else None
        super().__init__(self.route_of(valkey), namespace=namespace, key_layout=key_layout, client=owned)

    @classmethod
    def with_client(
        cls,
        url: str = "valkey://localhost:6379",
        *,
        db: int | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        namespace: str | None = "LITESTAR",
        key_layout: Layout = "storeconf",
    ) -> Self:
        """Return a store on the server at ``url``, with connections of its own, which it closes."""
        ServerUrl(url)  # raises for what a connection would stumble over later
        options = ServerOptions(url=url, db=db, port=port, username=username, password=password)
        return cls.from_options(options, namespace=namespace, key_layout=key_layout)
