"""One transport per event loop, and how it is made: of options, or of a client that was handed in."""

from __future__ import annotations

import logging
import threading
import weakref
from asyncio import get_running_loop
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.cluster import ClusterTransport
from storeconf.stores.resp.custom_client import CustomClientTransport
from storeconf.stores.resp.driver import is_blocking
from storeconf.stores.resp.options import ServerOptions, ServerUrl
from storeconf.stores.resp.sentinel import SentinelTransport
from storeconf.stores.resp.transport import StandaloneTransport, Transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

    from storeconf.stores.resp.driver import Driver, ServerEndpoint

__all__ = ["Transports", "TransportFactory", "factory_of_client", "factory_of_options"]

_given_up: list[object] = []
"""What a forked child inherited of its parent's connections: kept, so that nothing touches them."""


class Transports:
    """The transports of one store; ``name`` returns the store's name, for the messages of its transports."""

    def __init__(self, factory: TransportFactory, name: Callable[[], str]) -> None:
        self._factory = factory
        self._name = name
        self.last: Transport | None = None
        """The transport that was used last; whoever looks here compares its loop with the running one."""
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


def _way(driver: Driver, options: ServerOptions) -> TransportFactory:
    if options.url is not None:
        given = ServerUrl(options.url).options
        options = replace(
            options,
            command_timeout=float(given.get("socket_timeout", options.command_timeout)),
            connect_timeout=float(given.get("socket_connect_timeout", options.connect_timeout)),
            max_connections=int(given.get("max_connections", options.max_connections)),
            client_name=given.get("client_name", options.client_name),
        )
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
