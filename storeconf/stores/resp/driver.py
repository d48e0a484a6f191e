"""The seam to the client libraries: the settings of their connection objects, as plain settings of ours.

A library parses its URLs, builds its TLS contexts and knows its credential providers; its connection objects are read
by their public attributes, never connected.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from storeconf.errors import PluginError
from storeconf.stores.resp.credentials import Credentials
from storeconf.stores.resp.options import Address, TlsOptions, labelled

if TYPE_CHECKING:
    from storeconf.stores.resp.options import ServerOptions, Sources
    from storeconf.stores.resp.tls import Tls

__all__ = ["Driver", "ServerEndpoint", "is_blocking", "load_driver"]

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class ServerEndpoint:
    """One server: where it is, who we are there, how the connection is set up, and for which store."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    db: int = 0
    credentials: Credentials = field(default_factory=Credentials)
    client_name: str = ""
    protocol: int = 2
    tls: Tls | None = field(default=None, repr=False)
    store: str = ""

    def at(self, address: Address) -> ServerEndpoint:
        """Return the same for another server."""
        return replace(self, host=address[0], port=address[1], path=None)

    @property
    def address(self) -> str:
        """Where it is."""
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def label(self) -> str:
        """What messages call the server: its address, and the store that it is used for."""
        return labelled(self.address, self.store)


class Driver:
    """A client library: ``redis`` or ``valkey``, which differ in names alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.asyncio: Any = import_module(f"{name}.asyncio")
            self._cluster: Any = import_module(f"{name}.asyncio.cluster")
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in (name, ""):
                raise
            raise PluginError(
                f"the package {name!r} is not installed: pip install 'storeconf[{name}]'", code="SC702"
            ) from error
        title = name.capitalize()
        self.client: type[Any] = getattr(self.asyncio, title)
        self.cluster: type[Any] = getattr(self._cluster, f"{title}Cluster")
        self._plain = (self.asyncio.Connection, self.asyncio.SSLConnection, self.asyncio.UnixDomainSocketConnection)
        self._managed = (self.asyncio.SentinelManagedConnection, self.asyncio.SentinelManagedSSLConnection)
        self._pools = (self.asyncio.ConnectionPool, self.asyncio.BlockingConnectionPool)
        self._sentinel_pool: type[Any] = import_module(f"{name}.asyncio.sentinel").SentinelConnectionPool
        self._hook = f"{name}_connect_func"
        parameters = inspect.signature(import_module(f"{name}.asyncio.connection").AbstractConnection).parameters
        # Without it, new versions of redis-py look for their own version on the disk, each time.
        self._quiet: dict[str, Any] = {"driver_info": None} if "driver_info" in parameters else {}

    def template(self, options: ServerOptions) -> ServerEndpoint:
        """Return the settings of a data connection; for Cluster and Sentinel, of one whose address is still to come."""
        arguments: dict[str, Any] = {
            "db": options.db or 0,
            "username": options.username,
            "password": options.password,
            "client_name": options.client_name,
            "protocol": 2,
        }
        if options.url is None:
            tls = options.tls
            kind = self.asyncio.Connection if tls is None else self.asyncio.SSLConnection
            return self.endpoint(
                kind, {**arguments, **_tls_arguments(tls)}, options.client_name, sources=options.sources
            )
        pool = self.asyncio.ConnectionPool.from_url(self._own_scheme(options.url), **arguments)
        arguments, kind = dict(pool.connection_kwargs), pool.connection_class
        # What is given besides the URL counts: in a layout both can't be, in code the argument was meant.
        arguments |= {name: value for name, value in self._given(options) if value is not None}
        if options.tls is not None:
            kind = self.asyncio.SSLConnection
            given = {name: value for name, value in arguments.items() if name.startswith("ssl_")}
            arguments |= {**_tls_arguments(options.tls), **given}
        elif issubclass(kind, self.asyncio.SSLConnection):
            # What the versions of the libraries default to is not one thing; the URL's own options stay.
            arguments = {**_tls_arguments(TlsOptions()), **arguments}
        if isinstance(arguments.get("ssl_check_hostname"), str):
            arguments["ssl_check_hostname"] = arguments["ssl_check_hostname"].lower() in ("true", "yes", "1")
        return self.endpoint(kind, arguments, options.client_name, url=options.url, sources=options.sources)

    def sentinels(self, options: ServerOptions) -> list[ServerEndpoint]:
        """Return the settings of the connections to the Sentinels, which inherit no credentials."""
        sentinel = options.sentinel
        assert sentinel is not None
        kind = self.asyncio.Connection if sentinel.tls is None else self.asyncio.SSLConnection
        arguments = {"username": sentinel.username, "password": sentinel.password, "protocol": 2}
        template = self.endpoint(
            kind, {**arguments, **_tls_arguments(sentinel.tls)}, options.client_name, sources=sentinel.sources
        )
        return [template.at(address) for address in sentinel.nodes]

    def endpoint(
        self,
        kind: type[Any],
        arguments: dict[str, Any],
        client_name: str | None = None,
        *,
        url: str | None = None,
        sources: Sources | None = None,
    ) -> ServerEndpoint:
        """Return the settings of a connection object of the library that is made with those arguments."""
        connection = kind(**{**self._quiet, **arguments})
        name = connection.client_name if client_name is None else client_name
        return ServerEndpoint(
            host=getattr(connection, "host", None) or "localhost",
            port=int(getattr(connection, "port", None) or DEFAULT_PORT),
            path=getattr(connection, "path", None),
            db=int(connection.db or 0),
            credentials=Credentials(
                connection.username,
                connection.password,
                provider=connection.credential_provider,
                url=url if sources and "url" in sources else None,
                sources=sources,
            ),
            client_name=name or "",
            protocol=int(connection.protocol or 2),
            tls=_tls(getattr(connection, "ssl_context", None)),
        )

    def is_plain(self, pool: Any) -> bool:
        """Whether a pool's connections can be replaced by ours: nobody's subclass, nobody's connect function."""
        return type(pool) in self._pools and self._is_ours(pool, self._plain)

    def is_managed(self, pool: Any) -> bool:
        """Whether a pool's connections belong to a Sentinel client and can be replaced by ours."""
        return type(pool) is self._sentinel_pool and self._is_ours(pool, self._managed)

    def _is_ours(self, pool: Any, kinds: tuple[type[Any], ...]) -> bool:
        return pool.connection_class in kinds and pool.connection_kwargs.get(self._hook) is None

    def managed_endpoint(self, pool: Any) -> ServerEndpoint:
        """Return the settings of a Sentinel client's data connections."""
        tls = issubclass(pool.connection_class, self.asyncio.SSLConnection)
        kind = self.asyncio.SSLConnection if tls else self.asyncio.Connection
        left_out = ("connection_pool", "host", "port", "path")
        return self.endpoint(kind, {k: v for k, v in pool.connection_kwargs.items() if k not in left_out})

    @staticmethod
    def _given(options: ServerOptions) -> tuple[tuple[str, Any], ...]:
        return (
            ("db", options.db),
            ("port", None if options.url is None or options.url.lower().startswith("unix") else options.port),
            ("username", options.username),
            ("password", options.password),
        )

    def is_plain_cluster(self, client: Any, node: Any) -> bool:
        """Whether the connections of a Cluster's client can be replaced; its own connect function is fine."""
        hook = node.connection_kwargs.get(self._hook)
        return node.connection_class in self._plain and (hook is None or hook == client.on_connect)

    def cluster_endpoint(self, node: Any) -> ServerEndpoint:
        """Return the settings of the data connections of a Cluster's client."""
        left_out = (self._hook, "event_dispatcher")
        arguments = {name: value for name, value in node.connection_kwargs.items() if name not in left_out}
        return self.endpoint(node.connection_class, arguments)

    def _own_scheme(self, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if self.name == "redis":
            scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
        return f"{scheme}{separator}{rest}"


def is_blocking(client: Any) -> bool:
    """Whether it is, or is made of, a client of one of the libraries that blocks."""
    return any(
        kind.__name__ in ("Redis", "RedisCluster", "Valkey", "ValkeyCluster")
        and kind.__module__.split(".")[0] in ("redis", "valkey")
        and "asyncio" not in kind.__module__.split(".")
        for kind in type(client).__mro__
    )


def load_driver(name: str) -> Driver:
    """Import a client library; `PluginError` names the extra when it is missing."""
    driver = _drivers.get(name)
    if driver is None:
        driver = _drivers[name] = Driver(name)
    return driver


_drivers: dict[str, Driver] = {}


def _tls(settings: Any) -> Tls | None:
    """Make TLS of a library's settings, where there are any; only then the module ``ssl`` is needed."""
    if settings is None:
        return None
    from storeconf.stores.resp.tls import Tls

    return Tls(settings)


def _tls_arguments(tls: TlsOptions | None) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_cert_reqs": "none" if tls.verify == "none" else "required",
        "ssl_check_hostname": tls.verify == "full",
    }
