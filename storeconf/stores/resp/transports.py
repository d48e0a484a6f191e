"""One transport per event loop, and how it is made: of options, or of a client that was handed in.

A client that is not ours to replace (a subclass, a fake, one with its own connect function) has a transport whose
commands go through its own ``execute_command``: correct, and slower, for each call takes one of its connections.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from asyncio import get_running_loop
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.cluster import ClusterTransport
from storeconf.stores.resp.driver import is_blocking, tls_arguments
from storeconf.stores.resp.errors import ReplyTimeoutError, from_driver
from storeconf.stores.resp.options import Credentials, ServerOptions, ServerUrl, labelled
from storeconf.stores.resp.protocol import unpack
from storeconf.stores.resp.sentinel import SentinelTransport
from storeconf.stores.resp.transport import StandaloneTransport, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence

    from storeconf.stores.resp.driver import Driver, ServerEndpoint
    from storeconf.stores.resp.keys import InvalidationFilter
    from storeconf.stores.resp.transport import ServerNode

__all__ = [
    "CustomClientTransport",
    "TransportFactory",
    "Transports",
    "factory_of_client",
    "factory_of_options",
    "make_client",
    "with_url_options",
]

MOST_AT_ONCE = 16
"""Calls under way at a time: clients open a connection for each, and refuse more than their pool holds."""


class _CustomClientNode:
    """One server of a foreign client: the client itself, or the node object of a Cluster's client."""

    generation = 1

    def __init__(self, transport: CustomClientTransport, client: Any) -> None:
        self._transport = transport
        self._client = client

    def call(self, data: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._transport.execute(self._client, data))


class CustomClientTransport(Transport):
    """A client object's own way to its server."""

    topology = "as configured on the supplied client"
    in_order = False

    def __init__(self, client: Any, options: ServerOptions, store: str, *, is_librarys: bool, repeats: bool) -> None:
        super().__init__(options.command_timeout, options.retries)
        self._repeats = repeats
        self._label = labelled(f"{type(client).__module__}.{type(client).__qualname__}", store)
        self._client = client
        # Values are bytes, even if the client decodes those that it reads for others.
        self._options = {"NEVER_DECODE": True} if is_librarys else {}
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self.spreads: bool = hasattr(client, "get_primaries")

    def call(self, data: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        """Send a command by the client's own means."""
        return asyncio.ensure_future(self.execute(self._client, data))

    async def execute(self, client: Any, data: bytes) -> Any:
        """Run a command in one of the slots, within the timeout."""
        sent = False
        try:
            async with asyncio.timeout(self.timeout):
                async with self._slots:
                    sent = True
                    # Clients look at the command's name, and want it as text.
                    name, *words = unpack(data)
                    running: Coroutine[Any, Any, Any] = client.execute_command(name.decode(), *words, **self._options)
                    return _plain(await running)
        except TimeoutError as error:
            text = f"{self._label} did not answer within {self.timeout:g} s"
            raise ReplyTimeoutError(text, sent=sent, cause=error) from error
        except Exception as error:
            # A client that repeats tells how its last attempt failed; an earlier one may have been executed.
            raise from_driver(error, self._label, repeats=self._repeats) from error

    async def nodes(self) -> Sequence[ServerNode]:
        """Return the client's server, or those of its Cluster."""
        if not self.spreads:
            return [_CustomClientNode(self, self._client)]
        try:
            await self._client.initialize()
        except Exception as error:
            raise from_driver(error, self._label) from error
        return [_CustomClientNode(self, node) for node in self._client.get_primaries()]

    def listen(self, invalidations: InvalidationFilter) -> None:
        """Do nothing: the client lends its connections for one command at a time."""

    def abort(self) -> None:
        """Leave the client's connections to the client."""

    async def close(self) -> None:
        """Leave the client's connections to the client."""

    async def place(self) -> str:
        """Name the client's class; its settings are its own."""
        return f"through {type(self._client).__module__}.{type(self._client).__qualname__}"


def _plain(reply: Any) -> Any:
    """Undo a client's decoding of replies."""
    if isinstance(reply, str):
        return reply.encode()
    if isinstance(reply, list | tuple):
        return [_plain(item) for item in reply]
    return reply


# ---------------------------------------------------------------- one transport per event loop


_given_up: list[object] = []
"""The parent's connections that a forked child inherited: kept, so that nothing touches them."""


class Transports:
    """The transports of one store; ``name`` returns the store's name, for the messages of its transports."""

    def __init__(self, factory: TransportFactory, name: Callable[[], str]) -> None:
        self._factory = factory
        self._name = name
        self.last: Transport | None = None
        """The transport that was used last; compare its loop with the running one before use."""
        self._held: dict[asyncio.AbstractEventLoop, tuple[Transport, AsyncGenerator[None]]] = {}
        self._lock = threading.Lock()

    def here(self) -> Transport:
        """Return the transport of the running loop."""
        loop = get_running_loop()
        transport = self.last
        if transport is not None and transport.loop is loop:
            return transport
        with self._lock:
            held = self._held.get(loop)
            if held is None:
                for other in [other for other in self._held if other.is_closed()]:
                    del self._held[other]
                transport = self._factory(self._name())
                guard = _guard(transport, weakref.ref(self))
                # Begun by hand, for it has nothing to wait for: from now on the loop ends it when it shuts down.
                with suppress(StopIteration):
                    guard.__anext__().send(None)
                held = self._held[loop] = (transport, guard)
            self.last = held[0]
        return held[0]

    def __len__(self) -> int:
        return len(self._held)

    async def close(self) -> None:
        """Close the connections of every loop."""
        with self._lock:
            held, self._held, self.last = list(self._held.items()), {}, None
        running = get_running_loop()
        for loop, (transport, guard) in held:
            if loop is running:
                await guard.aclose()
            elif not loop.is_closed():
                with suppress(RuntimeError):  # closed in this very moment
                    loop.call_soon_threadsafe(transport.abort)

    def forget(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        _given_up.append(self._held)
        self._held, self.last = {}, None
        self._lock = threading.Lock()

    def drop(self, transport: Transport) -> None:
        """Forget a transport that is closed."""
        held = self._held.get(transport.loop)
        if held is not None and held[0] is transport:  # its loop may have another one by now
            self._held.pop(transport.loop, None)
        if self.last is transport:
            self.last = None


async def _guard(transport: Transport, owner: weakref.ref[Transports]) -> AsyncGenerator[None]:
    """Close the transport when nobody holds this generator any more, or the loop ends its generators."""
    try:
        yield
    finally:
        transports = owner()
        if transports is not None:
            transports.drop(transport)
        await transport.close()


log: logging.Logger = logging.getLogger("storeconf.stores")


TransportFactory = Callable[[str], Transport]
"""Makes a transport for the running loop and the store of that name; the transport connects when it is first used."""


def factory_of_options(driver: Driver, options: ServerOptions | Callable[[], ServerOptions]) -> TransportFactory:
    """Return the factory that the options describe; the options of the URL count as well.

    The options are evaluated when the first transport is made: a layout may list many stores of which a process uses
    few.
    """
    way: TransportFactory | None = None

    def factory(store: str) -> Transport:
        nonlocal way
        if way is None:
            way = _way(driver, options() if callable(options) else options)
        return way(store)

    return factory


def with_url_options(options: ServerOptions) -> ServerOptions:
    """Return the options with those that the URL has."""
    if options.url is not None:
        given = ServerUrl(options.url).options
        options = replace(
            options,
            command_timeout=float(given.get("socket_timeout", options.command_timeout)),
            connect_timeout=float(given.get("socket_connect_timeout", options.connect_timeout)),
            max_connections=int(given.get("max_connections", options.max_connections)),
            client_name=given.get("client_name", options.client_name),
        )
    return options


def _way(driver: Driver, options: ServerOptions) -> TransportFactory:
    options = with_url_options(options)
    template = driver.template(options)
    if options.cluster is not None:
        seeds = options.cluster
        return lambda store: ClusterTransport(replace(template, store=store), seeds, options)
    if options.sentinel is not None:
        sentinels, service = driver.sentinels(options), options.sentinel.service
        return lambda store: _sentinel_transport(store, template, sentinels, service, options)
    return lambda store: StandaloneTransport(replace(template, store=store), options)


def _sentinel_transport(
    store: str, template: ServerEndpoint, sentinels: list[ServerEndpoint], service: str, options: ServerOptions
) -> SentinelTransport:
    own = [replace(sentinel, store=store) for sentinel in sentinels]
    return SentinelTransport(replace(template, store=store), own, service, options)


def factory_of_client(driver: Driver, client: Any) -> TransportFactory:
    """Return our own factory for a client that is exactly the library's, else one that calls the client itself."""
    if is_blocking(client) or not callable(getattr(client, "execute_command", None)):
        raise TypeError(f"a client of {driver.name}.asyncio is needed, not {type(client).__name__}")
    options = ServerOptions()
    pool: Any = getattr(client, "connection_pool", None)
    if type(client) is driver.client and driver.is_plain(pool):
        arguments = pool.connection_kwargs
        options = _with_timeouts(options, arguments)
        endpoint = driver.endpoint(pool.connection_class, arguments)
        return lambda store: StandaloneTransport(replace(endpoint, store=store), options)
    if type(client) is driver.client and driver.is_managed(pool):
        manager, service = pool.sentinel_manager, pool.service_name
        pools = [sentinel.connection_pool for sentinel in manager.sentinels]
        if pool.is_master and all(map(driver.is_plain, pools)):
            options = _with_timeouts(options, pool.connection_kwargs)
            template = driver.managed_endpoint(pool)
            sentinels = [driver.endpoint(p.connection_class, p.connection_kwargs) for p in pools]
            return lambda store: _sentinel_transport(store, template, sentinels, service, options)
    if type(client) is driver.cluster:
        node = next(iter(client.nodes_manager.startup_nodes.values()))
        if driver.is_plain_cluster(client, node):
            seeds = [(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
            options = _with_timeouts(options, node.connection_kwargs)
            template = driver.cluster_endpoint(node)
            return lambda store: ClusterTransport(replace(template, store=store), seeds, options)
    is_librarys = isinstance(client, (driver.client, driver.cluster))
    retry: Any = client.get_retry() if is_librarys and hasattr(client, "get_retry") else None
    repeats = _repetitions(retry) > 0
    if repeats:
        log.warning(
            "%s repeats commands by itself after a lost connection, so an increment may count twice; "
            "make it with a Retry of 0 times, or hand in a plain %s",
            type(client).__qualname__,
            driver.client.__name__,
        )
    return lambda store: CustomClientTransport(client, options, store, is_librarys=is_librarys, repeats=repeats)


def _repetitions(retry: Any) -> int:
    """Return how often a client library repeats a command; None is never."""
    if retry is None:
        return 0
    # The libraries' versions before redis-py 6 keep it to themselves.
    return int(retry.get_retries()) if hasattr(retry, "get_retries") else int(getattr(retry, "_retries", 1))


def _with_timeouts(options: ServerOptions, arguments: dict[str, Any]) -> ServerOptions:
    """Take over the timeouts that somebody has set on a client; ours stay where there is none."""
    command, connect = arguments.get("socket_timeout"), arguments.get("socket_connect_timeout")
    return replace(
        options,
        command_timeout=float(command or options.command_timeout),
        connect_timeout=float(connect or command or options.connect_timeout),
    )


# ---------------------------------------------------------------- clients for features that stores lack


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
    """The base of all connections of clients."""
    common = {**driver.quiet, "socket_connect_timeout": options.connect_timeout, "socket_timeout": None}
    if options.url is None or not options.url.lower().startswith("unix"):
        common["socket_keepalive"] = True
    if not options.client_name:  # no CLIENT command at all
        common |= {"client_name": None} | (driver.quiet or {"lib_name": None, "lib_version": None})
    return common


def _login(driver: Driver, arguments: Mapping[str, Any], sources: Any, url: str | None = None) -> dict[str, Any]:
    """Gives each connection the present credentials, where they come from files."""
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
