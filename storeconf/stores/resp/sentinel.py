"""The lane of a primary that Sentinels watch: who is asked at every connect, and who announces a failover."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from storeconf.stores.resp.dial import Talk, talk_to
from storeconf.stores.resp.errors import LinkDownError, LinkError, ReplyError, reason
from storeconf.stores.resp.lane import StandaloneLane
from storeconf.stores.resp.link import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storeconf.stores.resp.options import Address, ServerOptions
    from storeconf.stores.resp.settings import Endpoint

__all__ = ["SentinelLane"]

log = logging.getLogger("storeconf.stores")

HEARTBEAT = 5.0
"""Seconds between two looks at whether the Sentinel that announces failovers is still there."""

PAUSE = 0.25
"""Seconds between two rounds of looking for a Sentinel that is there."""


class SentinelLane(StandaloneLane):
    """The primary of a service.

    A planned failover leaves the old primary writable for seconds, and what it takes then is lost. So one Sentinel is
    listened to, and its announcement ends the connection to the old primary.
    """

    topology = "sentinel"

    def __init__(self, template: Endpoint, sentinels: Sequence[Endpoint], service: str, options: ServerOptions) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._primary: Address | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._connect_timeout = options.connect_timeout
        super().__init__(template, options)

    def _link(self, options: ServerOptions) -> Link:
        return Link(self._dial, timeout=options.command_timeout, connect_timeout=options.connect_timeout)

    async def _dial(self) -> tuple[asyncio.Transport, str]:
        if self._watcher is None:
            self._watcher = self.loop.create_task(self._watch())
        address = await self._find()
        self._primary = address
        talk = await talk_to(self.endpoint.at(address))
        peer = f"{address[0]}:{address[1]}"
        try:
            role = (await talk.ask("ROLE"))[0]
        except ReplyError as error:
            # Who may not ask has to trust the Sentinels.
            log.debug("%s does not tell its role: %s", peer, reason(error))
            role = b"master"
        except BaseException:
            talk.transport.abort()
            raise
        if role != b"master":
            talk.transport.abort()
            raise LinkDownError(f"the Sentinels say that {peer} is the primary, but it is a {role.decode()}")
        return talk.transport, f"{peer}, primary of {self._service}"

    async def _find(self) -> Address:
        """Ask the Sentinels for the primary, one after the other; the one that knew comes first the next time."""
        failures = []
        refusal: BaseException | None = None
        for endpoint in list(self._sentinels):
            try:
                async with asyncio.timeout(self._connect_timeout / 2):
                    talk = await talk_to(endpoint)
                    try:
                        found = await self._ask(talk)
                    finally:
                        talk.transport.abort()
            except (OSError, LinkError, ReplyError) as error:
                failures.append(str(error) if isinstance(error, LinkError) else f"{endpoint.address}: {reason(error)}")
                refusal = error.__cause__ if isinstance(error.__cause__, ReplyError) else refusal
                continue
            if found is not None:
                self._sentinels.remove(endpoint)
                self._sentinels.insert(0, endpoint)
                return found
            failures.append(f"{endpoint.address} knows no service {self._service!r}")
        raise LinkDownError(f"no Sentinel tells the primary of {self._service!r}: {'; '.join(failures)}", cause=refusal)

    async def _ask(self, talk: Talk) -> Address | None:
        found = await talk.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return None if found is None else (found[0].decode(), int(found[1]))

    # ------------------------------------------------------------------ failovers

    async def _watch(self) -> None:
        """Listen to one Sentinel after the other, for as long as each is there."""
        while True:
            for endpoint in list(self._sentinels):
                try:
                    await self._listen(endpoint)
                except (OSError, LinkError, ReplyError) as error:
                    log.debug("the Sentinel %s announces nothing any more: %s", endpoint.address, reason(error))
                await asyncio.sleep(PAUSE)

    async def _listen(self, endpoint: Endpoint) -> None:
        """Return, or raise, when that Sentinel is gone."""
        async with asyncio.timeout(self._connect_timeout):
            asking = await talk_to(endpoint)
        try:
            async with asyncio.timeout(self._connect_timeout):
                talk = await talk_to(endpoint)
            try:
                heard = talk.subscribe("+switch-master")
                while True:
                    # Also once after the subscription: what was announced before it has been missed.
                    async with asyncio.timeout(self._connect_timeout):
                        self._compare(await self._ask(asking))
                    try:
                        async with asyncio.timeout(HEARTBEAT):
                            message = await heard.get()
                    except TimeoutError:
                        continue
                    if message is None:
                        return
                    if message[0] == b"message":
                        words = message[2].decode().split()
                        if words[0] == self._service:
                            self._compare((words[3], int(words[4])))
            finally:
                talk.transport.abort()
        finally:
            asking.transport.abort()

    def _compare(self, address: Address | None) -> None:
        if address is not None and self._primary is not None and address != self._primary:
            self._primary = address
            for link in self._links:
                link.drop("the Sentinels have made another server the primary")

    def abort(self) -> None:
        """Let go of every connection, now."""
        if self._watcher is not None:
            self._watcher.cancel()
        super().abort()

    async def close(self) -> None:
        """Let go of every connection, and wait for that."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        await super().close()
