"""The transport of a primary that Sentinels watch: they are asked at every connect, and they announce a failover."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING

from storeconf.stores.resp.connect import RawConnection, connect_raw
from storeconf.stores.resp.connection import Connection
from storeconf.stores.resp.errors import LoginRefusedError, NotConnectedError, ReplyError, TransportError, reason
from storeconf.stores.resp.transport import NobodyAnswersError, StandaloneTransport, first_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storeconf.stores.resp.driver import ServerEndpoint
    from storeconf.stores.resp.options import Address, ServerOptions

__all__ = ["SentinelTransport"]

log: logging.Logger = logging.getLogger("storeconf.stores")

HEARTBEAT = 5.0
"""Seconds between two looks at whether the Sentinel that announces failovers is still there."""

PAUSE = 0.25
"""Seconds between two attempts to listen to a Sentinel."""

LONGEST_PROMOTION = 5.0
"""Seconds within which the Sentinels agree with the promotion that we have seen."""

PAUSE_BETWEEN_ROLES = 0.01
"""Seconds between two looks at whether a server has been promoted."""


class SentinelTransport(StandaloneTransport):
    """The primary of a service.

    A planned failover leaves the old primary writable for seconds, and the writes that it takes then are lost. So the
    Sentinels are listened to, and the promotion that they announce ends the connection to the old primary.
    """

    topology = "sentinel"

    def __init__(
        self, template: ServerEndpoint, sentinels: Sequence[ServerEndpoint], service: str, options: ServerOptions
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._primary: Address | None = None
        self._promoted: tuple[Address, float] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        super().__init__(template, options)

    def _connection(self, options: ServerOptions) -> Connection:
        return Connection(
            self._connect,
            timeout=options.command_timeout,
            peer=f"the primary of {self._service}",
            store=self.endpoint.store,
        )

    async def _connect(self) -> tuple[asyncio.Transport, str]:
        raw, peer = await self._connect_to_primary(self.endpoint)
        return raw.detach(), f"{peer}, primary of {self._service}"

    async def raw_connection(self, protocol: int) -> RawConnection:
        """Return a new connection to the primary that speaks that version of RESP."""
        raw, _ = await self._connect_to_primary(replace(self.endpoint, protocol=protocol))
        return raw

    async def _connect_to_primary(self, template: ServerEndpoint) -> tuple[RawConnection, str]:
        if self._watcher is None or self._watcher.done():  # done: cancelled by somebody
            self._watcher = Context().run(self.loop.create_task, self._watch())
        deadline = self.loop.time() + self._connect_timeout
        address = await self._find(deadline)
        if self._promoted is not None and self._is_outdated(address):
            address = self._promoted[0]
        self._primary = address
        endpoint = template.at(address)
        raw = await connect_raw(endpoint, deadline - self.loop.time())
        try:
            async with asyncio.timeout_at(deadline):
                role = (await raw.ask("ROLE"))[0]
        except ReplyError as error:
            # A user that may not ask has to trust the Sentinels.
            log.debug("ROLE is not permitted at %s: %s", endpoint.label, reason(error))
            role = b"master"
        except TimeoutError as error:
            raw.abort()
            raise NotConnectedError(f"{endpoint.label} did not answer in time", cause=error) from error
        except BaseException:
            raw.abort()
            raise
        if role != b"master":
            raw.abort()
            raise NotConnectedError(
                f"the Sentinels name {endpoint.label} as the primary of {self._service!r}, but it is a {role.decode()}"
            )
        if address != self._primary:
            raw.abort()
            raise NotConnectedError(f"{endpoint.label} is not the primary of {self._service!r} any longer")
        return raw, endpoint.address

    async def _find(self, deadline: float) -> Address:
        """Ask the Sentinels for the primary; the one that knew comes first the next time."""
        store = self.endpoint.store
        try:
            async with asyncio.timeout_at(deadline):
                endpoint, found = await first_answer(self._sentinels, self._ask_new)
        except TimeoutError as error:
            names = ", ".join(endpoint.address for endpoint in self._sentinels)
            text = f"no Sentinel names the primary of {self._service!r} (store {store!r}) in time: {names}"
            raise NotConnectedError(text, cause=error) from error
        except NobodyAnswersError as error:
            told = [
                reason(failure) if isinstance(failure, TransportError) else f"{endpoint.label}: {reason(failure)}"
                for endpoint, failure in error.failures
            ]
            causes = [failure.__cause__ for _, failure in error.failures]
            refusal = next((cause for cause in causes if isinstance(cause, ReplyError)), None)
            text = f"no Sentinel names the primary of {self._service!r} (store {store!r}): {'; '.join(told)}"
            if any(isinstance(failure, LoginRefusedError) and failure.rotating for _, failure in error.failures):
                raise LoginRefusedError(text, rotating=True) from None
            raise NotConnectedError(text, cause=refusal) from refusal
        self._sentinels.remove(endpoint)
        self._sentinels.insert(0, endpoint)
        return found

    async def _ask_new(self, endpoint: ServerEndpoint) -> Address:
        within = self._connect_timeout / 2
        raw = await connect_raw(endpoint, within)
        try:
            async with asyncio.timeout(within):
                found = await self._ask(raw)
        finally:
            raw.abort()
        if found is None:
            raise NotConnectedError(f"{endpoint.label} knows no service {self._service!r}")
        return found

    async def _ask(self, raw: RawConnection) -> Address | None:
        found = await raw.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return None if found is None else (found[0].decode(), int(found[1]))

    # ------------------------------------------------------------------ failovers

    async def _watch(self) -> None:
        """Listen to every Sentinel: one of them leads a failover, the others learn of it seconds later."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self._sentinels:
                group.create_task(self._watch_one(endpoint))

    async def _watch_one(self, endpoint: ServerEndpoint) -> None:
        while True:
            try:
                await self._listen(endpoint)
            except Exception as error:  # noqa: BLE001 - after any failure, the next attempt may succeed
                log.debug("lost the announcements of Sentinel %s: %s", endpoint.label, reason(error))
            await asyncio.sleep(PAUSE)

    async def _listen(self, endpoint: ServerEndpoint) -> None:
        """Return, or raise, when that Sentinel is gone."""
        raw = await connect_raw(endpoint, self._connect_timeout)
        try:
            async with asyncio.timeout(self._connect_timeout):
                # Announcements while nobody listened show in the answer.
                self._compare(await self._ask(raw))
            messages = raw.subscribe("+switch-master", "+selected-slave")
            knocked = False
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        message = await messages.get()
                except TimeoutError:
                    if knocked:
                        raise
                    knocked = True
                    raw.probe()
                    continue
                if message is None:
                    return
                knocked = False
                if message[0] == b"message":
                    self._on_message(message[1], message[2].decode().split())
        finally:
            raw.abort()

    def _on_message(self, channel: bytes, words: list[str]) -> None:
        if channel == b"+switch-master":  # service, old host and port, new host and port
            if words[0] == self._service:
                self._compare((words[3], int(words[4])))
        elif words[5] == self._service and (self._follower is None or self._follower.done()):
            # "slave", its name, host and port, "@", service, host and port of the old primary
            self._follower = self.loop.create_task(self._follow((words[2], int(words[3]))))

    async def _follow(self, chosen: Address) -> None:
        """Watch the server that is about to be promoted: Sentinels notice its promotion up to a second later."""
        endpoint = self.endpoint.at(chosen)
        with suppress(TimeoutError, ReplyError):  # then the Sentinels' own announcement has to do
            async with asyncio.timeout(LONGEST_PROMOTION):
                while not await self._is_primary(endpoint):  # noqa: ASYNC110 - no event tells of another process
                    await asyncio.sleep(PAUSE_BETWEEN_ROLES)
            self._promoted = (chosen, self.loop.time())
            self._compare(chosen)

    @staticmethod
    async def _is_primary(endpoint: ServerEndpoint) -> bool:
        """Ask the server until it is one, or closes the connection, as a promoted one does."""
        with suppress(TransportError):
            raw = await connect_raw(endpoint, LONGEST_PROMOTION)
            try:
                while True:
                    role = await raw.ask("ROLE")
                    if role[0] == b"master":
                        return True
                    await asyncio.sleep(PAUSE_BETWEEN_ROLES)
            finally:
                raw.abort()
        return False

    def _compare(self, address: Address | None) -> None:
        if address is not None and self._primary is not None and address != self._primary:
            if self._is_outdated(address):
                return
            self._primary = address
            for connection in self._connections:
                connection.drop("another server has become the primary")
                connection.retry_now()
            if self._listener is not None:
                self._listener.drop()

    def _is_outdated(self, address: Address) -> bool:
        """Whether a Sentinel has not noticed the change yet that we have seen."""
        return (
            self._promoted is not None
            and address != self._promoted[0]
            and self.loop.time() - self._promoted[1] < LONGEST_PROMOTION
        )

    def abort(self) -> None:
        """Let go of every connection, now."""
        for task in (self._watcher, self._follower):
            if task is not None:
                task.cancel()
        super().abort()

    async def close(self) -> None:
        """Let go of every connection, and wait for that."""
        tasks = [task for task in (self._watcher, self._follower) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().close()
