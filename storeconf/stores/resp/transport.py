"""Transports: how the commands of a store find their server, and which are repeated when that fails."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from storeconf._pace import backoff
from storeconf.stores.resp.connect import connect, connect_raw
from storeconf.stores.resp.connection import Connection
from storeconf.stores.resp.errors import (
    ReplyError,
    ReplyTimeoutError,
    TransportError,
    code_of,
    is_forbidden,
    is_temporary,
)
from storeconf.stores.resp.keys import InvalidationListener
from storeconf.stores.resp.protocol import pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from storeconf.stores.resp.connect import RawConnection
    from storeconf.stores.resp.driver import ServerEndpoint
    from storeconf.stores.resp.keys import InvalidationFilter
    from storeconf.stores.resp.options import ServerOptions

__all__ = [
    "ONCE",
    "READ",
    "WRITE",
    "Transport",
    "NobodyAnswersError",
    "ServerNode",
    "StandaloneTransport",
    "Survey",
    "first_answer",
]

READ, WRITE, ONCE = range(3)
"""Commands that change nothing, that may be repeated, and that may be repeated only if they were not executed."""

SHORTEST_WAIT, LONGEST_WAIT = 0.02, 1.0
"""Seconds between two attempts of one call: before the first repetition, and at most."""

PAUSE_BETWEEN_LOOKS = 1.0
"""Seconds in which a server that remains a replica costs us the connection only once."""


class ServerNode(Protocol):
    """One server of a transport, as SCAN needs it."""

    generation: int

    def call(self, data: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        """Send a command to this very server."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Where keys are: the servers, a value that changes when keys move, and the servers that keys are moving to."""

    nodes: Sequence[ServerNode]
    view: object = None
    receiving: Sequence[ServerNode] = ()


class Transport(ABC):
    """The way to a server, a Cluster or the server that Sentinels name. Belongs to one event loop."""

    topology: str
    spreads = False
    """Whether keys are on several servers, so that a command may name only one."""

    in_order = True
    """Whether calls by one `caller` are executed in their order, those of one turn of the loop with nothing between."""

    call: Callable[[bytes, bytes], asyncio.Future[Any]]
    """Send a packed command on a key; the future gets the reply, `ReplyError` or `TransportError`."""

    def __init__(self, timeout: float, retries: int) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.timeout = timeout
        self.retries = retries

    async def send(self, data: bytes, key: bytes, kind: int) -> Any:
        """Send a command, and repeat it where it must be and may be."""
        try:
            return await self.call(data, key)
        except (ReplyError, TransportError) as error:
            return await self.again(error, data, key, kind)

    def caller(self, key: bytes) -> Callable[[bytes], asyncio.Future[Any]]:
        """Return the function that sends packed commands on that key, all on one connection."""
        return lambda data: self.call(data, key)

    async def read_in_order(self, commands: Sequence[bytes], key: bytes) -> list[Any]:
        """Send reading commands on a key: together, or one by one where that fails, as after a redirection."""
        deadline = self.loop.time() + self.timeout
        error: ReplyError | TransportError | None = None
        replies: list[Any] = []
        if self.in_order:
            futures: list[asyncio.Future[Any]] = []
            try:
                futures.extend(map(self.caller(key), commands))
                for future in futures:
                    try:
                        replies.append(await future)
                    except (ReplyError, TransportError) as failure:
                        error = error or failure
            except TransportError as failure:
                error = failure
            finally:
                for future in futures:
                    future.cancel()
            if error is None:
                return replies
        try:
            async with asyncio.timeout_at(deadline):
                first, *others = commands
                if error is None:
                    replies = [await self.send(first, key, READ)]
                else:
                    replies = [await self.again(error, first, key, READ)]
                return replies + [await self.send(data, key, READ) for data in others]
        except TimeoutError as late:
            text = f"no success within {self.timeout:g} s" + (f": {error}" if error else "")
            raise ReplyTimeoutError(text, sent=True, cause=error) from late

    async def again(self, error: Exception, data: bytes, key: bytes, kind: int) -> Any:
        """Repeat a command that failed with ``error``, if that is safe, as often as allowed and while time is left."""
        deadline = self.loop.time() + self.timeout - getattr(error, "waited", 0.0)
        sent = isinstance(error, TransportError) and error.sent
        attempt, trying, may_have_sent = 0, False, self.watch_sending()
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    trying = False
                    if (attempt := await self.prepare(error, attempt, kind)) > self.retries:
                        raise error
                    trying = True
                    may_have_sent = self.watch_sending()
                    try:
                        return await self.repeat(error, data, key)
                    except (ReplyError, TransportError) as failure:
                        error = failure
                        sent = sent or (isinstance(error, TransportError) and error.sent)
        except TimeoutError:
            if not trying and isinstance(error, TransportError):
                error.sent = sent
                raise error from None
            sent = sent or may_have_sent()
            raise ReplyTimeoutError(f"no success within {self.timeout:g} s: {error}", sent=sent, cause=error) from error
        except (ReplyError, TransportError) as failure:
            # An earlier attempt may have been executed, even if the last one was refused or not even sent.
            failure.sent = sent
            raise

    async def prepare(self, error: Exception, attempt: int, kind: int) -> int:
        """Raise ``error`` if the command may not be repeated; else wait a little and count the attempt."""
        if isinstance(error, TransportError):
            if isinstance(error, ReplyTimeoutError) or (error.sent and kind == ONCE):
                raise error
        elif not isinstance(error, ReplyError) or not is_temporary(error):
            raise error
        if attempt < self.retries:
            await asyncio.sleep(backoff(attempt, first=SHORTEST_WAIT, longest=LONGEST_WAIT))
        return attempt + 1

    async def repeat(self, error: Exception, data: bytes, key: bytes) -> Any:
        """Send the command once more."""
        return await self.call(data, key)

    def call_again(self, error: Exception, data: bytes, key: bytes) -> asyncio.Future[Any]:
        """Send a command once more that failed with ``error``, without waiting for its outcome."""
        return self.call(data, key)

    def watch_sending(self) -> Callable[[], bool]:
        """Return a function that returns whether a command may have been sent since: was there a connection?"""
        return lambda: True

    async def ready(self) -> None:  # noqa: B027 - there is nothing to find out where all keys are on one server
        """Find out where keys are, where that is not known yet; failing is left to the commands."""

    def server_of(self, key: bytes) -> object:
        """Return a value that is the same for keys whose commands go to the same server."""
        return None

    @abstractmethod
    def listen(self, invalidations: InvalidationFilter) -> None:
        """Let ``invalidations`` receive the keys that the servers report as changed, where there is a way to."""

    @abstractmethod
    async def nodes(self) -> Sequence[ServerNode]:
        """Return the servers that hold the keys."""

    async def survey(self) -> Survey:
        """Find out where keys are now."""
        return Survey(await self.nodes())

    @abstractmethod
    def abort(self) -> None:
        """Let go of every connection, now."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection, and wait for that."""

    async def describe(self, key: bytes) -> str:
        """Ask every server, and describe them; a user that may not use INFO reads ``key``, as the store itself does."""
        try:
            kind = _server((await ask_all(await self.nodes(), pack("INFO", "server")))[0])
        except ReplyError as error:
            if not is_forbidden(error):
                raise
            await self.send(pack("EXISTS", key), key, READ)
            kind = "unidentified server (INFO not permitted)"
        return f"{kind}, {self.topology}, {await self.place()}"

    @abstractmethod
    async def place(self) -> str:
        """Return where it is connected to, without credentials."""


def _server(info: Any) -> str:
    """Name the server and its version."""
    if isinstance(info, dict):  # a client library has parsed it
        found = {str(name): str(value) for name, value in info.items()}
    else:
        text = info.decode("utf-8", "replace") if isinstance(info, bytes) else str(info)
        found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    for name in ("valkey", "redis"):
        if f"{name}_version" in found:
            return f"{name} {found[f'{name}_version']}"
    return "unknown server"


class StandaloneTransport(Transport):
    """One server, and one or a few connections to it."""

    topology = "standalone"

    def __init__(self, endpoint: ServerEndpoint, options: ServerOptions) -> None:
        super().__init__(options.command_timeout, options.retries)
        self.endpoint = endpoint
        self._listener: InvalidationListener | None = None
        self._connect_timeout = options.connect_timeout
        self._looked_again = -PAUSE_BETWEEN_LOOKS
        self._connections = [self._connection(options) for _ in range(options.max_connections)]
        self.call: Callable[[bytes, bytes], asyncio.Future[Any]] = (
            self._connections[0].call if len(self._connections) == 1 else self._call_least_busy
        )

    def _connection(self, options: ServerOptions) -> Connection:
        connect_here = partial(connect, self.endpoint, options.connect_timeout)
        return Connection(
            connect_here, timeout=options.command_timeout, peer=self.endpoint.address, store=self.endpoint.store
        )

    def _call_least_busy(self, data: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        return min(self._connections, key=_waiting).call(data)

    def watch_sending(self) -> Callable[[], bool]:
        """See `Transport`."""
        return watch_sending(self._connections)

    def caller(self, key: bytes) -> Callable[[bytes], asyncio.Future[Any]]:
        """See `Transport`; the connection is the one that is least busy now."""
        return min(self._connections, key=_waiting).call

    async def prepare(self, error: Exception, attempt: int, kind: int) -> int:
        """Also: look for the primary again when it has become a replica."""
        if isinstance(error, ReplyError) and code_of(error) == "READONLY":
            now = self.loop.time()
            if now - self._looked_again > PAUSE_BETWEEN_LOOKS:
                self._looked_again = now
                for connection in self._connections:
                    connection.drop("the server has become a replica")
                if self._listener is not None:
                    self._listener.drop()
        return await super().prepare(error, attempt, kind)

    def listen(self, invalidations: InvalidationFilter) -> None:
        """Listen on a connection of its own, for which a server that forbids CLIENT has no use."""
        if self._listener is not None:
            self._listener.ensure_running()
        elif self.endpoint.client_name:
            self._listener = InvalidationListener(
                invalidations,
                partial(self.raw_connection, 3),
                label=self._connections[0].label,
                timeout=self.timeout,
            )

    async def raw_connection(self, protocol: int) -> RawConnection:
        """Return a new connection that speaks that version of RESP."""
        return await connect_raw(replace(self.endpoint, protocol=protocol), self._connect_timeout)

    async def nodes(self) -> Sequence[ServerNode]:
        """Return the one server."""
        return self._connections[:1]

    def abort(self) -> None:
        """Let go of every connection, now."""
        if self._listener is not None:
            self._listener.abort()
        for connection in self._connections:
            connection.abort()

    async def close(self) -> None:
        """Let go of every connection, and wait for that."""
        if self._listener is not None:
            await self._listener.close()
        await asyncio.gather(*(connection.close() for connection in self._connections))

    async def place(self) -> str:
        """Return where it is connected to."""
        tls = "TLS" if self.endpoint.tls is not None else "no TLS"
        peer = self._connections[0].peer
        return f"{peer}, {'unix socket' if self.endpoint.path else tls}, database {self.endpoint.db}"


async def ask_all(nodes: Sequence[ServerNode], command: bytes) -> list[Any]:
    """Return the reply of each of these servers; raise an error of one when all have answered."""
    replies = await asyncio.gather(*(node.call(command) for node in nodes), return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return replies


def watch_sending(connections: Iterable[Connection]) -> Callable[[], bool]:
    """Return a function that returns whether one of the connections is up, or has been since.

    That it has none at the end is not enough: a connection may have been lost in the turn in which time runs out.
    """
    before = [(connection, connection.generation) for connection in connections]
    if any(connection.is_up for connection, _ in before):
        return lambda: True
    return lambda: any(connection.generation != generation for connection, generation in before)


def _waiting(connection: Connection) -> int:
    return connection.waiting


PATIENCE = 0.2
"""Seconds after which another server is asked as well."""

S = TypeVar("S")
T = TypeVar("T")


class NobodyAnswersError(Exception, Generic[S]):
    """None of the servers answered; ``failures`` has each with its error."""

    def __init__(self, failures: list[tuple[S, Exception]]) -> None:
        super().__init__("nobody answers")
        self.failures = failures


async def first_answer(servers: Sequence[S], ask: Callable[[S], Awaitable[T]]) -> tuple[S, T]:
    """Ask one after the other, without waiting long for any; return the first one that answered, and its reply."""
    waiting = list(servers)
    asked: dict[asyncio.Task[T], S] = {}
    failures: list[tuple[S, Exception]] = []
    try:
        while waiting or asked:
            if waiting:
                server = waiting.pop(0)
                asked[asyncio.ensure_future(_asking(ask, server))] = server
            done, _ = await asyncio.wait(
                asked, timeout=PATIENCE if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                server = asked.pop(task)
                try:
                    return server, task.result()
                except (OSError, TransportError, ReplyError) as error:
                    failures.append((server, error))
        raise NobodyAnswersError(failures)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _asking(ask: Callable[[S], Awaitable[T]], server: S) -> T:
    return await ask(server)
