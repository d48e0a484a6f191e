"""The transport of a client that is not ours to replace: a subclass, a fake, one with its own connect function.

Commands go through its own ``execute_command``: correct, and slower, for each call takes one of its connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.errors import ReplyTimeoutError, from_driver
from storeconf.stores.resp.options import labelled
from storeconf.stores.resp.protocol import unpack
from storeconf.stores.resp.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from storeconf.stores.resp.invalidation import InvalidationFilter
    from storeconf.stores.resp.options import ServerOptions
    from storeconf.stores.resp.transport import ServerNode

__all__ = ["CustomClientTransport"]

MOST_AT_ONCE = 16
"""Calls under way at a time: clients open a connection for each, and refuse more than their pool holds."""


class _CustomClientNode:
    """One server of a foreign client: the client itself, or what a Cluster's client has for each node."""

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
        # Values are bytes, whatever the client makes of those that it reads for others.
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
    """Undo what a client does to replies that it decodes."""
    if isinstance(reply, str):
        return reply.encode()
    if isinstance(reply, list | tuple):
        return [_plain(item) for item in reply]
    return reply
