"""Clients of the library itself, with the settings of a store: for what stores do not offer, such as pub/sub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.driver import tls_arguments
from storeconf.stores.resp.options import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.stores.resp.driver import Driver
    from storeconf.stores.resp.options import ServerOptions

__all__ = ["make_client"]


def make_client(driver: Driver, options: ServerOptions, *, blocking: bool) -> Any:
    """Return a client of the library's asyncio, or its blocking one, for the same server, Cluster or service.

    It connects when it is first used, and has no timeout for commands: some block, and subscriptions wait.
    """
    kind, arguments = driver.settings(options)
    arguments = {**arguments, **_common(driver, options), **_login(driver, arguments, options.sources, options.url)}
    if blocking:
        kind = getattr(import_module(f"{driver.name}.connection"), kind.__name__)
    if options.cluster is not None:
        return _cluster(driver, options, arguments, blocking)
    if options.sentinel is not None:
        return _of_sentinels(driver, options, arguments, blocking)
    library = import_module(driver.name) if blocking else driver.asyncio
    client = getattr(library, driver.client.__name__)
    return client.from_pool(library.ConnectionPool(connection_class=kind, **arguments))


def _common(driver: Driver, options: ServerOptions) -> dict[str, Any]:
    """What all connections of clients have."""
    common = {**driver.quiet, "socket_connect_timeout": options.connect_timeout, "socket_timeout": None}
    if options.url is None or not options.url.lower().startswith("unix"):
        common["socket_keepalive"] = True
    if not options.client_name:  # no CLIENT command at all
        common |= {"client_name": None} | (driver.quiet or {"lib_name": None, "lib_version": None})
    return common


def _login(driver: Driver, arguments: Mapping[str, Any], sources: Any, url: str | None = None) -> dict[str, Any]:
    """What gives each connection the credentials as they are now, where they come from files."""
    username, password = arguments.get("username"), arguments.get("password")
    if not sources:
        return {"username": username, "password": password}
    credentials = Credentials(username, password, url=url if "url" in sources else None, sources=sources)
    base: type[Any] = import_module(f"{driver.name}.credentials").CredentialProvider
    provider = type("StoreconfCredentials", (base,), {})()
    provider.get_credentials = credentials.read_login
    provider.get_credentials_async = credentials.read_login_in_thread
    return {"username": None, "password": None, "credential_provider": provider}


def _cluster(driver: Driver, options: ServerOptions, arguments: dict[str, Any], blocking: bool) -> Any:
    assert options.cluster is not None
    module = import_module(f"{driver.name}.cluster" if blocking else f"{driver.name}.asyncio.cluster")
    nodes = [module.ClusterNode(host, port) for host, port in options.cluster]
    del arguments["db"]
    return getattr(module, driver.cluster.__name__)(startup_nodes=nodes, ssl=options.tls is not None, **arguments)


def _of_sentinels(driver: Driver, options: ServerOptions, arguments: dict[str, Any], blocking: bool) -> Any:
    """Return a client of the primary, which closes the clients of its Sentinels with itself."""
    sentinel = options.sentinel
    assert sentinel is not None
    module = import_module(f"{driver.name}.sentinel" if blocking else f"{driver.name}.asyncio.sentinel")
    login = _login(driver, {"username": sentinel.username, "password": sentinel.password}, sentinel.sources)
    common: dict[str, Any] = {**_common(driver, options), "socket_timeout": options.connect_timeout, "protocol": 2}
    sentinels = {**common, **login, "ssl": sentinel.tls is not None, **tls_arguments(sentinel.tls)}
    manager = module.Sentinel(list(sentinel.nodes), sentinel_kwargs=sentinels)
    tls = options.tls is not None
    pool = module.SentinelConnectionPool(sentinel.service, manager, is_master=True, ssl=tls, **arguments)
    client = getattr(import_module(driver.name) if blocking else driver.asyncio, driver.client.__name__)
    return _closing(client, manager, blocking).from_pool(pool)


def _closing(client: type[Any], manager: Any, blocking: bool) -> type[Any]:
    """The client's class, which closes the Sentinels' clients too."""

    async def aclose(self: Any, *arguments: Any, **options: Any) -> None:
        await client.aclose(self, *arguments, **options)
        for each in manager.sentinels:
            await each.aclose()

    def close(self: Any) -> None:
        client.close(self)
        for each in manager.sentinels:
            each.close()

    return type(client.__name__, (client,), {"close": close} if blocking else {"aclose": aclose})
