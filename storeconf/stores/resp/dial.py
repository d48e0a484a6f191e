"""One connection attempt: connect, and shake hands in one round trip."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from storeconf._version import __version__
from storeconf.stores.resp.commands import pack
from storeconf.stores.resp.errors import LinkDownError, ProtocolError, ReplyError, is_temporary, reason
from storeconf.stores.resp.reader import MORE, PUSH, make_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.stores.resp.settings import Endpoint

__all__ = ["Talk", "dial", "talk_to"]


class Talk(asyncio.Protocol):
    """A plain exchange of commands and replies on a connection, before a link takes it over."""

    def __init__(self) -> None:
        self._reader = make_reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._lost: BaseException | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._heard: asyncio.Queue[Any] | None = None
        self._hear: Callable[[list[Any]], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Give each reply to whom it belongs."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not MORE:
                if self._heard is not None and isinstance(reply, list):
                    self._heard.put_nowait(reply)
                elif reply.__class__ in PUSH:
                    if self._hear is not None:
                        self._hear(cast("list[Any]", reply))
                elif not self._waiting:
                    # What a server says unasked, it says before it hangs up.
                    self._lost = reply if isinstance(reply, ReplyError) else ProtocolError("a reply to no command")
                    self.transport.abort()
                else:
                    future = self._waiting.popleft()
                    if future.done():
                        continue
                    if isinstance(reply, ReplyError):
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
        except ProtocolError as error:
            self._lost = error
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever still waits."""
        self._lost = self._lost or error or ConnectionResetError("the server closed the connection")
        for future in self._waiting:
            if not future.done():
                future.set_exception(self._failure())
        self._waiting.clear()
        if not self._closed.done():
            self._closed.set_result(None)
        if self._heard is not None:
            self._heard.put_nowait(None)

    def _failure(self) -> LinkDownError:
        assert self._lost is not None
        return LinkDownError(reason(self._lost), cause=self._lost)

    def ask(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply or `ReplyError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            future.set_exception(self._failure())
            return future
        self._waiting.append(future)
        self.transport.write(pack(*words))
        return future

    def subscribe(self, *channels: str) -> asyncio.Queue[Any]:
        """Turn the connection into one that only hears channels; return where that goes, and None at the end."""
        self._heard = asyncio.Queue()
        self.transport.write(pack("SUBSCRIBE", *channels))
        return self._heard

    def hear(self, hear: Callable[[list[Any]], None]) -> None:
        """Let ``hear`` have each message that answers no command."""
        self._hear = hear

    async def is_gone(self, patience: float) -> bool:
        """Whether the connection ends within so many seconds."""
        done, _ = await asyncio.wait([self._closed], timeout=patience)
        return bool(done)

    def knock(self) -> None:
        """Make a server that has been subscribed to say something."""
        self.transport.write(pack("PING"))

    def leave(self) -> asyncio.Transport:
        """Return the connection for somebody else to take over in this very turn; raise if it is gone."""
        if self._lost is not None:
            raise self._failure()
        return self.transport

    async def close(self) -> None:
        """Hang up, and wait until that is done."""
        self.transport.abort()
        await self._closed


async def talk_to(endpoint: Endpoint) -> Talk:
    """Connect and shake hands; raise `LinkDownError` with the cause."""
    loop = asyncio.get_running_loop()
    talk = Talk()
    try:
        context = await endpoint.context()
    except (OSError, ValueError) as error:
        # The error does not name the file, and its "no such file" would be taken for the server's.
        text = f"can't use the certificates or the key for TLS to {endpoint.address}: {reason(error)}"
        raise LinkDownError(text, cause=error) from error
    try:
        if endpoint.path is not None:
            await loop.create_unix_connection(lambda: talk, endpoint.path)
        else:
            await loop.create_connection(lambda: talk, endpoint.host, endpoint.port, ssl=context)
            peer = talk.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except (OSError, ValueError) as error:
        raise LinkDownError(f"can't connect to {endpoint.address}: {reason(error)}", cause=error) from error
    try:
        await _shake_hands(talk, endpoint)
    except ReplyError as error:
        await talk.close()
        raise LinkDownError(f"{endpoint.address} refused: {reason(error)}", cause=error) from error
    except BaseException:
        talk.transport.abort()
        raise
    return talk


async def dial(endpoint: Endpoint) -> tuple[asyncio.Transport, str]:
    """Return a connection that is ready for commands, and where it leads."""
    talk = await talk_to(endpoint)
    return talk.leave(), endpoint.address


async def _shake_hands(talk: Talk, endpoint: Endpoint) -> None:
    login = await endpoint.login()
    needed, optional = [], []
    if endpoint.protocol == 3:
        user = ("AUTH", *(login if len(login) == 2 else ("default", *login))) if login else ()
        needed.append(talk.ask("HELLO", 3, *user))
    elif login:
        needed.append(talk.ask("AUTH", *login))
    if endpoint.db:
        needed.append(talk.ask("SELECT", endpoint.db))
    if endpoint.client_name:
        optional.append(talk.ask("CLIENT", "SETNAME", endpoint.client_name))
        optional.append(talk.ask("CLIENT", "SETINFO", "LIB-NAME", "storeconf"))
        optional.append(talk.ask("CLIENT", "SETINFO", "LIB-VER", __version__))
    # A server that takes the connection and then refuses us tells it by the first reply, to whatever command.
    optional.append(talk.ask("PING"))
    answers = await asyncio.gather(*needed, *optional, return_exceptions=True)
    for answer in answers[: len(needed)]:
        if isinstance(answer, BaseException):
            raise answer
    if any(isinstance(answer, LinkDownError) for answer in answers):
        # The reply says more than the end of the connection that follows it.
        raise next((a for a in answers if isinstance(a, ReplyError) and is_temporary(a)), None) or answers[-1]
    last = answers[-1]
    if isinstance(last, ReplyError) and not str(last).startswith(("NOPERM", "ERR unknown command")):
        raise last
