"""The seam to the client libraries: the settings of their connections as plain settings of ours, and TLS contexts.

A library parses its URLs, builds its TLS contexts and knows its credential providers; its connection objects are read
by their public attributes, never connected. TLS contexts are made in a thread, made again when a file changes, and
raise errors that name the file.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import ssl
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from storeconf._pace import OwnThread
from storeconf.errors import PluginError
from storeconf.stores.resp.options import Address, Credentials, TlsOptions, labelled

if TYPE_CHECKING:
    from storeconf.stores.resp.options import ServerOptions, Sources

__all__ = ["Driver", "ServerEndpoint", "Tls", "TlsFileError", "is_blocking", "load_driver", "tls_arguments"]

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class ServerEndpoint:
    """One server: its address, our credentials there, how the connection is set up, and for which store."""

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
        """The server's name in messages: its address, and the store that it is used for."""
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
            ) from None
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
        self.quiet: dict[str, Any] = {"driver_info": None} if "driver_info" in parameters else {}

    def template(self, options: ServerOptions) -> ServerEndpoint:
        """Return the settings of a data connection; for Cluster and Sentinel, of one whose address is still to come."""
        kind, arguments = self.settings(options)
        return self.endpoint(kind, arguments, options.client_name, url=options.url, sources=options.sources)

    def settings(self, options: ServerOptions) -> tuple[type[Any], dict[str, Any]]:
        """Return the library's class of such a connection, and its arguments."""
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
            return kind, {**arguments, **tls_arguments(tls)}
        pool = self.asyncio.ConnectionPool.from_url(self._own_scheme(options.url), **arguments)
        arguments, kind = dict(pool.connection_kwargs), pool.connection_class
        # Arguments besides the URL count: in a layout both can't be, in code the argument was meant.
        arguments |= {name: value for name, value in self._given(options) if value is not None}
        if options.tls is not None:
            kind = self.asyncio.SSLConnection
            given = {name: value for name, value in arguments.items() if name.startswith("ssl_")}
            arguments |= {**tls_arguments(options.tls), **given}
        elif issubclass(kind, self.asyncio.SSLConnection):
            # The defaults differ between versions of the libraries; the URL's own options stay.
            arguments = {**tls_arguments(TlsOptions()), **arguments}
        if isinstance(arguments.get("ssl_check_hostname"), str):
            arguments["ssl_check_hostname"] = arguments["ssl_check_hostname"].lower() in ("true", "yes", "1")
        return kind, arguments

    def sentinels(self, options: ServerOptions) -> list[ServerEndpoint]:
        """Return the settings of the connections to the Sentinels, which inherit no credentials."""
        sentinel = options.sentinel
        assert sentinel is not None
        kind = self.asyncio.Connection if sentinel.tls is None else self.asyncio.SSLConnection
        arguments = {"username": sentinel.username, "password": sentinel.password, "protocol": 2}
        template = self.endpoint(
            kind, {**arguments, **tls_arguments(sentinel.tls)}, options.client_name, sources=sentinel.sources
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
        connection = kind(**{**self.quiet, **arguments})
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
    from storeconf.stores.resp.driver import Tls

    return Tls(settings)


def tls_arguments(tls: TlsOptions | None) -> dict[str, Any]:
    """Return the libraries' arguments for these settings."""
    if tls is None:
        return {}
    return {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_cert_reqs": "none" if tls.verify == "none" else "required",
        "ssl_check_hostname": tls.verify == "full",
    }


# ---------------------------------------------------------------- TLS contexts from files


log: logging.Logger = logging.getLogger("storeconf.stores")


class TlsFileError(Exception):
    """A file with certificates or a key can't be used; the text names it."""


class _EncryptedKeyError(Exception):
    """OpenSSL wants a pass phrase."""


class Tls:
    """The TLS settings of a client library's connection, and the context that they make.

    The library's object is copied and never asked for the client's certificate: OpenSSL would prompt on the terminal
    for the pass phrase of an encrypted key, and its errors name no file.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self.ca_file: str | None = settings.ca_certs
        self.cert_file: str | None = settings.certfile
        self.key_file: str | None = settings.keyfile
        self._context: ssl.SSLContext | None = None
        self._seen: list[object] = []
        self._failure: str | None = None  # why changed files are not in use
        self._loading = OwnThread(self.load, "storeconf-tls")

    async def context(self, label: str) -> ssl.SSLContext:
        """Return the context without blocking the event loop, or any thread of its default executor.

        While changed files can't be used, it is the last one, with a warning about the connection to ``label``.
        """
        context = await self._loading.run()
        if self._failure is not None:
            log.warning("TLS to %s goes on with the files as they were: %s", label, self._failure)
        return context

    def load(self) -> ssl.SSLContext:
        """Return the context, made again if a file has changed; raise `TlsFileError` if there is none. This blocks."""
        seen = [_identity(path) for path in (self.ca_file, self.cert_file, self.key_file)]
        if self._context is None or seen != self._seen:
            try:
                self._context = self._make()
            except TlsFileError as error:
                if self._context is None:
                    raise
                self._failure = str(error)
            else:
                self._seen, self._failure = seen, None
        return self._context

    def _make(self) -> ssl.SSLContext:
        for what, path in (
            ("CA file", self.ca_file),
            ("certificate file", self.cert_file),
            ("key file", self.key_file),
        ):
            if path is not None:
                _check_readable(what, path)
        settings = copy.copy(self._settings)
        settings.certfile = settings.keyfile = settings.context = None
        try:
            context: ssl.SSLContext = settings.get()
        except (OSError, ValueError) as error:
            where = "" if self.ca_file is None else f" with the CA file {self.ca_file!r}"
            raise TlsFileError(f"TLS can't be set up{where}: {_reason(error)}") from error
        if self.cert_file is not None:
            self._load_chain(context, self.cert_file)
        return context

    def _load_chain(self, context: ssl.SSLContext, cert_file: str) -> None:
        key = f"the key file {self.key_file!r}" if self.key_file else f"the certificate file {cert_file!r}"
        password = getattr(self._settings, "password", None)
        try:
            context.load_cert_chain(cert_file, self.key_file, password or _refuse)
        except _EncryptedKeyError:
            raise TlsFileError(f"{key} can't be used: its key is encrypted, which is not supported") from None
        except (OSError, ValueError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                text = f"{key} holds another key than that of the certificate in {cert_file!r}"
            elif not _holds_certificate(cert_file):
                text = f"the certificate file {cert_file!r} holds no certificate in PEM format"
            else:
                text = f"{key} holds no private key in PEM format that can be used: {_reason(error)}"
            raise TlsFileError(text) from error


def _refuse() -> NoReturn:
    raise _EncryptedKeyError


def _check_readable(what: str, path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except (OSError, ValueError) as error:
        raise TlsFileError(f"the {what} {path!r} can't be read: {_reason(error)}") from error


def _holds_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _identity(path: str | None) -> object:
    """A value that changes with a file's content, even at the same length and time; None where the file is missing."""
    try:
        found = None if path is None else Path(path).stat()
    except (OSError, ValueError):
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
