"""Many commands at once, and walking over a server's keys: listing a namespace, and deleting one.

Commands go in slices that leave the event loop to others, and to each server as fast as it answers; none blocks a
server. The failure or delay of one server does not keep the others from answering: the caller gets every reply
that came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.errors import ReplyError, ReplyTimeoutError, TransportError, code_of, severity
from storeconf.stores.resp.protocol import pack
from storeconf.stores.resp.transport import WRITE

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence

    from storeconf.stores.resp.transport import ServerNode, Transport

__all__ = ["MISSING", "delete_tree", "send_all", "walk"]

SLICE = 250
"""Commands that are packed and sent before the event loop has its turn."""

SLICE_SIZE = 1 << 18
"""Bytes after which a slice ends."""

WINDOW = 8
"""Slices of which one server may owe the replies: this bounds the data that wait for a server that does not read."""

MOST_TURNS = 16
"""How often one command may be sent."""

MISSING: Any = object()
"""Takes the place of the reply of a command that failed."""

Failures = dict[int, ReplyError | TransportError]


async def send_all(
    transport: Transport, keys: Sequence[bytes], command: Callable[[int], bytes], kind: int
) -> tuple[list[Any], ReplyError | TransportError | None]:
    """Send ``command(i)`` on ``keys[i]`` for each i, and repeat together the commands that must be repeated and may be.

    Return the replies in order, `MISSING` for commands that failed, and the failure that says the most. Its ``sent`` is
    true if any of the commands may have been executed.
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
        """Send commands again that failed and may be repeated; errors of one kind are treated alike."""
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
        """Send one server's commands and take its replies; return the failed ones."""
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
        # Unsent commands would wait for the same server as long, and in vain.
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


# ---------------------------------------------------------------- walking over a server's keys


COUNT = 2000
"""Keys that one SCAN looks at: fewer cost round trips, more hold up the server's other clients for milliseconds.

The smallest tried value with which 100,000 of 1,000,000 keys are deleted no slower than by a script on each server.
"""

_START = b"0"


class _MovedError(Exception):
    """The walk must begin again: another server answers, or keys have changed servers."""


async def walk(transport: Transport, glob: bytes) -> AsyncIterator[list[bytes]]:
    """Yield the keys that match, in batches; each that lives throughout comes at least once."""
    error: TransportError | ReplyError | None = None
    attempt = 0
    while True:
        if error is not None and (attempt := await transport.prepare(error, attempt, WRITE)) > transport.retries:
            raise error
        try:
            before = await transport.survey()
            async with aclosing(_batches(before.nodes, glob)) as batches:
                async for keys in batches:
                    yield keys
            after = await transport.survey()
            if after.receiving:
                # What was on its way there has been missed where it came from, if it left before we came by.
                async with aclosing(_batches(after.receiving, glob)) as batches:
                    async for keys in batches:
                        yield keys
                after = await transport.survey()
            if after.view == before.view:
                return
            error = None
        except (TransportError, ReplyError) as failure:
            error = failure
        except _MovedError:
            error = None


async def _batches(nodes: Sequence[ServerNode], glob: bytes) -> AsyncGenerator[list[bytes]]:
    """Yield the keys of several servers that match."""
    for node in nodes:
        cursor, generation = _START, None
        while True:
            cursor, keys = _found(await _search(node, cursor, glob))
            if generation not in (None, node.generation):
                raise _MovedError
            generation = node.generation
            if keys:
                yield keys
            if cursor == _START:
                break


async def delete_tree(transport: Transport, glob: bytes, ours: re.Pattern[bytes]) -> None:
    """Delete the keys that match ``glob`` and begin with ``ours``, all that exist now and are not rewritten.

    The error that ends it says in ``sent`` whether any key may be gone.
    """
    deletions = _Deletions(transport)
    error: TransportError | ReplyError | None = None
    attempt = 0
    try:
        while True:
            if error is not None and (attempt := await transport.prepare(error, attempt, WRITE)) > transport.retries:
                raise error
            try:
                before = await transport.survey()
                await _sweep_all(deletions, before.nodes, glob, ours)
                after = await transport.survey()
                if after.receiving:
                    # What was on its way there has been missed where it came from, if it left before we came by.
                    await _sweep_all(deletions, after.receiving, glob, ours)
                    after = await transport.survey()
                if after.view == before.view:
                    return
                error = None
            except (TransportError, ReplyError) as failure:
                error = failure
            except _MovedError:
                error = None
    except (TransportError, ReplyError) as failure:
        failure.sent = deletions.may_have_deleted
        raise


class _Deletions:
    """The keys that one `delete_tree` deletes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.may_have_deleted = False

    async def send(self, keys: list[bytes]) -> None:
        """Delete these keys of one server, and note whether any may be gone."""
        # On a Cluster each command may name only one key.
        size = 1 if self._transport.spreads else max(1, len(keys))
        first, command = keys[::size], lambda at: pack(b"UNLINK", *keys[at * size : (at + 1) * size])
        try:
            deleted, error = await send_all(self._transport, first, command, WRITE)
        except asyncio.CancelledError:
            self.may_have_deleted = True
            raise
        if error is not None:
            self.may_have_deleted = self.may_have_deleted or error.sent
            raise error
        self.may_have_deleted = self.may_have_deleted or any(deleted)


async def _sweep_all(deletions: _Deletions, nodes: Sequence[ServerNode], glob: bytes, ours: re.Pattern[bytes]) -> None:
    """Go over all those servers at the same time; a failure is raised when all have ended."""
    outcomes = await asyncio.gather(*(_sweep(deletions, node, glob, ours) for node in nodes), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def _sweep(deletions: _Deletions, node: ServerNode, glob: bytes, ours: re.Pattern[bytes]) -> None:
    """Go once over the keys of one server, which looks for the next batch while we choose and delete the last one."""
    searching = _search(node, _START, glob)
    deleting: asyncio.Future[None] | None = None
    generation = None
    try:
        while True:
            cursor, keys = _found(await searching)
            if generation not in (None, node.generation):
                raise _MovedError
            generation = node.generation
            if cursor != _START:
                searching = _search(node, cursor, glob)
            chosen = [key for key in keys if ours.match(key) is not None and _is_text(key)]
            if deleting is not None:
                await deleting
            deleting = asyncio.ensure_future(deletions.send(chosen))
            if cursor == _START:
                await deleting
                return
    finally:
        for future in (searching, deleting):
            if future is not None:
                future.cancel()
                await asyncio.wait([future])
                if not future.cancelled():
                    future.exception()  # it has been raised, or an earlier one matters more


def _search(node: ServerNode, cursor: bytes, glob: bytes) -> asyncio.Future[Any]:
    return node.call(pack(b"SCAN", cursor, b"MATCH", glob, b"COUNT", COUNT))


def _found(reply: Any) -> tuple[bytes, list[bytes]]:
    """Return the cursor and the keys; clients that are not ours make an int of the cursor."""
    cursor, keys = reply
    return cursor if isinstance(cursor, bytes) else str(cursor).encode(), keys


def _is_text(key: bytes) -> bool:
    """Whether the key is UTF-8; no other is ours."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
