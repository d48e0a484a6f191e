"""Walking over a server's keys: listing a namespace, and deleting one without ever blocking the server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from storeconf.stores.resp.bulk import send_all
from storeconf.stores.resp.errors import ReplyError, TransportError
from storeconf.stores.resp.protocol import pack
from storeconf.stores.resp.transport import WRITE

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from storeconf.stores.resp.transport import ServerNode, Transport

__all__ = ["delete_tree", "walk"]

COUNT = 2000
"""Keys that one SCAN looks at: fewer cost round trips, more hold up the server's other clients for milliseconds.

Of what was tried, the least that deletes 100,000 of 1,000,000 keys no slower than a script does on every server.
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
    """What one `delete_tree` deletes."""

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
                    future.exception()  # it has been raised, or what went before it matters more


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
