"""Many commands at once: in slices that leave the event loop to others, and to each server as fast as it answers.

What one server fails or holds up does not keep the others from answering: the caller gets every reply that came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.errors import ReplyError, ReplyTimeoutError, TransportError, code_of, severity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from storeconf.stores.resp.transport import Transport

__all__ = ["MISSING", "send_all"]

SLICE = 250
"""Commands that are packed and sent before the event loop has its turn."""

SLICE_SIZE = 1 << 18
"""Bytes after which a slice ends."""

WINDOW = 8
"""Slices of which one server may owe the replies: what may wait for a server that does not read is bounded."""

MOST_TURNS = 16
"""How often one command may be sent."""

MISSING: Any = object()
"""What stands for the reply of a command that failed."""

Failures = dict[int, ReplyError | TransportError]


async def send_all(
    transport: Transport, keys: Sequence[bytes], command: Callable[[int], bytes], kind: int
) -> tuple[list[Any], ReplyError | TransportError | None]:
    """Send ``command(i)`` on ``keys[i]`` for each i, and repeat together what must be repeated and may be.

    Return the replies in order, `MISSING` for what failed, and the failure that says the most. Its ``sent`` is true if
    any of the commands may have been executed.
    """
    began = transport.loop.time()
    await transport.ready()
    call = _BulkCall(transport, keys, command, kind, waited=transport.loop.time() - began)
    await call.deliver(range(len(keys)), {}, 0, 0, None)
    failures = _distinct(call.failures)
    if not failures:
        return call.replies, None
    worst = max(failures, key=severity)
    worst.sent = call.sent or len(call.failures) < len(keys)
    return call.replies, worst


def _distinct(failures: Failures) -> Collection[ReplyError | TransportError]:
    """The failures without those that several commands share."""
    return {id(error): error for error in failures.values()}.values()


class _BulkCall:
    """One call of `send_all`."""

    def __init__(
        self, transport: Transport, keys: Sequence[bytes], command: Callable[[int], bytes], kind: int, *, waited: float
    ) -> None:
        self._transport = transport
        self._waited = waited
        self._keys = keys
        self._command = command
        self._kind = kind
        self.replies: list[Any] = [MISSING] * len(keys)
        self.failures: Failures = {}
        self.sent = False
        """Whether a command that failed may have been executed."""

    async def deliver(
        self, indices: Sequence[int], errors: Mapping[int, Exception], attempt: int, turn: int, deadline: float | None
    ) -> None:
        """Send these commands, each server's for itself; ``errors`` tells how they failed before."""
        parts = [indices]
        if self._transport.spreads:
            parts = await self._by_server(indices)
        if len(parts) == 1:
            await self._deliver_part(parts[0], errors, attempt, turn, deadline)
            return
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._deliver_part(part, errors, attempt, turn, deadline))

    async def _by_server(self, indices: Sequence[int]) -> list[Sequence[int]]:
        parts: dict[object, list[int]] = {}
        server_of, keys = self._transport.server_of, self._keys
        for at in range(0, len(indices), 16 * SLICE):
            if at:
                await asyncio.sleep(0)
            for index in indices[at : at + 16 * SLICE]:
                parts.setdefault(server_of(keys[index]), []).append(index)
        return list(parts.values())

    async def _deliver_part(
        self, indices: Sequence[int], errors: Mapping[int, Exception], attempt: int, turn: int, deadline: float | None
    ) -> None:
        failed = await self._send(indices, errors)
        if not failed:
            return
        distinct = _distinct(failed)
        self.sent = self.sent or any(error.sent for error in distinct)
        if deadline is not None:
            await self._repeat(failed, attempt, turn, deadline)
            return
        waited = max(self._waited, *(getattr(error, "waited", 0.0) for error in distinct))
        deadline = self._transport.loop.time() + self._transport.timeout - waited
        try:
            async with asyncio.timeout_at(deadline):
                await self._repeat(failed, attempt, turn, deadline)
        except TimeoutError:
            self._give_up(failed)

    def _give_up(self, failed: Failures) -> None:
        """Note why those commands failed that have no reply when the time is over."""
        late: dict[int, ReplyTimeoutError] = {}
        for index, error in failed.items():
            if self.replies[index] is MISSING and index not in self.failures:
                if id(error) not in late:
                    text = f"no success within {self._transport.timeout:g} s: {error}"
                    late[id(error)] = ReplyTimeoutError(text, sent=self.sent, cause=error)
                self.failures[index] = late[id(error)]

    async def _repeat(self, failed: Failures, attempt: int, turn: int, deadline: float) -> None:
        """Send again what failed and may be repeated; errors of one kind are treated alike."""
        groups: dict[object, Failures] = {}
        last, group = None, {}
        for index, error in failed.items():
            if error is not last:
                last = error
                like = (type(error), error.sent, code_of(error) if isinstance(error, ReplyError) else "")
                group = groups.setdefault(like, {})
            group[index] = error
        for group in groups.values():
            error = next(iter(group.values()))
            try:
                next_attempt = await self._transport.prepare(error, attempt, self._kind)
            except (ReplyError, TransportError) as failure:
                self.failures.update(group if failure is error else dict.fromkeys(group, failure))
                continue
            if next_attempt > self._transport.retries or turn >= MOST_TURNS:
                self.failures.update(group)
            else:
                await self.deliver(list(group), group, next_attempt, turn + 1, deadline)

    async def _send(self, indices: Sequence[int], errors: Mapping[int, Exception]) -> Failures:
        """Send one server's commands and take its replies; return what failed."""
        failed: Failures = {}
        waiting: deque[list[tuple[int, asyncio.Future[Any]]]] = deque()
        at, count = 0, len(indices)
        lost: TransportError | None = None
        may_have_sent = self._transport.watch_sending()
        try:
            while at < count and lost is None:
                batch: list[tuple[int, asyncio.Future[Any]]] = []
                waiting.append(batch)
                size = 0
                while at < count and len(batch) < SLICE and size < SLICE_SIZE:
                    index = indices[at]
                    data = self._command(index)
                    size += len(data)
                    try:
                        if errors:
                            future = self._transport.call_again(errors[index], data, self._keys[index])
                        else:
                            future = self._transport.call(data, self._keys[index])
                    except TransportError as error:
                        failed[index] = lost = error
                        at += 1
                        break
                    batch.append((index, future))
                    at += 1
                if at < count:
                    await asyncio.sleep(0)
                while waiting and (len(waiting) >= WINDOW or at >= count or lost is not None):
                    lost = await self._take(waiting[0], failed) or lost
                    waiting.popleft()
                if errors:
                    lost = None  # these go to several servers
        finally:
            if waiting:
                self.sent = self.sent or may_have_sent()
            for batch in waiting:
                for _, future in batch:
                    future.cancel()
        # What has not been sent would wait for the same server as long, and in vain.
        if lost is not None:
            failed.update(dict.fromkeys(indices[at:], lost))
        return failed

    async def _take(self, batch: list[tuple[int, asyncio.Future[Any]]], failed: Failures) -> TransportError | None:
        """Take the replies of a slice, and return how its server was lost, if it was."""
        lost = None
        for index, future in batch:
            try:
                self.replies[index] = await future
            except ReplyError as error:
                failed[index] = error
            except TransportError as error:
                failed[index] = lost = error
        return lost
