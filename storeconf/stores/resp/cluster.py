"""The transport of a Cluster: a connection per node, a table of the nodes and their slots, and how it is updated."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from functools import partial
from random import shuffle
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.connect import connect, connect_raw
from storeconf.stores.resp.connection import Connection
from storeconf.stores.resp.errors import NotConnectedError, ReplyError, TransportError, is_forbidden
from storeconf.stores.resp.keys import InvalidationListener
from storeconf.stores.resp.protocol import pack
from storeconf.stores.resp.transport import NobodyAnswersError, Survey, Transport, ask_all, first_answer, watch_sending

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from storeconf.stores.resp.driver import ServerEndpoint
    from storeconf.stores.resp.keys import InvalidationFilter
    from storeconf.stores.resp.options import Address, ServerOptions

__all__ = ["ClusterTransport", "slot_of"]

SLOTS = 16384

MOST_REDIRECTIONS = 16
"""How often one call may be sent elsewhere before it fails."""

PAUSE_BETWEEN_READINGS = 0.05
"""Seconds between two readings of the table: a whole Cluster's calls may want it at once."""

LONGEST_HANDOVER = 1.0
"""Seconds in which the nodes that are left learn which replica has taken slots over."""

UNKNOWN_HOSTS = ("", "?")
"""The texts that nodes give for a host that they don't know: the host of the answering node is meant."""

_ASKING = pack(b"ASKING")
_CLUSTER_NODES = pack(b"CLUSTER", b"NODES")
_CLUSTER_SLOTS = pack(b"CLUSTER", b"SLOTS")


def slot_of(key: bytes) -> int:
    """Return the slot of a key: of the text in its first braces, if there is any, else of the whole key."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) & 16383


class ClusterTransport(Transport):
    """A Cluster. Reads and writes go to the primaries."""

    topology = "cluster"
    spreads = True

    def __init__(self, template: ServerEndpoint, seeds: Sequence[Address], options: ServerOptions) -> None:
        super().__init__(options.command_timeout, options.retries)
        self._template = template
        self._seeds = list(seeds)
        self._options = options
        self._connections: dict[Address, Connection] = {}
        self._table: list[Connection | None] = [None] * SLOTS
        self._owners: tuple[tuple[int, int, Address], ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._invalidations: InvalidationFilter | None = None
        self._listeners: dict[Address, InvalidationListener] = {}
        self._closed = False

    def call(self, data: bytes, key: bytes) -> asyncio.Future[Any]:
        """Send a packed command to the node that serves the key's slot."""
        connection = self._table[crc_hqx(key, 0) & 16383 if b"{" not in key else slot_of(key)]
        if connection is None:
            raise NotConnectedError(f"no node of the Cluster of store {self._template.store!r} serves the key")
        return connection.call(data)

    # ------------------------------------------------------------------ failures

    async def again(self, error: Exception, data: bytes, key: bytes, kind: int) -> Any:
        """Also: read the table before the first call, and follow redirections, which do not count as failures."""
        if isinstance(error, TransportError):
            self._want_table()
        return await super().again(error, data, key, kind)

    async def prepare(self, error: Exception, attempt: int, kind: int) -> int:
        """A redirection may be followed at once and always; else also look which nodes serve which slots now."""
        if _is_redirection(error):
            return attempt
        if self._owners:
            attempt = await super().prepare(error, attempt, kind)
        elif isinstance(error, ReplyError) or (isinstance(error, TransportError) and error.sent):
            raise error
        if attempt <= self.retries:
            try:
                await self._renew_table()
            except (TransportError, ReplyError):
                if not self._owners:
                    raise
                # The old table may still do; if not, the next attempt fails and says why.
        return attempt

    async def repeat(self, error: Exception, data: bytes, key: bytes) -> Any:
        """Send the command again, where a redirection points to or the table says."""
        for _ in range(MOST_REDIRECTIONS):
            try:
                return await self.call_again(error, data, key)
            except ReplyError as failure:
                if not _is_redirection(failure):
                    raise
                error = failure
        raise error

    def call_again(self, error: Exception, data: bytes, key: bytes) -> asyncio.Future[Any]:
        """See `Transport`; a redirection is followed."""
        if not _is_redirection(error):
            return self.call(data, key)
        how, number, place = str(error).split()[:3]
        slot = int(number)
        connection = self._connection_at(place, slot)
        if how == "MOVED":
            self._table[slot] = connection
            self._want_table()
            return connection.call(data)
        # Adjacent on one connection, so that nothing comes between.
        asking, answer = connection.call(_ASKING), connection.call(data)
        asking.add_done_callback(_take_note)
        return answer

    def watch_sending(self) -> Callable[[], bool]:
        """See `Transport`; a redirection may lead to any node, also to one that is new."""
        known = watch_sending(self._connections.values())
        before = set(self._connections)
        return lambda: (
            known() or any(connection.generation for a, connection in self._connections.items() if a not in before)
        )

    async def ready(self) -> None:
        """See `Transport`."""
        if not self._owners:
            with suppress(TransportError, ReplyError):
                await self._renew_table()

    def server_of(self, key: bytes) -> object:
        """See `Transport`."""
        return self._table[slot_of(key)]

    # ------------------------------------------------------------------ the table

    def _connection(self, address: Address) -> Connection:
        connection = self._connections.get(address)
        if connection is None:
            if self._closed:
                raise NotConnectedError(f"the connections of store {self._template.store!r} were closed")
            endpoint = self._template.at(address)
            connection = self._connections[address] = Connection(
                partial(connect, endpoint, self._options.connect_timeout),
                timeout=self._options.command_timeout,
                peer=endpoint.address,
                store=endpoint.store,
            )
        return connection

    def _connection_at(self, place: str, slot: int) -> Connection:
        """Return the connection to where a redirection points; an unknown host is that of the node which sent it."""
        host, _, port = place.rpartition(":")
        if host in UNKNOWN_HOSTS:
            current = self._table[slot]
            host = next(
                (a[0] for a, connection in self._connections.items() if connection is current), self._seeds[0][0]
            )
        return self._connection((host, int(port)))

    def _want_table(self) -> None:
        """See to it that the table is read, at most once in a while however many want it."""
        if self._reading is None and not self._closed:
            self._reading = Context().run(self.loop.create_task, self._read_table())
            self._reading.add_done_callback(self._have_table)

    def _have_table(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            reading.exception()  # its waiters have it; the others notice at their next call
        if self._closed:
            self._reading = None
        else:
            self.loop.call_later(PAUSE_BETWEEN_READINGS, self._forget_reading)

    def _forget_reading(self) -> None:
        self._reading = None

    async def _renew_table(self) -> None:
        self._want_table()
        if self._reading is not None:
            await asyncio.shield(self._reading)

    async def _read_table(self) -> None:
        """Ask the nodes, the connected ones first."""
        known = [address for address, connection in self._connections.items() if connection.is_up]
        others = [address for address in {*self._seeds, *self._connections} if address not in known]
        shuffle(known)
        shuffle(others)
        try:
            address, reply = await first_answer([*known, *others], self._ask)
        except NobodyAnswersError as error:
            node, failure = error.failures[-1]
            if isinstance(failure, ReplyError):
                label = self._connection(node).label
                raise NotConnectedError(f"{label} refused: {failure}", cause=failure) from failure
            raise failure from None
        self._take(reply, address)

    async def _ask(self, address: Address) -> Any:
        reply = await self._connection(address).call(_CLUSTER_SLOTS)
        if not reply:
            raise NotConnectedError(f"{self._connection(address).label} knows no node that serves slots")
        return reply

    def _take(self, reply: list[list[Any]], source: Address) -> None:
        """Update the table from CLUSTER SLOTS; close connections to nodes that serve no slots any more."""
        table: list[Connection | None] = [None] * SLOTS
        owners, serving = [], set()
        for first, last, primary, *_ in reply:
            host = (primary[0] or b"").decode()
            address = (host if host not in UNKNOWN_HOSTS else source[0], int(primary[1]))
            connection = self._connection(address)
            table[first : last + 1] = [connection] * (last + 1 - first)
            owners.append((first, last, address))
            serving.add(address)
        self._table = table
        self._owners = tuple(sorted(owners))
        for address in [address for address in self._connections if address not in serving]:
            self._let_go(self._connections.pop(address).finish())
        if self._invalidations is not None:
            self._listen_to(serving, self._invalidations)
        # Nodes come and go; one that served a moment ago is a better guess than the configured ones of long ago.
        self._seeds = list(dict.fromkeys([*serving, *self._seeds]))[:64]

    def _let_go(self, ending: Coroutine[Any, Any, None]) -> None:
        leaving = self.loop.create_task(ending)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    # ------------------------------------------------------------------ the rest

    def listen(self, invalidations: InvalidationFilter) -> None:
        """Listen to each primary, for each announces only the keys that it serves."""
        for listener in self._listeners.values():
            listener.ensure_running()
        if self._invalidations is None and self._template.client_name and not self._closed:
            self._invalidations = invalidations
            self._listen_to({address for _, _, address in self._owners}, invalidations)

    def _listen_to(self, serving: set[Address], invalidations: InvalidationFilter) -> None:
        for address in self._listeners.keys() - serving:
            self._let_go(self._listeners.pop(address).close())
        for address in serving - self._listeners.keys():
            endpoint = replace(self._template.at(address), protocol=3)
            self._listeners[address] = InvalidationListener(
                invalidations,
                partial(connect_raw, endpoint, self._options.connect_timeout),
                label=endpoint.label,
                timeout=self.timeout,
            )

    async def nodes(self) -> list[Connection]:
        """Return the connections to the primaries."""
        if not self._owners:
            await self._renew_table()
        return list(dict.fromkeys(connection for connection in self._table if connection is not None))

    async def survey(self) -> Survey:
        """Ask every primary which nodes serve which slots: one may not know yet about a change that the others know."""
        deadline = self.loop.time() + self.timeout
        while True:
            nodes = await self.nodes()
            try:
                found = [_slots_of_nodes(text) for text in await ask_all(nodes, _CLUSTER_NODES)]
            except ReplyError as error:
                if not is_forbidden(error):
                    raise
                return Survey(nodes, self._owners)  # as far as this is known where the command is forbidden
            views = [view for view, _ in found]
            if len(views[0]) == len(nodes) and all(view == views[0] for view in views):
                return Survey(nodes, views[0], [node for node, (_, more) in zip(nodes, found, strict=True) if more])
            if self.loop.time() > deadline:
                raise NotConnectedError(
                    f"the nodes of the Cluster of store {self._template.store!r} don't agree who serves which slots"
                )
            await asyncio.sleep(PAUSE_BETWEEN_READINGS)
            await self._renew_table()

    async def describe(self, key: bytes) -> str:
        """See `Transport`; a node that does not answer may just have lost its slots to a replica."""
        deadline = self.loop.time() + min(self.timeout, LONGEST_HANDOVER)
        while True:
            try:
                return await super().describe(key)
            except TransportError:
                if self.loop.time() > deadline:
                    raise
            await asyncio.sleep(PAUSE_BETWEEN_READINGS)
            await self._renew_table()

    def abort(self) -> None:
        """Let go of every connection, now."""
        self._closed = True
        for task in (self._reading, *self._leaving):
            if task is not None:
                task.cancel()
        for listener in self._listeners.values():
            listener.abort()
        for connection in self._connections.values():
            connection.abort()

    async def close(self) -> None:
        """Let go of every connection, and wait for that."""
        self._closed = True
        tasks = [task for task in (self._reading, *self._leaving) if task is not None]
        for task in tasks:
            task.cancel()
        tasks += [self.loop.create_task(listener.close()) for listener in self._listeners.values()]
        await asyncio.gather(
            *tasks, *(connection.close() for connection in self._connections.values()), return_exceptions=True
        )

    async def place(self) -> str:
        """Return where it is connected to."""
        tls = "TLS" if self._template.tls is not None else "no TLS"
        primaries = sorted({address for _, _, address in self._owners})
        return f"{len(primaries)} primaries ({', '.join(f'{host}:{port}' for host, port in primaries)}), {tls}"


def _take_note(asking: asyncio.Future[Any]) -> None:
    """Let an ASKING fail: the command behind it fails in the same way, or is redirected once more."""
    if not asking.cancelled():
        asking.exception()


def _is_redirection(error: Exception) -> bool:
    return isinstance(error, ReplyError) and str(error).startswith(("MOVED ", "ASK "))


def _slots_of_nodes(text: bytes) -> tuple[dict[bytes, list[bytes]], bool]:
    """Return the slots of each node that serves any, and whether the one that tells is receiving slots of others."""
    slots: dict[bytes, list[bytes]] = {}
    receives = False
    for line in text.splitlines():
        name, _, _, _, _, _, _, _, *served = line.split()
        receives = receives or any(b"-<-" in each for each in served)
        served = [each for each in served if not each.startswith(b"[")]
        if served:
            slots[name] = served
    return slots, receives
