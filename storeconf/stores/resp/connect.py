"""One connection attempt: connect, and shake hands in one write and one round trip."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

from storeconf import __version__
from storeconf._pace import OwnThread
from storeconf.stores.resp.errors import (
    LoginRefusedError,
    NotConnectedError,
    ProtocolError,
    ReplyError,
    is_forbidden,
    is_temporary,
    reason,
)
from storeconf.stores.resp.protocol import MORE, PUSH, make_reader, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.stores.resp.driver import ServerEndpoint, Tls
    from storeconf.stores.resp.options import Login

__all__ = ["RawConnection", "connect", "connect_raw"]

HUNG_UP = "the server closed the connection"


class RawConnection(asyncio.Protocol):
    """A plain exchange of commands and replies, before a `Connection` takes its transport over."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._reader = make_reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.lost: BaseException | None = None
        """The reason for the end of the connection, or the server's unrequested message before it."""
        self._closed = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._messages: asyncio.Queue[Any] | None = None
        self._pushed: Callable[[list[Any]], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Give each reply to whom it belongs."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not MORE:
                if isinstance(reply, ReplyError):
                    reply = ReplyError(reason(reply))  # the server may quote the command, and with it a password
                if self._messages is not None and isinstance(reply, list):
                    self._messages.put_nowait(reply)
                elif reply.__class__ in PUSH:
                    if self._pushed is not None:
                        self._pushed(cast("list[Any]", reply))
                elif not self._waiting:
                    # A reply to no command is the reason for which the server is about to close the connection.
                    self.lost = reply if isinstance(reply, ReplyError) else ProtocolError("a reply to no command")
                    self.abort()
                else:
                    future = self._waiting.popleft()
                    if future.done():
                        continue
                    if isinstance(reply, ReplyError):
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
        except ProtocolError as error:
            self.lost = error
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the calls that still wait."""
        self.lost = self.lost or error or ConnectionResetError(HUNG_UP)
        for future in self._waiting:
            if not future.done():
                future.set_exception(self._failure())
        self._waiting.clear()
        if not self._closed.done():
            self._closed.set_result(None)
        if self._messages is not None:
            self._messages.put_nowait(None)

    def _failure(self) -> NotConnectedError:
        assert self.lost is not None
        return NotConnectedError(f"lost the connection to {self._label}: {reason(self.lost)}", cause=self.lost)

    def ask(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply or `ReplyError`."""
        return self.ask_all([pack(*words)])[0]

    def ask_all(self, commands: list[bytes]) -> list[asyncio.Future[Any]]:
        """Send packed commands in one write; each future gets a reply or `ReplyError`."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        if self.lost is None:
            self._waiting.extend(futures)
            self._write(b"".join(commands))
        else:
            for future in futures:
                future.set_exception(self._failure())
        return futures

    def subscribe(self, *channels: str) -> asyncio.Queue[Any]:
        """Turn the connection into one that only receives messages; return their queue, which ends with None."""
        self._messages = asyncio.Queue()
        self._write(pack("SUBSCRIBE", *channels))
        return self._messages

    def on_push(self, receive: Callable[[list[Any]], None]) -> None:
        """Give ``receive`` each message that answers no command."""
        self._pushed = receive

    async def is_gone(self, patience: float) -> bool:
        """Whether the connection ends within so many seconds."""
        done, _ = await asyncio.wait([self._closed], timeout=patience)
        return bool(done)

    def probe(self) -> None:
        """Make a server that has been subscribed to answer."""
        self._write(pack("PING"))

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def detach(self) -> asyncio.Transport:
        """Return the connection for somebody else to take over in this very turn; raise if it is gone."""
        if self.lost is not None:
            raise self._failure()
        assert self.transport is not None
        return self.transport

    def abort(self) -> None:
        """Hang up, now."""
        if self.transport is not None:
            self.transport.abort()


async def connect(endpoint: ServerEndpoint, within: float) -> tuple[asyncio.Transport, str]:
    """Return a connection that is ready for commands, and where it leads."""
    raw = await connect_raw(endpoint, within)
    return raw.detach(), endpoint.address


async def connect_raw(endpoint: ServerEndpoint, within: float) -> RawConnection:
    """Connect and shake hands within so many seconds.

    Raise `NotConnectedError`, which names the server, the store and the reason; its cause is the server's reply if
    there was one.
    """
    attempt = _Attempt(endpoint, within)
    try:
        async with asyncio.timeout(within) as limit:
            await attempt.run()
    except BaseException as error:
        attempt.raw.abort()
        if isinstance(error, TimeoutError) and limit.expired():
            raise NotConnectedError(
                f"no connection to {endpoint.label} within {within:.3g} s: {attempt.stage}", cause=error
            ) from error
        raise
    return attempt.raw


class _Attempt:
    """One attempt to connect; ``stage`` describes its state, for the case that time runs out."""

    def __init__(self, endpoint: ServerEndpoint, within: float) -> None:
        self.raw = RawConnection(endpoint.label)
        self.stage = ""
        self._endpoint = endpoint
        self._within = within

    async def run(self) -> None:
        endpoint = self._endpoint
        context = None
        if endpoint.tls is not None:
            self.stage = "the files for TLS could not be read in time"
            try:
                context = await endpoint.tls.context(endpoint.label)
            except Exception as error:
                raise self._failure(error) from error
        self.stage = "there were no credentials in time"
        try:
            # A part of the time, so that a file that can't be read in it leaves time for the last value.
            login = await endpoint.credentials.login(endpoint.label, self._within / 2)
        except Exception as error:
            raise self._failure(error, "can't get the credentials for") from error
        try:
            await self._connect()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        if self.raw.lost is not None:
            raise self._ended(self.raw.lost)
        if context is not None:
            self.stage = "the TLS handshake was not answered; the server may not use TLS on this port"
            try:
                await self._start_tls(context)
            except (OSError, ValueError) as error:
                raise self._failed_handshake(error) from error
        self.stage = "the server accepted the connection, but did not answer"
        await self._shake_hands(login)

    def _failure(
        self, error: BaseException, what: str = "can't connect to", *, text: str | None = None
    ) -> NotConnectedError:
        why = reason(error) if text is None else f"{text}: {reason(error)}"
        return NotConnectedError(f"{what} {self._endpoint.label}: {why}", cause=error)

    async def _connect(self) -> None:
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        self.stage = "the server did not accept the connection"
        if endpoint.path is not None:
            await loop.create_unix_connection(lambda: self.raw, endpoint.path)
            return
        failure: OSError | None = None
        for address in await self._addresses():
            try:
                await loop.create_connection(lambda: self.raw, address, endpoint.port)
                break
            except OSError as error:
                failure = error
        else:
            raise failure or OSError("the host name has no address")
        assert self.raw.transport is not None
        self.raw.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def _addresses(self) -> list[str]:
        """Return the addresses of the host, whose name is looked up outside of asyncio's default executor."""
        host = self._endpoint.host
        if _is_address(host):
            return [host]
        stage, self.stage = self.stage, "the host name was not resolved in time"
        found = await _lookup(host).run()
        self.stage = stage
        return found

    async def _start_tls(self, context: Any) -> None:
        plain = self.raw.transport
        assert plain is not None
        try:
            self.raw.transport = await asyncio.get_running_loop().start_tls(
                plain, self.raw, context, server_hostname=self._endpoint.host
            )
        except BaseException:
            plain.abort()
            raise

    async def _shake_hands(self, login: Login) -> None:
        endpoint = self._endpoint
        needed, optional = self._greet(login)
        answers = await asyncio.gather(*needed, *optional, return_exceptions=True)
        if login.words and isinstance(answers[0], ReplyError) and _is_refusal(answers[0]):
            raise self._refused_login(answers[0])
        for answer in answers[: len(needed)]:
            if isinstance(answer, ReplyError):
                raise self._refused(answer)
        lost = next((each for each in answers if isinstance(each, NotConnectedError)), None)
        if lost is not None:
            # A server that closes the connection gives its reason as the first reply, to any command.
            if isinstance(answers[0], ReplyError) and not is_forbidden(answers[0]):
                raise self._refused(answers[0])
            raise self._ended(lost.__cause__ or lost)
        last = answers[-1]
        # A server that can't save answers PING with MISCONF, and can be read.
        if isinstance(last, ReplyError) and not is_forbidden(last) and not str(last).startswith("MISCONF"):
            raise self._refused(last)
        if login.words:
            endpoint.credentials.accepted = True

    def _greet(self, login: Login) -> tuple[list[asyncio.Future[Any]], list[asyncio.Future[Any]]]:
        """Send all that a connection begins with, in one write; return the replies that must be good, and the others.

        A server that accepts a connection only to say that it has too many closes it at once: a second write would
        fail, and its message would be lost. It is the first reply, to any command.
        """
        endpoint = self._endpoint
        needed: list[bytes] = []
        if endpoint.protocol == 3:
            words = login.words if len(login.words) != 1 else ("default", *login.words)
            needed.append(pack("HELLO", 3, *(("AUTH", *words) if words else ())))
        elif login.words:
            needed.append(pack("AUTH", *login.words))
        if endpoint.db:
            needed.append(pack("SELECT", endpoint.db))
        optional: list[bytes] = []
        if endpoint.client_name:
            optional.append(pack("CLIENT", "SETNAME", endpoint.client_name))
            optional.append(pack("CLIENT", "SETINFO", "LIB-NAME", "storeconf"))
            optional.append(pack("CLIENT", "SETINFO", "LIB-VER", __version__))
        optional.append(pack("PING"))
        replies = self.raw.ask_all([*needed, *optional])
        return replies[: len(needed)], replies[len(needed) :]

    def _refused(self, reply: ReplyError) -> NotConnectedError:
        return NotConnectedError(f"{self._endpoint.label} refused: {reason(reply)}", cause=reply)

    def _refused_login(self, reply: ReplyError) -> NotConnectedError:
        credentials = self._endpoint.credentials
        text = f"{self._endpoint.label} refused the login{credentials.origin}: {reason(reply)}"
        if credentials.accepted:
            # It has no cause because callers shall see an outage, which ends with the rotation, not wrong credentials.
            text += "; the server accepted an earlier login, so a password is probably being rotated"
            return LoginRefusedError(text, rotating=True)
        return LoginRefusedError(text, rotating=False, cause=reply)

    def _failed_handshake(self, error: Exception) -> NotConnectedError:
        """Say what TLS lacked, as far as can be told: many servers close the connection without an alert."""
        code = getattr(error, "reason", None) or ""  # OpenSSL's word for it
        guesses = []
        if not code or code in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"):
            guesses.append("may not use TLS on this port")
        tls = self._endpoint.tls
        assert tls is not None
        if not code or "ALERT" in code:
            guesses.append(_about_client_certificate(tls))
        text = "the TLS handshake failed" + (f"; the server {', or '.join(guesses)}" if guesses else "")
        if code == "CERTIFICATE_VERIFY_FAILED":
            trusted = "the system's CA certificates" if tls.ca_file is None else f"the CA file {tls.ca_file!r}"
            text += f"; its certificate was checked against {trusted}"
        return self._failure(error if str(error) else ConnectionResetError(HUNG_UP), text=text)

    def _ended(self, why: BaseException) -> NotConnectedError:
        """Quote the server's message, or name what it may have expected instead."""
        if isinstance(why, ReplyError):
            return self._refused(why)
        tls = self._endpoint.tls
        text = "the connection ended in the handshake"
        if isinstance(why, ProtocolError):
            text = "the answer is not RESP, the protocol of Redis and Valkey"
        if self._endpoint.path is None and tls is None:
            text += "; the server may expect TLS on this port"
        elif tls is not None:
            text += f"; the server {_about_client_certificate(tls)}"
        return self._failure(why, text=text)


def _about_client_certificate(tls: Tls) -> str:
    if tls.cert_file is None:
        return "may require a client certificate"
    return f"may have refused the certificate in {tls.cert_file!r}"


@lru_cache(maxsize=256)
def _lookup(host: str) -> OwnThread[list[str]]:
    """Return the lookup of a host name, the same for all callers: a name server that hangs holds one thread."""

    def addresses() -> list[str]:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    return OwnThread(addresses, "storeconf-lookup")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_refusal(reply: ReplyError) -> bool:
    """Whether an error reply to HELLO or AUTH refuses the user or the password."""
    return not is_temporary(reply) and not is_forbidden(reply) and not str(reply).startswith("NOPROTO")
