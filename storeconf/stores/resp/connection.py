"""One multiplexed connection: the commands of one turn of the loop go out together, replies are matched in order.

    IDLE ── a call ──> CONNECTING ── connected ──> UP
     ^ ^                │      │                   │
     │ └── cancelled ───┘      │ failed            │ lost
     │                         v                   │
     ├── a timer, retry_now ── PAUSING             │
     └─────────────────────────────────────────────┘

``abort`` and ``close`` lead from every state to CLOSED, for good. In PAUSING calls fail at once; the pause grows with
each failure, up to a cap. The timer that ends it is set before the state, so that no error can come between the two.

Calls wait in ``_pending``, oldest first; the last ones, one for each entry of ``_buffer``, are not sent yet. Only in UP
is anything written. A call that fails before it was sent is never sent. Calls need no timer each: one ticks a fixed
number of times per timeout, while anything waits, and remembers how many calls there had been.

Longer than other modules, because one state machine, which is only right as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any

from storeconf._pace import backoff
from storeconf.stores.resp.errors import (
    ConnectionLostError,
    LoginRefusedError,
    NotConnectedError,
    ProtocolError,
    ReplyError,
    ReplyTimeoutError,
    SendBufferFullError,
    TransportError,
    reason,
)
from storeconf.stores.resp.options import labelled
from storeconf.stores.resp.protocol import MORE, PUSH, make_reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Connection"]

log: logging.Logger = logging.getLogger("storeconf.stores")

IDLE, CONNECTING, UP, PAUSING, CLOSED = range(5)

TICKS = 16
"""Looks at the clock per timeout: a call ends at the latest after its timeout, at the earliest a 17th before."""

SLICE = 1 << 18
"""Bytes given to the transport at once, so that it can signal that its buffer is full."""

HIGH_WATER = 1 << 20
"""Bytes that the transport buffers before it signals that it is full."""

MOST_WAITING = 64 << 20
"""Bytes that may wait while nothing can be sent; then calls are refused."""

MOST_CALLS = 100_000
"""Calls that may wait while nothing can be sent; then calls are refused."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two attempts to connect: after the first failure, and at most."""


class Connection:
    """One connection that many tasks share. Belongs to one event loop.

    ``connect`` makes a transport that is ready for commands and returns it with the server's address; how it finds the
    server, and how long that may take, is its affair. ``peer`` names the server until then. Messages name ``store`` as
    well. Times are in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[asyncio.Transport, str]]],
        *,
        timeout: float,
        peer: str,
        store: str,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.peer: str = peer
        self._store = store
        self.generation: int = 0
        """Counts connections: state in one server's memory, such as SCAN's cursors, is void after a change."""
        self._connect = connect
        self._timeout = timeout
        self._future = self.loop.create_future
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._buffer: list[bytes] = []  # the data that the last of the pending ones have yet to send, one for one
        self._state = IDLE
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None]
        self._protocol: _Protocol | None = None
        self._open: set[asyncio.Future[None]] = set()  # one for each connection that is not gone yet
        self._connecting: asyncio.Task[None] | None = None
        self._waking: asyncio.TimerHandle | None = None
        self._failures = 0
        self._why: BaseException | None = None
        # True unless a command may be written at once or a flush may be scheduled for it.
        self._scheduled = True
        self._blocked = True  # nothing can be sent: not connected, or the server does not read
        self._held = 0  # bytes in the buffer while blocked
        # The ring: how many calls had been made at each of the last ticks.
        self._replies = 0
        self._marks: deque[int] = deque(maxlen=TICKS)
        self._timer: asyncio.TimerHandle | None = None
        self._silent = 0  # ticks since the last byte came

    def call(self, data: bytes, key: bytes = b"") -> asyncio.Future[Any]:
        """Send a packed command; the future gets its reply, `ReplyError`, or `TransportError`."""
        pending = self._pending
        if not pending:
            if not self._scheduled:
                if self._timer is None:
                    self._arm()
                future = self._future()
                pending.append(future)
                self._write(data)
                return future
            if self._state != UP:
                self._begin()
            if self._timer is None:
                self._arm()
        if self._blocked:
            self._admit(data)
        future = self._future()
        pending.append(future)
        self._buffer.append(data)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)
        return future

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._state == UP

    @property
    def label(self) -> str:
        """The server's name in messages."""
        return labelled(self.peer, self._store)

    @property
    def waiting(self) -> int:
        """How many calls wait for their replies."""
        return len(self._pending)

    # ------------------------------------------------------------------ sending

    def _flush(self) -> None:
        if self._is_stopped():
            if not self._blocked:
                self._block()
            return  # the data go out when the connection is there, or takes bytes again
        buffer = self._buffer
        if len(buffer) < 64:
            data = b"".join(buffer)
            if len(data) <= SLICE:
                self._buffer = []
                self._scheduled = False
                if data:
                    self._write(data)
                return
        at, count = 0, len(buffer)
        while at < count:
            start, size = at, 0
            while at < count and size < SLICE:
                size += len(buffer[at])
                at += 1
            self._write(b"".join(buffer[start:at]))
            if at < count and self._is_stopped():
                del buffer[:at]
                self._block()
                return
        self._buffer = []
        self._scheduled = False

    def _is_stopped(self) -> bool:
        return self._protocol is None or self._protocol.paused

    def _block(self) -> None:
        self._blocked = True
        self._held = sum(map(len, self._buffer))

    def _admit(self, data: bytes) -> None:
        # Where nothing waits, one may be as long as it likes: else it could never be sent.
        if (self._held and self._held + len(data) > MOST_WAITING) or len(self._buffer) >= MOST_CALLS:
            raise SendBufferFullError(f"the send buffer for {self.label} is full")
        self._held += len(data)

    def resume(self) -> None:
        """Go on sending; the connection takes bytes again."""
        self._blocked = False
        if self._buffer:
            self._flush()

    # ------------------------------------------------------------------ receiving

    def receive(self, reader: Any) -> None:
        """Give the replies that have come to the calls that wait for them."""
        gets = reader.gets
        pending = self._pending
        pop = pending.popleft
        before = len(pending)
        left = before - len(self._buffer)
        self._silent = 0
        try:
            while True:
                reply = gets()
                if reply is MORE:
                    break
                if reply.__class__ in PUSH:
                    continue
                if not left:
                    raise ProtocolError("a reply to no command")
                left -= 1
                future = pop()
                if not future.done():
                    if reply.__class__ is ReplyError:
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
        except ProtocolError as error:
            self._replies += before - len(pending)
            self._drop(error)
            return
        self._replies += before - len(pending)

    # ------------------------------------------------------------------ timeouts

    def _arm(self) -> None:
        self._marks.clear()
        self._silent = 0
        self._timer = self.loop.call_later(self._timeout / (TICKS + 1), self._tick, context=Context())

    def _tick(self) -> None:
        pending, marks = self._pending, self._marks
        if not pending:
            self._timer = None
            return
        self._timer = self.loop.call_later(self._timeout / (TICKS + 1), self._tick)
        self._silent += 1
        if len(marks) == TICKS and (late := marks[0] - self._replies) > 0:
            self._expire(late)
            if self._state == UP and self._silent > TICKS:
                self._drop(TimeoutError(f"no byte came for {self._timeout:g} s"))
        marks.append(self._replies + len(pending))

    def _expire(self, late: int) -> None:
        """Fail the ``late`` oldest calls; those already sent keep their place, so that their replies fall there."""
        pending, buffer = self._pending, self._buffer
        sent = len(pending) - len(buffer)
        text = f"{self.label} did not answer within {self._timeout:g} s"
        why = self._why if self._state != UP else None
        if late > sent:
            unsent = late - sent
            pending.rotate(-sent)
            for _ in range(unsent):
                future = pending.popleft()
                if not future.done():
                    future.set_exception(ReplyTimeoutError(text, sent=False, cause=why))
            pending.rotate(sent)
            self._replies += unsent
            self._held -= sum(map(len, buffer[:unsent]))
            del buffer[:unsent]
            late = sent
        for index, future in enumerate(pending):
            if index >= late:
                break
            if not future.done():
                future.set_exception(ReplyTimeoutError(text, sent=True))

    # ------------------------------------------------------------------ connecting and losing

    def _begin(self) -> None:
        if self._state == IDLE:
            self._state = CONNECTING
            # The loop's callbacks for the connection must not keep the variables of the first caller.
            self._connecting = Context().run(self.loop.create_task, self._attempt())
            self._connecting.add_done_callback(self._attempt_ended)
        elif self._state == PAUSING:
            assert self._why is not None
            raise NotConnectedError(self._why_not(self._why), cause=_root(self._why))
        elif self._state == CLOSED:
            raise NotConnectedError(f"the connection to {self.label} was closed")

    async def _attempt(self) -> None:
        try:
            transport, peer = await self._connect()
        except Exception as error:  # noqa: BLE001 - the waiting calls get it, of any kind, and the next attempt follows
            self._failed(error)
        else:
            self._connected(transport, peer)

    def _attempt_ended(self, attempt: asyncio.Task[None]) -> None:
        """Let the next call begin again where somebody has cancelled the attempt, perhaps with all tasks."""
        if attempt.cancelled() and attempt is self._connecting and self._state == CONNECTING:
            self._connecting, self._state = None, IDLE
            text = f"the attempt to connect to {self.label} was cancelled"
            self._fail_all(NotConnectedError, text, ConnectionAbortedError())

    def _connected(self, transport: asyncio.Transport, peer: str) -> None:
        self._transport, self._write = transport, transport.write
        self.peer = peer
        self._protocol = _Protocol(self)
        self._open.add(self._protocol.closed)
        self._protocol.closed.add_done_callback(self._open.discard)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        transport.set_protocol(self._protocol)
        self._connecting, self._why, self._failures, self._silent = None, None, 0, 0
        self._forget_cancelled()
        self._state = UP
        self._blocked = False
        self.generation += 1
        log.info("connected to %s", self.label)
        if transport.is_closing():
            self.lost(self._protocol, None)
        else:
            self._flush()

    def _forget_cancelled(self) -> None:
        """Drop calls that nobody waits for any more before anything is sent: they count as not sent."""
        waiting = [
            (future, data) for future, data in zip(self._pending, self._buffer, strict=True) if not future.done()
        ]
        self._replies += len(self._pending) - len(waiting)
        self._pending = deque(future for future, _ in waiting)
        self._buffer = [data for _, data in waiting]
        self._held = sum(map(len, self._buffer))

    def _failed(self, error: BaseException) -> None:
        pause = backoff(self._failures, first=SHORTEST_PAUSE, longest=LONGEST_PAUSE)
        # The timer comes before the state that only it ends.
        self._waking = self.loop.call_later(pause, self._wake)
        self._state = PAUSING
        self._connecting, self._why = None, error
        self._failures += 1
        why = self._why_not(error)
        self._fail_all(NotConnectedError, why, error)
        level = logging.ERROR if isinstance(error, LoginRefusedError) and error.rotating else logging.WARNING
        log.log(level, "no connection: %s; the next attempt in %.0f ms at the earliest", why, pause * 1000)

    def _why_not(self, error: BaseException) -> str:
        return str(error) if isinstance(error, NotConnectedError) else f"can't connect to {self.label}: {reason(error)}"

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        if self._state == PAUSING:
            self._state = IDLE

    def retry_now(self) -> None:
        """Make the next call connect at once, for there is news of the server."""
        if self._state == PAUSING:
            self._failures = 0
            self._wake()

    def drop(self, why: str) -> None:
        """Give the connection up; the next call makes another one."""
        if self._state == UP:
            self._drop(ConnectionResetError(why))

    def _drop(self, why: BaseException) -> None:
        assert self._protocol is not None
        assert self._transport is not None
        self._transport.abort()
        self.lost(self._protocol, why)

    def lost(self, protocol: _Protocol, why: BaseException | None) -> None:
        """Fail all calls that wait for the connection of ``protocol``, unless that is long gone."""
        if self._protocol is not protocol:
            return
        self._protocol = None
        self._scheduled = self._blocked = True
        self._why = why or ConnectionResetError("the server closed the connection")
        if self._state != CLOSED:
            self._state = IDLE
            log.warning("lost the connection to %s: %s", self.label, reason(self._why))
        self._fail_all(ConnectionLostError, f"lost the connection to {self.label}: {reason(self._why)}", self._why)

    def _fail_all(self, kind: type[TransportError], text: str, why: BaseException) -> None:
        """Fail every call: those that were sent by ``kind``, the others by `NotConnectedError`."""
        pending, marks = self._pending, list(self._marks)
        unsent = len(self._buffer)
        tick, mark, index = self._timeout / (TICKS + 1), 0, self._replies
        self._replies += len(pending)
        self._buffer = []
        self._held = 0
        cause = _root(why)
        while pending:
            future = pending.popleft()
            index += 1
            while mark < len(marks) and marks[mark] < index:
                mark += 1
            if not future.done():
                waited = tick * (len(marks) - mark + 1)
                failure = kind if len(pending) >= unsent else NotConnectedError
                future.set_exception(failure(text, waited=waited, cause=cause))

    def abort(self) -> None:
        """Close for good, now."""
        self._state = CLOSED
        for handle in (self._timer, self._waking):
            if handle is not None:
                handle.cancel()
        self._timer = self._waking = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._scheduled = self._blocked = True
        self._protocol = None
        self._fail_all(
            ConnectionLostError, f"the connection to {self.label} was closed", ConnectionAbortedError("closed")
        )

    async def finish(self) -> None:
        """Close for good, after the calls under way have their replies."""
        if self._pending:
            await asyncio.wait(list(self._pending))
        await self.close()

    async def close(self) -> None:
        """Close for good, and wait until the connection is gone."""
        connecting = self._connecting
        self.abort()
        waits: list[asyncio.Future[None]] = [*self._open, *([] if connecting is None else [connecting])]
        if waits:
            await asyncio.wait(waits, timeout=1.0)


def _root(why: BaseException | None) -> BaseException | None:
    """The error reply that kept us from connecting, if there was one, else the error itself."""
    return why.__cause__ if isinstance(why, NotConnectedError) and isinstance(why.__cause__, ReplyError) else why


class _Protocol(asyncio.Protocol):
    """Called by the event loop for one transport of a connection."""

    __slots__ = ("_connection", "_feed", "_reader", "closed", "paused")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = make_reader()
        self._feed = self._reader.feed
        self.closed: asyncio.Future[None] = connection.loop.create_future()
        self.paused: bool = False

    def data_received(self, data: bytes) -> None:
        self._feed(data)
        if self._connection._protocol is self:
            self._connection.receive(self._reader)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._connection._protocol is self:
            self._connection.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.lost(self, error)
        self.closed.set_result(None)
